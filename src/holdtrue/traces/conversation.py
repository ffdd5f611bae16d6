"""What was said in a span: messages out of the attributes and events of every convention in use.

Read are the OpenTelemetry GenAI conventions (messages as one attribute or event; before that an event per message;
before that numbered attributes), OpenInference, MLflow and Traceloop. What does not have the form it should is text.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from holdtrue.traces.model import Message

_MOST: Final = 1000
_INPUTS: Final = ("input.value", "mlflow.spanInputs", "traceloop.entity.input", "gen_ai.tool.call.arguments")
_OUTPUTS: Final = ("output.value", "mlflow.spanOutputs", "traceloop.entity.output", "gen_ai.tool.call.result")
_ASKED: Final = ("gen_ai.prompt", *_INPUTS)
_GIVEN: Final = ("gen_ai.completion", *_OUTPUTS)
_DETAILS: Final = "gen_ai.client.inference.operation.details"
_TEXTS: Final = (
    "content",
    "text",
    "message",
    "query",
    "question",
    "prompt",
    "input",
    "value",
    "output",
    "answer",
    "result",
)
_NUMBERED: Final = (("gen_ai.prompt.", ""), ("llm.input_messages.", "message."))
_NUMBERED_BACK: Final = (("gen_ai.completion.", ""), ("llm.output_messages.", "message."))
_FIRST: Final = ("role", "content", "contents.0.message_content.text", "tool_calls.0.name")
_NUMBERED_STARTS: Final = frozenset(
    {
        *(f"{start}0.{inner}{name}" for start, inner in (*_NUMBERED, *_NUMBERED_BACK) for name in _FIRST),
        *(f"{start}0.message.tool_calls.0.tool_call.function.name" for start, _ in (_NUMBERED[1], _NUMBERED_BACK[1])),
    }
)
_STARTS: Final = _NUMBERED_STARTS | {
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.prompt",
    "gen_ai.completion",
    *_INPUTS,
    *_OUTPUTS,
}
"""What a span has at least one of if it has messages at all."""


def conversation(
    attributes: Mapping[str, Any], events: Sequence[Mapping[str, Any]]
) -> tuple[list[Message], list[Message]]:
    """Return the messages that went into a span's model or tool, and those that came out."""
    if not events and _STARTS.isdisjoint(attributes):
        return [], []
    given = [*_instructions(attributes), *_messages(attributes.get("gen_ai.input.messages"))]
    came = _messages(attributes.get("gen_ai.output.messages"))
    if events and not (given and came):
        heard, said = _of_events(events)
        given, came = given or heard, came or said
    if given and came:
        return given[:_MOST], came[:_MOST]
    numbered = not _NUMBERED_STARTS.isdisjoint(attributes)
    given = given or (numbered and _first_numbered(attributes, _NUMBERED)) or _plain(attributes, _ASKED, "user")
    came = came or (numbered and _first_numbered(attributes, _NUMBERED_BACK)) or _plain(attributes, _GIVEN, "assistant")
    return given[:_MOST], came[:_MOST]


def first_question(given: Sequence[Message]) -> str:
    """Return what the user asked last, which is what a span was about, else the last text there is."""
    for message in reversed(given):
        if message.role in ("user", "human") and message.text:
            return message.text
    return next((message.text for message in reversed(given) if message.text), "")


def text_of(messages: Sequence[Message], limit: int) -> str:
    """Return the words of messages as one text, cut at `limit` signs."""
    parts: list[str] = []
    size = 0
    for _, text, calls, answers in messages:
        if text:
            parts.append(text[:limit])
            size += len(text) + 1
        # The usual message is one text: this runs for every message of every span that comes.
        if calls or answers:
            for part in (answers, *(f"{name} {said}" for name, said, _ in calls)):
                if part:
                    parts.append(part[:limit])
                    size += len(part) + 1
        if size > limit:
            break
    return "\n".join(parts)[:limit]


