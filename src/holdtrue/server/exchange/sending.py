"""Send what a project keeps to MLflow: a folder of its form, or a running server; then compare both sides.

The source is this server itself, asked by the protocol it speaks: what its clients see is what is sent.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.errors import ConfigurationError, HoldtrueError
from holdtrue.server.client import Client
from holdtrue.server.exchange.bringing import Tell, copied
from holdtrue.server.exchange.folderout import FolderSink
from holdtrue.server.exchange.folders import FolderSource
from holdtrue.server.exchange.model import (
    Report,
    Source,
    SourceCases,
    SourceExperiment,
    SourceLoggedModel,
    SourceRun,
    SourceTrace,
    Unreachable,
)
from holdtrue.server.exchange.rest import MlflowServer
from holdtrue.server.exchange.restout import ServerSink
from holdtrue.tracking.cases.rules import record_hash
from holdtrue.tracking.importing import digest_of

Sink = FolderSink | ServerSink


class _Nothing:
    """Take bytes and keep none."""

    def write(self, data: bytes) -> int:
        return len(data)


class _Reading(Protocol):
    def __call__(self) -> Source: ...


def send(client: Client, project: str, target: str, *, tell: Tell = lambda _name, _report: None) -> Report:
    """Send everything of a project to the folder or server that `target` names; the report names every difference."""
    scheme = urlsplit(target).scheme
    if scheme not in ("", "file", "http", "https"):
        raise ConfigurationError(
            f"An export writes a folder or a server, not {scheme}.",
            why="MLflow itself turns a folder into a database.",
            mend="holdtrue export mlflow FOLDER, then: mlflow migrate-filestore --source FOLDER --target sqlite:///…",
        )
    with ExitStack() as stack:
        source = MlflowServer(client.speaking(project))
        stack.callback(source.close)
        if scheme in ("http", "https"):
            server = MlflowServer.at(target)
            stack.callback(server.close)
            sink: Sink = ServerSink(server)
            return Sending(source, sink, lambda: server, tell).all()
        folder = FolderSink(Path(urlsplit(target).path if scheme == "file" else target))
        return Sending(source, folder, lambda: FolderSource(folder.root), tell).all()


class Sending:
    """One export under way."""

    def __init__(self, source: Source, sink: Sink, reading: _Reading, tell: Tell) -> None:
        """`reading` reads the target back."""
        self._source = source
        self._sink = sink
        self._reading = reading
        self._tell = tell
        self.report = Report()
        # What is to be found on the other side: run → digest, (owner, path) → digest, and so on.
        self._expected: dict[tuple[str, ...], Any] = {}

    def all(self) -> Report:
        """Send everything, then read it back and compare."""
        for experiment in self._source.experiments():
            self._experiment(experiment)
        for model in self._source.models():
            self._guarded(f"model {model['name']}", lambda model=model: self._model(model))
        for cases in self._source.case_sets():
            self._guarded(f"evaluation dataset {cases.name}", lambda cases=cases: self._cases(cases))
        finish = getattr(self._sink, "finish", None)
        if finish is not None:
            finish()
        self._verify()
        return self.report

    def _guarded(self, name: str, work: Callable[[], None]) -> None:
        """Do one thing; what the other side cannot take is left out, and said."""
        try:
            work()
        except HoldtrueError as error:
            if error.status >= 500 or error.status in (401, 403):
                raise
            self.report.leave(name, f"{error.what} {error.why or ''}".strip())
        self._tell(name, self.report)

    def _experiment(self, experiment: SourceExperiment) -> None:
        self._sink.experiment(experiment)
        self.report.add("experiments")
        for run in self._source.runs(experiment):
            self._guarded(f"run {run.id}", lambda run=run: self._run(experiment, run))
        for logged in self._source.logged_models(experiment):
            self._guarded(f"logged model {logged.id}", lambda logged=logged: self._logged(experiment, logged))
        for trace in self._source.traces(experiment):
            self._guarded(f"trace {trace.id}", lambda trace=trace: self._trace(experiment, trace))

    def _run(self, experiment: SourceExperiment, run: SourceRun) -> None:
        points = sorted(set(self._source.points(run)), key=lambda each: (each.key, each.step, each.timestamp))
        self._sink.run(experiment, run, points)
        tags = {"mlflow.runName": run.name, **run.tags}
        self._expected["run", run.id] = digest_of(
            points, run.params.items(), tags.items(), [(each["name"], each["digest"]) for each in run.datasets]
        )
        self._files(f"run {run.id}", run)
        self._sink_done(run)
        self.report.add("runs")
        self.report.add("points", len(points))

    def _sink_done(self, run: SourceRun) -> None:
        done = getattr(self._sink, "ended", None)
        if done is not None:
            done(run)

    def _logged(self, experiment: SourceExperiment, logged: SourceLoggedModel) -> None:
        self._sink.logged_model(experiment, logged)
        self._files(f"logged model {logged.id}", logged)
        self.report.add("logged models")

    def _files(self, name: str, owner: SourceRun | SourceLoggedModel) -> None:
        try:
            for file in self._source.files(owner):
                with file.read() as stream:
                    digest, size = self._sink.file(owner, file.path, stream)
                self._expected["file", owner.id, file.path] = digest
                self.report.add("artifacts")
                self.report.add("artifact bytes", size)
        except Unreachable as error:
            self.report.leave(f"artifacts of {name}", f"{error} takes no files by the server's proxy")

    def _model(self, model: Any) -> None:
        self._sink.model(model)
        self.report.add("registered models")
        self.report.add("model versions", len(model["versions"]))
        for each in model["versions"]:
            self._expected["version", model["name"], str(each["number"])] = True
        for alias, number in model["aliases"].items():
            self._expected["alias", model["name"], alias] = number

    def _cases(self, row: SourceCases) -> None:
        records = list(self._source.cases(row))
        self._sink.cases(row, records)
        self._expected["evaluation dataset", row.id] = _told(records)
        self.report.add("evaluation datasets")
        self.report.add("records", len(records))

    def _trace(self, experiment: SourceExperiment, trace: SourceTrace) -> None:
        self._sink.trace(experiment, trace)
        self._expected["trace", trace.id] = (trace.count, len(trace.assessments))
        self.report.add("traces")
        self.report.add("spans", trace.count)

    def _verify(self) -> None:
        """Read the target back, and name what is not as it was sent."""
        found: dict[tuple[str, ...], Any] = {}
        source = self._reading()
        for experiment in source.experiments():
            self._read_back(source, experiment, found)
        for model in source.models():
            for each in model["versions"]:
                found["version", model["name"], str(each["number"])] = True
            for alias, number in model["aliases"].items():
                found["alias", model["name"], alias] = number
        own = getattr(self._sink, "original", lambda named: named)
        for cases in source.case_sets():
            found["evaluation dataset", own(cases.id)] = _told(source.cases(cases))
        for key, value in self._expected.items():
            if found.get(key) != value:
                why = "is not there" if key not in found else f"sent {value}, there {found[key]}"
                self.report.differs(" ".join(key), why)

    def _read_back(self, source: Source, experiment: SourceExperiment, found: dict[tuple[str, ...], Any]) -> None:
        own = getattr(self._sink, "original", lambda named: named)
        self._tell(f"comparing {experiment.name}", self.report)
        for logged in source.logged_models(experiment):
            self._hash(source, logged, own(logged.id), found)
        for run in source.runs(experiment):
            named = own(run.id)
            tags = {"mlflow.runName": run.name, **getattr(self._sink, "plain", dict)(run.tags)}
            found["run", named] = digest_of(
                source.points(run),
                run.params.items(),
                tags.items(),
                [(each["name"], each["digest"]) for each in run.datasets],
            )
            self._hash(source, run, named, found)
        for trace in source.traces(experiment):
            found["trace", trace.id] = (trace.count, len(trace.assessments))

    def _hash(
        self, source: Source, owner: SourceRun | SourceLoggedModel, named: str, found: dict[tuple[str, ...], Any]
    ) -> None:
        try:
            for file in source.files(owner):
                with file.read() as stream:
                    found["file", named, file.path] = copied(stream, _Nothing())[0]
        except Unreachable:
            return


def _told(records: Iterable[Mapping[str, Any]]) -> str:
    """Return how many records there are, and the hash of what they say: inputs, outputs and expectations."""
    hashes = sorted(record_hash(each["inputs"], each["outputs"], each["expectations"], {}, {}) for each in records)
    return f"{len(hashes)} records {bytes_hash(''.join(hashes).encode())[:16]}"
