"""HTTP routes of traces: search, and one trace with all its spans."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from holdtrue.core.access import Permission
from holdtrue.core.clock import from_microseconds, microseconds
from holdtrue.core.codec import dump
from holdtrue.core.errors import InvalidInput
from holdtrue.door import Call, Routes
from holdtrue.traces import infos, service
from holdtrue.traces.conversation import conversation
from holdtrue.traces.model import Feedback, FeedbackFilter, Message, StoredSpan, Summary, Trace, TraceFilter

routes = Routes("traces")
_TEXTS: Final = ("service", "release", "name", "status", "model", "user", "session", "cursor")
_LATEST: Final = 253_402_300_799_999_999
_MOST_ATTRIBUTES: Final = 16


@routes.get(
    "/api/projects/{project}/traces",
    Permission.TRACES_READ,
    summary="Search traces, the newest first.",
)
def list_traces(call: Call) -> Any:
    """Return a page of traces; query: the fields of `filter_of`, and limit and cursor."""
    page = service.search(call.stores, filter_of(call.project, call.query))
    return {"items": [summary_json(each) for each in page.items], "next": page.next}


@routes.get("/api/traces/{trace_id}", Permission.TRACES_READ, summary="Show a trace with all its spans.")
def show_trace(call: Call) -> Any:
    """Return one trace; who may see all projects finds it in whichever has it."""
    named = call.path["trace_id"]
    if call.project:
        return {**trace_json(service.find_trace(call.stores, call.project, named)), "info": _info(call, named)}
    return trace_json(service.find_anywhere(call.stores, named))


def _info(call: Call, trace_id: str) -> dict[str, Any] | None:
    """Return what is noted of a trace beside its spans, None if nothing is."""
    found = call.read(lambda c: infos.several(c, call.project, [trace_id]))
    return dump(found[0]) if found else None


def filter_of(project: str, query: Mapping[str, str]) -> TraceFilter:
    """Return the filter that a query asks for; InvalidInput for a value that cannot be used.

    Fields: since, until (ISO 8601, or microseconds), service, release, name, status, model, user, session,
    min_duration (milliseconds), attribute (name=value), attributes (a JSON object of texts), text,
    feedback (a name), feedback_least, feedback_most, limit, cursor. Empty fields ask for nothing.
    """
    given = {name: value for name, value in query.items() if value != ""}
    least = _number(given, "min_duration")
    rated = given.get("feedback")
    status = given.get("status")
    if status not in (None, "ok", "error", "unset"):
        raise InvalidInput("A span's status is ok, error or unset.", mend="Use one of these.")
    return TraceFilter(
        project=project,
        since=_moment(given, "since"),
        until=_moment(given, "until"),
        min_duration=None if least is None else round(least * 1000),
        attributes=_attributes(given),
        text=given.get("text", "")[:1000],
        feedback=None
        if rated is None
        else FeedbackFilter(rated, _number(given, "feedback_least"), _number(given, "feedback_most")),
        limit=_limit(given),
        **{name: given.get(name) for name in _TEXTS},
    )


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", "50")
    if not text.isdecimal() or not 1 <= int(text[:9]) <= service.MOST_PAGE:
        raise InvalidInput(
            f"The limit {text[:20]!r} cannot be used.", mend=f"Give a number from 1 to {service.MOST_PAGE}."
        )
    return int(text)


def _number(query: Mapping[str, str], name: str) -> float | None:
    text = query.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not -1e15 < value < 1e15:
        raise InvalidInput(f"The field {name} is not a number: {text[:40]!r}.")
    return value


def _moment(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) > 8:
        return min(int(text[:19]), _LATEST)
    try:
        moment = datetime.fromisoformat(text)
        return microseconds(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"The field {name} is not a moment: {text[:40]!r}.",
            mend="Write it like 2026-03-01T12:00:00Z, or as microseconds since the epoch.",
        ) from None


def _attributes(query: Mapping[str, str]) -> dict[str, str]:
    found: Any = {}
    if "attributes" in query:
        try:
            found = orjson.loads(query["attributes"])
        except orjson.JSONDecodeError:
            found = {"": ""}
        if not isinstance(found, dict) or not all(name and isinstance(value, str) for name, value in found.items()):
            raise InvalidInput("The field attributes is not a JSON object of texts.")
    if "attribute" in query:
        name, mark, value = query["attribute"].partition("=")
        if not mark or not name:
            raise InvalidInput("An attribute is asked for as name=value.", mend="Example: gen_ai.request.model=gpt-4o")
        found = {**found, name: value}
    if len(found) > _MOST_ATTRIBUTES:
        raise InvalidInput(f"At most {_MOST_ATTRIBUTES} attributes can be asked for at once.")
    return found


def summary_json(summary: Summary) -> dict[str, Any]:
    """Return the JSON form of one line of a listing."""
    said = asdict(summary)
    said["span_count"] = said.pop("spans")
    said["started_at"] = _iso(summary.start)
    said["feedback"] = [feedback_json(each) for each in summary.feedback]
    return said


def feedback_json(feedback: Feedback) -> dict[str, Any]:
    """Return the JSON form of feedback; yes or no where that was said."""
    value = bool(feedback.value) if feedback.kind == "bool" else feedback.value
    return {**asdict(feedback), "value": value, "given_at": _iso(feedback.time)}


def trace_json(trace: Trace) -> dict[str, Any]:
    """Return the JSON form of a trace with its spans."""
    return {**summary_json(trace.summary), "spans": [span_json(span) for span in trace.spans]}


def span_json(span: StoredSpan) -> dict[str, Any]:
    """Return the JSON form of a span with its messages."""
    said = asdict(span)
    del said["text"]
    given, came = conversation(span.attributes, span.events)
    messages = {"input": [_message(each) for each in given], "output": [_message(each) for each in came]}
    return {**said, "duration": span.duration, "started_at": _iso(span.start), "messages": messages}


def _message(message: Message) -> dict[str, Any]:
    calls = [{"name": name, "arguments": said, "id": call} for name, said, call in message.calls]
    return {"role": message.role, "text": message.text, "tool_calls": calls, "tool_answer": message.answers}


def _iso(value: int) -> str:
    return from_microseconds(value).isoformat().replace("+00:00", "Z")
