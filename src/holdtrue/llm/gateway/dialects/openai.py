"""OpenAI's dialect, which many servers speak: passed on as it is, and looked at."""

from typing import Any

import orjson

from holdtrue.llm.gateway.dialects.base import Answer, Outgoing, Sent, complaint_of, other_form
from holdtrue.llm.gateway.model import Body, Chunk, Operation
from holdtrue.llm.gateway.rules import wants_usage

_PATHS = {
    Operation.CHAT: "/chat/completions",
    Operation.COMPLETION: "/completions",
    Operation.EMBEDDING: "/embeddings",
}


class OpenAIDialect:
    """Speak with any server that is compatible with OpenAI's API."""

    def __init__(self, *, stream_usage: bool = True) -> None:
        """`stream_usage` asks for the usage of streams, which old servers may not know."""
        self._stream_usage = stream_usage

    def headers(self, key: str) -> dict[str, str]:
        """Return the bearer header."""
        return {"authorization": f"Bearer {key}"} if key else {}

    def outgoing(self, sent: Sent) -> Outgoing:
        """Return the client's own body under the provider's name of the model."""
        body = {**sent.body, "model": sent.model}
        if sent.stream:
            body["stream"] = True
            if self._stream_usage:
                # Calls are billed by it; the client sees it only if it asked itself.
                options = body.get("stream_options")
                body["stream_options"] = {**(options if type(options) is dict else {}), "include_usage": True}
        return Outgoing(_PATHS[sent.operation], {}, body)

    def answer(self, sent: Sent, data: Any) -> Answer:
        """Check that an answer has what every client reads."""
        if type(data) is not dict:
            raise other_form("It is not a JSON object.")
        name, inner = _parts(sent.operation)
        entries = data.get(name)
        if type(entries) is not list or not entries:
            raise other_form(f"It has no {name}.")
        if not all(type(entry) is dict and (inner is None or inner in entry) for entry in entries):
            raise other_form(f"Its {name} have another form.")
        if sent.operation is Operation.CHAT and not all(type(entry["message"]) is dict for entry in entries):
            raise other_form("It has no message.")
        for entry in entries if sent.operation is Operation.CHAT else ():
            _check_said(entry["message"])
        return Answer(data, data.get("usage"))

    def translator(self, sent: Sent) -> "OpenAITranslator":
        """Return what reads the stream that answers `sent`."""
        return OpenAITranslator(wants_usage=wants_usage(sent.body))

    def complaint(self, data: Any) -> str:
        """Return the provider's own words."""
        return complaint_of(data)


class OpenAITranslator:
    """Read a stream of chunks; it is finished once every choice that began has a finish reason."""

    def __init__(self, *, wants_usage: bool) -> None:
        self.usage: Any = None
        self.finished = False
        self.done = False
        self._wants_usage = wants_usage
        self._open: set[Any] = set()
        self._closed: set[Any] = set()

    def feed(self, name: str, data: bytes) -> list[Chunk]:
        """Return the chunk that an event holds."""
        if data.startswith(b"[DONE]"):
            self.done = True
            return []
        try:
            body: Any = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise other_form("One of its events is broken JSON.") from None
        if type(body) is not dict:
            raise other_form("One of its events is not a JSON object.")
        if name == "error" or body.get("error"):
            raise other_form(f"It ended in an error: {complaint_of(body) or 'no reason given'}")
        choices = body.get("choices")
        if type(choices) is not list:
            raise other_form("One of its events has no choices.")
        self._note(choices)
        if body.get("usage") is not None:
            self.usage = body["usage"]
            if not choices and not self._wants_usage:
                return []
        if not self._wants_usage:
            body.pop("usage", None)
        return [Chunk(body)]

    def _note(self, choices: list[Any]) -> None:
        for choice in choices:
            if type(choice) is not dict:
                raise other_form("One of its choices is not a JSON object.")
            index = choice.get("index", 0)
            if type(index) is not int:
                raise other_form("One of its choices has no number.")
            delta = choice.get("delta")
            if type(delta) is dict:
                _check_said(delta)
            self._open.add(index)
            if choice.get("finish_reason") is not None:
                self._closed.add(index)
        self.finished = bool(self._open) and self._open == self._closed


def _check_said(said: Body) -> None:
    """Raise ProviderFailed for a message, or a piece of one, that nobody could read."""
    content, calls = said.get("content"), said.get("tool_calls")
    if content is not None and type(content) not in (str, list):
        raise other_form("Its content is neither a text nor a list of parts.")
    if calls is None:
        return
    if type(calls) is not list or not all(
        type(call) is dict and type(call.get("function") or {}) is dict for call in calls
    ):
        raise other_form("Its tool calls have another form.")


def _parts(operation: Operation) -> tuple[str, str | None]:
    if operation is Operation.EMBEDDING:
        return "data", "embedding"
    return "choices", "message" if operation is Operation.CHAT else "text"


def as_completion(body: Body) -> Body:
    """Return the answer to a chat as that of a plain text completion."""
    return {
        **body,
        "object": "text_completion",
        "choices": [
            {
                "index": choice.get("index", 0),
                "text": choice["message"].get("content") or "",
                "logprobs": None,
                "finish_reason": choice.get("finish_reason"),
            }
            for choice in body["choices"]
        ],
    }
