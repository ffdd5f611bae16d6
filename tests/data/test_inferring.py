"""Contracts inferred from rows, written as documents of the open standard and back, and compared."""

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings

from holdtrue.core.errors import ConfigurationError, InvalidInput
from holdtrue.data import (
    Column,
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
    contract_changes,
    from_odcs,
    infer,
    to_odcs,
)
from holdtrue.data.inferring import as_python
from tests.data.test_contract import deliveries
from tests.sampling import examples

MOMENT = pa.timestamp("us", "UTC")
ROWS = pa.table(
    {
        "id": [f"AB{each:04d}" for each in range(400)],
        "origin": ["EWR", "JFK", "LGA", "EWR"] * 100,
        "delay": pa.array([-1.5, None, 3.0, 4.0] * 100),
        "distance": pa.array(range(17, 417), pa.int64()),
        "tail": [f"N{each % 90:02d}{'AB'[each % 2]}" for each in range(400)],
        "free": [f"text {'x' * (each % 3)} {each % 70}!" for each in range(400)],
        "at": pa.array(range(400), MOMENT),
        "naive": pa.array(range(400), pa.timestamp("us")),
        "list": [[1]] * 400,
    }
)


def test_a_contract_is_what_the_rows_keep() -> None:
    found = infer(ROWS)
    columns = {each.name: each for each in found.contract.columns}
    assert columns["id"] == Column("id", "string", pattern="[A-Z]{2}[0-9]{4}", unique=True)
    assert columns["origin"] == Column("origin", "string", isin=("EWR", "JFK", "LGA"))
    assert columns["delay"] == Column("delay", "float64", nullable=True)
    assert columns["distance"] == Column("distance", "int64", ge=0, unique=True)
    assert columns["tail"].pattern == "[A-Z][0-9]{2}[A-Z]"
    assert columns["free"].pattern is None
    assert (found.key, found.time) == ("id", "at")
    assert set(found.left_out) == {"naive", "list"}
    assert "time zone" in found.left_out["naive"]
    kept = ROWS.select(list(columns))
    assert check_table(found.contract, kept).findings == ()


def test_the_python_that_is_written_is_the_contract() -> None:
    import holdtrue as ht

    found = infer(ROWS)
    text = as_python(found)
    assert "seen 17 … 416" in text
    assert eval(f"dict({text})", {"ht": ht}) == {  # noqa: S307  # the text of a project file, made above
        "key": "id",
        "time": "at",
        "contract": found.contract,
    }


def test_no_rows_and_no_columns_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no rows"):
        infer(ROWS.slice(0, 0))
    with pytest.raises(InvalidInput, match="No column"):
        infer(ROWS.select(["list"]))


FULL = DatasetSpec(
    "flights",
    "id",
    "at",
    Contract(
        (
            column("id", "string", unique=True, pattern="[A-Z]: \"'#"),
            column("at", "timestamp"),
            column("origin", "string", isin=["no", "1", "EWR: x"], severity="quarantine"),
            column("n", "int64", nullable=True, ge=0, le=1e15, severities={"le": "warn"}),
            column("f", "float64", ge=-0.5),
            column("b", "bool", nullable=True),
        ),
        (
            Expect("order", "n >= f or missing(n)", "quarantine"),
            Unique(("id", "origin"), "warn"),
            KeyInto("origin", "airports", "code", "quarantine"),
            Fresh("at", "36h", "warn"),
            RowCount(ge=1, le=10),
            Distribution("f", 0.3, "warn"),
        ),
    ),
)


def _sets(spec: DatasetSpec) -> Any:
    return (spec.name, spec.key, spec.time, spec.contract.columns, sorted(spec.contract.rules, key=repr))


def test_a_document_of_the_standard_keeps_everything() -> None:
    text = to_odcs(FULL)
    assert _sets(from_odcs(text)) == _sets(FULL)
    document = yaml.safe_load(text)
    assert document["apiVersion"] == "v3.1.0"
    assert document["schema"][0]["properties"][2]["quality"][0]["arguments"]["validValues"] == ["no", "1", "EWR: x"]


@settings(max_examples=examples(60), deadline=None)
@given(delivery=deliveries())
def test_any_contract_comes_back_from_its_document(delivery: tuple[Contract, Any]) -> None:
    contract, _ = delivery
    spec = DatasetSpec("d", contract.columns[0].name, "", contract)
    assert from_odcs(to_odcs(spec)).contract.columns == tuple(
        # The key of a document is unique there, too.
        replace(each, unique=each.unique or each.name == spec.key)
        for each in contract.columns
    )


