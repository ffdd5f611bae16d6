"""What is kept masked: with the detectors that guard applications, in whatever sends spans."""

import asyncio
import secrets
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from holdtrue.core.clock import SystemClock
from holdtrue.llm.masking import Masker
from holdtrue.storage import Journal
from holdtrue.testing import FakeProvider
from holdtrue.traces import Capture, Origin, Span, SpanSink, TraceSettings
from tests.llm.apps import APPLICATIONS, Desk, content, publish
from tests.llm.gateway.conftest import empty_world
from tests.llm.gateway.worlds import KEY
from tests.serving.plane_home import TOKEN

PERSONAL = ["anna@firma.example", "+49 30 901820", "DE89 3704 0044 0532 0130 00", "4111 1111 1111 1111"]


def test_personal_data_and_secrets_are_masked_and_ids_are_not() -> None:
    mask = Masker()
    for value in PERSONAL:
        assert value not in mask(f"It is {value}, as I said."), value
    token = "ht_svc_" + "ab1" * 14
    assert token not in mask(f"use {token} please")
    kept = ["chat", "gpt-4o-mini-2024-07-18", "No digit here.", "", "2026-11-26T11:00:00Z", "0.5"]
    kept += [f"prd_{secrets.token_hex(14)}" for _ in range(300)]
    kept += ["875c4720963004352ac15b6e6fc79e5a", f"a{secrets.token_hex(8)[1:]}"]
    assert [mask(text) for text in kept] == kept
    assert mask("4111111111111111") == "[credit_card]"


def test_a_text_that_cannot_be_looked_at_whole_is_left_out() -> None:
    assert Masker()("1 " * 600_000) == "[redacted]"


def test_every_text_of_a_span_is_masked_before_it_is_stored(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", SystemClock())
    sink = SpanSink(
        journal.writer("spans", "strict"), SystemClock(), default=TraceSettings(Capture.MASKED), mask=Masker()
    )
    now = round(SystemClock().now().timestamp() * 1e6)
    said = ", ".join(PERSONAL)
    attributes = {"input.value": said, "nested": {"deep": [said]}, "list": PERSONAL, "n": 5}
    events = [{"name": said, "time": now, "attributes": {"text": said}}]
    origin = Origin("shop", {"service.name": "shop", "owner": said}, "scope")
    span = Span(
        "ab" * 16, "cd" * 8, None, f"ask {said}", "internal", now, now, "error", said, attributes, events, [], origin
    )
    asyncio.run(sink.write("help", [span]))
    (row,) = journal.table("span", "help").to_pylist()
    journal.close()
    for value in PERSONAL:
        assert value not in str(row), value
    assert "[iban]" in row["attributes"]
    assert row["trace_id"] == "ab" * 16


@pytest.mark.parametrize("capture", ["masked", "off"])
def test_nothing_personal_reaches_a_file_of_a_data_plane_that_masks(tmp_path: Path, capture: str) -> None:
    with FakeProvider(key=KEY) as fake:
        world = empty_world(tmp_path / "home")
        world.grant({TOKEN: {"permissions": ["predict", "traces.write"]}})
        publish(world, fake, tuple(content(name, guards) for name, guards in APPLICATIONS.items()))
        desk = Desk(world, fake, world.start(FAKE_KEY=KEY, HOLDTRUE_TRACE_CAPTURE=capture))
        desk.plane.until_acked()
        try:
            said = f"I am {', '.join(PERSONAL)} and need help."
            answer = desk.openai().chat.completions.create(
                model="app:bare", messages=[{"role": "user", "content": said}]
            )
            assert PERSONAL[0] in (answer.choices[0].message.content or ""), "this application masks nothing itself"
            attribute = {"key": "gen_ai.prompt", "value": {"stringValue": said}}
            sent = {"traceId": "ab" * 16, "spanId": "cd" * 8, "name": "ask", "attributes": [attribute]}
            sent |= {"startTimeUnixNano": "1", "endTimeUnixNano": "2"}
            body = {"resourceSpans": [{"scopeSpans": [{"spans": [sent]}]}]}
            headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
            put = httpx.post(f"{desk.url}/v1/traces", content=orjson.dumps(body), headers=headers)
            assert put.status_code == 200
            desk.kept("span", trace_id="ab" * 16)
            (root,) = desk.kept("span", prediction_id=answer.id, name="invoke_agent bare")
            assert root["user"] == "svc_test"
            everything = desk.everything()
            for value in PERSONAL:
                assert value.encode() not in everything, value
        finally:
            desk.close_clients()
            world.end()


@pytest.mark.parametrize("capture", ["masked", "off"])
@pytest.mark.parametrize("model", ["app:bare", "small"])
def test_what_a_project_says_of_its_calls_is_held_to(desk: Desk, capture: str, model: str) -> None:
    """`PUT /api/gateway/capture`, which the snapshot brings; the setting `trace_capture` allows everything."""
    desk.fresh(capture=capture)
    said = f"{capture} {model} {', '.join(SAID_ONCE)}"
    answer = desk.openai().chat.completions.create(model=model, messages=[{"role": "user", "content": said}])
    assert SAID_ONCE[0] in (answer.choices[0].message.content or "")
    spans = desk.kept("span", 1, operation="chat")
    assert spans
    everything = desk.everything()
    for value in SAID_ONCE:
        assert value.encode() not in everything, value
    desk.fresh()


def test_what_a_provider_said_is_kept_as_masked_as_the_answer(desk: Desk) -> None:
    for streamed in (False, True):
        create: Any = desk.openai().chat.completions.create
        more = {"extra_body": {"variables": {"tone": f"It is {', '.join(SAID_ONCE)}."}}}
        found = create(model="app:echo", messages=[{"role": "user", "content": "x"}], stream=streamed, **more)
        for _ in found if streamed else ():
            pass
    desk.kept("span", 2, name="invoke_agent echo")
    desk.kept("span", 2, operation="chat", service="echo")
    everything = desk.everything()
    for value in SAID_ONCE:
        assert value.encode() not in everything, value


# Said by no other test of this module, whose data plane keeps everything.
SAID_ONCE = ["bert@firma.example", "+49 30 901821", "4242 4242 4242 4242"]