def _instructions(attributes: Mapping[str, Any]) -> list[Message]:
    value = attributes.get("gen_ai.system_instructions")
    if value is None:
        return []
    loaded = _loaded(value)
    text = "\n".join(_part_texts(loaded)) if isinstance(loaded, list) else _flat(loaded)
    return [Message("system", text)] if text else []


def _messages(value: Any) -> list[Message]:
    """Return the messages of one attribute: a list of objects with role and parts, or the JSON of one."""
    if value is None:
        return []
    loaded = _loaded(value)
    if isinstance(loaded, dict):
        loaded = [loaded]
    if not isinstance(loaded, list):
        return [Message("", _flat(loaded))] if loaded != "" else []
    return [_message(item) for item in loaded[:_MOST]]


def _message(item: Any) -> Message:
    # The usual message, one text, at once: this runs for every message of every span that comes.
    if type(item) is dict and "tool_calls" not in item:
        parts, role = item.get("parts"), item.get("role")
        if type(parts) is list and len(parts) == 1 and type(parts[0]) is dict and type(role) is str:
            part = parts[0]
            if part.get("type") == "text" and type(part.get("content")) is str:
                return Message(role, part["content"])
    item = _loaded(item) if isinstance(item, str) and item[:1] == "{" else item
    if not isinstance(item, dict):
        return Message("", _flat(item))
    role = item.get("role")
    parts = item.get("parts", item.get("content", item.get("text")))
    texts = list(_part_texts(parts)) if isinstance(parts, list) else [_flat(parts)] if parts not in (None, "") else []
    calls = [*_part_calls(parts), *_calls(item.get("tool_calls"))]
    answers = list(_part_answers(parts))
    return Message(
        role if isinstance(role, str) else "", "\n".join(filter(None, texts)), tuple(calls), "\n".join(answers)
    )


def _part_texts(parts: Any) -> Iterator[str]:
    for part in parts:
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict) and part.get("type") not in ("tool_call", "tool_call_response", "tool_use"):
            text = part.get("content", part.get("text"))
            if text is None:
                kind = part.get("type")
                text = f"[{kind}]" if isinstance(kind, str) else part
            yield _flat(text)


def _part_calls(parts: Any) -> Iterator[tuple[str, str, str]]:
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict) and part.get("type") in ("tool_call", "tool_use"):
            said = part.get("arguments", part.get("input"))
            yield _flat(part.get("name")), _flat(said), _flat(part.get("id"))


def _part_answers(parts: Any) -> Iterator[str]:
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict) and part.get("type") == "tool_call_response":
            yield _flat(part.get("response", part.get("result")))


def _calls(value: Any) -> Iterator[tuple[str, str, str]]:
    """Yield the tool calls of the OpenAI form."""
    for call in value if isinstance(value, list) else ():
        if isinstance(call, dict):
            function = call.get("function", call)
            if isinstance(function, dict):
                yield _flat(function.get("name")), _flat(function.get("arguments")), _flat(call.get("id"))


def _of_events(events: Sequence[Mapping[str, Any]]) -> tuple[list[Message], list[Message]]:
    given: list[Message] = []
    came: list[Message] = []
    for event in events:
        name, attributes = event.get("name"), event.get("attributes")
        if not isinstance(name, str) or not isinstance(attributes, dict) or not name.startswith("gen_ai."):
            continue
        if name == _DETAILS:
            given += [*_instructions(attributes), *_messages(attributes.get("gen_ai.input.messages"))]
            came += _messages(attributes.get("gen_ai.output.messages"))
        elif name == "gen_ai.content.prompt":
            given += _messages(attributes.get("gen_ai.prompt"))
        elif name == "gen_ai.content.completion":
            came += _messages(attributes.get("gen_ai.completion"))
        elif name == "gen_ai.choice":
            said = _loaded(attributes.get("message", attributes))
            came.append(_with_role(said, "assistant"))
        elif name.endswith(".message"):
            role = name.removeprefix("gen_ai.").removesuffix(".message")
            given.append(_with_role(_opened(attributes), role))
    return given, came


