"""Dialects: what a provider is sent and what it answers, translated from and to OpenAI's form; no I/O."""
