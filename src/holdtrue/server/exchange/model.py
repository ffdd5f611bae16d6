"""Nouns of an exchange: what a source keeps, whatever kind of source it is, and what came of bringing it over."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

from holdtrue.tracking.model import Metric


@dataclass(frozen=True, slots=True)
class SourceExperiment:
    """Hold an experiment of a source, by the id it has there."""

    id: str
    name: str
    deleted: bool = False
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class SourceRun:
    """Hold a run of a source; `datasets` and `models` are in the form in which an import takes them."""

    id: str
    name: str
    status: str
    start_ms: int
    user: str = ""
    end_ms: int | None = None
    deleted: bool = False
    artifacts: str = ""
    params: Mapping[str, str] = field(default_factory=dict[str, str])
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    datasets: tuple[Mapping[str, Any], ...] = ()
    models: tuple[Mapping[str, Any], ...] = ()
    metric_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceLoggedModel:
    """Hold a logged model of a source; `body` is in the form in which an import takes it."""

    id: str
    artifacts: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SourceTrace:
    """Hold a trace of a source: info, spans (OTLP's JSON) and assessments, as the protocol writes them."""

    id: str
    info: Mapping[str, Any]
    spans: Mapping[str, Any]
    assessments: tuple[Mapping[str, Any], ...] = ()
    count: int = 0


@dataclass(frozen=True, slots=True)
class SourceCases:
    """Hold an evaluation dataset of a source; `body` is in the form in which an import takes it, without experiments.

    `experiments` are ids of the source.
    """

    id: str
    name: str
    body: Mapping[str, Any]
    experiments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceFile:
    """Hold one artifact: its path below the artifacts of its owner, and how its bytes are read."""

    path: str
    open: Any

    def read(self) -> AbstractContextManager[BinaryIO]:
        """Return the bytes as a stream."""
        opened: AbstractContextManager[BinaryIO] = self.open()
        return opened


class Unreachable(Exception):
    """Artifacts stand somewhere this machine cannot read."""


class Source(Protocol):
    """Read what an MLflow keeps."""

    def experiments(self) -> Iterator[SourceExperiment]:
        """Yield all experiments, deleted ones too."""
        ...

    def runs(self, experiment: SourceExperiment) -> Iterator[SourceRun]:
        """Yield all runs of an experiment, deleted ones too."""
        ...

    def points(self, run: SourceRun) -> Iterator[Metric]:
        """Yield every point of every metric of a run."""
        ...

    def logged_models(self, experiment: SourceExperiment) -> Iterator[SourceLoggedModel]:
        """Yield the logged models of an experiment."""
        ...

    def files(self, owner: SourceRun | SourceLoggedModel) -> Iterator[SourceFile]:
        """Yield the artifacts of a run or logged model; raise Unreachable."""
        ...

    def models(self) -> Iterator[Mapping[str, Any]]:
        """Yield registered models in the form in which an import takes them."""
        ...

    def traces(self, experiment: SourceExperiment) -> Iterator[SourceTrace]:
        """Yield the traces of an experiment."""
        ...

    def case_sets(self) -> Iterator[SourceCases]:
        """Yield the evaluation datasets."""
        ...

    def cases(self, row: SourceCases) -> Iterator[Mapping[str, Any]]:
        """Yield the records of an evaluation dataset, in their order and the form in which an import takes them."""
        ...

    def close(self) -> None:
        """Let go of what was opened."""
        ...


@dataclass(slots=True)
class Report:
    """Count what was exchanged, and name all that differs on the two sides afterwards."""

    counts: dict[str, int] = field(default_factory=dict[str, int])
    differences: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    left_out: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    def add(self, name: str, count: int = 1) -> None:
        """Count."""
        self.counts[name] = self.counts.get(name, 0) + count

    def differs(self, what: str, why: str) -> None:
        """Name what is not the same on both sides."""
        self.differences.append({"what": what, "why": why})

    def leave(self, what: str, why: str) -> None:
        """Name what the other side cannot take."""
        self.left_out.append({"what": what, "why": why})

    def json(self) -> dict[str, Any]:
        """Return the report as a command prints it."""
        return {"counts": dict(self.counts), "differences": self.differences, "left_out": self.left_out}
