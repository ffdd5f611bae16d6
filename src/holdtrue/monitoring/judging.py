"""Judge a service's windows: which release is meant, what is normal for it, and is this worse."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

import numpy as np
import sqlalchemy as sa

from holdtrue.monitoring.model import LOSSES, Judgement, MonitorSpec, Outcome, Window
from holdtrue.monitoring.quality import DayStatistic, day_date, day_number, day_statistic
from holdtrue.monitoring.store import MonitorRow, ReferenceRow, first_day, read_days, read_references, read_windows
from holdtrue.stats import BadNumbers
from holdtrue.stats.calibration import Limit, limit_below

_FEWEST_DAYS = 7
# A monitor that was off for long looks at its last windows only.
_MOST_LOOKS = 60


@dataclass(frozen=True, slots=True)
class Look:
    """Hold one judgement, and the reference that it made necessary to learn."""

    judgement: Judgement
    learned: ReferenceRow | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Hold what a monitor's pass found: its looks, and the end of the last window that is done with."""

    looks: tuple[Look, ...]
    last_end: date


@dataclass(frozen=True, slots=True)
class Scope:
    """Hold what a look needs besides its end: the monitor, its service's days, and known references."""

    conn: sa.Connection
    project: str
    spec: MonitorSpec
    days: Mapping[int, Mapping[str, Window]]
    references: dict[str, ReferenceRow] = field(default_factory=dict[str, ReferenceRow])


def judge(conn: sa.Connection, project: str, row: MonitorRow, due: int) -> Progress | None:
    """Return the looks that a monitor owes, None for none; labels of days before `due` are due."""
    spec = row.spec
    begin = row.last_end or first_day(conn, project, spec.service)
    if begin is None or (last := day_number(begin)) + spec.every_days > due:
        return None
    first = read_windows(conn, project, spec.service, grain="day", role="answer")
    days: dict[int, dict[str, Window]] = {}
    for window in first:
        days.setdefault(day_number(window.start), {})[window.release] = window
    known = {each.release: each for each in reversed(read_references(conn, project, spec.name))}
    scope = Scope(conn, project, spec, days, known)
    last = max(last, due - _MOST_LOOKS * spec.every_days)
    looks: list[Look] = []
    while (end := last + spec.every_days) <= due:
        look = _look(scope, end)
        looks.append(look)
        if look.learned is not None:
            known[look.learned.release] = look.learned
        # Labels of this window may still come: look again until the next one is due.
        if look.judgement.outcome is Outcome.WAITING and end + spec.every_days > due:
            break
        last = end
    return Progress(tuple(looks), day_date(last))


def _look(scope: Scope, end: int) -> Look:
    if scope.spec.metric == "volume":
        return _look_at_volume(scope, end)
    spec = scope.spec
    release = _main_release(scope.days, end - spec.window_days, end)
    if release is None:
        return _waiting(spec, "", end, "There were no predictions in this window.")
    mine = [day for day in sorted(scope.days) if day < end and _main_release(scope.days, day, day + 1) == release]
    learned = None if release in scope.references else _learn(scope, release, mine)
    own = learned or scope.references.get(release)
    inside = [day for day in mine if day >= end - spec.window_days]
    fresh = [day for day in inside if own is not None and day >= day_number(own.end)]
    if own is not None and len(fresh) >= _FEWEST_DAYS:
        return Look(_compare(scope, release, end, fresh, own), learned)
    others = [each for name, each in scope.references.items() if name != release]
    if others and len(inside) >= _FEWEST_DAYS:
        # Until a new release has shown what is normal for it, it is held to what its forerunner promised.
        return Look(_compare(scope, release, end, inside, others[-1]), learned)
    seen = min(len(mine), spec.reference_days)
    why = f"Learning what is normal for this release: {seen} of {spec.reference_days} days."
    return Look(_waiting(spec, release, end, why).judgement, learned)


def _main_release(days: Mapping[int, Mapping[str, Window]], first: int, last: int) -> str | None:
    """Return the release that answered most on the latest day from `first` to before `last` with answers."""
    for day in range(last - 1, first - 1, -1):
        held = {release: window.n for release, window in days.get(day, {}).items() if window.n}
        if held:
            return max(sorted(held), key=lambda release: held[release])
    return None


def _learn(scope: Scope, release: str, mine: Sequence[int]) -> ReferenceRow | None:
    """Return the reference made of the release's first days, or None while they are too few or too thin."""
    spec = scope.spec
    chosen = list(mine[: spec.reference_days])
    if len(chosen) < spec.reference_days or _maturity(scope, release, chosen) < spec.min_maturity:
        return None
    statistic = _statistic(scope, release, chosen)
    if statistic.days < _FEWEST_DAYS:
        return None
    return reference_row(spec, release, "live", day_date(chosen[-1] + 1), statistic)


def reference_row(
    spec: MonitorSpec, release: str, source: str, end: date, statistic: DayStatistic
) -> ReferenceRow | None:
    """Return a reference with the limits it promises for full windows; None if it is too thin for any."""
    try:
        limit = _limit(spec, statistic, spec.window_days)
    except BadNumbers:
        return None
    sign = -1.0 if spec.metric in LOSSES else 1.0
    limits = {
        "reference": sign * limit.reference,
        "limit": sign * limit.limit,
        "expected_per_quarter": limit.expected_per_quarter,
        "detectable": limit.detectable,
        "days": limit.blocks,
    }
    return ReferenceRow(spec.name, release, source, end, statistic.to_json(), limits)


