"""Ratios of paired positive amounts, such as what two releases cost or how long they take, with their intervals."""

import math

import numpy as np
import numpy.typing as npt

from holdtrue.stats.arrays import Floats
from holdtrue.stats.errors import BadNumbers
from holdtrue.stats.intervals import Interval, student_quantile


def ratio_of_means(first: npt.ArrayLike, second: npt.ArrayLike, alpha: float = 0.05) -> Interval:
    """Return mean(second) / mean(first) of paired amounts float[n], as for sums of money.

    The interval is Student's on the logarithm of the ratio, by the delta method (Cochran 1977, section 6.4).
    """
    one, two = _amounts(first, second)
    n = int(one.size)
    if n == 0 or not one.sum() > 0.0 or not two.sum() > 0.0:
        return Interval(math.nan, math.nan, math.nan, n)
    moved = two / two.mean() - one / one.mean()
    return _around_log(math.log(float(two.mean() / one.mean())), moved, alpha)


def typical_ratio(first: npt.ArrayLike, second: npt.ArrayLike, alpha: float = 0.05) -> Interval:
    """Return the geometric mean of second / first of paired amounts float[n], as for times with a long tail.

    Pairs with a zero are left out. The interval is Student's on the logarithms.
    """
    one, two = _amounts(first, second)
    kept = (one > 0.0) & (two > 0.0)
    logs = np.log(two[kept]) - np.log(one[kept])
    if logs.size == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    return _around_log(float(logs.mean()), logs - logs.mean(), alpha)


def _around_log(middle: float, moved: Floats, alpha: float) -> Interval:
    """Return exp(middle ± t · error), the error being that of the mean of `moved` float[n], whose mean is 0."""
    n = int(moved.size)
    if n < 2:
        return Interval(math.exp(middle), math.nan, math.nan, n)
    error = math.sqrt(float(np.dot(moved, moved)) / (n * (n - 1.0)))
    reach = student_quantile(1.0 - alpha / 2.0, n - 1) * error
    return Interval(math.exp(middle), math.exp(middle - reach), math.exp(middle + reach), n)


def _amounts(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[Floats, Floats]:
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.ndim != 1 or one.shape != two.shape or not (np.isfinite(one).all() and np.isfinite(two).all()):
        raise BadNumbers("A ratio needs two columns of finite amounts of the same length.", mend="Pair them.")
    if (one < 0.0).any() or (two < 0.0).any():
        raise BadNumbers("An amount of money or time is not negative.", mend="Leave out what was not measured.")
    return one, two
