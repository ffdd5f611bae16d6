import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from holdtrue.stats import BadNumbers, clopper_pearson, wilson

SHARES = st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@settings(deadline=None)
@given(SHARES, st.sampled_from([0.01, 0.05, 0.2]))
def test_both_intervals_are_those_of_scipy(share: tuple[int, int], alpha: float) -> None:
    successes, n = share
    test = binomtest(successes, n)
    for ours, method in ((wilson, "wilson"), (clopper_pearson, "exact")):
        theirs = test.proportion_ci(1 - alpha, method=method)
        found = ours(successes, n, alpha)
        assert (found.lower, found.upper) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
        assert found.value == successes / n


def test_the_exact_interval_never_covers_less_than_it_says() -> None:
    n = 40
    for truth in np.linspace(0.01, 0.99, 50):
        chance = sum(
            binomial(n, k, truth)
            for k in range(n + 1)
            if clopper_pearson(k, n).lower <= truth <= clopper_pearson(k, n).upper
        )
        assert chance >= 0.95 - 1e-9


def binomial(n: int, k: int, p: float) -> float:
    from math import comb

    return comb(n, k) * p**k * (1 - p) ** (n - k)


def test_nothing_observed_says_nothing() -> None:
    assert (wilson(0, 0).lower, wilson(0, 0).upper) == (0.0, 1.0)
    assert (clopper_pearson(0, 0).lower, clopper_pearson(0, 0).upper) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5)])
def test_impossible_shares_are_refused(successes: int, n: int) -> None:
    with pytest.raises(BadNumbers, match="not a share"):
        wilson(successes, n)
