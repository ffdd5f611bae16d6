"""Write a folder of MLflow: the layout its clients read, and `mlflow migrate-filestore` takes into a database.

Files of values are replaced whole, so that an export that broke off is begun again and ends in the same folder.
"""

import base64
import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from holdtrue.core.errors import ConfigurationError, InvalidInput
from holdtrue.server.exchange.bringing import copied
from holdtrue.server.exchange.model import SourceCases, SourceExperiment, SourceLoggedModel, SourceRun, SourceTrace
from holdtrue.tracking.model import Metric

_STATUSES = {"RUNNING": 1, "SCHEDULED": 2, "FINISHED": 3, "FAILED": 4, "KILLED": 5}
_MODEL_STATUSES = {"LOGGED_MODEL_PENDING": 1, "LOGGED_MODEL_READY": 2, "LOGGED_MODEL_UPLOAD_FAILED": 3}
_TRASH = ".trash"
_LONGEST = 255
# Beside the file that it becomes: its name takes nothing from what that one may have.
_PARTIAL = ".holdtrue-partial"
_META = "meta.yaml"


class FolderSink:
    """Write experiments, runs, models and traces as files."""

    def __init__(self, folder: Path) -> None:
        """Take an empty folder, or one that an export wrote before."""
        self.root = folder.resolve()
        mark = self.root / ".holdtrue-export"
        if self.root.exists() and not mark.is_file() and any(self.root.iterdir()):
            raise ConfigurationError(
                f"The folder {folder} holds something else.",
                why="An export would mix with it.",
                mend="Give an empty folder, or one that was not made yet.",
            )
        self.root.mkdir(parents=True, exist_ok=True)
        mark.write_text("Written by `holdtrue export mlflow`.\n", encoding="utf-8")
        (self.root / _TRASH).mkdir(exist_ok=True)
        self._places: dict[str, Path] = {}

    def experiment(self, row: SourceExperiment) -> None:
        """Write an experiment down."""
        folder = self.root / (f"{_TRASH}/{row.id}" if row.deleted else row.id)
        other = self.root / (row.id if row.deleted else f"{_TRASH}/{row.id}")
        if other.is_dir():  # deleted or restored since the last export
            shutil.rmtree(other)
        self._places[row.id] = folder
        stage = "deleted" if row.deleted else "active"
        _meta(folder, experiment_id=row.id, name=row.name, artifact_location=str(folder), lifecycle_stage=stage,
              creation_time=0, last_update_time=0)  # fmt: skip
        self._texts(folder / "tags", row.tags)

    def cases(self, row: SourceCases, records: Sequence[Mapping[str, Any]]) -> None:
        """Refuse: MLflow keeps evaluation datasets in databases alone."""
        raise InvalidInput("A folder of MLflow holds no evaluation datasets.", mend="Export to a running server.")

    def run(self, experiment: SourceExperiment, row: SourceRun, points: Iterable[Metric]) -> None:
        """Write a run down with every point of its metrics."""
        folder = self._places[experiment.id] / row.id
        self._places[row.id] = folder
        _meta(
            folder,
            run_id=row.id,
            run_uuid=row.id,
            run_name=row.name,
            experiment_id=experiment.id,
            user_id=row.user,
            status=_STATUSES.get(row.status, 3),
            start_time=row.start_ms,
            end_time=row.end_ms,
            lifecycle_stage="deleted" if row.deleted else "active",
            artifact_uri=str(folder / "artifacts"),
            entry_point_name="",
            source_name="",
            source_type=4,
            source_version="",
            tags=[],
        )
        (folder / "artifacts").mkdir(exist_ok=True)
        (folder / "metrics").mkdir(exist_ok=True)
        self._texts(folder / "params", row.params)
        self._texts(folder / "tags", {"mlflow.runName": row.name, **row.tags})
        self._metrics(folder / "metrics", points)
        for each in row.datasets:
            self._dataset(folder, each)
        for link in row.models:
            inner = "outputs" if link["direction"] == "output" else "inputs"
            kinds = ("RUN_OUTPUT", "MODEL_OUTPUT") if inner == "outputs" else ("MODEL", "RUN")
            ends = {"source_id": link["model"], "destination_id": link["model"]}
            typed = {"source_type": kinds[0], "destination_type": kinds[1]}
            step = {"step": link.get("step", 0)} if inner == "outputs" else {}
            _meta(folder / inner / link["model"], **ends, **typed, **step, tags={})

    def _metrics(self, folder: Path, points: Iterable[Metric]) -> None:
        by_key: dict[str, list[str]] = {}
        for each in points:
            value = "nan" if each.nan else repr(each.value)
            by_key.setdefault(each.key, []).append(f"{each.timestamp} {value} {each.step}\n")
        for key, rows in by_key.items():
            _write(inside(folder, key), "".join(rows).encode())

    def _dataset(self, run: Path, row: Mapping[str, Any]) -> None:
        named = hashlib.sha256(orjson.dumps([row["name"], row["digest"]])).hexdigest()[:32]
        fields = ("name", "digest", "source_type", "source", "schema", "profile")
        _meta(run.parent / "datasets" / named, **{name: row.get(name) or None for name in fields})
        tags = dict(row.get("tags") or {})
        own = hashlib.sha256(orjson.dumps([named, run.name])).hexdigest()[:32]
        _meta(run / "inputs" / own, source_id=named, source_type="DATASET", destination_id=run.name,
              destination_type="RUN", tags=tags)  # fmt: skip

    def logged_model(self, experiment: SourceExperiment, row: SourceLoggedModel) -> None:
        """Write a logged model down."""
        folder = self._places[experiment.id] / "models" / row.id
        self._places[row.id] = folder
        body = row.body
        _meta(
            folder,
            model_id=row.id,
            experiment_id=experiment.id,
            name=body["name"],
            artifact_location=str(folder / "artifacts"),
            creation_timestamp=body["created_ms"],
            last_updated_timestamp=body["updated_ms"],
            model_type=body["model_type"] or None,
            source_run_id=body["source_run"] or None,
            status=_MODEL_STATUSES.get(body["status"], 2),
            status_message=None,
        )
        for name in ("artifacts", "params", "tags", "metrics"):
            (folder / name).mkdir(exist_ok=True)
        self._texts(folder / "params", body["params"])
        self._texts(folder / "tags", body["tags"])
        run = body["source_run"] or row.id
        lines: dict[str, list[str]] = {}
        for key, value, timestamp, step, name, digest in body["metrics"]:
            about = f" {name} {digest}" if name and digest else ""
            written = "nan" if value == "NaN" else repr(float(value))
            lines.setdefault(key, []).append(f"{timestamp} {written} {step} {run}{about}\n")
        for key, rows in lines.items():
            _write(inside(folder / "metrics", key), "".join(rows).encode())

    def file(self, owner: SourceRun | SourceLoggedModel, path: str, stream: BinaryIO) -> tuple[str, int]:
        """Write an artifact and return the digest and size of its bytes."""
        target = inside(self._places[owner.id] / "artifacts", path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(_PARTIAL)
        with partial.open("wb") as file:
            found = copied(stream, file)
        os.replace(partial, target)
        return found

    def model(self, row: Mapping[str, Any]) -> None:
        """Write a registered model down with its versions and aliases."""
        if "%" in row["name"]:
            # MLflow's clients read no model of a folder in which one has such a name.
            raise InvalidInput(f"'{row['name'][:200]}' holds a %.", why="MLflow's folders cannot.")
        folder = inside(self.root / "models", str(row["name"]), folder=True)
        aliases = {name: str(number) for name, number in row["aliases"].items()}
        _meta(folder, name=row["name"], description=row["description"] or None, aliases=aliases,
              creation_timestamp=0, last_updated_timestamp=0)  # fmt: skip
        self._texts(folder / "tags", row["tags"])
        self._texts(folder / "aliases", aliases)
        for each in row["versions"]:
            inner = folder / f"version-{each['number']}"
            source, stored = self._stored(each)
            _meta(
                inner,
                name=row["name"],
                version=each["number"],
                description=each["description"] or None,
                current_stage=each["stage"],
                creation_timestamp=0,
                last_updated_timestamp=0,
                run_id=each["run"] or None,
                run_link=None,
                model_id=each["model"] or None,
                source=source,
                storage_location=stored,
                status="READY",
                status_message=None,
                user_id=None,
            )
            self._texts(inner / "tags", each["tags"])

    def _stored(self, version: Mapping[str, Any]) -> tuple[str, str]:
        """Return what a version names as its source, and the folder its files stand in."""
        if version["model"] in self._places:
            return f"models:/{version['model']}", str(self._places[version["model"]] / "artifacts")
        run, source = self._places.get(version["run"]), str(version["source"])
        path = source.removeprefix(f"runs:/{version['run']}/") if source.startswith("runs:/") else ""
        path = path or source.partition("/artifacts/")[2]
        if run is not None and path:
            place = str(inside(run / "artifacts", path, folder=True))
            return place, place
        return source, source

    def trace(self, experiment: SourceExperiment, row: SourceTrace) -> None:
        """Write a trace down with its spans and assessments."""
        folder = self._places[experiment.id] / "traces" / row.id
        info = dict(row.info)
        tags = {**info.get("tags", {}), "mlflow.artifactLocation": str(folder / "artifacts")}
        tags["mlflow.trace.spansLocation"] = "ARTIFACT_REPO"
        took = str(info.get("execution_duration", ""))
        written: dict[str, Any] = {
            "trace_id": row.id,
            "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment.id}},
            "request_time": info.get("request_time"),
            "state": info.get("state", "STATE_UNSPECIFIED"),
            "request_preview": info.get("request_preview"),
            "response_preview": info.get("response_preview"),
            "client_request_id": info.get("client_request_id"),
        }
        if took:
            written["execution_duration_ms"] = round(float(took.removesuffix("s")) * 1000)
        _meta(folder, "trace_info.yaml", **{name: value for name, value in written.items() if value is not None})
        self._texts(folder / "tags", tags)
        self._texts(folder / "request_metadata", info.get("trace_metadata", {}))
        for each in row.assessments:
            _meta(folder / "assessments", f"{each['assessment_id']}.yaml", **each)
        spans = [span for part in row.spans["resourceSpans"] for inner in part["scopeSpans"] for span in inner["spans"]]
        _write(folder / "artifacts" / "traces.json", orjson.dumps({"spans": [_span(each) for each in spans]}))

    def _texts(self, folder: Path, values: Mapping[str, str]) -> None:
        """Write each text under its name; what an earlier export wrote and is gone now goes, too."""
        if folder.is_dir():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        for key, value in values.items():
            _write(inside(folder, key), value.encode())


def inside(above: Path, name: str, *, folder: bool = False) -> Path:
    """Return the place of a file, or a folder, below one; raise InvalidInput for one that leads elsewhere."""
    parts = name.split("/")
    if not name or name.startswith("/") or any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise InvalidInput(f"'{name[:200]}' is no name of a file.", why="A folder of MLflow keeps names as paths.")
    if any(len(part.encode()) > _LONGEST for part in parts):
        raise InvalidInput(f"'{name[:80]}…' is longer than a file's name may be.", why="MLflow's folders cannot.")
    place = above.joinpath(*parts)
    for part in place.relative_to(above).parents:
        if (above / part).is_file():
            raise InvalidInput(f"'{name[:200]}' stands below a name that is a file.", why="MLflow's folders cannot.")
    if place.is_dir() and not folder:
        raise InvalidInput(f"'{name[:200]}' is a name that others stand below.", why="MLflow's folders cannot.")
    return place


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(_PARTIAL)
    partial.write_bytes(data)
    os.replace(partial, file)


def _meta(folder: Path, file: str = _META, /, **fields: Any) -> None:
    """Write fields as YAML; every value is JSON, which YAML holds."""
    lines = [f"{name}: {orjson.dumps(value).decode()}\n" for name, value in fields.items()]
    _write(folder / file, "".join(lines).encode())


def _span(span: Mapping[str, Any]) -> dict[str, Any]:
    """Return a span of OTLP's JSON as MLflow's files have it."""
    status = span.get("status") or {}
    return {
        "trace_id": _base64(span["traceId"]),
        "span_id": _base64(span["spanId"]),
        "parent_span_id": _base64(span["parentSpanId"]) if span.get("parentSpanId") else None,
        "name": span["name"],
        "start_time_unix_nano": int(span["startTimeUnixNano"]),
        "end_time_unix_nano": int(span["endTimeUnixNano"]),
        "status": {"code": status.get("code", "STATUS_CODE_UNSET"), "message": status.get("message", "")},
        "attributes": {
            each["key"]: orjson.dumps(plain_value(each["value"])).decode() for each in span.get("attributes", [])
        },
        "events": [
            {
                "name": each["name"],
                "time_unix_nano": int(each["timeUnixNano"]),
                "attributes": {one["key"]: plain_value(one["value"]) for one in each.get("attributes", [])},
            }
            for each in span.get("events", [])
        ],
        "links": [],
    }


def _base64(digits: str) -> str:
    return base64.b64encode(bytes.fromhex(digits)).decode()


def plain_value(value: Mapping[str, Any]) -> Any:
    """Return the JSON value that an AnyValue of OTLP's JSON holds."""
    for name in ("stringValue", "boolValue", "doubleValue", "bytesValue"):
        if name in value:
            return value[name]
    if "intValue" in value:
        return int(value["intValue"])
    if "arrayValue" in value:
        return [plain_value(each) for each in value["arrayValue"].get("values", [])]
    if "kvlistValue" in value:
        return {each["key"]: plain_value(each["value"]) for each in value["kvlistValue"].get("values", [])}
    return None
