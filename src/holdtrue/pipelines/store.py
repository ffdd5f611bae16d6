"""All SQL of this room: the job queue."""

import dataclasses
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from holdtrue.pipelines.model import Job, JobState
from holdtrue.storage.ledger import Timestamp, Transaction, project_table, scoped

jobs = project_table(
    "jobs",
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("payload", sa.JSON, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("unique_key", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("fence", sa.Integer, nullable=False),
    sa.Column("worker", sa.Text),
    sa.Column("lease_until", Timestamp),
    sa.Column("result", sa.JSON),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("requested_by", sa.Text, nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("updated_at", Timestamp, nullable=False),
    sa.Index(None, "project", "state", "id"),
    sa.Index(None, "project", "unique_key"),
)


def save(tx: Transaction, job: Job) -> None:
    """Write a job, new or changed."""
    values = {each.name: getattr(job, each.name) for each in dataclasses.fields(job)}
    values["state"] = job.state.value
    tx.execute(sa.delete(jobs).where(jobs.c.project == job.project, jobs.c.id == job.id))
    tx.execute(sa.insert(jobs).values(**values))


def by_id(connection: sa.Connection, project: str, id: str) -> Job | None:
    """Return a job."""
    row = connection.execute(scoped(jobs, project).where(jobs.c.id == id)).first()
    return None if row is None else _job(row)


def open_with_key(connection: sa.Connection, project: str, key: str) -> Job | None:
    """Return the job of a unique key that has not ended."""
    states = (JobState.QUEUED.value, JobState.LEASED.value)
    query = scoped(jobs, project).where(jobs.c.unique_key == key, jobs.c.state.in_(states))
    row = connection.execute(query).first()
    return None if row is None else _job(row)


def next_free(connection: sa.Connection, project: str, kinds: tuple[str, ...], now: datetime) -> Job | None:
    """Return the oldest job that waits, or whose lease ran out."""
    free = sa.or_(
        jobs.c.state == JobState.QUEUED.value,
        sa.and_(jobs.c.state == JobState.LEASED.value, jobs.c.lease_until < now),
    )
    query = scoped(jobs, project).where(free).order_by(jobs.c.id).limit(1)
    if kinds:
        query = query.where(jobs.c.kind.in_(kinds))
    row = connection.execute(query).first()
    return None if row is None else _job(row)


def list_jobs(
    connection: sa.Connection,
    project: str,
    *,
    state: str | None = None,
    kind: str | None = None,
    before: str | None = None,
    limit: int = 100,
) -> list[Job]:
    """Return jobs, newest first, from the id `before` on."""
    query = scoped(jobs, project).order_by(jobs.c.id.desc()).limit(limit)
    if state is not None:
        query = query.where(jobs.c.state == state)
    if kind is not None:
        query = query.where(jobs.c.kind == kind)
    if before is not None:
        query = query.where(jobs.c.id < before)
    return [_job(row) for row in connection.execute(query)]


def _job(row: sa.Row[Any]) -> Job:
    values = {each.name: getattr(row, each.name) for each in dataclasses.fields(Job)}
    values["state"] = JobState(row.state)
    return Job(**values)
