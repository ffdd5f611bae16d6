"""Anthropic's messages API, asked and read in OpenAI's form.

A client that speaks this dialect itself is passed on as it is, so that nothing is lost between two translations.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from holdtrue.core.errors import InvalidInput
from holdtrue.llm.gateway.dialects.base import Answer, Outgoing, Sent, complaint_of, other_form
from holdtrue.llm.gateway.model import Body, Chunk, Operation
from holdtrue.llm.gateway.rules import choices, stated_limit, wants_usage, wrong

VERSION: Final = "2023-06-01"
FINISH_REASONS: Final[Mapping[str, str]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_SAME: Final = ("temperature", "top_p")


class AnthropicDialect:
    """Speak with Anthropic's messages API; `output_limit` is what a request without a limit gets, as it needs one."""

    def __init__(self, *, output_limit: int = 4096) -> None:
        self._output_limit = output_limit

    def headers(self, key: str) -> dict[str, str]:
        """Return the key's header, and the version of the API."""
        return {"anthropic-version": VERSION, **({"x-api-key": key} if key else {})}

    def outgoing(self, sent: Sent) -> Outgoing:
        """Return the request in Anthropic's form: the client's own if it speaks it, else a translation."""
        if sent.native is not None:
            body: Body = {**sent.native, "model": sent.model}
            limit = stated_limit(sent.body)
            if "max_tokens" not in body and limit is not None:
                body["max_tokens"] = limit
        else:
            body = to_messages(sent, self._output_limit)
        if sent.stream:
            body["stream"] = True
        return Outgoing("/v1/messages", {}, body)

    def answer(self, sent: Sent, data: Any) -> Answer:
        """Read a message as a chat completion."""
        if type(data) is not dict or data.get("type") != "message" or type(data.get("content")) is not list:
            raise other_form("It is not a message.")
        usage = usage_of(data.get("usage"))
        reason = data.get("stop_reason")
        body: Body = {
            "id": data.get("id", ""),
            "object": "chat.completion",
            "created": sent.created,
            "model": data.get("model", sent.model),
            "choices": [
                {
                    "index": 0,
                    "message": _message(data["content"]),
                    "logprobs": None,
                    "finish_reason": FINISH_REASONS.get(reason, "stop") if type(reason) is str else None,
                }
            ],
            "usage": usage,
        }
        return Answer(body, usage, data if sent.native is not None else None)

    def translator(self, sent: Sent) -> "AnthropicTranslator":
        """Return what reads the stream that answers `sent`."""
        return AnthropicTranslator(sent, wants_usage=wants_usage(sent.body))

    def complaint(self, data: Any) -> str:
        """Return the provider's own words."""
        return complaint_of(data)


class AnthropicTranslator:
    """Read a stream of message events; it is finished at `message_stop`."""

    def __init__(self, sent: Sent, *, wants_usage: bool) -> None:
        self.usage: Any = None
        self.finished = False
        self.done = False
        self._counts: dict[str, Any] = {}
        self._wants_usage = wants_usage
        self._native = sent.native is not None
        self._head: Body = {
            "id": "",
            "object": "chat.completion.chunk",
            "created": sent.created,
            "model": sent.model,
        }
        self._tools: dict[Any, int] = {}

    def feed(self, name: str, data: bytes) -> list[Chunk]:
        """Return the pieces that an event holds."""
        try:
            event: Any = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise other_form("One of its events is broken JSON.") from None
        if type(event) is not dict:
            raise other_form("One of its events is not a JSON object.")
        kind = event.get("type", name)
        if kind == "error":
            raise other_form(f"It ended in an error: {complaint_of(event) or 'no reason given'}")
        found = self._read(kind, event)
        if not self._native:
            return [Chunk(body) for body in found]
        own = (str(kind), event)
        return [Chunk(found[0], own), *map(Chunk, found[1:])] if found else [Chunk({}, own)]

    def _read(self, kind: Any, event: Body) -> list[Body]:
        if kind == "message_start":
            message = _object(event, "message")
            self._head.update(id=message.get("id", ""), model=message.get("model", self._head["model"]))
            self._count(message.get("usage"))
            return [self._piece({"role": "assistant", "content": ""})]
        if kind == "content_block_start":
            block = _object(event, "content_block")
            if block.get("type") == "tool_use":
                place = self._tools[event.get("index")] = len(self._tools)
                function = {"name": block.get("name", ""), "arguments": ""}
                call = {"index": place, "id": block.get("id", ""), "type": "function", "function": function}
                return [self._piece({"tool_calls": [call]})]
            return []
        if kind == "content_block_delta":
            return self._delta(event.get("index"), _object(event, "delta"))
        if kind == "message_delta":
            self._count(event.get("usage"))
            reason = _object(event, "delta").get("stop_reason")
            if type(reason) is not str:
                return []
            return [self._piece({}, FINISH_REASONS.get(reason, "stop"))]
        if kind == "message_stop":
            self.finished = self.done = True
            if self._wants_usage:
                return [{**self._head, "choices": [], "usage": self.usage}]
        return []

    def _delta(self, index: Any, delta: Body) -> list[Body]:
        kind = delta.get("type")
        if kind == "text_delta":
            return [self._piece({"content": _text(delta, "text")})]
        if kind == "thinking_delta":
            return [self._piece({"reasoning_content": _text(delta, "thinking")})]
        if kind == "input_json_delta" and index in self._tools:
            call = {"index": self._tools[index], "function": {"arguments": _text(delta, "partial_json")}}
            return [self._piece({"tool_calls": [call]})]
        return []

    def _count(self, usage: Any) -> None:
        if type(usage) is dict:
            self._counts.update({name: value for name, value in usage.items() if value is not None})
            self.usage = usage_of(self._counts)

    def _piece(self, delta: Body, reason: str | None = None) -> Body:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**self._head, "choices": [choice]}


