"""The one writing thread: it runs the work that waits, commits once for all, and then answers each.

An error of the disk while committing leaves the outcome unknown, and a second fsync would lie
(the kernel drops the dirty page and reports once). So the writer stops at the first such error and
never writes again; a full disk, found before anything is promised, only refuses that work.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from holdtrue.core.actor import SYSTEM
from holdtrue.core.clock import Clock
from holdtrue.core.errors import HoldtrueError, Unavailable
from holdtrue.storage.ledger.backend import WritingConnection
from holdtrue.storage.ledger.checkpoints import Checkpointer
from holdtrue.storage.ledger.events import Head
from holdtrue.storage.ledger.idempotency import recall, remember
from holdtrue.storage.ledger.transaction import Transaction, WriteContext

T = TypeVar("T")

_BATCH = 128
_WAITING = 4096
_JUMP_SECONDS = 60
_log = logging.getLogger("holdtrue.ledger")


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
        database: WritingConnection,
        clock: Clock,
        head: Head,
        checkpointer: Checkpointer,
    ) -> None:
        self._database = database
        self._clock = clock
        self._head = head
        self._checkpointer = checkpointer
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._failure: HoldtrueError | None = None
        self.observer: Callable[[frozenset[str]], None] | None = None
        self.scrubbed = True
        self._moment = (clock.now(), clock.monotonic())
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
        if batch.scrubbed:
            self._scrub()
        for job, result, error in batch.outcomes:
            if error is None:
                job.answer.set_result(result)
            else:
                job.answer.set_exception(error)
        self._tend(len(batch.outcomes))

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
        self._database.begin(self._head)
        now, ticks = self._clock.now(), self._clock.monotonic()
        jump = (now - self._moment[0]).total_seconds() - (ticks - self._moment[1])
        if abs(jump) > _JUMP_SECONDS:
            tx = Transaction(WriteContext(SYSTEM, ""), self._database, self._head)
            tx.begin(now)
            tx.emit("clock.jumped", "clock", {"seconds": round(jump)})
            self._head = tx.head
        self._moment = (now, ticks)

    def _one(self, batch: "_Batch", job: Job) -> None:
        """Run one job in a savepoint of its own; raise only if the whole transaction is lost."""
        tx = Transaction(job.context, self._database, self._head)
        tx.begin(self._clock.now())
        self._database.set_savepoint()
        try:
            earlier = recall(tx)
            result = earlier.value if earlier else job.work(tx)
            if earlier is None:
                remember(tx, result)
            self._database.keep()
        except BaseException as error:
            if self._database.is_fatal(error):
                raise
            self._database.undo()
            batch.outcomes.append((job, None, self._database.refusal(error)))
            return
        self._head = tx.head
        batch.sealed = batch.sealed or tx.sealed
        batch.scrubbed = batch.scrubbed or tx.scrubbed
        batch.actions |= tx.actions
        batch.outcomes.append((job, result, None))

    def _commit(self, batch: "_Batch") -> None:
        now = self._clock.now()
        seal = None
        if self._checkpointer.due(self._head, now, wanted=batch.sealed):
            seal = self._checkpointer.write(self._database, self._head, now)
        self._database.commit()
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
        if not self._database.wrote_nothing(error):
            self._stop(error)
        if self._database.in_transaction:
            try:
                self._database.rollback()
            except self._database.errors as second:
                if not self._database.wrote_nothing(second):
                    self._stop(second)
        refusal = self._failure or self._database.refusal(error)
        for job, _, own in batch.outcomes:
            if own is None or own is error:
                job.answer.set_exception(refusal)
            else:
                job.answer.set_exception(own)

    def _stop(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error if isinstance(error, HoldtrueError) else _stopped(error)

    def _tend(self, jobs: int) -> None:
        """Let the database do what is due from time to time."""
        try:
            self._database.tend(jobs)
        except self._database.errors as error:
            # All answers given so far are safe where they were committed, also on a full disk.
            if not self._database.wrote_nothing(error):
                self._stop(error)

    def _scrub(self) -> None:
        """Let the database leave nothing of what was deleted, and note whether it did."""
        self.scrubbed = False
        try:
            self.scrubbed = self._database.scrub()
        except self._database.errors as error:
            if not self._database.wrote_nothing(error):
                self._stop(error)

    def _finish(self) -> None:
        """Seal the log before the connection is closed."""
        try:
            self._database.begin(self._head)
            self._commit(_Batch(self._head, sealed=True))
            self._database.finish()
        except (*self._database.errors, HoldtrueError) as error:
            # Nothing acknowledged depends on it: the next start finds all of it.
            self._stop(error)


@dataclass(slots=True)
class _Batch:
    """Hold the head before a commit and, per job, its result or the error that is its answer."""

    start: Head
    outcomes: list[tuple[Job, Any, BaseException | None]] = field(default_factory=list)
    sealed: bool = False
    scrubbed: bool = False
    actions: set[str] = field(default_factory=set[str])


def _stopped(error: BaseException) -> Unavailable:
    return Unavailable(
        "The ledger stopped writing; whether the last changes were kept is not known.",
        why=f"{type(error).__name__}: {error}.",
        mend="Check the disk, then start Holdtrue again: it recovers to a consistent state. Send open "
        "requests again with the same idempotency keys.",
    )
