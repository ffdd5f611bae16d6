"""The online features of a data plane: looked up for predictions, and brought up to date by events."""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from holdtrue.core.errors import HoldtrueError
from holdtrue.features.model import View
from holdtrue.features.online import OnlineStore, Prepared, open_online
from holdtrue.serving.assembly import Lookup
from holdtrue.serving.lookups import Dated
from holdtrue.storage import make_folder

Columns: TypeAlias = Mapping[str, Sequence[Any]]
# Rows that are checked on the event loop itself: two milliseconds, less than a turn between threads may take.
_AT_ONCE: Final = 512


class Events(Protocol):
    """Bring online features up to date."""

    async def prepare(self, project: str, rows: Mapping[str, tuple[Columns, int]]) -> list[Prepared]:
        """Check the rows of sources (columns and how many rows); raise InvalidInput for what cannot be used."""
        ...

    def take(self, project: str, prepared: Sequence[Prepared]) -> "asyncio.Future[None]":
        """Take in what was prepared; the future is done when it is on the disk."""
        ...


class OnlineFeatures:
    """Hold one online store for each project; `views` gives the views that a project's releases read now.

    Stores are in `folder`, or at the `address` of a Redis or Valkey server. `now_us` dates the arrival of events.
    """

    def __init__(
        self,
        folder: Path,
        views: Callable[[str], Sequence[View]],
        address: str = "",
        now_us: Callable[[], int] | None = None,
    ) -> None:
        self._folder = folder
        self._views = views
        self._address = address
        self._now_us = now_us
        self._stores: dict[str, _Store] = {}

    def lookup(self, project: str) -> Lookup:
        """Return the function that looks features of `project` up."""
        return self._store(project).online.lookup

    def dated(self, project: str) -> Dated:
        """Return the function that looks features of `project` up with the moments of their rows."""
        return self._store(project).online.dated

    async def prepare(self, project: str, rows: Mapping[str, tuple[Columns, int]]) -> list[Prepared]:
        """Check the rows of sources; see `Events`."""
        views = self._views(project)
        wanted = {source: [view for view in views if view.source == source] for source in rows}
        prepared: list[Prepared] = []
        for source, mine in wanted.items():
            columns, count = rows[source]
            if not mine:
                continue
            online = self._store(project).online
            if count <= _AT_ONCE:
                prepared.append(online.prepare(mine, source, columns))
            else:
                prepared.append(await asyncio.to_thread(online.prepare, mine, source, columns))
        return prepared

    def take(self, project: str, prepared: Sequence[Prepared]) -> "asyncio.Future[None]":
        """Take in what was prepared; see `Events`."""
        if prepared:
            return self._store(project).take(prepared)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def close(self) -> None:
        """Finish what waits, then close all stores."""
        while self._stores:
            self._stores.popitem()[1].close()

    def _store(self, project: str) -> "_Store":
        # All calls come from the event loop's thread, so that no folder is opened twice.
        store = self._stores.get(project)
        if store is None:
            # Projects are those of the snapshot, whose names were checked when it was read.
            if not self._address:
                make_folder(self._folder / project)
            online = open_online(self._folder, project, self._address)
            store = self._stores[project] = _Store(online, self._now_us)
        return store


class _Store:
    """Commit the rows of all requests that wait together: while the disk is busy with some, others gather."""

    def __init__(self, online: OnlineStore, now_us: Callable[[], int] | None = None) -> None:
        self.online = online
        self._now_us = now_us
        self._waiting: list[_Waiting] = []
        self._lock = threading.Lock()
        self._committing = False
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="features-commit")

    def take(self, prepared: Sequence[Prepared]) -> "asyncio.Future[None]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            self._waiting.append((prepared, loop, future))
            start = not self._committing
            self._committing = True
        if start:
            self._executor.submit(self._commit_waiting)
        return future

    def close(self) -> None:
        self._executor.shutdown()
        self.online.close()

    def _commit_waiting(self) -> None:
        while True:
            with self._lock:
                batch, self._waiting = self._waiting, []
                if not batch:
                    self._committing = False
                    return
            failure = self._commit(batch)
            if failure is not None and len(batch) > 1:
                # One may have been too much for the disk; each is tried alone.
                for each in batch:
                    _tell(each, self._commit([each]))
                continue
            for each in batch:
                _tell(each, failure)

    def _commit(self, batch: "list[_Waiting]") -> HoldtrueError | None:
        arrived = None if self._now_us is None else self._now_us()
        try:
            self.online.take([each for prepared, _, _ in batch for each in prepared], arrived)
        except HoldtrueError as error:
            return error
        return None


_Waiting: TypeAlias = "tuple[Sequence[Prepared], asyncio.AbstractEventLoop, asyncio.Future[None]]"


def _tell(waiting: _Waiting, failure: HoldtrueError | None) -> None:
    _, loop, future = waiting
    with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
        loop.call_soon_threadsafe(_settle, future, failure)


def _settle(future: "asyncio.Future[None]", failure: HoldtrueError | None) -> None:
    # Done already: the request went over its deadline, or its client went away.
    if future.done():
        return
    if failure is None:
        future.set_result(None)
    else:
        future.set_exception(failure)
