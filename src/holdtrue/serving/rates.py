"""How often a token or a service may be asked: one count for all workers of a machine.

The generic cell rate algorithm (ITU-T I.371): of each name, the moment is kept at which it will have used up what it
has asked for; a request is refused if that lies too far ahead. The counts live in LMDB, which all workers share, and
none waits for the disk for them: after a failure of the machine everybody begins anew.
"""

import math
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

import lmdb

from holdtrue.core.errors import HoldtrueError, Unavailable
from holdtrue.storage import make_folder

_BURST_SECONDS: Final = 2.0
_MAP: Final = 16 << 20
_KEPT: Final = struct.Struct("<qd")
_SECOND: Final = 1_000_000_000


class TooOften(HoldtrueError):
    """A token or a service is asked more often than is declared for it."""

    code = "too_often"
    status = 429


def unlimited(name: str, rate: float, what: str) -> None:
    """Count nothing: what asks in a process of its own waits for nobody."""


class Rates:
    """Hold callers to their rates; the counts are opened when the first rate is met.

    `monotonic` gives the machine's nanoseconds, the same in every process of it.
    """

    def __init__(self, path: Path, monotonic: Callable[[], int]) -> None:
        self._path = path
        self._monotonic = monotonic
        self._env: lmdb.Environment | None = None

    def take(self, name: str, rate: float, what: str) -> None:
        """Count one request of `name`, of which `rate` a second are allowed; raise TooOften, saying when to come back.

        What was not asked for two seconds may come at once, and one request always may. `what` tells in an error whose
        rate it is.
        """
        each = max(round(_SECOND / rate), 1)
        allowed = max(round(_BURST_SECONDS * _SECOND) - each, 0)
        now = self._monotonic()
        key = name.encode()
        try:
            with self._open().begin(write=True) as transaction:
                kept = transaction.get(key)
                until, before = _KEPT.unpack(kept) if kept else (now, rate)
                # Under another rate everybody begins anew.
                until = max(until, now) if before == rate else now
                if until - now <= allowed:
                    transaction.put(key, _KEPT.pack(until + each, rate))
                    return
        except lmdb.Error as error:
            raise Unavailable("Requests cannot be counted now.", why=str(error)) from None
        wait = math.ceil((until - now - allowed) / _SECOND)
        raise TooOften(
            f"{what} is asked too often.",
            why=f"It allows {rate:g} requests a second.",
            mend=f"Try again in {wait} s, or have the rate raised.",
            facts={"retry_after": wait, "rate": rate},
        )

    def close(self) -> None:
        """Close the counts."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def _open(self) -> lmdb.Environment:
        if self._env is None:
            folder = make_folder(self._path / _boot())
            # What the last run of the machine left may be torn, since nothing is synced, and counts no more.
            for other in self._path.iterdir():
                if other != folder:
                    shutil.rmtree(other, ignore_errors=True)
            self._env = lmdb.open(
                str(folder), map_size=_MAP, sync=False, metasync=False, writemap=True, max_readers=512, mode=0o600
            )
        return self._env


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return f"pid-{os.getppid()}"
