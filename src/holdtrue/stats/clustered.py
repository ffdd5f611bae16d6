"""Shares and paired differences of answers to questions: the question is the unit, however often it was asked."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdtrue.stats.arrays import Floats, block_codes
from holdtrue.stats.errors import BadNumbers
from holdtrue.stats.intervals import Interval, normal_quantile

_DRAWS = 20_000
_LATTICE = 20_000_000


def clustered_share(
    values: npt.ArrayLike, clusters: npt.ArrayLike, weights: npt.ArrayLike | None = None, alpha: float = 0.05
) -> Interval:
    """Return the weighted mean of `values` float[n] in [0, 1] with an interval over `clusters` [n]; n counts clusters.

    Wilson's score interval (1927) at the effective number of answers n* = K / ratio, as for surveys (Kish 1965;
    Franco et al. 2019). `ratio` is the variance between clusters in units of p(1 − p), with two clusters of ones and
    two of zeros added, as Agresti and Coull (1998) do: a few clusters that happen to agree say little about how much
    clusters differ. With one answer a cluster and equal weights it is Wilson's interval itself.
    """
    rows = np.asarray(values, dtype=np.float64)
    if rows.size == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    if not ((rows >= 0.0) & (rows <= 1.0)).all():
        raise BadNumbers("A share is a mean of numbers from 0 to 1.", mend="Scale the values to that range.")
    codes, k = block_codes(clusters, rows.size)
    each = np.ones(rows.size) if weights is None else np.asarray(weights, dtype=np.float64)
    if each.shape != rows.shape or not ((each > 0.0) & np.isfinite(each)).all():
        raise BadNumbers("A weight is a positive number.", mend="Give one for each value.")
    weight: Floats = np.bincount(codes, weights=each, minlength=k).astype(np.float64)
    means: Floats = np.bincount(codes, weights=each * rows, minlength=k) / weight
    share = float(min(1.0, max(0.0, np.dot(weight, means) / weight.sum())))
    effective = float(weight.sum() ** 2 / np.dot(weight, weight))
    return _wilson(share, effective / _ratio(means, weight), k, alpha)


def _ratio(means: Floats, weight: Floats) -> float:
    """Return the variance between clusters over p(1 − p), both with four clusters added: 1 where all are 0 or 1."""
    square = np.append(weight**2, np.full(4, float(np.mean(weight**2))))
    heavy = np.append(weight, np.full(4, math.sqrt(square[-1])))
    added = np.append(means, [0.0, 0.0, 1.0, 1.0])
    middle = float(np.dot(heavy, added) / heavy.sum())
    centre = float(np.dot(square, added) / square.sum())
    spread = float(np.dot(square, (added - middle) ** 2) / square.sum())
    return spread / (centre * (1.0 - centre) + (centre - middle) ** 2)


def _wilson(share: float, n: float, k: int, alpha: float) -> Interval:
    z = normal_quantile(1.0 - alpha / 2.0)
    spread = 1.0 + z * z / n
    centre = (share + z * z / (2.0 * n)) / spread
    reach = z / spread * math.sqrt(max(0.0, share * (1.0 - share) / n + z * z / (4.0 * n * n)))
    return Interval(share, max(0.0, centre - reach), min(1.0, centre + reach), k)


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Hold the mean of paired differences with its interval, and the confidence that it is above zero."""

    difference: float
    lower: float
    upper: float
    p_better: float
    n: int


def paired_difference(
    differences: npt.ArrayLike, weights: npt.ArrayLike | None = None, *, alpha: float = 0.05, seed: int = 0
) -> PairedDifference:
    """Return the weighted mean of `differences` float[n] in [−1, 1], one a question, with interval and `p_better`.

    The interval is Bonett and Price's (2012), which adds one question won and one lost: it does not collapse when no
    two answers differ. `p_better` is 1 − p of the one-sided sign-flip test (Fisher 1935) with mid-p: under equal
    releases each difference is as likely to be its negative. Without repeats and weights it is McNemar's mid-p.
    """
    found = np.asarray(differences, dtype=np.float64)
    if found.size == 0:
        return PairedDifference(math.nan, math.nan, math.nan, math.nan, 0)
    if not (np.abs(found) <= 1.0).all():
        raise BadNumbers("A difference of two shares is a number from −1 to 1.", mend="Scale the values.")
    weight = np.ones(found.size) if weights is None else np.asarray(weights, dtype=np.float64)
    if weight.shape != found.shape or not ((weight > 0.0) & np.isfinite(weight)).all():
        raise BadNumbers("A weight is a positive number.", mend="Give one for each difference.")
    mean = float(np.dot(weight, found) / weight.sum())
    heavy = np.append(weight, np.full(2, math.sqrt(float(np.mean(weight**2)))))
    added = np.append(found, [1.0, -1.0])
    middle = float(np.dot(heavy, added) / heavy.sum())
    error = math.sqrt(float(np.dot(heavy**2, (added - middle) ** 2))) / float(heavy.sum())
    reach = normal_quantile(1.0 - alpha / 2.0) * error
    better = sign_flip(found * weight, seed)
    return PairedDifference(mean, max(-1.0, middle - reach), min(1.0, middle + reach), better, found.size)


def sign_flip(values: Floats, seed: int = 0) -> float:
    """Return P(sum of randomly signed |values| < their sum), ties one half; exact where values share a small unit."""
    moved = np.abs(values[values != 0.0])
    if moved.size == 0:
        return 0.5
    total = float(values.sum())
    unit = _unit(moved)
    if unit is not None:
        return _exact(np.rint(moved / unit).astype(np.int64), round(total / unit))
    generator = np.random.Generator(np.random.PCG64(seed))
    below = ties = 0.0
    for _ in range(20):
        signs = generator.integers(0, 2, size=(_DRAWS // 20, moved.size)) * 2 - 1
        sums = signs @ moved
        same = np.abs(sums - total) <= 1e-9 * float(moved.sum())
        below += np.count_nonzero((sums < total) & ~same)
        ties += np.count_nonzero(same)
    return float((below + 0.5 * ties + 0.5) / (_DRAWS + 1.0))


def _unit(moved: Floats) -> float | None:
    """Return a number of which all of `moved` are small multiples, or None."""
    smallest = float(moved.min())
    for parts in range(1, 13):
        unit = smallest / parts
        steps = moved / unit
        if np.abs(steps - np.rint(steps)).max() < 1e-6:
            return unit if float(steps.sum()) * moved.size <= _LATTICE else None
    return None


def _exact(steps: npt.NDArray[np.int64], total: int) -> float:
    """Return the same probability from the exact distribution of the signed sum, built value by value."""
    reach = int(steps.sum())
    chances = np.zeros(2 * reach + 1)
    chances[reach] = 1.0
    for step in steps:
        moved = np.zeros_like(chances)
        moved[step:] += 0.5 * chances[: chances.size - step]
        moved[: chances.size - step] += 0.5 * chances[step:]
        chances = moved
    at = reach + total
    return float(chances[:at].sum() + 0.5 * chances[at])
