"""Who takes history into a project's online store does so alone: what it read stays true until it has ended.

An erasure waits for it. Else rows that were read before they were erased would be written after that.
"""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Final

from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import Unavailable

PATIENCE: Final = 300.0
_PAUSE: Final = 0.05


@contextmanager
def taking(folder: Path, project: str, seconds: float = PATIENCE) -> Generator[None]:
    """Hold a project's online store under `folder` against others who take history in; it is free when a process ends.

    Raises Unavailable if somebody else has it for longer than so many seconds.
    """
    descriptor = os.open(folder / f"{project}.taking", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        timer, pause = SystemClock(), Event()
        until = timer.monotonic() + seconds
        while not _locked(descriptor):
            if timer.monotonic() >= until:
                raise Unavailable(
                    f"The online store of {project} is being filled.",
                    why="Who takes history into it does so alone.",
                    mend="Ask again when that has ended.",
                )
            pause.wait(_PAUSE)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
