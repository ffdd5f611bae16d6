"""Whether traces and their spans meet the conditions of a filter: one span must meet all of those on spans.

Regular expressions (RLIKE) are RE2's: they take time in proportion to the text, whatever a client writes, and mean the
same on every database.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from holdtrue.core.errors import InvalidInput
from holdtrue.core.filters import Condition
from holdtrue.traces.infos.model import NAME, RUN, TraceInfo
from holdtrue.traces.model import StoredSpan

Reader = Callable[[str], Sequence[StoredSpan]]
"""Read the spans of a trace by its id."""

_LONGEST = 1_000
_STATES = {"ok": "OK", "error": "ERROR", "unset": "UNSET"}


def check_pattern(pattern: str) -> None:
    """Raise InvalidInput for a regular expression that is too long, or that is none."""
    if len(pattern) > _LONGEST:
        raise InvalidInput(f"A regular expression has at most {_LONGEST} signs.", mend="Use a shorter one, or LIKE.")
    found_in(pattern, [""])


def found_in(pattern: str, texts: Sequence[str | None]) -> list[bool]:
    """Tell for each text whether a regular expression is found in it; in None it is not."""
    # Imported here: few searches ask for it, and the server starts without it.
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        found: list[bool | None] = pc.call_function(
            "match_substring_regex", [pa.array(texts, pa.string())], pc.MatchSubstringOptions(pattern)
        ).to_pylist()
    except pa.ArrowInvalid as error:
        raise InvalidInput(
            f"{pattern[:80]!r} is not a regular expression.",
            why=f"{str(error).removeprefix('Invalid regular expression: ')}.",
            mend="Write it as RE2 takes it: without look-around and back-references.",
        ) from None
    return [each is True for each in found]


def regular(traces: Sequence[TraceInfo], condition: Condition) -> list[bool]:
    """Tell for each trace whether what it says under a name holds a regular expression."""
    said = [said_by(info, condition) for info in traces]
    flat = [text for texts in said for text in texts]
    hits = iter(found_in(str(condition.value), flat))
    # Every hit is taken, so that the next trace begins at its own.
    return [sum(next(hits) for _ in texts) > 0 for texts in said]


def said_by(info: TraceInfo, condition: Condition) -> list[str]:
    """Return the texts that a trace has under the name a condition is about."""
    entity, key = condition.subject.entity, condition.subject.key
    if entity in ("feedback", "expectation"):
        mine = [each for each in info.assessments if each.valid and (each.kind, each.name) == (entity, key)]
        return [each.value if isinstance(each.value, str) else orjson.dumps(each.value).decode() for each in mine]
    known = {"tag": info.tags, "metadata": info.metadata}.get(entity)
    if known is None:
        known = {
            "id": f"tr-{info.id}",
            "state": info.state.value,
            "client_request": info.client_request,
            "name": info.tags.get(NAME, ""),
            "run": info.metadata.get(RUN, ""),
        }
    return [known[key]] if key in known else []


def meets(spans: Sequence[StoredSpan], conditions: Sequence[Condition]) -> bool:
    """Tell whether a span meets every condition on spans; text may be said by any of them."""
    alike = [each for each in conditions if each.subject.entity == "span" and each.subject.key != "content"]
    said = [each for each in conditions if each not in alike]
    if alike and not any(all(_holds(span, each) for each in alike) for span in spans):
        return False
    return all(any(_compared(_content(span), each) for span in spans) for each in said)


def _holds(span: StoredSpan, condition: Condition) -> bool:
    key = condition.subject.key
    if key == "name":
        value: Any = span.name
    elif key == "type":
        value = span.attributes.get("mlflow.spanType") or span.operation
    elif key == "status":
        value = _STATES.get(span.status, span.status)
    else:
        value = span.attributes.get(key.removeprefix("attributes."))
    return _compared(value, condition)


def _content(span: StoredSpan) -> str:
    return orjson.dumps([span.name, span.attributes, span.message, span.events]).decode()


def _compared(value: Any, condition: Condition) -> bool:
    operator, wanted = condition.operator, condition.value
    if operator == "IS NULL":
        return value is None
    if value is None:
        return False
    if operator == "IS NOT NULL":
        return True
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    if operator in ("IN", "NOT IN"):
        assert isinstance(wanted, tuple)
        return (text in wanted) == (operator == "IN")
    if operator in ("LIKE", "ILIKE"):
        return _like(str(wanted), operator == "ILIKE").fullmatch(text) is not None
    if operator == "RLIKE":
        return found_in(str(wanted), [text])[0]
    return (text == str(wanted)) == (operator == "=")


def _like(pattern: str, careless: bool) -> re.Pattern[str]:
    parts = {"%": ".*", "_": "."}
    text = "".join(parts.get(sign) or re.escape(sign) for sign in pattern)
    return re.compile(text, re.DOTALL | (re.IGNORECASE if careless else re.NOFLAG))
