"""HTTP routes of this room."""

from typing import Any

from holdtrue.core.access import Permission
from holdtrue.core.codec import dump
from holdtrue.core.errors import InvalidInput
from holdtrue.door import Call, Routes
from holdtrue.pipelines import service
from holdtrue.pipelines.model import JobFilter, JobReport, JobState, Lease, NewJob

routes = Routes("pipelines")
_JOBS = "/api/projects/{project}/jobs"


@routes.get(_JOBS, Permission.JOBS_READ, summary="List jobs, newest first")
def list_jobs(call: Call) -> Any:
    """Return jobs; `state` and `kind` choose, `cursor` goes on."""
    wanted = JobFilter(_state(call.query.get("state")), call.query.get("kind"), _number(call.query.get("cursor")))
    found = call.read(lambda connection: service.jobs(connection, call.project, wanted))
    more = str(found[-1].number) if len(found) == wanted.limit else None
    return {"items": [dump(each) for each in found], "next": more}


@routes.post(_JOBS, Permission.JOBS_WRITE, summary="Ask for a job")
def enqueue(call: Call, body: NewJob) -> Any:
    """Put a job into the queue."""
    return call.write(lambda tx: dump(service.enqueue(tx, body.kind, body.payload, unique_key=body.unique_key)))


@routes.get(_JOBS + "/{id}", Permission.JOBS_READ, summary="Show one job")
def show(call: Call) -> Any:
    """Return a job."""
    return dump(call.read(lambda connection: service.job(connection, call.project, call.path["id"])))


@routes.post("/api/projects/{project}/lease", Permission.JOBS_LEASE, summary="Lease the next job")
def lease(call: Call, body: Lease) -> Any:
    """Give the caller the next job, or nothing."""
    return call.write(
        lambda tx: {"job": dump(found) if (found := service.lease(tx, body.worker, body.kinds)) else None}
    )


@routes.post(_JOBS + "/{id}/heartbeat", Permission.JOBS_LEASE, summary="Keep a lease")
def heartbeat(call: Call, body: JobReport) -> Any:
    """Prolong a lease."""
    return call.write(lambda tx: dump(service.heartbeat(tx, call.path["id"], body.fence)))


@routes.post(_JOBS + "/{id}/complete", Permission.JOBS_LEASE, summary="Report a job's result")
def complete(call: Call, body: JobReport) -> Any:
    """End a job."""
    return call.write(lambda tx: dump(service.complete(tx, call.path["id"], body.fence, body.result)))


@routes.post(_JOBS + "/{id}/fail", Permission.JOBS_LEASE, summary="Report that a job failed")
def fail(call: Call, body: JobReport) -> Any:
    """End an attempt."""
    return call.write(lambda tx: dump(service.fail(tx, call.path["id"], body.fence, body.reason, final=body.final)))


@routes.post(_JOBS + "/{id}/retry", Permission.JOBS_WRITE, summary="Queue a failed job again")
def retry(call: Call) -> Any:
    """Give a job that was put aside three new attempts."""
    return call.write(lambda tx: dump(service.retry(tx, call.path["id"])))


def _state(text: str | None) -> JobState | None:
    if text is None or text in set(JobState):
        return None if text is None else JobState(text)
    raise InvalidInput(
        f"{text[:80]!r} is not a state of a job.",
        why=f"The states are {', '.join(JobState)}.",
        mend="Use one of these, or leave the state out to get all.",
    )


def _number(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 16):
        raise InvalidInput(
            f"{cursor[:80]!r} is not a cursor.",
            mend="Use the text that a listing gave as “next”, or none to begin.",
        )
    return int(cursor)
