"""Append records to the journal: one writer per process and name, one segment file at a time."""

import asyncio
import fcntl
import os
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from holdtrue.core.clock import Clock, SystemClock, microseconds
from holdtrue.core.errors import HoldtrueError, Locked, StorageFull, Unavailable
from holdtrue.core.ids import check_name
from holdtrue.storage.files import FULL, storage_error, storing, sync_folder, write_all
from holdtrue.storage.journal.frames import HEADER, encode, encode_header
from holdtrue.storage.journal.records import encode_records, stream_of
from holdtrue.storage.journal.segments import SegmentName, live_segments

Mode = Literal["strict", "fast"]
SEGMENT_BYTES = 64 << 20
SYNC_SECONDS = 1.0
SEGMENT_SECONDS = 3600.0
_STREAMS = 10_000
_FAILURES = 1_000
# Up to so many seconds a sync takes less than two turns between threads do, and the interpreter's lock with them.
_QUICK = 0.0005
_NEWEST = 0.1
# So many segments of fast appends may wait for the disk at a time.
_AHEAD = 1


class _Segment:
    """The open segment file of a writer."""

    __slots__ = ("descriptor", "failure", "fresh", "mark", "opened", "path", "seq", "size")

    def __init__(self, live: Path, name: SegmentName, created: int, opened: float) -> None:
        self.path = live / f"{name.text}.seg"
        temporary = live / f"{name.writer}.new"
        self.descriptor = os.open(temporary, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            # Locked before it has its name, so a sealer never sees it without its writer.
            fcntl.flock(self.descriptor, fcntl.LOCK_EX)
            write_all(self.descriptor, encode_header(created))
            os.rename(temporary, self.path)
        except BaseException:
            os.close(self.descriptor)
            raise
        self.mark = -1
        self.size = HEADER.size
        self.seq = 0
        self.opened = opened
        self.fresh = True
        self.failure: HoldtrueError | OSError | None = None

    def append(self, frame: bytes) -> None:
        """Write one frame wholly, or leave the file as it was."""
        try:
            written = os.write(self.descriptor, frame)
            if written < len(frame):
                write_all(self.descriptor, memoryview(frame)[written:])
        except OSError:
            try:
                os.ftruncate(self.descriptor, self.size)
            except OSError as error:
                self.failure = _unsure(error)
            raise
        self.size += len(frame)
        self.seq += 1

    def sync(self) -> None:
        """Make durable what was written when this was called, and note how far that is."""
        size = self.size
        os.fdatasync(self.descriptor)
        if self.fresh:
            sync_folder(self.path.parent)
            self.mark = os.open(self.path.with_suffix(".mark"), os.O_WRONLY | os.O_CREAT, 0o600)
            self.fresh = False
        # Not synced itself: a mark that is behind only makes the check for cuts weaker, never wrong.
        os.pwrite(self.mark, size.to_bytes(8, "little"), 0)

    def close(self) -> None:
        """Let go of the file, and with it of its lock."""
        os.close(self.descriptor)
        if self.mark >= 0:
            os.close(self.mark)


class Writer:
    """Append frames of records; in mode "strict" durable when `append` returns, in "fast" within a second.

    Threads and coroutines may share a writer: their appends become durable together (group commit).
    """

    def __init__(
        self,
        root: Path,
        name: str,
        mode: Mode,
        clock: Clock,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        sync_seconds: float = SYNC_SECONDS,
    ) -> None:
        """Become the writer `name`; Locked if a live process is it already."""
        self.name = check_name(name, "writer name")
        self._live = root / "live"
        self._strict = mode == "strict"
        self._clock = clock
        # A segment ages by the machine's time: where a year passes in minutes, one for every few hours of it would make
        # thousands of small files.
        self._monotonic = SystemClock().monotonic
        self._segment_bytes = segment_bytes
        self._sync_seconds = sync_seconds
        self._lock_descriptor = _lock(self._live, name)
        self._number = _last_number(root, name)
        self._streams: dict[tuple[str, str, str], bytes] = {}
        self._segment: _Segment | None = None
        self._write_lock = threading.Lock()
        self._sync_lock = threading.Lock()
        # Appends are counted over all segments. (segment, count) is replaced as one value, so a commit
        # reads both without the write lock.
        self._head: tuple[_Segment | None, int] = (None, 0)
        # Segments that take no more appends and are not durable yet, in order, and the last append in each. A commit
        # reads the head before these: so what it makes durable lacks nothing that came before.
        self._ended: deque[tuple[_Segment, int]] = deque()
        self._synced = 0
        # What a sync took of late: unknown is slow.
        self._sync_takes = 1.0
        # (after, last, error): appends after + 1 … last of which nobody knows whether they are durable.
        self._failures: deque[tuple[int, int, HoldtrueError | OSError]] = deque(maxlen=_FAILURES)
        self._untold: HoldtrueError | OSError | None = None
        self._stopped: HoldtrueError | OSError | None = None
        self._waiting: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._committing = False
        self._waiting_lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._request = root / "sealed" / "roll"
        self._requested = self._read_request()
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._background, name=f"journal-{name}", daemon=True)
        self._thread.start()

    def append(self, kind: str, project: str, service: str, columns: Mapping[str, Any], rows: int) -> None:
        """Append `rows` records of one stream as one frame: all of them or none.

        `columns` maps each name to a list (or array) of `rows` values or to one value for all rows; "id"
        (strings) and "time" (int64 microseconds since the epoch) are required. NaN and infinities
        become null. Raises InvalidInput, TooLarge, StorageFull (nothing was written, unless it says so) and
        Unavailable (whether it was written is not known: send it again with the same ids).
        """
        count = self._append(kind, project, service, columns, rows)
        if self._strict:
            self._commit(count)

    async def append_async(self, kind: str, project: str, service: str, columns: Mapping[str, Any], rows: int) -> None:
        """Do as `append` does without blocking the event loop during the disk wait."""
        await self.appending(kind, project, service, columns, rows)

    def appending(
        self, kind: str, project: str, service: str, columns: Mapping[str, Any], rows: int, *, gathered: bool = False
    ) -> "asyncio.Future[None]":
        """Append as `append_async` does and return at once; the future is done when the records are durable.

        What the caller has `gathered` from all that came together is made durable by this thread while the disk is
        quick, which holds up nobody for longer than the turns between two threads would.
        """
        count = self._append(kind, project, service, columns, rows)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if not self._strict:
            future.set_result(None)
            return future
        if gathered and self._sync_takes < _QUICK:
            self._commit(count)
            future.set_result(None)
            return future
        with self._waiting_lock:
            self._waiting.append((count, loop, future))
            start = not self._committing
            self._committing = True
            if start and self._executor is None:
                self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"journal-commit-{self.name}")
        if start and self._executor is not None:
            try:
                self._executor.submit(self._commit_waiting)
            except RuntimeError:  # closed meanwhile, which made everything durable
                self._commit_waiting()
        return future

    def flush(self) -> None:
        """Make everything appended so far durable."""
        self._commit(self._head[1])

    def roll(self) -> None:
        """End the present segment, so that it can be sealed; the next append starts another."""
        with self._write_lock:
            count = self._head[1]
            self._end()
        self._finish()
        self._tell(count)

    def close(self) -> None:
        """Make everything durable and give up the name; a second call does nothing."""
        with self._write_lock:
            if self._closing.is_set():
                return
            self._closing.set()
            count = self._head[1]
            self._end()
            self._stopped = self._stopped or _closed(self.name)
        self._finish()
        self._wake.set()
        self._thread.join()
        if self._executor is not None:
            self._executor.shutdown()
        os.close(self._lock_descriptor)
        self._tell(count)

    def _append(self, kind: str, project: str, service: str, columns: Mapping[str, Any], rows: int) -> int:
        key = (kind, project, service)
        stream = self._streams.get(key)
        if stream is None:
            stream = stream_of(kind, project, service)
            if len(self._streams) >= _STREAMS:
                self._streams.clear()
            self._streams[key] = stream
        records = encode_records(columns, rows)
        with self._write_lock:
            segment = self._segment
            # The failure may be that of a segment before this one.
            failed = self._stopped is not None or self._untold is not None
            if segment is None or segment.failure is not None or failed:
                segment = self._next()
            try:
                segment.append(encode(stream, records, segment.seq))
            except OSError as error:
                raise storage_error(error, f"{rows} journal records") from error
            count = self._head[1] + 1
            self._head = (segment, count)
            is_full = segment.size >= self._segment_bytes
            if is_full:
                self._end()
        if is_full and not self._strict:
            # Strict appends commit. Of fast ones none waits, unless the disk is slower than they are.
            if len(self._ended) > _AHEAD:
                self._finish()
            self._wake.set()
        return count

    def _next(self) -> _Segment:
        """Return the segment to append to, after raising what an earlier sync met. The write lock is held."""
        if self._segment is not None and self._segment.failure is not None:
            self._end()
            self._finish()
        failure, self._untold = self._stopped or self._untold, None
        if failure is not None:
            raise failure.with_traceback(None)  # it is raised many times: its traceback would only grow
        if self._segment is not None:
            return self._segment
        name = SegmentName(self.name, self._number + 1)
        try:
            segment = _Segment(self._live, name, microseconds(self._clock.now()), self._monotonic())
        except OSError as error:
            raise storage_error(error, "journal records") from error
        self._number += 1
        self._segment = segment
        self._head = (segment, self._head[1])
        return segment

    def _end(self) -> None:
        """Let the present segment take no more appends. The write lock is held, and nothing waits for the disk."""
        if self._segment is not None:
            self._ended.append((self._segment, self._head[1]))
            self._segment = None
            self._head = (None, self._head[1])

    def _finish(self) -> None:
        """Make the segments that have ended durable, and close them."""
        with self._sync_lock:
            self._close_ended()

    def _close_ended(self) -> None:
        """Sync and close the segments that have ended, in order; the sync lock is held. Appends go on meanwhile."""
        while self._ended:
            segment, written = self._ended[0]
            self._sync(segment, written)
            self._ended.popleft()
            # Until then no sealer takes it.
            segment.close()

    def _commit(self, count: int) -> None:
        """Return when append number `count` is durable. Who comes first syncs for all that have written."""
        if self._synced < count:
            with self._sync_lock:
                segment, written = self._head
                self._close_ended()
                # One that ended meanwhile is durable up to there and closed.
                if segment is not None and self._synced < count:
                    self._sync(segment, written)
        if self._failures:
            self._raise_failure(count)

    def _sync(self, segment: _Segment, written: int) -> None:
        """Make appends up to `written` durable, or note in `_failures` that this failed."""
        if self._synced >= written:
            return
        if segment.failure is None:
            began = self._monotonic()
            try:
                segment.sync()
                self._sync_takes += _NEWEST * (self._monotonic() - began - self._sync_takes)
            except OSError as error:
                # After a failed fsync the kernel may have dropped the pages: nothing more goes into this
                # file, and fsync is not tried again. A full disk may recover, in a new segment; any other
                # fault stops the writer.
                segment.failure = _unsure(error)
        if segment.failure is not None:
            self._failures.append((self._synced, written, segment.failure))
            if not isinstance(segment.failure, StorageFull):
                self._stopped = segment.failure
            elif not self._strict:
                self._untold = segment.failure
        self._synced = written

    def _tell(self, count: int) -> None:
        """Raise what fast appends were not told; strict ones were, each by its own return."""
        if not self._strict:
            self._raise_failure(count)

    def _raise_failure(self, count: int) -> None:
        for after, last, failure in self._failures:
            if after < count <= last:
                raise failure.with_traceback(None)

    def _commit_waiting(self) -> None:
        """Serve coroutines that wait for durability until none waits; runs in the commit thread."""
        while True:
            with self._waiting_lock:
                batch, self._waiting = self._waiting, []
                if not batch:
                    self._committing = False
                    return
            with suppress(HoldtrueError, OSError):  # told to each coroutine concerned, below
                self._commit(max(count for count, _, _ in batch))
            for loop in {loop for _, loop, _ in batch}:
                mine = [(count, future) for count, other, future in batch if other is loop]
                with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                    loop.call_soon_threadsafe(self._settle, mine)

    def _settle(self, batch: list[tuple[int, asyncio.Future[None]]]) -> None:
        for count, future in batch:
            if future.done():
                continue
            try:
                self._raise_failure(count)
            except (HoldtrueError, OSError) as error:
                future.set_exception(error)
            else:
                future.set_result(None)

    def _background(self) -> None:
        """Sync fast appends every second; end a segment that is old or that a sealer asked for."""
        while not self._closing.is_set():
            self._wake.wait(self._sync_seconds)
            self._wake.clear()
            if self._stopped is not None or self._closing.is_set():
                continue
            with suppress(HoldtrueError, OSError):  # kept in _stopped: the next append raises it
                self.flush()
                if self._ended:
                    self._finish()
                segment = self._segment
                if segment is None:
                    self._requested = self._read_request()
                    continue
                requested = self._read_request()
                if requested != self._requested or self._monotonic() - segment.opened > SEGMENT_SECONDS:
                    self.roll()
                    self._requested = requested

    def _read_request(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._request)
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns


