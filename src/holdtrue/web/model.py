"""What each page shows: one frozen context per template, filled by the rooms' own nouns where they fit."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from holdtrue.catalog import Change, Release
from holdtrue.core.errors import HoldtrueError
from holdtrue.data import Quarantine
from holdtrue.delivery import Deployment, Drilled, Measures, Rollout, RolloutStep, Service, Stop, Trigger
from holdtrue.governance import Approval, Decision
from holdtrue.monitoring import Alarm, Incident, MonitorSpec, Window
from holdtrue.storage.ledger import Event
from holdtrue.traces import Feedback, Message, StoredSpan, Summary
from holdtrue.tracking import Run
from holdtrue.web.charts import Chart, Point
from holdtrue.web.why import Why


@dataclass(frozen=True, slots=True)
class Frame:
    """Hold what every page shows around its content; `now` is the time of production, maybe a replayed one."""

    title: str
    section: str
    project: str
    actor: str
    now: datetime | None = None
    crumbs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Estimate:
    """Hold a measured value with its interval, if it has one."""

    value: float
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True, slots=True)
class ReleaseAnswers:
    """Hold how one release's answers fared: shares with intervals, seconds to the last piece, mean cost in money."""

    release: str
    answers: int
    passed: Estimate | None
    failed: int
    liked: Estimate | None
    median_seconds: float | None
    slow_seconds: float | None
    cost: float | None


@dataclass(frozen=True, slots=True)
class CheckRow:
    """Hold the share of answers that passed one check."""

    name: str
    answers: int
    passed: Estimate | None


@dataclass(frozen=True, slots=True)
class AnswersView:
    """Hold how an application's answers of the last seven days fared, together, by release and by check."""

    answers: int
    passed: Estimate | None
    liked: Estimate | None
    trend: tuple[Point, ...]
    releases: tuple[ReleaseAnswers, ...]
    checks: tuple[CheckRow, ...]
    chart: Chart


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """Hold one line of the overview; `quality` is that of the newest matured month, `month`, in its `measure`,
    which is known before the first month is over.

    For an application `answers` is filled instead.
    """

    name: str
    release: str | None
    model: str
    state: str
    rollout: str
    quality: Estimate | None
    month: datetime | None
    trend: tuple[Point, ...]
    predictions: int
    incidents: int
    kind: str = "model"
    answers: AnswersView | None = None
    measure: str = "roc_auc"


@dataclass(frozen=True, slots=True)
class EventRow:
    """Hold one line of the event log, with the page of the thing it is about."""

    event: Event
    actor: str
    url: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class OverviewPage:
    """Hold a project's services, what waits for somebody, and what happened last."""

    services: tuple[ServiceRow, ...]
    incidents: tuple[Incident, ...]
    waiting: tuple[Decision, ...]
    quarantines: tuple[Quarantine, ...]
    events: tuple[EventRow, ...]
    measures: tuple[Measures, ...] = ()


@dataclass(frozen=True, slots=True)
class TraceRow:
    """Hold one line of the list of traces."""

    summary: Summary
    started: datetime
    url: str
    opinions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TracesPage:
    """Hold a page of traces and the filters it was asked with, as they were written.

    `narrowed` tells whether one of the rarer filters is among them.
    """

    rows: tuple[TraceRow, ...]
    asked: Mapping[str, str]
    narrowed: bool
    older: str | None
    first: bool
    example: str


@dataclass(frozen=True, slots=True)
class SpanBar:
    """Hold one line of a waterfall: how deep it lies, and where its bar starts and how long it is (of 1,000)."""

    span: StoredSpan
    depth: int
    x: float
    width: float
    url: str
    open: bool


@dataclass(frozen=True, slots=True)
class OpenSpan:
    """Hold all of one span: what was said, and its attributes, events and links as (name, text)."""

    span: StoredSpan
    given: tuple[Message, ...]
    came: tuple[Message, ...]
    facts: tuple[tuple[str, str], ...]
    attributes: tuple[tuple[str, str], ...]
    resource: tuple[tuple[str, str], ...]
    events: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class FeedbackRow:
    """Hold one piece of feedback, and the span it is about, if it is about one."""

    feedback: Feedback
    value: str
    given: datetime
    about: str | None


