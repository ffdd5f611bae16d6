"""Anthropic's messages API over the gateway: whole and streamed messages, for any provider.

Where the provider speaks the same dialect, request and answer are passed on as they are. Else they are
translated; parts of a message that OpenAI's form has no words for are handed on under their own, which a
provider that does not know them refuses.
"""

from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any, Final

import orjson

from holdtrue.core.access import Permission
from holdtrue.core.errors import HoldtrueError, InvalidInput
from holdtrue.llm.gateway import Body, ChunkStream, Front, Operation
from holdtrue.protocols.openai import answer_headers, caller_of, read_body
from holdtrue.serving import Endpoint, Reply, Request, Stream

_KINDS: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_STOPS: Final[Mapping[str, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_WITH_VARIABLES: Final = ("app:", "prompt:")
_SAME: Final = ("model", "stream", "temperature", "top_p", "top_k")


def endpoints(front: Front) -> tuple[Endpoint, ...]:
    """Return the protocol's endpoint; it needs the permission to predict."""

    async def messages(request: Request) -> Reply | Stream:
        sent = read_body(request.body)
        body = to_chat(sent)
        caller = caller_of(request)
        if body.get("stream") is True:
            request.seconds = request.longest
            stream = await front.stream(caller, Operation.CHAT, body, sent)
            headers = (*answer_headers(request, stream), (b"request-id", request.id.encode()))
            return Stream(_events(stream), _broken, stream.aclose, headers)
        completion = await front.complete(caller, Operation.CHAT, body, sent)
        answer = completion.native or to_message(completion.body)
        headers = (*answer_headers(request, completion), (b"request-id", request.id.encode()))
        return Reply(200, orjson.dumps(answer), headers)

    return (Endpoint("POST", "/v1/messages", Permission.PREDICT, messages, patient=True, deferrable=True, once=True),)


def error_body(error: HoldtrueError) -> bytes:
    """Return the protocol's form of an error."""
    message = " ".join(part for part in (error.what, error.why, error.mend) if part)
    kind = _KINDS.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    return orjson.dumps({"type": "error", "error": {"type": kind, "message": message}})


def to_chat(sent: Body) -> Body:
    """Return a request to the messages API as a chat in OpenAI's form; raise InvalidInput."""
    messages = sent.get("messages")
    if type(messages) is not list or not messages:
        raise _wrong("messages", "must be a list of at least one message")
    limit = sent.get("max_tokens")
    if type(limit) is not int or limit < 1:
        raise _wrong("max_tokens", "must be a whole number above 0")
    turns: list[Body] = []
    if sent.get("system"):
        turns.append({"role": "system", "content": _joined(sent["system"])})
    for message in messages:
        if type(message) is not dict or message.get("role") not in ("user", "assistant", "system"):
            raise _wrong("messages", "must hold objects whose role is user or assistant")
        turns += _turns(message)
    body: Body = {name: sent[name] for name in _SAME if name in sent}
    body |= {"messages": turns, "max_tokens": limit}
    if sent.get("stop_sequences"):
        body["stop"] = sent["stop_sequences"]
    if sent.get("stream") is True:
        body["stream_options"] = {"include_usage": True}
    metadata = sent.get("metadata")
    if type(metadata) is dict and metadata.get("user_id"):
        body["user"] = metadata["user_id"]
    # The values for the variables of a prompt; a plain model has none.
    if "variables" in sent and str(sent.get("model", "")).startswith(_WITH_VARIABLES):
        body["variables"] = sent["variables"]
    if sent.get("tools"):
        body["tools"] = [_tool(tool) for tool in sent["tools"]]
        body |= _tool_choice(sent.get("tool_choice"))
    return body | _output(sent.get("output_config"))


def to_message(body: Body) -> Body:
    """Return a chat completion as a message."""
    choice = body["choices"][0]
    message = choice["message"]
    content: list[Body] = []
    if type(message.get("content")) is str and (message["content"] or not message.get("tool_calls")):
        content.append({"type": "text", "text": message["content"]})
    for call in message.get("tool_calls") or ():
        function = call["function"]
        content.append(
            {"type": "tool_use", "id": call["id"], "name": function["name"], "input": _input(function["arguments"])}
        )
    return {
        "id": body.get("id", ""),
        "type": "message",
        "role": "assistant",
        "model": body.get("model", ""),
        "content": content,
        "stop_reason": _STOPS.get(choice.get("finish_reason"), "end_turn"),
        "stop_sequence": None,
        "usage": _usage(body.get("usage")),
    }


class Speaker:
    """Tell a stream of OpenAI's chunks as the events of a message."""

    def __init__(self) -> None:
        self._begun = False
        self._block: tuple[str, Any] | None = None
        self._index = -1
        self._stop: str | None = None
        self._usage: Any = None

    def tell(self, chunk: Body) -> Iterator[Body]:
        """Yield the events that a chunk stands for."""
        if not self._begun:
            self._begun = True
            yield _start(chunk)
        if chunk.get("usage"):
            self._usage = chunk["usage"]
        for choice in chunk.get("choices", ()):
            delta = choice.get("delta") or {}
            if delta.get("content"):
                yield from self._in(("text", None), {"type": "text", "text": ""})
                yield self._delta({"type": "text_delta", "text": delta["content"]})
            for call in delta.get("tool_calls") or ():
                function = call.get("function") or {}
                block = {"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": {}}
                yield from self._in(("tool", call.get("index")), block)
                if function.get("arguments"):
                    yield self._delta({"type": "input_json_delta", "partial_json": function["arguments"]})
            if choice.get("finish_reason"):
                self._stop = choice["finish_reason"]

    def end(self) -> Iterator[Body]:
        """Yield the events with which a message ends."""
        if self._block is not None:
            yield {"type": "content_block_stop", "index": self._index}
        delta = {"stop_reason": _STOPS.get(self._stop or "", "end_turn"), "stop_sequence": None}
        yield {"type": "message_delta", "delta": delta, "usage": _usage(self._usage)}
        yield {"type": "message_stop"}

    def _in(self, block: tuple[str, Any], start: Body) -> Iterator[Body]:
        """Yield what ends the block before and begins this one, if it is another."""
        if self._block == block:
            return
        if self._block is not None:
            yield {"type": "content_block_stop", "index": self._index}
        self._block = block
        self._index += 1
        yield {"type": "content_block_start", "index": self._index, "content_block": start}

    def _delta(self, delta: Body) -> Body:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}


async def _events(stream: ChunkStream) -> AsyncGenerator[bytes]:
    speaker = Speaker()
    native = False
    async for chunk in stream.chunks():
        if chunk.native is not None:
            native = True
            yield _event(*chunk.native)
        elif not native:
            for event in speaker.tell(chunk.body):
                yield _event(event["type"], event)
    if not native:
        for event in speaker.end():
            yield _event(event["type"], event)


def _event(name: str, data: Body) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"


def _broken(error: HoldtrueError) -> bytes:
    return b"event: error\ndata: " + error_body(error) + b"\n\n"


def _turns(message: Body) -> list[Body]:
    """Return one message as those of OpenAI's form: results of tools are messages of their own there."""
    content = message.get("content")
    if type(content) is str:
        return [{"role": message["role"], "content": content}]
    if type(content) is not list:
        raise _wrong("messages", "must hold messages whose content is a text or a list")
    parts: list[Body] = []
    calls: list[Body] = []
    results: list[Body] = []
    for block in content:
        kind = block.get("type") if type(block) is dict else None
        if kind == "text":
            parts.append({"type": "text", "text": block.get("text", "")})
        elif kind == "image":
            parts.append(_image(block))
        elif kind == "tool_use":
            arguments = orjson.dumps(block.get("input") or {}).decode()
            function = {"name": block.get("name"), "arguments": arguments}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
        elif kind == "tool_result":
            text = _joined(block.get("content") or "")
            results.append({"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": text})
        elif kind is None:
            raise _wrong("messages", "must hold content blocks with a type")
        elif kind not in ("thinking", "redacted_thinking"):
            parts.append(block)
    turn: Body = {"role": message["role"], "content": _simple(parts)}
    if calls:
        turn["tool_calls"] = calls
    return [*results, turn] if parts or calls or not results else results


def _simple(parts: list[Body]) -> Any:
    """Return a content of one text as that text; nothing is None."""
    if len(parts) == 1 and parts[0]["type"] == "text":
        return parts[0]["text"]
    return parts or None


def _joined(content: Any) -> str:
    if type(content) is str:
        return content
    if type(content) is not list:
        raise _wrong("messages", "must hold texts or lists of blocks")
    texts = [block["text"] for block in content if type(block) is dict and type(block.get("text")) is str]
    return "\n\n".join(texts)


def _image(block: Body) -> Body:
    source: Any = block.get("source") or {}
    kind = source.get("type") if type(source) is dict else None
    if kind == "base64":
        url = f"data:{source.get('media_type')};base64,{source.get('data')}"
    elif kind == "url":
        url = source.get("url")
    else:
        return block
    return {"type": "image_url", "image_url": {"url": url}}


def _tool(tool: Any) -> Body:
    if type(tool) is not dict:
        raise _wrong("tools", "must be a list of objects")
    if "input_schema" not in tool:
        return tool
    function = {"name": tool.get("name"), "parameters": tool["input_schema"]}
    for name in ("description", "strict"):
        if tool.get(name) is not None:
            function[name] = tool[name]
    return {"type": "function", "function": function}


def _tool_choice(choice: Any) -> Body:
    kind = choice.get("type") if type(choice) is dict else None
    if kind is None:
        return {}
    found: Body = {}
    if kind == "tool":
        found["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    else:
        found["tool_choice"] = "required" if kind == "any" else kind
    if choice.get("disable_parallel_tool_use"):
        found["parallel_tool_calls"] = False
    return found


def _output(config: Any) -> Body:
    if type(config) is not dict:
        return {}
    found: Body = {}
    wanted = config.get("format")
    if type(wanted) is dict and wanted.get("type") == "json_schema":
        schema = {"name": "answer", "schema": wanted.get("schema"), "strict": True}
        found["response_format"] = {"type": "json_schema", "json_schema": schema}
    if config.get("effort"):
        found["reasoning_effort"] = config["effort"]
    return found


def _start(chunk: Body) -> Body:
    message = {
        "id": chunk.get("id", ""),
        "type": "message",
        "role": "assistant",
        "model": chunk.get("model", ""),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }
    return {"type": "message_start", "message": message}


def _usage(usage: Any) -> Body:
    known = usage if type(usage) is dict else {}
    details = known.get("prompt_tokens_details")
    cached = (details.get("cached_tokens") or 0) if type(details) is dict else 0
    return {
        "input_tokens": (known.get("prompt_tokens") or 0) - cached,
        "cache_read_input_tokens": cached,
        "output_tokens": known.get("completion_tokens") or 0,
    }


def _input(arguments: Any) -> Any:
    try:
        return orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        raise HoldtrueError("The model called a tool with arguments that are not JSON.") from None


def _wrong(field: str, why: str) -> InvalidInput:
    return InvalidInput(f"The field {field} {why}.", facts={"param": field})
