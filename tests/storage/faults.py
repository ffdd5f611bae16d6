"""Make the n-th call of the operating system fail, so that every write path is tried broken at each of its steps."""

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

CALLS = ("open", "write", "pwrite", "fsync", "fdatasync", "rename", "mkdir", "unlink", "ftruncate")


class Killed(BaseException):
    """The process ends here: nothing in the code under test may catch it."""


class Fault:
    """What happened: whether the n-th call came at all, and which it was."""

    def __init__(self) -> None:
        self.calls = 0
        self.hit = ""


@contextmanager
def failing(number: int, error: BaseException, calls: Sequence[str] = CALLS) -> Generator[Fault]:
    """Raise `error` from the `number`-th of these `os` functions called in the block (0: from none)."""
    fault = Fault()
    originals = {name: getattr(os, name) for name in calls}

    def wrap(name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            fault.calls += 1
            if fault.calls == number:
                fault.hit = name
                raise error
            return originals[name](*arguments, **options)

        return call

    try:
        for name in calls:
            setattr(os, name, wrap(name))
        yield fault
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def no_space() -> OSError:
    """Return what a full disk answers."""
    return OSError(28, "No space left on device")
