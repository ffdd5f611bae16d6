"""Check a table against a contract in one DuckDB scan."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, isnan
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from holdtrue.core.errors import InvalidInput
from holdtrue.data.columns import (
    MOST_EXAMPLES,
    MOST_TEXT,
    Column,
    Dtype,
    Finding,
    Severity,
    broken,
    doubled,
    missing,
    more,
    unknown,
    wrong_type,
)
from holdtrue.data.contract import Contract, Report
from holdtrue.data.expressions import compile_condition
from holdtrue.data.proving import kept
from holdtrue.data.rules import OF_ROWS, Expect, KeyInto, TableRule, Unique, columns_of, rule_broken
from holdtrue.data.whole import NOTHING, Around, whole_findings

ARROW: dict[str, pa.DataType] = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string": pa.string(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", "UTC"),
}
"""The Arrow type in which a column of a contract is kept."""
_SQL = {"int64": "BIGINT", "float64": "DOUBLE", "bool": "BOOLEAN", "timestamp": "TIMESTAMPTZ"}
_ROW = "row_number"
_SINGLE = 20


@dataclass(frozen=True, slots=True)
class _Rule:
    """One rule, the SQL condition that is true for a row which breaks it, and the value shown of such a row."""

    subject: Column | TableRule
    name: str
    severity: Severity
    value: str
    broken: str

    def finding(self, count: int, examples: list[str]) -> Finding:
        """Return what to say when rows break it."""
        if isinstance(self.subject, Column):
            return broken(self.subject, self.name, count, examples)
        return rule_broken(self.subject, count, examples)


def check_table(contract: Contract, table: Any, around: Around = NOTHING) -> Report:
    """Check `table` (anything with the Arrow PyCapsule interface) and say what breaks the contract.

    Columns that are missing, unknown, doubled or of another type block; the others are checked all the same.
    `around` has what rules need to know besides the rows: the time, other datasets, what was accepted before.
    """
    arrow = as_arrow(table)
    findings, columns = conform(contract, arrow)
    findings += whole_findings(contract, columns, arrow.num_rows, around)
    rules, scanned = _compiled(contract, columns)
    if not rules or arrow.num_rows == 0:
        return Report(arrow.num_rows, tuple(findings))
    scanned[_ROW] = pa.array(np.arange(arrow.num_rows))
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.register("delivery", pa.table(scanned))
        for place, rule in enumerate(contract.rules):
            if isinstance(rule, KeyInto):
                connection.register(f"keys{place}", pa.table({"value": around.keys_of(rule)}))
        found = _scan(connection, rules)
        quarantined = _quarantined(connection, [rule for rule, each in found if each.count])
    findings += [each for _, each in found if each.count]
    return Report(arrow.num_rows, tuple(findings), quarantined)


def as_arrow(table: Any) -> pa.Table:
    """Return any table-like object as an Arrow table, without a copy where that can be."""
    if isinstance(table, pa.Table):
        return _without_views(table)
    batches: list[pa.RecordBatch] = []
    try:
        if not hasattr(table, "__arrow_c_stream__"):
            return pa.table(table)
        reader = pa.RecordBatchReader.from_stream(table)
        batches += reader
        return _without_views(pa.Table.from_batches(batches, reader.schema))
    except Exception as error:
        # Whatever a source raises while it gives its rows: it is the reader's to say how far it came.
        rows = sum(batch.num_rows for batch in batches)
        mixed = None if rows else _mixed(table)
        if mixed is not None:
            raise mixed from error
        raise InvalidInput(
            f"The {type(table).__name__} broke off after {rows:,} rows."
            if rows
            else f"A {type(table).__name__} is not a table.",
            why=f"{type(error).__name__}: {error}",
            mend="Nothing of it was taken in: see that its source is whole, and deliver it again."
            if rows
            else "Return anything with the Arrow PyCapsule interface: a pyarrow, Polars, pandas or DuckDB table.",
            facts={"rows": rows},
        ) from error


def _mixed(table: Any) -> InvalidInput | None:
    """Return what names the rows of a column of Python's own values that have several kinds; None if none is found."""
    from holdtrue.data.sources.values import Gathered

    for name in getattr(table, "columns", ()):
        try:
            values = [None if isinstance(each, float) and isnan(each) else each for each in table[name]]
            Gathered(str(name)).add(values)
        except InvalidInput as error:
            return InvalidInput(
                error.what,
                why=error.why,
                mend=f"Make the values of “{name}” one type in the function that reads them.",
                facts=error.facts,
            )
        except Exception:  # noqa: BLE001, S112  # it is only asked what is wrong: some other error is told as it came
            continue
    return None


