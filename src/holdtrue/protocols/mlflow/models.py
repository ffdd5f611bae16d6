"""Logged models: what a run made, before anybody registers it."""

from typing import Any
from urllib.parse import unquote

from holdtrue.core.access import Permission
from holdtrue.core.errors import InvalidInput
from holdtrue.door import Call, Routes
from holdtrue.protocols.mlflow.dialect import (
    MLFLOW,
    Fields,
    number_json,
    objects,
    pairs_json,
    several,
    tags_of,
    text,
    whole,
)
from holdtrue.tracking import Pair, registry, rules
from holdtrue.tracking.model import PARAM_LENGTH, TAG_LENGTH
from holdtrue.tracking.registry import LoggedModel

routes = Routes("protocols.mlflow", MLFLOW)

READ, WRITE = Permission.RUNS_READ, Permission.RUNS_WRITE
BASE = "/api/2.0/mlflow/logged-models"
_STATUSES = {1: "LOGGED_MODEL_PENDING", 2: "LOGGED_MODEL_READY", 3: "LOGGED_MODEL_UPLOAD_FAILED"}


def model_json(row: LoggedModel) -> dict[str, Any]:
    """Return a logged model as the protocol writes it."""
    metrics = []
    for each in row.metrics:
        written = {
            "key": each.key,
            "value": number_json(each.value, each.nan),
            "timestamp": each.timestamp,
            "step": each.step,
            "model_id": row.id,
            "run_id": each.run,
        }
        if each.dataset_name:
            written |= {"dataset_name": each.dataset_name, "dataset_digest": each.dataset_digest}
        metrics.append(written)
    info = {
        "model_id": row.id,
        "experiment_id": str(row.experiment),
        "name": row.name,
        "creation_timestamp_ms": row.created_ms,
        "last_updated_timestamp_ms": row.updated_ms,
        "artifact_uri": row.artifact_uri,
        "status": row.status,
        "model_type": row.model_type,
        "source_run_id": row.source_run,
        "tags": pairs_json(row.tags),
        "registrations": [{"name": name, "version": str(number)} for name, number in row.registrations],
    }
    return {
        "info": {key: value for key, value in info.items() if value != ""},
        "data": {"params": pairs_json(row.params), "metrics": metrics},
    }


def _params(body: Fields) -> list[Pair]:
    return [
        rules.pair(each.get("key"), each.get("value"), PARAM_LENGTH, f"params[{place}]")
        for place, each in enumerate(objects(body, "params"))
    ]


@routes.post(BASE, WRITE, summary="Note a model that a run made")
async def create(call: Call, body: Fields) -> Any:
    """Note a logged model and return where its files go."""
    experiment = rules.experiment_id(body.get("experiment_id"))
    name, kind, run = text(body, "name", ""), text(body, "model_type", ""), text(body, "source_run_id", "")
    params, tags = _params(body), tags_of(body, TAG_LENGTH)
    made = await call.write_async(
        lambda tx: registry.create_logged_model(tx, experiment, name, kind, run, params, tags)
    )
    return {"model": model_json(made)}


@routes.post(f"{BASE}/search", READ, summary="Search logged models")
def search(call: Call, body: Fields) -> Any:
    """Return a page of logged models."""
    experiments = [rules.experiment_id(each) for each in several(body, "experiment_ids")]
    datasets: list[tuple[str, str]] = []
    for each in objects(body, "datasets"):
        name, digest = text(each, "dataset_name", ""), text(each, "dataset_digest", "")
        if not name:
            raise InvalidInput("`dataset_name` in the `datasets` clause must be specified.")
        datasets.append((name, digest))
    found, token = call.read(
        lambda c: registry.search_logged_models(
            c,
            call.project,
            experiments,
            text(body, "filter", ""),
            objects(body, "order_by"),
            datasets,
            whole(body, "max_results", 100),
            text(body, "page_token", ""),
        )
    )
    answer: dict[str, Any] = {"models": [model_json(each) for each in found]}
    return answer | ({"next_page_token": token} if token else {})


@routes.get(f"{BASE}/{{model_id}}", READ, summary="Show a logged model")
def get(call: Call, body: Fields) -> Any:
    """Return a logged model."""
    return {
        "model": model_json(call.read(lambda c: registry.need_logged_model(c, call.project, call.path["model_id"])))
    }


@routes.patch(f"{BASE}/{{model_id}}", WRITE, summary="Say whether a logged model was uploaded whole")
async def finalize(call: Call, body: Fields) -> Any:
    """Change a logged model's status."""
    value = body.get("status")
    status = _STATUSES.get(value, "") if isinstance(value, int) else text(body, "status")
    made = await call.write_async(lambda tx: registry.finish_logged_model(tx, call.path["model_id"], status))
    return {"model": model_json(made)}


@routes.delete(f"{BASE}/{{model_id}}", WRITE, summary="Delete a logged model")
async def delete(call: Call, body: Fields) -> Any:
    """Delete a logged model."""
    await call.write_async(lambda tx: registry.delete_logged_model(tx, call.path["model_id"]))
    return {}


@routes.patch(f"{BASE}/{{model_id}}/tags", WRITE, summary="Set tags of a logged model")
async def set_tags(call: Call, body: Fields) -> Any:
    """Set tags."""
    tags = tags_of(body, TAG_LENGTH)
    made = await call.write_async(lambda tx: registry.add_to_logged_model(tx, call.path["model_id"], tags=tags))
    return {"model": model_json(made)}


@routes.delete(f"{BASE}/{{model_id}}/tags/{{path:path}}", WRITE, summary="Remove a tag of a logged model")
async def delete_tag(call: Call, body: Fields) -> Any:
    """Remove a tag."""
    key = rules.check_key(unquote(call.path["path"]), "tag_key")
    await call.write_async(lambda tx: registry.delete_logged_model_tag(tx, call.path["model_id"], key))
    return {}


@routes.post(f"{BASE}/{{model_id}}/params", WRITE, summary="Set parameters of a logged model")
async def log_params(call: Call, body: Fields) -> Any:
    """Set parameters."""
    params = _params(body)
    await call.write_async(lambda tx: registry.add_to_logged_model(tx, call.path["model_id"], params=params))
    return {}
