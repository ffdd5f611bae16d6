"""Read what the pages about traces show."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from holdtrue.core.clock import from_microseconds
from holdtrue.storage import Stores
from holdtrue.traces import Feedback, StoredSpan, Summary, Trace, infos
from holdtrue.traces import service as traces
from holdtrue.traces.api import filter_of
from holdtrue.traces.conversation import conversation
from holdtrue.traces.infos.model import RUN
from holdtrue.traces.rules import nested
from holdtrue.web import texts, urls
from holdtrue.web.model import FeedbackRow, OpenSpan, SpanBar, TracePage, TraceRow, TracesPage

PAGE: Final = 50
MOST_BARS: Final = 1000
SCALE: Final = 1000.0
FIELDS: Final = (
    "text",
    "service",
    "release",
    "name",
    "status",
    "model",
    "user",
    "session",
    "since",
    "until",
    "min_duration",
    "attribute",
    "feedback",
    "feedback_least",
    "feedback_most",
)
_USUAL: Final = frozenset({"text", "service", "status", "min_duration"})
_LONG: Final = 20_000
_EXAMPLE: Final = (
    'export OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="$HOLDTRUE_DATA_URL/v1/traces"\n'
    'export OTEL_EXPORTER_OTLP_HEADERS="Authorization=Bearer $HOLDTRUE_TOKEN"\n'
    "opentelemetry-instrument python app.py"
)


def listing(stores: Stores, project: str, query: Mapping[str, str]) -> TracesPage:
    """Return one page of traces, the newest first; InvalidInput for a filter that cannot be used."""
    asked = {name: query[name] for name in FIELDS if query.get(name)}
    cursor = query.get("cursor") or None
    wanted = filter_of(project, {**asked, "limit": str(PAGE), **({"cursor": cursor} if cursor else {})})
    page = traces.search(stores, wanted)
    rows = tuple(
        TraceRow(each, from_microseconds(each.start), urls.trace(project, each.trace_id), _opinions(each))
        for each in page.items
    )
    older = urls.traces(project, **asked, cursor=page.next) if page.next else None
    return TracesPage(rows, asked, not asked.keys() <= _USUAL, older, cursor is None, _EXAMPLE)


def one(stores: Stores, project: str, trace_id: str, span_id: str | None) -> TracePage:
    """Return one trace with one of its spans opened: the one asked for, else the first that says something."""
    trace = traces.find_trace(stores, project, trace_id)
    opened = next((span for span in trace.spans if span.span_id == span_id), None) or _telling(trace.spans)
    lines = nested(trace.spans)
    return TracePage(
        summary=trace.summary,
        cards=_cards(trace.summary),
        bars=tuple(_bar(project, trace, span, depth, span is opened) for span, depth in lines[:MOST_BARS]),
        left_out=max(0, trace.summary.spans - MOST_BARS),
        opened=_opened(opened),
        feedback=tuple(_feedback(each, trace.spans) for each in trace.feedback),
        data_url=urls.trace_data(project, trace_id),
        notes=_notes(stores, project, trace_id),
    )


def _notes(stores: Stores, project: str, trace_id: str) -> tuple[tuple[str, str], ...]:
    """Return what is noted of a trace beside its spans: experiment and run, tags, assessments that are no numbers."""
    found = stores.ledger.read(lambda c: infos.several(c, project, [trace_id]))
    if not found:
        return ()
    (info,) = found
    run = info.metadata.get(RUN)
    told = [("experiment", str(info.experiment)), *([("run", run)] if run else [])]
    told += [(f"tag {name}", value) for name, value in sorted(info.tags.items())]
    told += [(f"metadata {name}", value) for name, value in sorted(info.metadata.items()) if name != RUN]
    for each in info.assessments:
        if infos.opinion_of(each) is None:
            told.append((each.kind if each.valid else f"{each.kind}, overridden", f"{each.name}: {_text(each.value)}"))
    return tuple((name, _text(value)) for name, value in told)


def _telling(spans: Sequence[StoredSpan]) -> StoredSpan:
    for span in spans:
        if any(conversation(span.attributes, span.events)):
            return span
    return spans[0]


def _cards(summary: Summary) -> tuple[tuple[str, str, str], ...]:
    """Return (name, value, remark) of what is shown in large."""
    tokens = f"{texts.count(summary.input_tokens)} → {texts.count(summary.output_tokens)}"
    errors = texts.plural(summary.errors, "error")
    return (
        ("Took", texts.elapsed(summary.duration), f"from {texts.clock_time(from_microseconds(summary.start))} UTC"),
        ("Spans", texts.count(summary.spans), errors),
        ("Tokens in and out", tokens if summary.input_tokens or summary.output_tokens else texts.MISSING, ""),
        ("Cost", texts.money(summary.cost), summary.model or ""),
    )


def _bar(project: str, trace: Trace, span: StoredSpan, depth: int, opened: bool) -> SpanBar:
    whole = max(1, trace.summary.duration)
    start = min(max((span.start - trace.summary.start) / whole, 0.0), 1.0) * SCALE
    width = min(max(span.duration / whole * SCALE, 3.0), SCALE)
    x = min(start, SCALE - width)
    return SpanBar(span, depth, round(x, 1), round(width, 1), urls.trace(project, span.trace_id, span.span_id), opened)


def _opened(span: StoredSpan) -> OpenSpan:
    given, came = conversation(span.attributes, span.events)
    return OpenSpan(
        span,
        tuple(given),
        tuple(came),
        _facts(span),
        _pairs(span.attributes),
        _pairs(span.resource),
        tuple(
            (_text(event.get("name")), texts.elapsed(max(0, int(event.get("time") or 0) - span.start)), _pretty(event))
            for event in span.events
        ),
    )


def _facts(span: StoredSpan) -> tuple[tuple[str, str], ...]:
    told = (
        ("Service", span.service),
        ("Kind", span.kind),
        ("Status", f"{span.status} – {span.message}" if span.message else span.status),
        ("Operation", span.operation),
        ("Provider", span.provider),
        ("Model", span.model),
        ("Release", span.release),
        ("Prompt", span.prompt),
        ("Tokens", _tokens(span)),
        ("Cost", texts.money(span.cost) if span.cost is not None else None),
        ("User", span.user),
        ("Session", span.session),
        ("Prediction", span.prediction_id),
        ("Scope", span.scope),
        ("Span id", span.span_id),
        ("Left out", _left_out(span)),
    )
    return tuple((name, value) for name, value in told if value)


def _tokens(span: StoredSpan) -> str | None:
    if span.input_tokens is None and span.output_tokens is None:
        return None
    return f"{texts.count(span.input_tokens)} in, {texts.count(span.output_tokens)} out"


def _left_out(span: StoredSpan) -> str | None:
    told = [
        f"{span.redacted} redacted" if span.redacted else "",
        f"{span.dropped} dropped" if span.dropped else "",
        "its time was out of range and moved" if span.clamped else "",
    ]
    return ", ".join(filter(None, told)) or None


def _pairs(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((name, _text(values[name])) for name in sorted(values))


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"


def _pretty(event: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in _pairs(event.get("attributes") or {}))


def _opinions(summary: Summary) -> tuple[str, ...]:
    return tuple(f"{each.name}: {_value(each)}" for each in summary.feedback[:4])


def _value(feedback: Feedback) -> str:
    if feedback.kind == "bool":
        return "yes" if feedback.value else "no"
    return f"{feedback.value:g}"


def _feedback(feedback: Feedback, spans: Sequence[StoredSpan]) -> FeedbackRow:
    about = next((span.name for span in spans if span.span_id == feedback.span_id), None)
    value = _value(feedback)
    if feedback.kind != "bool" and (feedback.low, feedback.high) != (0.0, 1.0):
        value = f"{value} of {feedback.low:g} to {feedback.high:g}"
    return FeedbackRow(feedback, value, from_microseconds(feedback.time), about)
