"""Anthropic's messages API as a provider: asked and read in OpenAI's form."""

from typing import Any

import orjson
import pytest

from holdtrue.core.errors import InvalidInput
from holdtrue.llm.gateway import Operation, ProviderFailed, Usage
from holdtrue.llm.gateway.dialects.anthropic import AnthropicDialect
from holdtrue.llm.gateway.dialects.base import Sent
from holdtrue.testing import FakeProvider, Fault
from tests.llm.gateway.labs import CALLER, Lab, Open, chat, text_of
from tests.llm.gateway.worlds import KEY, only, provider

TOOL = {
    "type": "function",
    "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}, "strict": True},
}


def sent(body: dict[str, Any], **more: Any) -> Sent:
    return Sent(Operation.CHAT, "claude", body, stream=False, created=7, **more)


def asked(body: dict[str, Any]) -> dict[str, Any]:
    return AnthropicDialect(output_limit=99).outgoing(sent(body)).body


def test_a_conversation_is_translated() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}
    body = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
            {"role": "user", "content": [{"type": "text", "text": "What is it?"}, picture]},
            {"role": "user", "content": "Look."},
            {
                "role": "assistant",
                "content": "I look.",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":"it"}'}},
                    {"id": "c2", "type": "function", "function": {"name": "look", "arguments": ""}},
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
            {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "a dog"}]},
            {"role": "user", "content": "And now?"},
        ],
        "max_completion_tokens": 30,
        "temperature": 0.2,
        "stop": "END",
        "user": "u1",
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "parallel_tool_calls": False,
        "seed": 4,
        "logit_bias": {"1": 2},
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    }
    assert asked(body) == {
        "model": "claude",
        "max_tokens": 30,
        "temperature": 0.2,
        "system": "Be brief.\n\nBe kind.",
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u1"},
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it?"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
                    {"type": "text", "text": "Look."},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": "it"}},
                    {"type": "tool_use", "id": "c2", "name": "look", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "a cat"},
                    {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "a dog"}]},
                    {"type": "text", "text": "And now?"},
                ],
            },
        ],
        "tools": [{"name": "look", "description": "Look.", "input_schema": {"type": "object"}, "strict": True}],
        "tool_choice": {"type": "tool", "name": "look", "disable_parallel_tool_use": True},
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}, "effort": "low"},
    }
    assert asked(chat())["max_tokens"] == 99


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("auto", {"type": "auto"}), ("none", {"type": "none"}), ("required", {"type": "any"}), (None, None)],
)
def test_choices_of_tools(choice: Any, expected: Any) -> None:
    assert asked(chat(tools=[TOOL], tool_choice=choice)).get("tool_choice") == expected


@pytest.mark.parametrize(
    "more",
    [
        {"n": 2},
        {"logprobs": True},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "grammar"}},
        {"response_format": "json"},
        {"tools": [{"type": "retrieval"}]},
        {"tools": [TOOL], "tool_choice": 7},
        {"messages": [{"role": "wizard", "content": "hi"}]},
        {"messages": [{"role": "user", "content": 7}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "data:image/png,raw"}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "x", "arguments": "{"}}]}]},
        {"messages": [{"role": "assistant", "tool_calls": ["x"]}]},
    ],
)
def test_what_has_no_words_there_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as error:
        asked({**chat(), **more})
    assert error.value.facts["param"]


def answer(**changes: Any) -> dict[str, Any]:
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }
    return {**message, **changes}


def test_an_answer_is_read() -> None:
    content = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "I look"},
        {"type": "text", "text": " twice."},
        {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": 1}},
    ]
    usage = {
        "input_tokens": 10,
        "cache_creation_input_tokens": 3,
        "cache_read_input_tokens": 4,
        "output_tokens": 5,
    }
    found = AnthropicDialect().answer(sent(chat()), answer(content=content, stop_reason="tool_use", usage=usage))
    assert found.body == {
        "id": "msg_1",
        "object": "chat.completion",
        "created": 7,
        "model": "claude-x",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "I look twice.",
                    "refusal": None,
                    "reasoning_content": "hm",
                    "tool_calls": [
                        {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}}
                    ],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {
            "prompt_tokens": 17,
            "completion_tokens": 5,
            "total_tokens": 22,
            "prompt_tokens_details": {"cached_tokens": 4},
        },
    }


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("end_turn", "stop"),
        ("max_tokens", "length"),
        ("stop_sequence", "stop"),
        ("refusal", "content_filter"),
        ("something_new", "stop"),
        (None, None),
    ],
)
def test_reasons_to_stop(reason: str | None, expected: str | None) -> None:
    found = AnthropicDialect().answer(sent(chat()), answer(stop_reason=reason))
    assert found.body["choices"][0]["finish_reason"] == expected


