"""Intervals for a share: Wilson's score interval and the exact one of Clopper and Pearson."""

import math

from holdtrue.stats import special
from holdtrue.stats.errors import BadNumbers
from holdtrue.stats.intervals import Interval, normal_quantile


def wilson(successes: float, n: int, alpha: float = 0.05) -> Interval:
    """Return the share of `successes` in `n` trials with Wilson's interval (1927); n = 0 gives [0, 1].

    `successes` may be the sum of `n` values from 0 to 1: their variance is at most that of zeros and ones with the
    same mean, so the interval is then wide enough or too wide.
    """
    _check(successes, n)
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0)
    z = normal_quantile(1.0 - alpha / 2.0)
    share = successes / n
    spread = 1.0 + z * z / n
    centre = (share + z * z / (2.0 * n)) / spread
    reach = z / spread * math.sqrt(share * (1.0 - share) / n + z * z / (4.0 * n * n))
    return Interval(share, max(0.0, centre - reach), min(1.0, centre + reach), n)


def clopper_pearson(successes: int, n: int, alpha: float = 0.05) -> Interval:
    """Return the share with the exact interval (1934), which never covers less than it claims."""
    _check(successes, n)
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0)
    lower = 0.0 if successes == 0 else float(special.betaincinv(successes, n - successes + 1, alpha / 2.0))
    upper = 1.0 if successes == n else float(special.betaincinv(successes + 1, n - successes, 1.0 - alpha / 2.0))
    return Interval(successes / n, lower, upper, n)


def _check(successes: float, n: int) -> None:
    if not 0 <= successes <= n:
        raise BadNumbers(f"{successes} of {n} is not a share.", mend="Give whole numbers with 0 ≤ successes ≤ trials.")
