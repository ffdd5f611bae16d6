"""Area under the ROC curve: value, DeLong's variance, the same over clusters, and paired differences.

Sources: E. DeLong, D. DeLong, D. Clarke-Pearson (1988), in the fast form of X. Sun and W. Xu (2014); clusters
after N. Obuchowski (1997), where the rows of one block (a day) may depend on each other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdtrue.stats import special
from holdtrue.stats.arrays import Bools, Floats, Ints, binary_labels, block_codes, need_both_classes, scores
from holdtrue.stats.intervals import Interval, around_logit, normal_quantile, student_quantile

_FEW_BLOCKS = 6


@dataclass(frozen=True, slots=True)
class Placements:
    """Hold, for one score, each row's share of the other class that it is ranked rightly against.

    `share` float64[n]: for a positive row the share of negatives below it, for a negative row the share of
    positives above it; ties count one half. Its mean over either class is the area.
    """

    area: float
    share: Floats


@dataclass(frozen=True, slots=True)
class AucDifference:
    """Hold the paired difference of two areas (second minus first) and the chance that it is positive."""

    first: float
    second: float
    difference: float
    lower: float
    upper: float
    error: float
    p_better: float
    n: int
    method: str


def roc_auc(y: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Return the area under the ROC curve of `score` float[n] for labels `y` (0/1)[n]; ties count one half.

    One class only raises OneClassOnly; NaN raises BadNumbers.
    """
    positive = binary_labels(y)
    values = scores(score, positive.size)
    return placements(positive, values).area


def placements(positive: Bools, score: Floats) -> Placements:
    """Return the placements of every row, from one sort (they equal those of Sun & Xu 2014, equation 4)."""
    m, n = need_both_classes(positive)
    order = np.argsort(score)
    ordered = score[order]
    edges = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    sizes = np.diff(np.append(edges, score.size))
    high = np.add.reduceat(positive[order], edges, dtype=np.int64)
    low = sizes - high
    # Ties form a group: half of the other class inside it counts, and all of it on the right side.
    below = (np.cumsum(low) - low / 2.0) / n
    above = (m - np.cumsum(high) + high / 2.0) / m
    share = np.empty(score.size)
    share[order] = np.where(positive[order], np.repeat(below, sizes), np.repeat(above, sizes))
    return Placements(float(share[positive].mean()), share)


def auc_interval(
    y: npt.ArrayLike, score: npt.ArrayLike, *, alpha: float = 0.05, blocks: npt.ArrayLike | None = None
) -> Interval:
    """Return the area and its interval on the logit scale.

    Without `blocks`, rows are independent (DeLong). With `blocks` [n] (for example days) rows of one block
    may depend on each other; with fewer than 6 blocks the blocks are ignored.
    """
    positive = binary_labels(y)
    values = scores(score, positive.size)
    placed = placements(positive, values)
    codes, k = (None, 0) if blocks is None else block_codes(blocks, positive.size)
    if codes is None or k < _FEW_BLOCKS:
        error = math.sqrt(_delong(positive, placed.share, placed.share))
        quantile = normal_quantile(1.0 - alpha / 2.0)
    else:
        error = math.sqrt(_clustered(positive, placed.share, placed.share, codes, k))
        quantile = student_quantile(1.0 - alpha / 2.0, k - 1)
    return _logit_interval(positive, placed.area, error, quantile, alpha)


def _logit_interval(positive: Bools, area: float, error: float, quantile: float, alpha: float) -> Interval:
    m = int(np.count_nonzero(positive))
    n = positive.size - m
    if area in (0.0, 1.0):
        # Variance 0 would claim certainty. But min(m, n) disjoint pairs are independent and all came out the
        # same way, which has probability area^min(m, n).
        edge = (alpha / 2.0) ** (1.0 / min(m, n))
        return Interval(area, edge if area else 0.0, 1.0 if area else 1.0 - edge, positive.size)
    if min(m, n) == 1:
        # One row has no variance of its own: take the formula of Hanley and McNeil (1982).
        error = math.sqrt(hanley_mcneil(area, m, n))
    # Error 0 here means that all placements are equal: a constant score, whose area is 1/2 by definition.
    return around_logit(area, error, positive.size, quantile)


def hanley_mcneil(area: float, m: int, n: int) -> float:
    """Return the approximate variance of an area from `m` positive and `n` negative rows."""
    q1, q2 = area / (2.0 - area), 2.0 * area**2 / (1.0 + area)
    return (area * (1.0 - area) + (m - 1) * (q1 - area**2) + (n - 1) * (q2 - area**2)) / (m * n)


def _delong(positive: Bools, first: Floats, second: Floats) -> float:
    """Return the covariance of two areas from their placements."""
    total = 0.0
    for rows in (positive, ~positive):
        a, b = first[rows], second[rows]
        if a.size > 1:
            total += float(np.dot(a - a.mean(), b - b.mean())) / (a.size - 1) / a.size
    return max(total, 0.0) if first is second else total


