"""Check a table against a contract in one DuckDB scan."""

from typing import Any

import duckdb
import pyarrow as pa

from holdtrue.data.contract import Column, Contract, Finding, Report, broken
from holdtrue.data.online import missing, unknown, wrong_type

_EXAMPLES = 3
_ROW = "__row"


def check_table(contract: Contract, table: Any) -> Report:
    """Check `table` (anything with the Arrow PyCapsule interface) and say what breaks the contract.

    Columns that are missing, unknown or of another type block, and then no row is looked at.
    """
    arrow = as_arrow(table)
    findings = _shape(contract, arrow.schema)
    if findings:
        return Report(arrow.num_rows, tuple(findings))
    rules = [(column, rule, text) for column in contract.columns for rule, text in _conditions(column)]
    if not rules or arrow.num_rows == 0:
        return Report(arrow.num_rows, ())
    connection = duckdb.connect(config={"threads": 2})
    connection.register("delivery", arrow.append_column(_ROW, pa.array(range(arrow.num_rows), pa.int64())))
    found = _scan(connection, rules)
    rows = _quarantined(connection, [(r, c) for r, c in zip(rules, found, strict=True) if c.count])
    connection.close()
    return Report(arrow.num_rows, tuple(each for each in found if each.count), rows)


def as_arrow(table: Any) -> pa.Table:
    """Return any table-like object as an Arrow table, without a copy where that can be."""
    return table if isinstance(table, pa.Table) else pa.table(table)


def dtype_of(kind: pa.DataType) -> str:
    """Return the contract's name of an Arrow type, or Arrow's own where the contract has none."""
    if pa.types.is_integer(kind):
        return "int64"
    if pa.types.is_floating(kind):
        return "float64"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "string"
    if pa.types.is_boolean(kind):
        return "bool"
    return "timestamp" if pa.types.is_timestamp(kind) else str(kind)


def _shape(contract: Contract, schema: pa.Schema) -> list[Finding]:
    findings: list[Finding] = []
    wanted = {column.name: column for column in contract.columns}
    for name, column in wanted.items():
        if name not in schema.names:
            findings.append(missing(name))
            continue
        kind = schema.field(name).type
        found = dtype_of(kind)
        # A column without any value has no type of its own; whole numbers are fine as float64.
        fits = found == column.dtype or pa.types.is_null(kind) or (found, column.dtype) == ("int64", "float64")
        if not fits:
            findings.append(wrong_type(column, found))
    return findings + [unknown(name) for name in schema.names if name not in wanted]


def _conditions(column: Column) -> list[tuple[str, str]]:
    """Return (rule, SQL condition that is true for a row which breaks it)."""
    name = f'"{column.name.replace(chr(34), chr(34) * 2)}"'
    number = column.dtype in ("float64", "int64")
    absent = f"({name} IS NULL OR isnan({name}::DOUBLE))" if number else f"{name} IS NULL"
    present = f"NOT {absent}"
    rules: list[tuple[str, str]] = []
    if not column.nullable:
        rules.append(("null", absent))
    if column.ge is not None:
        rules.append(("ge", f"{present} AND {name} < {column.ge!r}"))
    if column.le is not None:
        rules.append(("le", f"{present} AND {name} > {column.le!r}"))
    if column.isin is not None:
        values = ", ".join(_text(value) for value in column.isin)
        rules.append(("isin", f"{present} AND {name} NOT IN ({values})"))
    if column.pattern is not None:
        rules.append(("pattern", f"{present} AND NOT regexp_full_match({name}, {_text(column.pattern)}, 's')"))
    if column.unique:
        rules.append(("unique", f"{present} AND count(*) OVER (PARTITION BY {name}) > 1"))
    return rules


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _scan(connection: duckdb.DuckDBPyConnection, rules: list[tuple[Column, str, str]]) -> list[Finding]:
    flags = ", ".join(f"({text}) AS f{i}" for i, (_, _, text) in enumerate(rules))
    counts = ", ".join(
        f"count(*) FILTER (f{i}), "
        f"list_slice(list_sort(list(DISTINCT {_name(column)}::VARCHAR) FILTER (f{i})), 1, {_EXAMPLES})"
        for i, (column, _, _) in enumerate(rules)
    )
    # Only names and values of the contract are in this text, quoted; no text of a delivery is.
    row = connection.execute(f"SELECT {counts} FROM (SELECT *, {flags} FROM delivery)").fetchone()  # noqa: S608
    assert row is not None
    return [
        broken(column, rule, row[2 * i], tuple(row[2 * i + 1] or ()) if rule != "null" else ())
        for i, (column, rule, _) in enumerate(rules)
    ]


def _quarantined(
    connection: duckdb.DuckDBPyConnection, broken_rules: list[tuple[tuple[Column, str, str], Finding]]
) -> tuple[int, ...]:
    texts = [f"({text})" for (column, _, text), _ in broken_rules if column.severity == "quarantine"]
    if not texts:
        return ()
    marked = f"SELECT {_ROW}, {' OR '.join(texts)} AS bad FROM delivery"  # noqa: S608  # as above
    rows = connection.execute(f"SELECT {_ROW} FROM ({marked}) WHERE bad ORDER BY 1").fetchall()  # noqa: S608
    return tuple(row[0] for row in rows)


def _name(column: Column) -> str:
    return f'"{column.name.replace(chr(34), chr(34) * 2)}"'
