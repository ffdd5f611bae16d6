"""Sizes, counts, costs, periods, and when to try again."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.core.clock import microseconds
from holdtrue.core.errors import InvalidInput
from holdtrue.llm.gateway import Operation, Period, Price, Usage
from holdtrue.llm.gateway.rules import (
    check_request,
    checked_usage,
    choices,
    cost,
    count_output,
    deterministic,
    input_bound,
    jitter,
    period_end,
    period_start,
    redacted,
    retry_after,
    stated_limit,
)

NOW = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)


def chat(*texts: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text} for text in texts], **more}


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        (Operation.CHAT, {}),
        (Operation.CHAT, {"messages": []}),
        (Operation.CHAT, {"messages": "hi"}),
        (Operation.CHAT, {"messages": ["hi"]}),
        (Operation.CHAT, {"messages": [{"content": "hi"}]}),
        (Operation.CHAT, {"messages": [{"role": 1, "content": "hi"}]}),
        (Operation.CHAT, chat("a", stream="yes")),
        (Operation.CHAT, chat("a", n=0)),
        (Operation.CHAT, chat("a", n=129)),
        (Operation.CHAT, chat("a", n=True)),
        (Operation.CHAT, chat("a", n=1.5)),
        (Operation.CHAT, chat("a", max_tokens=-1)),
        (Operation.CHAT, chat("a", max_tokens="7")),
        (Operation.CHAT, chat("a", max_completion_tokens=10**9)),
        (Operation.COMPLETION, {"prompt": None}),
        (Operation.COMPLETION, {"prompt": []}),
        (Operation.EMBEDDING, {"input": {}}),
        (Operation.EMBEDDING, {"input": []}),
    ],
)
def test_what_the_gateway_relies_on_is_checked(operation: Operation, body: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as error:
        check_request(operation, body)
    assert error.value.facts["param"]


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        (Operation.CHAT, chat("a", n=None, max_tokens=None, stream=None, unknown={"x": 1})),
        (Operation.CHAT, {"messages": [{"role": "assistant", "content": None, "tool_calls": []}]}),
        (Operation.COMPLETION, {"prompt": [1, 2, 3]}),
        (Operation.COMPLETION, {"prompt": ""}),
        (Operation.EMBEDDING, {"input": ["a", "b"]}),
    ],
)
def test_the_rest_is_the_providers_business(operation: Operation, body: dict[str, Any]) -> None:
    check_request(operation, body)


def test_the_greatest_of_two_limits_and_counts_holds() -> None:
    assert stated_limit(chat("a", max_tokens=5, max_completion_tokens=9)) == 9
    assert stated_limit(chat("a")) is None
    assert choices(chat("a", n=3, best_of=5)) == 5


@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_the_bound_is_no_less_than_one_token_a_byte(texts: list[str]) -> None:
    most, counted = input_bound(Operation.CHAT, chat(*texts))
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    assert most == size + 8 * len(texts) + 16
    assert counted == -(-size // 4) + 4 * len(texts)
    assert counted <= most


def test_an_image_counts_as_an_image_and_not_by_its_bytes() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "abcd"}, image]}]}
    assert input_bound(Operation.CHAT, body) == (4 + 5_000 + 8 + 16, 1 + 1_000 + 4)


def test_tools_and_other_parts_are_counted() -> None:
    plain = input_bound(Operation.CHAT, chat("a"))[0]
    tools = [{"type": "function", "function": {"name": "look"}}]
    assert input_bound(Operation.CHAT, chat("a", tools=tools))[0] > plain + 30
    sound = {"type": "input_audio", "input_audio": {"data": "x" * 500}}
    assert input_bound(Operation.CHAT, {"messages": [{"role": "user", "content": [sound]}]})[0] > 500


OWN = Usage(10, 5, counted=True)


@pytest.mark.parametrize(
    "reported",
    [
        None,
        [],
        "many",
        {},
        {"prompt_tokens": None, "completion_tokens": 3},
        {"prompt_tokens": -1, "completion_tokens": 3},
        {"prompt_tokens": 3, "completion_tokens": -3},
        {"prompt_tokens": 3.5, "completion_tokens": 3},
        {"prompt_tokens": True, "completion_tokens": 3},
        {"prompt_tokens": "3", "completion_tokens": 3},
        {"prompt_tokens": 10**12, "completion_tokens": 3},
        {"prompt_tokens": 40 + 2_049, "completion_tokens": 3},
        {"prompt_tokens": 3, "completion_tokens": 101},
        {"prompt_tokens": 3, "completion_tokens": 10**30},
    ],
)
def test_usage_that_cannot_be_is_replaced_by_our_own_count(reported: Any) -> None:
    assert checked_usage(reported, OWN, input_most=40, output_most=100) is OWN


def test_usage_that_can_be_is_taken() -> None:
    reported: dict[str, Any] = {"prompt_tokens": 12, "completion_tokens": 100}
    assert checked_usage(reported, OWN, input_most=40, output_most=100) == Usage(12, 100)
    reported["prompt_tokens_details"] = {"cached_tokens": 7}
    assert checked_usage(reported, OWN, input_most=40, output_most=100) == Usage(12, 100, 7)
    reported["prompt_tokens_details"] = {"cached_tokens": 13}
    assert checked_usage(reported, OWN, input_most=40, output_most=100) == Usage(12, 100)
    assert checked_usage({"prompt_tokens": 12}, OWN, input_most=40, output_most=100) == Usage(12, 0)


def test_costs_are_rounded_up_and_cached_input_has_its_price() -> None:
    price = Price(150_000, 600_000)
    assert cost(price, Usage(1_000_000, 1_000_000)) == 750_000
    assert cost(price, Usage(1, 0)) == 1
    assert cost(price, Usage()) == 0
    assert cost(None, Usage(5, 5)) == 0
    assert cost(Price(1_000_000, 0, 100_000), Usage(10, 0, 10)) == 1
    assert cost(Price(1_000_000, 0), Usage(10, 0, 10)) == 10


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, False),
        ({"temperature": 0}, True),
        ({"temperature": 0.0}, True),
        ({"temperature": 0.1}, False),
        ({"temperature": False}, False),
        ({"seed": 0}, True),
        ({"seed": 7, "n": 2}, False),
    ],
)
def test_what_is_deterministic(more: dict[str, Any], expected: bool) -> None:
    assert deterministic(chat("a", **more)) is expected


def test_full_jitter_stays_below_its_bound() -> None:
    generator = random.Random(1)
    for attempt, bound in ((1, 0.2), (2, 0.4), (3, 0.8), (9, 5.0)):
        waits = [jitter(attempt, generator, base=0.2, cap=5.0) for _ in range(500)]
        assert 0 <= min(waits) < 0.05 * bound
        assert 0.95 * bound < max(waits) <= bound


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("7", 7.0),
        (" 1.5 ", 1.5),
        ("soon", None),
        ("-3", None),
        ("1e9", None),
        ("9" * 40, None),
        ("Fri, 01 Jan 2027 00:00:09 GMT", 10.0),
        ("Fri, 01 Jan 2021 00:00:00 GMT", 0.0),
    ],
)
def test_retry_after_in_both_its_forms(value: str | None, expected: float | None) -> None:
    assert retry_after(value, NOW) == expected


def test_periods_begin_and_end_in_utc() -> None:
    begin = datetime(2026, 12, 1, tzinfo=UTC)
    assert period_start(Period.TOTAL, NOW) == 0
    assert period_end(Period.TOTAL, NOW) is None
    assert period_start(Period.MONTH, NOW) == microseconds(begin)
    assert period_end(Period.MONTH, NOW) == datetime(2027, 1, 1, tzinfo=UTC)
    assert period_start(Period.DAY, NOW) == microseconds(datetime(2026, 12, 31, tzinfo=UTC))
    assert period_end(Period.DAY, NOW) == datetime(2027, 1, 1, tzinfo=UTC)
    assert period_start(Period.DAY, NOW + timedelta(seconds=1)) == microseconds(datetime(2027, 1, 1, tzinfo=UTC))


@given(st.integers(946_684_800, 4_102_444_800))
def test_a_moment_lies_in_its_period(seconds: int) -> None:
    moment = datetime.fromtimestamp(seconds, UTC)
    for period in (Period.DAY, Period.MONTH):
        end = period_end(period, moment)
        assert end is not None
        assert period_start(period, moment) <= microseconds(moment) < microseconds(end)
        assert period_start(period, end) == microseconds(end)


def test_a_key_is_taken_out_of_what_a_provider_says() -> None:
    assert redacted("Incorrect API key: sk-1. Use sk-1!", ("sk-1", "")) == "Incorrect API key: [key]. Use [key]!"


def test_output_is_counted_by_its_bytes() -> None:
    assert count_output([]) == 0
    assert count_output(["abcd", "e"]) == 2
    assert count_output(["日本"]) == 2