def _without_views(table: pa.Table) -> pa.Table:
    """Return texts and bytes in Arrow's plain layout: few of its functions know the one of Polars and DuckDB."""
    for place, field in enumerate(table.schema):
        plain = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}.get(field.type)
        if plain is not None:
            table = table.set_column(place, field.name, table.column(place).cast(plain))
    return table


def conform(contract: Contract, table: pa.Table) -> tuple[list[Finding], dict[str, pa.ChunkedArray]]:
    """Return findings about columns as wholes, and the sound columns in the types of the contract."""
    findings: list[Finding] = []
    columns: dict[str, pa.ChunkedArray] = {}
    places: dict[str, list[int]] = {}
    for place, name in enumerate(table.column_names):
        places.setdefault(name, []).append(place)
    for column in contract.columns:
        found = places.get(column.name, ())
        if not found:
            findings.append(missing(column.name))
        elif len(found) > 1:
            findings.append(doubled(column.name))
        else:
            given = table.column(found[0])
            cast = _cast(given, column)
            if cast is None:
                findings.append(_type_finding(given, column))
            else:
                columns[column.name] = cast
    wanted = {column.name for column in contract.columns}
    return _few(findings + [unknown(name) for name in places if name not in wanted]), columns


def _few(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings with those of one rule beyond the twentieth as one: a table may have ten thousand columns."""
    by_rule: dict[str, list[Finding]] = {}
    for each in findings:
        by_rule.setdefault(each.rule, []).append(each)
    out: list[Finding] = []
    for found in by_rule.values():
        out += found if len(found) <= _SINGLE + 1 else [*found[:_SINGLE], more(found[_SINGLE:])]
    return out


def dtype_of(kind: Any) -> str:
    """Return the contract's name of an Arrow type, or Arrow's own where the contract has none."""
    if pa.types.is_dictionary(kind):
        return dtype_of(kind.value_type)
    if pa.types.is_integer(kind):
        return "int64"
    if pa.types.is_decimal(kind):
        return "int64" if kind.scale == 0 else "float64"
    if pa.types.is_floating(kind):
        return "float64"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "string"
    if pa.types.is_timestamp(kind):
        return "timestamp" if kind.tz is not None else "timestamp without time zone"
    return "bool" if pa.types.is_boolean(kind) else str(kind)


def _cast(given: pa.ChunkedArray, column: Column) -> pa.ChunkedArray | None:
    """Return a column in the contract's type, or None if it has another one."""
    found, wanted = dtype_of(given.type), ARROW[column.dtype]
    if given.type == wanted:
        return given
    # A column without any value has no type of its own; whole numbers are fine as float64.
    fits = found == column.dtype or pa.types.is_null(given.type) or (found, column.dtype) == ("int64", "float64")
    if not fits:
        return None
    try:
        # Rounding is what float64 and microseconds mean; a whole number too long for int64 is an error.
        return given.cast(wanted, safe=column.dtype not in ("float64", "timestamp"))
    except pa.ArrowInvalid:
        return None


def _type_finding(given: pa.ChunkedArray, column: Column) -> Finding:
    """Say how many values of a column of the wrong type cannot be what was agreed, and which."""
    found = dtype_of(given.type)
    found = str(given.type) if found == column.dtype else found
    values = given.cast(pa.string()) if pa.types.is_dictionary(given.type) else given
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("given", pa.table({"value": values}))
        stranger = "value IS NOT NULL"
        if column.dtype in _SQL and found == "string":
            stranger = f"value IS NOT NULL AND TRY_CAST(value AS {_SQL[column.dtype]}) IS NULL"
        elif (found, column.dtype) == ("float64", "int64"):
            stranger = "value IS NOT NULL AND value <> floor(value)"
        shown = f"list_sort(list(DISTINCT left(value::VARCHAR, {MOST_TEXT})))[:{MOST_EXAMPLES}]"
        counted = f"SELECT count(*), {shown} FROM given WHERE "  # noqa: S608
        row = connection.execute(counted + stranger).fetchone()
        if row == (0, None):
            # Every value could be read as the wanted type: then the type alone is wrong, in all rows.
            row = connection.execute(counted + "value IS NOT NULL").fetchone()
    assert row is not None
    return wrong_type(column, found, row[0], row[1] or ())


def _compiled(
    contract: Contract, columns: dict[str, pa.ChunkedArray]
) -> tuple[list[_Rule], "dict[str, pa.ChunkedArray | pa.Array[Any]]"]:
    """Return the rules, and the columns they read under names of our own (DuckDB's do not know case)."""
    rules: list[_Rule] = []
    scanned: dict[str, Any] = {}
    needed = {name for rule in contract.rules for name in columns_of(rule, contract.columns)}
    for place, column in enumerate(contract.columns):
        if column.name not in columns:
            continue
        proven = kept(column, columns[column.name])
        value = f"c{place}"
        if column.name in needed or not proven.issuperset(name for name, _ in _conditions(column, value)):
            scanned[value] = columns[column.name]
        if column.pattern is not None:
            scanned[f"{value}_matches"] = _matches(columns[column.name], column.pattern)
        rules += [
            _Rule(column, name, column.severity_of(name), value, text)
            for name, text in _conditions(column, value)
            if name not in proven
        ]
    return rules + list(_of_rows(contract, set(columns))), scanned


def _of_rows(contract: Contract, sound: set[str]) -> Iterator[_Rule]:
    """Yield the rules over several columns, unless a column of theirs is not sound and blocks already."""
    places = {column.name: f"c{place}" for place, column in enumerate(contract.columns)}
    dtypes: dict[str, Dtype] = {column.name: column.dtype for column in contract.columns}
    for place, rule in enumerate(contract.rules):
        if not isinstance(rule, OF_ROWS) or not sound.issuperset(columns_of(rule, contract.columns)):
            continue
        if isinstance(rule, Expect):
            condition = compile_condition(rule.that, dtypes)
            values = [f"'{_quoted(name)} ' || coalesce({places[name]}::VARCHAR, '–')" for name in condition.columns]
            shown = " || ', ' || ".join(values) or "'–'"
            text = f"({condition.sql(places)}) IS FALSE"
        elif isinstance(rule, Unique):
            names = [places[name] for name in rule.columns]
            there = " AND ".join(f"NOT {_absent(dtypes[name], places[name])}" for name in rule.columns)
            both = ", ".join(names)
            twice = f"SELECT {both} FROM delivery WHERE {there} GROUP BY {both} HAVING count(*) > 1"  # noqa: S608
            shown = " || ', ' || ".join(f"{name}::VARCHAR" for name in names)
            text = f"{there} AND ({both}) IN ({twice})"
        else:
            assert isinstance(rule, KeyInto)
            shown = places[rule.column]
            absent = _absent(dtypes[rule.column], shown)
            text = f"NOT {absent} AND {shown} NOT IN (SELECT value FROM keys{place})"  # noqa: S608
        yield _Rule(rule, rule.rule, rule.severity, shown, text)


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def _absent(dtype: str, value: str) -> str:
    return f"({value} IS NULL OR isnan({value}))" if dtype == "float64" else f"{value} IS NULL"


def _conditions(column: Column, value: str) -> list[tuple[str, str]]:
    absent = _absent(column.dtype, value)
    conditions: list[tuple[str, str]] = []
    if not column.nullable:
        conditions.append(("null", absent))
    if column.ge is not None:
        conditions.append(("ge", f"NOT {absent} AND {value} < {_bound(column, column.ge, up=True)}"))
    if column.le is not None:
        conditions.append(("le", f"NOT {absent} AND {value} > {_bound(column, column.le, up=False)}"))
    if column.isin is not None:
        values = ", ".join(f"'{_quoted(text)}'" for text in column.isin)
        conditions.append(("isin", f"NOT {absent} AND {value} NOT IN ({values})"))
    if column.pattern is not None:
        conditions.append(("pattern", f"NOT {absent} AND NOT {value}_matches"))
    if column.unique:
        twice = f"SELECT {value} FROM delivery GROUP BY ALL HAVING count(*) > 1"  # noqa: S608  # a name of our own
        conditions.append(("unique", f"NOT {absent} AND {value} IN ({twice})"))
    return conditions


def _bound(column: Column, bound: float, *, up: bool) -> str:
    """Return the end of a range as SQL; whole numbers are compared with whole ones, without rounding."""
    if column.dtype == "int64":
        return f"({ceil(bound) if up else floor(bound)})::HUGEINT" if abs(bound) < 2**100 else f"{bound!r}::DOUBLE"
    return f"'{bound!r}'::DOUBLE"


def _matches(values: pa.ChunkedArray, pattern: str) -> pa.ChunkedArray:
    """Tell for each text whether `pattern` matches all of it.

    Python's own engine is asked, once for each distinct text: DuckDB's knows other patterns, and a request and a
    table must not be judged differently.
    """
    match = re.compile(pattern).fullmatch
    encoded = values.dictionary_encode()
    parts: list[pa.Array[Any]] = []
    for chunk in encoded.chunks:
        verdicts = np.array([match(text) is not None for text in chunk.dictionary.to_pylist()] + [True])
        places = chunk.indices.fill_null(len(verdicts) - 1).to_numpy(zero_copy_only=False)
        parts.append(pa.array(verdicts[places]))
    return pa.chunked_array(parts, pa.bool_())


def _scan(connection: duckdb.DuckDBPyConnection, rules: list[_Rule]) -> list[tuple[_Rule, Finding]]:
    """Count the rows that break each rule, all in one scan; look for examples only where there are any."""
    # Only values of the contract are in these texts, quoted; no text of a delivery is.
    counts = ", ".join(f"count_if({rule.broken})" for rule in rules)
    row = connection.execute(f"SELECT {counts} FROM delivery").fetchone()  # noqa: S608
    assert row is not None
    found: list[tuple[_Rule, Finding]] = []
    for rule, count in zip(rules, row, strict=True):
        if count:
            examples = [] if rule.name == "null" else _examples(connection, rule)
            found.append((rule, rule.finding(count, examples)))
    return found


def _examples(connection: duckdb.DuckDBPyConnection, rule: _Rule) -> list[str]:
    rows = connection.execute(
        f"SELECT DISTINCT left({rule.value}::VARCHAR, {MOST_TEXT}) FROM delivery "  # noqa: S608  # as above
        f"WHERE {rule.broken} ORDER BY 1 LIMIT {MOST_EXAMPLES}"
    )
    return [row[0] for row in rows.fetchall()]


def _quarantined(connection: duckdb.DuckDBPyConnection, rules: list[_Rule]) -> tuple[int, ...]:
    texts = [f"({rule.broken})" for rule in rules if rule.severity == "quarantine"]
    if not texts:
        return ()
    marked = f"SELECT {_ROW}, {' OR '.join(texts)} AS bad FROM delivery"  # noqa: S608  # as above
    rows = connection.execute(f"SELECT {_ROW} FROM ({marked}) WHERE bad ORDER BY 1").fetchnumpy()  # noqa: S608
    return tuple(rows[_ROW].tolist())
