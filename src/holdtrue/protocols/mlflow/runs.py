"""Runs: making, ending, logging, searching."""

from typing import Any

import orjson

from holdtrue import tracking
from holdtrue.core.access import Permission
from holdtrue.core.errors import InvalidInput
from holdtrue.door import Call, Routes
from holdtrue.protocols.mlflow.dialect import (
    MLFLOW,
    Fields,
    objects,
    pairs_json,
    run_id,
    several,
    tags_of,
    text,
    texts,
    view_of,
    whole,
)
from holdtrue.tracking import Batch, DatasetInput, ModelLink, NewRun, Run, RunInfo, RunStatus, rules, search
from holdtrue.tracking.model import DATASETS_PER_BATCH, PARAM_LENGTH, TAG_LENGTH, USER_LENGTH, Metric

routes = Routes("protocols.mlflow", MLFLOW)

READ, WRITE = Permission.RUNS_READ, Permission.RUNS_WRITE
BASE = "/api/2.0/mlflow/runs"
_STATUSES = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
_DATASET_LIMITS = {"name": 500, "digest": 36, "schema": 1_048_575, "source": 65_535, "profile": 1_000_000}


def info_json(info: RunInfo) -> dict[str, Any]:
    """Return a run's own fields as the protocol writes them."""
    written: dict[str, Any] = {
        "run_id": info.id,
        "run_uuid": info.id,
        "run_name": info.name,
        "experiment_id": str(info.experiment),
        "user_id": info.user,
        "status": info.status.value,
        "start_time": info.start_ms,
        "artifact_uri": info.artifact_uri,
        "lifecycle_stage": info.lifecycle,
    }
    if info.end_ms is not None:
        written["end_time"] = info.end_ms
    return written


def run_json(run: Run) -> dict[str, Any]:
    """Return a run as the protocol writes it."""
    metrics = [
        {"key": key, "value": "NaN" if nan else value, "timestamp": timestamp, "step": step}
        for key, step, timestamp, value, nan in run.metrics
    ]
    written: dict[str, Any] = {
        "info": info_json(run.info),
        "data": {"metrics": metrics, "params": pairs_json(run.params), "tags": pairs_json(run.tags)},
        "inputs": {
            "dataset_inputs": [_dataset_json(each) for each in run.datasets],
            "model_inputs": [{"model_id": each.model} for each in run.models if each.direction == "input"],
        },
        "outputs": {
            "model_outputs": [
                {"model_id": each.model, "step": each.step} for each in run.models if each.direction == "output"
            ]
        },
    }
    return written


def _dataset_json(row: DatasetInput) -> dict[str, Any]:
    dataset = {
        "name": row.name,
        "digest": row.digest,
        "source_type": row.source_type,
        "source": row.source,
        "schema": row.schema,
        "profile": row.profile,
    }
    return {"tags": pairs_json(row.tags), "dataset": {key: value for key, value in dataset.items() if value}}


def metric_of(each: Fields, what: str) -> Metric:
    """Return a metric that a request holds."""
    return rules.metric(each.get("key"), each.get("value"), each.get("timestamp", 0), each.get("step", 0), what)


def _cut(each: Fields, limit: int) -> Any:
    """Return the value of a parameter or tag, cut where MLflow's server cuts it: no training ends for a long text."""
    value = each.get("value")
    return value[:limit] if isinstance(value, str) else value


@routes.post(f"{BASE}/create", WRITE, summary="Begin a run")
async def create(call: Call, body: Fields) -> Any:
    """Begin a run."""
    start = body.get("start_time")
    wish = NewRun(
        experiment=rules.experiment_id(body.get("experiment_id")),
        user=text(body, "user_id", "")[:USER_LENGTH],
        name=rules.check_text(text(body, "run_name", ""), "run name")[:TAG_LENGTH],
        start_ms=None if start in (None, "") else rules.whole(start, "start_time"),
        tags=tuple(
            rules.tag(each.get("key"), _cut(each, TAG_LENGTH), f"tags[{n}]")
            for n, each in enumerate(objects(body, "tags"))
        ),
    )
    return {"run": run_json(await call.write_async(lambda tx: tracking.create_run(tx, wish)))}


