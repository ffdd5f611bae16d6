"""What a fake provider answers: always the same to the same request, in OpenAI's and Anthropic's forms."""

import base64
import struct
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import orjson

Body = dict[str, Any]
CREATED = 1_700_000_000


def text_of(body: Body) -> str:
    """Return what was said last by the user."""
    if "prompt" in body:
        return str(body["prompt"])
    for message in reversed(body.get("messages", [])):
        if message.get("role") == "user":
            return _plain(message.get("content"))
    return ""


def words_in(value: Any) -> int:
    """Count the words of every text in a JSON value: the fake's tokens."""
    if isinstance(value, str):
        return len(value.split())
    if isinstance(value, dict):
        return sum(words_in(each) for each in value.values())
    return sum(words_in(each) for each in value) if isinstance(value, list) else 0


def reply_to(body: Body) -> tuple[str, Body | None]:
    """Return the text of an answer, or the call of the first tool if there is one to be used."""
    said = text_of(body)
    tools = body.get("tools") or []
    turns = body.get("messages") or [{}]
    result = turns[-1].get("role") == "tool" or "tool_result" in str(turns[-1].get("content"))
    choice = body.get("tool_choice")
    if tools and not result and choice != "none" and choice != {"type": "none"}:
        tool = tools[0].get("function", tools[0])
        return "", {"name": tool["name"], "arguments": {"text": said}}
    schema = _schema(body)
    if schema is not None:
        return orjson.dumps(_example(schema)).decode(), None
    return f"You said: {said}", None


def usage_of(body: Body, text: str, wanted: str) -> tuple[int, int] | None:
    """Return input and output tokens, or those that a fault asks for; None for none."""
    if wanted == "missing":
        return None
    if wanted:
        given, _, made = wanted.partition(":")
        return int(given), int(made or 0)
    said = [_plain(message.get("content")) for message in body.get("messages", ())]
    return words_in([said, body.get("prompt"), body.get("input")]), max(1, words_in(text))


def openai_answer(path: str, body: Body, text: str, tool: Body | None, usage: Any) -> Body:
    """Return a whole answer in OpenAI's form."""
    chat = path.endswith("/chat/completions")
    reason = "tool_calls" if tool else "stop"
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if limit is not None and not tool and len(text.split()) > limit:
        text, reason = " ".join(text.split()[:limit]), "length"
    message: Body = {"role": "assistant", "content": None if tool else text}
    if tool:
        message["tool_calls"] = [_tool_call(tool)]
    choices = [
        {
            "index": index,
            "finish_reason": reason,
            "logprobs": None,
            **({"message": message} if chat else {"text": text}),
        }
        for index in range(body.get("n") or 1)
    ]
    answer: Body = {
        "id": "chatcmpl-fake" if chat else "cmpl-fake",
        "object": "chat.completion" if chat else "text_completion",
        "created": CREATED,
        "model": body.get("model"),
        "choices": choices,
        "system_fingerprint": "fp_fake",
    }
    return answer if usage is None else {**answer, "usage": _openai_usage(usage)}


def openai_chunks(path: str, body: Body, text: str, tool: Body | None, usage: Any) -> Iterator[Body]:
    """Yield the pieces of a streamed answer in OpenAI's form, a word each."""
    chat = path.endswith("/chat/completions")
    head = {
        "id": "chatcmpl-fake" if chat else "cmpl-fake",
        "object": "chat.completion.chunk" if chat else "text_completion",
        "created": CREATED,
        "model": body.get("model"),
    }
    wanted = (body.get("stream_options") or {}).get("include_usage") is True
    extra = {"usage": None} if wanted else {}

    def piece(delta: Body, reason: str | None = None) -> Body:
        inner = {"delta": delta} if chat else {"text": delta.get("content", "")}
        return {**head, "choices": [{"index": 0, **inner, "logprobs": None, "finish_reason": reason}], **extra}

    if chat:
        yield piece({"role": "assistant", "content": ""})
    if tool:
        call = _tool_call(tool)
        arguments = call["function"]["arguments"]
        start = {**call, "index": 0, "function": {"name": tool["name"], "arguments": ""}}
        yield piece({"tool_calls": [start]})
        for part in (arguments[:3], arguments[3:]):
            yield piece({"tool_calls": [{"index": 0, "function": {"arguments": part}}]})
    for place, word in enumerate(text.split()):
        yield piece({"content": word if place == 0 else f" {word}"})
    yield piece({}, "tool_calls" if tool else "stop")
    if wanted and usage is not None:
        yield {**head, "choices": [], "usage": _openai_usage(usage)}


