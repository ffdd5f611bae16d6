from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.core.errors import InvalidInput, TooLarge
from holdtrue.serving.intake import MAX_ROWS, event_columns, label_columns
from holdtrue.serving.times import read_times

NOON = 1_362_139_200_000_000


def test_labels_as_objects_and_as_columns_are_the_same_records() -> None:
    labels = [
        {"key": "a", "value": 1, "time": "2013-03-01T12:00:00Z"},
        {"key": "b", "value": 0.5, "time": NOON},
    ]
    columns = {"key": ["a", "b"], "value": [1, 0.5], "time": [NOON, NOON]}
    one, rows = label_columns({"labels": labels}, "delay", 7)
    other, _ = label_columns({"columns": columns}, "delay", 7)
    assert one == other
    assert rows == 2
    assert one["time"] == [NOON, NOON]
    assert one["known_at"] == 7
    assert one["prediction_id"] == [None, None]


@given(
    st.lists(
        st.tuples(st.one_of(st.text(), st.integers(-(2**63), 2**64 - 1)), st.booleans(), st.integers(0, 2**52)),
        min_size=1,
        max_size=20,
    )
)
def test_a_label_is_named_by_what_it_says(said: list[tuple[Any, bool, int]]) -> None:
    labels = [{"key": key, "value": value, "time": time} for key, value, time in said]
    ids = label_columns({"labels": labels}, "delay", 0)[0]["id"]
    assert ids == label_columns({"labels": labels}, "delay", 99)[0]["id"]
    distinct = {(type(key), key, value, time) for key, value, time in said}
    assert len(set(ids)) == len(distinct)
    assert set(ids).isdisjoint(label_columns({"labels": labels}, "other", 0)[0]["id"])


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"labels": [], "columns": {}},
        {"labels": []},
        {"labels": {}},
        {"labels": [1]},
        {"labels": [{"value": 1}]},
        {"labels": [{"key": "a"}]},
        {"labels": [{"key": "a", "value": "yes"}]},
        {"labels": [{"key": "a", "value": None}]},
        {"labels": [{"key": "a", "value": [1]}]},
        {"labels": [{"key": "a", "value": 1, "weight": 2}]},
        {"labels": [{"prediction_id": 7, "value": 1}]},
        {"labels": [{"prediction_id": "", "value": 1}]},
        {"labels": [{"prediction_id": "prd_1", "key": "a", "value": 1}]},
        {"labels": [{"key": "a", "value": 1, "time": 1}, {"key": "b", "value": 1}]},
        {"labels": [{"key": "a", "value": 1, "id": "x"}, {"key": "b", "value": 1}]},
        {"labels": [{"key": "a", "value": 1, "time": "noon"}]},
        {"labels": [{"key": "a", "value": 1, "time": -5}]},
        {"labels": [{"key": "a", "value": 1, "id": 5}]},
        {"columns": {"key": ["a"], "value": [1, 2]}},
        {"columns": {"key": ["a"], "value": 1}},
        {"columns": {"key": [["a"]], "value": [1]}},
        {"columns": {"key": [], "value": []}},
        {"columns": {"key": ["a"], "value": [1], "extra": [1]}},
    ],
)
def test_labels_of_another_form_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        label_columns(body, "delay", 0)


@pytest.mark.parametrize("wrong", ["prd_1", f"prd_{1:031x}~rel_a", f"prd_{1:031X}"[:-1] + "G", 7, 0.5, True, ""])
def test_an_id_that_no_answer_has_is_refused_with_its_place(wrong: Any) -> None:
    good = f"prd_{1:031x}"
    assert (
        label_columns({"columns": {"prediction_id": [good, None], "key": [None, "a"], "value": [1, 0]}}, "s", 0)[1] == 2
    )
    for body in (
        {
            "labels": [
                {"key": "a", "value": 1},
                {"prediction_id": good, "value": 1},
                {"prediction_id": wrong, "value": 1},
            ]
        },
        {"columns": {"prediction_id": [good, good, wrong], "value": [1, 1, 1]}},
    ):
        with pytest.raises(InvalidInput, match="prediction_id of label 3") as refused:
            label_columns(body, "delay", 0)
        assert (refused.value.facts, bool(refused.value.why), bool(refused.value.mend)) == ({"position": 3}, True, True)


def test_too_many_rows_are_refused() -> None:
    with pytest.raises(TooLarge):
        label_columns({"columns": {"key": ["a"] * (MAX_ROWS + 1), "value": [1] * (MAX_ROWS + 1)}}, "delay", 0)


def test_events_keep_their_columns_and_get_id_and_time() -> None:
    columns = {"origin": ["EWR", "JFK"], "observed": ["2013-03-01T12:00:00Z", NOON + 1], "temp": [1.5, None]}
    record = event_columns(columns, 2, "weather", {"observed"}, 9)
    assert record["time"] == record["observed"] == [NOON, NOON + 1]
    assert record["temp"] == [1.5, None]
    assert len(set(record["id"])) == 2
    assert record["id"] == event_columns(columns, 2, "weather", {"observed"}, 10)["id"]
    assert record["id"] != event_columns(columns, 2, "other", {"observed"}, 9)["id"]
    assert event_columns({"a": [1]}, 1, "s", set(), 9)["time"] == [9]


def test_equal_events_of_one_request_are_several_events() -> None:
    once = event_columns({"a": [1, 1, 1.0]}, 3, "s", set(), 9)["id"]
    assert len(set(once)) == 3
    assert once == event_columns({"a": [1, 1, 1.0]}, 3, "s", set(), 9)["id"]


def test_events_without_the_moment_a_view_reads_are_refused() -> None:
    with pytest.raises(InvalidInput, match="observed"):
        event_columns({"temp": [1.0]}, 1, "weather", {"observed"}, 9)
    with pytest.raises(InvalidInput, match="observed"):
        event_columns({"observed": ["soon"]}, 1, "weather", {"observed"}, 9)


def test_moments_are_microseconds_or_text() -> None:
    texts = ["2013-03-01T12:00:00Z", "2013-03-01T12:00:00", "2013-03-01T07:00:00-05:00", "2013-03-01 12:00"]
    assert read_times("t", [*texts, NOON]) == [NOON] * 5
    for wrong in (True, 1.5, None, "", "12:00", -1, 2**60, [], "9999-12-31T23:59:59Z"):
        with pytest.raises(InvalidInput, match="'t'"):
            read_times("t", [wrong])
