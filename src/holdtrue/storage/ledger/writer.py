"""The one writing thread: it runs the work that waits, commits once for all, and then answers each.

An error of the disk while committing leaves the outcome unknown, and a second fsync would lie
(the kernel drops the dirty page and reports once). So the writer stops at the first such error and
never writes again; a full disk, found before anything is promised, only refuses that work.
"""

import logging
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import sqlalchemy as sa

from holdtrue.core.actor import SYSTEM
from holdtrue.core.clock import Clock
from holdtrue.core.errors import Corrupt, HoldtrueError, StorageFull, Unavailable
from holdtrue.storage.ledger.checkpoints import Checkpointer
from holdtrue.storage.ledger.database import is_damage, is_full, sqlite_code
from holdtrue.storage.ledger.events import Head
from holdtrue.storage.ledger.idempotency import recall, remember
from holdtrue.storage.ledger.transaction import Transaction, WriteContext

T = TypeVar("T")

_BATCH = 128
_WAITING = 4096
_JOBS_BETWEEN_WAL_CHECKPOINTS = 256
_ROWS_BETWEEN_WAL_CHECKPOINTS = 20_000
_JUMP_SECONDS = 60
_log = logging.getLogger("holdtrue.ledger")

# Result codes of SQLite (https://www.sqlite.org/rescode.html).
_BUSY = 5
_IOERR = 10


@dataclass(slots=True)
class Job:
    """Hold one piece of work and the promise of its answer."""

    context: WriteContext
    work: Callable[[Transaction], Any]
    answer: "Future[Any]" = field(default_factory=Future)


