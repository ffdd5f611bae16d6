"""Simulated time that several processes share through a file."""

import mmap
import os
from datetime import UTC, datetime
from pathlib import Path

from holdtrue.core.errors import ConfigurationError
from holdtrue.storage.files import write_atomic


class FileClock:
    """Tell the time that stands in a file: 8 bytes, float64 seconds since the epoch, native byte order.

    Whoever sets it moves the time of every process that has the file open.
    """

    def __init__(self, path: Path, start: datetime | None = None) -> None:
        """Open the clock at `path`; with `start`, create it there if it does not exist."""
        if start is not None and not path.exists():
            write_atomic(path, memoryview(bytearray(8)).tobytes())
            self._open(path)
            self.set(start)
            return
        self._open(path)

    def _open(self, path: Path) -> None:
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            raise _unusable(path, "The file does not exist.") from None
        try:
            if os.fstat(descriptor).st_size != 8:
                raise _unusable(path, "The file does not have exactly 8 bytes.")
            self._map = mmap.mmap(descriptor, 8)
        finally:
            os.close(descriptor)
        # A view of one double is read and written in one machine access, so no process sees half a time.
        self._seconds = memoryview(self._map).cast("d")

    def now(self) -> datetime:
        """Return the simulated moment, aware, in UTC."""
        return datetime.fromtimestamp(self._seconds[0], UTC)

    def monotonic(self) -> float:
        """Return the simulated seconds since the epoch."""
        return self._seconds[0]

    def set(self, moment: datetime) -> None:
        """Move every process on this clock to `moment`."""
        self._seconds[0] = moment.timestamp()

    def close(self) -> None:
        """Let go of the file."""
        self._seconds.release()
        self._map.close()


def _unusable(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path} is not a clock file.",
        why=why,
        mend="Give the path of the clock file that the replay made, or leave out --clock for the real time.",
        facts={"path": str(path)},
    )
