"""A streamed answer put together again is the answer that would have been given whole."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holdtrue.llm.gateway import Chunk, Operation
from holdtrue.llm.gateway.collecting import Collector, as_chunks

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def tool(number: int, arguments: str) -> dict[str, Any]:
    return {"id": f"c{number}", "type": "function", "function": {"name": f"f{number}", "arguments": arguments}}


messages = st.builds(
    lambda content, calls, thought: {
        "role": "assistant",
        "content": content,
        **({"reasoning_content": thought} if thought else {}),
        **({"tool_calls": [tool(number, text) for number, text in enumerate(calls)]} if calls else {}),
    },
    st.text(min_size=1),
    st.lists(st.text(), max_size=3),
    st.text(),
)


@given(st.lists(st.tuples(messages, st.sampled_from(["stop", "length", "tool_calls"])), min_size=1, max_size=3))
def test_chats(choices: list[tuple[dict[str, Any], str]]) -> None:
    body = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": index, "message": message, "logprobs": None, "finish_reason": reason}
            for index, (message, reason) in enumerate(choices)
        ],
        "usage": USAGE,
    }
    collector = Collector(Operation.CHAT)
    for chunk in as_chunks(Operation.CHAT, body, wants_usage=True):
        collector.add(chunk)
    assert collector.body(USAGE) == body
    assert (collector.id, collector.model) == ("x", "m")
    assert list(collector.reasons.values()) == [reason for _, reason in choices]


@given(st.lists(st.text(), min_size=1, max_size=3))
def test_completions(texts: list[str]) -> None:
    body = {
        "id": "x",
        "object": "text_completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": index, "text": text, "logprobs": None, "finish_reason": "stop"}
            for index, text in enumerate(texts)
        ],
        "usage": USAGE,
    }
    collector = Collector(Operation.COMPLETION)
    for chunk in as_chunks(Operation.COMPLETION, body, wants_usage=False):
        collector.add(chunk)
    assert collector.body(USAGE) == body


anything = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)
calls = st.lists(
    st.fixed_dictionaries(
        {"function": st.fixed_dictionaries({}, optional={"name": anything, "arguments": anything})},
        optional={"index": anything, "id": anything},
    )
)


@given(anything, anything | calls)
def test_deltas_of_any_form_do_no_harm(delta: Any, called: Any) -> None:
    collector = Collector(Operation.CHAT)
    collector.add(Chunk({"id": "x", "choices": [{"index": 0, "delta": delta}]}))
    collector.add(Chunk({"id": "x", "choices": [{"index": 0, "delta": {"tool_calls": called}}]}))
    assert collector.body(USAGE)["usage"] == USAGE
    assert all(isinstance(text, str) for text in collector.texts())
