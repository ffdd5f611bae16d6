"""HTTP routes of this room."""

from typing import Any

from holdtrue.core.access import Permission
from holdtrue.core.codec import dump
from holdtrue.door import Call, Routes
from holdtrue.pipelines import service
from holdtrue.pipelines.model import JobReport, Lease, NewJob

routes = Routes("pipelines")
_JOBS = "/api/projects/{project}/jobs"


@routes.get(_JOBS, Permission.JOBS_READ, summary="List jobs, newest first")
def list_jobs(call: Call) -> Any:
    """Return jobs; `state` and `kind` choose."""
    found = call.read(
        lambda connection: service.jobs(
            connection,
            call.project,
            state=call.query.get("state"),
            kind=call.query.get("kind"),
            before=call.query.get("cursor"),
        )
    )
    return {"items": found, "next": found[-1].id if len(found) == 100 else None}


@routes.post(_JOBS, Permission.JOBS_WRITE, summary="Ask for a job")
def enqueue(call: Call, body: NewJob) -> Any:
    """Put a job into the queue."""
    return call.write(lambda tx: dump(service.enqueue(tx, body.kind, body.payload, unique_key=body.unique_key)))


@routes.get(_JOBS + "/{id}", Permission.JOBS_READ, summary="Show one job")
def show(call: Call) -> Any:
    """Return a job."""
    return call.read(lambda connection: service.job(connection, call.project, call.path["id"]))


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
