"""A second module of a released class."""

from typing import Any


def double(value: Any) -> Any:
    """Return twice the value."""
    return 2 * value
