"""The gateway: providers, budgets, retries, fallbacks, cache."""
