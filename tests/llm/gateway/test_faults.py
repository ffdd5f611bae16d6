"""Whatever a provider does wrong, the answer is an error that says so, and the bill is right."""

from typing import Any

import pytest

from holdtrue.core.errors import HoldtrueError
from holdtrue.llm.gateway import (
    Budget,
    ModelNotFound,
    Operation,
    Outcome,
    Price,
    ProviderBusy,
    ProviderFailed,
    ProviderRefused,
    ProviderTimeout,
    Usage,
)
from holdtrue.llm.gateway.budgets import read_standings
from holdtrue.llm.gateway.upstream import Unreachable
from holdtrue.testing import FakeProvider, Fault
from tests.llm.gateway.labs import CALLER, Lab, Open, chat, text_of
from tests.llm.gateway.worlds import KEY, only, provider

BUDGET = (Budget(tokens=10**9, money=10**12),)
PRICES = {"*": Price(1_000_000, 2_000_000)}


def failing(lab: Lab, fake: FakeProvider, *faults: Fault, body: Any = None, **changes: Any) -> HoldtrueError:
    """Return the error of a call whose provider fails so; it never says the key."""
    fake.script(*faults)

    async def work(gateway: Open) -> None:
        await gateway.ask(body or chat())

    with pytest.raises(HoldtrueError) as error:
        lab.run(only(provider(fake.url, prices=PRICES, **changes), budgets=BUDGET), work)
    assert KEY not in f"{error.value} {error.value.facts}"
    return error.value


def billed(lab: Lab) -> tuple[int, int]:
    """Return the tokens and requests that the budget has counted; nothing is left reserved."""
    found = read_standings(lab.home / "gateway" / "budgets")
    assert all(each.reserved.requests == each.reserved.tokens == 0 for each in found)
    return (found[0].used.tokens, found[0].used.requests) if found else (0, 0)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(status=500), ProviderFailed),
        (Fault(status=503), ProviderFailed),
        (Fault(status=418), ProviderRefused),
        (Fault(status=400), ProviderRefused),
        (Fault(status=422), ProviderRefused),
        (Fault(status=404), ModelNotFound),
        (Fault(status=429), ProviderBusy),
        (Fault(redirect="http://127.0.0.1:9/steal"), ProviderFailed),
        (Fault(status=203), ProviderFailed),
    ],
)
def test_a_status_of_failure_costs_nothing(lab: Lab, fake: FakeProvider, fault: Fault, kind: type) -> None:
    assert type(failing(lab, fake, fault)) is kind
    assert billed(lab) == (0, 0)
    (facts,) = lab.facts
    assert (facts.outcome, facts.cost_micros, facts.usage) == (Outcome.FAILED, 0, Usage())
    assert len(facts.attempts) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault(half=True),
        Fault(bad_json=True),
        Fault(content_type="text/html"),
        Fault(reset=True),
    ],
)
def test_an_answer_that_cannot_be_used_is_billed_as_if_it_had_been_made(
    lab: Lab, fake: FakeProvider, fault: Fault
) -> None:
    assert type(failing(lab, fake, fault, body=chat(max_tokens=50))) is ProviderFailed
    (facts,) = lab.facts
    assert (facts.usage, facts.outcome) == (Usage(6, 50, counted=True), Outcome.FAILED)
    assert facts.cost_micros == 6 + 2 * 50
    assert billed(lab) == (56, 1)


def test_an_answer_without_measure_is_not_read(lab: Lab, fake: FakeProvider) -> None:
    error = failing(lab, fake, Fault(size=33 << 20))
    assert type(error) is ProviderFailed
    assert "too long" in error.why


def test_a_provider_that_hangs_is_left_after_its_time(lab: Lab, fake: FakeProvider) -> None:
    error = failing(lab, fake, Fault(hang=True), body=chat(max_tokens=50), timeout=1.0)
    assert type(error) is ProviderTimeout
    assert error.status == 504
    fake.wait(lambda received: [each.outcome for each in received] == ["left"])
    assert billed(lab) == (56, 1)


def test_a_provider_that_is_not_there(lab: Lab) -> None:
    with FakeProvider() as nowhere:
        address = nowhere.url

    async def work(gateway: Open) -> None:
        await gateway.ask(chat())

    with pytest.raises(Unreachable) as error:
        lab.run(only(provider(address, prices=PRICES), budgets=BUDGET), work)
    assert str(nowhere.port) not in str(error.value)
    assert billed(lab) == (0, 0)


def test_a_refused_key_is_the_gateways_trouble_and_not_the_clients(lab: Lab, fake: FakeProvider) -> None:
    fake.key = "another"
    error = failing(lab, fake)
    assert type(error) is ProviderFailed
    assert error.status == 502


def test_a_key_that_is_not_there(lab: Lab, fake: FakeProvider) -> None:
    error = failing(lab, fake, key="env:NO_SUCH_KEY")
    assert error.code == "missing_key"
    assert fake.received == []


def test_a_complaint_of_the_provider_is_passed_on_without_the_key(lab: Lab, fake: FakeProvider) -> None:
    body = chat(model="small", response_format={"type": KEY})
    error = failing(lab, fake, Fault(status=400), body=body)
    assert error.what == "The fake provider was told to answer 400."


