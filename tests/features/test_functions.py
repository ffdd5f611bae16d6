"""Feature functions: what NumPy gives, the same on both sides, and nothing but arithmetic in their texts."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.core.errors import ConfigurationError, InvalidInput
from holdtrue.features import Computed, FeatureSet, on_demand
from holdtrue.features.functions import compile_function, request_column

HOUR = 3_600_000_000
HALF = 0.5


def speed(distance: Any, minutes: Any) -> Any:
    """Miles an hour."""
    hours = minutes / 60  # a comment
    return np.where(hours > 0, distance / hours, np.nan)


def wave(asked_at: Any) -> Any:
    return np.sin(2 * np.pi * (asked_at % (24 * HOUR)) / (24 * HOUR)) * HALF


def far(distance: Any, minutes: Any) -> Any:
    return (distance > 1000) & ~(minutes <= 90) | np.isnan(distance)


def mixed(distance: Any, minutes: Any) -> Any:
    root = np.sqrt(np.abs(distance))
    return -root + np.clip(minutes, 0, 100) // 7 - np.hypot(distance, 3) ** 0.25 + np.log1p(np.maximum(distance, 0))


def small(carrier: Any) -> Any:
    return np.isin(carrier, ["OO", "HA"]) | (carrier == "F9")


def other(carrier: Any) -> Any:
    return np.where(carrier != "UA", 1, 0)


FUNCTIONS: tuple[Callable[..., Any], ...] = (speed, wave, far, mixed, small, other)
MADE = tuple(map(on_demand, FUNCTIONS))

_requests = st.lists(
    st.fixed_dictionaries(
        {
            "distance": st.one_of(st.integers(-(2**62), 2**62), st.floats(-1e9, 1e9), st.none()),
            "minutes": st.one_of(st.floats(), st.none()),
            "asked_at": st.one_of(st.integers(-(10**15), 4 * 10**15), st.none()),
            "carrier": st.sampled_from(["UA", "OO", "HA", "F9", "", None]),
        }
    ),
    min_size=1,
    max_size=40,
)


@settings(deadline=None)
@given(rows=_requests)
def test_a_request_a_table_and_the_function_itself_give_the_same(rows: list[dict[str, Any]]) -> None:
    request: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in rows[0]}
    features = FeatureSet((), (), {}, MADE)
    online = features.assemble(request, {})
    moments = pa.array(request["asked_at"], pa.timestamp("us", "UTC"))
    floats = [None if value is None else float(value) for value in request["distance"]]
    table = pa.table({**request, "distance": pa.array(floats, pa.float64()), "asked_at": moments})
    assert features.assemble_table(table).tobytes() == online.tobytes()
    columns = {name: request_column(values) for name, values in request.items()}
    for place, (function, made) in enumerate(zip(FUNCTIONS, MADE, strict=True)):
        if made.inputs == ("carrier",) and columns["carrier"].dtype.kind != "O":
            continue  # no text at all: NumPy compares numbers with texts in its own way
        with np.errstate(all="ignore"):
            expected = np.asarray(function(*(columns[name] for name in made.inputs)), np.float64).astype(np.float32)
        np.testing.assert_array_equal(online[:, place], expected, err_msg=made.name)


def test_each_row_alone_has_the_value_it_has_among_others() -> None:
    numbers = np.random.default_rng(1)
    features = FeatureSet((), (), {}, MADE[:4])
    request = {name: (numbers.normal(size=64) * 1e4).tolist() for name in ("distance", "minutes", "asked_at")}
    together = features.assemble(request, {})
    for row in range(64):
        alone = features.assemble({name: [values[row]] for name, values in request.items()}, {})
        assert alone.tobytes() == together[row : row + 1].tobytes()


def test_the_text_is_what_is_computed_and_nothing_of_its_layout() -> None:
    assert MADE[0] == Computed(
        "speed",
        ("distance", "minutes"),
        "def speed(distance, minutes):\n    hours = minutes / 60\n"
        "    return np.where(hours > 0, distance / hours, np.nan)",
    )
    # Constants of the file stand with their values, so that a changed one is another feature.
    assert "24 * 3600000000" in MADE[1].source
    assert "0.5" in MADE[1].source
    content = FeatureSet((), (), {}, MADE).to_json()
    assert FeatureSet.from_json(content) == FeatureSet((), (), {}, MADE)
    assert "functions" not in FeatureSet((), (), {}).to_json()


def test_names_and_inputs_stand_between_expressions_and_views() -> None:
    features = FeatureSet((), (), {}, MADE[:2])
    assert features.names == ("speed", "wave")
    assert features.inputs == ("distance", "minutes", "asked_at")
    with pytest.raises(ConfigurationError, match="speed"):
        FeatureSet((), (), {}, (MADE[0], MADE[0]))
    with pytest.raises(InvalidInput, match="minutes"):
        features.assemble_table(pa.table({"distance": [1.0], "asked_at": [5]}))


def test_a_constant_is_one_value_for_every_row() -> None:
    made = Computed("one", ("a",), "def one(a):\n    return 1")
    assert FeatureSet((), (), {}, (made,)).assemble({"a": [5, 6, None]}, {}).tolist() == [[1], [1], [1]]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("return __import__('os').system('true')", "system"),
        ("return a.__class__", "__class__"),
        ("return np.load('file')", "load"),
        ("return np.core", "core"),
        ("return np.frompyfunc(a, 1, 1)", "frompyfunc"),
        ("return np.sqrt(a, out=a)", "out=a"),
        ("return np.add.reduce(a)", "reduce"),
        ("return open('file')", "open"),
        ("return [each for each in a]", "each"),
        ("return (lambda: a)()", "lambda"),
        ("return a if a > 1 else 0", "np.where"),
        ("return a > 1 and a < 3", "&"),
        ("return 1 < a < 3", "1 < a < 3"),
        ("return not a", "~"),
        ("return a in [1, 2]", "np.isin"),
        ("return np.isin(a, a)", "list"),
        ("return 'x' * 10 ** 9", "'x'"),
        ("return a < 'x'", "equal"),
        ("return b", "parameter"),
        ("return a[0]", "a[0]"),
        ("return f'{a}'", "a"),
        ("import os\n    return a", "import os"),
        ("global a\n    return a", "global"),
        ("a, b = a\n    return a", "assignments"),
        ("a.x = 1\n    return a", "assignments"),
        ("return a\n    return a", "after"),
        ("if a > 1:\n        return a\n    return 0", "np.where"),
        ("b = a", "return"),
        ("return " + "+".join(["a"] * 300), "parts"),
        ("return " + "-" * 190 + "a" + " " * 9900, "longer"),
        ("return " + "(" * 300 + "a" + ")" * 300, "no function"),
    ],
)
def test_what_is_no_arithmetic_is_refused_and_never_run(body: str, word: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        compile_function(Computed("f", ("a",), f"def f(a):\n    {body}"))
    assert word in f"{caught.value.why} {caught.value.mend}"


@pytest.mark.parametrize(
    "source",
    [
        "def f(b):\n    return b",
        "def g(a):\n    return a",
        "def f(a, *b):\n    return a",
        "def f(a=1):\n    return a",
        "@property\ndef f(a):\n    return a",
        "f = 1",
        "def f(a):\n    return a\nf(1)",
        "def f(a",
        "",
    ],
)
def test_a_text_that_is_not_the_function_it_is_said_to_be_is_refused(source: str) -> None:
    with pytest.raises(ConfigurationError, match="“f”"):
        FeatureSet((), (), {}, (Computed("f", ("a",), source),))


def test_the_longest_chain_that_is_taken_can_be_computed() -> None:
    made = Computed("f", ("a",), "def f(a):\n    return " + "-" * 180 + "a")
    assert compile_function(made)({"a": np.ones(2)}, 2).tolist() == [1.0, 1.0]


def test_nothing_is_executed_while_a_text_is_compiled_and_computed() -> None:
    events: list[str] = []
    hearing = [True]
    sys.addaudithook(lambda event, _: events.append(event) if hearing[0] else None)
    function = compile_function(MADE[3])
    function({"distance": np.ones(3), "minutes": np.ones(3)}, 3)
    hearing[0] = False
    assert not {"exec", "import", "open", "marshal.loads"} & set(events)
    assert "compile" in events  # of the text to a tree, by ast.parse


def test_a_text_where_a_number_is_needed_names_the_feature() -> None:
    with pytest.raises(InvalidInput, match=r"speed.*fast"):
        FeatureSet((), (), {}, MADE[:1]).assemble({"distance": [1, "fast"], "minutes": [1, 2]}, {})


def test_what_is_no_function_in_a_file_cannot_be_a_feature() -> None:
    with pytest.raises(ConfigurationError, match="source"):
        on_demand(len)
    with pytest.raises(ConfigurationError, match="function"):
        on_demand(lambda a: a)
