"""Quality of answers: measures with intervals, of the labelled rows of a window.

Where a window has six days or more the intervals allow for days that differ, else for rows alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from holdtrue.evaluation import mean_interval
from holdtrue.monitoring.model import Measure
from holdtrue.stats import Interval, clopper_pearson
from holdtrue.stats.arrays import Floats, block_codes
from holdtrue.stats.conformal import Ranges
from holdtrue.stats.resampling import Bootstrap, draw_counts

Days = npt.NDArray[np.int64]

CHANCE, CLASSES, NUMBER = "chance", "classes", "number"
"""What a model answers with: the chance of an event, the number of a class, or a number."""
_FIRST: Final[Mapping[str, str]] = MappingProxyType({CHANCE: "roc_auc", CLASSES: "accuracy", NUMBER: "mae"})
_FEW_DAYS: Final = 6
_DRAWS: Final = 1000
# No probability is taken for smaller: records keep them as numbers of 32 bits, and one of 0 would be an endless loss.
_LEAST: Final = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, slots=True)
class Answering:
    """Say what a release answers with, and of a number how far off it said it may be."""

    kind: str = CHANCE
    ranges: Ranges | None = None
    classes: int = 0

    @property
    def measure(self) -> str:
        """Return the name of what such answers are measured by first."""
        return _FIRST[self.kind]

    def halves(self, scores: npt.NDArray[np.float32]) -> Floats:
        """Return how far off each answer may be by its own word, float64 [n]; NaN where it said nothing."""
        if self.ranges is None:
            return np.full(scores.size, np.nan)
        place = np.searchsorted(np.asarray(self.ranges.edges), scores, side="right")
        return np.asarray(self.ranges.halves, np.float64)[place]


def measures_of_chances(labels: Floats, chances: Floats, days: Days | None) -> tuple[Measure, ...]:
    """Return the log loss and the Brier score of chances float [n] in [0, 1] of events (labels 0 or 1)."""
    bounded = np.clip(chances, _LEAST, 1.0 - _LEAST)
    losses = -np.log(np.where(labels == 1.0, bounded, 1.0 - bounded))
    return (
        Measure("log_loss", mean_interval(losses, blocks=days)),
        Measure("brier", mean_interval(np.square(chances - labels), blocks=days)),
    )


def measures_of_classes(
    labels: Floats, said: Floats, days: Days | None, chances: Floats | None = None
) -> tuple[Measure, ...]:
    """Return the accuracy, and the mean F1 of the classes that are there, of numbers of classes float [n].

    Where `chances` float [n, k], the probabilities of the classes, are known, their log loss and Brier score follow:
    the mean of half the sum over classes of squared differences, between 0 and 1, as in an evaluation.
    """
    right = (labels == said).astype(np.float64)
    found = [
        Measure("accuracy", mean_interval(right, blocks=days)),
        Measure("macro_f1", _macro_f1(labels, said, days)),
    ]
    known = np.zeros(labels.size, np.bool_) if chances is None else np.isfinite(chances).any(axis=1)
    if chances is not None and known.any():
        within = None if days is None else days[known]
        given = np.nan_to_num(chances[known])
        # A label that is none of the classes was given no chance at all.
        came = labels[known, None] == np.arange(given.shape[1])
        losses = -np.log(np.clip((given * came).sum(axis=1), _LEAST, 1.0 - _LEAST))
        squared = (np.square(given - came).sum(axis=1) + ~came.any(axis=1)) / 2.0
        found.append(Measure("log_loss", mean_interval(losses, blocks=within)))
        found.append(Measure("brier", mean_interval(squared, blocks=within)))
    return tuple(found)


def measures_of_numbers(
    labels: Floats, scores: Floats, halves: Floats, days: Days | None, confidence: float | None
) -> tuple[Measure, ...]:
    """Return the mean absolute and root mean squared error of numbers float [n], and how often ranges held the truth.

    `halves` are half the widths of the ranges, NaN where there was none; `confidence` is what they promised.
    """
    off = np.abs(labels - scores)
    squared = mean_interval(np.square(off), blocks=days)
    low, high = math.sqrt(max(squared.lower, 0.0)), math.sqrt(max(squared.upper, 0.0))
    if not math.isfinite(squared.lower):
        low = high = math.nan
    found = [
        Measure("mae", mean_interval(off, blocks=days)),
        Measure("rmse", Interval(math.sqrt(squared.value), low, high, squared.n)),
    ]
    told = np.isfinite(halves)
    if told.any():
        held = (off[told] <= halves[told]).astype(np.float64)
        found.append(Measure("coverage", _share(held, None if days is None else days[told]), confidence))
    return tuple(found)


def _share(held: Floats, days: Days | None) -> Interval:
    """Return a share with its exact interval, widened to that of days where they differ."""
    exact = clopper_pearson(int(held.sum()), int(held.size))
    if days is None:
        return exact
    varied = mean_interval(held, blocks=days)
    if not math.isfinite(varied.lower):
        return exact
    return Interval(
        exact.value, min(exact.lower, max(varied.lower, 0.0)), max(exact.upper, min(varied.upper, 1.0)), exact.n
    )


def _macro_f1(labels: Floats, said: Floats, days: Days | None) -> Interval:
    """Return the mean over classes of F1, the harmonic mean of precision and recall; classes nobody named are left out.

    Its interval is a percentile bootstrap over days, or over rows where there are few.
    """
    pairs, cells = np.unique(np.column_stack([labels, said]), axis=0, return_inverse=True)
    cells = cells.reshape(-1)
    names = np.unique(pairs)
    true, named = (pairs[:, place, None] == names for place in (0, 1))
    agreeing = true & named

    def score(counts: Floats) -> Floats:
        sizes = counts @ true + counts @ named
        with np.errstate(invalid="ignore", divide="ignore"):
            each = np.where(sizes > 0.0, 2.0 * (counts @ agreeing) / sizes, np.nan)
        present = np.isfinite(each)
        return np.where(present, each, 0.0).sum(axis=1) / present.sum(axis=1)

    n, count = int(labels.size), len(pairs)
    totals = np.bincount(cells, minlength=count).astype(np.float64)
    value = float(score(totals[None, :])[0])
    codes, k = (None, 0) if days is None else block_codes(days, n)
    if codes is not None and k >= _FEW_DAYS:
        table = np.bincount(codes * count + cells, minlength=k * count).reshape(k, count).astype(np.float64)
        return Bootstrap(value, score(draw_counts(k, _DRAWS, 0) @ table), k, n).interval()
    if n < 2:
        return Interval(value, math.nan, math.nan, n)
    drawn = np.random.Generator(np.random.PCG64(0)).multinomial(n, totals / n, size=_DRAWS)
    return Bootstrap(value, score(drawn.astype(np.float64)), n, n).interval()


def promised(answering: Mapping[str, Answering]) -> float | None:
    """Return how often the ranges of some releases promise to hold the truth, None if they do not say the same."""
    found = {each.ranges.confidence for each in answering.values() if each.ranges is not None}
    return found.pop() if len(found) == 1 else None
