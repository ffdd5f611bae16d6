"""How much one feature tells of a label alone: what nearly determines it was most likely known only afterwards."""

import numpy as np

from holdtrue.stats.arrays import Bools, Floats, Ints
from holdtrue.stats.auc import roc_auc
from holdtrue.stats.errors import OneClassOnly

_BINS = 200
_PRIOR = 2.0


def told_alone(feature: Floats, positive: Bools) -> float | None:
    """Return the area under the ROC curve of a feature float[n] alone, whatever the form of its relation.

    The feature is cut into bins of about equal shares, a missing value (NaN) being a bin of its own; the rate of
    positives of each bin is learned on every second row and tried on the others, so that many different values do
    not look like knowledge. None if one of the halves has one class only.
    """
    bins = _binned(feature)
    learned = np.zeros(len(feature), bool)
    learned[::2] = True
    rates = _rates(bins[learned], positive[learned], int(bins.max(initial=0)) + 1)
    try:
        return float(roc_auc(positive[~learned], rates[bins[~learned]]))
    except OneClassOnly:
        return None


def _binned(feature: Floats) -> Ints:
    missing = np.isnan(feature)
    values = feature[~missing]
    different = np.unique(values)
    edges = different[1:]
    if len(different) > _BINS:
        edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1], method="nearest"))
    bins = np.zeros(len(feature), np.int64)
    bins[~missing] = np.searchsorted(edges, values, side="right") + 1
    return bins


def _rates(bins: Ints, positive: Bools, n: int) -> Floats:
    """Return the rate of positives per bin, drawn to the overall one where rows are few."""
    rows = np.bincount(bins, minlength=n)
    hits = np.bincount(bins, weights=positive, minlength=n)
    return (hits + _PRIOR * float(positive.mean() if len(positive) else 0.0)) / (rows + _PRIOR)