@routes.get(f"{BASE}/get", READ, summary="Show a run")
def get(call: Call, body: Fields) -> Any:
    """Return a run with the newest value of each metric."""
    own = run_id(body)
    return {"run": run_json(call.read(lambda c: tracking.find_run(c, call.project, own)))}


@routes.post(f"{BASE}/update", WRITE, summary="Change a run's status, end or name")
async def update(call: Call, body: Fields) -> Any:
    """Change a run."""
    own, status, end = run_id(body), body.get("status"), body.get("end_time")
    name = text(body, "run_name", "")[:TAG_LENGTH]
    found = None if status is None else _status(status)
    end_ms = None if end in (None, "") else rules.whole(end, "end_time")
    info = await call.write_async(lambda tx: tracking.update_run(tx, own, status=found, end_ms=end_ms, name=name))
    return {"run_info": info_json(info)}


def _status(value: Any) -> RunStatus:
    named = _STATUSES.get(value, value) if isinstance(value, int) else value
    if isinstance(named, str) and named in RunStatus.__members__:
        return RunStatus(named)
    raise InvalidInput(
        f"Invalid value {str(value)[:80]!r} for parameter 'status' supplied.",
        why=f"It must be one of {', '.join(RunStatus)}.",
    )


@routes.post(f"{BASE}/delete", WRITE, summary="Delete a run")
async def delete(call: Call, body: Fields) -> Any:
    """Delete a run."""
    own = run_id(body)
    await call.write_async(lambda tx: tracking.change_run_lifecycle(tx, own, "deleted"))
    return {}


@routes.post(f"{BASE}/restore", WRITE, summary="Restore a run")
async def restore(call: Call, body: Fields) -> Any:
    """Restore a run."""
    own = run_id(body)
    await call.write_async(lambda tx: tracking.change_run_lifecycle(tx, own, "active"))
    return {}


def _of_model(each: Fields, metric: Metric) -> tuple[str, Metric, str, str]:
    return (
        text(each, "model_id"), metric, text(each, "dataset_name", ""), text(each, "dataset_digest", ""),
    )  # fmt: skip


@routes.post(f"{BASE}/log-metric", WRITE, summary="Log one metric")
async def log_metric(call: Call, body: Fields) -> Any:
    """Log one value of one metric; it is on disk when this is answered."""
    if body.get("timestamp") is None:
        raise InvalidInput("Missing value for required parameter 'timestamp'.")
    metric = metric_of(body, "")
    of_models = (_of_model(body, metric),) if body.get("model_id") else ()
    batch = Batch(run_id(body), (metric,), of_models=of_models)
    await call.write_async(tracking.logging(batch))
    return {}


@routes.post(f"{BASE}/log-parameter", WRITE, summary="Set one parameter")
async def log_parameter(call: Call, body: Fields) -> Any:
    """Set one parameter, for good."""
    batch = Batch(run_id(body), params=(rules.param(body.get("key"), _cut(body, PARAM_LENGTH)),))
    await call.write_async(lambda tx: tracking.log(tx, batch))
    return {}


@routes.post(f"{BASE}/set-tag", WRITE, summary="Set one tag of a run")
async def set_tag(call: Call, body: Fields) -> Any:
    """Set one tag."""
    batch = Batch(run_id(body), tags=(rules.tag(body.get("key"), _cut(body, TAG_LENGTH)),))
    await call.write_async(lambda tx: tracking.log(tx, batch))
    return {}


@routes.post(f"{BASE}/delete-tag", WRITE, summary="Remove one tag of a run")
async def delete_tag(call: Call, body: Fields) -> Any:
    """Remove one tag."""
    own, key = run_id(body), text(body, "key")
    await call.write_async(lambda tx: tracking.delete_tag(tx, own, key))
    return {}


