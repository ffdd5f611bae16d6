"""Follow the routing files: take over what is new, keep what is good, and say so in the ack file."""

import asyncio
import gc
import itertools
import logging
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from holdtrue.core.errors import HoldtrueError
from holdtrue.serving.access import AccessTable, BadAccessFile, read_access
from holdtrue.serving.engine import Engine
from holdtrue.serving.snapshot import BadSnapshot, Snapshot, read_snapshot, write_snapshot
from holdtrue.serving.table import Loaders, build_table
from holdtrue.storage import write_atomic

POLL_SECONDS: Final = 0.1
_RETRY_POLLS: Final = 50
_EXPIRE_POLLS: Final = 10

Stamp = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class RoutingFiles:
    """Name the files between the control plane and one data plane worker."""

    current: Path
    access: Path
    ack: Path
    good: Path

    @classmethod
    def of(cls, home: Path, worker: str) -> "RoutingFiles":
        """Return the paths of `worker` below the data folder `home`."""
        routing = home / "routing"
        return cls(
            routing / "current.json",
            routing / "access.json",
            routing / "acks" / f"{worker}.json",
            routing / "good" / f"{worker}.json",
        )


_YOUNG: Final = 20_000


class Watcher:
    """Keep one engine on the newest good snapshot and its door on the newest access table."""

    def __init__(
        self,
        files: RoutingFiles,
        engine: Engine,
        loaders: Loaders,
        configure: Callable[[Snapshot], None],
        set_access: Callable[[AccessTable], None],
        expire: Callable[[], None],
    ) -> None:
        self._files = files
        self._engine = engine
        self._loaders = loaders
        self._configure = configure
        self._set_access = set_access
        self._expire = expire
        self._log = logging.getLogger("holdtrue.dataplane")
        self._snapshot_stamp: Stamp = None
        self._access_stamp: Stamp = None
        self._access = AccessTable()
        self._snapshot: Snapshot | None = None
        self._refused = ""
        self._unconfigured = ""
        self._acked: bytes = b""
        self._loading: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Load what there is, then follow changes until the block ends."""
        self.start()
        # What is loaded now stays: the collector need not walk it again while requests come and go, nor look after
        # every few requests, whose objects end with them.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG, 20, 20)
        task = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            if self._loading is not None:
                await asyncio.wait({self._loading})
            # A worker that has ended serves nothing; what it said of itself must not count on.
            self._files.ack.unlink(missing_ok=True)

    def start(self) -> None:
        """Take over the last snapshot that was wholly good, then the current one."""
        with suppress(BadSnapshot):
            if self._files.good.exists():
                self._apply(read_snapshot(self._files.good))
        self._read_access()
        self._read_snapshot()
        self._acknowledge()

    async def _follow(self) -> None:
        for poll in itertools.count(1):
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self._look(poll)
            except Exception:  # noqa: BLE001  # one bad look must not be the last
                self._log.exception("The routing files could not be followed; trying again.")

    async def _look(self, poll: int) -> None:
        if poll % _EXPIRE_POLLS == 0:
            self._expire()
        self._read_access()
        if self._loading is not None:
            if not self._loading.done():
                return
            loading, self._loading = self._loading, None
            await loading  # raises what went wrong
        retry = bool(self._engine.table.failed) and poll % _RETRY_POLLS == 0
        if retry or _stamp(self._files.current) != self._snapshot_stamp:
            # Not waited for: a large model takes seconds, and a token that is revoked meanwhile must not live on.
            # Requests go on with the present table.
            self._loading = asyncio.create_task(self._load_snapshot())
        else:
            self._acknowledge()

    async def _load_snapshot(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._read_snapshot)
        self._acknowledge()

    def _read_access(self) -> None:
        stamp = _stamp(self._files.access)
        before = self._access
        if stamp != self._access_stamp:
            self._access_stamp = stamp
            try:
                self._access = read_access(self._files.access)
            except BadAccessFile as error:
                self._log.error("%s The last good one stays in force.", error.what)
        # Expired grants leave here, ten times a second, so that no request has to ask for the time.
        self._access = self._access.at(self._engine.now_us())
        if self._access is not before:
            self._set_access(self._access)

    def _read_snapshot(self) -> None:
        stamp = _stamp(self._files.current)
        self._snapshot_stamp = stamp
        if stamp is None:
            return
        if self._engine.table.sequence < 0:
            self._engine.unread = "The snapshot is being loaded."
        try:
            snapshot = read_snapshot(self._files.current)
        except BadSnapshot as error:
            self._refused = f"{error.what} {error.why}".strip()
            self._log.error("%s", self._refused)
            if self._engine.table.sequence < 0:
                self._engine.unread = self._refused
            return
        self._refused = ""
        self._apply(snapshot)
        table = self._engine.table
        if not table.failed and not table.unserved and not self._unconfigured:
            try:
                write_snapshot(self._files.good, snapshot)
            except (HoldtrueError, OSError) as error:
                self._log.error("The last good snapshot cannot be kept: %s", error)

    def _apply(self, snapshot: Snapshot) -> None:
        # One assignment: a request sees the old table or the new one.
        self._engine.table = build_table(snapshot, self._engine.table, self._loaders)
        self._snapshot = snapshot
        self._engine.unread = ""
        try:
            self._configure(snapshot)
            self._unconfigured = ""
        except HoldtrueError as error:
            self._unconfigured = f"{error.what} {error.why}".strip()
            self._log.error("%s The last good configuration stays in force.", self._unconfigured)

    def _acknowledge(self) -> None:
        """Write the ack file if what it says has changed."""
        table = self._engine.table
        failed: dict[str, str] = dict(table.failed)
        if self._refused:
            failed["snapshot"] = self._refused
        if self._unconfigured:
            failed["gateway"] = self._unconfigured
        ack: dict[str, Any] = {
            "sequence": table.sequence,
            "releases": sorted(table.releases),
            "failed": failed,
            "pid": os.getpid(),
            "dropped": self._engine.dropped + self._engine.applications.dropped,
        }
        data = orjson.dumps(ack)
        if data == self._acked:
            return
        try:
            write_atomic(self._files.ack, data)
            self._acked = data
        except (HoldtrueError, OSError) as error:
            self._log.error("The ack file cannot be written: %s", error)


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
