"""Monitors, alarms and incidents: frozen values, states, and the table of allowed moves."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal, Self

from holdtrue.core.errors import ConfigurationError, StateError
from holdtrue.core.ids import check_name
from holdtrue.stats import Interval, finite

METRICS = ("brier", "error", "mae", "roc_auc", "volume")
LOSSES = ("brier", "error", "mae")
"""Metrics of which less is better: of chances, of classes, and of numbers."""
Role = Literal["answer", "shadow"]
Grain = Literal["day", "month"]
_TELLING = ("accuracy", "mae")

_SPAN = re.compile(r"([1-9][0-9]{0,2})([dw])")


@dataclass(frozen=True, slots=True)
class MonitorSpec:
    """Describe a monitor: which statistic, over which window, and how often it may cry wolf.

    `window` and `every` are spans like "14d" or "2w". `within` says which pairs of rows the area counts: with
    "day" only pairs of one day, so that a week of storms is no loss of quality; with "window" all of them.
    The reference is the first `reference_days` days of a release with labels, unless one is given.
    """

    name: str
    service: str
    metric: str = "roc_auc"
    alarms_per_quarter: float = 1.0
    window: str = "14d"
    every: str = "7d"
    within: Literal["day", "window"] = "day"
    reference_days: int = 28
    least_drop: float = 0.01
    label_delay: str = "1d"
    min_maturity: float = 0.8
    min_rows: int = 500

    def __post_init__(self) -> None:
        check_name(self.name, "monitor name")
        check_name(self.service, "service name")
        if self.metric not in METRICS:
            raise ConfigurationError(
                f"The monitor “{self.name}” watches “{self.metric}”, which is not known.",
                why=f"Known metrics: {', '.join(METRICS)}.",
                mend="Choose one of them.",
            )
        for name, value in (
            ("window", self.window),
            ("every", self.every),
            ("label_delay", self.label_delay),
        ):
            span_days(value, f"{self.name}.{name}")
        if not self.alarms_per_quarter > 0.0:
            raise ConfigurationError(
                f"The monitor “{self.name}” has a budget of {self.alarms_per_quarter} alarms per quarter.",
                why="A monitor that may never be wrong can never be right.",
                mend="Give a number above 0, for example alarms_per_quarter=1.",
            )
        if self.reference_days < 7 or not 0.0 <= self.min_maturity <= 1.0:
            raise ConfigurationError(
                f"The monitor “{self.name}” needs reference_days of at least 7 and min_maturity in [0, 1].",
                mend="Correct the value and try again.",
            )

    @property
    def window_days(self) -> int:
        """Return the length of the window in days."""
        return span_days(self.window)

    @property
    def every_days(self) -> int:
        """Return how many days lie between two judgements."""
        return span_days(self.every)

    @property
    def delay_days(self) -> int:
        """Return after how many days a label is due."""
        return span_days(self.label_delay)


def span_days(text: str, what: str = "span") -> int:
    """Return the days of a span like "14d" or "2w"; anything else raises ConfigurationError."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ConfigurationError(
            f"{what}: “{text}” is not a span of time.", mend="Write whole days or weeks, like “14d” or “2w”."
        )
    return int(found[1]) * (7 if found[2] == "w" else 1)


@dataclass(frozen=True, slots=True)
class Measure:
    """Hold what answers are measured by, with its interval; `promised` is what a share was said to be."""

    name: str
    interval: Interval
    promised: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the form in which a window keeps it."""
        told = {} if self.promised is None else {"promised": self.promised}
        return {"name": self.name, **self.interval.to_json(), **told}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build what `to_json` described."""
        value, lower, upper = (math.nan if data[key] is None else data[key] for key in ("value", "lower", "upper"))
        return cls(data["name"], Interval(value, lower, upper, data["n"]), data.get("promised"))


