"""Quality of windows from scores and labels: pure functions over the arrays of days."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from types import MappingProxyType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from holdtrue.monitoring.measuring import (
    CHANCE,
    CLASSES,
    Answering,
    measures_of_chances,
    measures_of_classes,
    measures_of_numbers,
    promised,
)
from holdtrue.monitoring.model import LOSSES, Measure, MonitorSpec, Window
from holdtrue.monitoring.scored import DayScores, joined_days
from holdtrue.stats import Interval, OneClassOnly, PairCounts, auc_interval, pair_counts
from holdtrue.stats.arrays import Floats
from holdtrue.stats.resampling import Statistic

EPOCH = date(1970, 1, 1)
DAY_MICROS = 86_400_000_000


def day_date(day: int) -> date:
    """Return the date of a day number since 1970."""
    return EPOCH + timedelta(days=day)


def day_number(moment: date) -> int:
    """Return the day number since 1970 of a date."""
    return (moment - EPOCH).days


@dataclass(frozen=True, slots=True)
class Key:
    """Name whose scores are meant: a service's release in a role; release "all" is every answer together."""

    service: str
    release: str
    role: str


ALL = "all"


def _wrong(labels: Floats, scores: Floats) -> Floats:
    return (labels != scores).astype(np.float64)


def _distance(labels: Floats, scores: Floats) -> Floats:
    return np.abs(labels - scores)


def _squared(labels: Floats, scores: Floats) -> Floats:
    return np.square(scores - labels)


_LOSSES: Final[Mapping[str, Callable[[Floats, Floats], Floats]]] = MappingProxyType(
    {"error": _wrong, "mae": _distance, "brier": _squared}
)


def window_of(
    key: Key,
    grain: str,
    start: date,
    days: Mapping[int, DayScores],
    due_before: int,
    answering: Mapping[str, Answering] = MappingProxyType({}),
    halves: Mapping[int, Floats] = MappingProxyType({}),
) -> Window:
    """Return what is known of the window that starts at `start` and holds `days` (by day number).

    Labels of days before `due_before` are due. In a month, the interval allows for days that differ. `answering` says
    what its releases answer with, a chance if it is empty; `halves` how far off each answer of a day may be.
    """
    whole = joined_days([days[day] for day in sorted(days)])
    blocks = np.repeat(np.array(sorted(days), np.int64), [days[day].n for day in sorted(days)])
    labelled = ~np.isnan(whole.labels)
    is_due = blocks < due_before
    kind = max((each.kind for each in answering.values()), default=CHANCE)
    within = blocks if grain == "month" else None
    area, brier, measures, reason = _unmeasured(whole), math.nan, (), _lacking(whole)
    if not reason and kind == CHANCE:
        area, brier, measures, reason = _quality(whole, within)
    elif not reason:
        measures = _measures(whole, within, kind, _of_days(days, halves), promised(answering))
    return Window(
        service=key.service,
        release=key.release,
        role=key.role,
        grain=grain,
        start=start,
        n=whole.n,
        labelled=int(labelled.sum()),
        due=int(is_due.sum()),
        labelled_due=int((labelled & is_due).sum()),
        positives=int((whole.labels == 1.0).sum()) if kind == CHANCE else 0,
        corrected=whole.corrected,
        fallbacks=int(np.isnan(whole.scores).sum()),
        roc_auc=area,
        brier=brier,
        reason=reason,
        measures=measures,
    )


def _judged(whole: DayScores) -> npt.NDArray[np.bool_]:
    return ~np.isnan(whole.labels) & np.isfinite(whole.scores)


def _unmeasured(whole: DayScores) -> Interval:
    return Interval(math.nan, math.nan, math.nan, int(_judged(whole).sum()))


def _lacking(whole: DayScores) -> str:
    """Return why nothing can be said of quality, empty if something can."""
    if _judged(whole).any():
        return ""
    return "no labels yet" if whole.n else "no predictions"


def _of_days(days: Mapping[int, DayScores], halves: Mapping[int, Floats]) -> Floats:
    nothing = np.zeros(0)
    return np.concatenate([nothing, *(halves.get(day, np.full(days[day].n, np.nan)) for day in sorted(days))])


def _measures(
    whole: DayScores,
    blocks: npt.NDArray[np.int64] | None,
    kind: str,
    halves: Floats,
    confidence: float | None,
) -> tuple[Measure, ...]:
    usable = _judged(whole)
    labels, scores = whole.labels[usable].astype(np.float64), whole.scores[usable].astype(np.float64)
    within = None if blocks is None else blocks[usable]
    if kind == CLASSES:
        chances = None if whole.chances is None else whole.chances[usable].astype(np.float64)
        return measures_of_classes(labels, scores, within, chances)
    return measures_of_numbers(labels, scores, halves[usable], within, confidence)


