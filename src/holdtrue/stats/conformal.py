"""Prediction sets and ranges that hold the truth as often as they say: split conformal prediction, part by part.

Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World (2005); per outcome (Mondrian), so that rare outcomes
are covered as often as common ones.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from holdtrue.stats.errors import BadNumbers
from holdtrue.stats.proportions import clopper_pearson

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sets:
    """Say which outcomes a score leaves possible: 0 up to `zero_up_to`, 1 from `one_from` on.

    Of rows that are exchangeable with those they were made of, each outcome is among them with probability
    `confidence` or more.
    """

    confidence: float
    zero_up_to: float
    one_from: float

    def of(self, score: float) -> list[int]:
        """Return the outcomes that are possible at a score: one, both or none of 0 and 1."""
        possible = [0] if score <= self.zero_up_to else []
        return [*possible, 1] if score >= self.one_from else possible


def calibrate(scores: npt.ArrayLike, outcomes: npt.ArrayLike, confidence: float) -> Sets | None:
    """Return the sets that scores, float [n] in [0, 1], and outcomes, 0 or 1, of held-out rows give.

    None where an outcome has too few rows to say anything: fewer than confidence / (1 - confidence).
    """
    _check_confidence(confidence)
    score, outcome = np.asarray(scores, np.float64), np.asarray(outcomes)
    zero, one = _limit(score[outcome == 0], confidence), _limit(1.0 - score[outcome == 1], confidence)
    return None if zero is None or one is None else Sets(confidence, zero, 1.0 - one)


def _check_confidence(confidence: float) -> None:
    if not 0.5 <= confidence < 1.0:
        raise BadNumbers(f"A confidence of {confidence:g} is not used.", mend="Give one from 0.5 to below 1.")


def _limit(strangeness: Floats, confidence: float) -> float | None:
    """Return the ⌈(n + 1) · confidence⌉-th smallest strangeness, None if there is none such."""
    rank = math.ceil((strangeness.size + 1) * confidence)
    return None if rank > strangeness.size else float(np.partition(strangeness, rank - 1)[rank - 1])


def covered(sets: Sets, scores: npt.ArrayLike, outcomes: npt.ArrayLike) -> dict[str, Any]:
    """Return how often sets held the truth of rows they were not made of (exact 95 % intervals), and their sizes."""
    score, outcome = np.asarray(scores, np.float64), np.asarray(outcomes)
    zero, one = score <= sets.zero_up_to, score >= sets.one_from
    held = np.where(outcome == 1, one, zero)
    sizes = zero.astype(int) + one.astype(int)
    n = int(score.size)

    def share(rows: npt.NDArray[np.bool_]) -> dict[str, Any]:
        found = clopper_pearson(int(held[rows].sum()), int(rows.sum()))
        return found.to_json()

    return {
        "confidence": sets.confidence,
        **share(np.ones(n, np.bool_)),
        "zero": share(outcome == 0),
        "one": share(outcome == 1),
        "size": float(sizes.mean()) if n else None,
        "single": float((sizes == 1).mean()) if n else None,
        "both": float((sizes == 2).mean()) if n else None,
        "none": float((sizes == 0).mean()) if n else None,
    }


@dataclass(frozen=True, slots=True)
class ClassSets:
    """Say which of several classes their probabilities leave possible: each from its own least probability on.

    Of rows that are exchangeable with those they were made of, each class is in the sets of its rows with probability
    `confidence` or more (Sadinle, Lei and Wasserman, Least ambiguous set-valued classifiers, 2019, class by class).
    """

    confidence: float
    at_least: tuple[float, ...]

    def of(self, chances: Sequence[float]) -> list[int]:
        """Return the numbers of the classes that are possible; none, if the row is like no class."""
        pairs = zip(chances, self.at_least, strict=True)
        return [place for place, (chance, least) in enumerate(pairs) if chance >= least]


def calibrate_classes(chances: npt.ArrayLike, classes: npt.ArrayLike, confidence: float) -> ClassSets | None:
    """Return the sets that probabilities, float [n, k], and true classes, numbers [n], of held-out rows give.

    None where a class has too few rows to say anything: fewer than confidence / (1 - confidence).
    """
    _check_confidence(confidence)
    given, true = np.asarray(chances, np.float64), np.asarray(classes)
    limits = [_limit(1.0 - given[true == place, place], confidence) for place in range(given.shape[1])]
    known = [limit for limit in limits if limit is not None]
    return ClassSets(confidence, tuple(1.0 - limit for limit in known)) if len(known) == len(limits) else None


def covered_classes(sets: ClassSets, chances: npt.ArrayLike, classes: npt.ArrayLike) -> dict[str, Any]:
    """Return how often sets held the class of rows they were not made of (exact 95 % intervals), and their sizes."""
    given, true = np.asarray(chances, np.float64), np.asarray(classes).astype(np.int64)
    inside = given >= np.asarray(sets.at_least)
    held, sizes, n = inside[np.arange(true.size), true], inside.sum(axis=1), int(true.size)
    own = [held[true == place] for place in range(given.shape[1])]
    return {
        "confidence": sets.confidence,
        **clopper_pearson(int(held.sum()), n).to_json(),
        "classes": [clopper_pearson(int(each.sum()), int(each.size)).to_json() for each in own],
        "size": float(sizes.mean()) if n else None,
        "single": float((sizes == 1).mean()) if n else None,
        "none": float((sizes == 0).mean()) if n else None,
    }


@dataclass(frozen=True, slots=True)
class Ranges:
    """Say how far off a predicted number may be: by `halves`, one for each part of the numbers cut at `edges`.

    Of rows that are exchangeable with those they were made of, the truth lies within with probability `confidence` or
    more: split conformal prediction with absolute residuals (Lei, G'Sell, Rinaldo, Tibshirani and Wasserman,
    Distribution-free predictive inference for regression, 2018), in each part of the predictions by itself (Boström and
    Johansson, Mondrian conformal regressors, 2020), so that ranges are wide where the model is.
    """

    confidence: float
    edges: tuple[float, ...]
    halves: tuple[float, ...]

    def of(self, score: float) -> list[float]:
        """Return the least and the largest number that a prediction leaves possible."""
        half = self.halves[bisect_right(self.edges, score)]
        return [score - half, score + half]


def calibrate_ranges(scores: npt.ArrayLike, truths: npt.ArrayLike, confidence: float, parts: int = 5) -> Ranges | None:
    """Return the ranges that predicted and true numbers, float [n], of held-out rows give; None for too few rows.

    Predictions are cut into up to `parts` parts of equally many rows, as far as each has five times the rows it needs:
    which part a row is in follows from its prediction alone, so that each part is calibrated by rows like its own.
    """
    _check_confidence(confidence)
    score, off = np.asarray(scores, np.float64), np.abs(np.asarray(truths, np.float64) - np.asarray(scores, np.float64))
    needed = math.ceil(confidence / (1.0 - confidence) - 1e-9)
    count = max(min(parts, score.size // (5 * needed)), 1)
    edges = np.unique(np.quantile(score, np.arange(1, count) / count)) if count > 1 else np.zeros(0)
    place = np.searchsorted(edges, score, side="right")
    halves = [_limit(off[place == part], confidence) for part in range(edges.size + 1)]
    known = [half for half in halves if half is not None]
    if len(known) < len(halves):
        # Many equal predictions leave a part without rows: then one width holds for all.
        edges, known = np.zeros(0), [half for half in [_limit(off, confidence)] if half is not None]
    return Ranges(confidence, tuple(edges.tolist()), tuple(known)) if known else None


def covered_ranges(ranges: Ranges, scores: npt.ArrayLike, truths: npt.ArrayLike) -> dict[str, Any]:
    """Return how often ranges held the truth of rows they were not made of (exact 95 % intervals), and their widths."""
    score, truth = np.asarray(scores, np.float64), np.asarray(truths, np.float64)
    place = np.searchsorted(np.asarray(ranges.edges), score, side="right")
    half = np.asarray(ranges.halves)[place]
    held = np.abs(truth - score) <= half
    own = [held[place == part] for part in range(len(ranges.halves))]
    return {
        "confidence": ranges.confidence,
        **clopper_pearson(int(held.sum()), int(held.size)).to_json(),
        "parts": [clopper_pearson(int(each.sum()), int(each.size)).to_json() for each in own],
        "width": float(2.0 * half.mean()) if half.size else None,
    }
