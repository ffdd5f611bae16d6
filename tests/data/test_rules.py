"""Rules over several columns and over a delivery as a whole; conditions that SQL and Python judge alike."""

from datetime import UTC, datetime
from math import inf, nan
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue import data
from holdtrue.core.codec import dump, load
from holdtrue.core.errors import ConfigurationError, InvalidInput
from holdtrue.data import (
    Around,
    Contract,
    DatasetSpec,
    Distribution,
    Expect,
    Fresh,
    KeyInto,
    RowCount,
    Unique,
    check_table,
    column,
    look_around,
    profile_table,
)
from holdtrue.data.columns import Dtype
from holdtrue.data.expressions import compile_condition
from holdtrue.data.online import compile_request
from tests.data.conftest import Room
from tests.sampling import examples

MOMENT = pa.timestamp("us", "UTC")
COLUMNS = (
    column("n", "int64", nullable=True),
    column("f", "float64", nullable=True),
    column("s", "string", nullable=True),
    column("b", "bool", nullable=True),
    column("t", "timestamp", nullable=True),
    column("u", "timestamp", nullable=True),
)
TYPES: dict[str, Any] = {
    "n": pa.int64(),
    "f": pa.float64(),
    "s": pa.string(),
    "b": pa.bool_(),
    "t": MOMENT,
    "u": MOMENT,
}

_numbers = st.recursive(
    st.sampled_from(["n", "f", "0", "1", "2.5", "1e308", "9007199254740993", "length(s)", "(t - u)"]),
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), inner),
        st.builds("(-{})".format, inner),
        st.builds("abs({})".format, inner),
    ),
    max_leaves=4,
)
_signs = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
_conditions = st.recursive(
    st.one_of(
        st.builds("({} {} {})".format, _numbers, _signs, _numbers),
        st.builds("({} {} {} {} {})".format, _numbers, _signs, _numbers, _signs, _numbers),
        st.builds("(s {} '{}')".format, _signs, st.sampled_from(["EWR", "", "é", "a{{b"])),
        st.sampled_from(
            ["b", "True", "(b == False)", "missing(f)", "missing(s)", "(s in ['EWR', 'x'])", "(n not in [1, 2])"]
        ),
        st.builds("(t {} u + hours({}))".format, _signs, _numbers),
    ),
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("(not {})".format, inner),
    ),
    max_leaves=3,
)
_row = st.fixed_dictionaries(
    {
        "n": st.none() | st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1),
        "f": st.none() | st.floats() | st.sampled_from([nan, inf, -inf, -0.0, 0.0, 2.5]),
        "s": st.none() | st.sampled_from(["EWR", "", "é", "x", "a{b"]),
        "b": st.none() | st.booleans(),
        "t": st.none() | st.integers(-(2**40), 2**50),
        "u": st.none() | st.integers(0, 10) | st.integers(-(2**40), 2**50),
    }
)


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in TYPES.items()})


@settings(max_examples=examples(120), deadline=None)
@given(that=_conditions, rows=st.lists(_row, min_size=1, max_size=5), severity=st.sampled_from(["block", "quarantine"]))
def test_a_condition_is_judged_alike_of_a_table_and_of_a_request(that: str, rows: list[Any], severity: Any) -> None:
    contract = Contract(COLUMNS, (Expect("it", that, severity), Unique(("n", "s"), severity)))
    table = check_table(contract, _table(rows))
    asked = compile_request(contract)({name: [row[name] for row in rows] for name in TYPES})
    verdict = [(each.column, each.rule, each.severity, each.count) for each in table.findings]
    assert verdict == [(each.column, each.rule, each.severity, each.count) for each in asked]
    if severity == "quarantine":
        alone = Contract(COLUMNS, (Expect("it", that, severity),))
        bad = [place for place, row in enumerate(rows) if compile_request(alone)({name: [row[name]] for name in TYPES})]
        assert list(check_table(alone, _table(rows)).quarantined) == bad


