"""Contracts: one definition, one verdict on a table and on a request."""

import re
from math import inf, nan
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.core.codec import dump, load
from holdtrue.core.errors import ConfigurationError, InvalidInput
from holdtrue.data import Column, Contract, check_table, column
from holdtrue.data.checking import ARROW
from holdtrue.data.columns import Dtype
from holdtrue.data.online import compile_request
from tests.sampling import examples

MOMENT = pa.timestamp("us", "UTC")
WORDS = ["EWR", "ewr", "", "a'b", 'a"b', "ü", "x\n", "1٣", "x\0y", "JFK"]
PATTERNS = ["[A-Z]{3}", r"\d+", ".", "a.b", r"\w*", "(?i)EWR", "x$", "EWR|JFK", r"(?=E)\w+", r"\S"]

_bounds = st.one_of(st.none(), st.sampled_from([0, 1, 0.5, -1.5, 2.0**53, 1e30]))
_flags = st.booleans()
_DTYPES: tuple[Dtype, ...] = ("int64", "float64", "string", "bool", "timestamp")


@st.composite
def _columns(draw: st.DrawFn, name: str) -> Column:
    dtype: Dtype = draw(st.sampled_from(_DTYPES))
    rules: dict[str, Any] = {"nullable": draw(_flags), "unique": draw(_flags)}
    rules["severity"] = draw(st.sampled_from(["block", "quarantine", "warn"]))
    if dtype in ("int64", "float64"):
        ends = sorted(bound for bound in (draw(_bounds), draw(_bounds)) if bound is not None)
        rules |= dict(zip(draw(st.sampled_from([("ge", "le"), ("le", "ge")]))[: len(ends)], ends, strict=False))
        if "ge" in rules and "le" in rules:
            rules |= {"ge": ends[0], "le": ends[1]}
    elif dtype == "string":
        rules["isin"] = draw(st.none() | st.lists(st.sampled_from(WORDS), min_size=1))
        rules["pattern"] = draw(st.none() | st.sampled_from(PATTERNS))
    return column(name, dtype, **rules)


_whole = st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1))
_values: dict[str, st.SearchStrategy[Any]] = {
    "int64": _whole,
    "float64": st.one_of(st.floats(), st.sampled_from([nan, inf, -0.0, 0.0, 0.5, 1.0, 2.0**53]), _whole),
    "string": st.sampled_from(WORDS),
    "bool": st.booleans(),
    "timestamp": st.integers(-(2**50), 2**50),
}


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[Contract, dict[str, list[Any]]]:
    """Draw a contract, and rows that have its columns in its types."""
    contract = Contract(tuple(draw(_columns(name)) for name in ("a", "A", "row_number")[: draw(st.integers(1, 3))]))
    rows = draw(st.integers(0, 8))
    columns = {
        each.name: draw(st.lists(st.none() | _values[each.dtype], min_size=rows, max_size=rows))
        for each in contract.columns
    }
    return contract, columns


@settings(max_examples=examples(120), deadline=None)
@given(delivery=deliveries())
def test_a_table_and_a_request_get_the_same_verdict(delivery: tuple[Contract, dict[str, list[Any]]]) -> None:
    contract, columns = delivery
    report = check_table(contract, _table(contract, columns))
    requested = compile_request(contract)(columns)
    assert _verdict(report.findings) == _verdict(requested)
    for row in set(range(report.rows)):
        alone = compile_request(contract)({name: [values[row]] for name, values in columns.items()})
        kept_out = any(finding.severity == "quarantine" for finding in alone)
        if kept_out:
            assert row in report.quarantined
        elif not any(each.unique for each in contract.columns):
            assert row not in report.quarantined


@settings(max_examples=examples(120), deadline=None)
@given(delivery=deliveries())
def test_a_row_that_is_seen_to_be_sound_at_once_is_sound(delivery: tuple[Contract, dict[str, list[Any]]]) -> None:
    contract, columns = delivery
    check = compile_request(contract)
    unique = {each.name for each in contract.columns if each.unique}
    for row in range(len(next(iter(columns.values())))):
        # The same row twice is always looked at closely; what is broken there is the doubling, or the row.
        twice = check({name: [values[row]] * 2 for name, values in columns.items()})
        alone = check({name: [values[row]] for name, values in columns.items()})
        doubled = [each for each in twice if not (each.rule == "unique" and each.column in unique)]
        assert [(each.column, each.rule) for each in alone] == [(each.column, each.rule) for each in doubled]


