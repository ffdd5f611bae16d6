"""LLM applications: prompts, retrieval, gateway, guardrails, and what answers with them together."""
