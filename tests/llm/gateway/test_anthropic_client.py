"""The official Anthropic client against the real data plane, over providers of both dialects."""

from typing import Any

import anthropic
import pytest
from anthropic.types import MessageParam, ToolParam

from holdtrue.llm.gateway import Budget
from holdtrue.protocols.anthropic import Speaker, to_chat, to_message
from holdtrue.testing import Fault
from tests.llm.gateway.worlds import KEY, Served, only, provider
from tests.serving.plane_home import TOKEN

HELLO: list[MessageParam] = [{"role": "user", "content": "good day"}]
TOOL: ToolParam = {"name": "look", "input_schema": {"type": "object", "properties": {"text": {"type": "string"}}}}


@pytest.fixture(params=["openai", "anthropic"])
def both(request: pytest.FixtureRequest, served: Served) -> Served:
    """Serve a provider that speaks the client's dialect, or the other one."""
    base = served.fake.url if request.param == "anthropic" else f"{served.fake.url}/v1"
    served.configure(only(provider(served.fake.url, kind=request.param, base_url=base)))
    return served


def test_a_message_is_answered(both: Served) -> None:
    answer = both.anthropic().messages.create(model="small", max_tokens=50, messages=HELLO, system="Be brief.")
    (block,) = answer.content
    assert block.type == "text"
    assert block.text == "You said: good day"
    assert (answer.stop_reason, answer.role, answer.model) == ("end_turn", "assistant", "small")
    assert answer.usage.output_tokens == 4
    assert answer._request_id is not None  # pyright: ignore[reportPrivateUsage]  # its documented name
    assert KEY in str(both.fake.received[0].headers)
    assert TOKEN not in str(both.fake.received[0].headers)


def test_a_message_is_streamed(both: Served) -> None:
    with both.anthropic().messages.stream(model="small", max_tokens=50, messages=HELLO) as stream:
        assert "".join(stream.text_stream) == "You said: good day"
        final = stream.get_final_message()
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens == 4


