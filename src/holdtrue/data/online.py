"""Check the columns of one request against a contract, with nothing but the standard library."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from holdtrue.core.errors import InvalidInput
from holdtrue.data.columns import Column, Dtype, Finding, broken, missing, unknown, wrong_type
from holdtrue.data.contract import Contract
from holdtrue.data.expressions import compile_condition
from holdtrue.data.rules import Expect, TableRule, Unique, columns_of, rule_broken

__all__ = ["Finding", "compile_request"]

Check: TypeAlias = Callable[[Sequence[Any]], list[Finding]]
Test: TypeAlias = Callable[[Any], bool]
RowCheck: TypeAlias = Callable[[Mapping[str, Sequence[Any]]], list[Finding]]

_INT64 = 2**63
_NULL = type(None)


def compile_request(contract: Contract) -> Callable[[Mapping[str, list[Any]]], list[Finding]]:
    """Compile `contract` to a check of columns (name → list of values, all of one length).

    Values are plain Python: timestamps are integers in microseconds since the epoch. The verdict on a
    row is the one the table check gives. The check raises InvalidInput for columns of unequal length.
    """
    checks = {column.name: _compile(column) for column in contract.columns}
    rules = [each for rule in contract.rules for each in _compile_rule(rule, contract.columns)]
    keeps = _compile_row(contract.columns)

    def check(columns: Mapping[str, list[Any]]) -> list[Finding]:
        # Nearly every request is one row that breaks nothing: seen at a fifth of the cost of finding what is broken.
        if keeps(columns):
            return [finding for _, rule in rules for finding in rule(columns)] if rules else []
        if len(set(map(len, columns.values()))) > 1:
            raise InvalidInput(
                "The columns of a request have different lengths.",
                why=", ".join(f"{name}: {len(values)}" for name, values in columns.items()),
                mend="Send as many values in each column as there are rows.",
            )
        findings: list[Finding] = []
        for name, column in checks.items():
            values = columns.get(name)
            if values is None:
                findings.append(missing(name))
            else:
                findings += column(values)
        if rules:
            # A column that is not there or of another type is a finding already; rules need sound ones.
            unsound = {each.column for each in findings if each.rule in ("missing", "type")}
            for needed, rule in rules:
                if unsound.isdisjoint(needed):
                    findings += rule(columns)
        if columns.keys() - checks.keys():
            findings += [unknown(name) for name in columns if name not in checks]
        return findings

    return check


def _compile_row(described: Sequence[Column]) -> Callable[[Mapping[str, list[Any]]], bool]:
    """Return what tells that the columns are one row which keeps to all of them.

    False means that they have to be looked at closely, not that something is broken.
    """
    numbers: list[tuple[str, type, float, float, bool]] = []
    others: list[tuple[str, type, bool, list[Test]]] = []
    for column in described:
        tests = [test for _, test in _tests(column)]
        if column.dtype in ("float64", "int64", "timestamp") and column.isin is None and column.pattern is None:
            kind, least, most = (
                (float, -math.inf, math.inf) if column.dtype == "float64" else (int, -_INT64, _INT64 - 1)
            )
            low = least if column.ge is None else max(least, column.ge)
            high = most if column.le is None else min(most, column.le)
            numbers.append((column.name, kind, low, high, column.nullable))
        else:
            kind = {"string": str, "bool": bool, "float64": float}.get(column.dtype, int)
            if kind is int:
                tests.append(_too_long)
            others.append((column.name, kind, column.nullable, tests))
    count = len(described)

    def keeps(columns: Mapping[str, list[Any]]) -> bool:
        if len(columns) != count:
            return False
        try:
            for name, kind, low, high, nullable in numbers:
                (value,) = columns[name]
                # NaN is in no range.
                if (type(value) is not kind or not low <= value <= high) and not (nullable and value is None):
                    return False
            for name, kind, nullable, tests in others:
                (value,) = columns[name]
                if type(value) is not kind:
                    if not nullable or value is not None:
                        return False
                elif value != value or any(test(value) for test in tests):
                    return False
        except (KeyError, ValueError):
            return False
        return True

    return keeps


def _compile_rule(rule: TableRule, described: Sequence[Column]) -> list[tuple[frozenset[str], RowCheck]]:
    """Return the columns and the check of a rule over several columns; none for rules that a request cannot break."""
    names = columns_of(rule, described)
    if isinstance(rule, Expect):
        dtypes: dict[str, Dtype] = {column.name: column.dtype for column in described}
        holds = compile_condition(rule.that, dtypes).value

        def expected(columns: Mapping[str, Sequence[Any]]) -> list[Finding]:
            values = [columns[name] for name in names]
            rows = range(len(values[0])) if values else range(len(next(iter(columns.values()), ())))
            bad = [row for row in rows if holds({name: columns[name][row] for name in names}) is False]
            if not bad:
                return []
            shown = [", ".join(f"{name} {columns[name][row]}" for name in names) for row in bad[:3]]
            return [rule_broken(rule, len(bad), shown)]

        return [(frozenset(names), expected)]
    if isinstance(rule, Unique):

        def together(columns: Mapping[str, Sequence[Any]]) -> list[Finding]:
            rows = [
                row
                for row in zip(*(columns[name] for name in names), strict=True)
                if all(value is not None and value == value for value in row)
            ]
            if len(set(rows)) == len(rows):
                return []
            twice = {row: count for row, count in Counter(rows).items() if count > 1}
            shown = [", ".join(map(str, row)) for row in sorted(twice)]
            return [rule_broken(rule, sum(twice.values()), shown)]

        return [(frozenset(names), together)]
    return []


def _compile(column: Column) -> Check:
    allowed = _TYPES[column.dtype]
    tests = _tests(column)
    whole = column.dtype in ("int64", "float64", "timestamp")

    def check(values: Sequence[Any]) -> list[Finding]:
        kinds = set(map(type, values))
        if not kinds <= allowed or (whole and int in kinds and not _fits(values)):
            strangers = [value for value in values if type(value) not in allowed or _too_long(value)]
            return [wrong_type(column, type(strangers[0]).__name__, len(strangers), strangers)]
        findings: list[Finding] = []
        present = values
        if _NULL in kinds or float in kinds:
            present = [value for value in values if value is not None and value == value]
            if len(present) < len(values) and not column.nullable:
                findings.append(broken(column, "null", len(values) - len(present), ()))
        for rule, test in tests:
            bad = [value for value in present if test(value)]
            if bad:
                findings.append(broken(column, rule, len(bad), bad))
        if column.unique and len(set(present)) < len(present):
            twice = {value: count for value, count in Counter(present).items() if count > 1}
            findings.append(broken(column, "unique", sum(twice.values()), sorted(twice)))
        return findings

    return check


def _tests(column: Column) -> list[tuple[str, Test]]:
    """Return (rule, test that is true for a value which breaks it)."""
    tests: list[tuple[str, Test]] = []
    # In a table a whole number among float64 values is one of them, rounded: so it is compared as one.
    as_float = column.dtype == "float64"
    if column.ge is not None:
        low = column.ge
        tests.append(("ge", (lambda value: value + 0.0 < low) if as_float else lambda value: value < low))
    if column.le is not None:
        high = column.le
        tests.append(("le", (lambda value: value + 0.0 > high) if as_float else lambda value: value > high))
    if column.isin is not None:
        allowed = frozenset(column.isin)
        tests.append(("isin", lambda value: value not in allowed))
    if column.pattern is not None:
        match = re.compile(column.pattern).fullmatch
        tests.append(("pattern", lambda value: match(value) is None))
    return tests


def _fits(values: Sequence[Any]) -> bool:
    return not any(map(_too_long, values))


def _too_long(value: Any) -> bool:
    return type(value) is int and not -_INT64 <= value < _INT64


_TYPES: Mapping[str, frozenset[type]] = {
    "int64": frozenset({int, _NULL}),
    "float64": frozenset({float, int, _NULL}),
    "string": frozenset({str, _NULL}),
    "bool": frozenset({bool, _NULL}),
    "timestamp": frozenset({int, _NULL}),
}
