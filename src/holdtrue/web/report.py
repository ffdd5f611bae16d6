"""The report of a replayed year: one HTML file that needs nothing but itself.

`render_report` takes the JSON form of a `Report`. Every moment is ISO 8601 text with its zone; every share and
metric is a number between 0 and 1; an unknown key is refused by name. `Why` stands in `web/why.py`:
`{kind, name, facts: [[name, value]], because: [Why], url: null}`.
"""

import base64
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from holdtrue.core.canonical import Json
from holdtrue.core.codec import load
from holdtrue.web import charts, texts
from holdtrue.web.render import asset, environment
from holdtrue.web.why import Why


@dataclass(frozen=True, slots=True)
class Interval:
    """Hold an estimate with the interval around it, and from how many rows it comes."""

    value: float
    lower: float | None = None
    upper: float | None = None
    n: int | None = None


@dataclass(frozen=True, slots=True)
class Month:
    """Hold one month of the replay: `month` is “2013-03”.

    `frozen` is the first model left alone, `loop` what really answered; None before the first release.
    `decisions` are short words such as “promoted rel_1a2b3c4d”.
    """

    month: str
    flights: int
    frozen: Interval | None = None
    loop: Interval | None = None
    trainings: int = 0
    alarms: int = 0
    decisions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportEvent:
    """Mark something that happened at a moment, for the chart."""

    time: datetime
    kind: charts.MarkerKind
    label: str


@dataclass(frozen=True, slots=True)
class Rule:
    """Hold what one rule of the policy said: the CEL expression, the values it saw, and why."""

    name: str
    passed: bool
    expression: str = ""
    why: str = ""
    values: str = ""
    mend: str = ""


@dataclass(frozen=True, slots=True)
class ReportDecision:
    """Hold one decision of the gate (`allowed`, `refused`, `waiting_approval`) with the reason per rule."""

    time: datetime
    release: str
    environment: str
    outcome: str
    rules: tuple[Rule, ...]
    summary: str = ""
    approvals: tuple[str, ...] = ()
    id: str = ""


@dataclass(frozen=True, slots=True)
class ReportStep:
    """Hold one canary step: share of traffic in percent, labelled pairs seen, difference challenger − champion."""

    percent: float
    started: datetime
    ended: datetime | None = None
    pairs: int = 0
    difference: Interval | None = None
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class ReportRollout:
    """Hold one rollout: `outcome` is promoted, rolled_back, stopped or running."""

    started: datetime
    release: str
    champion: str
    outcome: str
    steps: tuple[ReportStep, ...]
    ended: datetime | None = None
    margin: float | None = None
    metric: str = ""
    why: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class ReportFinding:
    """Hold one broken rule of a contract."""

    column: str
    rule: str
    what: str
    mend: str = ""
    count: int | None = None
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportQuarantine:
    """Hold the story of a delivery that its contract stopped."""

    dataset: str
    window: str
    found: datetime
    rows: int
    findings: tuple[ReportFinding, ...]
    mended: datetime | None = None
    accepted_as: str = ""
    story: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Hold everything the report shows. Empty tuples leave their section out.

    `facts` are (name, value), `commands` (purpose, command).
    """

    title: str
    summary: str
    made_at: datetime
    months: tuple[Month, ...]
    events: tuple[ReportEvent, ...] = ()
    decisions: tuple[ReportDecision, ...] = ()
    rollouts: tuple[ReportRollout, ...] = ()
    quarantines: tuple[ReportQuarantine, ...] = ()
    why: Why | None = None
    prediction: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    commands: tuple[tuple[str, str], ...] = ()
    metric: str = "area under the ROC curve"


def render_report(data: Json) -> str:
    """Return the report as one HTML text; `data` that is no Report raises ConfigurationError naming the field."""
    report = load(Report, data, "The report")
    style, script = asset("holdtrue.css"), asset("chart.js")
    view: dict[str, Any] = {
        "report": report,
        "chart": _chart(report),
        "style": Markup(style),  # noqa: S704  # our own files
        "script": Markup(script),  # noqa: S704
        # The file runs exactly these two texts and reaches no network, whatever its data says.
        "policy": "default-src 'none'; img-src data:; "
        f"style-src {_source_hash(style)}; script-src {_source_hash(script)}",
        "totals": _totals(report),
        "decisions": _latest(report.decisions),
    }
    return environment().get_template("report.html").render(view)


def _chart(report: Report) -> charts.Chart:
    moments = [datetime.fromisoformat(f"{month.month}-15T00:00:00+00:00") for month in report.months]
    pairs = list(zip(moments, report.months, strict=True))
    series = (
        charts.Series(
            "First model, left alone",
            "two",
            tuple(_point(moment, month.frozen) for moment, month in pairs),
            dashed=True,
        ),
        charts.Series("The loop, as it answered", "one", tuple(_point(moment, month.loop) for moment, month in pairs)),
    )
    return charts.Chart(
        title=f"{report.metric[:1].upper()}{report.metric[1:]}, by month",
        summary="Bands are 95 % intervals; signs mark what happened.",
        series=series,
        markers=tuple(charts.Marker(event.time.astimezone(UTC), event.kind, event.label) for event in report.events),
    )


def _latest(decisions: tuple[ReportDecision, ...]) -> list[tuple[ReportDecision, list[ReportDecision]]]:
    """Return the newest decision of each release and environment, with those before it, in order of time."""
    found: dict[tuple[str, str], list[ReportDecision]] = {}
    for decision in sorted(decisions, key=lambda each: each.time):
        found.setdefault((decision.release, decision.environment), []).append(decision)
    return [(each[-1], each[:-1]) for each in found.values()]


def _point(moment: datetime, interval: Interval | None) -> charts.Point:
    if interval is None:
        return charts.Point(moment, None, note="no model yet")
    return charts.Point(moment, interval.value, interval.lower, interval.upper)


def _totals(report: Report) -> dict[str, str]:
    """Return the last row of the monthly table."""
    return {
        "flights": texts.count(sum(month.flights for month in report.months)),
        "trainings": texts.count(sum(month.trainings for month in report.months)),
        "alarms": texts.count(sum(month.alarms for month in report.months)),
        "decisions": texts.plural(len(report.decisions), "decision"),
    }


def _source_hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
