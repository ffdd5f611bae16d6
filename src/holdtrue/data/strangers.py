"""Texts among numbers or moments: a column of a text file that a few values have made a column of texts."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from holdtrue.core.errors import InvalidInput

MOST = 0.1
"""Up to this share of a column's values are strangers; with more, it is one of texts."""
_LEAST_ROWS = 10
_SAMPLE = 1000
_NAMED = 3
_SHOWN = 40
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
_CLOCK = r"^\s*\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.,]\d+)?)?)?"
_ZONE = r"\s*(Z|UTC|[+-]\d\d(:?\d\d)?)\s*$"
_MOMENT = rf"{_CLOCK}({_ZONE[:-1]})?$"


def check_texts(path: Path, table: pa.Table, told: frozenset[str], *, typed: bool = False) -> None:
    """Raise InvalidInput for a column of texts most of which are numbers or moments, naming rows that are not.

    Moments some of which have a time zone and some have none are named as well, however few they are: of a file that
    is `typed`, in which a text is meant as one, only these. Columns in `told` are texts.
    """
    for place, name in enumerate(table.column_names):
        values = table.column(place)
        if name not in told and pa.types.is_string(values.type) and len(values) > 1:
            _check(path, name, values, typed=typed)


def _check(path: Path, name: str, values: pa.ChunkedArray, *, typed: bool) -> None:
    some = values.take(pa.array(np.linspace(0, len(values) - 1, min(len(values), _SAMPLE)).astype(np.int64)))
    alike = max(_count(_matches(some, pattern)) for pattern in (_NUMBER, _MOMENT))
    if alike * 2 < len(some) - _count(_call("or_kleene", some.is_null(), _call("equal", some, pa.scalar("")))):
        return
    there = _call("and", values.is_valid(), _call("not_equal", values, pa.scalar("")))
    filled = _count(there)
    for kind, pattern in (("numbers", _NUMBER), ("moments", _MOMENT)):
        strangers = _call("and_not", there, _matches(values, pattern))
        count = _count(strangers)
        if filled >= _LEAST_ROWS and 0 < count <= filled * MOST and not typed:
            raise _refused(path, name, values, strangers, f"{filled - count:,} of {filled:,} values are {kind}")
        if count == 0 and kind == "moments":
            _check_zones(path, name, values, there)


def _check_zones(path: Path, name: str, values: pa.ChunkedArray, there: Any) -> None:
    # A day of its own has no zone and needs none; with a clock beside it, it has to say whose.
    zoned = _matches(values, rf"{_CLOCK}{_ZONE}")
    bare = _call("and_not", there, zoned)
    if _count(bare) and _count(_call("and", there, zoned)):
        raise InvalidInput(
            f"The moments of “{name}” in {path} have a time zone in some rows and none in others.",
            why=f"Without one: {_examples(values, bare)}; with one: {_examples(values, _call('and', there, zoned))}.",
            mend=f"Write each with its zone, such as 2013-01-01T05:00:00Z, or keep the column as it is: --text {name}",
            facts={"file": str(path), "column": name},
        )


def _refused(path: Path, name: str, values: pa.ChunkedArray, strangers: Any, said: str) -> InvalidInput:
    first = str(values.filter(strangers)[0].as_py())[:_SHOWN]
    return InvalidInput(
        f"The column “{name}” of {path} has values of several types: {said}.",
        why=f"The others: {_examples(values, strangers)}.",
        mend=f"Mend these rows; or say that such a value means none (--missing {first!r}), or that all are texts "
        f"(--text {name}).",
        facts={"file": str(path), "column": name},
    )


def _examples(values: pa.ChunkedArray, which: Any) -> str:
    rows: list[int] = _call("indices_nonzero", which).slice(0, _NAMED).to_pylist()
    shown = [f"{str(values[row].as_py())[:_SHOWN]!r} in row {row + 1:,}" for row in rows]
    more = _count(which) - len(rows)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def _matches(values: pa.ChunkedArray, pattern: str) -> Any:
    found = pc.call_function("match_substring_regex", [values], pc.MatchSubstringOptions(pattern))
    return found.fill_null(False)


def _call(name: str, *arguments: Any) -> Any:
    return pc.call_function(name, list(arguments))


def _count(mask: Any) -> int:
    return _call("sum", mask.cast(pa.int64())).as_py() or 0
