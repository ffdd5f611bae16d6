"""Spans of requests from any framework: taken in, searched, shown as traces."""