@dataclass(frozen=True, slots=True)
class TracePage:
    """Hold one trace: what it came to, its waterfall, one span opened, what people said, what is noted of it."""

    summary: Summary
    cards: tuple[tuple[str, str, str], ...]
    bars: tuple[SpanBar, ...]
    left_out: int
    opened: OpenSpan
    feedback: tuple[FeedbackRow, ...]
    data_url: str
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class HomePage:
    """Hold the projects of this server."""

    projects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ArmRow:
    """Hold one arm of a service: which release answers which percent of rows."""

    name: str
    release: str
    model: str
    percent: float


@dataclass(frozen=True, slots=True)
class StepBar:
    """Hold one step of a rollout's path: where it stands, and in a few words what is known."""

    percent: float
    state: str
    words: str


@dataclass(frozen=True, slots=True)
class RolloutView:
    """Hold a rollout with its path and what was recorded at each step; `verdict` are the newest numbers."""

    rollout: Rollout
    path: tuple[StepBar, ...]
    steps: tuple[RolloutStep, ...]
    verdict: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class MonitorRow:
    """Hold a monitor, how many alarms it has raised, and its newest look at the data."""

    spec: MonitorSpec
    alarms: int
    last: str


@dataclass(frozen=True, slots=True)
class ServicePage:
    """Hold one service: what answers now, quality and volume over time, rollouts, alarms, retraining."""

    service: Service
    deployments: tuple[Deployment, ...]
    arms: tuple[ArmRow, ...]
    running: RolloutView | None
    rollouts: tuple[RolloutView, ...]
    quality: Chart
    coverage: Chart | None
    losses: Chart | None
    volume: Chart
    shares: Chart
    windows: tuple[Window, ...]
    columns: tuple[str, ...]
    monitors: tuple[MonitorRow, ...]
    alarms: tuple[Alarm, ...]
    incidents: tuple[Incident, ...]
    triggers: tuple[Trigger, ...]
    answers: AnswersView | None = None
    stops: tuple[Stop, ...] = ()
    drill: Drilled | None = None


@dataclass(frozen=True, slots=True)
class ReleaseRow:
    """Hold one line of the releases: its newest decision, and where it is used."""

    release: Release
    author: str
    model: str
    decision: Decision | None
    place: str


@dataclass(frozen=True, slots=True)
class ReleasesPage:
    """Hold one page of releases, newest first; `older` is the next page's address."""

    rows: tuple[ReleaseRow, ...]
    service: str
    services: tuple[str, ...]
    older: str | None
    first: bool


@dataclass(frozen=True, slots=True)
class Pin:
    """Hold one version that a release pins."""

    role: str
    id: str
    label: str
    kind: str


