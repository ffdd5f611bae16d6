"""The one writing thread: it runs the work that waits, commits once for all, and then answers each.

An error of the disk while committing leaves the outcome unknown, and a second fsync would lie
(the kernel drops the dirty page and reports once). So the writer stops at the first such error and
never writes again; a full disk, found before anything is promised, only refuses that work.
"""

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import sqlalchemy as sa

from holdtrue.core.clock import Clock
from holdtrue.core.errors import Corrupt, HoldtrueError, StorageFull, Unavailable
from holdtrue.storage.ledger.checkpoints import Checkpointer
from holdtrue.storage.ledger.database import sqlite_code
from holdtrue.storage.ledger.events import Head
from holdtrue.storage.ledger.idempotency import recall, remember
from holdtrue.storage.ledger.transaction import Transaction, WriteContext

T = TypeVar("T")

_BATCH = 128
_WAITING = 4096
_COMMITS_BETWEEN_WAL_CHECKPOINTS = 256

_FULL = 13
_IOERR = 10
_IOERR_SHMSIZE = 4874  # the index of the WAL could not grow: nothing was written yet, so this is a full disk


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
        self._commits = 0
        self._version = self._data_version()
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> HoldtrueError | None:
        """Return why nothing can be written any more, or None."""
        return self._failure

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
            self._batch(job)
        if self._failure is None:
            self._seal_at_close()

    def _batch(self, first: Job) -> None:
        """Run `first` and what waits behind it in one commit, then answer each."""
        start = self._head
        done: list[tuple[Job, Any]] = []
        failed: list[tuple[Job, BaseException]] = []
        jobs: list[Job] = [first]
        sealed = False
        try:
            self._begin()
            while jobs and len(done) + len(failed) < _BATCH:
                job = jobs.pop()
                if job.answer.set_running_or_notify_cancel():
                    try:
                        result, wants_seal = self._one(job)
                    except Exception as error:  # noqa: BLE001  # work may raise anything; its caller gets it
                        failed.append((job, self._refusal(error)))
                        if not self._database.in_transaction:
                            raise
                    else:
                        done.append((job, result))
                        sealed = sealed or wants_seal
                self._take(jobs)
            self._commit(sealed)
        except Exception as error:  # noqa: BLE001  # every waiting caller must be answered
            self._abandon(error, start, done, failed, jobs)
            return
        for job, error in failed:
            job.answer.set_exception(error)
        for job, result in done:
            job.answer.set_result(result)
        for job in jobs:
            self._batch(job)

    def _take(self, jobs: list[Job]) -> None:
        """Move the next waiting job, if there is one, from the queue to `jobs`."""
        try:
            job = self._queue.get_nowait()
        except Empty:
            return
        if job is None:
            self._queue.put(None)
        else:
            jobs.append(job)
