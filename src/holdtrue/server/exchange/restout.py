"""Write to a running MLflow server by its REST protocol, which gives runs and logged models ids of its own.

What was sent carries its id here as a tag, by which an export that is begun again finds it.
"""

import base64
import copy
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Final
from urllib.parse import quote, urlsplit

import orjson

from holdtrue.core.errors import InvalidInput, MissingExtra, NotFound
from holdtrue.server.exchange.bringing import copied
from holdtrue.server.exchange.model import (
    SourceCases,
    SourceExperiment,
    SourceLoggedModel,
    SourceRun,
    SourceTrace,
    Unreachable,
)
from holdtrue.server.exchange.rest import API, API3, FILES, MlflowServer
from holdtrue.tracking.model import Metric

RUN_TAG: Final = "holdtrue.run"
MODEL_TAG: Final = "holdtrue.model"
CASES_TAG: Final = "holdtrue_evaluation_dataset"
PROMPT_SOURCE: Final = "dummy-source"
_METRICS = 1000
_PAIRS = 100
_CASE = ("inputs", "outputs", "expectations", "tags", "source")


class ServerSink:
    """Write experiments, runs, models and traces by requests."""

    def __init__(self, server: MlflowServer) -> None:
        self._server = server
        self._experiments: dict[str, str] = {}
        self._deleted: list[str] = []
        self._ids: dict[str, str] = {}
        self._originals: dict[str, str] = {}
        self._roots: dict[str, str] = {}

    def original(self, named: str) -> str:
        """Return the id that something of the server has here."""
        return self._originals.get(named, named)

    def plain(self, tags: Mapping[str, str]) -> dict[str, str]:
        """Return the tags of a run without the one by which it is found again."""
        return {key: value for key, value in tags.items() if key != RUN_TAG}

    def experiment(self, row: SourceExperiment) -> None:
        """Make sure of an experiment, which is active while it is written."""
        answer = self._server.send("GET", f"{API}/experiments/get-by-name", params={"experiment_name": row.name})
        if answer.status_code == 200:
            found = answer.json()["experiment"]
            own = found["experiment_id"]
            if found["lifecycle_stage"] == "deleted":
                self._server.ask("POST", "/experiments/restore", experiment_id=own)
        else:
            own = self._server.ask("POST", "/experiments/create", name=row.name)["experiment_id"]
        for key, value in row.tags.items():
            self._server.ask("POST", "/experiments/set-experiment-tag", experiment_id=own, key=key, value=value)
        self._experiments[row.id] = own
        if row.deleted:
            self._deleted.append(own)

    def finish(self) -> None:
        """Delete what is deleted here."""
        for own in self._deleted:
            self._server.ask("POST", "/experiments/delete", experiment_id=own)

    def run(self, experiment: SourceExperiment, row: SourceRun, points: Sequence[Metric]) -> None:
        """Write a run down with every point of its metrics; it stays active until `ended`."""
        where = self._experiments[experiment.id]
        wish = {"experiment_ids": [where], "filter": f"tags.`{RUN_TAG}` = '{row.id}'", "run_view_type": "ALL"}
        known = self._server.ask("POST", "/runs/search", **wish).get("runs", [])
        if known:
            info = known[0]["info"]
            if info["lifecycle_stage"] == "deleted":
                self._server.ask("POST", "/runs/restore", run_id=info["run_id"])
        else:
            body = {"experiment_id": where, "user_id": row.user, "run_name": row.name, "start_time": row.start_ms}
            tags = [{"key": RUN_TAG, "value": row.id}]
            info = self._server.ask("POST", "/runs/create", **body, tags=tags)["run"]["info"]
        own = info["run_id"]
        self._note(row.id, own, info["artifact_uri"])
        metrics = [{"key": each.key, "value": "NaN" if each.nan else each.value, **_when(each)} for each in points]
        for part in _parts(metrics, _METRICS):
            self._server.ask("POST", "/runs/log-batch", run_id=own, metrics=part)
        for part in _parts(_list(row.params), _PAIRS):
            self._server.ask("POST", "/runs/log-batch", run_id=own, params=part)
        for part in _parts(_list(row.tags), _PAIRS):
            self._server.ask("POST", "/runs/log-batch", run_id=own, tags=part)
        if row.datasets:
            self._server.ask("POST", "/runs/log-inputs", run_id=own, datasets=[_dataset(each) for each in row.datasets])

    def ended(self, row: SourceRun) -> None:
        """Say how a run ended, and delete it if it is deleted here."""
        own = self._ids[row.id]
        ending: dict[str, Any] = {"run_id": own, "status": row.status, "run_name": row.name}
        if row.end_ms is not None:
            ending["end_time"] = row.end_ms
        self._server.ask("POST", "/runs/update", **ending)
        if row.deleted:
            self._server.ask("POST", "/runs/delete", run_id=own)

    def logged_model(self, experiment: SourceExperiment, row: SourceLoggedModel) -> None:
        """Write a logged model down, its run and its metrics with it."""
        where, body = self._experiments[experiment.id], row.body
        wish = {"experiment_ids": [where], "filter": f"tags.`{MODEL_TAG}` = '{row.id}'"}
        known = self._server.ask("POST", "/logged-models/search", **wish).get("models", [])
        if known:
            info = known[0]["info"]
        else:
            made: dict[str, Any] = {
                "experiment_id": where,
                "name": body["name"],
                "model_type": body["model_type"],
                "params": _list(body["params"]),
                "tags": [*_list(body["tags"]), {"key": MODEL_TAG, "value": row.id}],
            }
            run = self._ids.get(body["source_run"])
            if run:
                made["source_run_id"] = run
            info = self._server.ask("POST", "/logged-models", **made)["model"]["info"]
        own = info["model_id"]
        self._note(row.id, own, info["artifact_uri"])
        self._server.ask("PATCH", f"/logged-models/{own}", model_id=own, status=body["status"])
        self._link(body, own)

    def _link(self, body: Mapping[str, Any], own: str) -> None:
        run = self._ids.get(body["source_run"])
        if run is None:
            return
        known = (self._server.ask("GET", "/runs/get", run_id=run)["run"].get("outputs") or {}).get("model_outputs", [])
        if own not in {each["model_id"] for each in known}:  # MLflow refuses to note it twice
            self._server.ask("POST", "/runs/outputs", run_id=run, models=[{"model_id": own, "step": 0}])
        metrics = [
            {
                "key": key, "value": value, "timestamp": timestamp, "step": step, "model_id": own,
                **({"dataset_name": name, "dataset_digest": digest} if name and digest else {}),
            }
            for key, value, timestamp, step, name, digest in body["metrics"]
        ]  # fmt: skip
        for part in _parts(metrics, _METRICS):
            self._server.ask("POST", "/runs/log-batch", run_id=run, metrics=part)

    def file(self, owner: SourceRun | SourceLoggedModel, path: str, stream: BinaryIO) -> tuple[str, int]:
        """Send an artifact through the server's proxy; raise Unreachable if its files stand elsewhere."""
        parts = urlsplit(self._roots[owner.id])
        if parts.scheme != "mlflow-artifacts":
            raise Unreachable(self._roots[owner.id])
        with TemporaryFile() as kept:
            found = copied(stream, kept)
            kept.seek(0)
            place = f"{FILES}/{quote(parts.path.strip('/'))}/{quote(path)}"
            answer = self._server.send("PUT", place, content=kept)
        if answer.status_code != 200:
            raise NotFound(f"MLflow did not take the artifact {path}: {answer.text[:200]}")
        return found

    def model(self, row: Mapping[str, Any]) -> None:
        """Register a model with its versions, under the numbers they have here, and its aliases."""
        name = row["name"]
        body = {"name": name, "description": row["description"], "tags": _list(row["tags"])}
        answer = self._server.send("POST", f"{API}/registered-models/create", json=body)
        if answer.status_code != 200 and answer.json().get("error_code") != "RESOURCE_ALREADY_EXISTS":
            raise NotFound(f"MLflow refused the model {name}: {answer.text[:200]}")
        for each in row["versions"]:
            asked = {"name": name, "version": str(each["number"])}
            if self._server.send("GET", f"{API}/model-versions/get", params=asked).status_code != 200:
                prompt = row["tags"].get("mlflow.prompt.is_prompt") == "true"
                self._version(name, each, PROMPT_SOURCE if prompt else self._source(each))
        for alias, number in row["aliases"].items():
            self._server.ask("POST", "/registered-models/alias", name=name, alias=alias, version=str(number))

    def _version(self, name: str, each: Mapping[str, Any], source: str) -> None:
        """Create a version; the numbers before it that are not in use are taken and given up again."""
        body: dict[str, Any] = {"name": name, "source": source, "description": each["description"]}
        if each["run"] in self._ids:
            body["run_id"] = self._ids[each["run"]]
        if each["model"] in self._ids:
            body["model_id"] = self._ids[each["model"]]
        body["tags"] = _list(each["tags"])
        while True:
            made = int(self._server.ask("POST", "/model-versions/create", **body)["model_version"]["version"])
            if made >= each["number"]:
                break
            self._server.ask("DELETE", "/model-versions/delete", name=name, version=str(made))
        if made != each["number"]:
            raise InvalidInput(f"Version {each['number']} of {name} became {made} there.")
        if each["stage"] not in ("None", ""):
            staged = {"name": name, "version": str(made), "stage": each["stage"], "archive_existing_versions": False}
            self._server.ask("POST", "/model-versions/transition-stage", **staged)

    def _source(self, each: Mapping[str, Any]) -> str:
        if each["model"] in self._ids:
            return f"models:/{self._ids[each['model']]}"
        source = str(each["source"])
        inside = source.removeprefix(f"runs:/{each['run']}/") if source.startswith("runs:/") else ""
        inside = inside or source.partition("/artifacts/")[2]
        if each["run"] in self._ids and inside:
            return f"{self._roots[each['run']]}/{inside}"
        return source

    def cases(self, row: SourceCases, records: Sequence[Mapping[str, Any]]) -> None:
        """Write an evaluation dataset with its records; one that was sent before is found by its tag."""
        where = [self._experiments[each] for each in row.experiments if each in self._experiments]
        # Here MLflow takes a name with quotes around it for another one.
        wish = {"filter_string": f"tags.{CASES_TAG} = '{row.id}'", "max_results": 1}
        known = self._server.ask("POST", f"{API3}/datasets/search", **wish).get("datasets", [])
        if known:
            own = known[0]["dataset_id"]
        else:
            tags = orjson.dumps({**row.body["tags"], CASES_TAG: row.id}).decode()
            made = {"name": row.name, "experiment_ids": where, "tags": tags}
            own = self._server.ask("POST", f"{API3}/datasets/create", **made)["dataset"]["dataset_id"]
        self._note(row.id, own, "")
        for part in _parts(records, _METRICS):
            sent = [{name: each[name] for name in _CASE if each[name] is not None} for each in part]
            self._server.ask("POST", f"{API3}/datasets/{own}/records", records=orjson.dumps(sent).decode())

    def trace(self, experiment: SourceExperiment, row: SourceTrace) -> None:
        """Send a trace with its spans; of its assessments those that are not there yet."""
        where = self._experiments[experiment.id]
        headers = {"content-type": "application/x-protobuf", "x-mlflow-experiment-id": where}
        answer = self._server.send("POST", "/v1/traces", content=_protobuf(row.spans), headers=headers)
        if answer.status_code != 200:
            raise NotFound(f"MLflow did not take the spans of {row.id}: {answer.text[:200]}")
        location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": where}}
        tags = {key: value for key, value in row.info.get("tags", {}).items() if not key.startswith("mlflow.a")}
        info = {**row.info, "trace_location": location, "tags": tags}
        self._server.ask("POST", f"{API3}/traces", trace={"trace_info": info})
        known = self._server.ask("GET", f"{API3}/traces/{row.id}")["trace"]["trace_info"].get("assessments", [])
        have = {(each["assessment_name"], each.get("create_time")) for each in known}
        for each in row.assessments:
            if (each["assessment_name"], each.get("create_time")) not in have:
                said = {name: value for name, value in each.items() if name not in ("assessment_id", "overrides")}
                self._server.ask("POST", f"{API3}/traces/{row.id}/assessments", assessment=said)

    def _note(self, here: str, there: str, root: str) -> None:
        self._ids[here], self._originals[there], self._roots[here] = there, here, root


def _when(each: Metric) -> dict[str, int]:
    return {"timestamp": each.timestamp, "step": each.step}


def _list(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _parts(rows: Iterable[Any], size: int) -> Iterable[list[Any]]:
    ahead = iter(rows)
    while part := list(islice(ahead, size)):
        yield part


def _dataset(row: Mapping[str, Any]) -> dict[str, Any]:
    dataset = {name: value for name, value in row.items() if name != "tags" and value}
    return {"dataset": dataset, "tags": _list(row["tags"])}


def _protobuf(spans: Mapping[str, Any]) -> bytes:
    """Return an export request as protobuf: servers of MLflow take no other form in all their versions."""
    try:
        from google.protobuf.json_format import ParseDict
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    except ImportError:
        raise MissingExtra.of("llm", "opentelemetry-proto") from None
    body = copy.deepcopy(dict(spans))
    for resource in body["resourceSpans"]:
        resource.pop("resource", None)  # MLflow makes tags of it
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for name in ("traceId", "spanId", "parentSpanId"):
                    if span.get(name):  # OTLP writes hexadecimal digits where protobuf's JSON has base64
                        span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    request = ParseDict(orjson.loads(orjson.dumps(body)), ExportTraceServiceRequest())
    return bytes(request.SerializeToString())
