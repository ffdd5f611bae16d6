"""Counting and searching in windows: against the slow obvious answer, on many rows."""

import numpy as np
import pytest

from holdtrue.features.model import Aggregate
from holdtrue.features.windows import Windows, count_distinct, known_windows, last_known


@pytest.mark.parametrize("kinds", [1, 2, 7, 500])
def test_distinct_values_of_windows_are_those_of_looking(kinds: int) -> None:
    numbers = np.random.default_rng(kinds)
    entities = np.sort(numbers.integers(0, 5, 700))
    values = numbers.integers(0, kinds, 700).astype(float)
    bounds = np.searchsorted(entities, np.arange(6))
    entity = np.sort(numbers.integers(0, 5, 400))
    start = np.sort(bounds[entity] + (numbers.random(400) * (bounds[entity + 1] - bounds[entity])).astype(np.intp))
    end = np.minimum(start + numbers.integers(0, 90, 400), bounds[entity + 1])
    windows = Windows(values, entities, np.zeros(1, np.intp), start, start, end)
    expected = [len(set(values[low:high].tolist())) for low, high in zip(start, end, strict=True)]
    np.testing.assert_array_equal(windows.aggregate("distinct"), expected)


def test_no_rows_and_no_windows_have_nothing_distinct() -> None:
    nothing = np.empty(0, np.intp)
    assert count_distinct(nothing, nothing, nothing).tolist() == []
    zero = np.zeros(3, np.intp)
    assert count_distinct(nothing, zero, zero).tolist() == [0, 0, 0]


def test_the_last_row_known_is_that_of_looking() -> None:
    numbers = np.random.default_rng(1)
    created = numbers.integers(0, 1000, 900)
    first = numbers.integers(0, 900, 3000)
    found = np.minimum(first + numbers.integers(-1, 300, 3000), 899)
    asked = numbers.integers(-5, 60, 3000)
    expected = [
        next((place for place in range(high, low - 1, -1) if created[place] <= moment), low - 1)
        for low, high, moment in zip(first, found, asked, strict=True)
    ]
    np.testing.assert_array_equal(last_known(created, found, first, asked), expected)


def test_windows_with_rows_that_come_to_be_known_later_are_given_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    # In several groups, as many rows would be.
    monkeypatch.setattr("holdtrue.features.windows._AT_ONCE", 50)
    numbers = np.random.default_rng(2)
    values, created = numbers.normal(size=300), numbers.integers(0, 100, 300)
    start = np.sort(numbers.integers(0, 300, 80))
    end = np.minimum(start + numbers.integers(0, 30, 80), 300)
    asked = numbers.integers(0, 100, 80)
    windows = Windows(values, np.zeros(300, np.int64), np.zeros(1, np.intp), start, start, end)
    names: tuple[Aggregate, ...] = ("count", "sum", "last")
    columns = {name: windows.aggregate(name) for name in names}
    for queries, known in known_windows(windows, created, asked):
        for name in names:
            columns[name][queries] = known.aggregate(name)
    for place, (low, high, moment) in enumerate(zip(start, end, asked, strict=True)):
        mine = values[low:high][created[low:high] <= moment]
        assert columns["count"][place] == len(mine)
        if len(mine):
            assert columns["last"][place] == mine[-1]
            assert columns["sum"][place] == pytest.approx(mine.sum())
        else:
            assert np.isnan(columns["sum"][place])
