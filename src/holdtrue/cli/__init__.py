"""Commands: thin; each opens the one door (the HTTP API), calls it, and prints what it says."""

from holdtrue.cli.main import main

__all__ = ["main"]
