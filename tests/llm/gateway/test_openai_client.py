"""The official OpenAI client against the real data plane, over a fake provider."""

import base64
import json
import struct
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from holdtrue.llm.gateway import Budget, Price
from holdtrue.testing import Fault
from tests.llm.gateway.worlds import KEY, Served, only, provider
from tests.serving.plane_home import OTHER, ROOT

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "good day"}]
TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"text": {"type": "string"}}}},
}


def test_a_chat_is_answered(served: Served) -> None:
    answer = served.openai().chat.completions.create(model="fake/small", messages=HELLO, temperature=0.5)
    assert answer.choices[0].message.content == "You said: good day"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 4)
    assert answer._request_id is not None  # pyright: ignore[reportPrivateUsage]  # its documented name
    (received,) = served.fake.received
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert received.body == {"model": "small", "messages": HELLO, "temperature": 0.5}


def test_the_headers_tell_how_it_was_answered(served: Served) -> None:
    served.configure(only(provider(served.fake.url, prices={"*": Price(1_000_000, 1_000_000)}, cache_seconds=60)))
    raw = served.openai().chat.completions.with_raw_response
    first = raw.create(model="small", messages=HELLO, seed=1)
    again = raw.create(model="small", messages=HELLO, seed=1)
    assert first.headers["x-holdtrue-provider"] == "fake"
    assert (first.headers["x-holdtrue-cache"], first.headers["x-holdtrue-cost-micros"]) == ("miss", "6")
    assert (again.headers["x-holdtrue-cache"], again.headers["x-holdtrue-cost-micros"]) == ("hit", "0")
    assert first.headers["x-holdtrue-call"] != again.headers["x-holdtrue-call"]
    assert again.parse().choices[0].message.content == "You said: good day"


@pytest.mark.parametrize("usage", [False, True])
def test_a_chat_is_streamed(served: Served, usage: bool) -> None:
    more: dict[str, Any] = {"stream_options": {"include_usage": True}} if usage else {}
    stream = served.openai().chat.completions.create(model="small", messages=HELLO, stream=True, **more)
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "You said: good day"
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage is not None] == ([6] if usage else [])
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert stream.response.headers["content-type"].startswith("text/event-stream")


def test_tools_are_called_and_their_results_understood(served: Served) -> None:
    chats = served.openai().chat.completions
    answer = chats.create(model="small", messages=HELLO, tools=[TOOL], tool_choice="auto")
    call = (answer.choices[0].message.tool_calls or [])[0]
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("look", {"text": "good day"})
    with chats.stream(model="small", messages=HELLO, tools=[TOOL]) as stream:
        final = stream.get_final_completion()
    streamed = (final.choices[0].message.tool_calls or [])[0]
    assert streamed.function.arguments == call.function.arguments
    result: ChatCompletionMessageParam = {"role": "tool", "tool_call_id": call.id, "content": "a cat"}
    asked: Any = answer.choices[0].message.to_dict()
    done = chats.create(model="small", messages=[*HELLO, asked, result], tools=[TOOL])
    assert done.choices[0].message.content == "You said: good day"


def test_structured_output_is_passed_through(served: Served) -> None:
    schema: dict[str, object] = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    }
    answer = served.openai().chat.completions.create(
        model="small",
        messages=HELLO,
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}},
    )
    assert json.loads(answer.choices[0].message.content or "") == {"city": "text", "people": 1}


