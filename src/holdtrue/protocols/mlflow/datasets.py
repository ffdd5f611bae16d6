"""Evaluation datasets: named sets of cases, changed record by record."""

from typing import Any
from urllib.parse import unquote

import orjson

from holdtrue.core.access import Permission
from holdtrue.core.errors import InvalidInput
from holdtrue.door import Call, Routes
from holdtrue.protocols.mlflow.dialect import MLFLOW, Fields, several, text, texts, whole
from holdtrue.tracking import Pair, cases, rules
from holdtrue.tracking.cases import CaseSet, Record
from holdtrue.tracking.model import TAG_LENGTH

routes = Routes("protocols.mlflow", MLFLOW)

READ, WRITE = Permission.RUNS_READ, Permission.RUNS_WRITE
BASE = "/api/3.0/mlflow/datasets"
_PAGE = 1000


def set_json(row: CaseSet) -> dict[str, Any]:
    """Return a dataset as the protocol writes it: tags, schema and profile are texts of JSON."""
    found: dict[str, Any] = {
        "dataset_id": row.id,
        "name": row.name,
        "digest": row.digest,
        "tags": orjson.dumps({each.key: each.value for each in row.tags}).decode(),
        "created_time": row.created_ms,
        "last_update_time": row.updated_ms,
        "experiment_ids": [str(each) for each in row.experiments],
    }
    if row.schema is not None:
        found["schema"] = orjson.dumps(row.schema).decode()
    if row.count:
        found["profile"] = orjson.dumps({"num_records": row.count}).decode()
    return found | _people(row)


def record_json(dataset: str, row: Record) -> dict[str, Any]:
    """Return a record as clients read it."""
    found: dict[str, Any] = {
        "dataset_id": dataset,
        "dataset_record_id": row.id,
        "inputs": row.inputs,
        "tags": row.tags,
        "created_time": row.created_ms,
        "last_update_time": row.updated_ms,
    }
    found |= {} if row.outputs is None else {"outputs": row.outputs}
    found |= {} if row.expectations is None else {"expectations": row.expectations}
    if row.source is not None:
        kind, data = row.source["source_type"], row.source["source_data"]
        found |= {"source": row.source, "source_type": kind}
        origin = data.get("trace_id" if kind == "TRACE" else "source_id")
        found |= {} if origin is None else {"source_id": origin}
    return found | _people(row)


def _people(row: CaseSet | Record) -> dict[str, str]:
    named = {"created_by": row.created_by, "last_updated_by": row.updated_by}
    return {name: value for name, value in named.items() if value}


def _tags(body: Fields, *, needed: bool) -> list[Pair]:
    """Return the tags that a client sent as a text of JSON; those without a value are left out."""
    sent = text(body, "tags", None if needed else "{}")
    try:
        found = orjson.loads(sent or "{}")
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise InvalidInput("Invalid value for parameter 'tags' supplied.", why="It must be JSON of an object.")
    given = {key: value for key, value in found.items() if value is not None}
    return [
        rules.pair(key, value if isinstance(value, str) else orjson.dumps(value).decode(), TAG_LENGTH, "tags")
        for key, value in given.items()
    ]


def _experiments(body: Fields) -> list[int]:
    return list(dict.fromkeys(rules.experiment_id(each) for each in several(body, "experiment_ids")))


@routes.post(f"{BASE}/create", WRITE, summary="Begin an evaluation dataset")
async def create(call: Call, body: Fields) -> Any:
    """Begin an evaluation dataset."""
    name, tags, experiments = text(body, "name"), _tags(body, needed=False), _experiments(body)
    return {"dataset": set_json(await call.write_async(lambda tx: cases.create(tx, name, tags, experiments)))}


def _search(call: Call, body: Fields) -> Any:
    found, token = call.read(
        lambda c: cases.search(
            c,
            call.project,
            _experiments(body),
            text(body, "filter_string", ""),
            whole(body, "max_results", _PAGE),
            texts(body, "order_by"),
            text(body, "page_token", ""),
        )
    )
    answer: dict[str, Any] = {"datasets": [set_json(each) for each in found]}
    return answer | ({"next_page_token": token} if token else {})


