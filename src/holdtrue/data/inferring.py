"""Write a contract from rows: what they all keep, as a first draft that a person edits."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa

from holdtrue.core.errors import InvalidInput
from holdtrue.data.checking import ARROW, dtype_of
from holdtrue.data.columns import Column
from holdtrue.data.contract import Contract
from holdtrue.data.profiles import ColumnProfile
from holdtrue.data.profiling import profile_table

_MOST_VALUES = 20
_ROWS_PER_VALUE = 20
_MOST_TEXTS = 20_000
_MOST_RUNS = 6


@dataclass(frozen=True, slots=True)
class Inferred:
    """Hold an inferred contract, what was seen of each of its columns, and why others were left out."""

    contract: Contract
    seen: dict[str, str]
    left_out: dict[str, str]

    @property
    def key(self) -> str | None:
        """Return the first column of which each row has a value of its own, None if there is none."""
        return next((column.name for column in self.contract.columns if column.unique), None)

    @property
    def time(self) -> str | None:
        """Return the first column of moments that is never missing, None if there is none."""
        moments = (each.name for each in self.contract.columns if each.dtype == "timestamp" and not each.nullable)
        return next(moments, None)


def infer(table: pa.Table) -> Inferred:
    """Return a contract that the rows of `table` keep.

    Types, missing values and uniqueness are as seen; a number that is never negative has the bound 0, a text of few
    values its set, and texts of one shape its pattern. What was merely observed, such as the largest number, is told
    beside it and not made a rule. Raises InvalidInput if there is nothing to go by.
    """
    if not table.num_rows:
        raise InvalidInput(
            "A contract cannot be inferred from no rows.",
            why="What rows have in common is seen from rows.",
            mend="Give a file that has some.",
        )
    columns: list[Column] = []
    seen: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for found in profile_table(table).columns:
        dtype = dtype_of(table.schema.field(found.name).type)
        if dtype in ARROW:
            columns.append(_column(found, dtype, table[found.name]))
            seen[found.name] = _seen(found)
        else:
            hint = "; deliver it with a time zone" if dtype == "timestamp without time zone" else ""
            left_out[found.name] = f"{dtype} is no type of a contract{hint}"
    if not columns:
        raise InvalidInput(
            "No column has a type that a contract knows.",
            why="; ".join(f"{name}: {why}" for name, why in left_out.items())[:500],
            mend=f"A contract describes columns of the types {', '.join(ARROW)}.",
        )
    return Inferred(Contract(tuple(columns)), seen, left_out)


def as_python(found: Inferred) -> str:
    """Return the contract as the text of Python that a project file can hold."""
    lines = ["contract=ht.Contract(", "    columns=("]
    for column in found.contract.columns:
        note = f"  # {found.seen[column.name]}" if found.seen.get(column.name) else ""
        lines.append(f"        {column_text(column)},{note}")
    lines += ["    ),", *_rules(found.contract), ")"]
    lines += [f"# left out: {name!r}, as {why}" for name, why in found.left_out.items()]
    head = [f"key={found.key!r}," if found.key else "# key=…: no column has a value of its own in each row"]
    head.append(f"time={found.time!r}," if found.time else "# time=…: no column of moments is always there")
    return "\n".join([*head, *lines]) + "\n"


def column_text(column: Column) -> str:
    """Return a column's description as Python."""
    options = [f"{name}={getattr(column, name)!r}" for name in ("nullable", "unique") if getattr(column, name)]
    options += [f"{end}={_plain(getattr(column, end))}" for end in ("ge", "le") if getattr(column, end) is not None]
    if column.isin is not None:
        options.append(f"isin={list(column.isin)!r}")
    if column.pattern is not None:
        options.append(f"pattern={column.pattern!r}")
    if column.severity != "block":
        options.append(f"severity={column.severity!r}")
    if column.severities:
        options.append(f"severities={dict(column.severities)!r}")
    said = {} if column.tags is None else column.tags.to_json()
    options += [f"{name}={value!r}" for name, value in said.items()]
    return f"ht.column({', '.join([repr(column.name), repr(column.dtype), *options])})"


def _rules(contract: Contract) -> Iterator[str]:
    if contract.rules:
        yield "    rules=("
        for rule in contract.rules:
            fields = {name: getattr(rule, name) for name in rule.__dataclass_fields__ if name != "rule"}
            given = ", ".join(f"{name}={value!r}" for name, value in fields.items() if value is not None)
            yield f"        ht.{type(rule).__name__}({given}),"
        yield "    ),"


def _plain(bound: float) -> str:
    return repr(int(bound)) if bound == int(bound) else repr(bound)


def _column(found: ColumnProfile, dtype: Any, values: pa.ChunkedArray) -> Column:
    there = found.rows - found.missing
    few = there >= _ROWS_PER_VALUE and len(found.frequent.counts) <= min(_MOST_VALUES, there // _ROWS_PER_VALUE)
    texts = dtype == "string" and there > 0
    isin = tuple(sorted(found.frequent.counts)) if texts and few and found.frequent.error == 0 else None
    unique = dtype in ("string", "int64") and found.missing == 0 and found.rows > 1 and _all_differ(found, values)
    return Column(
        name=found.name,
        dtype=dtype,
        nullable=found.missing > 0,
        ge=0 if dtype in ("int64", "float64") and found.low is not None and found.low >= 0 else None,
        isin=isin,
        pattern=_pattern(values) if texts and isin is None else None,
        unique=unique,
    )


def _all_differ(found: ColumnProfile, values: pa.ChunkedArray) -> bool:
    # The estimate is cheap and nearly right: only where it may be so are values counted.
    return found.distinct.count > 0.9 * found.rows and len(values.unique()) == found.rows


def _pattern(values: pa.ChunkedArray) -> str | None:
    """Return the one shape of all texts, such as [A-Z]{2}[0-9]{1,4}; None if they have several."""
    texts = [text for text in values.unique().drop_null().to_pylist() if text is not None]
    if len(texts) > _MOST_TEXTS or not texts:
        return None
    shapes = [[(kind, sum(1 for _ in run)) for kind, run in groupby(text, _class)] for text in texts]
    kinds = [kind for kind, _ in shapes[0]]
    if (
        not 1 <= len(kinds) <= _MOST_RUNS
        or None in kinds
        or any([kind for kind, _ in each] != kinds for each in shapes)
    ):
        return None
    return "".join(
        f"{kind}{_times([each[place][1] for each in shapes])}" for place, kind in enumerate(kinds) if kind is not None
    )


def _class(character: str) -> str | None:
    if "A" <= character <= "Z":
        return "[A-Z]"
    if "a" <= character <= "z":
        return "[a-z]"
    if "0" <= character <= "9":
        return "[0-9]"
    return re.escape(character) if character.isascii() and character.isprintable() else None


def _times(lengths: Sequence[int]) -> str:
    low, high = min(lengths), max(lengths)
    if low == high:
        return "" if low == 1 else f"{{{low}}}"
    return f"{{{low},{high}}}"


def _seen(found: ColumnProfile) -> str:
    if found.kind in ("number", "whole") and found.low is not None and found.high is not None:
        return f"seen {found.low:g} … {found.high:g}"
    if found.kind == "text" and found.low is not None and found.high is not None:
        return f"{found.distinct.count} different, {found.low:g} to {found.high:g} characters"
    return ""
