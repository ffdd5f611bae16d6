"""Read what the overview and the page of one service show."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from holdtrue import catalog, data, delivery, governance, monitoring
from holdtrue.core.errors import NotFound
from holdtrue.data import QuarantineState
from holdtrue.delivery import Deployment, Rollout, RolloutState, RolloutStep, Service
from holdtrue.governance import Outcome
from holdtrue.monitoring import Window
from holdtrue.web import activity, quality, releases, texts
from holdtrue.web.charts import Chart, Marker, Point, Series, Tone
from holdtrue.web.model import (
    ArmRow,
    Estimate,
    MonitorRow,
    OverviewPage,
    RolloutView,
    ServicePage,
    ServiceRow,
    StepBar,
)

SHOWN = 20
_MATURE = 0.8
_MEASURES: Mapping[str, str] = {
    "failed": "Answers that failed",
    "checks": "Answers that did not pass their checks",
    "feedback": "Bad feedback",
    "cost": "Cost, as a share of its limit",
    "latency": "Answers that took longer than the limit",
}
_DAYS_SHOWN = timedelta(days=400)
_MONTHS_SHOWN = timedelta(days=800)
_QUARTER = timedelta(days=90)
_SHORT = timedelta(days=62)
_WEEKS_FROM = timedelta(days=92)
_WAYS = {
    "canary": "canary",
    "shadow": "shadow",
    "blue_green": "blue-green",
    "ab": "A/B test",
    "bandit": "bandit",
}
_TONES: tuple[Tone, ...] = ("one", "two", "three")


def overview(connection: sa.Connection, project: str, now: datetime) -> OverviewPage:
    """Return a project's services, what waits for somebody, and what happened last."""
    incidents = monitoring.incidents(connection, project, unresolved=True, limit=SHOWN)
    deployments = delivery.deployments(connection, project)
    running = delivery.rollouts(connection, project, state=RolloutState.RUNNING)
    waiting = [
        each
        for each in governance.decisions(connection, project, limit=SHOWN)
        if each.outcome is Outcome.WAITING
        and governance.latest_decision(connection, project, each.release, each.environment) == each
    ]
    measured = delivery.dora(connection, project, now - _QUARTER, now)
    return OverviewPage(
        services=tuple(
            _service_row(connection, project, each, deployments, running, now)
            for each in delivery.services(connection, project)
        ),
        incidents=tuple(incidents),
        waiting=tuple(waiting),
        quarantines=tuple(data.quarantines(connection, project, state=QuarantineState.OPEN)[-SHOWN:]),
        events=activity.latest(connection, project),
        measures=tuple(each for each in measured if each.attempts),
    )


def one(connection: sa.Connection, project: str, name: str, now: datetime) -> ServicePage:
    """Return everything about one service; NotFound if the project has none of this name."""
    service = next((each for each in delivery.services(connection, project) if each.name == name), None)
    if service is None:
        raise NotFound.of("service", name)
    deployments = [each for each in delivery.deployments(connection, project) if each.service == name]
    rollouts = delivery.rollouts(connection, project, service=name, limit=SHOWN)
    views = [_view(connection, project, each) for each in rollouts]
    running = next((view for view in views if view.rollout.state is RolloutState.RUNNING), None)
    months = _windows(connection, project, name, "month", (now - _MONTHS_SHOWN).date())
    days = _windows(connection, project, name, "day", (now - _DAYS_SHOWN).date())
    labels = _labels(connection, project, {window.release for window in [*months, *days]} - {quality.ALL})
    alarms = monitoring.alarms(connection, project, service=name, limit=SHOWN)
    markers = _markers(connection, project, name, alarms)
    by_day = _is_short(days)
    shown = days if by_day else months
    counted = [each for each in months if each.n and each.release != quality.ALL]
    measure = _measure(connection, project, deployments[0] if deployments else None)
    return ServicePage(
        service=service,
        stops=tuple(delivery.stops(connection, project, name)),
        drill=delivery.last_drill(connection, project, name),
        deployments=tuple(deployments),
        arms=_arms(connection, project, deployments, running),
        running=running,
        rollouts=tuple(view for view in views if view is not running),
        quality=quality.over_time(shown, labels, markers, by_day=by_day, measure=measure),
        coverage=quality.coverage(shown, by_day=by_day),
        losses=quality.losses(shown, by_day=by_day),
        volume=_volume(months, days),
        shares=_shares(days, labels),
        windows=tuple(reversed(counted))[: 2 * SHOWN],
        columns=quality.columns(counted[-2 * SHOWN :]),
        monitors=_monitors(connection, project, name),
        alarms=tuple(alarms),
        incidents=tuple(monitoring.incidents(connection, project, service=name, unresolved=True, limit=5)),
        triggers=tuple(delivery.triggers(connection, project, service=name, limit=SHOWN)),
    )