def usage_of(usage: Any) -> Any:
    """Return Anthropic's usage in OpenAI's form, unchecked; what is not there is None."""
    if type(usage) is not dict:
        return None
    given, made = usage.get("input_tokens"), usage.get("output_tokens", 0)
    written, read = usage.get("cache_creation_input_tokens") or 0, usage.get("cache_read_input_tokens") or 0
    if not (type(given) is int and type(made) is int and type(written) is int and type(read) is int):
        return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": None}
    total = given + written + read
    return {
        "prompt_tokens": total,
        "completion_tokens": made,
        "total_tokens": total + made,
        "prompt_tokens_details": {"cached_tokens": read},
    }


def to_messages(sent: Sent, output_limit: int) -> Body:
    """Return a chat in OpenAI's form as a request to the messages API.

    What only shapes the sampling (seed, penalties, logit_bias) has no counterpart and is left out; what would
    change the form of the answer raises InvalidInput.
    """
    if sent.operation is Operation.EMBEDDING:
        raise InvalidInput("This provider makes no embeddings.", facts={"param": "model"})
    source = sent.body
    if choices(source) > 1:
        raise wrong("n", "cannot be more than 1 with this provider")
    if source.get("logprobs") or source.get("top_logprobs"):
        raise wrong("logprobs", "cannot be asked of this provider")
    system, messages = _split(source["messages"])
    body: Body = {
        "model": sent.model,
        "max_tokens": stated_limit(source) or output_limit,
        "messages": messages,
        **{name: source[name] for name in _SAME if source.get(name) is not None},
    }
    if system:
        body["system"] = "\n\n".join(system)
    stop = source.get("stop")
    if stop:
        body["stop_sequences"] = [stop] if type(stop) is str else stop
    if type(source.get("user")) is str:
        body["metadata"] = {"user_id": source["user"]}
    if source.get("tools"):
        body["tools"] = [_tool(tool) for tool in source["tools"]]
        choice = _tool_choice(source)
        if choice:
            body["tool_choice"] = choice
    settings = _output(source)
    if settings:
        body["output_config"] = settings
    return body


def _split(messages: list[Any]) -> tuple[list[str], list[Body]]:
    """Return the system texts, and the turns of user and assistant; turns that follow each other are joined."""
    system: list[str] = []
    turns: list[Body] = []
    for place, message in enumerate(messages):
        role = message["role"]
        if role in ("system", "developer"):
            system.append(_plain(message.get("content"), place))
            continue
        if role == "tool":
            turn, blocks = "user", [_result(message, place)]
        elif role == "assistant":
            turn, blocks = "assistant", _said(message, place)
        elif role == "user":
            turn, blocks = "user", _parts(message.get("content"), place)
        else:
            raise wrong(f"messages[{place}]", "has a role that this provider does not know")
        if turns and turns[-1]["role"] == turn:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": turn, "content": blocks})
    return system, turns


