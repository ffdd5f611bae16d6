"""Check the columns of one request against a contract, with nothing but the standard library."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from holdtrue.core.errors import InvalidInput
from holdtrue.data.contract import Column, Contract, Finding, broken, shape

__all__ = ["Finding", "compile_request"]

_INT64 = 2**63
_EXAMPLES = 3
ColumnCheck = Callable[[Sequence[Any]], list[Finding]]


def compile_request(contract: Contract) -> Callable[[Mapping[str, list[Any]]], list[Finding]]:
    """Compile `contract` to a check of columns (name → list of values, all of one length).

    Values are plain Python: timestamps are integers in microseconds since the epoch. The verdict on a
    row is the one the table check gives.
    """
    checks = {column.name: _compile(column) for column in contract.columns}

    def check(columns: Mapping[str, list[Any]]) -> list[Finding]:
        findings: list[Finding] = []
        if len({len(values) for values in columns.values()}) > 1:
            raise InvalidInput(
                "The columns of a request have different lengths.",
                why=", ".join(f"{name}: {len(values)}" for name, values in columns.items()),
                mend="Send as many values in each column as there are rows.",
            )
        for name, column in checks.items():
            values = columns.get(name)
            if values is None:
                findings.append(missing(name))
            else:
                findings += column(values)
        if len(columns) > len(checks):
            findings += [unknown(name) for name in columns if name not in checks]
        return findings

    return check


def missing(name: str) -> Finding:
    """Build the finding of a column that is not there."""
    return shape(name, "missing", f"The column “{name}” is missing.", "Deliver it, or take it out of the contract.")


def unknown(name: str) -> Finding:
    """Build the finding of a column that the contract does not name."""
    return shape(name, "unknown", f"The column “{name}” is not in the contract.", "Leave it out, or add it.")


def wrong_type(column: Column, found: str, count: int = 1) -> Finding:
    """Build the finding of values of another type than the contract's."""
    return shape(
        column.name,
        "type",
        f"“{column.name}” is {found}, and the contract says {column.dtype}.",
        f"Deliver it as {column.dtype}, or change the contract.",
        count,
    )


def _compile(column: Column) -> ColumnCheck:
    fits = _TYPES[column.dtype]
    tests = _tests(column)

    def check(values: Sequence[Any]) -> list[Finding]:
        strangers = [value for value in values if value is not None and not fits(value)]
        if strangers:
            return [wrong_type(column, type(strangers[0]).__name__, len(strangers))]
        findings: list[Finding] = []
        if not column.nullable:
            absent = sum(1 for value in values if _absent(value))
            if absent:
                findings.append(broken(column, "null", absent, ()))
        for rule, test in tests:
            bad = [value for value in values if not _absent(value) and test(value)]
            if bad:
                findings.append(broken(column, rule, len(bad), tuple(bad[:_EXAMPLES])))
        if column.unique:
            findings += _doubled(column, values)
        return findings

    return check


def _doubled(column: Column, values: Sequence[Any]) -> list[Finding]:
    present = [value for value in values if not _absent(value)]
    if len(set(present)) == len(present):
        return []
    seen: dict[Any, int] = {}
    for value in present:
        seen[value] = seen.get(value, 0) + 1
    doubled = sorted(value for value, count in seen.items() if count > 1)
    return [broken(column, "unique", sum(seen[value] for value in doubled), tuple(doubled[:_EXAMPLES]))]


def _tests(column: Column) -> list[tuple[str, Callable[[Any], bool]]]:
    tests: list[tuple[str, Callable[[Any], bool]]] = []
    if column.ge is not None:
        low = column.ge
        tests.append(("ge", lambda value: value < low))
    if column.le is not None:
        high = column.le
        tests.append(("le", lambda value: value > high))
    if column.isin is not None:
        allowed = frozenset(column.isin)
        tests.append(("isin", lambda value: value not in allowed))
    if column.pattern is not None:
        match = re.compile(column.pattern).fullmatch
        tests.append(("pattern", lambda value: match(value) is None))
    return tests


def _absent(value: Any) -> bool:
    # NaN stands for a missing number on both sides: it is the only value unequal to itself.
    return value is None or value != value


def _int64(value: Any) -> bool:
    return type(value) is int and -_INT64 <= value < _INT64


_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "int64": _int64,
    "float64": lambda value: type(value) is float or _int64(value),
    "string": lambda value: type(value) is str,
    "bool": lambda value: type(value) is bool,
    "timestamp": _int64,
}
