"""Bring over what an MLflow keeps, then compare both sides: by counts, and by hashes of runs and of every artifact.

Everything is written so that writing it again changes nothing: an import that broke off is begun again and goes on.
"""

from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from blake3 import blake3

from holdtrue.core.errors import HoldtrueError, InvalidInput, NotFound
from holdtrue.server.client import Client
from holdtrue.server.exchange.folders import FolderSource
from holdtrue.server.exchange.model import (
    Report,
    Source,
    SourceCases,
    SourceExperiment,
    SourceFile,
    SourceLoggedModel,
    SourceRun,
    Unreachable,
)
from holdtrue.server.exchange.rest import MlflowServer
from holdtrue.tracking.cases.rules import record_hash
from holdtrue.tracking.importing import digest_of
from holdtrue.tracking.model import Metric

Tell = Callable[[str, Report], None]
_PAGE = 1000
_RECORDS = 200
_CHUNK = 1 << 20


def open_source(address: str, artifacts: Path | None = None) -> Source:
    """Return the source that an address names: a server, a database, a folder or a file of SQLite."""
    scheme = urlsplit(address).scheme
    if scheme in ("http", "https"):
        return MlflowServer.at(address)
    path = Path(urlsplit(address).path) if scheme == "file" else Path(address)
    if scheme in ("", "file") and path.is_dir():
        return FolderSource(path, artifacts)
    # Imported late: SQL is loaded only for databases.
    from holdtrue.server.exchange.store import DatabaseSource

    return DatabaseSource(str(path) if scheme == "file" else address, artifacts)


def bring(
    client: Client,
    project: str,
    address: str,
    *,
    artifacts: Path | None = None,
    tell: Tell = lambda _name, _report: None,
) -> Report:
    """Bring everything an MLflow keeps into a project; `artifacts` is the folder its artifact server kept files in.

    `tell` is called after each experiment, run, model and trace. The report names every difference.
    """
    source = open_source(address, artifacts)
    try:
        return Bringing(client, f"/api/projects/{project}", source, tell).all()
    finally:
        source.close()