HEAD = "apiVersion: v3.1.0\nkind: DataContract\nid: x\nstatus: active\nversion: 1.0.0\n"


def test_a_document_that_somebody_else_wrote_is_read() -> None:
    spec = from_odcs(
        HEAD
        + """
schema:
  - name: customers
    properties:
      - name: customer_id
        logicalType: string
        primaryKey: true
        required: true
        quality:
          - {name: u, type: library, metric: duplicateValues, mustBe: 0, severity: high}
      - name: age
        logicalType: integer
        logicalTypeOptions: {minimum: 0, maximum: 150}
        quality:
          - {type: text, description: the age at signing}
    quality:
      - {metric: rowCount, mustBeGreaterThan: 0}
"""
    )
    assert (spec.name, spec.key) == ("customers", "customer_id")
    assert spec.contract.columns[1] == Column("age", "int64", nullable=True, ge=0, le=150)
    assert spec.contract.rules == (RowCount(ge=1),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "no YAML"),
        ("{bad", "no JSON"),
        ("kind: Other", "no data contract"),
        (HEAD, "0 tables"),
        (HEAD + "schema: [{name: a}, {name: b}]", "2 tables: a, b"),
        (HEAD + "schema: [{name: a, properties: [{name: x, logicalType: array}]}]", "of the type “array”"),
        (
            HEAD + "schema: [{name: a, properties: [{name: x, logicalType: integer, quality: [{metric: rowCount}]}]}]",
            "quality “rowCount”",
        ),
        (
            HEAD
            + "schema: [{name: a, properties: [{name: x, logicalType: number, logicalTypeOptions: {minimum: [1]}}]}]",
            "minimum",
        ),
        (HEAD + "schema: [{name: a, properties: [], quality: [{type: sql, query: SELECT 1}]}]", "quality “sql”"),
        (
            HEAD
            + "schema: [{name: a, properties: [{name: x, logicalType: string, logicalTypeOptions: {minLength: 2}}]}]",
            "option “minLength”",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        from_odcs(text)


def _one(**rules: Any) -> Contract:
    return Contract((column("a", rules.pop("dtype", "float64"), **rules),))


@pytest.mark.parametrize(
    ("before", "after", "effect", "said"),
    [
        (_one(), Contract((column("b", "float64"),)), ["breaking", "stricter"], "“a” is gone"),
        (_one(), _one(dtype="int64"), ["breaking"], "becomes int64"),
        (_one(), _one(nullable=True), ["breaking"], "may be missing now"),
        (_one(nullable=True), _one(), ["stricter"], "no longer be missing"),
        (_one(ge=0), _one(ge=-1), ["breaking"], "becomes -1, and was 0"),
        (_one(ge=0), _one(ge=1), ["stricter"], "becomes 1"),
        (_one(le=5), _one(), ["breaking"], "no largest value any more"),
        (_one(), _one(le=5), ["stricter"], "is 5 now"),
        (
            _one(dtype="string", isin=["x", "y"]),
            _one(dtype="string", isin=["y", "z"]),
            ["breaking", "stricter"],
            "may be z now",
        ),
        (_one(unique=True), _one(), ["breaking"], "occur twice"),
        (_one(ge=0), _one(ge=0, severity="warn"), ["breaking", "breaking"], "does warn, and did block"),
        (_one(dtype="string"), _one(dtype="string", pattern="x"), ["stricter"], "matches x"),
        (_one(), _one(), [], ""),
    ],
)
def test_changes_say_whom_they_concern(before: Contract, after: Contract, effect: list[str], said: str) -> None:
    found = contract_changes(before, after)
    assert [each.effect for each in found] == effect
    assert not said or any(said in each.what for each in found)


def test_changes_of_rules_are_told() -> None:
    columns = (column("a", "float64"), column("b", "float64"))

    def of(*rules: Any) -> Contract:
        return Contract(columns, rules)

    assert contract_changes(of(), of(Expect("x", "a < b")))[0].effect == "stricter"
    assert contract_changes(of(), of(Expect("x", "a < b", "warn")))[0].effect == "harmless"
    (gone,) = contract_changes(of(Expect("x", "a < b")), of())
    assert (gone.effect, gone.columns) == ("breaking", ("a", "b"))
    assert contract_changes(of(Expect("x", "a < b")), of(Expect("x", "a < b", "warn")))[0].effect == "breaking"
    assert contract_changes(of(Expect("x", "a < b")), of(Expect("x", "a <= b")))[0].effect == "breaking"