def _service_row(
    connection: sa.Connection,
    project: str,
    service: Service,
    deployments: Sequence[Deployment],
    running: Sequence[Rollout],
    now: datetime,
) -> ServiceRow:
    name = service.name
    deployed = next((each for each in deployments if each.service == name), None)
    rollout = next((each for each in running if each.service == name), None)
    since = (now - _MONTHS_SHOWN).date()
    together = monitoring.windows(connection, project, name, grain="month", since=since, release=quality.ALL)
    mature = [window for window in together if window.maturity >= _MATURE and not window.reason]
    newest = next((window for window in reversed(mature) if _is_over(window, now)), None)
    unresolved = monitoring.incidents(connection, project, service=name, unresolved=True, limit=SHOWN)
    return ServiceRow(
        name=name,
        release=deployed.release if deployed else None,
        model=_label(connection, project, deployed.release) if deployed else "",
        state=_state(connection, project, deployed),
        rollout=f"{_WAYS[rollout.canary.strategy]} at {texts.percent(rollout.percent / 100)}" if rollout else "",
        quality=_estimate(newest) if newest else None,
        measure=newest.quality.name if newest else _measure(connection, project, deployed),
        month=quality.moment(newest.start) if newest else None,
        trend=tuple(Point(quality.moment(window.start), window.quality.interval.value) for window in mature[-12:]),
        predictions=newest.n if newest else sum(window.n for window in together),
        incidents=len(unresolved),
        kind=service.spec.kind,
    )


def _measure(connection: sa.Connection, project: str, deployed: Deployment | None) -> str:
    """Return what a service's answers are measured by first, which its release tells before any label does."""
    return "roc_auc" if deployed is None else monitoring.measured_by(connection, project, deployed.release)


def _state(connection: sa.Connection, project: str, deployed: Deployment | None) -> str:
    if deployed is None:
        return "not deployed"
    off = any(
        each.environment == deployed.environment for each in delivery.stops(connection, project, deployed.service)
    )
    return "switched off" if off else str(deployed.state)


def _windows(connection: sa.Connection, project: str, service: str, grain: str, since: date) -> list[Window]:
    """Return the windows of each release, and those of all answers together."""
    each = monitoring.windows(connection, project, service, grain=grain, since=since)
    return [*each, *monitoring.windows(connection, project, service, grain=grain, since=since, release=quality.ALL)]


def _label(connection: sa.Connection, project: str, release: str) -> str:
    try:
        return releases.model_label(connection, project, catalog.release(connection, project, release))
    except NotFound:
        return ""


def _labels(connection: sa.Connection, project: str, ids: Iterable[str]) -> dict[str, str]:
    """Return how charts call each release: its model's name and number, and its id."""
    return {
        each: " ".join(part for part in (_label(connection, project, each), texts.short(each)) if part) for each in ids
    }


