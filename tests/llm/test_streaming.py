"""Answers of applications in pieces: they leave as they come, guarded, and leave a record however they end."""

import asyncio
from typing import Any

import openai
import pytest

from holdtrue.llm.guardrails import OutputWindow
from holdtrue.llm.guardrails.test_sets import load_cases
from holdtrue.testing import Fault
from tests.llm.apps import Desk, checks_of, guard
from tests.llm.test_screening import MAIL, a_secret, rails

WORDS = " ".join(f"word{number:03d}" for number in range(120))


def stream(desk: Desk, name: str, text: str, **more: Any) -> Any:
    """Begin to ask an application in pieces."""
    create: Any = desk.openai().chat.completions.create
    messages = [{"role": "user", "content": text}]
    return create(model=f"app:{name}", messages=messages, stream=True, user="ann", **more)


def taken(pieces: Any) -> tuple[str, str, Any]:
    """Return the text of a stream, why it ended, and its last piece with a choice."""
    found = [each for each in pieces if each.choices]
    text = "".join(each.choices[0].delta.content or "" for each in found)
    return text, found[-1].choices[0].finish_reason, found[-1]


def first_words(pieces: Any) -> str:
    """Return the first piece that says something."""
    return next(each.choices[0].delta.content for each in pieces if each.choices and each.choices[0].delta.content)


@pytest.mark.parametrize(("name", "stall"), [("bare", 3), ("masked", 60), ("logged", 60), ("stopping", 60)])
def test_the_first_piece_leaves_before_the_provider_has_finished(desk: Desk, name: str, stall: int) -> None:
    desk.fake.script(Fault(stall=stall))
    pieces = stream(desk, name, WORDS)

    assert first_words(pieces).startswith("You")
    assert desk.fake.received[-1].outcome == "open"
    pieces.close()
    desk.fake.wait(lambda received: received[-1].outcome == "left")


@pytest.mark.parametrize("name", ["bare", "masked", "logged", "stopping", "judged"])
def test_pieces_make_the_answer_and_its_end_tells_the_rest(desk: Desk, name: str) -> None:
    pieces = list(stream(desk, name, WORDS, stream_options={"include_usage": True}))

    text, reason, last = taken(pieces)
    if name == "judged":
        assert (text, reason) == ("I can't help with that.", "content_filter")
    else:
        assert (text, reason) == (f"You said: {WORDS}", "stop")
    told = last.model_extra["holdtrue"]
    assert told["prediction_id"] == last.id == pieces[0].id
    assert {each.model for each in pieces} == {f"app:{name}"}
    assert pieces[-1].usage.completion_tokens > 100
    (record,) = desk.kept("prediction", id=last.id)
    assert (record["error"], record["fallback"], record["trace_id"]) == (None, False, told["trace_id"])
    assert record["first_us"] <= record["latency_us"]
    assert record["output_tokens"] > 100
    spans = desk.kept("span", 2, trace_id=told["trace_id"])
    (root,) = [each for each in spans if each["name"] == f"invoke_agent {name}"]
    assert (root["status"], root["prediction_id"]) == ("ok", last.id)
    if name == "logged":
        # That nothing supports the answer is found at its end, and noted.
        assert checks_of(record)["grounding"] == 0.0


@pytest.mark.parametrize("cut", [0, 5, 33, 70])
def test_values_are_masked_wherever_the_provider_cuts(desk: Desk, cut: int) -> None:
    before, after = WORDS[: cut * 8], WORDS[cut * 8 :]
    # The application's own input guards would mask the question: what is echoed comes from the prompt's tone.
    said = f"{before} Write to {MAIL} now, the key is {a_secret()} {after}"
    text, reason, last = taken(stream(desk, "echo", "x", extra_body={"variables": {"tone": said}}))

    assert reason == "stop"
    assert MAIL not in text
    assert a_secret() not in text
    assert "[email]" in text
    assert "[secret:" in text
    (record,) = desk.kept("prediction", id=last.id)
    assert checks_of(record)["secrets"] == 0.0
    assert a_secret().encode() not in desk.everything()


@pytest.mark.parametrize("place", [0, 40, 110])
def test_a_secret_ends_a_stream_where_it_is_to_be_blocked(desk: Desk, place: int) -> None:
    words = WORDS.split()
    said = " ".join([*words[:place], a_secret(), *words[place:]])
    pieces = list(stream(desk, "stopping", said, stream_options={"include_usage": True}))

    text, reason, last = taken(pieces)
    assert reason == "content_filter"
    assert a_secret() not in text
    assert text == "I can't help with that." if place == 0 else f"You said: {WORDS}".startswith(text)
    assert words[-1] not in text
    (record,) = desk.kept("prediction", id=last.id)
    assert (record["blocked"], record["error"], checks_of(record)) == ("output", None, {"unblocked": 0.0})
    assert pieces[-1].usage is not None