def test_completions_and_several_choices(served: Served) -> None:
    ai = served.openai()
    answer = ai.completions.create(model="small", prompt="once", n=2)
    assert [choice.text for choice in answer.choices] == ["You said: once"] * 2
    chunks = ai.completions.create(model="small", prompt="once", stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == "You said: once"


def test_embeddings_in_both_encodings(served: Served) -> None:
    ai = served.openai()
    plain = ai.embeddings.create(model="small", input=["a", "b"])
    floats = ai.embeddings.create(model="small", input=["a", "b"], encoding_format="float")
    for one, two in zip(plain.data, floats.data, strict=True):
        assert one.embedding == pytest.approx(two.embedding, abs=1e-6)
    assert [each.body.get("encoding_format") for each in served.fake.received] == ["base64", "float"]
    assert plain.usage.prompt_tokens == 2


@pytest.mark.parametrize("asked", ["base64", "float", None])
def test_embeddings_are_given_as_asked_whatever_the_provider_gives(asked: str | None) -> None:
    from holdtrue.protocols.openai import as_asked

    vector = [0.5, -2.0]
    packed = base64.b64encode(struct.pack("<2f", *vector)).decode()
    for given in (vector, packed):
        (entry,) = as_asked({"data": [{"index": 0, "embedding": given}]}, asked)["data"]
        assert entry == {"index": 0, "embedding": packed if asked == "base64" else vector}


def test_models_are_listed(served: Served) -> None:
    served.configure(
        only(provider(served.fake.url, models=("small", "org/big:q4"))),
        {"": only(provider(served.fake.url, name="house"))},
    )
    ai = served.openai()
    names = [model.id for model in ai.models.list()]
    assert sorted(names) == ["fake/org/big:q4", "fake/small", "house/large", "house/small"]
    for name in names:
        assert ai.models.retrieve(name).id == name
    with pytest.raises(openai.NotFoundError) as error:
        ai.models.retrieve("fake/none")
    assert error.value.code == "model_not_found"
    assert sorted(model.id for model in served.openai(OTHER).models.list()) == ["house/large", "house/small"]


def test_unknown_models_and_keys(served: Served) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        served.openai().chat.completions.create(model="none", messages=HELLO)
    assert (missing.value.code, missing.value.type, missing.value.param) == (
        "model_not_found",
        "invalid_request_error",
        "model",
    )
    assert missing.value.request_id
    for token in ("ht_svc_wrong", OTHER[:-1]):
        with pytest.raises(openai.AuthenticationError) as wrong:
            served.openai(token).chat.completions.create(model="small", messages=HELLO)
        assert wrong.value.code == "invalid_api_key"
    # Another project's models are those that do not exist.
    with pytest.raises(openai.NotFoundError) as other:
        served.openai(OTHER).chat.completions.create(model="small", messages=HELLO)
    assert str(other.value.body) == str(missing.value.body).replace("“none”", "“small”")


def test_a_token_for_all_projects_names_one(served: Served) -> None:
    served.configure(only(provider(served.fake.url)), {"another": only()})
    with pytest.raises(openai.BadRequestError):
        served.openai(ROOT).chat.completions.create(model="small", messages=HELLO)
    named = served.openai(ROOT, default_headers={"X-Holdtrue-Project": "flights"})
    assert named.chat.completions.create(model="small", messages=HELLO).choices


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"n": 0}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"model": 7}, "model"),
    ],
)
def test_a_wrong_request_names_the_field(served: Served, body: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        served.openai().chat.completions.create(model="small", messages=HELLO, extra_body=body)
    assert (error.value.param, error.value.type) == (param, "invalid_request_error")
    assert served.fake.received == []


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b'{"a":' * 2000, b'{"model":"small"}'])
def test_a_body_that_is_no_request(served: Served, data: bytes) -> None:
    answer = served.plane.client.post("/v1/chat/completions", content=data)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("fault", "kind", "status", "code"),
    [
        (Fault(status=500), openai.InternalServerError, 502, "provider_failed"),
        (Fault(content_type="text/html"), openai.InternalServerError, 502, "provider_failed"),
        (Fault(reset=True), openai.InternalServerError, 502, "provider_failed"),
        (Fault(status=400), openai.BadRequestError, 400, "provider_refused"),
        (Fault(status=401), openai.InternalServerError, 502, "provider_failed"),
        (Fault(status=404), openai.NotFoundError, 404, "model_not_found"),
        (Fault(status=429, retry_after="7"), openai.RateLimitError, 429, "rate_limit_exceeded"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_faults_have_shapes_that_the_client_knows(
    served: Served, fault: Fault, kind: type[openai.APIStatusError], status: int, code: str, stream: bool
) -> None:
    # Two of them, so that the breaker's window of many failures is not this test's business.
    served.configure(only(provider(served.fake.url, idle=50.0 + status + stream)))
    served.fake.script(fault)
    with pytest.raises(kind) as error:
        served.openai().chat.completions.create(model="small", messages=HELLO, stream=stream)
    assert (error.value.status_code, error.value.code) == (status, code)
    assert error.value.response.headers.get("retry-after") == ("7" if fault.retry_after else None)
    assert KEY not in error.value.response.text


@pytest.mark.parametrize("fault", [Fault(half=True), Fault(bad_json=True), Fault(error_event=True), Fault(drop=3)])
def test_a_stream_that_breaks_never_ends_like_a_whole_one(served: Served, fault: Fault) -> None:
    served.fake.script(fault)
    reasons: list[Any] = []
    stream = served.openai().chat.completions.create(model="small", messages=HELLO, stream=True)
    with pytest.raises((openai.APIError, Exception)) as error:  # what it is, is looked at below
        reasons += [choice.finish_reason for chunk in stream for choice in chunk.choices]
    assert isinstance(error.value, openai.APIError)
    assert "stop" not in reasons
    served.fake.script(fault)
    asked = {"model": "small", "messages": HELLO, "stream": True}
    text = ""
    with served.plane.client.stream("POST", "/v1/chat/completions", json=asked) as answer:
        try:
            for part in answer.iter_text():
                text += part
        except Exception as cut:  # noqa: BLE001  # that the connection is cut is what is tested
            text += f"CUT {type(cut).__name__}"
    assert "[DONE]" not in text
    assert '"code":"provider_failed"' in text
    assert "CUT RemoteProtocolError" in text


def test_budgets_and_rates_as_the_client_knows_them(served: Served) -> None:
    served.configure(only(provider(served.fake.url), budgets=(Budget(requests=1),)))
    ai = served.openai()
    ai.chat.completions.create(model="small", messages=HELLO)
    with pytest.raises(openai.RateLimitError) as quota:
        ai.chat.completions.create(model="small", messages=HELLO)
    assert (quota.value.code, quota.value.type) == ("insufficient_quota", "insufficient_quota")
    served.configure(only(provider(served.fake.url), budgets=(Budget(requests_per_minute=1),)))
    ai.chat.completions.create(model="small", messages=HELLO)
    with pytest.raises(openai.RateLimitError) as rate:
        ai.chat.completions.create(model="small", messages=HELLO, stream=True)
    assert rate.value.code == "rate_limit_exceeded"
    # The clock of this home stands still, so the whole minute is left.
    assert rate.value.response.headers["retry-after"] == "60"


def test_a_client_that_goes_away_takes_the_upstream_call_with_it(served: Served) -> None:
    served.fake.script(Fault(hang=True), Fault(slow=0.05))
    impatient = served.openai(timeout=0.5)
    with pytest.raises(openai.APITimeoutError):
        impatient.chat.completions.create(model="small", messages=HELLO)
    served.fake.wait(lambda received: len(received) == 1 and received[0].outcome == "left")
    words: list[ChatCompletionMessageParam] = [{"role": "user", "content": "word " * 500}]
    stream = served.openai().chat.completions.create(model="small", messages=words, stream=True)
    next(iter(stream))
    stream.close()
    served.fake.wait(lambda received: len(received) == 2 and received[1].outcome == "left")


def test_a_revoked_token_ends_its_streams(served: Served) -> None:
    from tests.serving.plane_home import TOKEN

    served.fake.script(Fault(slow=0.05))
    words: list[ChatCompletionMessageParam] = [{"role": "user", "content": "word " * 2000}]
    stream = served.openai().chat.completions.create(model="small", messages=words, stream=True)
    next(iter(stream))
    served.world.grant({OTHER: {"project": "another"}, ROOT: {"project": None}})
    try:
        with pytest.raises(openai.APIError) as error:
            list(stream)
        assert "token" in str(error.value)
        served.fake.wait(lambda received: received[0].outcome == "left")
    finally:
        served.world.grant({TOKEN: {}, OTHER: {"project": "another"}, ROOT: {"project": None}})
        served.plane.until(lambda: served.plane.client.get("/v1/models").status_code == 200)


def test_a_stop_takes_effect_on_what_is_under_way(served: Served) -> None:
    served.fake.script(Fault(slow=0.05))
    words: list[ChatCompletionMessageParam] = [{"role": "user", "content": "word " * 2000}]
    stream = served.openai().chat.completions.create(model="small", messages=words, stream=True)
    next(iter(stream))
    served.configure(only(provider(served.fake.url, stopped="too dear")))
    with pytest.raises(openai.APIError) as ended:
        list(stream)
    assert "stopped" in str(ended.value)
    with pytest.raises(openai.InternalServerError) as refused:
        served.openai().chat.completions.create(model="small", messages=HELLO)
    assert (refused.value.status_code, refused.value.code) == (503, "provider_stopped")
    assert refused.value.response.headers["retry-after"] == "1"


@pytest.mark.parametrize("path", ["/v1/chat/completions/", "/V1/models", "/v1//models", "/v1/models/%2e%2e/x", "/v1/x"])
def test_other_spellings_of_a_path_are_nothing(served: Served, path: str) -> None:
    answer = served.plane.client.get(path)
    assert answer.status_code == 404
    assert "error" in answer.json()


def test_methods_that_a_path_does_not_take(served: Served) -> None:
    assert served.plane.client.get("/v1/chat/completions").status_code == 405
    assert served.plane.client.post("/v1/models").status_code == 405