def _lock(live: Path, name: str) -> int:
    """Take the name of a writer, for as long as the descriptor is open; Locked if a live process has it."""
    path = live / f"{name}.writer"
    with storing(f"the lock of journal writer {name}"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Locked(
            f"The journal has a live writer “{name}” already.",
            why="Each process appends to segments of its own, under a name of its own.",
            mend="Give every worker another writer name.",
            facts={"writer": name},
        ) from None
    return descriptor


def _last_number(root: Path, name: str) -> int:
    """Return the highest segment number `name` ever used: numbers are not used twice."""
    names = live_segments(root / "live")
    parsed = (SegmentName.parse(entry.removesuffix(".json")) for entry in os.listdir(root / "sealed" / "manifest"))
    names.extend(entry for entry in parsed if entry is not None)
    return max((entry.number for entry in names if entry.writer == name), default=0)


def _unsure(error: OSError) -> HoldtrueError | OSError:
    if error.errno in FULL:
        return StorageFull(
            "There was no room to make the last journal records durable; they may or may not be stored.",
            why=f"The disk answered: {error.strerror}.",
            mend="Free space on the disk of the data folder, then send the records again with the same ids.",
        )
    return storage_error(error, "journal records")


def _closed(name: str) -> Unavailable:
    return Unavailable(
        f"The journal writer “{name}” is closed.",
        why="Its process is ending.",
        mend="Send the request again; another process answers it.",
    )
