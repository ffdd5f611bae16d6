"""Registered scorers: kept for clients, which run them."""

from typing import Any

from holdtrue.core.access import Permission
from holdtrue.door import Call, Routes
from holdtrue.protocols.mlflow.dialect import MLFLOW, Fields, text, whole
from holdtrue.tracking import rules, scorers
from holdtrue.tracking.scorers import Scorer

routes = Routes("protocols.mlflow", MLFLOW)

READ, WRITE = Permission.RUNS_READ, Permission.RUNS_WRITE
BASE = "/api/3.0/mlflow/scorers"


def scorer_json(row: Scorer) -> dict[str, Any]:
    """Return a version of a scorer as the protocol writes it."""
    return {
        "experiment_id": row.experiment,
        "scorer_name": row.name,
        "scorer_version": row.version,
        "serialized_scorer": row.body,
        "creation_time": row.created_ms,
        "scorer_id": row.id,
    }


def _version(body: Fields) -> int | None:
    return None if body.get("version") in (None, "") else whole(body, "version", 0)


@routes.post(f"{BASE}/register", WRITE, summary="Register a version of a scorer")
async def register(call: Call, body: Fields) -> Any:
    """Register the next version of a scorer."""
    own = rules.experiment_id(body.get("experiment_id"))
    name, serialized = text(body, "name"), text(body, "serialized_scorer")
    made = await call.write_async(lambda tx: scorers.register(tx, own, name, serialized))
    return {
        "version": made.version,
        "scorer_id": made.id,
        "experiment_id": str(made.experiment),
        "name": made.name,
        "serialized_scorer": made.body,
        "creation_time": made.created_ms,
    }


@routes.get(f"{BASE}/list", READ, summary="List the scorers of an experiment")
def list_scorers(call: Call, body: Fields) -> Any:
    """Return the newest version of each scorer."""
    own = rules.experiment_id(body.get("experiment_id"))
    return {"scorers": [scorer_json(each) for each in call.read(lambda c: scorers.newest(c, call.project, own))]}


@routes.get(f"{BASE}/versions", READ, summary="List the versions of a scorer")
def list_versions(call: Call, body: Fields) -> Any:
    """Return all versions of a scorer."""
    own, name = rules.experiment_id(body.get("experiment_id")), text(body, "name")
    found = call.read(lambda c: scorers.versions(c, call.project, own, name))
    return {"scorers": [scorer_json(each) for each in found]}


@routes.get(f"{BASE}/get", READ, summary="Show a version of a scorer")
def get(call: Call, body: Fields) -> Any:
    """Return a version of a scorer, the newest where none is named."""
    own, name, version = rules.experiment_id(body.get("experiment_id")), text(body, "name"), _version(body)
    return {"scorer": scorer_json(call.read(lambda c: scorers.find(c, call.project, own, name, version)))}


@routes.delete(f"{BASE}/delete", WRITE, summary="Delete a version of a scorer, or all")
async def delete(call: Call, body: Fields) -> Any:
    """Delete a version of a scorer, or all of its name."""
    own, name, version = rules.experiment_id(body.get("experiment_id")), text(body, "name"), _version(body)
    await call.write_async(lambda tx: scorers.delete(tx, own, name, version))
    return {}
