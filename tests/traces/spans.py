"""Spans for tests, a data folder to keep them in, and a search that looks at every span."""

import asyncio
import atexit
import functools
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from holdtrue.core.clock import SimulatedClock, microseconds
from holdtrue.storage import ActionCache, BlobStore, Journal, Stores, Writer, make_folder
from holdtrue.storage.ledger import Ledger
from holdtrue.traces import Origin, Span, SpanSink, TraceFilter, TraceSettings
from holdtrue.traces import service as traces
from holdtrue.traces.indexing import pair_texts
from holdtrue.traces.model import Capture
from holdtrue.traces.rules import EQUAL
from holdtrue.traces.words import words

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PROJECT = "support"


def trace_id(number: int) -> str:
    """Return the id of trace `number`."""
    return f"{number + 1:032x}"


def span_id(number: int) -> str:
    """Return the id of span `number`."""
    return f"{number + 1:016x}"


def span(trace: int = 0, number: int = 0, **changes: Any) -> Span:
    """Return a span; the first of a trace is its root."""
    start = microseconds(NOW) - 1_000_000 + number * 1000
    made = Span(
        trace_id=trace_id(trace),
        span_id=span_id(number),
        parent_id=None if number == 0 else span_id(0),
        name="chat small",
        kind="client",
        start=start,
        end=start + 500,
        status="ok",
        message="",
        attributes={"gen_ai.operation.name": "chat", "gen_ai.request.model": "small"},
        events=[],
        links=[],
        origin=Origin("agent", {"service.name": "agent"}),
    )
    return replace(made, **changes)


def said(question: str, answer: str = "") -> dict[str, Any]:
    """Return the attributes of a span in which this was said."""
    given = f'[{{"role":"user","parts":[{{"type":"text","content":{_quoted(question)}}}]}}]'
    came = f'[{{"role":"assistant","parts":[{{"type":"text","content":{_quoted(answer)}}}]}}]'
    return {"gen_ai.operation.name": "chat", "gen_ai.input.messages": given, "gen_ai.output.messages": came}


def _quoted(text: str) -> str:
    return orjson.dumps(text).decode()


@dataclass
class House:
    """Open stores with a sink for spans."""

    stores: Stores
    clock: SimulatedClock
    writer: Writer
    sink: SpanSink

    def put(self, *spans: Span, project: str = PROJECT) -> None:
        """Store spans."""
        asyncio.run(self.sink.write(project, spans))

    def seal(self, index: bool = True) -> None:
        """Seal what is live, and index it."""
        self.stores.journal.seal()
        if index:
            self.index()

    def index(self) -> int:
        """Make the indexes that are missing."""
        return traces.refresh(self.stores, self.clock.monotonic)

    def records(self, project: str = PROJECT) -> list[dict[str, Any]]:
        """Return what is stored, as the journal has it."""
        return self.stores.journal.table("span", project).to_pylist()

    def found(self, **wanted: Any) -> list[str]:
        """Return the ids of the traces that a search finds, over all its pages."""
        return [each.trace_id for each in traces.search(self.stores, TraceFilter(PROJECT, **wanted)).items]


@functools.cache
def _empty_ledger() -> Ledger:
    """Open a ledger that says nothing of any trace, one for all houses: opening one takes longer than most tests."""
    home = Path(tempfile.mkdtemp(prefix="empty-ledger-"))
    opened = Ledger.open(home / "ledger.db", clock=SimulatedClock(NOW), keys=home / "keys")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    atexit.register(opened.close)
    return opened


def open_house(home: Path, capture: Capture = Capture.FULL, **settings: Any) -> House:
    """Open a journal and an empty ledger, which is all that traces need of a data folder, at a simulated time."""
    clock = SimulatedClock(NOW)
    journal = Journal(make_folder(home) / "journal", clock)
    stores = Stores(home, BlobStore(home / "blobs"), ActionCache(home / "actions"), _empty_ledger(), journal, clock)
    writer = stores.journal.writer("traces", "strict")
    return House(stores, clock, writer, SpanSink(writer, clock, default=TraceSettings(capture), **settings))


def brute_force(spans: Sequence[Span], wanted: TraceFilter) -> list[str]:
    """Return the traces that a filter asks for, in order, by looking at each span; the first of each id counts."""
    first: dict[str, Span] = {}
    for each in spans:
        first.setdefault(each.id, each)
    newest: dict[str, int] = {}
    for each in first.values():
        if _meets(each, wanted):
            newest[each.trace_id] = max(newest.get(each.trace_id, 0), each.start)
    return sorted(newest, key=lambda trace: newest[trace], reverse=True)


def _meets(each: Span, wanted: TraceFilter) -> bool:
    facts = {
        "name": each.name,
        "status": each.status,
        "release": each.attributes.get("holdtrue.release"),
        "model": each.attributes.get("gen_ai.request.model"),
        "user": each.attributes.get("user.id"),
        "session": each.attributes.get("session.id"),
    }
    have = {(name, text) for name, text in pair_texts({**each.origin.attributes, **each.attributes})}
    text = str(each.attributes.get("input.value", ""))
    return (
        (wanted.since is None or each.start >= wanted.since)
        and (wanted.until is None or each.start < wanted.until)
        and (wanted.service is None or each.origin.service == wanted.service)
        and (wanted.min_duration is None or each.end - each.start >= wanted.min_duration)
        and all(getattr(wanted, name) in (None, facts[name]) for name in EQUAL)
        and set(words(wanted.text)) <= set(words(text))
        and all(pair in have for pair in wanted.attributes.items())
    )
