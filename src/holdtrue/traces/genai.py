"""Spans of the gateway's own calls, in the form in which any framework's spans come."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from holdtrue.traces.model import Origin, Span

GATEWAY: Final = "gateway"
_PARAMETERS: Final = frozenset(
    {"temperature", "top_p", "top_k", "max_tokens", "seed", "frequency_penalty", "presence_penalty", "stop_sequences"}
)
_NUMBERS: Final = frozenset({int, float, bool})


@dataclass(slots=True, kw_only=True)  # not frozen: that costs four times as much, for every call
class GenaiCall:
    """Hold the facts of one call of a model; what is None or empty is not stated.

    `start` and `end` are microseconds since the epoch. Messages are in the form of the OpenAI API or of the
    OpenTelemetry conventions (role, parts). `error` says in a sentence what failed; `attributes` are added as they are.
    """

    trace_id: str
    span_id: str
    start: int
    end: int
    parent_id: str | None = None
    service: str = GATEWAY
    name: str = ""
    operation: str = "chat"
    provider: str = ""
    model: str = ""
    response_model: str | None = None
    response_id: str | None = None
    finish_reasons: Sequence[str] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    input_messages: Sequence[Mapping[str, Any]] = ()
    output_messages: Sequence[Mapping[str, Any]] = ()
    tools: Sequence[Mapping[str, Any]] = ()
    documents: Sequence[Mapping[str, Any]] = ()
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cost: float | None = None
    error: str = ""
    error_type: str | None = None
    release: str | None = None
    arm: str | None = None
    prompt: str | None = None
    prediction_id: str | None = None
    user: str | None = None
    session: str | None = None
    cached: bool | None = None
    attempts: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])


def genai_span(call: GenaiCall) -> Span:
    """Return the span of one call, with the attributes of the OpenTelemetry GenAI conventions."""
    return Span(
        trace_id=call.trace_id,
        span_id=call.span_id,
        parent_id=call.parent_id,
        name=call.name or f"{call.operation} {call.model}".strip(),
        kind="client",
        start=call.start,
        end=max(call.start, call.end),
        status="error" if call.error else "ok",
        message=call.error,
        attributes={**_stated(call), **call.attributes},
        events=[],
        links=[],
        origin=Origin(call.service, {"service.name": call.service}, "holdtrue.gateway"),
    )


def _stated(call: GenaiCall) -> dict[str, Any]:
    stated: dict[str, Any] = {
        "gen_ai.operation.name": call.operation,
        "gen_ai.provider.name": call.provider,
        "gen_ai.request.model": call.model,
        "gen_ai.response.model": call.response_model,
        "gen_ai.response.id": call.response_id,
        "gen_ai.response.finish_reasons": list(call.finish_reasons),
        "gen_ai.usage.input_tokens": call.input_tokens,
        "gen_ai.usage.output_tokens": call.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": call.cached_tokens,
        "gen_ai.input.messages": _json([_message(each) for each in call.input_messages]),
        "gen_ai.output.messages": _json([_message(each) for each in call.output_messages]),
        "gen_ai.tool.definitions": _json(list(call.tools)),
        "gen_ai.retrieval.documents": _json(list(call.documents)),
        "gen_ai.conversation.id": call.session,
        "user.id": call.user,
        "error.type": call.error_type,
        "holdtrue.cost": call.cost,
        "holdtrue.release": call.release,
        "holdtrue.arm": call.arm,
        "holdtrue.prompt": call.prompt,
        "holdtrue.prediction_id": call.prediction_id,
        "holdtrue.cached": call.cached,
        "holdtrue.attempts": call.attempts,
    }
    for key, value in call.parameters.items():
        stated[f"gen_ai.request.{key}" if key in _PARAMETERS else f"holdtrue.request.{key}"] = value
    return {key: value for key, value in stated.items() if value or type(value) in _NUMBERS}


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message with parts, as the conventions have it, from one of the OpenAI API's form."""
    if isinstance(message.get("parts"), list):
        return dict(message)
    role, content = message.get("role", ""), message.get("content")
    parts: list[dict[str, Any]] = []
    if role == "tool":
        parts.append({"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content})
    elif isinstance(content, str):
        parts.append({"type": "text", "content": content})
    elif isinstance(content, list):
        parts += [_part(part) for part in content]
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        if not isinstance(call, Mapping):
            continue
        function = call.get("function")
        named: Mapping[str, Any] = function if isinstance(function, Mapping) else {}
        said = {"name": named.get("name"), "arguments": named.get("arguments")}
        parts.append({"type": "tool_call", "id": call.get("id"), **said})
    found: dict[str, Any] = {"role": role, "parts": parts}
    if message.get("finish_reason"):
        found["finish_reason"] = message["finish_reason"]
    return found


def _part(part: Any) -> dict[str, Any]:
    if isinstance(part, Mapping):
        if part.get("type") == "text":
            return {"type": "text", "content": part.get("text", part.get("content", ""))}
        # Images and sound are named, not kept: they would be larger than everything else together.
        return {"type": str(part.get("type", "unknown"))}
    return {"type": "text", "content": str(part)}


def _json(value: list[Any]) -> str:
    return orjson.dumps(value).decode() if value else ""
