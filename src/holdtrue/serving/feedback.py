"""Feedback: what people say of an answer, on the disk before it is acknowledged."""

import math
import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from holdtrue.core.access import Permission
from holdtrue.core.canonical import bytes_hash
from holdtrue.core.errors import InvalidInput
from holdtrue.core.ids import is_prediction_id
from holdtrue.serving.endpoints import Endpoint, Reply, Request
from holdtrue.serving.engine import Engine
from holdtrue.storage import Writer
from holdtrue.traces.model import DEFAULT_SERVICE, FEEDBACK

BODY: Final = 1 << 20
MOST: Final = 1000
_FIELDS: Final = frozenset({"trace_id", "span_id", "prediction_id", "name", "value", "range", "comment", "user", "id"})
_ABOUT: Final = ("trace_id", "span_id", "prediction_id")
_TRACE = re.compile("[0-9a-f]{32}")
_SPAN = re.compile("[0-9a-f]{16}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/-]{0,62}")


class BadFeedback(InvalidInput):
    """Feedback does not have the form that is asked for."""

    code = "bad_feedback"


def feedback_endpoints(engine: Engine, records: Writer) -> tuple[Endpoint, ...]:
    """Return the endpoint that takes feedback; `records` is a strict writer: what is acknowledged is on the disk."""

    async def feedback(request: Request) -> Reply:
        columns, rows = feedback_columns(request.body, engine.now_us())
        await records.append_async(FEEDBACK, request.project, DEFAULT_SERVICE, columns, rows)
        return Reply(200, orjson.dumps({"accepted": rows}))

    return (Endpoint("POST", "/feedback", Permission.LABELS_WRITE, feedback, body_limit=BODY),)


def feedback_columns(body: bytes, now_us: int) -> tuple[dict[str, Any], int]:
    """Return the journal columns of one piece of feedback, or of a list of them under `feedback`.

    A piece is named by what it says, so that a retry counts once and a changed mind is a new record.
    """
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _bad(f"The body is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise _bad("The body is not a JSON object.")
    given = data["feedback"] if set(data) == {"feedback"} else [data]
    if not isinstance(given, list) or not 0 < len(given) <= MOST:
        raise _bad(f"The field feedback is not a list of 1 to {MOST} objects.")
    rows = [_placed(each, now_us, place) for place, each in enumerate(given, 1)] if "feedback" in data else []
    rows = rows or [_piece(data, now_us)]
    return {name: [row[name] for row in rows] for name in rows[0]}, len(rows)


def _placed(data: Any, now_us: int, place: int) -> dict[str, Any]:
    """Return one piece of several; what is wrong with it is told with its place, which begins at 1."""
    try:
        return _piece(data, now_us)
    except BadFeedback as error:
        raise BadFeedback(
            f"Piece {place} of the list: {error.what}", why=error.why, mend=error.mend, facts={"position": place}
        ) from None


def _piece(data: Any, now_us: int) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise _bad("A piece of feedback is not a JSON object.")
    if not data.keys() <= _FIELDS:
        raise _bad(f"Unknown field {min(data.keys() - _FIELDS)[:60]!r}.")
    about = {name: _id(data, name) for name in _ABOUT}
    if not any(about.values()):
        raise _bad("One of trace_id, span_id and prediction_id is needed.")
    name = data.get("name")
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise _bad("The name has 1 to 63 letters, digits, spaces or “._/-”, and starts with a letter or digit.")
    low, high = _range(data.get("range"))
    value = data.get("value")
    if isinstance(value, bool):
        kind, number = "bool", float(value)
    elif isinstance(value, int | float) and math.isfinite(value):
        kind, number = "number", float(value)
    else:
        raise _bad("The value is not a number, true or false.")
    if not low <= number <= high:
        raise _bad(f"The value {number:g} is not between {low:g} and {high:g}. Declare another range: [least, most].")
    comment, user = _text(data, "comment", 4000), _text(data, "user", 200)
    said = [*about.values(), name, kind, number, low, high, comment, user]
    own = data.get("id")
    if own is not None and not (isinstance(own, str) and 0 < len(own) <= 200):
        raise _bad("The id is not a text of 1 to 200 signs.")
    return {
        "id": own or f"fbk_{bytes_hash(orjson.dumps(said))[:26]}",
        "time": now_us,
        **about,
        "name": name,
        "value": number,
        "kind": kind,
        "low": low,
        "high": high,
        "comment": comment,
        "user": user,
    }


def _id(data: Mapping[str, Any], name: str) -> str | None:
    value = data.get(name)
    if value is None:
        return None
    if name == "prediction_id":
        if isinstance(value, str) and is_prediction_id(value):
            return value
        raise BadFeedback(
            "The prediction_id is none.",
            why=f"{str(value)[:60]!r} is not “prd_” and 31 hexadecimal digits, as answers come with.",
            mend="Send the id as it stands in the answer: prediction_id, or one of parameters.prediction_ids.",
        )
    pattern, digits = (_TRACE, 32) if name == "trace_id" else (_SPAN, 16)
    if isinstance(value, str) and pattern.fullmatch(value.lower()):
        return value.lower()
    raise _bad(f"The {name} is not {digits} hexadecimal digits.")


def _range(given: Any) -> tuple[float, float]:
    if given is None:
        return 0.0, 1.0
    if isinstance(given, list) and len(given) == 2 and all(type(each) in (int, float) for each in given):
        low, high = float(given[0]), float(given[1])
        if math.isfinite(low) and math.isfinite(high) and low < high:
            return low, high
    raise _bad("The range is not [least, most].")


def _text(data: Mapping[str, Any], name: str, most: int) -> str | None:
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > most:
        raise _bad(f"The {name} is not a text of at most {most} signs.")
    return value or None


def _bad(what: str) -> BadFeedback:
    return BadFeedback(what, mend="See docs/guide/traces.md for the form of feedback.")
