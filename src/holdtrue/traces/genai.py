"""Spans of the gateway's own calls, in the form in which any framework's spans come."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from holdtrue.traces.model import Origin, Span

GATEWAY: Final = "gateway"
_PARAMETERS: Final = frozenset(
    {"temperature", "top_p", "top_k", "max_tokens", "seed", "frequency_penalty", "presence_penalty", "stop_sequences"}
)


def genai_span(
    *,
    trace_id: str,
    span_id: str,
    start: int,
    end: int,
    operation: str = "chat",
    provider: str = "",
    model: str = "",
    parent_id: str | None = None,
    service: str = GATEWAY,
    name: str = "",
    response_model: str | None = None,
    response_id: str | None = None,
    finish_reasons: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    input_messages: Sequence[Mapping[str, Any]] = (),
    output_messages: Sequence[Mapping[str, Any]] = (),
    tools: Sequence[Mapping[str, Any]] = (),
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    cached_tokens: int | None = None,
    cost: float | None = None,
    error: str | None = None,
    error_type: str | None = None,
    release: str | None = None,
    arm: str | None = None,
    prompt: str | None = None,
    prediction_id: str | None = None,
    user: str | None = None,
    session: str | None = None,
    cached: bool | None = None,
    attempts: int | None = None,
    documents: Sequence[Mapping[str, Any]] = (),
    attributes: Mapping[str, Any] | None = None,
) -> Span:
    """Return the span of one call of a model, with the attributes of the OpenTelemetry GenAI conventions.

    `start` and `end` are microseconds since the epoch. Messages are in the form of the OpenAI API or of the
    conventions (role, parts). What is None or empty is left out; `attributes` are added as they are.
    """
    stated: dict[str, Any] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
        "gen_ai.response.model": response_model,
        "gen_ai.response.id": response_id,
        "gen_ai.response.finish_reasons": list(finish_reasons),
        "gen_ai.usage.input_tokens": input_tokens,
        "gen_ai.usage.output_tokens": output_tokens,
        "gen_ai.usage.cache_read.input_tokens": cached_tokens,
        "gen_ai.input.messages": _json([_message(each) for each in input_messages]),
        "gen_ai.output.messages": _json([_message(each) for each in output_messages]),
        "gen_ai.tool.definitions": _json(list(tools)),
        "gen_ai.retrieval.documents": _json(list(documents)),
        "gen_ai.conversation.id": session,
        "user.id": user,
        "error.type": error_type,
        "holdtrue.cost": cost,
        "holdtrue.release": release,
        "holdtrue.arm": arm,
        "holdtrue.prompt": prompt,
        "holdtrue.prediction_id": prediction_id,
        "holdtrue.cached": cached,
        "holdtrue.attempts": attempts,
    }
    for key, value in (parameters or {}).items():
        stated[f"gen_ai.request.{key}" if key in _PARAMETERS else f"holdtrue.request.{key}"] = value
    kept = {key: value for key, value in stated.items() if value is not None and value not in ("", [])}
    return Span(
        trace_id=trace_id,
        span_id=span_id,
        parent_id=parent_id,
        name=name or f"{operation} {model}".strip(),
        kind="client",
        start=start,
        end=max(start, end),
        status="error" if error else "ok",
        message=error or "",
        attributes={**kept, **(attributes or {})},
        events=[],
        links=[],
        origin=Origin(service, {"service.name": service}, "holdtrue.gateway"),
    )


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message with parts, as the conventions have it, from one of the OpenAI API's form."""
    if "parts" in message:
        return dict(message)
    role, content = message.get("role", ""), message.get("content")
    parts: list[dict[str, Any]] = []
    if role == "tool":
        parts.append({"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content})
    elif isinstance(content, str):
        parts.append({"type": "text", "content": content})
    elif isinstance(content, list):
        parts += [_part(part) for part in content]
    for call in message.get("tool_calls") or ():
        function: Mapping[str, Any] = call.get("function") or {}
        said = {"name": function.get("name"), "arguments": function.get("arguments")}
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
