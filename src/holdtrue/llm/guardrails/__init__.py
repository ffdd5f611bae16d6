"""Guardrails: what may go in and come out, measured."""
