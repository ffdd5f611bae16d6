"""Take spans in at request time: redact, lay out as columns, append, answer when they are on the disk."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from types import MappingProxyType
from typing import Any, Final

import orjson

from holdtrue.core.clock import Clock, microseconds
from holdtrue.core.errors import Unavailable
from holdtrue.storage import Writer
from holdtrue.traces.conversation import conversation, first_question, text_of
from holdtrue.traces.genai import GenaiCall, genai_span
from holdtrue.traces.model import DEFAULT_SERVICE, KIND, Capture, Origin, Span, TraceSettings
from holdtrue.traces.redaction import Redactor, mask_text, suspects
from holdtrue.traces.semantics import facts

__all__ = ["COLUMNS", "SPAN_SEGMENT", "GenaiCall", "SpanSink", "genai_span", "service_name"]

# Spans that are not sealed yet are read from their segment at each search: it stays small.
SPAN_SEGMENT: Final = 16 << 20
PREVIEW: Final = 300
TEXT: Final = 4096
VALUE: Final = 256 << 10
# Spans made ready in one go: what else this process answers waits about three milliseconds for them.
_SLICE: Final = 128
_FRAME: Final = 2048
_SERVICES: Final = 200
_OTHERS: Final = "others"
_DAY: Final = 86_400_000_000
_OLDEST: Final = 3650 * _DAY
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_FULL: Final = TraceSettings()

COLUMNS: Final = (
    "id",
    "time",
    "end",
    "duration",
    "trace_id",
    "span_id",
    "parent_id",
    "name",
    "kind",
    "status",
    "error",
    "message",
    "operation",
    "provider",
    "model",
    "input_tokens",
    "output_tokens",
    "cost",
    "release",
    "prompt",
    "user",
    "session",
    "prediction_id",
    "input",
    "output",
    "text",
    "attributes",
    "events",
    "links",
    "resource",
    "scope",
    "clamped",
    "redacted",
    "dropped",
    "received_at",
)
"""The columns of a span's record, in order."""


def service_name(text: Any) -> str:
    """Return a service's name as the name of a stream: signs that may not be in one become dashes."""
    if not isinstance(text, str) or not text:
        return DEFAULT_SERVICE
    if _NAME.fullmatch(text):
        return text
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text[:200]).lstrip("._-")[:63]
    return plain or DEFAULT_SERVICE


@dataclass(slots=True)
class _Ready:
    """A span after redaction: what is stored of it, and its attributes and events as JSON."""

    span: Span
    attributes: dict[str, Any]
    events: list[dict[str, Any]]
    texts: tuple[str, str]
    json: tuple[bytes, bytes, bytes]
    redacted: int


@dataclass(frozen=True, slots=True)
class _Source:
    """An origin's own part of its spans' records; it keeps the origin, by whose identity it is found."""

    origin: Origin
    service: str
    resource: str
    scope: str
    facts: dict[str, Any]


