"""What may be logged: a batch is read by columns as it is read one by one."""

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as some

from holdtrue.core.errors import InvalidInput
from holdtrue.tracking import Metric, rules

WHOLE = some.integers(-(1 << 70), 1 << 70)
PLAIN = some.fixed_dictionaries(
    {
        "key": some.sampled_from(["a", "loss/train", "β", "x" * 250]),
        "value": some.floats(allow_nan=False, allow_infinity=False) | some.integers(-5, 5),
        "timestamp": some.integers(0, (1 << 63) - 1),
    },
    optional={"step": some.integers(-(1 << 63), (1 << 63) - 1)},
)
ODD = some.fixed_dictionaries(
    {},
    optional={
        "key": some.sampled_from(["a", "a//b", "..", "", "x" * 251, 5, None, ["a"]]),
        "value": some.floats() | WHOLE | some.booleans() | some.sampled_from(["NaN", "1e400", "x", None, 10**400]),
        "timestamp": WHOLE | some.sampled_from(["5", 5.0, 5.5, None, True]),
        "step": WHOLE | some.sampled_from(["5", 5.0, None, False]),
    },
)


def one_by_one(items: list[dict[str, Any]]) -> tuple[Metric, ...]:
    """Read a batch in the plain way."""
    found: list[Metric] = []
    for place, each in enumerate(items):
        moment, step = each.get("timestamp", 0), each.get("step", 0)
        found.append(rules.metric(each.get("key"), each.get("value"), moment, step, f"metrics[{place}]."))
    return tuple(found)


def outcome(read: Callable[[list[dict[str, Any]]], tuple[Metric, ...]], items: list[dict[str, Any]]) -> Any:
    """Return what reading gives, or the words in which it is refused."""
    try:
        return read(items)
    except InvalidInput as refused:
        return str(refused)


@settings(deadline=None)
@given(some.lists(PLAIN, max_size=4))
def test_what_all_clients_send_is_read_by_columns_as_one_by_one(items: list[dict[str, Any]]) -> None:
    found = rules.metrics(items)
    assert found == one_by_one(items)
    assert all(type(each.value) is float for each in found)


@settings(deadline=None)
@given(some.lists(PLAIN | ODD, max_size=4))
def test_whatever_else_comes_is_read_or_refused_as_one_by_one(items: list[dict[str, Any]]) -> None:
    assert outcome(rules.metrics, items) == outcome(one_by_one, items)
