"""Rules of a contract beyond single columns, and the findings when they are broken."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from holdtrue.core.errors import ConfigurationError
from holdtrue.data.columns import Column, Finding, Severity, texts
from holdtrue.data.expressions import compile_condition

_SPAN = re.compile(r"([1-9][0-9]*)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Expect:
    """Expect a condition over the columns of a row, such as "arrived_at >= departed_at"; unknown keeps it."""

    name: str
    that: str
    severity: Severity = "block"
    rule: Literal["expect"] = "expect"


@dataclass(frozen=True, slots=True)
class Unique:
    """Expect that no two rows have the same values in all of these columns; rows without one are left out."""

    columns: tuple[str, ...]
    severity: Severity = "block"
    rule: Literal["unique_together"] = "unique_together"


@dataclass(frozen=True, slots=True)
class KeyInto:
    """Expect that each value of `column` is in the column `of` of another dataset's present version."""

    column: str
    dataset: str
    of: str
    severity: Severity = "block"
    rule: Literal["key"] = "key"


@dataclass(frozen=True, slots=True)
class Fresh:
    """Expect that the newest moment of `column` is at most `within` (such as “2d”) before the window's end, or now."""

    column: str
    within: str
    severity: Severity = "block"
    rule: Literal["fresh"] = "fresh"


@dataclass(frozen=True, slots=True)
class RowCount:
    """Expect a number of rows in a delivery."""

    ge: int | None = None
    le: int | None = None
    severity: Severity = "block"
    rule: Literal["rows"] = "rows"


@dataclass(frozen=True, slots=True)
class Distribution:
    """Expect that a column is distributed as in the windows accepted before.

    `within` is the largest Jensen-Shannon distance (0 equal, 1 disjoint); the first window has nothing to be
    compared with and passes.
    """

    column: str
    within: float = 0.2
    severity: Severity = "block"
    rule: Literal["distribution"] = "distribution"


TableRule: TypeAlias = Expect | Unique | KeyInto | Fresh | RowCount | Distribution
OF_ROWS: tuple[type[Any], ...] = (Expect, Unique, KeyInto)
"""Rules that single rows break; the others are about a delivery as a whole."""


def columns_of(rule: TableRule, columns: Sequence[Column]) -> tuple[str, ...]:
    """Return the columns that a rule reads."""
    if isinstance(rule, Expect):
        return compile_condition(rule.that, {column.name: column.dtype for column in columns}).columns
    if isinstance(rule, Unique):
        return rule.columns
    return () if isinstance(rule, RowCount) else (rule.column,)


def name_of(rule: TableRule) -> str:
    """Return what a finding calls the subject of a rule."""
    if isinstance(rule, Expect):
        return rule.name
    return (
        ", ".join(rule.columns) if isinstance(rule, Unique) else "rows" if isinstance(rule, RowCount) else rule.column
    )


def check_rule(rule: TableRule, columns: Sequence[Column]) -> None:
    """Raise ConfigurationError for a rule that cannot be meant."""
    known = {column.name: column.dtype for column in columns}
    wrong = None
    unknown = [name for name in columns_of(rule, columns) if name not in known]
    if unknown:
        wrong = f"there is no column “{unknown[0]}”: the columns are {', '.join(known)}"
    elif rule.severity == "quarantine" and not isinstance(rule, OF_ROWS):
        wrong = "it is about the delivery as a whole, so there are no rows to set aside: block or warn"
    elif isinstance(rule, Unique) and len(set(rule.columns)) < max(2, len(rule.columns)):
        wrong = "it needs two columns or more, each once (for one there is column(…, unique=True))"
    elif isinstance(rule, Fresh) and known[rule.column] != "timestamp":
        wrong = f"“{rule.column}” is {known[rule.column]}, and only moments are fresh"
    elif isinstance(rule, Fresh) and _SPAN.fullmatch(rule.within) is None:
        wrong = f"“{rule.within}” is not a span of time such as 6h or 2d"
    elif isinstance(rule, RowCount) and not _is_range(rule):
        wrong = "it needs a least or a largest number of rows, 0 or more, the least not above the largest"
    elif isinstance(rule, Distribution) and not 0 < rule.within < 1:
        wrong = "a distance lies between 0 and 1"
    if wrong:
        raise ConfigurationError(
            f"The rule “{rule.rule}” of {name_of(rule)} cannot hold.",
            why=f"{wrong[:1].upper()}{wrong[1:]}.",
            mend="Correct the rule in the contract.",
        )


def seconds_of(span: str) -> int:
    """Return the seconds of a span such as “6h”."""
    found = _SPAN.fullmatch(span)
    assert found is not None
    return int(found[1]) * _SECONDS[found[2]]


def rule_broken(rule: TableRule, count: int, examples: Sequence[Any] = (), said: str = "") -> Finding:
    """Build the finding of a broken rule; `said` is what was found of a delivery as a whole."""
    rows = f"{count} row{'s' if count != 1 else ''}"
    what, mend = {
        "expect": (
            f"“{name_of(rule)}” does not hold in {rows}: {rule.that if isinstance(rule, Expect) else ''}.",
            "Correct the rows, or change the condition in the contract.",
        ),
        "unique_together": (
            f"“{name_of(rule)}” together occur more than once, in {rows}.",
            "Remove the doubled rows from the delivery.",
        ),
        "key": (
            f"“{name_of(rule)}” is not in {_target(rule)} in {rows}.",
            "Take the other dataset's rows in first, or correct the values.",
        ),
    }.get(rule.rule, (said, "Look at the delivery; change the contract if it is as it should be."))
    return Finding(name_of(rule), rule.rule, rule.severity, count, texts(examples), what, mend)


def _target(rule: TableRule) -> str:
    return f"“{rule.of}” of {rule.dataset}" if isinstance(rule, KeyInto) else ""


def _is_range(rule: RowCount) -> bool:
    ends = [end for end in (rule.ge, rule.le) if end is not None]
    return bool(ends) and min(ends) >= 0 and ends == sorted(ends)
