"""Rows by key: what is added, removed and changed, against a slow and plain comparison."""

from collections import Counter
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.data.comparing import row_changes, schema_changes
from holdtrue.data.profiling import profile_table
from holdtrue.data.versions import fragment_changes
from tests.sampling import examples

_rows = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.tuples(st.none() | st.integers(0, 2), st.none() | st.sampled_from([0.5, float("nan")])),
    max_size=8,
)


def _table(rows: dict[str, Any]) -> pa.Table:
    return pa.table(
        {
            "key": pa.array(list(rows), pa.string()),
            "KEY": pa.array([row[0] for row in rows.values()], pa.int64()),
            "c'\"": pa.array([row[1] for row in rows.values()], pa.float64()),
        }
    )


@settings(max_examples=examples(80), deadline=None)
@given(before=_rows, after=_rows)
def test_rows_are_told_apart_by_key(before: dict[str, Any], after: dict[str, Any]) -> None:
    found = row_changes(_table(before), _table(after), "key")
    assert found["added"]["rows"] == len(after.keys() - before.keys())
    assert found["removed"]["rows"] == len(before.keys() - after.keys())
    assert found["removed"]["examples"] == sorted(before.keys() - after.keys())[:3]
    both = before.keys() & after.keys()
    # repr: a NaN is the same as a NaN.
    changed = sorted(key for key in both if repr(before[key]) != repr(after[key]))
    assert found["changed"]["rows"] == len(changed)
    assert [each["key"] for each in found["changed"]["examples"]] == changed[:3]
    columns = Counter(
        name
        for key in both
        for name, a, b in zip(("KEY", "c'\""), before[key], after[key], strict=True)
        if repr(a) != repr(b)
    )
    assert found["changed"]["columns"] == columns
    assert found["doubled_keys"] == 0


def test_an_example_has_the_columns_that_differ_with_both_values() -> None:
    found = row_changes(_table({"a": (1, None)}), _table({"a": (2, None)}), "key")
    assert found["changed"]["examples"] == [{"key": "a", "columns": {"KEY": ["1", "2"]}}]


def test_rows_of_one_key_are_told_apart_by_their_order() -> None:
    before = pa.table({"k": ["a", "a", "b"], "v": [1, 2, 3]})
    after = pa.table({"k": ["a", "a", "a", "b"], "v": [1, 2, 9, 3]})
    found = row_changes(before, after, "k")
    assert (found["added"]["rows"], found["changed"]["rows"], found["doubled_keys"]) == (1, 0, 3)


def test_without_a_key_whole_rows_are_counted() -> None:
    before = pa.table({"a": [1, 1, 2]})
    after = pa.table({"a": [1, 3, 3]})
    found = row_changes(before, after, None)
    assert (found["added"]["rows"], found["removed"]["rows"]) == (2, 2)
    wider = row_changes(before, pa.table({"a": [1, 1, 2], "b": ["x", None, None]}), None)
    assert (wider["added"]["rows"], wider["removed"]["rows"]) == (1, 1)


def test_a_column_of_another_type_is_compared_as_text() -> None:
    found = row_changes(pa.table({"k": ["a", "b"], "v": [1, 2]}), pa.table({"k": ["a", "b"], "v": ["1", "far"]}), "k")
    assert found["changed"]["columns"] == {"v": 1}
    keys = row_changes(pa.table({"k": [1, 2]}), pa.table({"k": ["1", "x"]}), "k")
    assert (keys["added"]["rows"], keys["removed"]["rows"]) == (1, 1)


def test_columns_that_came_went_or_changed_are_named() -> None:
    before, after = profile_table(pa.table({"a": [1], "b": [1]})), profile_table(pa.table({"b": ["x"], "c": [1.5]}))
    changes = [(each["column"], each["change"]) for each in schema_changes(before, after)]
    assert changes == [("a", "removed"), ("b", "kind"), ("c", "added")]


def test_windows_are_compared_by_their_hashes() -> None:
    found = fragment_changes(
        {"1": {"digest": "a"}, "2": {"digest": "b"}, "3": {"digest": "c"}},
        {"2": {"digest": "b"}, "3": {"digest": "d"}, "4": {"digest": "e"}},
    )
    assert found == {"added": ["4"], "removed": ["1"], "changed": ["3"], "same": ["2"]}
