"""What an answer gives to tools passes the guards of answers, whole and in pieces."""

import json
from typing import Any

import pytest

from holdtrue.llm.calling import guard_calls
from tests.llm.apps import Desk, checks_of, guard
from tests.llm.test_screening import MAIL, a_secret, rails

MASKING = rails(guard("personal_data", "output", "mask"), guard("secrets", "output", "mask"))


def call(arguments: str, **more: Any) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": "mail", "arguments": arguments}, **more}


def given(found: Any) -> Any:
    return json.loads(found.calls[0]["function"]["arguments"])


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ({"to": MAIL}, {"to": "[email]"}),
        ({"to": [MAIL, {"cc": f"Anna <{MAIL}>"}]}, {"to": ["[email]", {"cc": "Anna <[email]>"}]}),
        ({MAIL: 1}, {"[email]": 1}),
        (MAIL, "[email]"),
        ({"card": 4111111111111111}, {"card": "[credit_card]"}),
    ],
)
def test_values_names_and_numbers_of_a_call_are_masked(value: Any, left: Any) -> None:
    found = guard_calls([call(json.dumps(value))], MASKING.check_value)
    assert (found.action, given(found)) == ("mask", left)


def test_escapes_hide_nothing_and_a_call_without_a_finding_is_the_same_object() -> None:
    hidden = '{"to": "' + "".join(f"\\u{ord(sign):04x}" for sign in MAIL) + '"}'
    assert MAIL not in hidden
    assert given(guard_calls([call(hidden)], MASKING.check_value)) == {"to": "[email]"}
    plain = call('{"count":  3, "large": 12345678.5}')
    assert guard_calls([plain], MASKING.check_value).calls[0] is plain


def test_a_value_that_its_name_tells_is_found() -> None:
    found = guard_calls([call('{"password": "vK3!pq8Zr-tYw2"}')], MASKING.check_value)
    assert "vK3!pq8Zr-tYw2" not in str(found.calls)
    assert found.action == "mask"
    assert isinstance(given(found), dict)


def test_calls_cut_short_and_of_the_other_kind_are_looked_at_too() -> None:
    cut = guard_calls([call(f'{{"to": "{MAIL}", "text": "Dear')], MASKING.check_value)
    assert cut.calls[0]["function"]["arguments"] == '{"to": "[email]", "text": "Dear'
    custom = {"id": "call_2", "type": "custom", "custom": {"name": "shell", "input": f"mail {MAIL}"}}
    assert guard_calls([custom], MASKING.check_value).calls[0]["custom"]["input"] == "mail [email]"


@pytest.mark.parametrize("odd", ["text", {}, {"function": {"name": "x"}}, call("[" * 70 + "]" * 70)])
def test_a_call_that_cannot_be_looked_at_stops_all(odd: Any) -> None:
    found = guard_calls([call("{}"), odd], MASKING.check_value)
    assert (found.action, found.calls) == ("block", ())


def ask(desk: Desk, name: str, text: str, *, stream: bool) -> tuple[str, str, str, str]:
    """Return the words, the arguments and the end of an answer, and its id."""
    create: Any = desk.openai().chat.completions.create
    made = create(model=f"app:{name}", messages=[{"role": "user", "content": text}], stream=stream, user="ann")
    if not stream:
        choice = made.choices[0]
        calls = choice.message.tool_calls or []
        arguments = "".join(each.function.arguments for each in calls)
        return choice.message.content or "", arguments, choice.finish_reason, made.id
    pieces = [each for each in made if each.choices]
    words = "".join(each.choices[0].delta.content or "" for each in pieces)
    calls = [each for piece in pieces for each in piece.choices[0].delta.tool_calls or ()]
    arguments = "".join(each.function.arguments or "" for each in calls)
    return words, arguments, pieces[-1].choices[0].finish_reason, pieces[-1].id


@pytest.mark.parametrize("stream", [False, True])
def test_a_secret_in_a_call_is_masked_and_counted(desk: Desk, stream: bool) -> None:
    _, arguments, reason, prediction = ask(desk, "tools", f"the key is {a_secret()}", stream=stream)
    assert json.loads(arguments) == {"text": "the key is [secret:github_token]"}
    assert reason == "tool_calls"
    (record,) = desk.kept("prediction", id=prediction)
    assert checks_of(record)["secrets"] == 0.0
    spans = desk.kept("span", 4, trace_id=record["trace_id"])
    (told,) = [each for each in spans if "tool_calls" in str(each) and each["name"] == "guardrails"]
    assert "secrets:github_token" in str(told)


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_with_a_secret_does_not_leave_where_that_blocks(desk: Desk, stream: bool) -> None:
    words, arguments, reason, prediction = ask(desk, "tools_stopping", f"key {a_secret()}", stream=stream)
    assert (words, arguments, reason) == ("I can't help with that.", "", "content_filter")
    (record,) = desk.kept("prediction", id=prediction)
    assert (record["blocked"], checks_of(record)) == ("output", {"unblocked": 0.0})
    clean = ask(desk, "tools_stopping", "no key", stream=stream)
    assert (json.loads(clean[1]), clean[2]) == ({"text": "no key"}, "tool_calls")
