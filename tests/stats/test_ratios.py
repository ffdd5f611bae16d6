import math

import numpy as np
import pytest
from scipy.stats import bootstrap, ttest_1samp

from holdtrue.stats import BadNumbers, ratio_of_means, typical_ratio


def test_a_ratio_of_means_is_covered_by_its_interval() -> None:
    rng = np.random.default_rng(0)
    runs, covered = 500, 0
    for _ in range(runs):
        size = rng.lognormal(0.0, 0.8, 40)
        found = ratio_of_means(size * rng.lognormal(0, 0.2, 40), 1.5 * size * rng.lognormal(0, 0.2, 40))
        covered += found.lower <= 1.5 <= found.upper
    assert covered / runs > 0.95 - 4 * math.sqrt(0.95 * 0.05 / runs)


def test_its_interval_is_about_that_of_scipys_bootstrap() -> None:
    rng = np.random.default_rng(1)
    one = rng.lognormal(0.0, 0.7, 200)
    two = one * rng.lognormal(0.2, 0.3, 200)
    found = ratio_of_means(one, two)
    theirs = bootstrap(
        (one, two), lambda a, b, axis=-1: b.mean(axis) / a.mean(axis), paired=True, rng=np.random.default_rng(2)
    ).confidence_interval
    assert (found.lower, found.upper) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert found.value == pytest.approx(two.mean() / one.mean())


def test_a_typical_ratio_is_students_interval_on_logarithms() -> None:
    rng = np.random.default_rng(3)
    one = rng.lognormal(0.0, 1.0, 30)
    two = one * rng.lognormal(0.1, 0.2, 30)
    found = typical_ratio(one, two)
    theirs = ttest_1samp(np.log(two / one), 0.0).confidence_interval()
    assert (found.lower, found.upper) == pytest.approx((math.exp(theirs.low), math.exp(theirs.high)))
    with_zero = typical_ratio(np.append(one, 0.0), np.append(two, 5.0))
    assert with_zero == found


def test_what_costs_nothing_has_no_ratio() -> None:
    assert math.isnan(ratio_of_means([0.0, 0.0], [1.0, 2.0]).value)
    assert math.isnan(ratio_of_means([], []).value)
    assert math.isnan(typical_ratio([0.0], [1.0]).value)
    single = ratio_of_means([2.0], [3.0])
    assert single.value == pytest.approx(1.5)
    assert math.isnan(single.lower)
    for wrong in ([-1.0], [math.nan]):
        with pytest.raises(BadNumbers):
            ratio_of_means([1.0], wrong)
    with pytest.raises(BadNumbers):
        ratio_of_means([1.0], [1.0, 2.0])
