"""Spans, what is asked of them, and the traces they make."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

KIND: Final = "span"
FEEDBACK: Final = "feedback"
DEFAULT_SERVICE: Final = "default"


class Capture(StrEnum):
    """Name how much of what people and models said is kept."""

    FULL = "full"
    MASKED = "masked"
    OFF = "off"

    def within(self, other: "Capture") -> "Capture":
        """Return the one of two that keeps less."""
        order = [Capture.OFF, Capture.MASKED, Capture.FULL]
        return min(self, other, key=order.index)


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """State how the spans of one project are taken in."""

    capture: Capture = Capture.FULL


@dataclass(frozen=True, slots=True)
class Origin:
    """Name what spans come from: the resource's attributes, its service, and the instrumentation scope."""

    service: str
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    scope: str = ""


@dataclass(slots=True)
class Span:
    """Hold one span as its sender stated it; times are microseconds since the epoch.

    `events` and `links` are JSON objects: name, time and attributes; trace_id, span_id and attributes.
    `dropped` counts what its sender or a limit left out.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str
    start: int
    end: int
    status: str
    message: str
    attributes: dict[str, Any]
    events: list[dict[str, Any]]
    links: list[dict[str, Any]]
    origin: Origin
    dropped: int = 0

    @property
    def id(self) -> str:
        """Return the id of its record: a span sent twice is one record."""
        return self.trace_id + self.span_id


class Message(NamedTuple):
    """Hold one message of a conversation: who spoke, the text, tool calls as (name, arguments, id), a tool's answer.

    A tuple, because several are made for every span that comes.
    """

    role: str
    text: str
    calls: tuple[tuple[str, str, str], ...] = ()
    answers: str = ""


@dataclass(frozen=True, slots=True)
class Feedback:
    """Hold one score that somebody gave a trace, a span or a prediction."""

    id: str
    time: int
    name: str
    value: float
    kind: str
    low: float
    high: float
    trace_id: str | None
    span_id: str | None
    prediction_id: str | None
    comment: str | None
    user: str | None


@dataclass(frozen=True, slots=True)
class StoredSpan:
    """Hold one span as it is read back."""

    trace_id: str
    span_id: str
    parent_id: str | None
    service: str
    name: str
    kind: str
    start: int
    end: int
    status: str
    message: str
    release: str | None
    prompt: str | None
    operation: str | None
    provider: str | None
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost: float | None
    user: str | None
    session: str | None
    prediction_id: str | None
    input: str | None
    output: str | None
    scope: str
    clamped: bool
    redacted: int
    dropped: int
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])
    resource: dict[str, Any] = field(default_factory=dict[str, Any])
    events: tuple[dict[str, Any], ...] = ()
    links: tuple[dict[str, Any], ...] = ()
    text: str = ""

    @property
    def duration(self) -> int:
        """Return how long it took, in microseconds."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Summary:
    """Hold one line of a listing: what a trace was, in the words of its root.

    `rooted` is false while no span without a parent has come; then the earliest span stands for it.
    """

    trace_id: str
    name: str
    service: str
    services: tuple[str, ...]
    release: str | None
    start: int
    duration: int
    spans: int
    errors: int
    status: str
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost: float | None
    user: str | None
    session: str | None
    input: str | None
    rooted: bool
    feedback: tuple[Feedback, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """Hold a trace with all its spans in the order of their starts, and what was said about it."""

    summary: Summary
    spans: tuple[StoredSpan, ...]
    feedback: tuple[Feedback, ...]


@dataclass(frozen=True, slots=True)
class FeedbackFilter:
    """Ask for feedback of a name, and of values within bounds."""

    name: str
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True)
class TraceFilter:
    """Ask for the traces that have a span which meets every condition; the newest first.

    Moments and durations are microseconds. `attributes` compares values by their text; `text` asks for
    all of its words, in any order and case. `cursor` is that of an earlier page.
    """

    project: str
    since: int | None = None
    until: int | None = None
    service: str | None = None
    release: str | None = None
    name: str | None = None
    status: str | None = None
    model: str | None = None
    user: str | None = None
    session: str | None = None
    min_duration: int | None = None
    attributes: Mapping[str, str] = field(default_factory=dict[str, str])
    text: str = ""
    feedback: FeedbackFilter | None = None
    cursor: str | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Page:
    """Hold one page of traces, and the cursor of the next (None: this was the last)."""

    items: tuple[Summary, ...]
    next: str | None