class Writer:
    """Own the writing connection and the head of the log; run jobs one after another."""

    def __init__(
        self,
        connection: sa.Connection,
        database: sqlite3.Connection,
        clock: Clock,
        head: Head,
        checkpointer: Checkpointer,
    ) -> None:
        self._connection = connection
        self._database = database
        self._clock = clock
        self._head = head
        self._checkpointer = checkpointer
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._failure: HoldtrueError | None = None
        self.observer: Callable[[frozenset[str]], None] | None = None
        self._jobs, self._rows = 0, database.total_changes
        self._moment = (clock.now(), clock.monotonic())
        self._version = self._data_version()
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> HoldtrueError | None:
        """Return why nothing can be written any more, or None."""
        return self._failure

    @property
    def waiting(self) -> int:
        """Return how many jobs are in line."""
        return self._queue.qsize()

    @property
    def note(self) -> str:
        """Return the newest signed note of the log."""
        return self._checkpointer.seal.note

    def submit(self, context: WriteContext, work: Callable[[Transaction], T]) -> "Future[T]":
        """Queue `work`; the future is answered once it is durable, or with what prevented it."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("work inside a transaction cannot wait for another transaction")
        job = Job(context, work)
        with self._gate:
            if self._closed:
                raise Unavailable("The ledger is closed.", mend="Start Holdtrue again.")
            if self._failure is not None:
                raise self._failure
            if self._queue.qsize() >= _WAITING:
                raise Unavailable(
                    "Too much work waits for the ledger.",
                    why=f"{_WAITING} transactions are in line.",
                    mend="Try again in a moment.",
                )
            self._queue.put(job)
        return job.answer

    def close(self) -> None:
        """Finish what waits, seal the log, and stop the thread."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            # From here on its caller cannot cancel it, so each job that is taken gets an answer.
            if job.answer.set_running_or_notify_cancel():
                self._batch(job)
        if self._failure is None:
            self._finish()

    def _batch(self, first: Job) -> None:
        """Run `first` and what waits behind it in one commit, then answer each."""
        batch = _Batch(self._head)
        job: Job | None = first
        try:
            if self._failure is not None:
                raise self._failure
            self._begin()
            while job is not None:
                self._one(batch, job)
                job = self._next() if len(batch.outcomes) < _BATCH else None
            self._commit(batch)
        except BaseException as error:  # noqa: BLE001  # every waiting caller must get an answer
            if job is not None:
                batch.outcomes.append((job, None, error))
            self._abandon(batch, error)
            return
        self._tell(batch)
        for job, result, error in batch.outcomes:
            if error is None:
                job.answer.set_result(result)
            else:
                job.answer.set_exception(error)
        self._checkpoint_wal(len(batch.outcomes))

    def _next(self) -> Job | None:
        """Take the next waiting job whose caller still wants it, if there is one."""
        while True:
            try:
                job = self._queue.get_nowait()
            except Empty:
                return None
            if job is None:
                self._queue.put(None)
                return None
            if job.answer.set_running_or_notify_cancel():
                return job

    def _begin(self) -> None:
        """Open the transaction; make sure that nobody else wrote since the last one, and note a jump of the clock."""
        self._database.execute("BEGIN IMMEDIATE")
        if self._data_version() != self._version:
            raise Corrupt(
                "Something other than this process wrote to the ledger.",
                why="Exactly one process may write to it; two would fork its history.",
                mend="Stop the other process, then start Holdtrue again.",
            )
        now, ticks = self._clock.now(), self._clock.monotonic()
        jump = (now - self._moment[0]).total_seconds() - (ticks - self._moment[1])
        if abs(jump) > _JUMP_SECONDS:
            tx = Transaction(WriteContext(SYSTEM, ""), self._connection, self._database, self._head)
            tx.begin(now)
            tx.emit("clock.jumped", "clock", {"seconds": round(jump)})
            self._head = tx.head
        self._moment = (now, ticks)

    def _one(self, batch: "_Batch", job: Job) -> None:
        """Run one job in a savepoint of its own; raise only if the whole transaction is lost."""
        tx = Transaction(job.context, self._connection, self._database, self._head)
        tx.begin(self._clock.now())
        self._database.execute("SAVEPOINT job")
        try:
            earlier = recall(tx)
            result = earlier.value if earlier else job.work(tx)
            if earlier is None:
                remember(tx, result)
            self._database.execute("RELEASE job")
        except BaseException as error:
            # A full disk or an I/O error may have ended the whole transaction (SQLite's choice).
            if not self._database.in_transaction or _is_fatal(error):
                raise
            self._database.execute("ROLLBACK TO job")
            self._database.execute("RELEASE job")
            batch.outcomes.append((job, None, _refusal(error)))
            return
        self._head = tx.head
        batch.sealed = batch.sealed or tx.sealed
        batch.actions |= tx.actions
        batch.outcomes.append((job, result, None))

    def _commit(self, batch: "_Batch") -> None:
        now = self._clock.now()
        seal = None
        if self._checkpointer.due(self._head, now, wanted=batch.sealed):
            seal = self._checkpointer.write(self._database, self._head, now)
        self._database.execute("COMMIT")
        if seal is not None:
            self._checkpointer.committed(seal)

    def _tell(self, batch: "_Batch") -> None:
        """Tell the observer what happened; whatever it does, the ledger goes on."""
        if self.observer is None or not batch.actions:
            return
        try:
            self.observer(frozenset(batch.actions))
        except Exception:  # noqa: BLE001  # an observer of the ledger is no part of it
            _log.exception("the observer of the ledger failed")

    def _abandon(self, batch: "_Batch", error: BaseException) -> None:
        """Undo the batch and tell everyone in it; stop for good unless nothing can have been written."""
        self._head = batch.start
        if not _is_passing(error):
            self._stop(error)
        if self._database.in_transaction:
            try:
                self._database.execute("ROLLBACK")
            except sqlite3.Error as second:
                self._stop(second)
        refusal = self._failure or _refusal(error)
        for job, _, own in batch.outcomes:
            if own is None or own is error:
                job.answer.set_exception(refusal)
            else:
                job.answer.set_exception(own)

    def _stop(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error if isinstance(error, HoldtrueError) else _stopped(error)

    def _checkpoint_wal(self, jobs: int) -> None:
        """Move the write-ahead log into the database from time to time, and see if that fails."""
        self._jobs += jobs
        rows = self._database.total_changes - self._rows
        if self._jobs < _JOBS_BETWEEN_WAL_CHECKPOINTS and rows < _ROWS_BETWEEN_WAL_CHECKPOINTS:
            return
        self._jobs, self._rows = 0, self._database.total_changes
        try:
            self._database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            # All answers given so far are safe in the write-ahead log, which on a full disk stays.
            if not _is_passing(error):
                self._stop(error)

    def _finish(self) -> None:
        """Seal the log and fold the write-ahead log in, before the connection is closed."""
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._commit(_Batch(self._head, sealed=True))
            self._database.execute("PRAGMA optimize").fetchall()
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            # Nothing acknowledged depends on it: the next start finds the write-ahead log.
            self._stop(error)

    def _data_version(self) -> int:
        return int(self._database.execute("PRAGMA data_version").fetchone()[0])


@dataclass(slots=True)
class _Batch:
    """Hold the head before a commit and, per job, its result or the error that is its answer."""

    start: Head
    outcomes: list[tuple[Job, Any, BaseException | None]] = field(default_factory=list)
    sealed: bool = False
    actions: set[str] = field(default_factory=set[str])


def _is_fatal(error: BaseException) -> bool:
    code = sqlite_code(error)
    broken = code is not None and code & 0xFF == _IOERR
    return (broken or is_damage(error)) and not is_full(error)


def _is_passing(error: BaseException) -> bool:
    """Tell whether a lost transaction surely wrote nothing, so that the next one may be tried."""
    code = sqlite_code(error)
    return is_full(error) or (code is not None and code & 0xFF == _BUSY)


def _refusal(error: BaseException) -> BaseException:
    """Return the error that a caller gets for `error`."""
    code = sqlite_code(error)
    if is_full(error):
        return StorageFull(
            "The disk is full: this change was not written.",
            why="SQLite found no room. Everything acknowledged before is safe.",
            mend="Make room on the disk of the data folder, then send the request again.",
        )
    if code is not None and code & 0xFF == _BUSY:
        return Unavailable(
            "The ledger is busy.",
            why="Another process holds it, for example a backup tool.",
            mend="Try again in a moment.",
        )
    return error


def _stopped(error: BaseException) -> Unavailable:
    return Unavailable(
        "The ledger stopped writing; whether the last changes were kept is not known.",
        why=f"{type(error).__name__}: {error}.",
        mend="Check the disk, then start Holdtrue again: it recovers to a consistent state. Send open "
        "requests again with the same idempotency keys.",
    )
