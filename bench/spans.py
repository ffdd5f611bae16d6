"""Spans as an LLM application sends them, for the benchmarks of traces: seeded, realistic in size and shape.

A trace is an agent's run of eight spans: the agent, two embeddings, a search, three calls of a model with messages, a
tool. Words follow Zipf's law over 20,000 of them, as in natural text.
"""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson

WORDS = 20_000
SPANS_PER_TRACE = 8
RARE = "zyzzyva"


class Talk:
    """Make text."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        letters = random.Random(seed)
        signs = "etaoinshrdlcumwfgypbvk"
        self.words = ["".join(letters.choices(signs, k=letters.randint(2, 10))) for _ in range(WORDS)]
        weights = 1 / np.arange(1, WORDS + 1)
        self._weights = np.cumsum(weights / weights.sum())
        self._drawn: list[str] = []

    def say(self, count: int) -> str:
        """Return `count` words."""
        if len(self._drawn) < count:
            picks = np.searchsorted(self._weights, self._rng.random(100_000))
            self._drawn = [self.words[pick] for pick in np.minimum(picks, WORDS - 1)]
        said, self._drawn = self._drawn[:count], self._drawn[count:]
        return " ".join(said)


def traces(seed: int, count: int, start_ns: int, step_ns: int) -> Iterator[list[dict[str, Any]]]:
    """Yield traces as lists of plain spans: ids in hexadecimal, times in nanoseconds, attributes as a dict."""
    rng, talk = random.Random(seed), Talk(seed)
    for number in range(count):
        yield _trace(rng, talk, start_ns + number * step_ns, number)


def _trace(rng: random.Random, talk: Talk, start: int, number: int) -> list[dict[str, Any]]:
    trace_id = f"{rng.getrandbits(128) | 1:032x}"
    ids = [f"{rng.getrandbits(64) | 1:016x}" for _ in range(SPANS_PER_TRACE)]
    user, session = f"user-{rng.randrange(2_000)}", f"session-{rng.randrange(20_000)}"
    question = talk.say(25)
    spans: list[dict[str, Any]] = []

    def add(name: str, kind: int, parent: int | None, attributes: dict[str, Any]) -> None:
        at = start + len(spans) * 40_000_000
        spans.append(
            {
                "trace_id": trace_id,
                "span_id": ids[len(spans)],
                "parent_id": ids[parent] if parent is not None else "",
                "name": name,
                "kind": kind,
                "start": at,
                "end": at + rng.randrange(20_000_000, 2_000_000_000),
                "error": rng.random() < 0.02,
                "attributes": {**attributes, "session.id": session, "user.id": user},
            }
        )

    add("invoke_agent support", 1, None, {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "support"})
    for _ in range(2):
        add(
            "embeddings text-embedding-3-small",
            3,
            0,
            {
                "gen_ai.operation.name": "embeddings",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": "text-embedding-3-small",
                "gen_ai.usage.input_tokens": 31,
                "server.address": "api.openai.example",
            },
        )
    documents = [
        {"id": f"doc-{rng.randrange(9_000)}", "score": rng.random(), "content": talk.say(40)} for _ in range(3)
    ]
    add(
        "retrieval handbook",
        1,
        0,
        {
            "gen_ai.operation.name": "retrieval",
            "gen_ai.data_source.id": "handbook",
            "gen_ai.retrieval.documents": orjson.dumps(documents).decode(),
        },
    )
    for turn in range(3):
        add("chat gpt-4o-mini", 3, 0, _chat(rng, talk, question, turn, number))
    add(
        "execute_tool find_order",
        1,
        0,
        {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "find_order",
            "gen_ai.tool.call.id": f"call_{rng.getrandbits(96):024x}",
            "gen_ai.tool.call.arguments": orjson.dumps({"order": f"A{rng.randrange(10**6)}"}).decode(),
            "gen_ai.tool.call.result": orjson.dumps({"state": "sent", "note": talk.say(12)}).decode(),
        },
    )
    return spans


def _chat(rng: random.Random, talk: Talk, question: str, turn: int, number: int) -> dict[str, Any]:
    given = [
        {"role": "system", "parts": [{"type": "text", "content": "You are a helpful assistant. " + talk.say(40)}]},
        {"role": "user", "parts": [{"type": "text", "content": question}]},
    ]
    answer = talk.say(60) + (f" {RARE}{number}" if turn == 2 else "")
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
        "gen_ai.response.id": f"chatcmpl-{rng.getrandbits(116):029x}",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.request.temperature": 0.2,
        "gen_ai.request.max_tokens": 512,
        "gen_ai.usage.input_tokens": rng.randrange(200, 4_000),
        "gen_ai.usage.output_tokens": rng.randrange(20, 500),
        "gen_ai.input.messages": orjson.dumps(given).decode(),
        "gen_ai.output.messages": orjson.dumps(
            [{"role": "assistant", "parts": [{"type": "text", "content": answer}], "finish_reason": "stop"}]
        ).decode(),
        "server.address": "api.openai.example",
        "server.port": 443,
    }


def export_request(spans: list[dict[str, Any]], service: str = "support-agent", version: str = "1.4.2") -> bytes:
    """Return an OTLP export request in protobuf."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.trace.v1.trace_pb2 import Status

    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    for key, value in (("service.name", service), ("service.version", version), ("telemetry.sdk.language", "python")):
        pair = resource_spans.resource.attributes.add()
        pair.key, pair.value.string_value = key, value
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = "bench"
    for span in spans:
        made = scope_spans.spans.add()
        made.trace_id, made.span_id = bytes.fromhex(span["trace_id"]), bytes.fromhex(span["span_id"])
        made.parent_span_id = bytes.fromhex(span["parent_id"])
        made.name, made.kind = span["name"], span["kind"]
        made.start_time_unix_nano, made.end_time_unix_nano = span["start"], span["end"]
        made.status.code = Status.STATUS_CODE_ERROR if span["error"] else Status.STATUS_CODE_OK
        for key, value in span["attributes"].items():
            pair = made.attributes.add()
            pair.key = key
            if isinstance(value, str):
                pair.value.string_value = value
            elif isinstance(value, int):
                pair.value.int_value = value
            elif isinstance(value, float):
                pair.value.double_value = value
            else:
                for each in value:
                    pair.value.array_value.values.add().string_value = each
    return request.SerializeToString()
