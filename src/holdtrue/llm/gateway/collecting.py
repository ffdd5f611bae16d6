"""Put a streamed answer together again, for what is recorded, billed and cached of it."""

from collections.abc import Iterator
from typing import Any

from holdtrue.llm.gateway.model import Body, Chunk, Operation


class Collector:
    """Take the pieces of one streamed answer in OpenAI's form."""

    __slots__ = ("_choices", "_head", "_operation", "_texts", "reasons")

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self._head: Body = {}
        self._choices: dict[int, Body] = {}
        self._texts: dict[tuple[int, str], list[str]] = {}
        self.reasons: dict[int, str] = {}

    @property
    def id(self) -> str:
        """Return the id that the provider gave its answer."""
        return str(self._head.get("id") or "")

    @property
    def model(self) -> str:
        """Return the model that the provider says has answered."""
        return str(self._head.get("model") or "")

    def add(self, chunk: Chunk) -> None:
        """Take one piece; parts of an unknown form are left out."""
        body = chunk.body
        choices = body.get("choices")
        if not choices:
            return
        if not self._head:
            self._head = {name: value for name, value in body.items() if name not in ("choices", "usage", "object")}
        for choice in choices:
            index = choice.get("index", 0)
            reason = choice.get("finish_reason")
            if type(reason) is str:
                self.reasons[index] = reason
            if self._operation is Operation.COMPLETION:
                self._append(index, "text", choice.get("text"))
                continue
            delta = choice.get("delta")
            if type(delta) is not dict:
                continue
            for name, value in delta.items():
                if type(value) is str:
                    if name == "role":
                        self._choices.setdefault(index, {})["role"] = value
                    else:
                        self._append(index, name, value)
                elif name == "tool_calls" and type(value) is list:
                    self._calls(index, value)

    def texts(self) -> Iterator[str]:
        """Yield every text of the answer: what was said, thought, and given to tools."""
        for parts in self._texts.values():
            yield "".join(parts)
        for choice in self._choices.values():
            for call in choice.get("tool_calls", {}).values():
                yield "".join(call["arguments"])

    def body(self, usage: Body) -> Body:
        """Return the answer as it would have been given whole."""
        chat = self._operation is Operation.CHAT
        return {
            **self._head,
            "object": "chat.completion" if chat else "text_completion",
            "choices": [
                {
                    "index": index,
                    **({"message": self._message(index)} if chat else {"text": self._text(index, "text") or ""}),
                    "logprobs": None,
                    "finish_reason": self.reasons.get(index),
                }
                for index in sorted(self._indices())
            ],
            "usage": usage,
        }

    def _indices(self) -> set[int]:
        return {*self._choices, *self.reasons, *(index for index, _ in self._texts)}

    def _append(self, index: int, name: str, value: Any) -> None:
        if type(value) is str and value:
            self._texts.setdefault((index, name), []).append(value)

    def _calls(self, index: int, calls: list[Any]) -> None:
        known = self._choices.setdefault(index, {}).setdefault("tool_calls", {})
        for call in calls:
            function = call.get("function") if type(call) is dict else None
            if type(function) is not dict:
                continue
            place = call.get("index")
            fresh: Body = {"id": None, "name": "", "arguments": []}
            mine = known.setdefault(place if type(place) is int else len(known), fresh)
            mine["id"] = call.get("id") or mine["id"]
            name, arguments = function.get("name"), function.get("arguments")
            if type(name) is str:
                mine["name"] += name
            if type(arguments) is str:
                mine["arguments"].append(arguments)

    def _text(self, index: int, name: str) -> str | None:
        parts = self._texts.get((index, name))
        return None if parts is None else "".join(parts)

    def _message(self, index: int) -> Body:
        choice = self._choices.get(index, {})
        message: Body = {"role": choice.get("role", "assistant"), "content": self._text(index, "content")}
        for place, name in self._texts:
            if place == index and name != "content":
                message[name] = self._text(index, name)
        calls = choice.get("tool_calls")
        if calls:
            message["tool_calls"] = [
                {
                    "id": call["id"],
                    "type": "function",
                    "function": {"name": call["name"], "arguments": "".join(call["arguments"])},
                }
                for call in calls.values()
            ]
        elif message["content"] is None:
            message["content"] = ""
        return message


def as_chunks(operation: Operation, body: Body, *, wants_usage: bool) -> Iterator[Chunk]:
    """Yield a whole answer as the pieces of a stream: one per choice, its end, and the usage if it is wanted."""
    head = {name: value for name, value in body.items() if name not in ("choices", "usage")}
    if operation is Operation.CHAT:
        head["object"] = "chat.completion.chunk"
    for choice in body["choices"]:
        index, reason = choice.get("index", 0), choice.get("finish_reason")
        plain: Body = {"index": index, "logprobs": None}
        if operation is Operation.COMPLETION:
            yield Chunk({**head, "choices": [{**plain, "text": choice["text"], "finish_reason": reason}]})
            continue
        delta = dict(choice["message"])
        if delta.get("tool_calls"):
            delta["tool_calls"] = [{"index": place, **call} for place, call in enumerate(delta["tool_calls"])]
        yield Chunk({**head, "choices": [{**plain, "delta": delta, "finish_reason": None}]})
        yield Chunk({**head, "choices": [{**plain, "delta": {}, "finish_reason": reason}]})
    if wants_usage:
        yield Chunk({**head, "choices": [], "usage": body.get("usage")})
