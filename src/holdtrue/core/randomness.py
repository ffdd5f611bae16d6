"""Random identifiers, many of which are needed."""

import os
from typing import Final

_BLOCK: Final = 4096


class RandomHex:
    """Give random hexadecimal digits from the system's own source, which is asked for many at once.

    Each process needs one of its own: a copy made by a fork would give the same digits again.
    """

    __slots__ = ("_at", "_digits")

    def __init__(self) -> None:
        self._digits = ""
        self._at = 0

    def take(self, count: int) -> str:
        """Return `count` digits, at most 4,096."""
        at = self._at
        if at + count > len(self._digits):
            self._digits, at = os.urandom(_BLOCK).hex(), 0
        self._at = at + count
        return self._digits[at : at + count]
