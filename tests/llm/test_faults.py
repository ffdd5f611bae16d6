"""Whatever clients and providers do wrong, an application answers in a shape that the clients know, and says no key."""

from typing import Any

import anthropic
import httpx
import openai
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.llm.gateway import Budget
from holdtrue.llm.telling import call_span
from holdtrue.protocols.applications import close_name
from holdtrue.testing import Fault
from tests.llm.apps import Desk
from tests.llm.calls import CALL
from tests.llm.gateway.worlds import KEY
from tests.sampling import examples
from tests.serving.plane_home import OTHER, ROOT, TOKEN

ASKED: Any = [{"role": "user", "content": "When do you open?"}]
FAULTS = [
    (Fault(status=429), 429),
    (Fault(status=500), 502),
    (Fault(status=503), 502),
    (Fault(status=401), 502),
    (Fault(status=403), 502),
    (Fault(status=404), 404),
    (Fault(status=400), 400),
    (Fault(status=413), 413),
    (Fault(status=418), 400),
    (Fault(reset=True), 502),
    (Fault(half=True), 502),
    (Fault(bad_json=True), 502),
    (Fault(content_type="text/html"), 502),
    (Fault(redirect="http://127.0.0.1:9/steal"), 502),
]


@pytest.mark.parametrize(("fault", "status"), FAULTS, ids=[str(number) for number in range(len(FAULTS))])
def test_faults_of_the_provider_have_shapes_that_both_clients_know(desk: Desk, fault: Fault, status: int) -> None:
    desk.fresh()
    desk.fake.always(fault)
    with pytest.raises(openai.APIStatusError) as raised:
        desk.openai().chat.completions.create(model="app:masked", messages=ASKED)
    assert raised.value.status_code == status
    assert raised.value.body["message"]  # type: ignore[index]  # an object, in every error of this protocol
    desk.fresh()
    with pytest.raises(anthropic.APIStatusError) as other:
        desk.anthropic().messages.create(model="app:masked", max_tokens=50, messages=ASKED)
    assert other.value.status_code == status
    assert KEY not in f"{raised.value} {raised.value.response.text} {other.value.response.text}"


@pytest.mark.parametrize("usage", ["missing", "-5:10", "999999999:1"])
def test_usage_that_cannot_be_is_counted_anew(desk: Desk, usage: str) -> None:
    desk.fake.always(Fault(usage=usage))
    answer = desk.openai().chat.completions.create(model="app:masked", messages=ASKED)
    assert answer.usage is not None
    assert 0 < answer.usage.total_tokens < 1000
    (record,) = desk.kept("prediction", id=answer.id)
    assert record["input_tokens"] + record["output_tokens"] == answer.usage.total_tokens


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("masked", "app:masked"),
        ("App:Masked", "app:masked"),
        ("app:maskd", "app:masked"),
        ("app:masked@nowhere", "app:masked"),
        ("fake/smal", "fake/small"),
    ],
)
def test_a_name_that_is_nearly_one_is_told_which(desk: Desk, name: str, meant: str, streamed: bool) -> None:
    create: Any = desk.openai().chat.completions.create
    with pytest.raises(openai.NotFoundError, match=f"Did you mean “{meant}”") as raised:
        create(model=name, messages=ASKED, stream=streamed)
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")
    with pytest.raises(anthropic.NotFoundError, match="Did you mean"):
        desk.anthropic().messages.create(model=name, max_tokens=9, messages=ASKED)


def test_a_name_that_is_nothing_like_any_is_not_guessed_at(desk: Desk) -> None:
    for name in ("app:zzz", "zzz", "app:", "prompt:zzz", "a" * 5000):
        with pytest.raises(openai.NotFoundError) as raised:
            desk.openai().chat.completions.create(model=name, messages=ASKED)
        assert raised.value.code == "model_not_found"
        assert "Did you mean" not in str(raised.value)
        assert len(str(raised.value)) < 1000
    assert close_name("helper", ["app:helper", "fake/small"]) == "app:helper"
    assert close_name("answer", ["prompt:answer@latest", "prompt:answer"]) == "prompt:answer"


