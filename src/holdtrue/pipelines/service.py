"""The job queue: ask, lease, report. A job is tried three times, then put aside with its reason."""

import dataclasses
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from holdtrue.core.errors import NotFound, StateError
from holdtrue.core.ids import new_id
from holdtrue.pipelines import store
from holdtrue.pipelines.model import LEASE_SECONDS, MAX_ATTEMPTS, Job, JobFilter, JobState, LostLease
from holdtrue.storage.ledger import Transaction


def enqueue(tx: Transaction, kind: str, payload: dict[str, Any], *, unique_key: str = "") -> Job:
    """Ask for a job; while one with the same unique key is open, return that one."""
    fresh = new_id("job", tx.now)
    key = unique_key or fresh
    already = store.open_with_key(tx.connection, tx.project, key)
    if already is not None:
        return already
    job = Job(
        id=fresh,
        project=tx.project,
        number=store.next_number(tx.connection, tx.project),
        kind=kind,
        payload=payload,
        state=JobState.QUEUED,
        unique_key=key,
        attempts=0,
        fence=0,
        worker=None,
        lease_until=None,
        result=None,
        reason="",
        requested_by=tx.context.actor.owner,
        created_at=tx.now,
        updated_at=tx.now,
    )
    store.insert(tx, job)
    tx.emit("job.queued", f"job:{fresh}", {"kind": kind, "payload": payload})
    return job


def lease(tx: Transaction, worker: str, kinds: tuple[str, ...] = ()) -> Job | None:
    """Give the oldest waiting job to `worker`, or None.

    Leases that ran out count as failed attempts first, so their jobs wait again or are put aside.
    """
    for late in store.expired(tx.connection, tx.project, tx.now):
        _end_attempt(tx, late, f"The worker {late.worker} did not report in time.")
    job = store.next_queued(tx.connection, tx.project, kinds)
    if job is None:
        return None
    job.check_move(JobState.LEASED)
    leased = dataclasses.replace(
        job,
        state=JobState.LEASED,
        attempts=job.attempts + 1,
        fence=job.fence + 1,
        worker=worker,
        lease_until=tx.now + timedelta(seconds=LEASE_SECONDS),
        updated_at=tx.now,
    )
    store.update(tx, leased)
    return leased


def heartbeat(tx: Transaction, id: str, fence: int) -> Job:
    """Prolong a lease; LostLease if the job was given to another worker."""
    job = _held(tx, id, fence)
    kept = dataclasses.replace(job, lease_until=tx.now + timedelta(seconds=LEASE_SECONDS), updated_at=tx.now)
    store.update(tx, kept)
    return kept


def complete(tx: Transaction, id: str, fence: int, result: Any) -> Job:
    """End a job with its result; reporting the same again changes nothing."""
    job = _found(tx.connection, tx.project, id)
    if job.state is JobState.DONE and job.fence == fence:
        return job
    job = _held(tx, id, fence)
    job.check_move(JobState.DONE)
    done = dataclasses.replace(job, state=JobState.DONE, result=result, reason="", updated_at=tx.now)
    store.update(tx, done)
    tx.emit("job.done", f"job:{id}", {"kind": job.kind, "result": result})
    return done


def fail(tx: Transaction, id: str, fence: int, reason: str, *, final: bool = False) -> Job:
    """End an attempt: the job waits for the next, or is put aside after the third (or if `final`)."""
    return _end_attempt(tx, _held(tx, id, fence), reason, final=final)


def retry(tx: Transaction, id: str) -> Job:
    """Queue a job again that was put aside, with three new attempts; StateError if it was not."""
    job = _found(tx.connection, tx.project, id)
    job.check_move(JobState.QUEUED)
    if job.state is not JobState.DEAD:
        raise StateError.of("job", job.state.value, JobState.QUEUED.value)
    again = dataclasses.replace(job, state=JobState.QUEUED, attempts=0, reason="", updated_at=tx.now)
    store.update(tx, again)
    tx.emit("job.queued", f"job:{id}", {"kind": job.kind, "payload": job.payload}, reason="asked for again")
    return again


def job(connection: sa.Connection, project: str, id: str) -> Job:
    """Return a job, or raise NotFound."""
    return _found(connection, project, id)


def jobs(connection: sa.Connection, project: str, wanted: JobFilter | None = None) -> list[Job]:
    """Return jobs, newest first."""
    return store.list_jobs(connection, project, wanted or JobFilter())


def need_leased(connection: sa.Connection, project: str, id: str) -> Job:
    """Return a job that a worker has now; raise NotFound or LostLease."""
    found = _found(connection, project, id)
    if found.state is not JobState.LEASED:
        raise LostLease(
            f"The job {id} is {found.state.value}, so nothing can be submitted for it.",
            mend="Lease a job first, and submit while the lease stands.",
        )
    return found


def _end_attempt(tx: Transaction, job: Job, reason: str, *, final: bool = False) -> Job:
    """Put a leased job back, or aside if this was its last attempt."""
    state = JobState.DEAD if final or job.attempts >= MAX_ATTEMPTS else JobState.QUEUED
    job.check_move(state)
    ended = dataclasses.replace(job, state=state, worker=None, lease_until=None, reason=reason, updated_at=tx.now)
    store.update(tx, ended)
    told = {"kind": job.kind, "attempt": job.attempts, "worker": job.worker}
    tx.emit("job.dead" if state is JobState.DEAD else "job.failed", f"job:{job.id}", told, reason=reason)
    return ended


def _held(tx: Transaction, id: str, fence: int) -> Job:
    found = _found(tx.connection, tx.project, id)
    if found.state is not JobState.LEASED or found.fence != fence:
        raise LostLease(
            f"The job {id} is no longer yours.",
            why=f"It is {found.state.value}, and its lease has the number {found.fence}, not {fence}.",
            mend="Drop the work: another worker has it, or it has ended.",
        )
    return found


def _found(connection: sa.Connection, project: str, id: str) -> Job:
    found = store.by_id(connection, project, id)
    if found is None:
        raise NotFound.of("job", id)
    return found