def embeddings(body: Body, usage: Any) -> Body:
    """Return an embedding of four numbers for each text, made from its hash."""
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    data: list[Body] = []
    for index, text in enumerate(texts):
        digest = blake2b(orjson.dumps(text), digest_size=4).digest()
        vector = [byte / 255 for byte in digest]
        packed = base64.b64encode(struct.pack("<4f", *vector)).decode()
        shown = packed if body.get("encoding_format") == "base64" else vector
        data.append({"object": "embedding", "index": index, "embedding": shown})
    answer: Body = {"object": "list", "data": data, "model": body.get("model")}
    return answer if usage is None else {**answer, "usage": {"prompt_tokens": usage[0], "total_tokens": usage[0]}}


def anthropic_answer(body: Body, text: str, tool: Body | None, usage: Any) -> Body:
    """Return a whole answer in Anthropic's form."""
    block = (
        {"type": "tool_use", "id": "toolu_fake", "name": tool["name"], "input": tool["arguments"]}
        if tool
        else {"type": "text", "text": text}
    )
    answer = {
        "id": "msg_fake",
        "type": "message",
        "role": "assistant",
        "model": body.get("model"),
        "content": [block],
        "stop_reason": "tool_use" if tool else "end_turn",
        "stop_sequence": None,
    }
    return answer if usage is None else {**answer, "usage": {"input_tokens": usage[0], "output_tokens": usage[1]}}


def anthropic_events(body: Body, text: str, tool: Body | None, usage: Any) -> Iterator[Body]:
    """Yield the events of a streamed answer in Anthropic's form, a word each."""
    counts = {"input_tokens": usage[0], "output_tokens": 1} if usage is not None else {}
    message = {**anthropic_answer(body, "", tool, None), "content": [], "stop_reason": None, "usage": counts}
    yield {"type": "message_start", "message": message}
    yield {"type": "ping"}
    if tool:
        block: Body = {"type": "tool_use", "id": "toolu_fake", "name": tool["name"], "input": {}}
        arguments = orjson.dumps(tool["arguments"]).decode()
        deltas: list[Body] = [
            {"type": "input_json_delta", "partial_json": part} for part in (arguments[:3], arguments[3:])
        ]
    else:
        block = {"type": "text", "text": ""}
        deltas = [
            {"type": "text_delta", "text": word if place == 0 else f" {word}"}
            for place, word in enumerate(text.split())
        ]
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    ended: Body = {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use" if tool else "end_turn", "stop_sequence": None},
    }
    yield ended if usage is None else {**ended, "usage": {"output_tokens": usage[1]}}
    yield {"type": "message_stop"}


def _openai_usage(usage: tuple[int, int]) -> Body:
    return {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": usage[0] + usage[1]}


def _tool_call(tool: Body) -> Body:
    arguments = orjson.dumps(tool["arguments"]).decode()
    return {"id": "call_fake", "type": "function", "function": {"name": tool["name"], "arguments": arguments}}


def _plain(content: Any) -> str:
    if isinstance(content, list):
        return " ".join(part.get("text", "") for part in content if isinstance(part, dict)).strip()
    return str(content or "")


def _schema(body: Body) -> Body | None:
    wanted = body.get("response_format") or (body.get("output_config") or {}).get("format") or {}
    if wanted.get("type") == "json_object":
        return {}
    if wanted.get("type") == "json_schema":
        return (wanted.get("json_schema") or wanted).get("schema") or {}
    return None


def _example(schema: Body) -> Any:
    """Return a value that a simple JSON schema describes."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if kind == "object":
        return {name: _example(inner) for name, inner in schema.get("properties", {}).items()}
    return {"string": "text", "integer": 1, "number": 1.5, "boolean": True, "array": []}.get(kind)
