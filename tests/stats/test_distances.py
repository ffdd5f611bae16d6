import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp, wasserstein_distance

from holdtrue.stats import (
    BadNumbers,
    jensen_shannon,
    kolmogorov_smirnov,
    kolmogorov_smirnov_counts,
    psi,
    wasserstein,
    wasserstein_counts,
)
from holdtrue.stats.distances import counts

VALUES = st.lists(st.integers(-20, 20), min_size=2, max_size=60)
COUNTS = st.integers(2, 12).flatmap(
    lambda k: st.tuples(*[st.lists(st.integers(0, 50), min_size=k, max_size=k).filter(any)] * 2)
)


@settings(deadline=None)
@given(VALUES, VALUES)
def test_distances_of_values_are_those_of_scipy(first: list[int], second: list[int]) -> None:
    theirs: Any = ks_2samp(first, second, method="asymp")
    assert kolmogorov_smirnov(first, second) == pytest.approx(theirs.statistic, abs=1e-12)
    assert wasserstein(first, second) == pytest.approx(wasserstein_distance(first, second), abs=1e-9)


@settings(deadline=None)
@given(COUNTS)
def test_distances_of_counts_are_those_of_the_rows_they_count(pair: tuple[list[int], list[int]]) -> None:
    first, second = pair
    bins = np.arange(len(first))
    assert jensen_shannon(first, second) == pytest.approx(np.nan_to_num(jensenshannon(first, second, base=2)), abs=1e-7)
    rows = np.repeat(bins, first), np.repeat(bins, second)
    assert kolmogorov_smirnov_counts(first, second) == pytest.approx(kolmogorov_smirnov(*rows), abs=1e-12)
    assert wasserstein_counts(first, second, bins) == pytest.approx(wasserstein(*rows), abs=1e-9)


@settings(deadline=None)
@given(COUNTS)
def test_psi_is_its_definition_symmetric_and_zero_for_equals(pair: tuple[list[int], list[int]]) -> None:
    first, second = pair
    p = [(each + 0.5) / sum(value + 0.5 for value in first) for each in first]
    q = [(each + 0.5) / sum(value + 0.5 for value in second) for each in second]
    plain = sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))
    assert psi(first, second) == pytest.approx(plain, abs=1e-12)
    assert psi(second, first) == pytest.approx(psi(first, second))
    assert psi(first, first) == 0.0


def test_bins_count_every_finite_value() -> None:
    values = np.random.default_rng(0).normal(size=10_000)
    edges = np.quantile(values, np.linspace(0.1, 0.9, 9))
    assert counts(values, edges) == pytest.approx(np.full(10, 1000.0), abs=1.0)
    assert counts([np.nan, -np.inf, edges[0]], edges).sum() == 1.0
    assert counts([edges[0]], edges)[1] == 1.0


def test_bad_input_is_named() -> None:
    with pytest.raises(BadNumbers, match="different bins"):
        psi([1, 2], [1, 2, 3])
    with pytest.raises(BadNumbers, match="not all 0"):
        jensen_shannon([0, 0], [1, 2])
    with pytest.raises(BadNumbers, match="at least one finite value"):
        kolmogorov_smirnov([np.nan], [1.0])
    with pytest.raises(BadNumbers, match="rising order"):
        wasserstein_counts([1, 2], [2, 1], [1.0, 0.0])