def _limit(spec: MonitorSpec, statistic: DayStatistic, window: int) -> Limit:
    least = spec.least_drop
    if spec.metric == "volume":
        # A change of volume is a share of what is usual.
        least = max(least, 0.1) * statistic.value
    return limit_below(
        statistic.statistic(),
        statistic.days,
        window=window,
        alarms_per_quarter=spec.alarms_per_quarter,
        days_between=spec.every_days,
        least_drop=least,
        run=7 if spec.metric == "volume" else 2,
    )


def _compare(scope: Scope, release: str, end: int, chosen: Sequence[int], reference: ReferenceRow) -> Judgement:
    spec = scope.spec
    n = sum(scope.days[day][release].n for day in chosen)
    labelled = sum(scope.days[day][release].labelled for day in chosen)
    maturity = _maturity(scope, release, chosen)
    base = _blank(spec, release, end, chosen[0], n=n, labelled=labelled, maturity=maturity)
    if maturity < spec.min_maturity:
        why = f"Only {maturity:.0%} of the labels that are due have come; {spec.min_maturity:.0%} are asked for."
        return replace(base, reason=why)
    if labelled < spec.min_rows:
        return replace(base, reason=f"{labelled} rows have a label; {spec.min_rows} are asked for.")
    return _held(spec, base, _statistic(scope, release, chosen), reference)


def _held(spec: MonitorSpec, base: Judgement, statistic: DayStatistic, reference: ReferenceRow) -> Judgement:
    """Return the judgement of a window's statistic against a reference."""
    if statistic.days == 0 or not math.isfinite(statistic.value):
        return replace(base, reason="The labels of this window are all of one class.")
    try:
        limit = _limit(spec, DayStatistic.from_json(reference.data), statistic.days)
    except BadNumbers as error:
        return replace(base, reason=f"{error.what} {error.why}")
    sign = -1.0 if spec.metric in LOSSES else 1.0
    alarm = statistic.value < limit.limit
    return replace(
        base,
        value=sign * statistic.value,
        limit=sign * limit.limit,
        reference=sign * limit.reference,
        detectable=limit.detectable,
        outcome=Outcome.ALARM if alarm else Outcome.OK,
        reason="" if reference.release == base.release else f"Compared with {reference.release or 'the past'}.",
    )


def _look_at_volume(scope: Scope, end: int) -> Look:
    spec = scope.spec
    first = min(scope.days)
    counts = {day: float(sum(window.n for window in scope.days.get(day, {}).values())) for day in range(first, end)}
    learned = None
    if "" not in scope.references and len(counts) >= spec.reference_days:
        chosen = range(first, first + spec.reference_days)
        statistic = _volume(counts, chosen)
        learned = reference_row(spec, "", "live", day_date(first + spec.reference_days), statistic)
    reference = learned or scope.references.get("")
    inside = range(max(end - spec.window_days, first), end)
    if reference is None or inside.start < day_number(reference.end):
        seen = min(len(counts), spec.reference_days)
        why = f"Learning what is usual: {seen} of {spec.reference_days} days."
        return Look(_waiting(spec, "", end, why).judgement, learned)
    n = int(sum(counts[day] for day in inside))
    base = _blank(spec, "", end, inside.start, n=n, labelled=0, maturity=math.nan)
    return Look(_held(spec, base, _volume(counts, inside), reference), learned)


def _volume(counts: Mapping[int, float], days: Iterable[int]) -> DayStatistic:
    sizes = np.array([counts[day] for day in days])
    return DayStatistic(sizes, np.ones_like(sizes))


def _statistic(scope: Scope, release: str, chosen: Sequence[int]) -> DayStatistic:
    held = read_days(
        scope.conn,
        scope.project,
        scope.spec.service,
        chosen[0],
        chosen[-1] + 1,
        release=release,
        role="answer",
    )
    wanted = set(chosen)
    return day_statistic(scope.spec, {day: each for (_, _, day), each in held.items() if day in wanted})


def _maturity(scope: Scope, release: str, chosen: Sequence[int]) -> float:
    n = sum(scope.days[day][release].n for day in chosen)
    return sum(scope.days[day][release].labelled for day in chosen) / n if n else math.nan


def _blank(
    spec: MonitorSpec, release: str, end: int, start: int, *, n: int, labelled: int, maturity: float
) -> Judgement:
    nothing = math.nan
    return Judgement(
        monitor=spec.name,
        service=spec.service,
        metric=spec.metric,
        release=release,
        start=day_date(start),
        end=day_date(end),
        n=n,
        labelled=labelled,
        maturity=maturity,
        value=nothing,
        limit=nothing,
        reference=nothing,
        detectable=nothing,
        outcome=Outcome.WAITING,
        reason="",
    )


def _waiting(spec: MonitorSpec, release: str, end: int, why: str) -> Look:
    start = end - spec.window_days
    return Look(replace(_blank(spec, release, end, start, n=0, labelled=0, maturity=math.nan), reason=why))


def sentence(spec: MonitorSpec, judgement: Judgement) -> str:
    """Return in one sentence what an alarm says."""
    side = "above" if judgement.metric in LOSSES else "below"
    until = judgement.end - timedelta(days=1)
    return (
        f"{_name(spec)} of {judgement.service} was {judgement.value:.4g} from {judgement.start} to {until}, "
        f"{side} its limit {judgement.limit:.4g}; usual is {judgement.reference:.4g}. By chance this monitor "
        f"alarms about {spec.alarms_per_quarter:g} times a quarter."
    )


def _name(spec: MonitorSpec) -> str:
    if spec.metric == "roc_auc":
        return "ROC AUC within days" if spec.within == "day" else "ROC AUC"
    words = {"brier": "Brier score", "error": "Share of wrong answers", "mae": "Mean absolute error"}
    return words.get(spec.metric, "Predictions per day")
