"""Test doubles that are part of the product: real servers with faults on demand."""
