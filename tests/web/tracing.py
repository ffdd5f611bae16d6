"""Traces for the pages, stored through the same sink as those of applications."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson

from holdtrue.core.clock import microseconds
from holdtrue.traces import Origin, Span, SpanSink
from tests.web.seeding import Seeder

TRACE = "ab" * 16


def seed_trace(seeder: Seeder, text: str = "") -> str:
    """Store one trace of four spans with feedback, and return its id; `text` stands in for all that users write."""
    now = microseconds(seeder.clock.now())
    given = [
        {"role": "system", "parts": [{"type": "text", "content": text or "You help travellers."}]},
        {"role": text or "user", "parts": [{"type": "text", "content": text or "Is UA1545 late today?"}]},
    ]
    call = {
        "type": "tool_call",
        "id": "c1",
        "name": text or "delay_of",
        "arguments": {text or "flight": text or "UA1545"},
    }
    came = [{"role": "assistant", "parts": [call, {"type": "text", "content": text or "It leaves on time."}]}]
    chat = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": text or "small",
        "gen_ai.input.messages": orjson.dumps(given).decode(),
        "gen_ai.output.messages": orjson.dumps(came).decode(),
        "gen_ai.usage.input_tokens": 812,
        "gen_ai.usage.output_tokens": 64,
        "holdtrue.cost": 0.0004,
        "user.id": text or "u1",
        text or "a.b[0]": text or "__proto__",
    }
    event = {"name": text or "first token", "time": now, "attributes": {text or "after": text or 3}}
    spans = [
        _span(now, 1, None, text or "answer", {"session.id": text or "s1"}),
        _span(now, 2, 1, text or "retrieve handbook", {"gen_ai.operation.name": "retrieval"}),
        _span(now, 3, 1, text or "chat small", chat, events=[event]),
        _span(now, 4, 3, text or "execute_tool delay_of", {}, status="error", message=text or "no such flight"),
    ]
    writer = seeder.stores.journal.writer("spans", "strict")
    # The browser's driver has a loop in this thread.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(SpanSink(writer, seeder.clock).write(seeder.project, spans))).result()
    about = {"trace_id": TRACE, "span_id": None, "prediction_id": None, "kind": "bool", "low": 0.0, "high": 1.0}
    said = {"name": text or "helpful", "value": 1.0, "comment": text or "Right at once.", "user": text or "u1"}
    writer.append("feedback", seeder.project, "default", {"id": ["f1"], "time": [now], **about, **said}, 1)
    writer.close()
    return TRACE


def _span(now: int, number: int, parent: int | None, name: str, attributes: dict[str, Any], **more: Any) -> Span:
    start = now - 60_000_000 + number * 20_000
    made: dict[str, Any] = {
        "trace_id": TRACE,
        "span_id": f"{number:016x}",
        "parent_id": None if parent is None else f"{parent:016x}",
        "name": name,
        "kind": "internal",
        "start": start,
        "end": start + 300_000 - number * 40_000,
        "status": "ok",
        "message": "",
        "attributes": attributes,
        "events": [],
        "links": [],
        "origin": Origin("guide", {"service.name": "guide", "service.version": "1.4.2"}, name),
    }
    return Span(**{**made, **more})
