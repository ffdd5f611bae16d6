"""Pure decisions about traces as wholes: ids, what spans say of a trace, which judgements are numbers."""

import re
from collections.abc import Sequence
from typing import Any, Final

import orjson

from holdtrue.core.errors import InvalidInput
from holdtrue.traces.infos.model import NAME, SESSION, USER, Assessment, State, TraceInfo
from holdtrue.traces.model import Feedback, Span, StoredSpan

_ID = re.compile(r"(?:tr-)?([0-9a-f]{32})")
_PREVIEW: Final = 1000
_WORDS: Final = {"yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0, "pass": 1.0, "fail": 0.0}
_STATES: Final = {"ok": State.OK, "error": State.ERROR}


def check_trace_id(text: Any) -> str:
    """Return the digits of a trace's id, which clients may write with “tr-” before them."""
    match = _ID.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InvalidInput(
            f"Invalid trace ID: {str(text)[:100]!r}.", why="It is “tr-” and 32 hexadecimal digits in lower case."
        )
    return match[1]


def from_spans(experiment: int, spans: Sequence[Span] | Sequence[StoredSpan]) -> TraceInfo:
    """Return what the spans of one trace (one at least) say of it; without a root it is still going on."""
    root = next((span for span in spans if span.parent_id is None), None)
    start, end = min(span.start for span in spans), max(span.end for span in spans)
    tags: dict[str, str] = {}
    metadata: dict[str, str] = {}
    request = response = ""
    if root is not None:
        tags[NAME] = root.name
        start, end = root.start, root.end
        request = _preview(root.attributes.get("mlflow.spanInputs"))
        response = _preview(root.attributes.get("mlflow.spanOutputs"))
        for key, name in (("user.id", USER), ("session.id", SESSION)):
            if isinstance(root.attributes.get(key), str):
                metadata[name] = root.attributes[key]
        for key, value in root.attributes.items():
            if key.startswith("mlflow.traceTag.") and isinstance(value, str):
                tags[key.removeprefix("mlflow.traceTag.")] = value
    return TraceInfo(
        spans[0].trace_id,
        experiment,
        start // 1000,
        None if root is None else max(0, end - start) // 1000,
        State.IN_PROGRESS if root is None else _STATES.get(root.status, State.OK),
        request,
        response,
        metadata=metadata,
        tags=tags,
    )


def _preview(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= _PREVIEW else f"{text[: _PREVIEW - 3]}..."


def number_of(value: Any) -> float | None:
    """Return what a judgement is as a number: numbers, true and false, yes and no; None for other values."""
    if isinstance(value, bool | int | float):
        return float(value) if abs(value) < 1e15 else None
    return _WORDS.get(value.lower()) if isinstance(value, str) else None


def opinion_of(assessment: Assessment) -> Feedback | None:
    """Return an assessment as feedback, as pages and searches know it; None if it is no number, or not valid."""
    number = number_of(assessment.value)
    if number is None or assessment.kind != "feedback" or not assessment.valid:
        return None
    source = assessment.body.get("source")
    span = assessment.body.get("span_id")
    rationale = assessment.body.get("rationale")
    plain = isinstance(assessment.value, int | float) and not isinstance(assessment.value, bool)
    return Feedback(
        id=assessment.id,
        time=assessment.created_ms * 1000,
        name=assessment.name,
        value=number,
        kind="number" if plain else "bool",
        low=min(0.0, number),
        high=max(1.0, number),
        trace_id=assessment.trace,
        span_id=span if isinstance(span, str) else None,
        prediction_id=None,
        comment=rationale if isinstance(rationale, str) else None,
        user=source.get("source_id") if isinstance(source, dict) else None,
    )