def test_anthropics_client_is_told_of_a_block_in_the_middle(desk: Desk) -> None:
    said = f"{WORDS} {a_secret()} {WORDS}"
    messages: Any = [{"role": "user", "content": said}]
    with desk.anthropic().messages.stream(model="app:stopping", max_tokens=1000, messages=messages) as pieces:
        text = "".join(pieces.text_stream)
        final = pieces.get_final_message()
    assert final.stop_reason == "refusal"
    assert text
    assert a_secret() not in text
    assert f"You said: {WORDS}".startswith(text)


def test_an_anthropic_stream_is_the_whole_message(desk: Desk) -> None:
    messages: Any = [{"role": "user", "content": WORDS}]
    with desk.anthropic().messages.stream(model="app:masked", max_tokens=1000, messages=messages) as pieces:
        final = pieces.get_final_message()
    assert final.content[0].type == "text"
    assert final.content[0].text == f"You said: {WORDS}"
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens > 100


@pytest.mark.parametrize("name", ["bare", "masked"])
def test_a_client_that_goes_away_ends_the_providers_work_and_leaves_a_record(desk: Desk, name: str) -> None:
    desk.fake.script(Fault(stall=70))
    pieces = stream(desk, name, f"{name} {WORDS}")
    first = next(iter(pieces))
    assert first_words(pieces)
    pieces.close()

    desk.fake.wait(lambda received: received[-1].outcome == "left")
    (record,) = desk.kept("prediction", id=first.id)
    assert (record["error"], record["fallback"], record["score"]) == ("left", False, None)
    assert record["output_tokens"] > 0
    (root,) = desk.kept("span", prediction_id=first.id, name=f"invoke_agent {name}")
    assert root["status"] == "error"
    assert "You" in root["output"]  # how much more had come by then is the network's affair


def test_a_client_that_leaves_before_the_first_piece_leaves_a_record_too(desk: Desk) -> None:
    desk.fake.script(Fault(hang=True))
    client = desk.openai(timeout=0.5)
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(
            model="app:bare", user="early", messages=[{"role": "user", "content": "x"}], stream=True
        )
    desk.fake.wait(lambda received: received[-1].outcome == "left")
    (record,) = desk.kept("prediction", entity="early")
    assert (record["error"], record["fallback"], record["score"]) == ("left", False, None)


@pytest.mark.parametrize("fault", [Fault(half=True), Fault(bad_json=True), Fault(error_event=True), Fault(drop=5)])
def test_an_answer_that_breaks_is_told_and_counts_as_failed(desk: Desk, fault: Fault) -> None:
    desk.fake.script(fault)
    pieces = stream(desk, "bare", WORDS)
    first = next(iter(pieces))
    with pytest.raises((openai.APIError, openai.APIConnectionError)):
        list(pieces)
    (record,) = desk.kept("prediction", id=first.id)
    assert record["fallback"]
    assert record["error"].startswith("provider_")
    assert record["score"] == 0.0


def test_tools_are_called_in_pieces(desk: Desk) -> None:
    pieces = list(stream(desk, "tools", "Look it up."))
    calls = [each.choices[0].delta.tool_calls for each in pieces if each.choices and each.choices[0].delta.tool_calls]
    assert calls[0][0].function.name == "look_up"
    assert "".join(call[0].function.arguments or "" for call in calls) == '{"text":"Look it up."}'
    assert taken(pieces)[1] == "tool_calls"


def test_a_window_blocks_what_the_whole_would_be_blocked_for() -> None:
    blocking = rails(guard("secrets", "output", "block"), guard("personal_data", "output", "mask"))
    assert blocking.needs_whole_answer == ()
    for case in load_cases("secrets", "tune"):
        text = f"{WORDS[:300]} {case.text} {WORDS[:300]} {MAIL}"
        for size in (7, 64, 1000):
            window = OutputWindow(blocking)
            out = ""
            for at in range(0, len(text), size):
                out += window.feed(text[at : at + size])
            out += window.close()
            whole = blocking.check_output(text)
            assert window.blocked == whole.blocked, (case.id, size)
            assert window.verdict().action == whole.action
            if whole.blocked:
                assert whole.text.startswith(out), (case.id, size)
                assert "[secret:" not in out
            else:
                assert out == whole.text


def test_pieces_leave_one_by_one_where_nothing_holds_them_back(desk: Desk) -> None:
    pieces = [each.choices[0].delta.content for each in stream(desk, "bare", "one two three") if each.choices]
    assert [each for each in pieces if each] == ["You", " said:", " one", " two", " three"]


def test_many_streams_at_once_are_each_their_own(desk: Desk) -> None:
    async def one(client: openai.AsyncOpenAI, number: int) -> str:
        create: Any = client.chat.completions.create
        messages = [{"role": "user", "content": f"number {number} {WORDS}"}]
        text = ""
        async for piece in await create(model="app:masked", messages=messages, stream=True):
            if piece.choices:
                text += piece.choices[0].delta.content or ""
        return text

    async def all_of_them() -> list[str]:
        known: dict[str, Any] = {"base_url": f"{desk.url}/v1", "api_key": desk.openai().api_key, "max_retries": 0}
        async with openai.AsyncOpenAI(**known) as client:
            return await asyncio.gather(*(one(client, number) for number in range(20)))

    assert asyncio.run(all_of_them()) == [f"You said: number {number} {WORDS}" for number in range(20)]