@settings(max_examples=examples(40), deadline=None)
@given(delivery=deliveries())
def test_what_is_found_names_column_rule_number_examples_and_mend(
    delivery: tuple[Contract, dict[str, list[Any]]],
) -> None:
    contract, columns = delivery
    for finding in check_table(contract, _table(contract, columns)).findings:
        assert finding.column in columns
        assert finding.count >= 1
        assert finding.what.startswith(f"“{finding.column}”")
        assert finding.mend
        assert len(finding.examples) <= 3
        assert finding.examples or finding.rule == "null"


@settings(deadline=None)
@given(delivery=deliveries())
def test_the_json_form_gives_the_contract_back(delivery: tuple[Contract, dict[str, list[Any]]]) -> None:
    contract, _ = delivery
    assert load(Contract, dump(contract)) == contract


CONTRACT = Contract(
    (
        column("distance", "int64", ge=1, le=6000, severity="quarantine"),
        column("origin", "string", isin=["EWR", "JFK", "LGA"]),
        column("temperature", "float64", nullable=True, le=130, severity="warn"),
    )
)
GOOD = {"distance": [200, 300], "origin": ["EWR", "JFK"], "temperature": [None, 60.5]}


def test_a_good_delivery_passes_with_nothing_to_say() -> None:
    report = check_table(CONTRACT, pa.table(GOOD))
    assert report.passed
    assert report.findings == ()
    assert report.rows == 2


@pytest.mark.parametrize(
    ("change", "rule", "said"),
    [
        ({"distance": None}, "missing", "“distance” is missing"),
        ({"tail": ["N1", "N2"]}, "unknown", "“tail” is not in the contract"),
        ({"distance": [1.5, 2.0]}, "type", "is float64, and the contract says int64"),
        ({"distance": ["200 mi", "300"]}, "type", "is string, and the contract says int64"),
        ({"origin": [1, 2]}, "type", "is int64, and the contract says string"),
        ({"origin": [None, "EWR"]}, "null", "is missing in 1 row."),
        ({"origin": ["EWR", "BOS"]}, "isin", "is none of EWR, JFK, LGA in 1 row."),
        ({"distance": [0, 6001]}, "ge", "is below 1 in 1 row."),
        ({"temperature": [131.0, 200.0]}, "le", "is above 130 in 2 rows."),
    ],
)
def test_each_way_to_break_it_is_named(change: dict[str, Any], rule: str, said: str) -> None:
    columns = {name: values for name, values in {**GOOD, **change}.items() if values is not None}
    found = {finding.rule: finding for finding in check_table(CONTRACT, pa.table(columns)).findings}
    assert said in found[rule].what
    assert found[rule].mend
    if rule != "null":
        asked = compile_request(CONTRACT)(columns)
        assert rule in {finding.rule for finding in asked}


def test_values_that_cannot_be_read_as_agreed_are_counted_and_shown() -> None:
    columns = {**GOOD, "distance": ["200 mi", "300"]}
    found = check_table(CONTRACT, pa.table(columns)).findings[0]
    assert (found.count, found.examples) == (1, ("200 mi",))
    columns = {**GOOD, "distance": ["200", "300"]}
    found = check_table(CONTRACT, pa.table(columns)).findings[0]
    assert (found.count, found.examples) == (2, ("200", "300"))


def test_other_columns_are_checked_though_one_has_the_wrong_type() -> None:
    columns = {**GOOD, "distance": ["far", "near"], "origin": ["EWR", "BOS"]}
    found = check_table(CONTRACT, pa.table(columns)).findings
    assert [(finding.column, finding.rule) for finding in found] == [("distance", "type"), ("origin", "isin")]