def _clustered(positive: Bools, first: Floats, second: Floats, codes: Ints, k: int) -> float:
    """Return the covariance of two areas when rows of one block may depend on each other.

    Obuchowski (1997), equation 4: sums of centred placements over each block, both classes together.
    """
    return float(np.dot(_influence(positive, first, codes, k), _influence(positive, second, codes, k))) * (
        k / (k - 1.0)
    )


def _influence(positive: Bools, share: Floats, codes: Ints, k: int) -> Floats:
    """Return how much each block moves the area, float64[k]."""
    m = int(np.count_nonzero(positive))
    n = positive.size - m
    area = float(share[positive].mean())
    weight = np.where(positive, (share - area) / m, (share - area) / n)
    return np.bincount(codes, weights=weight, minlength=k).astype(np.float64)


def auc_difference(
    y: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    *,
    alpha: float = 0.05,
    blocks: npt.ArrayLike | None = None,
) -> AucDifference:
    """Return the area of `second` minus that of `first`, both float[n] on the same rows.

    `p_better` is the confidence that `second` is better (normal, or t with blocks − 1 degrees of freedom).
    Two equal scores have difference 0 and p_better 0.5.
    """
    return auc_difference_of_means(y, [first], second, alpha=alpha, blocks=blocks)


def auc_difference_of_means(
    y: npt.ArrayLike,
    firsts: Sequence[npt.ArrayLike],
    second: npt.ArrayLike,
    *,
    alpha: float = 0.05,
    blocks: npt.ArrayLike | None = None,
) -> AucDifference:
    """Return the area of `second` minus the mean area of `firsts`, each float[n] on the same rows.

    The influence of a row is the mean of its influences, so that what `firsts` have of chance of their own averages
    out of the difference and of its error alike.
    """
    positive = binary_labels(y)
    b = placements(positive, scores(second, positive.size, "second scores"))
    found = [placements(positive, scores(each, positive.size, "first scores")) for each in firsts]
    area = float(np.mean([each.area for each in found]))
    change = np.mean([b.share - each.share for each in found], axis=0)
    codes, k = (None, 0) if blocks is None else block_codes(blocks, positive.size)
    if codes is None or k < _FEW_BLOCKS:
        method = "DeLong"
        error = math.sqrt(_delong(positive, change, change))
        quantile = normal_quantile(1.0 - alpha / 2.0)
    else:
        method = f"DeLong over {k} blocks"
        error = math.sqrt(_clustered(positive, change, change, codes, k))
        quantile = student_quantile(1.0 - alpha / 2.0, k - 1)
    difference = b.area - area
    if error == 0.0:
        chance = 0.5 if difference == 0.0 else float(difference > 0.0)
    elif codes is None or k < _FEW_BLOCKS:
        chance = float(special.ndtr(difference / error))
    else:
        chance = float(special.stdtr(k - 1, difference / error))
    return AucDifference(
        area,
        b.area,
        difference,
        difference - quantile * error,
        difference + quantile * error,
        error,
        chance,
        positive.size,
        method,
    )


@dataclass(frozen=True, slots=True)
class PairCounts:
    """Hold for every two blocks how often a positive row of one outranks a negative row of the other.

    `wins` float64[k, k] (ties one half), `positives` and `negatives` float64[k]. The area of any union of
    blocks, also with repeats, follows from it without looking at rows again.
    """

    wins: Floats
    positives: Floats
    negatives: Floats

    def areas(self, counts: Floats) -> Floats:
        """Return the areas float64[draws] where block b occurs counts[draw, b] times; NaN if undefined."""
        wins = np.einsum("da,ab,db->d", counts, self.wins, counts, optimize=True)
        pairs = (counts @ self.positives) * (counts @ self.negatives)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(pairs > 0, wins / pairs, np.nan)


def pair_counts(y: npt.ArrayLike, score: npt.ArrayLike, blocks: npt.ArrayLike) -> PairCounts:
    """Count wins between all pairs of blocks; blocks are in the sorted order of their labels."""
    positive = binary_labels(y)
    values = scores(score, positive.size)
    codes, k = block_codes(blocks, positive.size)
    order = np.argsort(values[positive], kind="stable")
    high, high_codes = values[positive][order], codes[positive][order]
    starts = np.zeros((high.size + 1, k))
    np.add.at(starts, (np.arange(1, high.size + 1), high_codes), 1.0)
    below = np.cumsum(starts, axis=0)
    wins = np.zeros((k, k))
    low, low_codes = values[~positive], codes[~positive]
    total = below[-1]
    left = np.searchsorted(high, low, side="left")
    right = np.searchsorted(high, low, side="right")
    won = total - (below[left] + below[right]) / 2.0
    for block in range(k):
        wins[:, block] = won[low_codes == block].sum(axis=0)
    negatives = np.bincount(low_codes, minlength=k).astype(np.float64)
    return PairCounts(wins, total, negatives)
