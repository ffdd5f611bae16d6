"""Read an MLflow server by its REST protocol; and ask one whatever else an exchange needs."""

import contextlib
from collections.abc import Generator, Iterator, Mapping
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO, Self
from urllib.parse import quote, urlsplit

import orjson

from holdtrue.core.errors import ConfigurationError, NotFound, Unavailable
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

if TYPE_CHECKING:
    import httpx

API = "/api/2.0/mlflow"
API3 = "/api/3.0/mlflow"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
_PAGE = 1000
_TRACES = 10
_SECONDS = 300
_NOT_FOUND = 404


class MlflowServer:
    """Ask an MLflow server."""

    def __init__(self, http: "httpx.Client") -> None:
        """Ask by `http`, which knows the address."""
        self._http = http

    @classmethod
    def at(cls, address: str) -> Self:
        """Return the server at an address, with user info for those that ask for it."""
        import httpx

        if urlsplit(address).scheme not in ("http", "https"):
            raise ConfigurationError(f"{address[:200]} is not the address of an MLflow server.")
        return cls(httpx.Client(base_url=address.rstrip("/"), timeout=_SECONDS))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ask(self, method: str, path: str, /, **body: Any) -> Any:
        """Send one request and return the JSON of the answer; NotFound for what the server refuses."""
        whole = path if path.startswith("/api/") else API + path
        answer = self.send(method, whole, params=body) if method == "GET" else self.send(method, whole, json=body)
        if answer.status_code != 200:
            raise NotFound(f"MLflow refused {path}: {answer.text[:300]}", mend="Look at that server's log.")
        return answer.json() if answer.content else {}

    def send(self, method: str, path: str, /, **more: Any) -> "httpx.Response":
        """Send one request and return the answer as it is; Unavailable if nobody answers."""
        import httpx

        try:
            return self._http.request(method, path, **more)
        except httpx.TransportError as error:
            raise Unavailable(f"No MLflow server answers at {self._http.base_url}.", why=str(error)) from error

    def pages(self, method: str, path: str, name: str, /, **body: Any) -> Iterator[Any]:
        """Yield every item of a listing."""
        token = ""
        while True:
            page = self.ask(method, path, **body, **({"page_token": token} if token else {}))
            yield from page.get(name, [])
            token = page.get("next_page_token", "")
            if not token:
                return

    def experiments(self) -> Iterator[SourceExperiment]:
        """Yield all experiments, deleted ones too."""
        for each in self.pages("POST", "/experiments/search", "experiments", max_results=_PAGE, view_type="ALL"):
            deleted = each.get("lifecycle_stage") == "deleted"
            yield SourceExperiment(each["experiment_id"], each["name"], deleted, pairs(each.get("tags")))

    def runs(self, experiment: SourceExperiment) -> Iterator[SourceRun]:
        """Yield all runs of an experiment, deleted ones too."""
        listing = {"experiment_ids": [experiment.id], "max_results": _PAGE, "run_view_type": "ALL"}
        for run in self.pages("POST", "/runs/search", "runs", **listing):
            info, data = run["info"], run.get("data", {})
            inputs, outputs = run.get("inputs") or {}, run.get("outputs") or {}
            models = [
                *({"model": each["model_id"], "direction": "input"} for each in inputs.get("model_inputs", [])),
                *(
                    {"model": each["model_id"], "direction": "output", "step": int(each.get("step", 0))}
                    for each in outputs.get("model_outputs", [])
                ),
            ]
            yield SourceRun(
                id=info.get("run_id") or info["run_uuid"],
                name=info.get("run_name", ""),
                status=info["status"],
                start_ms=int(info.get("start_time", 0)),
                user=info.get("user_id", ""),
                end_ms=int(info["end_time"]) if info.get("end_time") else None,
                deleted=info.get("lifecycle_stage") == "deleted",
                artifacts=info.get("artifact_uri", ""),
                params=pairs(data.get("params")),
                tags=pairs(data.get("tags")),
                datasets=tuple(_dataset(each) for each in inputs.get("dataset_inputs", [])),
                models=tuple(models),
                metric_keys=tuple(each["key"] for each in data.get("metrics", [])),
            )

    def points(self, run: SourceRun) -> Iterator[Metric]:
        """Yield every point of every metric of a run."""
        for key in run.metric_keys:
            for each in self.pages("GET", "/metrics/get-history", "metrics", run_id=run.id, metric_key=key):
                value = float(each.get("value", 0.0))
                yield rules.point(key, value, int(each.get("timestamp", 0)), int(each.get("step", 0)))

    def logged_models(self, experiment: SourceExperiment) -> Iterator[SourceLoggedModel]:
        """Yield the logged models of an experiment; servers before version 3 have none."""
        if (
            self.send("POST", f"{API}/logged-models/search", json={"experiment_ids": [experiment.id]}).status_code
            != 200
        ):
            return
        for each in self.pages("POST", "/logged-models/search", "models", experiment_ids=[experiment.id]):
            info, data = each["info"], each.get("data") or {}
            body = {
                "id": info["model_id"],
                "name": info.get("name", ""),
                "created_ms": int(info.get("creation_timestamp_ms", 0)),
                "updated_ms": int(info.get("last_updated_timestamp_ms", 0)),
                "status": rules.model_status(info.get("status")),
                "model_type": info.get("model_type", ""),
                "source_run": info.get("source_run_id", ""),
                "params": pairs(data.get("params")),
                "tags": pairs(info.get("tags")),
                "metrics": [_model_metric(one) for one in data.get("metrics", [])],
            }
            yield SourceLoggedModel(info["model_id"], info.get("artifact_uri", ""), body)

    def files(self, owner: SourceRun | SourceLoggedModel) -> Iterator[SourceFile]:
        """Yield the artifacts of a run or logged model, which the server must hand on itself; raise Unreachable."""
        parts = urlsplit(owner.artifacts)
        found = list(self._paths(owner, ""))
        if found and parts.scheme != "mlflow-artifacts":
            raise Unreachable(owner.artifacts)
        root = parts.path.strip("/")
        for path in found:
            yield SourceFile(path, lambda path=path: self._fetched(f"{root}/{path}"))

    def _paths(self, owner: SourceRun | SourceLoggedModel, folder: str) -> Iterator[str]:
        if isinstance(owner, SourceRun):
            listing = self.pages("GET", "/artifacts/list", "files", run_id=owner.id, path=folder)
        else:
            path = f"/logged-models/{owner.id}/artifacts/directories"
            listing = self.pages("GET", path, "files", artifact_directory_path=folder)
        for each in listing:
            if each.get("is_dir"):
                yield from self._paths(owner, each["path"])
            else:
                yield each["path"]

    @contextlib.contextmanager
    def _fetched(self, place: str) -> Generator[BinaryIO]:
        with TemporaryFile() as kept:
            with self._http.stream("GET", f"{FILES}/{quote(place)}") as answer:
                if answer.status_code != 200:
                    raise NotFound(f"MLflow did not give the artifact {place}.")
                for chunk in answer.iter_bytes():
                    kept.write(chunk)
            kept.seek(0)
            yield kept

    def models(self) -> Iterator[Mapping[str, Any]]:
        """Yield registered models, and prompts, which are models too but are not listed with them."""
        prompts = {"filter": "tags.`mlflow.prompt.is_prompt` = 'true'"}
        for more in ({}, prompts):
            for model in self.pages("GET", "/registered-models/search", "registered_models", max_results=100, **more):
                yield self._model(model)

    def _model(self, model: Mapping[str, Any]) -> Mapping[str, Any]:
        tags = pairs(model.get("tags"))
        query = "name='" + model["name"].replace("'", "''") + "'"
        if tags.get("mlflow.prompt.is_prompt") == "true":
            query += " AND tags.`mlflow.prompt.is_prompt` = 'true'"
        found = self.pages("GET", "/model-versions/search", "model_versions", filter=query, max_results=_PAGE)
        versions: list[dict[str, Any]] = [
            {
                "number": int(each["version"]),
                "run": each.get("run_id", ""),
                "description": each.get("description", ""),
                **rules.version_place(each.get("source", ""), self._location(each), each.get("model_id", "")),
                "stage": each.get("current_stage", "None") or "None",
                "tags": pairs(each.get("tags")),
            }
            for each in found
        ]
        return {
            "name": model["name"],
            "description": model.get("description", ""),
            "tags": tags,
            "versions": sorted(versions, key=lambda each: int(each["number"])),
            "aliases": {each["alias"]: int(each["version"]) for each in model.get("aliases", [])},
        }

    def _location(self, version: Mapping[str, Any]) -> str:
        """Return where the files of a version stand that is a copy of another; others say it themselves."""
        if not rules.is_copy(version.get("source", "")):
            return ""
        which = {"name": version["name"], "version": version["version"]}
        return str(self.ask("GET", "/model-versions/get-download-uri", **which).get("artifact_uri", ""))

    def traces(self, experiment: SourceExperiment) -> Iterator[SourceTrace]:
        """Yield the traces of an experiment; raise Unreachable for servers before version 3."""
        where = [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment.id}}]
        probe = self.send("POST", f"{API3}/traces/search", json={"locations": where, "max_results": 1})
        if probe.status_code == _NOT_FOUND:
            raise Unreachable("a server before version 3")
        gathered: list[Mapping[str, Any]] = []
        for info in self.pages("POST", f"{API3}/traces/search", "traces", locations=where, max_results=100):
            gathered.append(info)
            if len(gathered) == _TRACES:
                yield from self._whole(gathered)
                gathered = []
        if gathered:
            yield from self._whole(gathered)

    def case_sets(self) -> Iterator[SourceCases]:
        """Yield the evaluation datasets; servers before version 3.4 have none."""
        if self.send("POST", f"{API3}/datasets/search", json={"max_results": 1}).status_code != 200:
            return
        for row in self.pages(
            "POST", f"{API3}/datasets/search", "datasets", max_results=_PAGE, order_by=["created_time"]
        ):
            tags = orjson.loads(row.get("tags") or "{}")
            where = row.get("experiment_ids") or self.ask(
                "GET", f"{API3}/datasets/{row['dataset_id']}/experiment-ids"
            ).get("experiment_ids", [])
            yield SourceCases(row["dataset_id"], row["name"], rules.cases_of(row, tags), tuple(where))

    def cases(self, row: SourceCases) -> Iterator[Mapping[str, Any]]:
        """Yield the records of an evaluation dataset."""
        token = ""
        while True:
            query = {"max_results": _PAGE, **({"page_token": token} if token else {})}
            page = self.ask("GET", f"{API3}/datasets/{row.id}/records", **query)
            yield from map(rules.case_of, orjson.loads(page.get("records") or "[]"))
            token = page.get("next_page_token", "")
            if not token:
                return

    def _whole(self, infos: list[Mapping[str, Any]]) -> Iterator[SourceTrace]:
        asked = self.ask("GET", f"{API3}/traces/batchGet", trace_ids=[each["trace_id"] for each in infos])
        spans = {each["trace_info"]["trace_id"]: each.get("spans", []) for each in asked.get("traces", [])}
        for info in infos:
            own = info["trace_id"]
            found = spans.get(own) or self._kept_spans(info)
            said = {name: value for name, value in info.items() if name not in ("assessments", "trace_location")}
            yield SourceTrace(own, said, rules.otlp_of(found, own), tuple(info.get("assessments", [])), len(found))

    def _kept_spans(self, info: Mapping[str, Any]) -> list[Any]:
        """Return the spans that servers before 3.5 keep in a file of artifacts."""
        parts = urlsplit((info.get("tags") or {}).get("mlflow.artifactLocation", ""))
        if parts.scheme != "mlflow-artifacts":
            return []
        answer = self.send("GET", f"{FILES}/{quote(parts.path.strip('/'))}/traces.json")
        return answer.json().get("spans", []) if answer.status_code == 200 else []


def pairs(rows: Any) -> dict[str, str]:
    """Return parameters or tags out of their list."""
    return {each["key"]: each.get("value") or "" for each in rows or []}


def _dataset(each: Mapping[str, Any]) -> Mapping[str, Any]:
    dataset = each["dataset"]
    names = ("name", "digest", "source_type", "source", "schema", "profile")
    return {**{name: dataset.get(name) or "" for name in names}, "tags": pairs(each.get("tags"))}


def _model_metric(one: Mapping[str, Any]) -> tuple[str, float | str, int, int, str, str]:
    made = rules.point(one["key"], float(one.get("value", 0)), int(one.get("timestamp", 0)), int(one.get("step", 0)))
    name, digest = one.get("dataset_name") or "", one.get("dataset_digest") or ""
    return made.key, "NaN" if made.nan else made.value, made.timestamp, made.step, name, digest