@routes.post(f"{BASE}/search", READ, summary="Search evaluation datasets")
def post_search(call: Call, body: Fields) -> Any:
    """Return a page of datasets without their records."""
    return _search(call, body)


@routes.get(f"{BASE}/search", READ, summary="Search evaluation datasets")
def get_search(call: Call, body: Fields) -> Any:
    """Return a page of datasets without their records."""
    return _search(call, body)


@routes.get(f"{BASE}/{{dataset_id}}", READ, summary="Show an evaluation dataset")
def get(call: Call, body: Fields) -> Any:
    """Return a dataset without its records."""
    return {"dataset": set_json(call.read(lambda c: cases.find(c, call.project, call.path["dataset_id"])))}


@routes.delete(f"{BASE}/{{dataset_id}}", WRITE, summary="Delete an evaluation dataset with its records")
async def delete(call: Call, body: Fields) -> Any:
    """Delete a dataset with its records."""
    await call.write_async(lambda tx: cases.delete(tx, call.path["dataset_id"]))
    return {}


@routes.patch(f"{BASE}/{{dataset_id}}/tags", WRITE, summary="Set tags of an evaluation dataset")
async def put_tags(call: Call, body: Fields) -> Any:
    """Set tags."""
    tags = _tags(body, needed=True)
    return {"dataset": set_json(await call.write_async(lambda tx: cases.put_tags(tx, call.path["dataset_id"], tags)))}


@routes.delete(f"{BASE}/{{dataset_id}}/tags/{{path:path}}", WRITE, summary="Remove a tag of an evaluation dataset")
async def delete_tag(call: Call, body: Fields) -> Any:
    """Remove a tag; one that is not there is gone already."""
    await call.write_async(lambda tx: cases.delete_tag(tx, call.path["dataset_id"], unquote(call.path["path"])))
    return {}


@routes.get(f"{BASE}/{{dataset_id}}/records", READ, summary="List the records of an evaluation dataset")
def list_records(call: Call, body: Fields) -> Any:
    """Return a page of records, as a text of JSON."""
    own, limit, page = call.path["dataset_id"], whole(body, "max_results", _PAGE), text(body, "page_token", "")
    found, token = call.read(lambda c: cases.records(c, call.project, own, limit, page))
    answer = {"records": orjson.dumps([record_json(own, each) for each in found]).decode()}
    return answer | ({"next_page_token": token} if token else {})


@routes.delete(f"{BASE}/{{dataset_id}}/records", WRITE, summary="Remove records of an evaluation dataset")
async def remove_records(call: Call, body: Fields) -> Any:
    """Remove records by their ids."""
    own, wanted = call.path["dataset_id"], texts(body, "dataset_record_ids")
    return {"deleted_count": await call.write_async(lambda tx: cases.remove_records(tx, own, wanted))}


@routes.get(f"{BASE}/{{dataset_id}}/experiment-ids", READ, summary="List the experiments of an evaluation dataset")
def experiment_ids(call: Call, body: Fields) -> Any:
    """Return the experiments that a dataset belongs to."""
    found = call.read(lambda c: cases.find(c, call.project, call.path["dataset_id"]))
    return {"experiment_ids": [str(each) for each in found.experiments]}


@routes.post(f"{BASE}/{{dataset_id}}/add-experiments", WRITE, summary="Add an evaluation dataset to experiments")
async def link(call: Call, body: Fields) -> Any:
    """Add a dataset to experiments."""
    own, experiments = call.path["dataset_id"], _experiments(body)
    return {"dataset": set_json(await call.write_async(lambda tx: cases.link(tx, own, experiments)))}


@routes.post(
    f"{BASE}/{{dataset_id}}/remove-experiments", WRITE, summary="Take an evaluation dataset out of experiments"
)
async def unlink(call: Call, body: Fields) -> Any:
    """Take a dataset out of experiments."""
    own, experiments = call.path["dataset_id"], _experiments(body)
    return {"dataset": set_json(await call.write_async(lambda tx: cases.unlink(tx, own, experiments)))}
