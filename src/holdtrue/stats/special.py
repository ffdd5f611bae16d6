"""The special functions of SciPy, loaded when the first of them is used: loading them takes a quarter of a second.

A server starts without them, and so does every command.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    from scipy import special

    return getattr(special, name)
