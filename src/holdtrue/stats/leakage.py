"""How much one feature tells of a label alone: what nearly determines it was most likely known only afterwards."""

import numpy as np

from holdtrue.stats.arrays import Bools, Floats, Ints

_BINS = 200
_PRIOR = 2.0


def told_alone(feature: Floats, positive: Bools) -> float | None:
    """Return the area under the ROC curve of a feature float[n] alone, whatever the form of its relation.

    The feature is cut into bins of about equal shares, a missing value (NaN) being a bin of its own; the rate of
    positives of each bin is learned on every second row and tried on the others, so that many different values do
    not look like knowledge. None if one of the halves has one class only.
    """
    return told_by_bins(binned(feature), positive)


def told_by_bins(bins: Ints, positive: Bools) -> float | None:
    """Return what `told_alone` does of a feature that is cut into `bins` int[n] already."""
    n = int(bins.max(initial=0)) + 1
    rates = rates_of(bins[::2], positive[::2], n)
    rows = np.bincount(bins[1::2], minlength=n)
    hits = np.bincount(bins[1::2], weights=positive[1::2], minlength=n)
    # Bins of one rate are told apart by nobody, so they count as one.
    _, same = np.unique(rates, return_inverse=True)
    hits, rows = np.bincount(same, weights=hits), np.bincount(same, weights=rows)
    misses = rows - hits
    if not hits.sum() or not misses.sum():
        return None
    # A hit is above all misses of lower rates, and level with half of those of its own.
    above = np.cumsum(misses) - misses / 2
    return float(hits @ above) / float(hits.sum() * misses.sum())


def binned(feature: Floats) -> Ints:
    """Return the number of each value's bin, int[n]: 0 is for missing ones, bins have about equal shares."""
    missing = np.isnan(feature)
    ordered = np.sort(feature[~missing])
    edges = ordered[np.flatnonzero(ordered[1:] != ordered[:-1]) + 1]
    if len(edges) >= _BINS:
        places = np.rint(np.linspace(0, 1, _BINS + 1)[1:-1] * (len(ordered) - 1)).astype(np.intp)
        edges = np.unique(ordered[places])
    bins = np.zeros(len(feature), np.int64)
    bins[~missing] = np.searchsorted(edges, feature[~missing], side="right") + 1
    return bins


def rates_of(bins: Ints, positive: Bools, n: int) -> Floats:
    """Return the rate of positives float[n] of each bin, drawn to the overall one where rows are few."""
    rows = np.bincount(bins, minlength=n)
    hits = np.bincount(bins, weights=positive, minlength=n)
    return (hits + _PRIOR * float(positive.mean() if len(positive) else 0.0)) / (rows + _PRIOR)
