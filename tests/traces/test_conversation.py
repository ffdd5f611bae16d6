"""Messages and columns of every convention in use."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.traces.conversation import conversation, first_question, text_of
from holdtrue.traces.genai import GenaiCall, genai_span
from holdtrue.traces.model import Message
from holdtrue.traces.semantics import facts

ASKED = Message("user", "Where is it?")
TOLD = Message("assistant", "On its way.")


def parts(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}


NOW = {
    "gen_ai.input.messages": orjson.dumps([parts("user", "Where is it?")]).decode(),
    "gen_ai.output.messages": orjson.dumps([parts("assistant", "On its way.")]).decode(),
}
STRUCTURED = {
    "gen_ai.input.messages": [parts("user", "Where is it?")],
    "gen_ai.output.messages": [parts("assistant", "On its way.")],
}
NUMBERED = {
    "gen_ai.prompt.0.role": "user",
    "gen_ai.prompt.0.content": "Where is it?",
    "gen_ai.completion.0.role": "assistant",
    "gen_ai.completion.0.content": "On its way.",
}
OPENINFERENCE = {
    "llm.input_messages.0.message.role": "user",
    "llm.input_messages.0.message.contents.0.message_content.type": "text",
    "llm.input_messages.0.message.contents.0.message_content.text": "Where is it?",
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.content": "On its way.",
}
VALUES = {"input.value": "Where is it?", "output.value": "On its way."}
MLFLOW = {
    "mlflow.spanInputs": '{"messages":[{"role":"user","content":"Where is it?"}]}',
    "mlflow.spanOutputs": '{"choices":[{"message":{"role":"assistant","content":"On its way."}}]}',
}
TRACELOOP = {"traceloop.entity.input": '{"question":"Where is it?"}', "traceloop.entity.output": '"On its way."'}


@pytest.mark.parametrize(
    "attributes",
    [NOW, STRUCTURED, NUMBERED, OPENINFERENCE, VALUES, MLFLOW, TRACELOOP],
    ids=["now", "structured", "numbered", "openinference", "values", "mlflow", "traceloop"],
)
def test_messages_as_attributes(attributes: dict[str, Any]) -> None:
    assert conversation(attributes, []) == ([ASKED], [TOLD])


@pytest.mark.parametrize(
    "events",
    [
        [("gen_ai.client.inference.operation.details", NOW)],
        [
            ("gen_ai.user.message", {"content": "Where is it?"}),
            ("gen_ai.choice", {"index": 0, "message": '{"role":"assistant","content":"On its way."}'}),
        ],
        [
            ("gen_ai.content.prompt", {"gen_ai.prompt": '[{"role":"user","content":"Where is it?"}]'}),
            ("gen_ai.content.completion", {"gen_ai.completion": '[{"role":"assistant","content":"On its way."}]'}),
        ],
    ],
)
def test_messages_as_events(events: list[tuple[str, dict[str, Any]]]) -> None:
    listed = [{"name": name, "attributes": attributes} for name, attributes in events]
    assert conversation({}, listed) == ([ASKED], [TOLD])


def test_tools_and_instructions() -> None:
    call = {"type": "tool_call", "id": "c1", "name": "find", "arguments": {"order": 7}}
    attributes = {
        "gen_ai.system_instructions": '[{"type":"text","content":"Be brief."}]',
        "gen_ai.input.messages": orjson.dumps(
            [
                {"role": "assistant", "parts": [call]},
                {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "sent"}]},
            ]
        ).decode(),
        "gen_ai.output.messages": orjson.dumps(
            [{"role": "assistant", "tool_calls": [{"id": "c2", "function": {"name": "say", "arguments": "{}"}}]}]
        ).decode(),
    }
    given_, came = conversation(attributes, [])
    assert given_ == [
        Message("system", "Be brief."),
        Message("assistant", "", (("find", '{"order":7}', "c1"),)),
        Message("tool", "", (), "sent"),
    ]
    assert came == [Message("assistant", "", (("say", "{}", "c2"),))]
    assert text_of([*given_, *came], 1000).split("\n") == ["Be brief.", 'find {"order":7}', "sent", "say {}"]


def test_numbered_tool_calls() -> None:
    attributes = {
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "find",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": "{}",
        "gen_ai.completion.0.role": "assistant",
        "gen_ai.completion.0.tool_calls.0.name": "old",
        "gen_ai.completion.0.tool_calls.0.arguments": "{}",
    }
    assert conversation(attributes, [])[1] == [Message("assistant", "", (("old", "{}", ""),))]
    newer = {key: value for key, value in attributes.items() if key.startswith("llm")}
    assert conversation(newer, [])[1] == [Message("assistant", "", (("find", "{}", ""),))]


def test_the_question_is_what_the_user_asked_last() -> None:
    assert first_question([Message("system", "a"), Message("user", "b"), Message("assistant", "c")]) == "b"
    assert first_question([Message("user", "a"), Message("user", "b")]) == "b"
    assert first_question([Message("system", "a")]) == "a"
    assert first_question([]) == ""


ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["role", "parts", "content", "type", "text", "tool_calls", "function", "name", "messages"]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=10,
)
SAID = st.one_of(ANY, ANY.map(lambda value: orjson.dumps(value).decode() if _fits(value) else ""))


def _fits(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        return False
    return True


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*NOW, *NUMBERED, *OPENINFERENCE, *VALUES, *MLFLOW]), SAID, max_size=5), SAID)
def test_whatever_is_said_in_whatever_form_is_shown_as_texts(attributes: dict[str, Any], other: Any) -> None:
    events = [{"name": "gen_ai.user.message", "attributes": {"content": other}}, {"name": other, "attributes": other}]
    for message in [each for side in conversation(attributes, events) for each in side]:
        assert isinstance(message.role, str)
        assert isinstance(message.text, str)
        assert all(isinstance(part, str) for call in message.calls for part in call)


@pytest.mark.parametrize(
    ("attributes", "wanted"),
    [
        (
            {"gen_ai.request.model": "a", "gen_ai.response.model": "b", "gen_ai.system": "old"},
            {"model": "a", "provider": "old"},
        ),
        ({"llm.token_count.prompt": 3, "llm.token_count.completion": 4}, {"input_tokens": 3, "output_tokens": 4}),
        (
            {"mlflow.chat.tokenUsage": '{"input_tokens": 5, "output_tokens": 6}'},
            {"input_tokens": 5, "output_tokens": 6},
        ),
        ({"mlflow.spanType": '"CHAT_MODEL"'}, {"operation": "CHAT_MODEL"}),
        ({"gen_ai.usage.input_tokens": -1, "gen_ai.usage.prompt_tokens": 7}, {"input_tokens": 7}),
        ({"gen_ai.usage.input_tokens": 10**12, "gen_ai.usage.output_tokens": True}, {}),
        ({"holdtrue.cost": 0.25, "llm.cost.total": 9}, {"cost": 0.25}),
        ({"gen_ai.usage.cost": -1.0}, {}),
        ({"user.id": "u" * 500, "thread.id": "t"}, {"user": "u" * 200, "session": "t"}),
        ({"mlflow.chat.tokenUsage": "{", "user.id": 7}, {}),
    ],
)
def test_columns_of_attributes(attributes: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert facts(attributes) == wanted


def test_the_gateways_own_calls_have_the_same_form() -> None:
    call = GenaiCall(
        trace_id="1" * 32,
        span_id="2" * 16,
        start=10,
        end=30,
        provider="openai",
        model="small",
        parameters={"temperature": 0.1, "logit_bias": {"1": 2}},
        input_messages=[
            {"role": "user", "content": [{"type": "text", "text": "Where is it?"}, {"type": "image_url"}]},
            {"role": "tool", "tool_call_id": "c1", "content": "sent"},
        ],
        output_messages=[{"role": "assistant", "content": "On its way.", "finish_reason": "stop"}],
        input_tokens=3,
        output_tokens=4,
        cost=0.5,
        release="rel_1",
        arm="canary",
        prompt="greeting@3",
        prediction_id="prd_1",
        cached=False,
        attempts=2,
        documents=[{"id": "d1", "score": 0.5}],
        error="The provider did not answer.",
        error_type="timeout",
    )
    span = genai_span(call)
    assert (span.name, span.status, span.kind, span.origin.service) == ("chat small", "error", "client", "gateway")
    assert facts(span.attributes) == {
        "operation": "chat",
        "provider": "openai",
        "model": "small",
        "release": "rel_1",
        "prompt": "greeting@3",
        "prediction_id": "prd_1",
        "input_tokens": 3,
        "output_tokens": 4,
        "cost": 0.5,
    }
    given_, came = conversation(span.attributes, [])
    assert given_ == [Message("user", "Where is it?\n[image_url]"), Message("tool", "", (), "sent")]
    assert came == [TOLD]
    assert span.attributes["holdtrue.cached"] is False
    assert span.attributes["gen_ai.request.temperature"] == 0.1
    assert span.attributes["holdtrue.request.logit_bias"] == {"1": 2}
    assert orjson.loads(span.attributes["gen_ai.retrieval.documents"]) == [{"id": "d1", "score": 0.5}]