def _opened(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event's attributes with the JSON in them read."""
    return {key: _loaded(value) if key in ("content", "tool_calls") else value for key, value in attributes.items()}


def _with_role(said: Any, role: str) -> Message:
    message = _message(said)
    return message if message.role else Message(role, message.text, message.calls, message.answers)


def _first_numbered(attributes: Mapping[str, Any], forms: Sequence[tuple[str, str]]) -> list[Message]:
    return next((found for prefix, inner in forms if (found := _numbered(attributes, prefix, inner))), [])


def _numbered(attributes: Mapping[str, Any], prefix: str, inner: str) -> list[Message]:
    """Return messages laid flat: `prefix` number `.` `inner` field."""
    found: list[Message] = []
    for number in range(_MOST):
        start = f"{prefix}{number}.{inner}"
        role, content = attributes.get(f"{start}role"), attributes.get(f"{start}content")
        calls = list(_numbered_calls(attributes, start))
        if role is None and content is None and not calls:
            break
        text = _flat(_unfolded(content)) if content is not None else "\n".join(_numbered_parts(attributes, start))
        found.append(Message(_flat(role), text, tuple(calls)))
    return found


def _unfolded(content: Any) -> Any:
    """Return the text of a content that is the JSON of a list of parts; anything else as it is."""
    if isinstance(content, str) and content[:2] == "[{":
        loaded = _loaded(content)
        if isinstance(loaded, list):
            return "\n".join(_part_texts(loaded))
    return content


def _numbered_parts(attributes: Mapping[str, Any], start: str) -> Iterator[str]:
    for number in range(_MOST):
        text = attributes.get(f"{start}contents.{number}.message_content.text")
        if text is None:
            return
        yield _flat(text)


def _numbered_calls(attributes: Mapping[str, Any], start: str) -> Iterator[tuple[str, str, str]]:
    for number in range(_MOST):
        flat = f"{start}tool_calls.{number}."
        name = attributes.get(f"{flat}name", attributes.get(f"{flat}tool_call.function.name"))
        if name is None:
            return
        said = attributes.get(f"{flat}arguments", attributes.get(f"{flat}tool_call.function.arguments"))
        call = attributes.get(f"{flat}id", attributes.get(f"{flat}tool_call.id"))
        yield _flat(name), _flat(said), _flat(call)


def _plain(attributes: Mapping[str, Any], names: Sequence[str], role: str) -> list[Message]:
    """Return what a span without messages took or gave: of a request or an answer in OpenAI's form, its messages."""
    for name in names:
        value = attributes.get(name)
        if value is None:
            continue
        loaded = _loaded(value)
        if isinstance(loaded, dict):
            for key in ("messages", "input_messages"):
                if isinstance(loaded.get(key), list):
                    return [_message(item) for item in loaded[key][:_MOST]]
            choices = loaded.get("choices")
            if isinstance(choices, list):
                said = [item.get("message", item) if isinstance(item, dict) else item for item in choices[:_MOST]]
                return [_with_role(item, role) for item in said]
            for key in _TEXTS:
                if isinstance(loaded.get(key), str) and loaded[key]:
                    return [Message(role, loaded[key])]
        elif isinstance(loaded, list) and loaded and all(isinstance(item, dict) and "role" in item for item in loaded):
            return [_message(item) for item in loaded[:_MOST]]
        text = _flat(loaded)
        if text:
            return [Message(role, text)]
    return []


def _loaded(value: Any) -> Any:
    """Return what a text that is JSON says; anything else as it is."""
    if isinstance(value, str) and value[:1] in ("{", "[", '"'):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value


def _flat(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    try:
        return orjson.dumps(value).decode()
    except (TypeError, orjson.JSONEncodeError):
        return str(value)
