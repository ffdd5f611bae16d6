"""Rows that come as Python values become columns of one type each, or it is said which rows do not fit."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa

from holdtrue.core.errors import InvalidInput

_NAMES: tuple[tuple[type[Any] | tuple[type[Any], ...], str], ...] = (
    (bool, "truth"),
    (int, "whole number"),
    ((float, Decimal), "number"),
    ((str, uuid.UUID), "text"),
    ((bytes, bytearray, memoryview), "bytes"),
    (date, "day"),
    (time, "time of day"),
)
_TYPES: dict[str, pa.DataType] = {
    "truth": pa.bool_(),
    "whole number": pa.int64(),
    "number": pa.float64(),
    "text": pa.string(),
    "bytes": pa.binary(),
    "moment": pa.timestamp("us", "UTC"),
    "moment without a time zone": pa.timestamp("us"),
    "day": pa.date32(),
    "time of day": pa.time64("us"),
}


@dataclass(slots=True)
class Gathered:
    """Gather one column batch by batch; every value has the same kind, but that whole numbers may be numbers too."""

    name: str
    kinds: dict[str, int] = field(default_factory=dict[str, int])
    batches: "list[pa.Array[Any]]" = field(default_factory=list)
    rows: int = 0

    def add(self, values: Sequence[Any]) -> None:
        """Take the next rows; InvalidInput names the first rows of each kind if they do not go together."""
        seen: set[type[Any]] = set()
        for place, value in enumerate(values):
            # Moments of one type may have a time zone or none; of all other types the first one tells.
            if value is not None and (type(value) not in seen or isinstance(value, datetime)):
                seen.add(type(value))
                self.kinds.setdefault(_kind(value), self.rows + place + 1)
        if len(self.kinds) > 1 and self.kinds.keys() != {"whole number", "number"}:
            raise self._mixed()
        self.batches.append(self._array(values))
        self.rows += len(values)

    def column(self) -> pa.ChunkedArray:
        """Return all that was taken."""
        wanted: Any = _TYPES["number"] if len(self.kinds) > 1 else _TYPES.get(next(iter(self.kinds), ""))
        if wanted is None:
            return pa.chunked_array(self.batches) if self.batches else pa.chunked_array([pa.nulls(0)])
        return pa.chunked_array([batch.cast(wanted, safe=False) for batch in self.batches], wanted)

    def _array(self, values: Sequence[Any]) -> "pa.Array[Any]":
        kind = next(reversed(self.kinds), "") if len(self.kinds) < 2 else "number"
        plain: Sequence[Any] = values
        if kind == "number":
            plain = [None if value is None else float(value) for value in values]
        elif kind == "text":
            plain = [value if value is None else str(value) for value in values]
        elif kind == "bytes":
            plain = [value if value is None else bytes(value) for value in values]
        try:
            return pa.array(plain, _TYPES.get(kind))
        except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
            raise InvalidInput(
                f"The column “{self.name}” cannot be read.",
                why=f"Of rows {self.rows + 1:,} to {self.rows + len(values):,}: {str(error).splitlines()[0]}",
                mend="Cast it in the query to a type that all its values have.",
                facts={"column": self.name},
            ) from error

    def _mixed(self) -> InvalidInput:
        said = ", ".join(f"{kind} (row {row:,})" for kind, row in self.kinds.items())
        zones = {"moment", "moment without a time zone"} == self.kinds.keys()
        return InvalidInput(
            f"The column “{self.name}” has values of several kinds: {said}.",
            why="A moment without a time zone is another one everywhere." if zones else "A column has one type.",
            mend="Say in the query what all of them are, for example with CAST.",
            facts={"column": self.name, "rows": dict(self.kinds)},
        )


def _kind(value: Any) -> str:
    if isinstance(value, datetime):
        return "moment without a time zone" if value.utcoffset() is None else "moment"
    return next((name for kind, name in _NAMES if isinstance(value, kind)), type(value).__name__)
