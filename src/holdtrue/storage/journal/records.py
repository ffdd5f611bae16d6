"""Records on their way into a frame: checked, then columnar JSON."""

import zlib
from collections.abc import Mapping
from typing import Any

import orjson

from holdtrue.core.errors import InvalidInput, TooLarge
from holdtrue.core.ids import check_name
from holdtrue.storage.journal.frames import FRAME_LIMIT, ROW, Records, stream_name

# 9999-12-31 in microseconds since the epoch: times beyond have no calendar day.
_LAST = 253_402_300_799_999_999
_SCALARS = frozenset({str, int, float, bool, type(None), dict})
_VALUES = "Use strings, numbers, true, false and null."
_MICROSECONDS = "Use core.clock.microseconds(moment)."
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def stream_of(kind: str, project: str, service: str) -> bytes:
    """Return the name of a stream; its parts become folder names, so InvalidInput unless each is a name.

    A service may be followed by “@” and the name of an environment, whose records are a stream of their own.
    """
    check_name(service.partition("@")[0], "service name")
    if "@" in service:
        check_name(service.partition("@")[2], "environment name")
    return stream_name(check_name(kind, "record kind"), check_name(project, "project name"), service)


def encode_records(columns: Mapping[str, Any], rows: int) -> Records:
    """Return what a frame holds; InvalidInput names the column that cannot be stored."""
    if rows < 1:
        raise _invalid("columns", "an append has no rows", "Append at least one record, or nothing.")
    if ROW in columns:
        raise _invalid(ROW, "that name is the journal's own", "Call the column something else.")
    # This loop runs for every prediction: the usual case, a list of the right length, leaves it at once.
    for values in columns.values():
        if type(values) is list:
            if len(values) != rows:
                raise _uneven(columns, rows)
        elif type(values) not in _SCALARS and _length(values, rows) != rows:
            raise _uneven(columns, rows)
    _check_ids(columns.get("id"), rows)
    first, last = _span(columns.get("time"))
    try:
        payload = orjson.dumps(columns if type(columns) is dict else dict(columns), option=_OPTIONS)
    except (TypeError, orjson.JSONEncodeError) as error:
        raise _invalid("columns", str(error), _VALUES) from error
    if len(payload) > FRAME_LIMIT:
        raise TooLarge(
            f"An append of {len(payload)} bytes is too large.",
            why=f"One frame holds up to {FRAME_LIMIT} bytes.",
            mend="Append fewer records at once.",
        )
    return payload, zlib.crc32(payload), rows, first, last


def _check_ids(ids: Any, rows: int) -> None:
    if type(ids) is list or type(ids) is tuple:
        for value in ids:
            if type(value) is not str:
                break
        else:
            return
    elif type(ids) is str and rows == 1:
        return
    raise _invalid("id", "each record needs a string that names it alone", "Give a list of one id per row.")


def _span(times: Any) -> tuple[int, int]:
    """Return the earliest and latest of a time column."""
    first = last = -1
    if type(times) is list or type(times) is tuple:
        first = last = times[0]
        for value in times:
            if type(value) is not int:
                first = -1
                break
            if value < first:
                first = value
            elif value > last:
                last = value
    elif type(times) is int:
        first = last = times
    elif getattr(getattr(times, "dtype", None), "str", "") == "<i8" and times.ndim == 1:
        first, last = int(times.min()), int(times.max())
    if first >= 0 and last <= _LAST:
        return first, last
    raise _invalid("time", "it is not int64 microseconds since the epoch", _MICROSECONDS)


def _length(values: Any, rows: int) -> int:
    """Return the length of a tuple or array, `rows` for a scalar of numpy, -1 for what is no JSON value."""
    try:
        return len(values)
    except TypeError:
        return rows if hasattr(values, "dtype") else -1


def _uneven(columns: Mapping[str, Any], rows: int) -> InvalidInput:
    for name, values in columns.items():
        if type(values) not in _SCALARS and (count := _length(values, rows)) != rows:
            if count < 0:
                return _invalid(name, f"{type(values).__name__} is not a JSON value", _VALUES)
            return _invalid(name, f"it has {count} values for {rows} rows", "Give one value per row, or one for all.")
    raise AssertionError("every column has the right length")


def _invalid(column: str, why: str, mend: str) -> InvalidInput:
    return InvalidInput(
        f"Records cannot be stored: column “{column[:80]}”.",
        why=f"{why}.",
        mend=mend,
        facts={"column": column[:80]},
    )