def _parts(content: Any, place: int) -> list[Body]:
    if content is None or content == "":
        return []
    if type(content) is str:
        return [{"type": "text", "text": content}]
    if type(content) is not list:
        raise wrong(f"messages[{place}]", "has a content of an unknown form")
    blocks: list[Body] = []
    for part in content:
        kind = part.get("type") if type(part) is dict else None
        if kind == "text" and type(part.get("text")) is str:
            if part["text"]:
                blocks.append({"type": "text", "text": part["text"]})
        elif kind == "image_url":
            blocks.append({"type": "image", "source": _image(part["image_url"], place)})
        elif kind == "refusal":
            blocks.append({"type": "text", "text": str(part.get("refusal"))})
        else:
            raise wrong(f"messages[{place}]", "has a part that this provider does not take")
    return blocks


def _image(image: Any, place: int) -> Body:
    url = image.get("url") if type(image) is dict else image
    if type(url) is not str:
        raise wrong(f"messages[{place}]", "has an image without an address")
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head, _, data = url[5:].partition(",")
    media, _, coding = head.partition(";")
    if coding != "base64" or not data:
        raise wrong(f"messages[{place}]", "has an image that is not base64")
    return {"type": "base64", "media_type": media, "data": data}


def _said(message: Body, place: int) -> list[Body]:
    blocks = _parts(message.get("content"), place)
    for call in message.get("tool_calls") or ():
        function = call.get("function") if type(call) is dict else None
        if type(function) is not dict:
            raise wrong(f"messages[{place}]", "has a tool call without a function")
        try:
            arguments = orjson.loads(function.get("arguments") or "{}")
        except orjson.JSONDecodeError:
            raise wrong(f"messages[{place}]", "has a tool call whose arguments are not JSON") from None
        blocks.append({"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": arguments})
    return blocks


def _result(message: Body, place: int) -> Body:
    content = message.get("content")
    return {
        "type": "tool_result",
        "tool_use_id": message.get("tool_call_id"),
        "content": content if type(content) is str else _parts(content, place),
    }


def _plain(content: Any, place: int) -> str:
    if type(content) is str:
        return content
    return "\n".join(part["text"] for part in _parts(content, place) if part["type"] == "text")


def _tool(tool: Any) -> Body:
    function = tool.get("function") if type(tool) is dict else None
    if type(function) is not dict or type(function.get("name")) is not str:
        raise wrong("tools", "must hold functions with names")
    made: Body = {
        "name": function["name"],
        "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
    }
    if function.get("description"):
        made["description"] = function["description"]
    if function.get("strict") is not None:
        made["strict"] = function["strict"]
    return made


def _tool_choice(source: Body) -> Body | None:
    wanted = source.get("tool_choice")
    kinds = {"auto": "auto", "none": "none", "required": "any"}
    choice: Body | None = None
    if type(wanted) is str and wanted in kinds:
        choice = {"type": kinds[wanted]}
    elif type(wanted) is dict and type(wanted.get("function")) is dict:
        choice = {"type": "tool", "name": wanted["function"].get("name")}
    elif wanted is not None:
        raise wrong("tool_choice", "has an unknown form")
    if source.get("parallel_tool_calls") is False:
        choice = choice or {"type": "auto"}
        if choice["type"] != "none":
            choice["disable_parallel_tool_use"] = True
    return choice


def _output(source: Body) -> Body:
    settings: Body = {}
    wanted: Any = source.get("response_format") or {}
    kind = wanted.get("type") if type(wanted) is dict else "unknown"
    if kind == "json_schema" and type(wanted.get("json_schema")) is dict:
        settings["format"] = {"type": "json_schema", "schema": wanted["json_schema"].get("schema") or {}}
    elif kind == "json_object":
        raise wrong("response_format", "must be a json_schema with this provider")
    elif kind not in (None, "text"):
        raise wrong("response_format", "has an unknown form")
    if type(source.get("reasoning_effort")) is str:
        settings["effort"] = source["reasoning_effort"]
    return settings


def _message(content: list[Any]) -> Body:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[Body] = []
    for block in content:
        kind = block.get("type") if type(block) is dict else None
        if kind == "text":
            texts.append(_text(block, "text"))
        elif kind == "thinking":
            thoughts.append(_text(block, "thinking"))
        elif kind == "tool_use":
            arguments = orjson.dumps(block.get("input") or {}).decode()
            function = {"name": block.get("name"), "arguments": arguments}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
        elif kind is None:
            raise other_form("One of its blocks is not an object.")
    message: Body = {"role": "assistant", "content": "".join(texts) if texts or not calls else None, "refusal": None}
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _object(event: Body, name: str) -> Body:
    found = event.get(name)
    if type(found) is not dict:
        raise other_form(f"One of its events has no {name}.")
    return found


def _text(holder: Body, name: str) -> str:
    found = holder.get(name)
    if type(found) is not str:
        raise other_form("One of its texts is no text.")
    return found
