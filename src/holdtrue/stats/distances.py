"""Distances between two distributions, on values and on the counts of shared bins.

Counts are mergeable: the counts of a week are the sums of those of its days.
"""

import numpy as np
import numpy.typing as npt

from holdtrue.stats.arrays import Floats
from holdtrue.stats.errors import BadNumbers


def shares(counts: npt.ArrayLike, *, pseudo: float = 0.0) -> Floats:
    """Return counts [..., bins] as shares that add up to 1, after adding `pseudo` to every bin."""
    values = np.asarray(counts, dtype=np.float64) + pseudo
    total = values.sum(axis=-1, keepdims=True)
    if (values < 0).any() or (total <= 0).any():
        raise BadNumbers(
            "A distribution needs counts that are not negative and not all 0.",
            mend="Leave out empty windows, or merge them with their neighbours.",
        )
    return values / total


def psi(reference: npt.ArrayLike, current: npt.ArrayLike, *, pseudo: float = 0.5) -> float:
    """Return the population stability index of two count vectors [bins].

    Σ (q − p)·ln(q / p). Half a row is added to every bin, since an empty one would make it infinite.
    """
    p, q = _pair(reference, current, pseudo)
    return float(np.sum((q - p) * np.log(q / p)))


def jensen_shannon(reference: npt.ArrayLike, current: npt.ArrayLike) -> float:
    """Return the Jensen-Shannon distance with logarithms to base 2: 0 for equal, 1 for disjoint counts."""
    p, q = _pair(reference, current, 0.0)
    middle = (p + q) / 2.0
    total = 0.0
    for side in (p, q):
        held = side > 0
        total += float(np.sum(side[held] * np.log2(side[held] / middle[held])))
    return float(np.sqrt(max(total, 0.0) / 2.0))


def kolmogorov_smirnov_counts(reference: npt.ArrayLike, current: npt.ArrayLike) -> float:
    """Return the largest gap between the cumulative shares of two count vectors over ordered bins."""
    p, q = _pair(reference, current, 0.0)
    return float(np.abs(np.cumsum(p) - np.cumsum(q)).max())


def wasserstein_counts(reference: npt.ArrayLike, current: npt.ArrayLike, positions: npt.ArrayLike) -> float:
    """Return the earth mover's distance of counts that sit at ordered `positions` float[bins]."""
    p, q = _pair(reference, current, 0.0)
    where = np.asarray(positions, dtype=np.float64)
    if where.shape != p.shape or (np.diff(where) < 0).any():
        raise BadNumbers("Each bin needs one position, in rising order.", mend="Sort the bins first.")
    return float(np.sum(np.abs(np.cumsum(p - q))[:-1] * np.diff(where)))


def kolmogorov_smirnov(reference: npt.ArrayLike, current: npt.ArrayLike) -> float:
    """Return the two-sample Kolmogorov-Smirnov statistic of values float[n] and float[m]."""
    first, second = _sorted(reference), _sorted(current)
    points = np.concatenate([first, second])
    gaps = (
        np.searchsorted(first, points, side="right") / first.size
        - np.searchsorted(second, points, side="right") / second.size
    )
    return float(np.abs(gaps).max())


def wasserstein(reference: npt.ArrayLike, current: npt.ArrayLike) -> float:
    """Return the earth mover's distance of values float[n] and float[m]."""
    first, second = _sorted(reference), _sorted(current)
    points = np.sort(np.concatenate([first, second]))
    gaps = (
        np.searchsorted(first, points[:-1], side="right") / first.size
        - np.searchsorted(second, points[:-1], side="right") / second.size
    )
    return float(np.sum(np.abs(gaps) * np.diff(points)))


def counts(values: npt.ArrayLike, edges: Floats) -> Floats:
    """Return how many finite values fall into each of len(edges) + 1 bins; a value on an edge goes right."""
    data = np.asarray(values, dtype=np.float64).ravel()
    codes = np.searchsorted(edges, data[np.isfinite(data)], side="right")
    return np.bincount(codes, minlength=edges.size + 1).astype(np.float64)


def _pair(reference: npt.ArrayLike, current: npt.ArrayLike, pseudo: float) -> tuple[Floats, Floats]:
    p, q = shares(reference, pseudo=pseudo), shares(current, pseudo=pseudo)
    if p.shape != q.shape or p.ndim != 1:
        raise BadNumbers(
            f"Counts over different bins cannot be compared: {p.shape} and {q.shape}.",
            mend="Count both windows over the reference's edges.",
        )
    return p, q


def _sorted(values: npt.ArrayLike) -> Floats:
    data = np.asarray(values, dtype=np.float64).ravel()
    data = np.sort(data[np.isfinite(data)])
    if data.size == 0:
        raise BadNumbers("A distance needs at least one finite value on each side.", mend="Leave out empty windows.")
    return data
