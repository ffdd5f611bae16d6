from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.core.errors import Corrupt
from holdtrue.monitoring.scored import (
    DayScores,
    Labels,
    add,
    apply,
    empty_day,
    hashes,
    in_order,
    joined_days,
    unpack,
    unpack_labels,
)

NAMES = st.sampled_from(["a", "b", "c", "d", "e", None])
LabelRow = tuple[str | None, str | None, float, int]
LABEL = st.tuples(NAMES, NAMES, st.sampled_from([0.0, 1.0]), st.integers(1, 4))


def day_of(keys: list[str | None], ids: list[str]) -> DayScores:
    return add(empty_day(), hashes(ids), hashes(keys), np.linspace(0, 1, len(ids)).astype(np.float32))


def labels_of(rows: list[LabelRow]) -> Labels:
    return in_order(
        [
            Labels(
                hashes([row[0] for row in rows]),
                hashes([row[1] for row in rows]),
                np.array([row[2] for row in rows], np.float32),
                np.array([row[3] for row in rows], np.int64),
            )
        ]
    )


@settings(deadline=None)
@given(st.lists(LABEL, max_size=12), st.integers(0, 12))
def test_the_label_known_last_wins_however_labels_come_in(rows: list[LabelRow], cut: int) -> None:
    ids = [f"p{number}" for number in range(4)]
    keys = ["a", "b", None, "d"]
    # A prediction is named by its key in half of the labels and by its id in the others.
    rows = [(key, None if name is None else f"p{ord(name) - 97}", value, time) for key, name, value, time in rows]
    expected: dict[str, set[float]] = {}
    for prediction, key in zip(ids, keys, strict=True):
        mine = [row for row in rows if row[1] == prediction or (row[0] == key and key is not None)]
        if mine:
            last = max(row[3] for row in mine)
            expected[prediction] = {row[2] for row in mine if row[3] == last}
    at_once, _ = apply(day_of(keys, ids), labels_of(rows))
    parts, _ = apply(day_of(keys, ids), labels_of(rows[cut:]))
    parts, _ = apply(parts, labels_of(rows[:cut]))
    for number, prediction in enumerate(ids):
        for found in (at_once.labels[number], parts.labels[number]):
            assert (prediction not in expected) == bool(np.isnan(found))
            if prediction in expected:
                assert float(found) in expected[prediction]


def test_labels_say_which_of_them_found_a_prediction() -> None:
    _, found = apply(
        day_of(["a", "b"], ["p0", "p1"]), labels_of([("a", None, 1, 1), ("x", None, 0, 2), (None, "p1", 1, 3)])
    )
    assert found.tolist() == [True, False, True]


def test_repeated_labels_are_no_corrections_and_changed_ones_are() -> None:
    day, _ = apply(day_of(["a"], ["p0"]), labels_of([("a", None, 1, 1), ("a", None, 1, 2)]))
    assert (day.labels.tolist(), day.corrected) == ([1.0], 0)
    day, _ = apply(day, labels_of([("a", None, 0, 3)]))
    assert (day.labels.tolist(), day.corrected) == ([0.0], 1)
    older, _ = apply(day, labels_of([("a", None, 1, 2)]))
    assert (older.labels.tolist(), older.corrected) == ([0.0], 1)


def test_predictions_that_come_again_are_left_out() -> None:
    day = day_of(["a", "b"], ["p0", "p1"])
    again = add(day, hashes(["p1", "p2", "p2"]), hashes(["b", "c", "c"]), np.zeros(3, np.float32))
    assert again.n == 3
    assert again.scores[:2].tolist() == day.scores.tolist()


def test_null_keys_never_match() -> None:
    day, found = apply(day_of([None, "b"], ["p0", "p1"]), labels_of([(None, None, 1, 1)]))
    assert not found.any()
    assert np.isnan(day.labels).all()


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, st.floats(0, 1, width=32)), max_size=20), st.lists(LABEL, max_size=20))
def test_packing_and_unpacking_keeps_everything(
    predictions: list[tuple[str | None, float]], rows: list[LabelRow]
) -> None:
    day = add(
        empty_day(),
        hashes(range(len(predictions))),
        hashes([key for key, _ in predictions]),
        np.array([score for _, score in predictions], np.float32),
    )
    labels = labels_of(rows)
    day, _ = apply(day, labels)
    assert unpack(day.pack()).pack() == day.pack()
    assert unpack_labels(labels.pack()).pack() == labels.pack()
    assert joined_days([day, empty_day()]).pack() == day.pack()


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"x" + data[1:], lambda data: b""])
def test_damaged_bytes_are_not_taken_for_scores(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(Corrupt, match="damaged"):
        unpack(damage(day_of(["a"], ["p0"]).pack()))


def test_hashes_differ_and_zero_means_none() -> None:
    made = hashes([None, "a", "b", "a", 7, "7"])
    assert made[0] == 0
    assert made[1] == made[3] != made[2]
    assert made[4] == made[5]