def _quality(
    whole: DayScores, blocks: npt.NDArray[np.int64] | None
) -> tuple[Interval, float, tuple[Measure, ...], str]:
    # A label that is neither 0 nor 1 says nothing of an event, and must not hide what the others say.
    usable = _judged(whole) & ((whole.labels == 0.0) | (whole.labels == 1.0))
    nothing = _unmeasured(whole)
    labels, scores = whole.labels[usable], whole.scores[usable].astype(np.float64)
    if not usable.any():
        return nothing, math.nan, (), "labels are not 0 or 1"
    inside = bool(((scores >= 0.0) & (scores <= 1.0)).all())
    within = None if blocks is None else blocks[usable]
    measures = measures_of_chances(labels.astype(np.float64), scores, within) if inside else ()
    brier = float(np.square(scores - labels).mean()) if inside else math.nan
    try:
        area = auc_interval(labels, scores, blocks=within)
    except OneClassOnly as error:
        return nothing, brier, measures, error.why
    return area, brier, measures, ""


@dataclass(frozen=True, slots=True)
class DayStatistic:
    """Hold, for each of k days, what a monitored statistic needs of it.

    Ratios (`numerators` over `denominators`, float64[k]) serve means and areas within days; `pairs` serves
    the area over all pairs of a window.
    """

    numerators: Floats
    denominators: Floats
    pairs: PairCounts | None = None

    @property
    def days(self) -> int:
        """Return the number of days."""
        return int(self.denominators.size)

    def statistic(self) -> Statistic:
        """Return the function from counts float64[draws, k] to values float64[draws]."""
        if self.pairs is not None:
            return self.pairs.areas

        def ratio(counts: Floats) -> Floats:
            with np.errstate(invalid="ignore", divide="ignore"):
                return (counts @ self.numerators) / (counts @ self.denominators)

        return ratio

    @property
    def value(self) -> float:
        """Return the statistic over all days; NaN where it is not defined."""
        return float(self.statistic()(np.ones((1, self.days)))[0]) if self.days else math.nan

    def to_json(self) -> dict[str, Any]:
        """Return the form in which a reference is kept."""
        data: dict[str, Any] = {
            "numerators": self.numerators.tolist(),
            "denominators": self.denominators.tolist(),
        }
        if self.pairs is not None:
            data["wins"] = self.pairs.wins.tolist()
            data["positives"] = self.pairs.positives.tolist()
            data["negatives"] = self.pairs.negatives.tolist()
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build what `to_json` described."""
        pairs = None
        if "wins" in data:
            pairs = PairCounts(
                np.asarray(data["wins"], np.float64),
                np.asarray(data["positives"], np.float64),
                np.asarray(data["negatives"], np.float64),
            )
        return cls(np.asarray(data["numerators"], np.float64), np.asarray(data["denominators"], np.float64), pairs)


def day_statistic(spec: MonitorSpec, days: Mapping[int, DayScores]) -> DayStatistic:
    """Return the monitored statistic of `days` (by day number); days on which it is not defined are left out.

    The sign is such that lower is worse: losses are negated.
    """
    if spec.metric == "volume":
        sizes = np.array([float(days[day].n) for day in sorted(days)])
        return DayStatistic(sizes, np.ones_like(sizes))
    labels, scores, blocks = _usable(days, spec.metric not in ("error", "mae"))
    present, codes = np.unique(blocks, return_inverse=True)
    k = int(present.size)
    if spec.metric in LOSSES:
        losses = _LOSSES[spec.metric](labels, scores)
        return DayStatistic(
            -np.bincount(codes, weights=losses, minlength=k).astype(np.float64),
            np.bincount(codes, minlength=k).astype(np.float64),
        )
    if k == 0:
        return DayStatistic(np.zeros(0), np.zeros(0))
    if spec.within == "window":
        pairs = pair_counts(labels, scores, blocks)
        held = pairs.positives + pairs.negatives
        return DayStatistic(pairs.positives, held, pairs)
    wins, total = _within(labels, scores, codes, k)
    defined = total > 0
    return DayStatistic(wins[defined], total[defined])


def _within(labels: Floats, scores: Floats, codes: npt.NDArray[np.int64], k: int) -> tuple[Floats, Floats]:
    """Return for each day the pairs ranked rightly (ties one half) and the number of pairs, float64[k].

    Ranks within days come from one sort: by day, then by score.
    """
    order = np.lexsort((scores, codes))
    day, score, positive = codes[order], scores[order], labels[order] == 1.0
    edge = np.concatenate([[True], (day[1:] != day[:-1]) | (score[1:] != score[:-1])])
    group = np.cumsum(edge) - 1
    sizes = np.bincount(group)
    first = np.flatnonzero(edge)
    starts = np.searchsorted(day, np.arange(k))
    ranks = (first - starts[day[first]] + (sizes + 1) / 2.0)[group]
    m = np.bincount(day, weights=positive, minlength=k)
    n = np.bincount(day, minlength=k) - m
    wins = np.bincount(day, weights=ranks * positive, minlength=k) - m * (m + 1.0) / 2.0
    return wins.astype(np.float64), (m * n).astype(np.float64)


def _usable(days: Mapping[int, DayScores], events: bool) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    whole = joined_days([days[day] for day in sorted(days)])
    blocks = np.repeat(np.array(sorted(days), np.int64), [days[day].n for day in sorted(days)])
    known = (whole.labels == 0.0) | (whole.labels == 1.0) if events else np.isfinite(whole.labels)
    usable = known & np.isfinite(whole.scores)
    return (
        whole.labels[usable].astype(np.float64),
        whole.scores[usable].astype(np.float64),
        blocks[usable],
    )