class SpanSink:
    """Store spans of any protocol; a span is on the disk when `write` returns.

    At most `waiting` writes stand in line; more are Unavailable, so that a sender holds its spans back.
    """

    def __init__(
        self,
        writer: Writer,
        clock: Clock,
        settings: Mapping[str, TraceSettings] = MappingProxyType({}),
        *,
        default: TraceSettings = _FULL,
        mask: Callable[[str], str] = mask_text,
        waiting: int = 32,
    ) -> None:
        """`writer` is strict; `settings` and `default` say for each project what is captured."""
        self._writer = writer
        self._clock = clock
        self._settings: Mapping[str, TraceSettings] = settings
        self._default = default
        self._redactor = Redactor(mask)
        self._services: dict[str, set[str]] = {}
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._most = waiting

    def check_room(self) -> None:
        """Raise Unavailable if too many writes wait already; asked before a request is read."""
        if self._waiting >= self._most:
            raise Unavailable("Too many spans wait to be stored.", mend="Send them again in a second.")

    async def write(self, project: str, spans: Iterable[Span], capture: Capture = Capture.FULL) -> None:
        """Redact and store spans of `project`; they are durable when this returns.

        Of what they say no more is kept than both `capture` and the project's settings allow.
        Raises Unavailable and StorageFull; then send all of them again: each is stored once. What taking spans out
        of `spans` raises is raised before any is stored.
        """
        self.check_room()
        self._waiting += 1
        try:
            # One at a time, and in slices, so that a flood of spans leaves room for everything else.
            async with self._turn:
                capture = capture.within(self._settings.get(project, self._default).capture)
                frames = [frame async for frame in self._frames(project, spans, capture)]
            appends = [self._append(project, service, rows) for service, rows in frames]
            await asyncio.gather(*appends)
        finally:
            self._waiting -= 1

    async def _append(self, project: str, service: str, rows: list[tuple[Any, ...]]) -> None:
        columns = {name: _compact(values) for name, values in zip(COLUMNS, zip(*rows, strict=True), strict=True)}
        columns["id"] = [row[0] for row in rows]
        await self._writer.append_async(KIND, project, service, columns, len(rows))

    async def _frames(
        self, project: str, spans: Iterable[Span], capture: Capture
    ) -> AsyncGenerator[tuple[str, list[tuple[Any, ...]]]]:
        """Yield (service, rows) of at most so many rows as a frame shall have."""
        now = microseconds(self._clock.now())
        sources: dict[int, _Source] = {}
        gathered: dict[str, list[tuple[Any, ...]]] = {}
        ahead = iter(spans)
        while some := list(islice(ahead, _SLICE)):
            await asyncio.sleep(0)
            if capture is Capture.MASKED:
                # Looking for personal data takes long enough to be noticed by whoever else waits.
                found = await asyncio.to_thread(self._ready, some, capture)
            else:
                found = self._ready(some, capture)
            for ready in found:
                origin = ready.span.origin
                source = sources.get(id(origin))
                if source is None:
                    source = sources[id(origin)] = self._source(project, origin, capture)
                rows = gathered.setdefault(source.service, [])
                rows.append(_row(ready, source, now))
                if len(rows) >= _FRAME:
                    yield source.service, gathered.pop(source.service)
        for service, rows in gathered.items():
            yield service, rows

    def _ready(self, spans: Sequence[Span], capture: Capture) -> list[_Ready]:
        """Return spans as they may be stored."""
        found = [self._clean(span, capture) for span in spans]
        marked = suspects([part for each in found for part in each.json])
        for place in sorted({mark // 3 for mark in marked}):
            each = found[place]
            scrub = self._redactor.scrub
            attributes, events, texts = scrub([each.attributes, each.events, list(each.texts)])
            if [attributes, events, texts] != [each.attributes, each.events, list(each.texts)]:
                found[place] = _dumped(each.span, attributes, events, (texts[0], texts[1]), each.redacted + 1)
        return found

    def _clean(self, span: Span, capture: Capture) -> _Ready:
        attributes, redacted = self._redactor.clean(span.attributes, capture)
        events = span.events
        if events:
            events = []
            for event in span.events:
                kept, cut = self._redactor.clean(event["attributes"], capture)
                events.append({**event, "name": self._redactor.text(event["name"], capture), "attributes": kept})
                redacted += cut
        name, message = span.name, span.message
        if capture is not Capture.FULL:
            name = self._redactor.text(name, capture)
            message = "" if capture is Capture.OFF else self._redactor.text(message, capture)
        return _dumped(span, attributes, events, (name, message), redacted)

    def _source(self, project: str, origin: Origin, capture: Capture) -> _Source:
        attributes, _ = self._redactor.clean(dict(origin.attributes), capture)
        attributes = _plain(self._redactor.scrub(attributes))
        known = self._services.setdefault(project, set())
        service = origin.service if _NAME.fullmatch(origin.service) else service_name(origin.service)
        if service not in known:
            # A service is a folder: whoever names a new one with each request shall not make a million of them.
            service = service if len(known) < _SERVICES else _OTHERS
            known.add(service)
        return _Source(
            origin,
            service,
            orjson.dumps(attributes).decode() if attributes else "",
            _plain(self._redactor.scrub(origin.scope)),
            facts(attributes),
        )


def _dumped(
    span: Span, attributes: dict[str, Any], events: list[dict[str, Any]], texts: tuple[str, str], redacted: int
) -> _Ready:
    try:
        said = (f"{texts[0]}\n{texts[1]}" if texts[1] else texts[0]).encode()
        parts = (orjson.dumps(attributes), orjson.dumps(events) if events else b"", said)
    except (TypeError, UnicodeEncodeError, orjson.JSONEncodeError):
        # Half of a surrogate pair, or an integer beyond 64 bits: no protocol sends that, other callers may.
        plain = _plain([attributes, events, *texts])
        return _dumped(span, plain[0], plain[1], (plain[2], plain[3]), redacted)
    if len(parts[0]) + len(parts[1]) + len(said) > VALUE and _longest([attributes, events, *texts]) > VALUE:
        cut = _cut([attributes, events, *texts])
        return _dumped(replace(span, dropped=span.dropped + 1), cut[0], cut[1], (cut[2], cut[3]), redacted)
    return _Ready(span, attributes, events, texts, parts, redacted)


def _row(ready: _Ready, source: _Source, now: int) -> tuple[Any, ...]:
    """Return the values of COLUMNS."""
    span, attributes = ready.span, ready.attributes
    start, end, clamped = clamp(span.start, span.end, now)
    given, came = conversation(attributes, ready.events)
    text = text_of(given, TEXT) if given else ""
    if came and len(text) < TEXT:
        text = f"{text}\n{text_of(came, TEXT - len(text))}"
    said = facts(attributes)
    if source.facts:
        said = {**source.facts, **said}
    get = said.get
    return (
        span.trace_id + span.span_id,
        start,
        end,
        end - start,
        span.trace_id,
        span.span_id,
        span.parent_id,
        ready.texts[0],
        span.kind,
        span.status,
        span.status == "error",
        ready.texts[1] or None,
        get("operation"),
        get("provider"),
        get("model"),
        get("input_tokens"),
        get("output_tokens"),
        get("cost"),
        get("release"),
        get("prompt"),
        get("user"),
        get("session"),
        get("prediction_id"),
        first_question(given)[:PREVIEW] or None if given else None,
        text_of(came, PREVIEW) or None if came else None,
        text.lower() or None,
        ready.json[0].decode(),
        ready.json[1].decode() or None,
        orjson.dumps(_plain(span.links)).decode() if span.links else None,
        source.resource or None,
        source.scope or None,
        clamped,
        ready.redacted,
        span.dropped,
        now,
    )


def clamp(start: int, end: int, now: int) -> tuple[int, int, bool]:
    """Return times that can be: not ten years ago, not after tomorrow, the end not before the start."""
    first, last = max(0, now - _OLDEST), now + _DAY
    if first <= start <= end <= last:
        return start, end, False
    moved = min(max(start, first), last)
    return moved, moved + min(max(0, end - start), _DAY), True


def _compact(values: tuple[Any, ...]) -> Any:
    """Return the values of a column, or the one value that all rows have."""
    first = values[0]
    if type(first) is not float and values.count(first) == len(values) and len(set(map(type, values))) == 1:
        return first
    return list(values)


def _longest(value: Any) -> int:
    """Return the length of the longest text in a JSON value."""
    if type(value) is str:
        return len(value)
    if type(value) is dict:
        return max(map(_longest, value.values()), default=0)
    return max(map(_longest, value), default=0) if type(value) is list else 0


def _cut(value: Any) -> Any:
    """Return a JSON value whose texts are no longer than a text may be."""
    if type(value) is str:
        return value[:VALUE]
    if type(value) is dict:
        return {key: _cut(item) for key, item in value.items()}
    return [_cut(item) for item in value] if type(value) is list else value


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_plain(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | float):
        return value
    return value if isinstance(value, int) and -(2**63) <= value < 2**63 else str(value)