@routes.post(f"{BASE}/log-batch", WRITE, summary="Log metrics, parameters and tags at once")
async def log_batch(call: Call, body: Fields) -> Any:
    """Log all of a batch, or nothing of it."""
    metrics, params, tags = objects(body, "metrics"), objects(body, "params"), objects(body, "tags")
    rules.check_batch(len(metrics), len(params), len(tags))
    read = rules.metrics(metrics)
    batch = Batch(
        run_id(body),
        read,
        tuple(rules.param(each.get("key"), _cut(each, PARAM_LENGTH), f"params[{n}]") for n, each in enumerate(params)),
        tuple(rules.tag(each.get("key"), _cut(each, TAG_LENGTH), f"tags[{n}]") for n, each in enumerate(tags)),
        tuple(_of_model(each, metric) for each, metric in zip(metrics, read, strict=True) if each.get("model_id")),
    )
    await call.write_async(tracking.logging(batch))
    return {}


@routes.post(f"{BASE}/log-inputs", WRITE, summary="Note the datasets and models a run used")
async def log_inputs(call: Call, body: Fields) -> Any:
    """Note inputs."""
    wanted = objects(body, "datasets")
    if len(wanted) > DATASETS_PER_BATCH:
        raise InvalidInput(f"A request can hold at most {DATASETS_PER_BATCH} datasets. Got {len(wanted)}.")
    datasets = [_dataset(each, f"datasets[{place}]") for place, each in enumerate(wanted)]
    models = [ModelLink(text(each, "model_id"), "input") for each in objects(body, "models")]
    own = run_id(body)
    await call.write_async(lambda tx: tracking.log_inputs(tx, own, datasets, models))
    return {}


def _dataset(each: Fields, what: str) -> DatasetInput:
    dataset = each.get("dataset")
    if not isinstance(dataset, dict):
        raise InvalidInput(f"Missing value for required parameter '{what}.dataset'.")
    read = {name: text(dataset, name, "") for name in ("name", "digest", "source_type", "source", "schema", "profile")}
    for name in ("name", "digest", "source_type"):
        if not read[name]:
            raise InvalidInput(f"Missing value for required parameter '{what}.dataset.{name}'.")
    for name, limit in _DATASET_LIMITS.items():
        if len(read[name]) > limit:
            raise InvalidInput(f"'{what}.dataset.{name}' exceeds the maximum length of {limit} characters.")
    return DatasetInput(**read, tags=tags_of(each, 500))


@routes.post(f"{BASE}/outputs", WRITE, summary="Note the models a run made")
async def log_outputs(call: Call, body: Fields) -> Any:
    """Note outputs."""
    models = [ModelLink(text(each, "model_id"), "output", whole(each, "step", 0)) for each in objects(body, "models")]
    own = run_id(body)
    await call.write_async(lambda tx: tracking.log_inputs(tx, own, [], models))
    return {}


@routes.post(f"{BASE}/log-model", WRITE, summary="Note a model's description with its run")
async def log_model(call: Call, body: Fields) -> Any:
    """Keep the descriptions of a run's models in its tag, as clients read them back."""
    own, described = run_id(body), text(body, "model_json")
    try:
        model = orjson.loads(described)
    except orjson.JSONDecodeError:
        model = None
    missing = {"artifact_path", "flavors", "utc_time_created", "run_id"} - set(model if isinstance(model, dict) else ())
    if missing:
        raise InvalidInput(f"Malformed model info. Missing: {', '.join(sorted(missing))}.")
    await call.write_async(lambda tx: tracking.note_model(tx, own, model))
    return {}


@routes.post(f"{BASE}/search", READ, summary="Search runs")
def search_runs(call: Call, body: Fields) -> Any:
    """Return a page of runs."""
    wish = search.Search(
        experiments=[rules.experiment_id(each) for each in several(body, "experiment_ids")],
        filter=text(body, "filter", ""),
        view=view_of(body, "run_view_type"),
        limit=whole(body, "max_results", 1000),
        order=texts(body, "order_by"),
        page=text(body, "page_token", ""),
    )
    found, token = call.read(lambda c: search.search_runs(c, call.project, wish))
    answer: dict[str, Any] = {"runs": [run_json(each) for each in found]}
    return answer | ({"next_page_token": token} if token else {})