def test_tools_are_called(both: Served) -> None:
    messages = both.anthropic().messages
    answer = messages.create(model="small", max_tokens=50, messages=HELLO, tools=[TOOL], tool_choice={"type": "auto"})
    (block,) = answer.content
    assert block.type == "tool_use"
    assert (block.name, block.input, answer.stop_reason) == ("look", {"text": "good day"}, "tool_use")
    with messages.stream(model="small", max_tokens=50, messages=HELLO, tools=[TOOL]) as stream:
        final = stream.get_final_message()
    (streamed,) = final.content
    assert streamed.type == "tool_use"
    assert (streamed.name, streamed.input, final.stop_reason) == ("look", {"text": "good day"}, "tool_use")
    turns: list[MessageParam] = [
        *HELLO,
        {"role": "assistant", "content": [{"type": "tool_use", "id": block.id, "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "a cat"}]},
    ]
    done = messages.create(model="small", max_tokens=50, messages=turns, tools=[TOOL])
    assert done.stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("fault", "kind", "name"),
    [
        (Fault(status=500), anthropic.InternalServerError, "api_error"),
        (Fault(status=400), anthropic.BadRequestError, "invalid_request_error"),
        (Fault(status=404), anthropic.NotFoundError, "not_found_error"),
        (Fault(status=429, retry_after="7"), anthropic.RateLimitError, "rate_limit_error"),
    ],
)
def test_faults_have_shapes_that_the_client_knows(
    both: Served, fault: Fault, kind: type[anthropic.APIStatusError], name: str
) -> None:
    both.fake.script(fault)
    with pytest.raises(kind) as error:
        both.anthropic().messages.create(model="small", max_tokens=5, messages=HELLO)
    body: Any = error.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] == name
    assert KEY not in error.value.response.text


def test_errors_of_the_gateways_own(served: Served) -> None:
    with pytest.raises(anthropic.AuthenticationError):
        served.anthropic("ht_svc_wrong").messages.create(model="small", max_tokens=5, messages=HELLO)
    with pytest.raises(anthropic.NotFoundError):
        served.anthropic().messages.create(model="none", max_tokens=5, messages=HELLO)
    with pytest.raises(anthropic.BadRequestError):
        served.anthropic().messages.create(model="small", max_tokens=0, messages=HELLO)
    served.configure(only(provider(served.fake.url), budgets=(Budget(requests=0),)))
    with pytest.raises(anthropic.RateLimitError):
        served.anthropic().messages.create(model="small", max_tokens=5, messages=HELLO)


@pytest.mark.parametrize("fault", [Fault(half=True), Fault(bad_json=True), Fault(error_event=True), Fault(drop=4)])
def test_a_stream_that_breaks_says_so(both: Served, fault: Fault) -> None:
    both.fake.script(fault)
    events: list[str] = []
    with pytest.raises(anthropic.APIError):  # noqa: PT012  # the error comes out of the iteration
        for event in both.anthropic().messages.create(model="small", max_tokens=50, messages=HELLO, stream=True):
            events.append(event.type)
    assert "message_stop" not in events
    assert "message_delta" not in events


def test_one_credential_in_either_header(served: Served) -> None:
    post = served.plane.client.post
    asked = {"model": "small", "max_tokens": 5, "messages": HELLO}
    client = served.plane.client
    kept = client.headers.pop("authorization")
    try:
        assert post("/v1/messages", json=asked, headers={"x-api-key": TOKEN}).status_code == 200
        assert post("/v1/messages", json=asked, headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
        both = {"x-api-key": TOKEN, "authorization": f"Bearer {TOKEN}"}
        assert post("/v1/messages", json=asked, headers=both).status_code == 401
        assert post("/v1/messages", json=asked, headers={"x-api-key": "no"}).status_code == 401
        assert post("/v1/messages", json=asked, headers={"x-api-key": ""}).status_code == 401
        assert post("/v1/messages", json=asked).json()["error"]["type"] == "authentication_error"
    finally:
        client.headers["authorization"] = kept


def test_models_are_listed_at_the_same_address(served: Served) -> None:
    assert sorted(model.id for model in served.anthropic().models.list()) == ["fake/large", "fake/small"]


def test_requests_are_translated() -> None:
    asked: dict[str, Any] = {
        "model": "m",
        "max_tokens": 9,
        "system": [{"type": "text", "text": "Be brief."}],
        "stop_sequences": ["END"],
        "stream": True,
        "temperature": 0.1,
        "metadata": {"user_id": "u"},
        "tools": [{"name": "look", "description": "d", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}, "effort": "low"},
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "see"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="}},
                    {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
                    {"type": "document", "source": {"type": "text", "data": "d"}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "t1", "name": "look", "input": {"a": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "cat"}]},
                    {"type": "text", "text": "and?"},
                ],
            },
        ],
    }
    assert to_chat(asked) == {
        "model": "m",
        "max_tokens": 9,
        "stream": True,
        "temperature": 0.1,
        "stop": ["END"],
        "stream_options": {"include_usage": True},
        "user": "u",
        "tools": [
            {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}, "description": "d"}}
        ],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
        },
        "reasoning_effort": "low",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "see"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}},
                    {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                    {"type": "document", "source": {"type": "text", "data": "d"}},
                ],
            },
            {
                "role": "assistant",
                "content": "I look.",
                "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}],
            },
            {"role": "tool", "tool_call_id": "t1", "content": "cat"},
            {"role": "user", "content": "and?"},
        ],
    }


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("stop", "end_turn"), ("length", "max_tokens"), ("tool_calls", "tool_use"), ("content_filter", "refusal")],
)
def test_reasons_to_stop(reason: str, expected: str) -> None:
    body = {"id": "x", "model": "m", "choices": [{"message": {"content": "hi"}, "finish_reason": reason}]}
    assert to_message(body)["stop_reason"] == expected
    speaker = Speaker()
    list(speaker.tell({"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": reason}]}))
    assert list(speaker.end())[-2]["delta"]["stop_reason"] == expected


def test_blocks_of_a_stream_begin_and_end_in_turn() -> None:
    speaker = Speaker()
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": ""},
        {"content": "a"},
        {"content": "b"},
        {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "x", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
        {"tool_calls": [{"index": 1, "id": "2", "function": {"name": "y", "arguments": "{}"}}]},
    ]
    events = [event for delta in deltas for event in speaker.tell({"choices": [{"index": 0, "delta": delta}]})]
    events += speaker.end()
    assert [(event["type"], event.get("index")) for event in events] == [
        ("message_start", None),
        ("content_block_start", 0),
        ("content_block_delta", 0),
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_delta", 1),
        ("content_block_stop", 1),
        ("content_block_start", 2),
        ("content_block_delta", 2),
        ("content_block_stop", 2),
        ("message_delta", None),
        ("message_stop", None),
    ]