@dataclass(frozen=True, slots=True)
class MetricRow:
    """Hold one metric of an evaluation beside its baseline, and the scale their intervals are drawn on."""

    name: str
    value: Estimate
    baseline: Estimate | None
    n: int | None
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class EvidenceView:
    """Hold evidence of one kind: metrics and slices as estimates, everything else as facts."""

    ids: tuple[str, ...]
    kind: str
    created_at: datetime
    metrics: tuple[MetricRow, ...] = ()
    slices: tuple[MetricRow, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ChangeRow:
    """Hold how one role changed between two releases, with single differences as path, before and after."""

    change: Change
    before: str
    after: str
    differences: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class RuleRow:
    """Hold how one rule of the newest decision came out."""

    name: str
    expression: str
    passed: bool
    values: str
    why: str
    mend: str


@dataclass(frozen=True, slots=True)
class ReleasePage:
    """Hold one release: what it pins, what was measured, decided and approved, and what it rests on."""

    release: Release
    author: str
    place: str
    pins: tuple[Pin, ...]
    config: tuple[tuple[str, str], ...]
    decisions: tuple[Decision, ...]
    rules: tuple[RuleRow, ...]
    evidence: tuple[EvidenceView, ...]
    approvals: tuple[Approval, ...]
    previous: str | None
    changes: tuple[ChangeRow, ...]
    lineage: Why | None
    used_by: tuple[Why, ...]


@dataclass(frozen=True, slots=True)
class IncidentsPage:
    """Hold one page of incidents, newest first."""

    incidents: tuple[Incident, ...]
    state: str
    older: str | None
    first: bool


@dataclass(frozen=True, slots=True)
class IncidentPage:
    """Hold one incident with its timeline, its alarms, and how the people in it are called."""

    incident: Incident
    alarms: tuple[Alarm, ...]
    people: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ActivityPage:
    """Hold one page of the event log, newest first."""

    rows: tuple[EventRow, ...]
    action: str
    object: str
    families: tuple[str, ...]
    older: str | None
    first: bool


@dataclass(frozen=True, slots=True)
class PredictionPage:
    """Hold the explanation of one prediction."""

    id: str
    why: Why


@dataclass(frozen=True, slots=True)
class ErrorPage:
    """Hold an error as a page shows it."""

    code: str
    status: int
    what: str
    why: str
    mend: str
    request_id: str


@dataclass(frozen=True, slots=True)
class RunRow:
    """Hold one line of the runs; metrics and parameters are the first few, as name and text."""

    run: Run
    url: str
    started: datetime
    seconds: float | None
    experiment: str
    metrics: tuple[tuple[str, str], ...]
    params: tuple[tuple[str, str], ...]
    picked: bool


@dataclass(frozen=True, slots=True)
class RunsPage:
    """Hold one page of runs, the filters it was asked with, and what is wrong with them.

    `elsewhere` are picked runs that this page does not show: name, and the page without them.
    """

    rows: tuple[RunRow, ...]
    asked: Mapping[str, str]
    experiments: tuple[str, ...]
    elsewhere: tuple[tuple[str, str], ...]
    carried: str
    after: str | None
    first: bool
    wrong: HoldtrueError | None
    example: str


@dataclass(frozen=True, slots=True)
class CostRow:
    """Hold what one run cost, in words, and where it stands among others."""

    name: str
    url: str
    setting: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunPage:
    """Hold one run with everything logged to it; `costs` are name, value, and how it is known.

    `files` are paths and sizes of the first of its artifacts, `more_files` tells whether there are others.
    """

    run: Run
    experiment: str
    started: datetime
    cards: tuple[tuple[str, str], ...]
    costs: tuple[tuple[str, str, str], ...]
    datasets: tuple[tuple[str, str, str], ...]
    commit: str
    metric: str
    metrics: tuple[tuple[str, str, str], ...]
    curve: Chart | None
    note: str
    tags: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, str], ...]
    more_files: bool


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """Hold one of the runs that are compared; `without` is the comparison without it, if others are left."""

    run: Run
    url: str
    setting: str
    seed: str
    started: datetime
    experiment: str
    commit: str
    datasets: tuple[str, ...]
    without: str | None


@dataclass(frozen=True, slots=True)
class SettingRow:
    """Hold one setting: its repetitions, the mean of the metric, and how it differs from the best one."""

    name: str
    words: str
    runs: int
    seeds: str
    value: Estimate | None
    difference: Estimate | None
    p: float | None
    verdict: str


@dataclass(frozen=True, slots=True)
class ComparisonPage:
    """Hold runs side by side: their settings on one metric, all metrics, parameters, data, code, cost and a curve."""

    runs: tuple[ComparedRun, ...]
    metric: str
    metrics: tuple[str, ...]
    best: str
    asked: str
    more: str
    settings: tuple[SettingRow, ...]
    low: float
    high: float
    left_out: tuple[str, ...]
    cautions: tuple[str, ...]
    others: tuple[tuple[str, tuple[Estimate | None, ...], str], ...]
    unshown: int
    params: tuple[tuple[str, tuple[str, ...]], ...]
    shared: tuple[tuple[str, str], ...]
    costs: tuple[CostRow, ...]
    known_by: tuple[tuple[str, str], ...]
    total: str
    curve: Chart | None
    undrawn: int
