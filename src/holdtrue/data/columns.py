"""What one column must look like, and the findings when it does not."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

from holdtrue.core.errors import ConfigurationError
from holdtrue.data.tags import Tags, made

Dtype = Literal["int64", "float64", "string", "bool", "timestamp"]
Severity = Literal["block", "quarantine", "warn"]
MOST_EXAMPLES = 3
MOST_TEXT = 200
RULES = ("null", "ge", "le", "isin", "pattern", "unique")
"""The rules of a column, of which each may have a severity of its own."""


@dataclass(frozen=True, slots=True)
class Column:
    """Describe one column: type, whether it may be missing, range, set, pattern, uniqueness.

    `severity` says what a broken rule does: block the delivery, quarantine its rows, or warn; `severities` says it
    for single rules, such as {"le": "warn"}.
    A wrong type, a missing column and an unknown one always block. NaN counts as missing. A pattern is a
    Python regular expression and has to match the whole text. A timestamp has a time zone. `tags` say what the
    column holds and what it may be used for; no row is judged by them.
    """

    name: str
    dtype: Dtype
    nullable: bool = False
    ge: float | None = None
    le: float | None = None
    isin: tuple[str, ...] | None = None
    pattern: str | None = None
    unique: bool = False
    severity: Severity = "block"
    severities: Mapping[str, Severity] = field(default_factory=dict[str, Severity])
    tags: Tags | None = None

    def severity_of(self, rule: str) -> Severity:
        """Return what a broken rule of this column does."""
        return self.severities.get(rule, self.severity)


@dataclass(frozen=True, slots=True)
class Finding:
    """Say which rule of which column was broken, by how many rows, with examples, and how to mend it."""

    column: str
    rule: str
    severity: Severity
    count: int
    examples: tuple[str, ...]
    what: str
    mend: str


def column(
    name: str,
    dtype: Dtype,
    *,
    nullable: bool = False,
    ge: float | None = None,
    le: float | None = None,
    isin: "list[str] | tuple[str, ...] | None" = None,
    pattern: str | None = None,
    unique: bool = False,
    severity: Severity = "block",
    severities: Mapping[str, Severity] | None = None,
    personal: str | None = None,
    purposes: "list[str] | tuple[str, ...] | None" = None,
    licence: str | None = None,
    source: str | None = None,
) -> Column:
    """Describe one column of a contract: what its values must be, and what they are tagged with."""
    chosen = None if isin is None else tuple(isin)
    tags = made(personal, purposes, licence, source)
    return Column(name, dtype, nullable, ge, le, chosen, pattern, unique, severity, dict(severities or {}), tags)


def broken(column: Column, rule: str, count: int, examples: "Sequence[Any]") -> Finding:
    """Build the finding of one broken rule."""
    said = {
        "null": ("is missing", "Deliver a value for each row, or declare the column nullable."),
        "ge": (f"is below {_short(column.ge)}", "Correct the values, or widen the contract's range."),
        "le": (f"is above {_short(column.le)}", "Correct the values, or widen the contract's range."),
        "isin": (
            f"is none of {', '.join(column.isin or ())}",
            "Correct the values, or add the new one to the contract's set.",
        ),
        "pattern": (
            f"does not match {column.pattern}",
            "Correct the values, or change the contract's pattern.",
        ),
        "unique": ("occurs more than once", "Remove the doubled rows from the delivery."),
    }[rule]
    return Finding(
        column=column.name,
        rule=rule,
        severity=column.severity_of(rule),
        count=count,
        examples=texts(examples),
        what=f"“{column.name}” {said[0]} in {count} row{'s' if count != 1 else ''}.",
        mend=said[1],
    )


def missing(name: str) -> Finding:
    """Build the finding of a column that is not there."""
    return _shape(
        name,
        "missing",
        f"The column “{name}” is missing.",
        "Deliver it, or take it out of the contract.",
    )


def unknown(name: str) -> Finding:
    """Build the finding of a column that the contract does not name."""
    return _shape(
        name,
        "unknown",
        f"The column “{name}” is not in the contract.",
        "Leave it out, or describe it in the contract.",
    )


def more(found: "Sequence[Finding]") -> Finding:
    """Build the finding that stands for many of one rule about columns as wholes."""
    names = ", ".join(f"“{each.column}”" for each in found[:3])
    said = {"missing": "are missing", "unknown": "are not in the contract", "doubled": "have a name twice"}
    what = f"{len(found):,} more columns {said.get(found[0].rule, 'have another type')}, such as {names}."
    return _shape(found[0].column, found[0].rule, what, found[0].mend, len(found))


def doubled(name: str) -> Finding:
    """Build the finding of two columns of one name."""
    return _shape(name, "doubled", f"Two columns have the name “{name}”.", "Leave one of them out.")


def wrong_type(column: Column, found: str, count: int, examples: "Sequence[Any]" = ()) -> Finding:
    """Build the finding of values of another type than the contract's."""
    return _shape(
        column.name,
        "type",
        f"“{column.name}” is {found}, and the contract says {column.dtype}.",
        f"Deliver it as {column.dtype}, or change the contract.",
        count,
        examples,
    )


def _shape(name: str, rule: str, what: str, mend: str, count: int = 1, examples: "Sequence[Any]" = ()) -> Finding:
    # What a column is called and holds is no matter of single rows: such findings always block.
    return Finding(name, rule, "block", count, texts(examples), what, mend)


def texts(examples: "Sequence[Any]") -> tuple[str, ...]:
    """Return the first few examples as short texts."""
    return tuple(str(example)[:MOST_TEXT] for example in examples[:MOST_EXAMPLES])


def _short(bound: float | None) -> str:
    return "" if bound is None else str(int(bound) if bound == int(bound) else bound)


def check_column(column: Column) -> None:
    """Raise ConfigurationError for a description that no value can meet, or that cannot be meant."""
    wrong = None
    bounds = [bound for bound in (column.ge, column.le) if bound is not None]
    if bounds and column.dtype not in ("int64", "float64"):
        wrong = "a range needs a number"
    elif (column.isin is not None or column.pattern is not None) and column.dtype != "string":
        wrong = "a set or a pattern needs a string"
    elif not all(isfinite(bound) for bound in bounds):
        wrong = "the ends of a range are finite numbers"
    elif column.ge is not None and column.le is not None and column.ge > column.le:
        wrong = f"the range from {_short(column.ge)} to {_short(column.le)} is empty"
    elif column.isin is not None and not column.isin:
        wrong = "no value is in an empty set"
    elif column.pattern is not None:
        try:
            re.compile(column.pattern)
        except re.error as error:
            wrong = f"the pattern is not a regular expression: {error}"
    unknown = [rule for rule in column.severities if rule not in RULES]
    if unknown:
        wrong = f"“{unknown[0]}” is no rule of a column: these are {', '.join(RULES)}"
    if wrong:
        raise ConfigurationError(
            f"The contract of “{column.name}” ({column.dtype}) cannot hold.",
            why=f"{wrong[:1].upper()}{wrong[1:]}.",
            mend="Correct the column's description.",
        )
