"""All SQL of this room: the job queue."""

import dataclasses
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from holdtrue.pipelines.model import Job, JobFilter, JobState
from holdtrue.storage.ledger import Timestamp, Transaction, project_table, scoped

jobs = project_table(
    "jobs",
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
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
    sa.Index(None, "project", "number", unique=True),
    sa.Index(None, "project", "state", "number"),
    sa.Index(None, "project", "unique_key"),
)


def insert(tx: Transaction, job: Job) -> None:
    """Add a job."""
    tx.execute(sa.insert(jobs).values(**_values(job)))


def update(tx: Transaction, job: Job) -> None:
    """Change a job."""
    tx.execute(sa.update(jobs).where(jobs.c.project == job.project, jobs.c.id == job.id).values(**_values(job)))


def next_number(connection: sa.Connection, project: str) -> int:
    """Return the number of the project's next job."""
    query = sa.select(sa.func.coalesce(sa.func.max(jobs.c.number), 0)).where(jobs.c.project == project)
    return connection.execute(query).scalar_one() + 1


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


def next_queued(connection: sa.Connection, project: str, kinds: tuple[str, ...]) -> Job | None:
    """Return the oldest job that waits, of one of `kinds` (of any, if there are none)."""
    query = scoped(jobs, project).where(jobs.c.state == JobState.QUEUED.value)
    if kinds:
        query = query.where(jobs.c.kind.in_(kinds))
    row = connection.execute(query.order_by(jobs.c.number).limit(1)).first()
    return None if row is None else _job(row)


def expired(connection: sa.Connection, project: str, now: datetime) -> list[Job]:
    """Return the jobs whose lease ran out before `now`."""
    query = scoped(jobs, project).where(jobs.c.state == JobState.LEASED.value, jobs.c.lease_until < now)
    return [_job(row) for row in connection.execute(query.order_by(jobs.c.number))]


def list_jobs(connection: sa.Connection, project: str, wanted: JobFilter) -> list[Job]:
    """Return jobs, newest first."""
    query = scoped(jobs, project).order_by(jobs.c.number.desc()).limit(wanted.limit)
    if wanted.state is not None:
        query = query.where(jobs.c.state == wanted.state.value)
    if wanted.kind is not None:
        query = query.where(jobs.c.kind == wanted.kind)
    if wanted.before is not None:
        query = query.where(jobs.c.number < wanted.before)
    return [_job(row) for row in connection.execute(query)]


def _values(job: Job) -> dict[str, Any]:
    values = {each.name: getattr(job, each.name) for each in dataclasses.fields(job)}
    return values | {"state": job.state.value}


def _job(row: sa.Row[Any]) -> Job:
    values = {each.name: getattr(row, each.name) for each in dataclasses.fields(Job)}
    values["state"] = JobState(row.state)
    return Job(**values)