@pytest.mark.parametrize(
    ("that", "row", "kept"),
    [
        ("n < f", {"n": 1, "f": 2.0}, True),
        ("n < f", {"n": 3, "f": 2.0}, False),
        ("n < f", {"n": 3, "f": nan}, True),  # unknown
        ("1 / n > 0", {"n": 0}, True),  # unknown
        ("missing(f) or f > n", {"f": None, "n": 1}, True),
        ("u <= t < u + hours(2)", {"t": 7_200_000_000, "u": 0}, False),
        ("s in ['EWR'] and length(s) == 3", {"s": "EWR"}, True),
        ("not b", {"b": True}, False),
        ("t - u <= days(1)", {"t": 86_400_000_000, "u": 0}, True),
    ],
)
def test_what_a_condition_means(that: str, row: dict[str, Any], kept: bool) -> None:
    dtypes: dict[str, Dtype] = {each.name: each.dtype for each in COLUMNS}
    condition = compile_condition(that, dtypes)
    assert (condition.value({**dict.fromkeys(TYPES), **row}) is not False) is kept


@pytest.mark.parametrize(
    ("that", "said"),
    [
        ("n <", "no expression"),
        ("m < 1", "no column “m”"),
        ("n + 1", "gives a number"),
        ("n < s", "number is not compared with a text"),
        ("t + u < t", "has no meaning"),
        ("n is None", "missing"),
        ("None == n", "missing"),
        ("__import__('os').system('x')", "not understood"),
        ("(lambda: True)()", "not understood"),
        ("n.real > 1", "not understood"),
        ("n ** 2 > 1", "not understood"),
        ("s in other", "brackets"),
        ("eval(s)", "eval"),
        ("b and n", "needs a truth"),
        ("n < 1" * 300, "characters"),
        ("+".join(["n"] * 200) + " < 1", "too long"),
    ],
)
def test_a_condition_that_cannot_be_used_is_refused_when_it_is_declared(that: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said.replace("(", r"\(")) as raised:
        Contract(COLUMNS, (Expect("it", that),))
    assert raised.value.mend


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Unique(("n",)), "two columns"),
        (Unique(("n", "z")), "no column “z”"),
        (KeyInto("z", "airports", "code"), "no column “z”"),
        (Fresh("n", "2d"), "only moments"),
        (Fresh("t", "two days"), "span of time"),
        (Fresh("t", "2d", "quarantine"), "as a whole"),
        (RowCount(), "a least or a largest"),
        (RowCount(5, 3), "a least or a largest"),
        (Distribution("f", 1.5), "between 0 and 1"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(rule: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Contract(COLUMNS, (rule,))


def test_each_rule_of_a_column_may_have_its_own_severity() -> None:
    lax = Contract((column("n", "int64", ge=0, le=9, severities={"le": "warn", "ge": "quarantine"}),))
    report = check_table(lax, pa.table({"n": [-1, 5, 10]}))
    assert report.passed
    assert report.quarantined == (0,)
    assert {each.rule: each.severity for each in report.findings} == {"ge": "quarantine", "le": "warn"}
    assert {each.rule: each.severity for each in compile_request(lax)({"n": [-1, 10]})} == {
        "ge": "quarantine",
        "le": "warn",
    }
    with pytest.raises(ConfigurationError, match="“biggest” is no rule"):
        Contract((column("n", "int64", severities={"biggest": "warn"}),))


def test_the_json_form_gives_the_rules_back() -> None:
    contract = Contract(
        COLUMNS,
        (
            Expect("order", "t >= u", "quarantine"),
            Unique(("n", "s"), "warn"),
            KeyInto("s", "airports", "code"),
            Fresh("t", "2d"),
            RowCount(ge=1),
            Distribution("f"),
        ),
    )
    assert load(Contract, dump(contract)) == contract


def test_a_finding_shows_the_values_that_broke_a_condition() -> None:
    contract = Contract(COLUMNS[:2], (Expect("n below f", "n < f"),))
    (found,) = check_table(contract, pa.table({"n": [1, 5], "f": [2.0, 3.0]})).findings
    assert found.what == "“n below f” does not hold in 1 row: n < f."
    assert found.examples == ("n 5, f 3.0",)
    (asked,) = compile_request(contract)({"n": [1, 5], "f": [2.0, 3.0]})
    assert asked == found


def test_keys_are_looked_up_in_another_dataset(room: Room) -> None:
    airports = DatasetSpec("airports", "code", "at", Contract((column("code", "string"), column("at", "timestamp"))))
    flights = DatasetSpec(
        "flights",
        "id",
        "at",
        Contract(
            (column("id", "string"), column("at", "timestamp"), column("origin", "string", nullable=True)),
            (KeyInto("origin", "airports", "code", "quarantine"),),
        ),
    )
    room.write(lambda tx: data.declare(tx, (airports, flights)))
    stores = (room.stores.blobs, room.stores.actions)
    now = datetime(2013, 4, 1, tzinfo=UTC)

    def fragments(name: str) -> Any:
        return room.read(lambda connection: data.fragments(connection, "flights", name))

    with pytest.raises(InvalidInput, match="no window of airports"):
        look_around(flights, "2013-01", now, stores, fragments)
    moments = pa.array([0, 1], MOMENT)
    result = data.ingest(room.stores.blobs, airports, "2013-01", pa.table({"code": ["EWR", "JFK"], "at": moments}))
    room.write(lambda tx: data.accept(tx, result))
    around = look_around(flights, "2013-01", now, stores, fragments)
    rows = pa.table({"id": ["a", "b", "c"], "at": pa.array([0, 1, 2], MOMENT), "origin": ["EWR", "LGA", None]})
    taken = data.ingest(room.stores.blobs, flights, "2013-01", rows, around)
    assert (taken.accepted, taken.quarantined) == (2, 1)
    assert taken.findings[0].what == "“origin” is not in “code” of airports in 1 row."
    assert taken.findings[0].examples == ("LGA",)
    with pytest.raises(InvalidInput, match="was not given"):
        check_table(flights.contract, rows)


def test_a_delivery_is_judged_as_a_whole() -> None:
    until = datetime(2013, 2, 1, tzinfo=UTC)
    end = int(until.timestamp() * 1e6)
    day = 86_400_000_000
    table = pa.table({"t": pa.array([end - 5 * day, end - 3 * day], MOMENT), "f": [1.0, 2.0]})
    columns = (column("t", "timestamp"), column("f", "float64"))

    def found(rule: Any, around: Around | None = None) -> list[str]:
        report = check_table(Contract(columns, (rule,)), table, around or Around(until))
        return [each.what for each in report.findings]

    assert found(RowCount(ge=2, le=2)) == []
    assert found(RowCount(ge=3)) == ["The delivery has 2 rows, fewer than 3."]
    assert found(RowCount(le=1)) == ["The delivery has 2 rows, more than 1."]
    assert found(Fresh("t", "3d")) == []
    assert "3.0 days before the end. At most 2d was agreed." in found(Fresh("t", "2d"))[0]
    assert found(Distribution("f")) == []
    before = profile_table(pa.table({"f": [float(each) for each in range(100, 900)]}))
    assert "distributed otherwise" in found(Distribution("f"), Around(until, before=before))[0]
    assert found(Distribution("f"), Around(until, before=profile_table(table))) == []
    with pytest.raises(InvalidInput, match="cannot be checked without"):
        found(Fresh("t", "2d"), Around())
    empty = check_table(Contract(columns, (Fresh("t", "2d"), RowCount(ge=1))), table.slice(0, 0), Around(until))
    assert [each.rule for each in empty.findings] == ["fresh", "rows"]


def test_a_request_keeps_the_rules_of_its_columns() -> None:
    contract = Contract(COLUMNS, (Expect("a", "n < f"), Expect("b", "t < u"), RowCount(ge=5)))
    only = contract.only(("f", "n"))
    assert [each.name for each in only.columns] == ["f", "n"]
    assert [rule.name for rule in only.rules if isinstance(rule, Expect)] == ["a"]
    assert compile_request(only)({"n": [1], "f": [2.0]}) == []
    # A column of another type is named; the condition over it is not asked.
    assert [each.rule for each in compile_request(only)({"n": ["x"], "f": [2.0]})] == ["type"]