def _arms(
    connection: sa.Connection, project: str, deployments: Sequence[Deployment], running: RolloutView | None
) -> tuple[ArmRow, ...]:
    if not deployments:
        return ()
    release = deployments[0].release
    if running is None or running.rollout.environment != deployments[0].environment:
        return (ArmRow("champion", release, _label(connection, project, release), 100.0),)
    rollout = running.rollout
    return (
        ArmRow("champion", rollout.champion, _label(connection, project, rollout.champion), 100.0 - rollout.percent),
        ArmRow("challenger", rollout.challenger, _label(connection, project, rollout.challenger), rollout.percent),
    )


def _view(connection: sa.Connection, project: str, rollout: Rollout) -> RolloutView:
    steps = tuple(delivery.rollout_steps(connection, project, rollout.id))
    return RolloutView(rollout, _path(rollout, steps), steps, _verdict(rollout.verdict, rollout.canary.loss))


def _path(rollout: Rollout, steps: Sequence[RolloutStep]) -> tuple[StepBar, ...]:
    """Return every planned step and how it went, the full share last."""
    began = [step.time for step in steps if step.action in ("started", "advanced")]
    bars: list[StepBar] = []
    for number, percent in enumerate(rollout.canary.steps):
        since = texts.day(began[number]) if number < len(began) else ""
        if number < rollout.step or rollout.state is RolloutState.PROMOTED:
            bars.append(StepBar(percent, "good", f"passed, from {since}" if since else "passed"))
        elif number > rollout.step:
            bars.append(StepBar(percent, "plain", "not reached" if rollout.ended_at else "to come"))
        elif rollout.state is RolloutState.RUNNING:
            bars.append(StepBar(percent, "busy", f"since {since}" if since else "about to begin"))
        else:
            bars.append(StepBar(percent, "bad", str(rollout.state).replace("_", " ")))
    done = rollout.state is RolloutState.PROMOTED
    ended = f"since {texts.day(rollout.ended_at)}" if done else ""
    return (
        *bars,
        StepBar(100.0, "good" if done else "plain", ended or ("to come" if not rollout.ended_at else "not reached")),
    )


