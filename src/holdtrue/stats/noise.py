"""Labels that nothing else of their rows would let expect: the first ones to look at when labels may be wrong."""

from collections.abc import Sequence

import numpy as np

from holdtrue.stats.arrays import Bools, Floats, Ints
from holdtrue.stats.leakage import rates_of

_ALIKE = 200
"""How many rows of about one score say how often a label occurs among them."""
_LEAST = 1e-6


def own_label_rates(features: Sequence[Ints], positive: Bools) -> Floats | None:
    """Return for each row how often its own label occurs among rows like it, float[n]; None for one class.

    `features` are cut into bins int[n] each. What each bin tells of the label is learned on one half of the rows and
    added up as log odds for the other, as if features told of it independently of each other (naive Bayes). Because
    they do not, the sum is only taken to put rows in order: how often a label occurs is counted among those around.
    A row's own half has no part in its score, so its label cannot excuse itself (Northcutt, Jiang and Chuang, 2021,
    whose confident learning asks the same question of any classifier).
    """
    n = len(positive)
    scores = np.zeros(n)
    for half in (0, 1):
        learned, other = slice(half, None, 2), slice(1 - half, None, 2)
        base = float(positive[learned].mean()) if n > 1 else 0.0
        if not 0.0 < base < 1.0:
            return None
        for bins in features:
            rates = np.clip(rates_of(bins[learned], positive[learned], int(bins.max()) + 1), _LEAST, 1 - _LEAST)
            scores[other] += (np.log(rates / (1 - rates)) - np.log(base / (1 - base)))[bins[other]]
    found = np.empty(n)
    for half in (0, 1):
        own = slice(half, None, 2)
        found[own] = _rates_around(scores[own], positive[own])
    return np.where(positive, found, 1 - found)


def _rates_around(scores: Floats, positive: Bools) -> Floats:
    """Return the rate of positives among the rows of about the same score, one of the overall rate among them."""
    order = np.argsort(scores, kind="stable")
    group = np.empty(len(scores), np.int64)
    group[order] = np.arange(len(scores)) // _ALIKE
    # The last group takes what is left over.
    group = np.minimum(group, max(len(scores) // _ALIKE - 1, 0))
    rows = np.bincount(group)
    hits = np.bincount(group, weights=positive)
    base = float(positive.mean())
    return ((hits + base) / (rows + 1))[group]
