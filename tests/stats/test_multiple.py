import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from holdtrue.stats import BadNumbers, adjusted, discoveries


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_adjusted_values_are_those_of_scipy(values: list[float]) -> None:
    assert adjusted(values) == pytest.approx(false_discovery_control(values), abs=1e-12)


def test_the_share_of_false_discoveries_is_kept() -> None:
    rng = np.random.default_rng(0)
    runs, shares = 500, []
    for _ in range(runs):
        null = rng.random(80)
        real = rng.random(20) * 0.002
        found = discoveries(np.concatenate([null, real]), 0.1)
        shares.append(found[:80].sum() / max(found.sum(), 1))
    assert np.mean(shares) < 0.1 + 4 * np.std(shares) / np.sqrt(runs)
    assert np.mean(shares) > 0.05  # it is not merely silent


def test_no_tests_give_no_discoveries() -> None:
    assert discoveries([]).size == 0


@pytest.mark.parametrize("values", [[1.2], [-0.1], [np.nan]])
def test_what_is_no_probability_is_refused(values: list[float]) -> None:
    with pytest.raises(BadNumbers, match="p-value"):
        adjusted(values)