def test_a_severity_says_what_a_broken_rule_does() -> None:
    report = check_table(CONTRACT, pa.table({**GOOD, "distance": [0, 300], "temperature": [131.0, 20.0]}))
    assert report.passed
    assert report.quarantined == (0,)
    assert {finding.severity for finding in report.findings} == {"quarantine", "warn"}
    assert not check_table(CONTRACT, pa.table({**GOOD, "origin": ["BOS", "EWR"]})).passed


def test_a_number_that_is_not_one_counts_as_missing() -> None:
    contract = Contract((column("f", "float64"),))
    finding = check_table(contract, pa.table({"f": [nan, 1.0]})).findings[0]
    assert (finding.rule, finding.count) == ("null", 1)
    assert check_table(Contract((column("f", "float64", nullable=True, ge=0),)), pa.table({"f": [nan]})).passed


def test_moments_need_a_time_zone() -> None:
    contract = Contract((column("at", "timestamp"),))
    naive = pa.table({"at": pa.array([1, 2], pa.timestamp("us"))})
    finding = check_table(contract, naive).findings[0]
    assert "timestamp without time zone" in finding.what
    for kind in (MOMENT, pa.timestamp("ns", "America/New_York"), pa.timestamp("s", "+05:30")):
        assert check_table(contract, pa.table({"at": pa.array([1, 2], kind)})).passed


@pytest.mark.parametrize(
    ("values", "fits"),
    [
        (pa.array([1, 2], pa.uint8()), True),
        (pa.array([1, 2], pa.uint64()), True),
        (pa.array([1, 2**63], pa.uint64()), False),
        (pa.array([None, None], pa.null()), True),
        (pa.array([1.0, None]), False),
        (pa.array([True, False]), False),
    ],
)
def test_whole_numbers_of_any_width_fit_int64(values: pa.Array, fits: bool) -> None:
    contract = Contract((column("n", "int64", nullable=True),))
    assert check_table(contract, pa.table({"n": values})).passed is fits


def test_two_columns_of_one_name_block() -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n"])
    report = check_table(Contract((column("n", "int64"),)), table)
    assert [finding.rule for finding in report.findings] == ["doubled"]


def test_encoded_texts_are_texts() -> None:
    contract = Contract((column("origin", "string", isin=["EWR"], pattern="[A-Z]+", unique=True),))
    pieces = pa.chunked_array([pa.array(["EWR"]).dictionary_encode(), pa.array(["b", None]).dictionary_encode()])
    found = check_table(contract, pa.table({"origin": pieces})).findings
    assert [(finding.rule, finding.count) for finding in found] == [("null", 1), ("isin", 1), ("pattern", 1)]


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(InvalidInput, match="int is not a table"):
        check_table(CONTRACT, 3)


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(InvalidInput, match="different lengths"):
        compile_request(CONTRACT)({**GOOD, "distance": [1]})


@pytest.mark.parametrize(
    ("rules", "word"),
    [
        ({"dtype": "string", "ge": 1}, "a range needs a number"),
        ({"dtype": "int64", "isin": ["a"]}, "needs a string"),
        ({"dtype": "int64", "ge": 2, "le": 1}, "from 2 to 1 is empty"),
        ({"dtype": "float64", "le": nan}, "finite"),
        ({"dtype": "float64", "ge": -inf}, "finite"),
        ({"dtype": "string", "isin": []}, "empty set"),
        ({"dtype": "string", "pattern": "["}, "not a regular expression"),
    ],
)
def test_a_contract_that_cannot_hold_is_refused(rules: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigurationError, match=f"(?i){re.escape(word)}"):
        Contract((column("c", **rules),))


def test_a_column_is_described_once() -> None:
    with pytest.raises(ConfigurationError, match="twice"):
        Contract((column("c", "int64"), column("c", "string")))


def _table(contract: Contract, columns: dict[str, list[Any]]) -> pa.Table:
    made = {
        each.name: pa.array([_stored(each, value) for value in columns[each.name]], ARROW[each.dtype])
        for each in contract.columns
    }
    return pa.table(made)


def _stored(column: Column, value: Any) -> Any:
    return float(value) if column.dtype == "float64" and value is not None else value


def _verdict(findings: Any) -> list[tuple[str, str, str, int]]:
    return sorted((each.column, each.rule, each.severity, each.count) for each in findings)
