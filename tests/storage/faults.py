"""Make the n-th call of the operating system fail, so that every write path is tried broken at each of its steps."""

import os
from collections.abc import Sequence
from typing import Any, Self

CALLS = ("open", "write", "pwrite", "fsync", "fdatasync", "rename", "mkdir", "unlink", "ftruncate")


class Killed(BaseException):
    """The process ends here: nothing in the code under test may catch it."""


class Fault:
    """Within the block, raise `error` from the `number`-th of these `os` functions called; `hit` tells which it was."""

    def __init__(self, number: int, error: BaseException, calls: Sequence[str] = CALLS) -> None:
        self.hit = ""
        self._number, self._error = number, error
        self._originals = {name: getattr(os, name) for name in calls}
        self._count = 0

    def __enter__(self) -> Self:
        for name, original in self._originals.items():
            setattr(os, name, self._wrap(name, original))
        return self

    def __exit__(self, *_: object) -> None:
        for name, original in self._originals.items():
            setattr(os, name, original)

    def _wrap(self, name: str, original: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self._count += 1
            if self._count == self._number:
                self.hit = name
                raise self._error
            return original(*arguments, **options)

        return call


def no_space() -> OSError:
    """Return what a full disk answers."""
    return OSError(28, "No space left on device")
