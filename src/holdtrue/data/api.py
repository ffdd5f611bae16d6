"""HTTP routes of this room."""

from typing import Any

from holdtrue.core.access import Permission
from holdtrue.core.codec import dump
from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.data import service
from holdtrue.data.model import Discard, Ingest, QuarantineState
from holdtrue.door import Call, Routes

routes = Routes("data")


@routes.get("/api/projects/{project}/datasets", Permission.DATA_READ, summary="List datasets")
def list_datasets(call: Call) -> Any:
    """Return each declared dataset with its newest version."""

    def work(connection: Any) -> list[dict[str, Any]]:
        return [_described(connection, call, name) for name in service.datasets(connection, call.project)]

    return {"items": call.read(work), "next": None}


@routes.get("/api/projects/{project}/datasets/{name}", Permission.DATA_READ, summary="Show one dataset")
def show_dataset(call: Call) -> Any:
    """Return a dataset's newest version and its fragments."""
    return call.read(lambda connection: _described(connection, call, call.path["name"]))


@routes.post(
    "/api/projects/{project}/datasets/{name}/deliveries",
    Permission.JOBS_LEASE,
    summary="Record a checked delivery",
)
def accept_delivery(call: Call, body: Ingest) -> Any:
    """Record what the check of a delivered window found."""
    if body.dataset != call.path["name"]:
        raise NotFound.of("dataset", call.path["name"])
    for digest in (body.digest, body.quarantine):
        if digest is not None and not call.stores.blobs.has(digest):
            raise NotFound.of("blob", digest)
    version = call.write(lambda tx: _id(service.accept(tx, body)))
    return {"version": version, "accepted": body.accepted, "quarantined": body.quarantined}


@routes.get("/api/projects/{project}/quarantines", Permission.DATA_READ, summary="List quarantines")
def list_quarantines(call: Call) -> Any:
    """Return quarantined deliveries, oldest first; `state` chooses."""
    text = call.query.get("state")
    if text is not None and text not in set(QuarantineState):
        raise InvalidInput(
            f"{text[:80]!r} is not a state of a quarantine.",
            why=f"The states are {', '.join(QuarantineState)}.",
            mend="Use one of these, or leave the state out to get all.",
        )
    state = None if text is None else QuarantineState(text)
    found = call.read(lambda connection: service.quarantines(connection, call.project, state=state))
    return {"items": [dump(each) for each in found], "next": None}


@routes.post(
    "/api/projects/{project}/quarantines/{id}/discard",
    Permission.DATA_WRITE,
    summary="Give a quarantine up",
)
def discard(call: Call, body: Discard) -> Any:
    """Close a quarantine whose rows will not come again."""
    return call.write(lambda tx: dump(service.discard(tx, call.path["id"], body.reason)))


def _described(connection: Any, call: Call, name: str) -> dict[str, Any]:
    spec = service.dataset(connection, call.project, name)
    if spec is None:
        raise NotFound.of("dataset", name)
    version = service.latest(connection, call.project, name)
    return {
        "name": name,
        "key": spec.key,
        "time": spec.time,
        "columns": [column.name for column in spec.contract.columns],
        "version": None if version is None else version.id,
        "number": 0 if version is None else version.number,
        "fragments": {} if version is None else version.content["fragments"],
    }


def _id(version: Any) -> str | None:
    return None if version is None else version.id