@pytest.mark.parametrize("usage", ["missing", "-5:3", "3:-7", "99999999999:1", "3:99999999999"])
def test_usage_that_cannot_be_is_counted_anew(lab: Lab, fake: FakeProvider, usage: str) -> None:
    fake.script(Fault(usage=usage), Fault(usage=usage))

    async def work(gateway: Open) -> Any:
        whole = await gateway.ask(chat(max_tokens=20))
        body = chat(max_tokens=20, stream=True, stream_options={"include_usage": True})
        return whole, await gateway.pieces(body)

    whole, pieces = lab.run(only(provider(fake.url, prices=PRICES), budgets=BUDGET), work)
    own = Usage(6, 5, counted=True)  # “good day”: 2 + 4; “You said: good day”: 5
    assert whole.usage == own
    shown = {"prompt_tokens": 6, "completion_tokens": 5, "total_tokens": 11}
    assert whole.body["usage"] == shown
    assert [piece["usage"] for piece in pieces if piece.get("usage")] == [shown]
    assert [each.usage for each in lab.facts] == [own, own]
    assert billed(lab) == (22, 2)


def test_an_answer_is_passed_on_as_it_came(lab: Lab, fake: FakeProvider) -> None:
    body = chat(
        "use it",
        temperature=0.3,
        logit_bias={"50256": -100},
        tools=[{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
        tool_choice="auto",
        metadata={"a": "ü"},
        unknown_to_us=[1, 2.5, None],
    )

    async def work(gateway: Open) -> Any:
        return await gateway.ask(body), await gateway.pieces({**body, "stream": True})

    whole, pieces = lab.run(only(provider(fake.url)), work)
    sent = [each.body for each in fake.received]
    assert sent[0] == body
    assert sent[1] == {**body, "stream": True, "stream_options": {"include_usage": True}}
    choice = whole.body["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"text":"use it"}'}
    assert whole.body["system_fingerprint"] == "fp_fake"
    parts = [piece["choices"][0]["delta"] for piece in pieces]
    arguments = [call["function"]["arguments"] for part in parts for call in part.get("tool_calls", ())]
    assert "".join(arguments) == '{"text":"use it"}'
    assert all("usage" not in piece for piece in pieces)
    headers = fake.received[0].headers
    assert headers["authorization"] == f"Bearer {KEY}"
    assert not {"x-api-key", "cookie", "x-holdtrue-project"} & headers.keys()


STREAM_FAULTS = [
    (Fault(half=True), ""),
    (Fault(bad_json=True), ""),
    (Fault(drop=3), ""),
    (Fault(error_event=True), "Overloaded"),
    (Fault(unfinished=True), ""),
]


@pytest.mark.parametrize(("fault", "says"), STREAM_FAULTS)
def test_a_stream_that_breaks_says_so_and_is_billed_by_what_came(
    lab: Lab, fake: FakeProvider, fault: Fault, says: str
) -> None:
    fake.script(fault)
    got: list[Any] = []

    async def work(gateway: Open) -> None:
        stream = await gateway.front.stream(CALLER, Operation.CHAT, chat("one two three four", stream=True))
        try:
            async for chunk in stream.chunks():
                got.append(chunk.body)
        finally:
            await stream.aclose()

    with pytest.raises(ProviderFailed) as error:
        lab.run(only(provider(fake.url, prices=PRICES), budgets=BUDGET), work)
    assert says in error.value.why
    assert got
    assert all(piece["choices"][0]["finish_reason"] is None for piece in got)
    (facts,) = lab.facts
    said = text_of(got)
    assert facts.outcome is Outcome.BROKEN
    if fault.unfinished:
        # The provider has told its numbers; a stream that was cut is at least what came of it.
        assert facts.usage == Usage(4, 7)
    else:
        assert facts.usage == Usage(5 + 4, -(-len(said) // 4), counted=True)
    assert billed(lab) == (facts.usage.input + facts.usage.output, 1)


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(content_type="application/json"), Fault(drop=0)])
def test_a_stream_that_fails_before_its_first_piece_is_an_error(lab: Lab, fake: FakeProvider, fault: Fault) -> None:
    fake.script(fault)

    async def work(gateway: Open) -> None:
        await gateway.front.stream(CALLER, Operation.CHAT, chat(stream=True))

    with pytest.raises(ProviderFailed):
        lab.run(only(provider(fake.url)), work)
    assert [each.outcome for each in lab.facts] == [Outcome.FAILED]


def test_silence_within_a_stream_ends_it(lab: Lab, fake: FakeProvider) -> None:
    fake.script(Fault(slow=1.0))

    async def work(gateway: Open) -> None:
        await gateway.pieces(chat(stream=True))

    with pytest.raises(ProviderTimeout):
        lab.run(only(provider(fake.url, idle=0.1)), work)
    fake.wait(lambda received: received[0].outcome == "left")


def test_a_stream_without_its_last_mark_is_whole_if_its_answer_is(lab: Lab, fake: FakeProvider) -> None:
    fake.script(Fault(no_done=True))

    async def work(gateway: Open) -> Any:
        return await gateway.pieces(chat(stream=True))

    assert text_of(lab.run(only(provider(fake.url)), work)) == "You said: good day"
    assert lab.facts[0].outcome is Outcome.OK


def test_connections_are_used_again(lab: Lab, fake: FakeProvider) -> None:
    async def work(gateway: Open) -> None:
        for _ in range(3):
            await gateway.ask(chat())
            await gateway.pieces(chat(stream=True))

    lab.run(only(provider(fake.url)), work)
    assert {each.connection for each in fake.received} == {1}