class Bringing:
    """One import under way."""

    def __init__(self, client: Client, base: str, source: Source, tell: Tell) -> None:
        self._client = client
        self._base = base
        self._source = source
        self._tell = tell
        self.report = Report()
        self._names: dict[str, str] = {}

    def all(self) -> Report:
        """Bring everything over."""
        for experiment in self._source.experiments():
            self._guarded(f"experiment {experiment.name}", lambda experiment=experiment: self._experiment(experiment))
        for model in self._source.models():
            self._model(model)
        for cases in self._source.case_sets():
            self._guarded(f"evaluation dataset {cases.name}", lambda cases=cases: self._cases(cases))
        return self.report

    def _experiment(self, experiment: SourceExperiment) -> None:
        body = {"name": experiment.name, "tags": dict(experiment.tags)}
        made = self._client.post(f"{self._base}/imported-experiments", body)
        self._names[experiment.id] = experiment.name
        self.report.add("experiments")
        for logged in self._source.logged_models(experiment):
            self._guarded(f"logged model {logged.id}", lambda logged=logged: self._logged(experiment, logged))
        for run in self._source.runs(experiment):
            self._guarded(f"run {run.id}", lambda run=run: self._run(experiment, run))
        try:
            for trace in self._source.traces(experiment):
                self._guarded(f"trace {trace.id}", lambda trace=trace: self._trace(experiment, trace))
        except Unreachable as error:
            self.report.leave(
                f"traces of experiment {experiment.name}", f"{error} is not asked for them; give its database"
            )
        if experiment.deleted and not made["deleted"]:
            self._client.post(f"{self._base}/imported-experiments", {**body, "deleted": True})

    def _guarded(self, name: str, work: Callable[[], None]) -> None:
        """Do one thing; what this server refuses of it is a difference, and the others still come."""
        try:
            work()
        except HoldtrueError as error:
            if error.status >= 500 or error.status in (401, 403):
                raise
            self.report.differs(name, error.what)
        self._tell(name, self.report)

    def _run(self, experiment: SourceExperiment, run: SourceRun) -> None:
        tags = {"mlflow.runName": run.name, **run.tags}
        points = sorted(set(self._source.points(run)), key=lambda each: (each.key, each.step, each.timestamp))
        expected = digest_of(
            points, run.params.items(), tags.items(), [(each["name"], each["digest"]) for each in run.datasets]
        )
        known = self._known(run)
        if known is None or not known["deleted"]:
            self._write(experiment, run, tags, points, known)
        place = f"{self._base}/runs/{run.id}/artifact"
        before = known["artifacts"] if known else {}
        sent = self._files(f"run {run.id}", run, place, before)
        found = self._client.get(f"{self._base}/imported-runs/{run.id}")
        if found["digest"] != expected:
            wanted = {"points": len(points), "params": len(run.params), "tags": len(tags)}
            here = {name: found[name] for name in wanted}
            self.report.differs(f"run {run.id}", f"there {wanted}, here {here}")
        if found["status"] != run.status:
            self.report.differs(f"run {run.id}", f"there {run.status}, here {found['status']}")
        self._compare(f"run {run.id}", sent, found["artifacts"])
        if run.deleted and not found["deleted"]:
            self._client.post(f"{self._base}/imported-runs/{run.id}/deleted", {})
        self.report.add("runs")
        self.report.add("points", len(points))
        self.report.add("datasets", len(run.datasets))

    def _known(self, run: SourceRun) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._client.get(f"{self._base}/imported-runs/{run.id}")
        except NotFound:
            return None
        return found

    def _write(
        self,
        experiment: SourceExperiment,
        run: SourceRun,
        tags: Mapping[str, str],
        points: list[Metric],
        known: dict[str, Any] | None,
    ) -> None:
        body = {
            "id": run.id,
            "experiment": experiment.name,
            "name": run.name,
            "user": run.user,
            "status": run.status,
            "start_ms": run.start_ms,
            "end_ms": run.end_ms,
            "params": dict(run.params),
            "tags": dict(tags),
            "datasets": [dict(each) for each in run.datasets],
            "models": [dict(each) for each in run.models],
        }
        self._client.post(f"{self._base}/imported-runs", body)
        if known is not None and known["points"] == len(points):
            return
        for start in range(0, len(points), _PAGE):
            part = [
                (each.key, "NaN" if each.nan else each.value, each.timestamp, each.step)
                for each in points[start : start + _PAGE]
            ]
            self._client.post(f"{self._base}/imported-runs/{run.id}/points", {"points": part})

    def _logged(self, experiment: SourceExperiment, logged: SourceLoggedModel) -> None:
        self._client.post(f"{self._base}/imported-logged-models", {**logged.body, "experiment": experiment.name})
        place = f"{self._base}/imported-logged-models/{logged.id}"
        before = self._client.get(place)["artifacts"]
        sent = self._files(f"logged model {logged.id}", logged, f"{place}/artifact", before)
        self._compare(f"logged model {logged.id}", sent, self._client.get(place)["artifacts"])
        self.report.add("logged models")

    def _files(
        self, name: str, owner: SourceRun | SourceLoggedModel, place: str, before: Mapping[str, str]
    ) -> dict[str, str]:
        """Bring the artifacts of one owner, those left out that are here with the same bytes; return all digests."""
        sent: dict[str, str] = {}
        try:
            for file in self._source.files(owner):
                try:
                    sent[file.path], size = self._file(place, file, before)
                except InvalidInput as error:
                    self.report.differs(f"{name}, artifact {file.path}", error.what)
                    continue
                self.report.add("artifacts")
                self.report.add("artifact bytes", size)
        except Unreachable as error:
            self.report.leave(f"artifacts of {name}", f"{error} cannot be read from here; give --artifacts FOLDER")
        except NotFound as error:
            self.report.differs(f"artifacts of {name}", error.what)
        return sent

    def _file(self, place: str, file: SourceFile, before: Mapping[str, str]) -> tuple[str, int]:
        """Bring one artifact, unless it is here with the same bytes; return its digest and size."""
        with TemporaryFile() as kept, file.read() as stream:
            digest, size = copied(stream, kept)
            if before.get(file.path) != digest:
                kept.seek(0)
                self._client.upload(place, kept, path=file.path)
        return digest, size

    def _compare(self, name: str, sent: Mapping[str, str], here: Mapping[str, str]) -> None:
        for path, digest in sent.items():
            if here.get(path) != digest:
                self.report.differs(f"{name}, artifact {path}", "other bytes here" if path in here else "not here")

    def _model(self, model: Mapping[str, Any]) -> None:
        def work() -> None:
            came = self._client.post(f"{self._base}/imported-models", model)["versions"]
            self.report.add("registered models")
            self.report.add("model versions", len(model["versions"]))
            self.report.add("new model versions", came)
            self._compare_model(model)

        self._guarded(f"model {model['name']}", work)

    def _compare_model(self, model: Mapping[str, Any]) -> None:
        name = model["name"]
        for each in model["versions"]:
            try:
                self._client.get(f"{self._base}/model-version", name=f"{name}/{each['number']}")
            except NotFound:
                self.report.leave(f"model {name}/{each['number']}", f"its files ({each['source']}) did not come")
            if each["stage"].lower() == "production":
                self.report.leave(f"stage Production of {name}/{each['number']}", "it waits for its approval here")
        for alias, number in model["aliases"].items():
            self.report.add("aliases")
            if alias.lower() == "production":
                self.report.leave(f"alias {name}@{alias}", "it waits for its approval here")
                continue
            try:
                found = self._client.get(f"{self._base}/model-version", name=f"{name}@{alias}")["number"]
            except NotFound:
                found = None
            if found != number:
                self.report.differs(f"alias {name}@{alias}", f"there version {number}, here {found}")

    def _trace(self, experiment: SourceExperiment, trace: Any) -> None:
        body = {
            "experiment": experiment.name,
            "info": trace.info,
            "spans": trace.spans,
            "assessments": list(trace.assessments),
        }
        found = self._client.post(f"{self._base}/imported-traces", body)
        if found["spans"] != trace.count:
            self.report.differs(f"trace {trace.id}", f"there {trace.count} spans, here {found['spans']}")
        self.report.add("traces")
        self.report.add("spans", trace.count)
        self.report.add("assessments", len(trace.assessments))

    def _cases(self, row: SourceCases) -> None:
        name, place = f"evaluation dataset {row.name}", f"{self._base}/imported-evaluation-datasets"
        # One that was linked to an experiment which is gone for good is linked to those that are left.
        where = [self._names[each] for each in row.experiments if each in self._names]
        self._client.post(place, {**row.body, "experiments": where})
        count = left = 0
        records = self._source.cases(row)
        while part := list(islice(records, _RECORDS)):
            found = self._client.post(f"{place}/{row.id}/records", {"records": part})
            cleaned = set(found["cleaned"])
            if cleaned:
                self.report.leave(name, f"what looks like credentials, in {len(cleaned)} records")
            for each, here in zip(part, found["hashes"], strict=True):
                said = (each["inputs"], each["outputs"], each["expectations"], each["tags"], each["source"])
                if here and each["id"] not in cleaned and record_hash(*said) != here:
                    self.report.differs(f"{name}, record {each['id']}", "it was changed here")
            left += found["hashes"].count("")
            count += len(part)
        if left:
            self.report.leave(name, f"{left} records that name somebody who was erased here")
        count -= left
        held = self._client.get(f"{place}/{row.id}")["records"]
        if held != count:
            self.report.differs(name, f"there {count} records, here {held}")
        self.report.add("evaluation datasets")
        self.report.add("records", count)


def copied(stream: BinaryIO, kept: Any) -> tuple[str, int]:
    """Copy a stream and return the BLAKE3 of its bytes and their number."""
    digest, size = blake3(), 0
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
        kept.write(chunk)
        size += len(chunk)
    return digest.hexdigest(), size
