"""Retries, fallbacks, breaker, cache, switches, cancellation, budgets under load, and the facts of each call."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from holdtrue.core.errors import HoldtrueError, Unavailable
from holdtrue.llm.gateway import (
    Budget,
    Caller,
    CallFacts,
    Completion,
    ModelNotFound,
    Operation,
    Outcome,
    Price,
    ProviderBusy,
    ProviderFailed,
    ProviderStopped,
    ProviderTimeout,
    QuotaExhausted,
    RateLimited,
    Route,
    Target,
    UnpricedModel,
    Usage,
)
from holdtrue.llm.gateway.budgets import read_standings
from holdtrue.testing import FakeProvider, Fault
from tests.llm.gateway.labs import CALLER, Lab, Open, chat, text_of
from tests.llm.gateway.worlds import KEY, only, provider

PRICES = {"*": Price(1_000_000, 2_000_000)}


@pytest.fixture
def second() -> Any:
    with FakeProvider() as other:
        yield other


def asking(body: Any) -> Callable[[Open], Any]:
    async def work(gateway: Open) -> Completion:
        return await gateway.ask(body)

    return work


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_request_is_sent_again_where_that_is_safe(lab: Lab, fake: FakeProvider, status: int) -> None:
    fake.script(Fault(status=status), Fault(status=status))
    answer = lab.run(only(provider(fake.url, retries=2)), asking(chat()))
    assert answer.body["choices"][0]["message"]["content"] == "You said: good day"
    assert [each.status for each in answer.attempts] == [status, status, 200]
    assert len(fake.received) == 3


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=400),
        Fault(status=404),
        Fault(status=401),
        Fault(reset=True),
        Fault(bad_json=True),
        Fault(half=True),
    ],
)
def test_a_request_is_not_sent_again_where_it_may_have_been_done(lab: Lab, fake: FakeProvider, fault: Fault) -> None:
    fake.script(fault)
    with pytest.raises(HoldtrueError):
        lab.run(only(provider(fake.url, retries=3)), asking(chat()))
    assert len(fake.received) == 1


def test_retries_end_and_the_last_error_is_told(lab: Lab, fake: FakeProvider) -> None:
    fake.always(Fault(status=503))
    with pytest.raises(ProviderFailed):
        lab.run(only(provider(fake.url, retries=2)), asking(chat()))
    assert len(fake.received) == 3


def test_retry_after_is_honoured_within_the_deadline_and_passed_on(lab: Lab, fake: FakeProvider) -> None:
    fake.script(Fault(status=429, retry_after="0.2"))
    answer = lab.run(only(provider(fake.url, retries=1)), asking(chat()))
    assert answer.attempts[1].started_us - answer.attempts[0].started_us >= 200_000
    fake.script(Fault(status=429, retry_after="1200"))
    with pytest.raises(ProviderBusy) as error:
        lab.run(only(provider(fake.url, retries=3)), asking(chat()))
    assert error.value.facts["retry_after"] == 1200
    assert len(fake.received) == 3


def test_retries_of_all_calls_together_are_bounded(lab: Lab, fake: FakeProvider) -> None:
    fake.always(Fault(status=429))

    async def work(gateway: Open) -> None:
        for _ in range(40):
            with pytest.raises(ProviderBusy):
                await gateway.ask(chat())

    lab.run(only(provider(fake.url, retries=3)), work)
    assert len(fake.received) <= 40 + 10 + 4


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=429),
        Fault(status=401),
        Fault(reset=True),
        Fault(hang=True),
        Fault(bad_json=True),
    ],
)
def test_another_target_answers_when_the_first_cannot(
    lab: Lab, fake: FakeProvider, second: FakeProvider, fault: Fault
) -> None:
    fake.script(fault)
    config = only(
        provider(fake.url, fallbacks=("spare/large",), timeout=0.3, prices=PRICES),
        provider(second.url, name="spare", key="", prices=PRICES),
        budgets=(Budget(money=10**9),),
    )

    async def work(gateway: Open) -> Completion:
        route = Route((Target("fake", "small"), Target("spare", "large")), timeout=20.0, retries=0)
        return await gateway.gateway.complete(CALLER, route, chat(max_tokens=10))

    answer = lab.run(config, work)
    assert (answer.provider, answer.model) == ("spare", "large")
    assert [each.provider for each in answer.attempts] == ["fake", "spare"]
    assert second.received[0].body["model"] == "large"
    assert "authorization" not in second.received[0].headers
    (standing,) = read_standings(lab.home / "gateway" / "budgets")
    assert standing.reserved.requests == 0
    assert standing.used.money == answer.cost_micros == lab.facts[0].cost_micros
    assert standing.used.requests == 1


def test_fallbacks_of_a_provider_are_those_it_names(lab: Lab, fake: FakeProvider, second: FakeProvider) -> None:
    fake.always(Fault(status=500))
    config = only(provider(fake.url, fallbacks=("spare/large",)), provider(second.url, name="spare", key=""))
    assert lab.run(config, asking(chat(model="fake/small"))).provider == "spare"


def test_a_request_that_is_wrong_goes_to_nobody_else(lab: Lab, fake: FakeProvider, second: FakeProvider) -> None:
    fake.script(Fault(status=400))
    config = only(provider(fake.url, fallbacks=("spare/large",)), provider(second.url, name="spare", key=""))
    with pytest.raises(HoldtrueError):
        lab.run(config, asking(chat(model="fake/small")))
    assert second.received == []


def test_a_stream_falls_back_before_its_first_piece_and_never_after(
    lab: Lab, fake: FakeProvider, second: FakeProvider
) -> None:
    config = only(provider(fake.url, fallbacks=("spare/large",)), provider(second.url, name="spare", key=""))

    async def work(gateway: Open) -> None:
        fake.script(Fault(drop=0), Fault(drop=2, slow=0.01))
        assert text_of(await gateway.pieces(chat(model="fake/small", stream=True))) == "You said: good day"
        with pytest.raises(ProviderFailed):
            await gateway.pieces(chat(model="fake/small", stream=True))

    lab.run(config, work)
    assert [each.outcome for each in lab.facts] == [Outcome.OK, Outcome.BROKEN]
    assert len(second.received) == 1


def test_the_deadline_holds_for_all_attempts_together(lab: Lab, fake: FakeProvider, second: FakeProvider) -> None:
    fake.always(Fault(hang=True))
    second.always(Fault(hang=True))
    config = only(provider(fake.url), provider(second.url, name="spare", key=""))

    async def work(gateway: Open) -> None:
        route = Route((Target("fake", "small"), Target("spare", "small")), timeout=0.3, retries=3)
        with pytest.raises(ProviderTimeout):
            await gateway.gateway.complete(CALLER, route, chat())

    lab.run(config, work)
    (facts,) = lab.facts
    assert [each.provider for each in facts.attempts] == ["fake"]
    assert facts.ended_us - facts.started_us < 5_000_000


def test_a_provider_that_fails_again_and_again_is_left_alone(lab: Lab, fake: FakeProvider) -> None:
    fake.always(Fault(status=500))

    async def work(gateway: Open) -> None:
        for _ in range(5):
            with pytest.raises(ProviderFailed):
                await gateway.ask(chat())
        with pytest.raises(Unavailable) as error:
            await gateway.ask(chat())
        assert 1 <= error.value.facts["retry_after"] <= 5

    lab.run(only(provider(fake.url)), work)
    assert len(fake.received) == 5


def test_refusals_do_not_open_the_breaker(lab: Lab, fake: FakeProvider) -> None:
    fake.always(Fault(status=429))

    async def work(gateway: Open) -> None:
        for _ in range(12):
            with pytest.raises(ProviderBusy):
                await gateway.ask(chat())

    lab.run(only(provider(fake.url)), work)
    assert len(fake.received) == 12


def test_a_client_that_goes_away_takes_the_call_with_it(lab: Lab, fake: FakeProvider) -> None:
    fake.script(Fault(hang=True))

    async def work(gateway: Open) -> None:
        task = asyncio.create_task(gateway.ask(chat(max_tokens=30)))
        await asyncio.to_thread(fake.wait, lambda received: len(received) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(fake.wait, lambda received: received[0].outcome == "left")

    lab.run(only(provider(fake.url), budgets=(Budget(tokens=1000),)), work)
    (facts,) = lab.facts
    assert (facts.outcome, facts.usage) == (Outcome.LEFT, Usage(6, 30, counted=True))
    (standing,) = read_standings(lab.home / "gateway" / "budgets")
    assert (standing.used.tokens, standing.reserved.tokens) == (36, 0)


def test_a_stream_that_is_closed_is_billed_by_what_came(lab: Lab, fake: FakeProvider) -> None:
    fake.script(Fault(slow=0.05))

    async def work(gateway: Open) -> None:
        stream = await gateway.front.stream(CALLER, Operation.CHAT, chat("one two three " * 20, stream=True))
        async for chunk in stream.chunks():
            if chunk.body["choices"][0]["delta"].get("content"):
                break
        await stream.aclose()
        await stream.aclose()
        await asyncio.to_thread(fake.wait, lambda received: received[0].outcome == "left")

    lab.run(only(provider(fake.url), budgets=(Budget(tokens=10_000),)), work)
    (facts,) = lab.facts
    assert facts.outcome is Outcome.LEFT
    assert facts.usage == Usage(-(-280 // 4) + 4, 1, counted=True)
    (standing,) = read_standings(lab.home / "gateway" / "budgets")
    assert (standing.used.tokens, standing.reserved.tokens) == (facts.usage.input + 1, 0)


def test_a_stream_that_nobody_reads_is_settled_when_it_is_closed(lab: Lab, fake: FakeProvider) -> None:
    async def work(gateway: Open) -> None:
        stream = await gateway.front.stream(CALLER, Operation.CHAT, chat(stream=True))
        await stream.aclose()

    lab.run(only(provider(fake.url), budgets=(Budget(tokens=10_000),)), work)
    (standing,) = read_standings(lab.home / "gateway" / "budgets")
    assert standing.reserved.requests == 0
    assert standing.used.tokens >= 6


@pytest.mark.parametrize("stream", [False, True])
def test_a_hundred_calls_at_once_never_exceed_the_budget(lab: Lab, fake: FakeProvider, stream: bool) -> None:
    fake.always(Fault(slow=0.002))
    one = 2 * 1 + 4 * 2  # two words in, four out
    config = only(
        provider(fake.url, prices=PRICES), budgets=(Budget(money=20 * one), Budget(CALLER.key, requests=10**6))
    )
    body = chat(max_tokens=4, stream=stream)

    async def work(gateway: Open) -> list[Any]:
        ask = gateway.pieces if stream else gateway.ask
        return await asyncio.gather(*(ask(body) for _ in range(100)), return_exceptions=True)

    results = lab.run(config, work)
    good = [each for each in results if not isinstance(each, BaseException)]
    assert {type(each) for each in results if isinstance(each, BaseException)} == {QuotaExhausted}
    assert 1 <= len(good) <= 20
    assert len(fake.received) == len(good)
    for standing in read_standings(lab.home / "gateway" / "budgets"):
        assert standing.used.money == one * len(good) <= 20 * one
        assert standing.used.requests == len(good)
        assert (standing.reserved.money, standing.reserved.requests) == (0, 0)
    assert len(lab.facts) == 100


def test_a_budget_in_requests_is_used_to_the_last(lab: Lab, fake: FakeProvider) -> None:
    async def work(gateway: Open) -> list[Any]:
        return await asyncio.gather(*(gateway.ask(chat()) for _ in range(100)), return_exceptions=True)

    results = lab.run(only(provider(fake.url), budgets=(Budget(requests=37),)), work)
    assert sum(isinstance(each, Completion) for each in results) == 37
    assert len(fake.received) == 37


def test_a_call_without_a_limit_gets_one_only_where_a_budget_needs_it(lab: Lab, fake: FakeProvider) -> None:
    async def work(gateway: Open) -> None:
        await gateway.ask(chat())
        own = only(
            provider(fake.url, output_limit=77, limit_field="max_completion_tokens"), budgets=(Budget(tokens=10**6),)
        )
        gateway.configure(own)
        await gateway.ask(chat())
        await gateway.ask(chat(max_tokens=5))
        gateway.configure(replace(own, budgets=(Budget(requests=10**6),)))
        await gateway.ask(chat())

    lab.run(only(provider(fake.url)), work)
    limits = [{name: value for name, value in each.body.items() if name.startswith("max_")} for each in fake.received]
    assert limits == [{}, {"max_completion_tokens": 77}, {"max_tokens": 5}, {}]


def test_a_budget_in_money_needs_prices(lab: Lab, fake: FakeProvider) -> None:
    config = only(provider(fake.url, prices={"large": Price(1, 1)}), budgets=(Budget(money=10**9),))
    with pytest.raises(UnpricedModel):
        lab.run(config, asking(chat()))
    assert fake.received == []
    assert lab.run(config, asking(chat(model="large"))).cost_micros == 1


def test_rates_are_told_with_the_seconds_to_wait(lab: Lab, fake: FakeProvider) -> None:
    async def work(gateway: Open) -> None:
        await gateway.ask(chat())
        with pytest.raises(RateLimited) as error:
            await gateway.ask(chat())
        assert 55 <= error.value.facts["retry_after"] <= 60
        await gateway.ask(chat(), CALLER._replace(key="token-2"))

    lab.run(only(provider(fake.url), budgets=(Budget(CALLER.key, requests_per_minute=1),)), work)


def test_what_is_refused_costs_nothing_and_is_told_of(lab: Lab, fake: FakeProvider) -> None:
    with pytest.raises(QuotaExhausted):
        lab.run(only(provider(fake.url), budgets=(Budget(requests=0),)), asking(chat()))
    (facts,) = lab.facts
    assert (facts.outcome, facts.error, facts.status) == (Outcome.REFUSED, "insufficient_quota", 429)
    assert facts.attempts == ()
    assert fake.received == []


def test_equal_questions_are_answered_once_where_that_is_allowed(lab: Lab, fake: FakeProvider) -> None:
    body = chat(temperature=0)

    async def work(gateway: Open) -> None:
        first = await gateway.ask(body)
        again = await gateway.ask(body)
        assert (first.cached, again.cached) == (False, True)
        assert again.body == first.body
        assert (again.cost_micros, again.usage) == (0, Usage())
        stream = await gateway.front.stream(
            CALLER, Operation.CHAT, {**body, "stream": True, "stream_options": {"include_usage": True}}
        )
        assert stream.cached
        pieces = [chunk.body async for chunk in stream.chunks()]
        assert text_of(pieces) == "You said: good day"
        assert pieces[-1]["usage"] == first.body["usage"]
        await gateway.ask(chat(temperature=0.5))
        await gateway.ask(chat(temperature=0.5))

    lab.run(only(provider(fake.url, cache_seconds=60, prices=PRICES)), work)
    assert len(fake.received) == 3
    assert [(each.cached, each.outcome, each.cost_micros > 0) for each in lab.facts] == [
        (False, Outcome.OK, True),
        (True, Outcome.OK, False),
        (True, Outcome.OK, False),
        (False, Outcome.OK, True),
        (False, Outcome.OK, True),
    ]


def test_a_streamed_answer_is_kept_whole(lab: Lab, fake: FakeProvider) -> None:
    tools = [{"type": "function", "function": {"name": "look"}}]

    async def work(gateway: Open) -> None:
        both: tuple[dict[str, Any], ...] = ({}, {"tools": tools})
        for more in both:
            streamed = await gateway.pieces(chat(seed=1, stream=True, **more))
            whole = await gateway.ask(chat(seed=1, **more))
            assert whole.cached
            direct = await gateway.ask(chat(seed=1, user="else", **more))
            assert whole.body["choices"] == direct.body["choices"]
            again = await gateway.pieces(chat(seed=1, stream=True, **more))
            assert text_of(again) == text_of(streamed)

    lab.run(only(provider(fake.url, cache_seconds=60)), work)
    assert len(fake.received) == 4


def test_the_cache_is_off_unless_it_is_asked_for(lab: Lab, fake: FakeProvider) -> None:
    async def work(gateway: Open) -> None:
        for _ in range(2):
            assert not (await gateway.ask(chat(temperature=0))).cached

    lab.run(only(provider(fake.url)), work)
    assert len(fake.received) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"project": "another"},
        {"actor": "svc_2"},
        {"model": "large"},
        {"system": "be brief"},
        {"tools": [{"type": "function", "function": {"name": "look"}}]},
        {"top_p": 0.5},
        {"max_tokens": 9},
        {"text": "good  day"},
        {"policy": "pol_2"},
        {"labels": {"release": "rel_2"}},
        {"operation": Operation.COMPLETION},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_answer_never_crosses_what_it_depends_on(lab: Lab, fake: FakeProvider, change: dict[str, Any]) -> None:
    def call(**more: Any) -> tuple[Caller, Route, dict[str, Any], Operation]:
        system = [{"role": "system", "content": more["system"]}] if "system" in more else []
        body = chat(more.get("text", "good day"), temperature=0)
        body["messages"] = system + body["messages"]
        body["prompt"] = "good day"
        body |= {name: more[name] for name in ("tools", "top_p", "max_tokens") if name in more}
        caller = CALLER._replace(**{name: more[name] for name in ("project", "actor") if name in more})
        route = Route(
            (Target("fake", more.get("model", "small")),),
            cache_seconds=60,
            policy=more.get("policy", "pol_1"),
            labels=more.get("labels", {"release": "rel_1"}),
        )
        return caller, route, body, more.get("operation", Operation.CHAT)

    async def work(gateway: Open) -> None:
        gateway.configure(own, {"another": own})
        assert not (await gateway.gateway.complete(*call())).cached
        assert (await gateway.gateway.complete(*call())).cached
        assert not (await gateway.gateway.complete(*call(**change))).cached

    own = only(provider(fake.url))
    lab.run(own, work)
    assert len(fake.received) == 2


def test_a_provider_that_has_moved_answers_anew(lab: Lab, fake: FakeProvider, second: FakeProvider) -> None:
    async def work(gateway: Open) -> None:
        await gateway.ask(chat(temperature=0))
        gateway.configure(only(provider(second.url, key="", cache_seconds=60)))
        assert not (await gateway.ask(chat(temperature=0))).cached

    lab.run(only(provider(fake.url, cache_seconds=60)), work)
    assert len(second.received) == 1


def test_a_failure_is_not_kept(lab: Lab, fake: FakeProvider) -> None:
    fake.script(Fault(status=500), Fault(half=True))

    async def work(gateway: Open) -> None:
        with pytest.raises(ProviderFailed):
            await gateway.ask(chat(temperature=0))
        with pytest.raises(ProviderFailed):
            await gateway.pieces(chat("one two three", temperature=0, stream=True))
        assert not (await gateway.ask(chat(temperature=0))).cached
        assert not (await gateway.ask(chat("one two three", temperature=0))).cached

    lab.run(only(provider(fake.url, cache_seconds=60)), work)


@pytest.mark.parametrize("what", ["provider", "project", "house"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_refuses_new_calls_and_ends_those_under_way(
    lab: Lab, fake: FakeProvider, what: str, stream: bool
) -> None:
    fake.script(Fault(slow=5.0))
    own = only(provider(fake.url))
    stopped = only(provider(fake.url, stopped="too dear"))
    if what == "project":
        stopped = replace(own, stopped="too dear")
    others = {"": only(stopped="too dear")} if what == "house" else None

    async def work(gateway: Open) -> None:
        task = asyncio.create_task(gateway.pieces(chat(stream=True)) if stream else gateway.ask(chat()))
        await asyncio.to_thread(fake.wait, lambda received: len(received) == 1)
        gateway.configure(own if what == "house" else stopped, others)
        with pytest.raises(ProviderStopped) as error:
            await task
        assert error.value.why == "too dear"
        with pytest.raises(ProviderStopped):
            await gateway.ask(chat())
        await asyncio.to_thread(fake.wait, lambda received: received[0].outcome == "left")
        gateway.configure(own)
        await gateway.ask(chat())

    lab.run(own, work)
    assert [each.outcome for each in lab.facts] == [
        Outcome.BROKEN if stream and lab.facts[0].outcome is Outcome.BROKEN else lab.facts[0].outcome,
        Outcome.REFUSED,
        Outcome.OK,
    ]
    assert lab.facts[0].error == "provider_stopped"


def test_a_stopped_provider_leaves_its_fallback(lab: Lab, fake: FakeProvider, second: FakeProvider) -> None:
    config = only(
        provider(fake.url, stopped="too dear", fallbacks=("spare/large",)), provider(second.url, name="spare", key="")
    )
    assert lab.run(config, asking(chat(model="fake/small"))).provider == "spare"


def test_names_of_models(lab: Lab, fake: FakeProvider) -> None:
    own = only(
        provider(fake.url, models=("small", "org/big-7b:q4")),
        provider(fake.url, name="twin", models=("small",)),
    )
    house = only(
        provider(fake.url, name="fake", models=("hidden",)), provider(fake.url, name="shared", models=("all",))
    )

    async def work(gateway: Open) -> None:
        gateway.configure(own, {"": house})
        names = gateway.front.models(CALLER.project)
        assert sorted(names) == ["fake/org/big-7b:q4", "fake/small", "shared/all", "twin/small"]
        for name, sent in (("fake/small", "small"), ("org/big-7b:q4", "org/big-7b:q4"), ("all", "all")):
            await gateway.ask(chat(model=name))
            assert fake.received[-1].body["model"] == sent
        with pytest.raises(HoldtrueError, match="Several") as error:
            await gateway.ask(chat(model="small"))
        assert "twin/small" in error.value.mend
        for name in ("hidden", "fake/hidden", "none", "fake/", "/", "prompt:x@y"):
            with pytest.raises(ModelNotFound):
                await gateway.ask(chat(model=name))
        # A project that has declared nothing has what the house has.
        stranger = CALLER._replace(project="elsewhere")
        assert sorted(gateway.front.models("elsewhere")) == ["fake/hidden", "shared/all"]
        await gateway.ask(chat(model="hidden"), stranger)

    lab.run(own, work)


def test_a_bad_configuration_leaves_the_good_one_in_force(lab: Lab, fake: FakeProvider) -> None:
    async def work(gateway: Open) -> None:
        for bad in (
            {"projects": {"flights": {"providers": [{"name": "x", "kind": "telepathy"}]}}},
            {"projects": {"flights": {"providers": [{"name": "x", "kind": "openai", "base_url": "ftp://x"}]}}},
            {"unknown": 1},
            {
                "projects": {
                    "flights": {"providers": [{"name": "x", "kind": "openai", "base_url": "https://x", "key": "sk-1"}]}
                }
            },
        ):
            with pytest.raises(HoldtrueError):
                gateway.gateway.configure(bad)
        await gateway.ask(chat())

    lab.run(only(provider(fake.url)), work)


def test_the_facts_of_a_call(lab: Lab, fake: FakeProvider) -> None:
    caller = Caller("flights", "token-1", "svc_1", "req_9", "00-trace-span-01")

    async def work(gateway: Open) -> None:
        route = Route((Target("fake", "small"),), labels={"release": "rel_1", "arm": "canary"}, capture="full")
        await gateway.gateway.complete(caller, route, chat(temperature=0.5, max_tokens=9), asked="prompt:greet@live")
        plain = Route((Target("fake", "small"),), capture="off")
        await gateway.gateway.complete(caller, plain, chat())
        stream = await gateway.gateway.stream(caller, route, chat(stream=True))
        assert [chunk async for chunk in stream.chunks()]

    lab.run(only(provider(fake.url, prices=PRICES)), work)
    first, quiet, streamed = lab.facts
    assert first == first._replace(
        request_id="req_9",
        traceparent="00-trace-span-01",
        project="flights",
        key="token-1",
        actor="svc_1",
        operation=Operation.CHAT,
        stream=False,
        asked="prompt:greet@live",
        provider="fake",
        kind="openai",
        model="small",
        answered_model="small",
        response_id="chatcmpl-fake",
        outcome=Outcome.OK,
        error="",
        status=200,
        finish_reasons=("stop",),
        usage=Usage(2, 4),
        cost_micros=10,
        labels={"release": "rel_1", "arm": "canary"},
        parameters={"temperature": 0.5, "max_tokens": 9},
        capture="full",
    )
    assert first.request is not None
    assert first.answer is not None
    assert first.answer["choices"][0]["message"]["content"] == "You said: good day"
    assert (quiet.request, quiet.answer, quiet.capture) == (None, None, "off")
    assert streamed.answer is not None
    assert streamed.answer["choices"][0]["message"] == {"role": "assistant", "content": "You said: good day"}
    assert streamed.usage == Usage(2, 4)
    assert streamed.first_us is not None
    assert streamed.started_us <= streamed.first_us <= streamed.ended_us
    assert len({each.id for each in lab.facts}) == 3
    assert KEY not in repr(lab.facts)


def test_an_answer_waits_until_its_facts_are_safe(lab: Lab, fake: FakeProvider) -> None:
    safe = asyncio.Event()
    told: list[CallFacts] = []

    async def observe(facts: CallFacts) -> None:
        told.append(facts)
        await safe.wait()

    lab.observe = observe

    async def work(gateway: Open) -> None:
        task = asyncio.create_task(gateway.ask(chat()))
        stream = asyncio.create_task(gateway.pieces(chat(stream=True)))
        while len(told) < 2:
            await asyncio.sleep(0)
        assert not task.done()
        assert not stream.done()
        safe.set()
        await task
        await stream

    lab.run(only(provider(fake.url)), work)


def test_an_answer_whose_facts_are_lost_is_no_answer(lab: Lab, fake: FakeProvider) -> None:
    async def observe(_: CallFacts) -> None:
        raise Unavailable("The disk failed.")

    lab.observe = observe
    with pytest.raises(Unavailable, match="disk"):
        lab.run(only(provider(fake.url)), asking(chat()))
    # A failure is told as what it is.
    fake.script(Fault(status=500))
    with pytest.raises(ProviderFailed):
        lab.run(only(provider(fake.url)), asking(chat()))
