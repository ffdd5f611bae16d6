"""Nouns of tracking: experiments, runs, metrics, parameters, tags, dataset inputs."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from holdtrue.core.errors import Conflict, InvalidInput, NotFound

Lifecycle = Literal["active", "deleted"]
View = Literal["active", "deleted", "all"]

DEFAULT: Final = 0
"""The experiment every project has without anybody making it."""

LARGEST: Final = 1.7976931348623157e308
"""What an infinity is kept as: the greatest double."""

METRICS_PER_BATCH: Final = 1000
KEPT_WHOLE: Final = 100
"""From so many metrics on a batch is kept as it came, and brought into its tables a little later."""
PARAMS_PER_BATCH: Final = 100
TAGS_PER_BATCH: Final = 100
ENTITIES_PER_BATCH: Final = 1000
KEY_LENGTH: Final = 250
PARAM_LENGTH: Final = 6000
TAG_LENGTH: Final = 8000
USER_LENGTH: Final = 256
EXPERIMENT_TAG_LENGTH: Final = 20_000
EXPERIMENT_NAME_LENGTH: Final = 500
DATASETS_PER_BATCH: Final = 1000
PAGE_LIMIT: Final = 50_000

RUN_NAME: Final = "mlflow.runName"
"""The tag that repeats a run's name."""


MODEL_HISTORY: Final = "mlflow.log-model.history"
"""The tag that holds the descriptions of a run's models."""

DATASET_CONTEXT: Final = "mlflow.data.context"
"""The tag of a dataset input that says what it was used for."""


class RunStatus(StrEnum):
    """Say how far a run is."""

    RUNNING = "RUNNING"
    SCHEDULED = "SCHEDULED"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"


ENDED: Final = frozenset({RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED})


class Metric(NamedTuple):
    """Hold one measured value; `nan` marks what is no number, kept as 0. Moments are in milliseconds."""

    key: str
    step: int
    timestamp: int
    value: float
    nan: int


class Pair(NamedTuple):
    """Hold a parameter or a tag."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class ModelMetric:
    """Hold the newest value of a metric of a logged model, on a dataset if one was named."""

    key: str
    value: float
    nan: int
    timestamp: int
    step: int
    dataset_name: str
    dataset_digest: str
    run: str


@dataclass(frozen=True, slots=True)
class Experiment:
    """Hold a named collection of runs."""

    id: int
    name: str
    artifact_location: str
    lifecycle: Lifecycle
    created_ms: int
    updated_ms: int
    tags: tuple[Pair, ...] = ()


@dataclass(frozen=True, slots=True)
class RunInfo:
    """Hold a run without its data. `number` counts the runs of a project and keys everything logged to it."""

    id: str
    number: int
    experiment: int
    name: str
    user: str
    status: RunStatus
    start_ms: int
    end_ms: int | None
    artifact_uri: str
    lifecycle: Lifecycle


@dataclass(frozen=True, slots=True)
class DatasetInput:
    """Tell that a run used a dataset, and for what (its tags)."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str = ""
    profile: str = ""
    tags: tuple[Pair, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelLink:
    """Tell that a run used (`input`) or made (`output`) a logged model."""

    model: str
    direction: Literal["input", "output"]
    step: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """Hold a run with the newest value of each metric and everything else logged to it."""

    info: RunInfo
    metrics: tuple[Metric, ...] = ()
    params: tuple[Pair, ...] = ()
    tags: tuple[Pair, ...] = ()
    datasets: tuple[DatasetInput, ...] = ()
    models: tuple[ModelLink, ...] = ()


@dataclass(frozen=True, slots=True)
class NewRun:
    """Ask for a run."""

    experiment: int
    user: str = ""
    name: str = ""
    start_ms: int | None = None
    tags: tuple[Pair, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """Hold what is logged to one run at once: all of it is kept, or none."""

    run: str
    metrics: tuple[Metric, ...] = ()
    params: tuple[Pair, ...] = ()
    tags: tuple[Pair, ...] = ()
    of_models: tuple[tuple[str, Metric, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Hold a part of a metric's history, in the order of steps, and where the next part begins."""

    points: list[tuple[int, int, float, int]] = field(default_factory=list[tuple[int, int, float, int]])
    next: tuple[int, int, float, int] | None = None


class NoRun(NotFound):
    """No run has this id."""

    code = "no_run"


class NoExperiment(NotFound):
    """No experiment has this id or name."""

    code = "no_experiment"


class NameTaken(Conflict):
    """Another experiment or model has this name already."""

    code = "name_taken"


class NotActive(InvalidInput):
    """Nothing is logged to what is deleted."""

    code = "not_active"


class ParamChanged(InvalidInput):
    """A parameter that was set is never changed."""

    code = "param_changed"
