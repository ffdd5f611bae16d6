"""The demo: a year of a real model in production, replayed in minutes."""
