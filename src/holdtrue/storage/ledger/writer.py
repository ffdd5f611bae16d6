"""The one writing thread: it runs the work that waits, commits once for all, and then answers each.

An error of the disk while committing leaves the outcome unknown, and a second fsync would lie
(the kernel drops the dirty page and reports once). So the writer stops at the first such error and
never writes again; a full disk, found before anything is promised, only refuses that work.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias, TypeVar, cast

from holdtrue.core.actor import SYSTEM
from holdtrue.core.clock import Clock
from holdtrue.core.errors import HoldtrueError, Unavailable
from holdtrue.storage.ledger import owing
from holdtrue.storage.ledger.backend import WritingConnection
from holdtrue.storage.ledger.checkpoints import Checkpointer
from holdtrue.storage.ledger.events import Head
from holdtrue.storage.ledger.idempotency import recall, remember
from holdtrue.storage.ledger.transaction import Joint, Owed, Transaction, WriteContext

T = TypeVar("T")

_BATCH = 128
_WAITING = 4096
_REMEMBERED = 10_000
_JUMP_SECONDS = 60
_log = logging.getLogger("holdtrue.ledger")


@dataclass(slots=True)
class Job:
    """Hold one piece of work and the promise of its answer: to a thread, or to a task of an event loop."""

    context: WriteContext
    work: Callable[[Transaction], Any]
    answer: "Future[Any] | asyncio.Future[Any]"

    def is_wanted(self) -> bool:
        """Tell whether its caller still waits; from here on it gets an answer, also if the caller goes away."""
        if isinstance(self.answer, asyncio.Future):
            return not self.answer.cancelled()
        return self.answer.set_running_or_notify_cancel()

    def joins(self, other: "Job") -> bool:
        """Tell whether it is joint work of the same kind as `other`, in the same project."""
        mine, its = self.work, other.work
        return (
            isinstance(mine, Joint)
            and isinstance(its, Joint)
            and mine.together is its.together
            and self.context.project == other.context.project
            and self.context.idempotency_key is None
            and other.context.idempotency_key is None
        )


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
        self._memory: dict[Any, Any] = {}
        self._owed = owing.left(database.sql)
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
        answer: Future[T] = Future()
        self._enqueue(Job(context, work, answer))
        return answer

    def submit_async(self, context: WriteContext, work: Callable[[Transaction], T]) -> "asyncio.Future[T]":
        """Do as `submit` does for a task of the running event loop."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._enqueue(Job(context, work, answer))
        return answer

    def settle(self) -> None:
        """Return once everything that was answered is in its tables; on a full disk it stays where it is safe."""
        if self._owed and threading.current_thread() is not self._thread:
            with contextlib.suppress(HoldtrueError):
                self.submit(owing.HOUSE, owing.nothing).result()

    def _enqueue(self, job: Job) -> None:
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

    def close(self) -> None:
        """Finish what waits, seal the log, and stop the thread."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._wait()) is not None:
            if job.is_wanted():
                self._batch(job)
            if owing.grown(self._owed):
                self._batch(_settling())
        if self._failure is None:
            self._finish()

    def _wait(self) -> Job | None:
        """Return the next job, None at the end; settle what is owed if none comes for a moment."""
        patience = owing.IDLE_SECONDS
        while self._owed and self._failure is None:
            try:
                return self._queue.get(timeout=patience)
            except Empty:
                self._batch(_settling())
                patience = owing.RETRY_SECONDS
        return self._queue.get()

    def _batch(self, first: Job) -> None:
        """Run `first` and what waits behind it in one commit, then answer each."""
        batch = _Batch(self._head, [first], owed=[*self._owed])
        job: Job | None = first
        try:
            if self._failure is not None:
                raise self._failure
            self._begin()
            while job is not None:
                job = self._run_next(batch, job)
            self._commit(batch)
        except BaseException as error:  # noqa: BLE001  # every waiting caller must get an answer
            # Jobs are run in the order in which they were taken: the rest of them has no outcome of its own.
            batch.outcomes += [(each, None, error) for each in batch.taken[len(batch.outcomes) :]]
            self._abandon(batch, error)
            return
        self._owed = batch.owed
        self._tell(batch)
        if batch.scrubbed:
            self._scrub()
        _answer(batch.outcomes)
        self._tend(len(batch.outcomes))

    def _run_next(self, batch: "_Batch", job: Job) -> Job | None:
        """Run a job, together with those behind it that do the same; return the one that comes then."""
        if batch.owed and not (isinstance(job.work, Joint) and job.work.owes):
            self._settle(batch)
        if not job.joins(job):
            # What it changes may be what joint work remembers.
            self._memory.clear()
            self._one(batch, job)
            return self._take(batch)
        jobs = [job]
        following = self._take(batch)
        while following is not None and following.joins(job):
            jobs.append(following)
            following = self._take(batch)
        if not self._together(batch, jobs):
            for each in jobs:
                self._one(batch, each)
        return following

    def _settle(self, batch: "_Batch") -> None:
        """Work off what is owed; what prevents that undoes the whole batch."""
        tx = Transaction(owing.HOUSE, self._database, self._head)
        tx.begin(self._clock.now())
        owing.settle(tx, batch.owed)
        batch.owed = []

    def _take(self, batch: "_Batch") -> Job | None:
        """Take the next job into the batch, unless that is full."""
        job = self._next() if len(batch.taken) < _BATCH else None
        if job is not None:
            batch.taken.append(job)
        return job

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
            if job.is_wanted():
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
        batch.owed += tx.owed
        batch.actions |= tx.actions
        batch.outcomes.append((job, result, None))

    def _together(self, batch: "_Batch", jobs: list[Job]) -> bool:
        """Run joint jobs in one savepoint; tell whether they have outcomes, else each is to be run alone."""
        if len(self._memory) > _REMEMBERED:
            self._memory.clear()
        work = jobs[0].work
        assert isinstance(work, Joint)
        tx = Transaction(jobs[0].context, self._database, self._head, self._memory)
        tx.begin(self._clock.now())
        self._database.set_savepoint()
        try:
            refusals = work.together(tx, [cast("Joint[Any]", job.work).item for job in jobs])
            self._database.keep()
        except BaseException as error:
            self._memory.clear()
            if self._database.is_fatal(error):
                raise
            self._database.undo()
            return False
        batch.owed += tx.owed
        batch.outcomes += [(job, None, refusal) for job, refusal in zip(jobs, refusals, strict=True)]
        return True

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
        self._memory.clear()
        if not self._database.wrote_nothing(error):
            self._stop(error)
        if self._database.in_transaction:
            try:
                self._database.rollback()
            except self._database.errors as second:
                if not self._database.wrote_nothing(second):
                    self._stop(second)
        refusal = self._failure or self._database.refusal(error)
        _answer([(job, None, refusal if own is None or own is error else own) for job, _, own in batch.outcomes])

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
        if self._owed:
            self._batch(_settling())
        try:
            self._database.begin(self._head)
            self._commit(_Batch(self._head, sealed=True))
            self._database.finish()
        except (*self._database.errors, HoldtrueError) as error:
            # Nothing acknowledged depends on it: the next start finds all of it.
            self._stop(error)


Outcome: TypeAlias = tuple[Job, Any, BaseException | None]
"""A job with its result, or the error that is its answer."""


def _answer(outcomes: Sequence[Outcome]) -> None:
    """Answer jobs; tasks of one event loop are woken together.

    To wake a loop costs a system call, at which the interpreter's lock changes hands: once for a commit instead of once
    for each of its jobs.
    """
    tasks: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
    for job, result, error in outcomes:
        if isinstance(job.answer, asyncio.Future):
            tasks.setdefault(job.answer.get_loop(), []).append((job, result, error))
        elif error is None:
            job.answer.set_result(result)
        else:
            job.answer.set_exception(error)
    for loop, mine in tasks.items():
        # A loop that was closed has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_wake, mine)


def _wake(outcomes: Sequence[Outcome]) -> None:
    """Answer tasks, on their own loop; those that were cancelled meanwhile want none."""
    for job, result, error in outcomes:
        if job.answer.done():
            continue
        if error is None:
            job.answer.set_result(result)
        else:
            job.answer.set_exception(error)


@dataclass(slots=True)
class _Batch:
    """Hold the head before a commit, the jobs taken, and of those that ran the result or the error."""

    start: Head
    taken: list[Job] = field(default_factory=list[Job])
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    sealed: bool = False
    scrubbed: bool = False
    actions: set[str] = field(default_factory=set[str])
    owed: list[Owed] = field(default_factory=list[Owed])


def _settling() -> Job:
    """Return the job that only settles what is owed."""
    return Job(owing.HOUSE, owing.nothing, Future())


def _stopped(error: BaseException) -> Unavailable:
    return Unavailable(
        "The ledger stopped writing; whether the last changes were kept is not known.",
        why=f"{type(error).__name__}: {error}.",
        mend="Check the disk, then start Holdtrue again: it recovers to a consistent state. Send open "
        "requests again with the same idempotency keys.",
    )
