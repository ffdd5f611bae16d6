"""Read a database of MLflow (SQLite, or PostgreSQL by its address), whatever version its schema has.

Tables and columns are taken as they are found: what an older schema lacks is empty, what a newer one adds is ignored.
Nothing is written, and no migration runs.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from holdtrue.core.errors import ConfigurationError
from holdtrue.server.exchange import rules
from holdtrue.server.exchange.model import (
    SourceCases,
    SourceExperiment,
    SourceFile,
    SourceLoggedModel,
    SourceRun,
    SourceTrace,
    Unreachable,
)
from holdtrue.tracking.model import Metric

_FETCH = 5_000
_WRAPPED = "mlflow_wrapped"
_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}


class DatabaseSource:
    """Read experiments, runs, models and traces out of tables."""

    def __init__(self, address: str, served: Path | None = None) -> None:
        """`address` is a file of SQLite or an address of SQLAlchemy's form; `served` the artifact server's folder."""
        url, self._base = _url(address)
        self._served = served
        try:
            self._engine = sa.create_engine(url)
            self._connection = self._engine.connect()
            self._known = sa.MetaData()
            self._known.reflect(self._connection)
        except (SQLAlchemyError, ModuleNotFoundError) as error:
            raise ConfigurationError(
                "The database cannot be read.",
                why=str(getattr(error, "orig", error))[:300],
                mend="Check the address; PostgreSQL needs its driver: pip install 'holdtrue[postgres]'",
            ) from error
        if "experiments" not in self._known.tables or "runs" not in self._known.tables:
            self.close()
            raise ConfigurationError(
                "This is not a database of MLflow.",
                why="It has no tables of experiments and runs.",
                mend="Give the one that mlflow server's --backend-store-uri names.",
            )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
        self._engine.dispose()

    def _rows(self, table_name: str, order: str = "", /, **equal: Any) -> Iterator[Mapping[str, Any]]:
        """Yield the rows of a table that have these values; none if there is no such table or column."""
        table = self._known.tables.get(table_name)
        if table is None or any(column not in table.c for column in equal):
            return
        query = sa.select(table)
        for column, value in equal.items():
            query = query.where(table.c[column] == value)
        if order and order in table.c:
            query = query.order_by(table.c[order])
        for row in self._connection.execute(query, execution_options={"yield_per": _FETCH}).mappings():
            yield {str(column): value for column, value in row.items()}

    def _pairs(self, table_name: str, key: str = "key", value: str = "value", /, **equal: Any) -> dict[str, str]:
        return {str(row[key]): str(row[value] or "") for row in self._rows(table_name, **equal)}

    def experiments(self) -> Iterator[SourceExperiment]:
        """Yield all experiments, deleted ones too."""
        for row in list(self._rows("experiments", "experiment_id")):
            own = row["experiment_id"]
            tags = self._pairs("experiment_tags", experiment_id=own)
            yield SourceExperiment(str(own), row["name"], row.get("lifecycle_stage") == "deleted", tags)

    def runs(self, experiment: SourceExperiment) -> Iterator[SourceRun]:
        """Yield all runs of an experiment, deleted ones too."""
        for row in list(self._rows("runs", "start_time", experiment_id=int(experiment.id))):
            own = row["run_uuid"]
            yield SourceRun(
                id=own,
                name=row.get("name") or "",
                status=rules.run_status(row.get("status") or "FINISHED"),
                start_ms=int(row.get("start_time") or 0),
                user=row.get("user_id") or "",
                end_ms=int(row["end_time"]) if row.get("end_time") else None,
                deleted=row.get("lifecycle_stage") == "deleted",
                artifacts=row.get("artifact_uri") or "",
                params=self._pairs("params", run_uuid=own),
                tags=self._pairs("tags", run_uuid=own),
                datasets=tuple(self._datasets(own)),
                models=tuple(self._links(own)),
            )

    def _datasets(self, run: str) -> Iterator[Mapping[str, Any]]:
        for link in list(self._rows("inputs", destination_id=run, destination_type="RUN", source_type="DATASET")):
            tags = self._pairs("input_tags", "name", input_uuid=link["input_uuid"])
            for row in self._rows("datasets", dataset_uuid=link["source_id"]):
                yield {
                    "name": row["name"],
                    "digest": row["digest"],
                    "source_type": row.get("dataset_source_type") or "",
                    "source": row.get("dataset_source") or "",
                    "schema": row.get("dataset_schema") or "",
                    "profile": row.get("dataset_profile") or "",
                    "tags": tags,
                }

    def _links(self, run: str) -> Iterator[Mapping[str, Any]]:
        for kind, direction in (("RUN_INPUT", "input"), ("RUN_OUTPUT", "output")):
            for row in self._rows("inputs", source_id=run, source_type=kind):
                yield {"model": row["destination_id"], "direction": direction, "step": int(row.get("step") or 0)}

    def points(self, run: SourceRun) -> Iterator[Metric]:
        """Yield every point of every metric of a run."""
        for row in self._rows("metrics", run_uuid=run.id):
            nan = bool(row.get("is_nan")) or row["value"] is None
            yield rules.point(row["key"], row["value"] or 0.0, int(row["timestamp"]), int(row.get("step") or 0), nan)

    def logged_models(self, experiment: SourceExperiment) -> Iterator[SourceLoggedModel]:
        """Yield the logged models of an experiment."""
        for row in list(self._rows("logged_models", "creation_timestamp_ms", experiment_id=int(experiment.id))):
            if row.get("lifecycle_stage") == "deleted":
                continue
            own = row["model_id"]
            metrics = [
                (
                    each["metric_name"], "NaN" if each["metric_value"] is None else each["metric_value"],
                    int(each["metric_timestamp_ms"]), int(each["metric_step"]),
                    each.get("dataset_name") or "", each.get("dataset_digest") or "",
                )
                for each in self._rows("logged_model_metrics", model_id=own)
            ]  # fmt: skip
            body = {
                "id": own,
                "name": row["name"],
                "created_ms": int(row["creation_timestamp_ms"]),
                "updated_ms": int(row["last_updated_timestamp_ms"]),
                "status": rules.model_status(row["status"]),
                "model_type": row.get("model_type") or "",
                "source_run": row.get("source_run_id") or "",
                "params": self._pairs("logged_model_params", "param_key", "param_value", model_id=own),
                "tags": self._pairs("logged_model_tags", "tag_key", "tag_value", model_id=own),
                "metrics": metrics,
            }
            yield SourceLoggedModel(own, row["artifact_location"], body)

    def files(self, owner: SourceRun | SourceLoggedModel) -> Iterator[SourceFile]:
        """Yield the artifacts of a run or logged model; raise Unreachable."""
        folder = rules.local_folder(owner.artifacts, self._base, self._served)
        if folder is None:
            raise Unreachable(owner.artifacts)
        for file in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if file.is_file() and not file.is_symlink():
                yield SourceFile(file.relative_to(folder).as_posix(), lambda file=file: file.open("rb"))

    def models(self) -> Iterator[Mapping[str, Any]]:
        """Yield registered models."""
        for model in list(self._rows("registered_models", "name")):
            name = model["name"]
            versions = [
                {
                    "number": int(row["version"]),
                    "run": row.get("run_id") or "",
                    "description": row.get("description") or "",
                    **rules.version_place(row.get("source") or "", row.get("storage_location") or ""),
                    "stage": row.get("current_stage") or "None",
                    "tags": self._pairs("model_version_tags", name=name, version=row["version"]),
                }
                for row in list(self._rows("model_versions", "version", name=name))
                if row.get("current_stage") != "Deleted_Internal"
            ]
            yield {
                "name": name,
                "description": model.get("description") or "",
                "tags": self._pairs("registered_model_tags", name=name),
                "versions": versions,
                "aliases": {
                    row["alias"]: int(row["version"]) for row in self._rows("registered_model_aliases", name=name)
                },
            }

    def traces(self, experiment: SourceExperiment) -> Iterator[SourceTrace]:
        """Yield the traces of an experiment."""
        for row in list(self._rows("trace_info", "timestamp_ms", experiment_id=int(experiment.id))):
            own = row["request_id"]
            tags = self._pairs("trace_tags", request_id=own)
            metadata = self._pairs("trace_request_metadata", request_id=own)
            _complete(row, tags, metadata)
            spans = [orjson.loads(each["content"]) for each in self._rows("spans", trace_id=own) if each["content"]]
            spans = spans or self._kept_spans(tags.get("mlflow.artifactLocation", ""))
            info: dict[str, Any] = {
                "trace_id": own,
                "request_time": rules.moment(int(row["timestamp_ms"] or 0)),
                "state": row["status"] or "STATE_UNSPECIFIED",
                "request_preview": row.get("request_preview") or metadata.get("mlflow.traceInputs", ""),
                "response_preview": row.get("response_preview") or metadata.get("mlflow.traceOutputs", ""),
                "client_request_id": row.get("client_request_id") or "",
                "trace_metadata": metadata,
                "tags": tags,
            }
            if row.get("execution_time_ms") is not None:
                info["execution_duration"] = rules.duration(int(row["execution_time_ms"]))
            yield SourceTrace(own, info, rules.otlp_of(spans, own), tuple(self._assessments(own)), len(spans))

    def case_sets(self) -> Iterator[SourceCases]:
        """Yield the evaluation datasets."""
        for row in list(self._rows("evaluation_datasets", "created_time")):
            own = row["dataset_id"]
            tags = self._pairs("evaluation_dataset_tags", dataset_id=own)
            linked = {"source_type": "evaluation_dataset", "source_id": own, "destination_type": "experiment"}
            where = tuple(str(each["destination_id"]) for each in self._rows("entity_associations", **linked))
            yield SourceCases(own, row["name"], rules.cases_of(row, tags), where)

    def cases(self, row: SourceCases) -> Iterator[Mapping[str, Any]]:
        """Yield the records of an evaluation dataset."""
        for each in self._rows("evaluation_dataset_records", "created_time", dataset_id=row.id):
            outputs = each.get("outputs")
            yield rules.case_of({**each, "outputs": outputs.get(_WRAPPED) if outputs else None})

    def _kept_spans(self, location: str) -> list[Any]:
        """Return the spans that versions before 3.5 keep in a file of artifacts."""
        folder = rules.local_folder(location, self._base, self._served)
        file = folder / "traces.json" if folder is not None else None
        return orjson.loads(file.read_bytes()).get("spans", []) if file is not None and file.is_file() else []

    def _assessments(self, trace: str) -> Iterator[Mapping[str, Any]]:
        for row in self._rows("assessments", "created_timestamp", trace_id=trace):
            kind = row["assessment_type"]
            if kind not in ("feedback", "expectation"):
                continue
            judged: dict[str, Any] = {"value": orjson.loads(row["value"]) if row["value"] else None}
            if row.get("error"):
                judged["error"] = orjson.loads(row["error"])
            written: dict[str, Any] = {
                "assessment_id": row["assessment_id"],
                "assessment_name": row["name"],
                "trace_id": trace,
                "source": {"source_type": row["source_type"], "source_id": row.get("source_id") or ""},
                "create_time": rules.moment(int(row["created_timestamp"])),
                "last_update_time": rules.moment(int(row["last_updated_timestamp"])),
                "valid": bool(row.get("valid", True)),
                kind: judged,
            }
            for name in ("rationale", "span_id", "overrides"):
                if row.get(name):
                    written[name] = row[name]
            if row.get("assessment_metadata"):
                written["metadata"] = orjson.loads(row["assessment_metadata"])
            yield written


def _complete(row: Mapping[str, Any], tags: dict[str, str], metadata: dict[str, str]) -> None:
    """Add what newer schemas keep in columns and older ones as tags and metadata."""
    if row.get("trace_name"):
        tags.setdefault("mlflow.traceName", row["trace_name"])
    if row.get("session_id"):
        metadata.setdefault("mlflow.trace.session", row["session_id"])
    for key, names in (
        ("mlflow.trace.tokenUsage", ("input_tokens", "output_tokens", "total_tokens")),
        ("mlflow.trace.cost", ("input_cost", "output_cost", "total_cost")),
    ):
        found = {name: row[name] for name in names if row.get(name) is not None}
        if found:
            metadata.setdefault(key, orjson.dumps(found).decode())


def _url(address: str) -> tuple[str, Path]:
    """Return the address to open, for reading only where that can be said, and the folder relative paths begin at."""
    scheme, mark, rest = address.partition("://")
    name = scheme.partition("+")[0]
    if not mark or name == "sqlite":
        file = Path(rest.removeprefix("/").partition("?")[0] if mark else address)
        if not file.is_file():
            raise ConfigurationError(
                f"There is no database {file}.", mend="Give the path of the file, or sqlite:////absolute/path.db"
            )
        return f"sqlite:///file:{quote(str(file.resolve()))}?mode=ro&uri=true", file.resolve().parent
    return f"{_DRIVERS.get(name, scheme)}://{rest}", Path.cwd()