@dataclass(frozen=True, slots=True)
class Window:
    """Hold what is known of one release in one day or month: counts, maturity and quality.

    `due` counts predictions whose label should have come, `labelled_due` those of them that have one;
    `reason` says why quality is null. `measures` are the log loss and Brier score of chances; answers that are classes
    or numbers have neither area nor `brier`, and their most telling measure comes first.
    """

    service: str
    release: str
    role: str
    grain: str
    start: date
    n: int
    labelled: int
    due: int
    labelled_due: int
    positives: int
    corrected: int
    fallbacks: int
    roc_auc: Interval
    brier: float
    reason: str = ""
    measures: tuple[Measure, ...] = ()

    @property
    def quality(self) -> Measure:
        """Return what the window is measured by first; NaN where nothing is known."""
        told = next((each for each in self.measures[:1] if each.name in _TELLING), None)
        return told or Measure("roc_auc", self.roc_auc)

    def measure(self, name: str) -> Measure | None:
        """Return one of what the window is measured by, None where that is not known."""
        found = next((each for each in self.measures if each.name == name), None)
        return self.quality if found is None and self.quality.name == name else found

    @property
    def maturity(self) -> float:
        """Return the share of due labels that are in; NaN when none is due."""
        return self.labelled_due / self.due if self.due else math.nan

    @property
    def base_rate(self) -> float:
        """Return the share of labelled rows that are positive; NaN without labels."""
        return self.positives / self.labelled if self.labelled else math.nan

    def to_json(self) -> dict[str, Any]:
        """Return the flat row that pages and tables show."""
        return {
            "window": f"{self.start:%Y-%m}" if self.grain == "month" else self.start.isoformat(),
            "grain": self.grain,
            "release": self.release,
            "role": self.role,
            "n": self.n,
            "labelled": self.labelled,
            "maturity": finite(self.maturity),
            "base_rate": finite(self.base_rate),
            "roc_auc": finite(self.roc_auc.value),
            "lower": finite(self.roc_auc.lower),
            "upper": finite(self.roc_auc.upper),
            "brier": finite(self.brier),
            "measures": [each.to_json() for each in self.measures],
            "corrected": self.corrected,
            "fallbacks": self.fallbacks,
            "reason": self.reason,
        }


class Outcome(StrEnum):
    """Say how a judgement ended."""

    OK = "ok"
    ALARM = "alarm"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Judgement:
    """Hold one look of a monitor at one window [start, end), with the limit it was held against."""

    monitor: str
    service: str
    metric: str
    release: str
    start: date
    end: date
    n: int
    labelled: int
    maturity: float
    value: float
    limit: float
    reference: float
    detectable: float
    outcome: Outcome
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the flat row that pages and the API show."""
        return {
            "monitor": self.monitor,
            "service": self.service,
            "metric": self.metric,
            "release": self.release,
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "n": self.n,
            "labelled": self.labelled,
            "maturity": finite(self.maturity),
            "value": finite(self.value),
            "limit": finite(self.limit),
            "reference": finite(self.reference),
            "detectable": finite(self.detectable),
            "outcome": str(self.outcome),
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Alarm:
    """Tell that a monitor's window fell below its limit."""

    id: str
    monitor: str
    service: str
    metric: str
    release: str
    start: date
    end: date
    value: float
    limit: float
    reference: float
    raised_at: datetime
    incident: str
    text: str


class IncidentState(StrEnum):
    """Name where an incident stands."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


MOVES: Mapping[IncidentState, frozenset[IncidentState]] = MappingProxyType(
    {
        IncidentState.OPEN: frozenset({IncidentState.ACKNOWLEDGED, IncidentState.RESOLVED}),
        IncidentState.ACKNOWLEDGED: frozenset({IncidentState.RESOLVED}),
        # What comes back after a resolution is a new incident: its duration and cause are its own.
        IncidentState.RESOLVED: frozenset(),
    }
)


def move(current: IncidentState, wanted: IncidentState) -> IncidentState:
    """Return `wanted` if an incident may go there from `current`, else raise StateError."""
    if wanted not in MOVES[current]:
        raise StateError.of("incident", current, wanted)
    return wanted


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """Tell one thing that happened in an incident."""

    number: int
    time: datetime
    actor: str
    kind: str
    text: str
    data: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Incident:
    """Hold something that went wrong with a service, who owns it, and what was done about it.

    `kind` groups what belongs together ("quality", "volume", "rollout", "deployment"): a service has at most
    one unresolved incident of a kind.
    """

    id: str
    service: str
    kind: str
    title: str
    state: IncidentState
    owner: str
    release: str
    opened_at: datetime
    resolved_at: datetime | None
    timeline: tuple[TimelineEntry, ...] = ()
