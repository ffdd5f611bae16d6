"""The job queue: ask, lease, report. A job is tried three times, then put aside with its reason."""

import dataclasses
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from holdtrue.core.errors import NotFound
from holdtrue.core.ids import new_id
from holdtrue.pipelines import store
from holdtrue.pipelines.model import LEASE_SECONDS, MAX_ATTEMPTS, Job, JobState, LostLease
from holdtrue.storage.ledger import Transaction


def enqueue(tx: Transaction, kind: str, payload: dict[str, Any], *, unique_key: str = "") -> Job:
    """Ask for a job; while one with the same unique key is open, return that one."""
    id = new_id("job", tx.now)
    key = unique_key or id
    already = store.open_with_key(tx.connection, tx.context.project, key)
    if already is not None:
        return already
    job = Job(
        id=id,
        project=tx.context.project,
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
    store.save(tx, job)
    tx.emit("job.queued", f"job:{id}", {"kind": kind, "payload": payload})
    return job


def lease(tx: Transaction, worker: str, kinds: tuple[str, ...] = ()) -> Job | None:
    """Give the oldest free job to `worker`, or None; a job whose leases ran out three times is dead."""
    while True:
        job = store.next_free(tx.connection, tx.context.project, kinds, tx.now)
        if job is None:
            return None
        if job.attempts >= MAX_ATTEMPTS:
            _put_aside(tx, job, "The worker stopped answering three times.")
            continue
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
        store.save(tx, leased)
        return leased


def heartbeat(tx: Transaction, id: str, fence: int) -> Job:
    """Prolong a lease; LostLease if the job was given to another worker."""
    job = _held(tx, id, fence)
    kept = dataclasses.replace(job, lease_until=tx.now + timedelta(seconds=LEASE_SECONDS), updated_at=tx.now)
    store.save(tx, kept)
    return kept


def complete(tx: Transaction, id: str, fence: int, result: Any) -> Job:
    """End a job with its result; reporting the same again changes nothing."""
    job = _found(tx.connection, tx.context.project, id)
    if job.state is JobState.DONE and job.fence == fence:
        return job
    job = _held(tx, id, fence)
    job.check_move(JobState.DONE)
    done = dataclasses.replace(job, state=JobState.DONE, result=result, reason="", updated_at=tx.now)
    store.save(tx, done)
    tx.emit("job.done", f"job:{id}", {"kind": job.kind, "result": result})
    return done


def fail(tx: Transaction, id: str, fence: int, reason: str, *, final: bool = False) -> Job:
    """End an attempt: the job waits for the next, or is put aside after the third (or if `final`)."""
    job = _held(tx, id, fence)
    if final or job.attempts >= MAX_ATTEMPTS:
        return _put_aside(tx, job, reason)
    job.check_move(JobState.QUEUED)
    again = dataclasses.replace(
        job, state=JobState.QUEUED, worker=None, lease_until=None, reason=reason, updated_at=tx.now
    )
    store.save(tx, again)
    tx.emit("job.failed", f"job:{id}", {"kind": job.kind, "attempt": job.attempts}, reason=reason)
    return again


def job(connection: sa.Connection, project: str, id: str) -> Job:
    """Return a job, or raise NotFound."""
    return _found(connection, project, id)


def jobs(
    connection: sa.Connection,
    project: str,
    *,
    state: str | None = None,
    kind: str | None = None,
    before: str | None = None,
    limit: int = 100,
) -> list[Job]:
    """Return jobs, newest first."""
    return store.list_jobs(connection, project, state=state, kind=kind, before=before, limit=limit)


def need_leased(connection: sa.Connection, project: str, id: str) -> Job:
    """Return a job that a worker has now; raise NotFound or LostLease."""
    found = _found(connection, project, id)
    if found.state is not JobState.LEASED:
        raise LostLease(
            f"The job {id} is {found.state.value}, so nothing can be submitted for it.",
            mend="Lease a job first, and submit while the lease stands.",
        )
    return found


def _put_aside(tx: Transaction, job: Job, reason: str) -> Job:
    job.check_move(JobState.DEAD)
    dead = dataclasses.replace(
        job, state=JobState.DEAD, worker=None, lease_until=None, reason=reason, updated_at=tx.now
    )
    store.save(tx, dead)
    tx.emit("job.dead", f"job:{job.id}", {"kind": job.kind, "attempts": job.attempts}, reason=reason)
    return dead


def _held(tx: Transaction, id: str, fence: int) -> Job:
    found = _found(tx.connection, tx.context.project, id)
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
