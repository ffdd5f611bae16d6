"""Whether the spans of a trace meet the conditions of a filter: one span must meet all of them."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from holdtrue.core.filters import Condition
from holdtrue.traces.model import StoredSpan

Reader = Callable[[str], Sequence[StoredSpan]]
"""Read the spans of a trace by its id."""

_STATES = {"ok": "OK", "error": "ERROR", "unset": "UNSET"}


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
    return orjson.dumps([span.name, span.attributes]).decode()


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
    return (text == str(wanted)) == (operator == "=")


def _like(pattern: str, careless: bool) -> re.Pattern[str]:
    parts = {"%": ".*", "_": "."}
    text = "".join(parts.get(sign) or re.escape(sign) for sign in pattern)
    return re.compile(text, re.DOTALL | (re.IGNORECASE if careless else re.NOFLAG))