@pytest.mark.parametrize(
    "data", [None, [], "x", {}, answer(type="error"), answer(content="x"), answer(content=["x"]), answer(content=[{}])]
)
def test_an_answer_of_another_form_is_refused(data: Any) -> None:
    with pytest.raises(ProviderFailed):
        AnthropicDialect().answer(sent(chat()), data)


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b'{"type":"message_start"}',
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":7}}',
        b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
    ],
)
def test_an_event_of_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(ProviderFailed):
        AnthropicDialect().translator(sent(chat())).feed("", data)


def test_events_that_nobody_knows_are_left_out() -> None:
    translator = AnthropicDialect().translator(sent(chat()))
    for event in (
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "server_tool_use"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
        {"type": "from_the_future"},
    ):
        assert translator.feed(str(event["type"]), orjson.dumps(event)) == []
    assert not translator.finished


def claude(fake: FakeProvider, **changes: Any) -> Any:
    return only(provider(fake.url, kind="anthropic", base_url=fake.url, **changes))


def test_a_chat_with_such_a_provider(lab: Lab, fake: FakeProvider) -> None:
    async def work(gateway: Open) -> Any:
        whole = await gateway.ask(chat(max_tokens=50))
        pieces = await gateway.pieces(chat(stream=True, stream_options={"include_usage": True}))
        tools = await gateway.pieces(chat("see", tools=[TOOL], stream=True))
        text = await gateway.ask({"model": "small", "prompt": "good day"}, operation=Operation.COMPLETION)
        return whole, pieces, tools, text

    whole, pieces, tools, text = lab.run(claude(fake), work)
    assert whole.body["choices"][0]["message"]["content"] == "You said: good day"
    assert whole.usage == Usage(2, 4)
    assert text_of(pieces) == "You said: good day"
    assert pieces[-1]["usage"]["total_tokens"] == 6
    assert pieces[-2]["choices"][0]["finish_reason"] == "stop"
    calls = [call for piece in tools for call in piece["choices"][0]["delta"].get("tool_calls", ())]
    assert calls[0]["function"]["name"] == "look"
    assert "".join(call["function"]["arguments"] for call in calls) == '{"text":"see"}'
    assert tools[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert text.body["choices"][0]["text"] == "You said: good day"
    assert {each.path for each in fake.received} == {"/v1/messages"}
    headers = fake.received[0].headers
    assert headers["x-api-key"] == KEY
    assert headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in headers
    assert [each.kind for each in lab.facts] == ["anthropic"] * 4


def test_an_address_with_the_version_in_it(lab: Lab, fake: FakeProvider) -> None:
    async def work(gateway: Open) -> Any:
        return await gateway.ask(chat())

    lab.run(only(provider(fake.url, kind="anthropic", base_url=f"{fake.url}/v1/")), work)
    assert fake.received[0].path == "/v1/messages"


@pytest.mark.parametrize(
    "fault", [Fault(half=True), Fault(bad_json=True), Fault(drop=3), Fault(error_event=True), Fault(unfinished=True)]
)
def test_a_stream_of_events_that_breaks_says_so(lab: Lab, fake: FakeProvider, fault: Fault) -> None:
    fake.script(fault)
    got: list[Any] = []

    async def work(gateway: Open) -> None:
        stream = await gateway.front.stream(CALLER, Operation.CHAT, chat(stream=True))
        try:
            async for chunk in stream.chunks():
                got.append(chunk.body)
        finally:
            await stream.aclose()

    with pytest.raises(ProviderFailed):
        lab.run(claude(fake), work)
    assert all(piece["choices"][0]["finish_reason"] is None for piece in got if piece)


def test_what_the_client_said_in_the_same_dialect_is_passed_on_as_it_is(lab: Lab, fake: FakeProvider) -> None:
    native = {
        "model": "small",
        "max_tokens": 20,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]}
        ],
    }
    body = chat("hi", max_tokens=20)

    async def work(gateway: Open) -> None:
        whole = await gateway.front.complete(CALLER, Operation.CHAT, body, native)
        assert whole.native is not None
        assert whole.native["content"] == [{"type": "text", "text": "You said: hi"}]
        stream = await gateway.front.stream(CALLER, Operation.CHAT, {**body, "stream": True}, native)
        names = [chunk.native[0] async for chunk in stream.chunks() if chunk.native is not None]
        assert names[:3] == ["message_start", "ping", "content_block_start"]
        assert names[-2:] == ["message_delta", "message_stop"]
        await stream.aclose()

    lab.run(claude(fake), work)
    assert fake.received[0].body == native
    assert fake.received[1].body == {**native, "stream": True}
    assert [each.usage for each in lab.facts] == [Usage(1, 3), Usage(1, 3)]
