"""Differences between JSON values, by path."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.catalog.rules import MOST_DIFFERENCES, differences

SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([0.5, 1.0, -0.0]) | st.text(max_size=3)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


def found(before: Any, after: Any) -> list[tuple[str, str, Any, Any]]:
    return [(one.path, one.kind, one.before, one.after) for one in differences(before, after)[0]]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (1, 2, [("$", "changed", 1, 2)]),
        (1, True, [("$", "changed", 1, True)]),
        ({"a": 1}, {"a": 1, "b": 2}, [("b", "added", None, 2)]),
        ({"a": {"b": 1}}, {"a": {}}, [("a.b", "removed", 1, None)]),
        ({"a": None}, {}, [("a", "removed", None, None)]),
        ({"a b": 1}, {"a b": 2}, [("['a b']", "changed", 1, 2)]),
        ({"x": ["a", "b", "c"]}, {"x": ["a", "n", "b", "c"]}, [("x[1]", "added", None, "n")]),
        ({"x": ["a", "b", "c"]}, {"x": ["a", "c"]}, [("x[1]", "removed", "b", None)]),
        ({"x": [1, 2]}, {"x": [1, 3]}, [("x[1]", "changed", 2, 3)]),
        ({"x": [[1], [2]]}, {"x": [[1], [3], [4]]}, [("x[1][0]", "changed", 2, 3), ("x[2]", "added", None, [4])]),
        (
            {"c": [{"name": "a", "n": 1}, {"name": "b"}]},
            {"c": [{"name": "b"}, {"name": "a", "n": 2}]},
            [("c[name=a].n", "changed", 1, 2), ("c[order]", "changed", ["a", "b"], ["b", "a"])],
        ),
        (
            {"c": [{"name": "a"}, {"name": "a"}]},
            {"c": [{"name": "a"}, {"name": "b"}]},
            [("c[1].name", "changed", "a", "b")],
        ),
        ({"x": {}}, {"x": []}, [("x", "changed", {}, [])]),
    ],
)
def test_a_difference_has_a_path(before: Any, after: Any, expected: list[Any]) -> None:
    assert found(before, after) == expected


@given(JSON)
def test_a_value_does_not_differ_from_itself(value: Any) -> None:
    assert differences(value, value) == ([], False)


@given(JSON, JSON)
def test_different_values_have_differences_and_both_ways_mirror(before: Any, after: Any) -> None:
    mirrored = {"added": "removed", "removed": "added", "changed": "changed"}
    there, back = found(before, after), found(after, before)
    assert bool(there) == (not same(before, after))
    assert bool(back) == bool(there)
    assert {mirrored[kind] for _, kind, _, _ in there} == {kind for _, kind, _, _ in back} or has_lists(before)


def same(before: Any, after: Any) -> bool:
    """Compare as JSON: true is not 1."""
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(same(before[key], after[key]) for key in before)
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(map(same, before, after))
    return type(before) is type(after) and before == after


def has_lists(value: Any) -> bool:
    """Tell whether alignment of lists may choose another pairing backwards."""
    if isinstance(value, dict):
        return any(has_lists(item) for item in value.values())
    return isinstance(value, list)


def test_very_many_differences_are_cut_and_said_to_be() -> None:
    before = {str(number): number for number in range(MOST_DIFFERENCES + 1)}
    cut, truncated = differences(before, {})
    assert truncated
    assert len(cut) == MOST_DIFFERENCES
    _, truncated = differences({str(number): number for number in range(MOST_DIFFERENCES)}, {})
    assert not truncated
