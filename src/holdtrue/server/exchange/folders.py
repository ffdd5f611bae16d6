"""Read a folder of MLflow (`mlruns`): one small file for each thing it keeps, in the layout of versions 1 to 3."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from holdtrue.core.errors import ConfigurationError, MissingExtra
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

_TRASH = ".trash"
_META = "meta.yaml"
_NOT_RUNS = frozenset({"datasets", "models", "tags", "traces"})


class FolderSource:
    """Read experiments, runs, models and traces out of files."""

    def __init__(self, folder: Path, served: Path | None = None) -> None:
        """`served` is the folder of an artifact server whose addresses runs name."""
        self._load = _yaml()
        self._root = folder.resolve()
        self._served = served
        if not list(self._root.glob(f"*/{_META}")) and (self._root / "mlruns").is_dir():
            self._root /= "mlruns"
        if not any(self._root.glob(f"*/{_META}")) and not any(self._root.glob(f"models/*/{_META}")):
            raise ConfigurationError(
                f"{folder} is not a folder of MLflow.",
                why="No folder in it has a file meta.yaml.",
                mend="Give the folder that MLFLOW_TRACKING_URI names, usually mlruns.",
            )
        self._places: dict[str, Path] = {}

    def close(self) -> None:
        """Nothing is held open."""

    def case_sets(self) -> Iterator[SourceCases]:
        """Yield nothing: MLflow keeps evaluation datasets in databases alone."""
        yield from ()

    def cases(self, row: SourceCases) -> Iterator[Mapping[str, Any]]:
        """Yield nothing."""
        yield from ()

    def experiments(self) -> Iterator[SourceExperiment]:
        """Yield all experiments, deleted ones too."""
        for folder in (*_folders(self._root), *_folders(self._root / _TRASH)):
            meta = self._meta(folder / _META)
            if folder.name == "models" or "experiment_id" not in meta:
                continue
            own = str(meta["experiment_id"])
            self._places[own] = folder
            deleted = meta.get("lifecycle_stage") == "deleted" or folder.parent.name == _TRASH
            yield SourceExperiment(own, str(meta.get("name") or own), deleted, _texts(folder / "tags"))

    def runs(self, experiment: SourceExperiment) -> Iterator[SourceRun]:
        """Yield all runs of an experiment, deleted ones too."""
        for folder in _folders(self._places[experiment.id]):
            if folder.name in _NOT_RUNS or not (folder / _META).is_file():
                continue
            meta = self._meta(folder / _META)
            own = str(meta.get("run_id") or meta.get("run_uuid") or folder.name)
            self._places[own] = folder
            yield SourceRun(
                id=own,
                name=str(meta.get("run_name") or meta.get("name") or ""),
                status=rules.run_status(meta.get("status", 3)),
                start_ms=int(meta.get("start_time") or 0),
                user=str(meta.get("user_id") or ""),
                end_ms=int(meta["end_time"]) if meta.get("end_time") else None,
                deleted=meta.get("lifecycle_stage") == "deleted",
                artifacts=str(meta.get("artifact_uri") or ""),
                params=_texts(folder / "params"),
                tags=_texts(folder / "tags"),
                datasets=tuple(self._datasets(folder)),
                models=tuple(self._links(folder)),
            )

    def _datasets(self, run: Path) -> Iterator[Mapping[str, Any]]:
        for link in _folders(run / "inputs"):
            said = self._meta(link / _META)
            meta = self._meta(run.parent / "datasets" / str(said.get("source_id")) / _META)
            if said.get("source_type") != "DATASET" or not meta:
                continue
            names = ("name", "digest", "source_type", "source", "schema", "profile")
            tags = {str(key): str(value) for key, value in (said.get("tags") or {}).items()}
            yield {**{name: str(meta.get(name) or "") for name in names}, "tags": tags}

    def _links(self, run: Path) -> Iterator[Mapping[str, Any]]:
        for name, direction in (("inputs", "input"), ("outputs", "output")):
            for link in _folders(run / name):
                said = self._meta(link / _META)
                named = str(said.get("destination_id") if direction == "output" else said.get("source_id"))
                if named.startswith("m-"):
                    yield {"model": named, "direction": direction, "step": int(said.get("step") or 0)}

    def points(self, run: SourceRun) -> Iterator[Metric]:
        """Yield every point of every metric of a run."""
        folder = self._places[run.id] / "metrics"
        for file in _files(folder):
            key = file.relative_to(folder).as_posix()
            with file.open(encoding="utf-8") as lines:
                for line in lines:
                    parts = line.split()
                    if len(parts) >= 2:
                        step = int(parts[2]) if len(parts) > 2 else 0
                        yield rules.point(key, float(parts[1]), rules.whole_ms(parts[0]), step)

    def logged_models(self, experiment: SourceExperiment) -> Iterator[SourceLoggedModel]:
        """Yield the logged models of an experiment."""
        for folder in _folders(self._places[experiment.id] / "models"):
            meta = self._meta(folder / _META)
            if not meta or meta.get("lifecycle_stage") == "deleted":
                continue
            own = str(meta["model_id"])
            self._places[own] = folder
            body = {
                "id": own,
                "name": str(meta.get("name") or ""),
                "created_ms": int(meta.get("creation_timestamp") or 0),
                "updated_ms": int(meta.get("last_updated_timestamp") or 0),
                "status": rules.model_status(meta.get("status")),
                "model_type": str(meta.get("model_type") or ""),
                "source_run": str(meta.get("source_run_id") or ""),
                "params": _texts(folder / "params"),
                "tags": _texts(folder / "tags"),
                "metrics": list(_model_metrics(folder / "metrics")),
            }
            yield SourceLoggedModel(own, str(meta.get("artifact_location") or ""), body)

    def files(self, owner: SourceRun | SourceLoggedModel) -> Iterator[SourceFile]:
        """Yield the artifacts of a run or logged model; raise Unreachable."""
        folder: Path | None = self._places[owner.id] / "artifacts"
        if not _files(self._places[owner.id] / "artifacts") and owner.artifacts:
            # The folder may have been moved: what stands in it comes before what the address says.
            folder = rules.local_folder(owner.artifacts, self._root.parent, self._served)
            if folder is None:
                raise Unreachable(owner.artifacts)
        assert folder is not None
        for file in _files(folder):
            yield SourceFile(file.relative_to(folder).as_posix(), lambda file=file: file.open("rb"))

    def models(self) -> Iterator[Mapping[str, Any]]:
        """Yield registered models."""
        for folder in _folders(self._root / "models"):
            meta = self._meta(folder / _META)
            if not meta:
                continue
            versions: list[dict[str, Any]] = [
                {
                    "number": int(said["version"]),
                    "run": str(said.get("run_id") or ""),
                    "description": str(said.get("description") or ""),
                    **rules.version_place(
                        *(str(said.get(name) or "") for name in ("source", "storage_location", "model_id"))
                    ),
                    "stage": str(said.get("current_stage") or "None"),
                    "tags": _texts(each / "tags"),
                }
                for each in _folders(folder)
                if each.name.startswith("version-")
                and (said := self._meta(each / _META))
                and said.get("current_stage") != "Deleted_Internal"
            ]
            aliases = {name: int(text) for name, text in _texts(folder / "aliases").items()}
            yield {
                "name": str(meta["name"]),
                "description": str(meta.get("description") or ""),
                "tags": _texts(folder / "tags"),
                "versions": sorted(versions, key=lambda each: int(each["number"])),
                "aliases": aliases,
            }

    def traces(self, experiment: SourceExperiment) -> Iterator[SourceTrace]:
        """Yield the traces of an experiment."""
        for folder in _folders(self._places[experiment.id] / "traces"):
            meta = self._meta(folder / "trace_info.yaml")
            if not meta:
                continue
            own = str(meta.get("trace_id") or meta.get("request_id") or folder.name)
            file = folder / "artifacts" / "traces.json"
            spans = orjson.loads(file.read_bytes()).get("spans", []) if file.is_file() else []
            judged = [self._meta(each) for each in _files(folder / "assessments")]
            yield SourceTrace(
                own,
                _trace_info(own, meta, _texts(folder / "request_metadata"), _texts(folder / "tags")),
                rules.otlp_of(spans, own),
                tuple(each for each in judged if each.get("assessment_id")),
                len(spans),
            )

    def _meta(self, file: Path) -> dict[str, Any]:
        if not file.is_file():
            return {}
        found = self._load(file.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}


def _trace_info(own: str, meta: Mapping[str, Any], metadata: dict[str, str], tags: dict[str, str]) -> dict[str, Any]:
    """Return a trace's info as the protocol writes it, out of a file of version 3 or 2."""
    took = meta.get("execution_duration_ms", meta.get("execution_time_ms"))
    requested = meta.get("request_time")
    info: dict[str, Any] = {
        "trace_id": own,
        "request_time": requested if isinstance(requested, str) else rules.moment(int(meta.get("timestamp_ms") or 0)),
        "state": str(meta.get("state") or meta.get("status") or "STATE_UNSPECIFIED"),
        "request_preview": str(meta.get("request_preview") or metadata.get("mlflow.traceInputs") or ""),
        "response_preview": str(meta.get("response_preview") or metadata.get("mlflow.traceOutputs") or ""),
        "client_request_id": str(meta.get("client_request_id") or ""),
        "trace_metadata": metadata,
        "tags": tags,
    }
    if took is not None:
        info["execution_duration"] = rules.duration(int(took))
    return info


