"""From the first command to an answer: the real processes, the real commands, the real client."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from holdtrue.cli.main import main
from holdtrue.server.ports import free_ports
from holdtrue.testing import FakeProvider
from tests.server.test_up import Start, start  # noqa: F401  # pyright: ignore[reportUnusedImport]  # the fixture

KEY = "sk-canary-commands"
Command = Callable[..., Any]


@pytest.fixture
def holdtrue(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Run one command on a data folder, in this process; return its JSON, or what it prints."""
    for name in [name for name in os.environ if name.startswith("HOLDTRUE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))

    def run(home: Path, *arguments: str, status: tuple[int, ...] = (0,)) -> Any:
        ended = main([*arguments, "--home", str(home)])
        told = capsys.readouterr()
        assert ended in status, told.out + told.err
        assert KEY not in told.out + told.err
        return json.loads(told.out) if "--json" in arguments else told.out + told.err

    return run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_a_provider_answers_within_a_second_of_its_command(
    start: Start,  # noqa: F811  # as above
    home: Path,
    holdtrue: Command,
) -> None:
    with FakeProvider(key=KEY) as fake:
        running = start("--port", str(free_ports("127.0.0.1")), home=home, FAKE_KEY=KEY)
        add = ["provider", "add", "fake", "--kind", "openai", "--base-url", f"{fake.url}/v1", "--key", "env:FAKE_KEY"]
        made = holdtrue(home, *add, "--models", "small,large", "--price", "small=0.15/0.60", "--json")
        assert made["prices"]["small"] == {"input": 150_000, "output": 600_000, "cached_input": None}
        token = holdtrue(home, "token", "create", "--role", "service", "--project", "demo", "--json")
        with openai.OpenAI(
            api_key=token["token"], base_url=f"http://127.0.0.1:{running.port + 1}/v1", max_retries=0, timeout=20
        ) as ai:

            def ask() -> str:
                answer = ai.chat.completions.create(model="small", messages=[{"role": "user", "content": "hi"}])
                return answer.choices[0].message.content or ""

            _until(ask, "You said: hi")
            of_token = ("--key", token["id"], "--project", "demo")
            holdtrue(home, "budget", "set", *of_token, "--requests", "2", "--money", "1.5")
            _until(lambda: _fails(ask), "insufficient_quota")
            # A budget in money bounds each call, by which those that it let through are known.
            assert sum("max_tokens" in each.body for each in fake.received) == 2
            listed = holdtrue(home, "budget", "list", "--json")
            assert listed[0]["money"] == 1_500_000
            holdtrue(home, "budget", "remove", *of_token)
            _until(ask, "You said: hi")
            holdtrue(home, "provider", "stop", "fake", "--reason", "too dear")
            _until(lambda: _fails(ask), "provider_stopped")
            assert "too dear" in holdtrue(home, "provider", "list")
            holdtrue(home, "provider", "start", "fake")
            _until(ask, "You said: hi")
            holdtrue(home, "provider", "stop", "--all", "--project", "demo")
            _until(lambda: _fails(ask), "provider_stopped")
        assert running.stop() == 0
        assert KEY not in running.errors()


def test_commands_work_with_no_server_running(home: Path, holdtrue: Command) -> None:
    home.mkdir(mode=0o700)
    holdtrue(home, "provider", "add", "docs", "--kind", "extractive")
    assert [each["name"] for each in holdtrue(home, "provider", "list", "--json")] == ["docs"]
    holdtrue(home, "budget", "set", "--period", "day", "--tokens", "1000", "--requests-per-minute", "60")
    assert "60 requests" in holdtrue(home, "budget", "list")
    holdtrue(home, "provider", "remove", "docs")
    assert "No provider yet" in holdtrue(home, "provider", "list")


MISTAKES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("provider", "add", "x", "--kind", "openai", "--base-url", "https://x.example", "--key", "sk-1"),
        "env:VARIABLE",
    ),
    (("provider", "add", "a/b", "--kind", "extractive"), "name"),
    (("provider", "add", "x", "--kind", "extractive", "--price", "small"), "small=0.15/0.60"),
    (("provider", "add", "x", "--kind", "extractive", "--price", "small=a/b"), "12.50"),
    (("provider", "stop"), "--all"),
    (("provider", "remove", "nobody"), "nobody"),
    (("budget", "set", "--money", "0.0000001"), "six decimals"),
    (("budget", "set", "--tokens", "5", "--period", "year"), "period"),
)


def test_mistakes_are_told_with_their_mend(home: Path, holdtrue: Command) -> None:
    home.mkdir(mode=0o700)
    for arguments, says in MISTAKES:
        told = holdtrue(home, *arguments, status=(1, 2))
        assert says in told, (arguments, told)


def _fails(ask: Any) -> str:
    try:
        ask()
    except openai.APIStatusError as error:
        return str(error.code)
    return "answered"


def _until(ask: Any, expected: str) -> None:
    """Ask until the answer is the expected one: a change takes effect within a second."""
    deadline = time.monotonic() + 30
    while True:
        try:
            found = ask()
        except openai.APIStatusError as error:
            found = str(error.code)
        if found == expected:
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