@pytest.mark.parametrize(
    "body",
    [
        {"messages": "x"},
        {"messages": [None]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
        {"messages": [{"role": "user", "content": ["x"]}]},
        {"messages": [{"role": "wizard", "content": "x"}]},
        {"messages": ASKED, "variables": [1]},
        {"messages": ASKED, "variables": {"tone": 5}},
        {"messages": ASKED, "variables": {"nothing": "x"}},
        {"messages": ASKED, "max_tokens": "many"},
        {"messages": ASKED, "max_tokens": -1},
        {"messages": ASKED, "n": 3},
        {"messages": ASKED, "stream": "yes"},
        {"messages": ASKED, "user": 5},
    ],
)
def test_a_wrong_request_is_the_clients_error_and_leaves_no_record(desk: Desk, body: dict[str, Any]) -> None:
    for streamed in (False, True):
        sent = {"model": "app:masked", **({"stream": True} if streamed else {}), **body}
        answer = desk.plane.client.post("/v1/chat/completions", content=orjson.dumps(sent))
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["message"]
    assert desk.fake.received == []


@pytest.mark.parametrize("calls", ["x", 5, [5], [{"function": "x"}], [{"function": {"arguments": 5}}], {"a": 1}])
def test_a_turn_of_a_strange_form_breaks_nothing(desk: Desk, calls: Any) -> None:
    messages = [{"role": "assistant", "content": 7, "tool_calls": calls, "parts": "x"}, *ASKED]
    for streamed in (False, True):
        body = {"model": "app:masked", "messages": messages, "stream": streamed}
        answer = desk.plane.client.post("/v1/chat/completions", content=orjson.dumps(body))
        assert answer.status_code == 200, answer.text
        assert "error" not in answer.text


def test_budgets_end_an_application_like_any_other_caller(desk: Desk) -> None:
    desk.fresh(budgets=(Budget(requests=2),))
    client = desk.openai()
    try:
        assert client.chat.completions.create(model="app:masked", messages=ASKED).choices
        list(client.chat.completions.create(model="app:masked", messages=ASKED, stream=True))
        for streamed in (False, True):
            with pytest.raises(openai.RateLimitError) as raised:
                client.chat.completions.create(model="app:masked", messages=ASKED, stream=streamed, user="poor")
            assert raised.value.code == "insufficient_quota"
    finally:
        desk.fresh()
    assert len(desk.fake.received) == 2


def test_a_key_that_has_expired_is_refused_in_both_dialects(desk: Desk) -> None:
    late = "ht_svc_late_0000000000000000000000000000000000000000000_000000"
    known: dict[str, Any] = {TOKEN: {}, OTHER: {"project": "another"}, ROOT: {"project": None}}
    now = round(desk.world.clock.now().timestamp() * 1e6)
    desk.world.grant({**known, late: {"expires_at": now - 1}})
    headers = {"authorization": f"Bearer {late}"}
    desk.plane.until(lambda: httpx.get(f"{desk.url}/v1/models", headers=headers).status_code == 401)
    with pytest.raises(openai.AuthenticationError) as raised:
        desk.openai(late).chat.completions.create(model="app:masked", messages=ASKED)
    assert raised.value.code == "invalid_api_key"
    with pytest.raises(anthropic.AuthenticationError):
        desk.anthropic(late).messages.create(model="app:masked", max_tokens=9, messages=ASKED)
    assert late not in str(raised.value)
    desk.world.grant(known)


def test_variables_reach_a_prompt_from_anthropics_client(desk: Desk) -> None:
    create: Any = desk.anthropic().messages.create
    create(model="app:masked", max_tokens=50, messages=ASKED, extra_body={"variables": {"tone": "merry"}})
    assert "merry tone" in desk.fake.received[-1].body["messages"][0]["content"]


def test_no_key_is_in_anything_that_is_kept(desk: Desk) -> None:
    desk.fake.always(Fault(status=401))
    with pytest.raises(openai.APIStatusError):
        desk.openai().chat.completions.create(model="app:masked", messages=ASKED)
    desk.kept("prediction", error="provider_failed")
    desk.kept("span", status="error")
    everything = desk.everything()
    assert KEY.encode() not in everything
    assert TOKEN.encode() not in everything


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMED = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("role", "content", "tool_calls", "parts", "function", "name", "text", "finish_reason"), JSON
    ),
)


@settings(max_examples=examples(200), deadline=None)
@given(
    messages=st.lists(NAMED | JSON, max_size=3) | JSON,
    calls=st.lists(NAMED | JSON, max_size=2),
    more=st.fixed_dictionaries({}, optional={"tools": JSON, "prompt": JSON, "input": JSON, "user": JSON}),
)
def test_a_call_of_any_shape_can_be_told_of(messages: Any, calls: Any, more: dict[str, Any]) -> None:
    request = {
        "messages": [*messages, {"role": "user", "tool_calls": calls}] if isinstance(messages, list) else messages
    }
    facts = CALL._replace(request={**request, **more}, answer=None)
    assert call_span(facts).attributes["gen_ai.operation.name"] == "chat"