def _verdict(verdict: Any, loss: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(verdict, dict):
        return ()
    raw = verdict.get("facts")
    facts: dict[str, Any] = raw if isinstance(raw, dict) else {}
    pairs = [("Verdict", str(verdict.get("verdict", "")).replace("_", " ")), ("Why", str(verdict.get("why", "")))]
    if facts.get("mean") is not None:
        words = f"{texts.signed(facts['mean'], 4)} ({texts.span(facts.get('lower'), facts.get('upper'), 4)})"
        pairs.append((f"{texts.metric(loss)}, canary minus champion", words))
    for each in facts.get("measures") or ():
        words = (
            f"{texts.ratio(each['challenger'])} on {texts.count(each['n_challenger'])} answers, the champion's "
            f"{texts.ratio(each['champion'])} on {texts.count(each['n_champion'])} "
            f"(difference {texts.signed(each['lower'], 3)} – {texts.signed(each['upper'], 3)}, "
            f"allowed up to {each['margin']:g})"
        )
        pairs.append((_MEASURES.get(each["measure"], str(each["measure"])), words))
    if facts.get("pairs") is not None:
        pairs.append(("Labelled pairs", texts.count(facts["pairs"])))
    return tuple(pairs)


def _volume(months: Sequence[Window], days: Sequence[Window]) -> Chart:
    by_day = _is_short(days)
    shown = [window for window in quality.together(days if by_day else months) if window.n]
    places = [quality.middle(window, by_day=by_day) for window in shown]
    labelled = (Point(at, window.labelled) for at, window in zip(places, shown, strict=True))
    waiting = (Point(at, max(window.n - window.labelled, 0)) for at, window in zip(places, shown, strict=True))
    series = (
        Series("with a label", "one", tuple(labelled), "bar"),
        Series("without a label yet", "muted", tuple(waiting), "bar"),
    )
    return Chart(
        title=f"Volume by {'day' if by_day else 'month'}",
        summary="Predictions answered, and how many of them have been labelled.",
        series=series,
        unit="count",
        low=True,
        by="day" if by_day else "month",
    )


def _shares(days: Sequence[Window], labels: Mapping[str, str]) -> Chart:
    """Return which release answered what share of the rows, by day or, over longer times, by week."""
    answered = [window for window in days if window.role == "answer" and window.release != quality.ALL and window.n]
    starts = [window.start for window in answered]
    by_week = bool(starts) and max(starts) - min(starts) > _WEEKS_FROM
    counts: dict[str, dict[datetime, int]] = {}
    totals: dict[datetime, int] = {}
    for window in sorted(answered, key=lambda window: window.start):
        at = quality.moment(window.start) + timedelta(hours=12)
        if by_week:
            at += timedelta(days=3 - window.start.weekday())
        mine = counts.setdefault(window.release, {})
        mine[at] = mine.get(at, 0) + window.n
        totals[at] = totals.get(at, 0) + window.n
    series = tuple(
        Series(
            labels[release],
            _TONES[number % len(_TONES)],
            tuple(Point(at, n / totals[at]) for at, n in mine.items()),
            "bar",
        )
        for number, (release, mine) in enumerate(counts.items())
    )
    grain = "week" if by_week else "day"
    return Chart(
        title=f"Who answered, by {grain}",
        summary=f"Share of each {grain}'s predictions by release.",
        series=series if len(series) > 1 else (),
        unit="share",
        low=True,
        by=grain,
    )


def _markers(connection: sa.Connection, project: str, service: str, alarms: Sequence[monitoring.Alarm]) -> list[Marker]:
    found = [Marker(each.raised_at, "alarm", each.text) for each in alarms]
    for change in delivery.changes(connection, project, service)[-SHOWN:]:
        back = change.action == "rolled_back"
        words = "went back to" if back else "deployed"
        found.append(Marker(change.time, "rollback" if back else "promotion", f"{words} {texts.short(change.release)}"))
    for rollout in delivery.rollouts(connection, project, service=service, limit=SHOWN):
        if rollout.ended_at and rollout.state in (RolloutState.ROLLED_BACK, RolloutState.STOPPED):
            found.append(Marker(rollout.ended_at, "rollback", f"{texts.short(rollout.challenger)}: {rollout.reason}"))
    for trigger in delivery.triggers(connection, project, service=service, limit=SHOWN):
        if trigger.job is not None:
            found.append(Marker(trigger.raised_at, "retrain", f"retrain of {trigger.model} ({trigger.reason})"))
    for decision in governance.decisions(connection, project, service=service, limit=SHOWN):
        if decision.outcome is Outcome.REFUSED:
            found.append(Marker(decision.created_at, "refusal", f"refused {texts.short(decision.release)}"))
    return found


def _monitors(connection: sa.Connection, project: str, service: str) -> tuple[MonitorRow, ...]:
    alarms = monitoring.alarms(connection, project, service=service, limit=200)
    rows: list[MonitorRow] = []
    for spec in monitoring.monitors(connection, project, service=service):
        looks = monitoring.judgements(connection, project, monitor=spec.name, limit=1)
        last = ""
        if looks:
            look = looks[0]
            last = f"{look.outcome}, {texts.days(look.start, look.end)}"
            if math.isfinite(look.value) and math.isfinite(look.limit):
                last += f": {texts.ratio(look.value)}, limit {texts.ratio(look.limit)}"
        rows.append(MonitorRow(spec, sum(each.monitor == spec.name for each in alarms), last))
    return tuple(rows)


def _is_over(window: Window, now: datetime) -> bool:
    return (window.start.year, window.start.month) < (now.year, now.month)


def _is_short(days: Sequence[Window]) -> bool:
    """Tell whether a service is so young that days say more than months."""
    starts = [window.start for window in days]
    return bool(starts) and max(starts) - min(starts) < _SHORT


def _estimate(window: Window) -> Estimate:
    found = window.quality.interval
    return Estimate(found.value, found.lower, found.upper)
