"""Experiments, and what clients ask about the server itself."""

from typing import Any

from holdtrue import tracking
from holdtrue.core.access import Permission
from holdtrue.core.errors import NotFound
from holdtrue.door import Call, Reply, Routes
from holdtrue.protocols.mlflow.dialect import (
    ANSWERS_AS,
    MLFLOW,
    Fields,
    pairs_json,
    several,
    tags_of,
    text,
    texts,
    view_of,
    whole,
)
from holdtrue.tracking import Experiment, rules, search
from holdtrue.tracking.model import EXPERIMENT_TAG_LENGTH

routes = Routes("protocols.mlflow", MLFLOW)

READ, WRITE = Permission.RUNS_READ, Permission.RUNS_WRITE
BASE = "/api/2.0/mlflow/experiments"


def experiment_json(row: Experiment) -> dict[str, Any]:
    """Return an experiment as the protocol writes it."""
    return {
        "experiment_id": str(row.id),
        "name": row.name,
        "artifact_location": row.artifact_location,
        "lifecycle_stage": row.lifecycle,
        "last_update_time": row.updated_ms,
        "creation_time": row.created_ms,
        "tags": pairs_json(row.tags),
    }


@routes.get("/version", READ, summary="Tell which MLflow's protocol is spoken")
def version(call: Call) -> Reply:
    """Answer in plain text, as clients compare it."""
    return Reply(ANSWERS_AS, media_type="text/plain; charset=utf-8")


@routes.get("/api/3.0/mlflow/server-info", READ, summary="Tell MLflow clients what this server offers")
def server_info(call: Call, body: Fields) -> Any:
    """Say that large artifacts may come in parts, and that there are no workspaces."""
    return {
        "store_type": "SqlStore",
        "workspaces_enabled": False,
        "trace_archival_enabled": False,
        "multipart_uploads_enabled": True,
        "multipart_downloads_enabled": False,
    }


@routes.get("/api/3.0/mlflow/server-features", READ, summary="Tell MLflow clients which optional features are on")
def server_features(call: Call, body: Fields) -> Any:
    """Name none."""
    return {}


@routes.post(f"{BASE}/create", WRITE, summary="Make an experiment")
async def create(call: Call, body: Fields) -> Any:
    """Make an experiment."""
    name = rules.experiment_name(body.get("name"))
    location = text(body, "artifact_location", "")
    tags = tags_of(body, EXPERIMENT_TAG_LENGTH)
    made = await call.write_async(lambda tx: tracking.create_experiment(tx, name, location, tags).id)
    return {"experiment_id": str(made)}


@routes.get(f"{BASE}/get", READ, summary="Show an experiment")
def get(call: Call, body: Fields) -> Any:
    """Return an experiment by its id."""
    own = rules.experiment_id(body.get("experiment_id"))
    return {"experiment": experiment_json(call.read(lambda c: tracking.find_experiment(c, call.project, id=own)))}


@routes.get(f"{BASE}/get-by-name", READ, summary="Show an experiment by its name")
def get_by_name(call: Call, body: Fields) -> Any:
    """Return an experiment by its name."""
    name = text(body, "experiment_name")
    return {"experiment": experiment_json(call.read(lambda c: tracking.find_experiment(c, call.project, name=name)))}


def _search(call: Call, body: Fields) -> Any:
    found, token = call.read(
        lambda c: search.search_experiments(
            c,
            call.project,
            filter=text(body, "filter", ""),
            view=view_of(body, "view_type"),
            limit=whole(body, "max_results", 1000),
            order=texts(body, "order_by"),
            page=text(body, "page_token", ""),
        )
    )
    answer: dict[str, Any] = {"experiments": [experiment_json(each) for each in found]}
    return answer | ({"next_page_token": token} if token else {})


@routes.post(f"{BASE}/search", READ, summary="Search experiments")
def post_search(call: Call, body: Fields) -> Any:
    """Return a page of experiments."""
    return _search(call, body)


@routes.get(f"{BASE}/search", READ, summary="Search experiments")
def get_search(call: Call, body: Fields) -> Any:
    """Return a page of experiments."""
    return _search(call, body)


@routes.post(f"{BASE}/delete", WRITE, summary="Delete an experiment with its runs")
async def delete(call: Call, body: Fields) -> Any:
    """Delete an experiment."""
    own = rules.experiment_id(body.get("experiment_id"))
    await call.write_async(lambda tx: tracking.change_experiment_lifecycle(tx, own, "deleted"))
    return {}


@routes.post(f"{BASE}/restore", WRITE, summary="Restore an experiment with its runs")
async def restore(call: Call, body: Fields) -> Any:
    """Restore an experiment."""
    own = rules.experiment_id(body.get("experiment_id"))
    await call.write_async(lambda tx: tracking.change_experiment_lifecycle(tx, own, "active"))
    return {}


@routes.post(f"{BASE}/update", WRITE, summary="Rename an experiment")
async def update(call: Call, body: Fields) -> Any:
    """Rename an experiment."""
    own, name = rules.experiment_id(body.get("experiment_id")), body.get("new_name")
    if name:
        await call.write_async(lambda tx: tracking.rename_experiment(tx, own, name))
    return {}


@routes.post(f"{BASE}/set-experiment-tag", WRITE, summary="Set a tag of an experiment")
async def set_tag(call: Call, body: Fields) -> Any:
    """Set a tag."""
    own = rules.experiment_id(body.get("experiment_id"))
    await call.write_async(lambda tx: tracking.set_experiment_tag(tx, own, body.get("key", ""), body.get("value")))
    return {}


@routes.post(f"{BASE}/delete-experiment-tag", WRITE, summary="Remove a tag of an experiment")
async def delete_tag(call: Call, body: Fields) -> Any:
    """Remove a tag."""
    own, key = rules.experiment_id(body.get("experiment_id")), text(body, "key")
    await call.write_async(lambda tx: tracking.delete_experiment_tag(tx, own, key))
    return {}


@routes.post(f"{BASE}/search-datasets", READ, summary="List the datasets that runs of experiments used")
def search_datasets(call: Call, body: Fields) -> Any:
    """Return names and digests of datasets, each once."""
    numbers = [rules.experiment_id(each) for each in several(body, "experiment_ids")]
    if not numbers:
        raise NotFound("Name the experiments.")
    found = call.read(lambda c: tracking.datasets_used(c, call.project, numbers))
    return {
        "dataset_summaries": [
            {"experiment_id": str(experiment), "name": name, "digest": digest, "context": context}
            for experiment, name, digest, context in found
        ]
    }