def _model_metrics(folder: Path) -> Iterator[tuple[str, float | str, int, int, str, str]]:
    for file in _files(folder):
        key = file.relative_to(folder).as_posix()
        for line in file.read_text(encoding="utf-8").splitlines():
            parts = line.split()
            if len(parts) >= 3:
                made = rules.point(key, float(parts[1]), rules.whole_ms(parts[0]), int(parts[2]))
                name, digest = (parts[4], parts[5]) if len(parts) > 5 else ("", "")
                yield key, "NaN" if made.nan else made.value, made.timestamp, made.step, name, digest


def _folders(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []


def _files(folder: Path) -> list[Path]:
    """Return the files below a folder; symbolic links are followed nowhere."""
    if not folder.is_dir():
        return []
    return sorted(each for each in folder.rglob("*") if each.is_file() and not each.is_symlink())


def _texts(folder: Path) -> dict[str, str]:
    """Return the texts below a folder by their paths there: names with slashes are folders."""
    return {each.relative_to(folder).as_posix(): each.read_text(encoding="utf-8") for each in _files(folder)}


def _yaml() -> Any:
    try:
        import yaml
    except ImportError:
        raise MissingExtra.of("yaml", "pyyaml") from None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return lambda text: yaml.load(text, Loader=loader)  # noqa: S506  # a safe loader either way
