import numpy as np
import pytest
from scipy.stats import fisher_exact

from holdtrue.stats import BadNumbers, discoveries, lower_than_chance


def test_for_passes_and_failures_it_is_fishers_exact_test() -> None:
    rng = np.random.default_rng(0)
    passed = rng.random(80) < 0.7
    parts = [rng.random(80) < share for share in (0.1, 0.3, 0.6)]
    found = lower_than_chance(passed, parts, draws=20_000)
    for part, ours in zip(parts, found, strict=True):
        table = [[np.sum(passed & part), np.sum(~passed & part)], [np.sum(passed & ~part), np.sum(~passed & ~part)]]
        _, theirs = fisher_exact(table, alternative="less")
        assert ours == pytest.approx(theirs, abs=0.015)


def test_a_bad_part_is_found_and_parts_of_an_even_whole_are_not() -> None:
    rng = np.random.default_rng(1)
    topic = np.repeat(np.arange(10), 12)
    masks = [topic == each for each in range(10)]
    false = found = 0
    for run in range(100):
        even = rng.random(120) < 0.8
        false += discoveries(lower_than_chance(even, masks, draws=500, seed=run)).any()
        uneven = rng.random(120) < np.where(topic == 3, 0.2, 0.85)
        found += discoveries(lower_than_chance(uneven, masks, draws=500, seed=run))[3]
    assert false <= 5 + 4 * 2.2
    assert found > 80


def test_nothing_to_test_and_odd_input() -> None:
    assert lower_than_chance([1.0, 0.0], []).size == 0
    with pytest.raises(BadNumbers):
        lower_than_chance([1.0, 0.0], [np.zeros(2, dtype=bool)])
    with pytest.raises(BadNumbers):
        lower_than_chance([1.0, np.nan], [np.ones(2, dtype=bool)])
