"""Records on their way into a frame: checked, then columnar JSON."""

from collections.abc import Mapping
from typing import Any

import orjson

from holdtrue.core.errors import InvalidInput, TooLarge
from holdtrue.core.ids import check_name
from holdtrue.storage.journal.frames import FRAME_LIMIT, stream_name

# 9999-12-31 in microseconds since the epoch: times beyond have no calendar day.
_LAST = 253_402_300_799_999_999
_SCALARS = frozenset({str, int, float, bool, type(None), dict})
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def stream_of(kind: str, project: str, service: str) -> bytes:
    """Return the name of a stream; its parts become folder names, so each must be a name. Raises InvalidInput."""
    return stream_name(
        check_name(kind, "record kind"),
        check_name(project, "project name"),
        check_name(service, "service name"),
    )


def encode_columns(columns: Mapping[str, Any], rows: int) -> bytes:
    """Return the JSON payload of a frame; InvalidInput names the column that cannot be stored."""
    if rows < 1:
        raise _invalid("columns", "an append has no rows", "Append at least one record, or nothing.")
    for name, values in columns.items():
        kind = type(values)
        if kind is list or kind is tuple or (kind not in _SCALARS and hasattr(values, "__len__")):
            if len(values) != rows:
                raise _invalid(
                    name,
                    f"it has {len(values)} values for {rows} rows",
                    "Give one value per row, or one for all.",
                )
    _check_ids(columns.get("id"), rows)
    _check_times(columns.get("time"))
    try:
        payload = orjson.dumps(columns if type(columns) is dict else dict(columns), option=_OPTIONS)
    except (TypeError, orjson.JSONEncodeError) as error:
        raise _invalid("columns", str(error), "Use strings, numbers, true, false and null.") from error
    if len(payload) > FRAME_LIMIT:
        raise TooLarge(
            f"An append of {len(payload)} bytes is too large.",
            why=f"One frame holds up to {FRAME_LIMIT} bytes.",
            mend="Append fewer records at once.",
        )
    return payload


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


def _check_times(times: Any) -> None:
    if type(times) is int:
        if 0 <= times <= _LAST:
            return
    elif type(times) is list or type(times) is tuple:
        for value in times:
            if type(value) is not int or not 0 <= value <= _LAST:
                break
        else:
            return
    elif (
        getattr(getattr(times, "dtype", None), "str", "") == "<i8"
        and times.min() >= 0
        and times.max() <= _LAST
    ):
        return
    raise _invalid(
        "time", "it is not int64 microseconds since the epoch", "Use core.clock.microseconds(moment)."
    )


def _invalid(column: str, why: str, mend: str) -> InvalidInput:
    return InvalidInput(
        f"Records cannot be stored: column “{column[:80]}”.",
        why=f"{why}.",
        mend=mend,
        facts={"column": column[:80]},
    )
