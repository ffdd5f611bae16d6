"""The fake provider itself: both dialects through the official clients, faults by header, script and name."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from holdtrue.core.errors import InvalidInput
from holdtrue.testing import FakeProvider, Fault

CHAT: dict[str, Any] = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    with FakeProvider() as made:
        yield made


def post(fake: FakeProvider, body: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
    return httpx.post(f"{fake.url}/v1/chat/completions", json=body or CHAT, headers=headers, timeout=20)


def test_both_clients_understand_it(fake: FakeProvider) -> None:
    with openai.OpenAI(api_key="x", base_url=f"{fake.url}/v1", max_retries=0) as ai:
        assert [model.id for model in ai.models.list()] == ["small", "large"]
        said = ai.chat.completions.create(model="small", messages=[{"role": "user", "content": "hi"}])
        assert said.choices[0].message.content == "You said: hi"
    with anthropic.Anthropic(api_key="x", base_url=fake.url, max_retries=0) as claude:
        message = claude.messages.create(model="small", max_tokens=9, messages=[{"role": "user", "content": "hi"}])
        assert message.stop_reason == "end_turn"
    assert [each.path for each in fake.received] == ["/v1/models", "/v1/chat/completions", "/v1/messages"]
    assert [each.outcome for each in fake.received] == ["answered"] * 3


def test_faults_by_script_header_and_name(fake: FakeProvider) -> None:
    fake.script(Fault(status=500))
    assert post(fake).status_code == 500
    assert post(fake).status_code == 200
    limited = post(fake, CHAT, **{"x-fake-fault": "status=429;retry_after=3"})
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "3")
    assert post(fake, {**CHAT, "model": "small!status=503"}).status_code == 503
    assert post(fake, CHAT, **{"x-fake-fault": "flood"}).status_code == 400
    fake.always(Fault(status=502))
    assert post(fake).status_code == 502
    fake.clear()
    assert post(fake).status_code == 200
    assert len(fake.received) == 1


def test_answers_that_are_cut(fake: FakeProvider) -> None:
    for fault in (Fault(reset=True), Fault(half=True)):
        fake.script(fault)
        with pytest.raises(httpx.RemoteProtocolError):
            post(fake)
    fake.wait(lambda received: [each.outcome for each in received] == ["cut", "cut"])
    fake.script(Fault(hang=True))
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{fake.url}/v1/chat/completions", json=CHAT, timeout=0.3)
    fake.wait(lambda received: received[-1].outcome == "left")


def test_a_key_is_asked_for() -> None:
    with FakeProvider(key="right") as fake:
        wrong = post(fake, authorization="Bearer wrong")
        assert wrong.status_code == 401
        # As vendors do, it repeats what it was shown.
        assert "wrong" in wrong.text
        assert post(fake, authorization="Bearer right").status_code == 200


@pytest.mark.parametrize("text", ["flood", "status=many", "slow=x"])
def test_faults_that_there_are_not(text: str) -> None:
    with pytest.raises(InvalidInput):
        Fault.read(text)


def test_faults_are_read() -> None:
    assert Fault.read("") == Fault()
    assert Fault.read("hang") == Fault(hang=True)
    assert Fault.read("drop=2; slow=0.5;usage=-1:3") == Fault(drop=2, slow=0.5, usage="-1:3")


def test_it_runs_by_itself() -> None:
    command = [sys.executable, "-m", "holdtrue.testing.provider", "--port", "0", "--key", "k"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.fullmatch(r"ready (http://127\.0\.0\.1:\d+)\n", process.stdout.readline())
        assert found is not None
        assert httpx.get(f"{found[1]}/v1/models").status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
