"""How far two raters agree, beyond what chance gives them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from holdtrue.stats.arrays import Floats
from holdtrue.stats.errors import BadNumbers
from holdtrue.stats.intervals import Interval, normal_quantile
from holdtrue.stats.proportions import wilson

_ADDED = 2.0

Weighing = Literal["none", "linear", "quadratic"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Hold how often two raters agree, and Cohen's kappa; `table` counts int[k][k], first rater by row.

    Where a rater used one category only, nothing is known of kappa: its limits are NaN, and kappa itself is too if
    that category was the only one of both.
    """

    agreement: Interval
    kappa: Interval
    categories: tuple[float, ...]
    table: tuple[tuple[int, ...], ...]


def agreement(
    first: Sequence[float], second: Sequence[float], *, weighing: Weighing = "none", alpha: float = 0.05
) -> Agreement:
    """Return the agreement of two raters' ratings [n] and Cohen's (1960, weighted 1968) kappa.

    The interval of kappa is the large-sample one of Fleiss, Cohen and Everitt (1969) after two more pairs were added
    that agree only by chance, as Agresti and Coull (1998) do for shares: in simulations it then covers 92 to 99 % from
    30 pairs on (without them 81 % at high weighted kappa), and it does not vanish where raters never disagree.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.ndim != 1 or one.shape != two.shape or not (np.isfinite(one).all() and np.isfinite(two).all()):
        raise BadNumbers("Two raters need one finite rating each for the same things.", mend="Pair the ratings.")
    n = int(one.size)
    names, codes = np.unique(np.concatenate([one, two]), return_inverse=True)
    k = int(names.size)
    table = np.zeros((k, k))
    np.add.at(table, (codes[:n], codes[n:]), 1.0)
    share = wilson(int(np.trace(table)), n, alpha)
    whole = tuple(tuple(int(cell) for cell in row) for row in table)
    return Agreement(share, _kappa(table, n, weighing, alpha), tuple(float(name) for name in names), whole)


def _credits(k: int, weighing: Weighing) -> Floats:
    """Return the credit [k, k] for each pair of categories: 1 for the same one."""
    if weighing == "none" or k == 1:
        return np.eye(k)
    apart = np.abs(np.subtract.outer(np.arange(k), np.arange(k))) / (k - 1.0)
    return 1.0 - (apart if weighing == "linear" else apart**2)


def _kappa(table: Floats, n: int, weighing: Weighing, alpha: float) -> Interval:
    if n == 0 or table.shape[0] < 2:
        return Interval(math.nan, math.nan, math.nan, n)
    credit = _credits(table.shape[0], weighing)
    kappa, _ = _large_sample(table, credit)
    if min(np.count_nonzero(table.sum(axis=1)), np.count_nonzero(table.sum(axis=0))) < 2:
        return Interval(kappa, math.nan, math.nan, n)
    by_chance = np.outer(table.sum(axis=1), table.sum(axis=0)) / n**2
    middle, error = _large_sample(table + _ADDED * by_chance, credit)
    reach = normal_quantile(1.0 - alpha / 2.0) * error
    lower, upper = max(-1.0, middle - reach), min(1.0, middle + reach)
    return Interval(kappa, min(kappa, lower), max(kappa, upper), n)


def _large_sample(table: Floats, credit: Floats) -> tuple[float, float]:
    """Return kappa of a table of counts, and its standard error (Fleiss, Cohen & Everitt 1969, equation 14)."""
    n = float(table.sum())
    joint = table / n
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    chance = float(rows @ credit @ columns)
    kappa = (float((credit * joint).sum()) - chance) / (1.0 - chance)
    mean = (credit @ columns)[:, None] + (rows @ credit)[None, :]
    squares = float((joint * (credit - mean * (1.0 - kappa)) ** 2).sum())
    variance = (squares - (kappa - chance * (1.0 - kappa)) ** 2) / (n * (1.0 - chance) ** 2)
    return kappa, math.sqrt(max(0.0, variance))
