"""Fake providers, data folders, and the official clients of both dialects."""

from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest

from holdtrue.storage import BlobStore, FileClock, make_folder
from holdtrue.testing import FakeProvider
from tests.llm.gateway.labs import Lab
from tests.llm.gateway.worlds import KEY, World
from tests.serving.plane_home import OTHER, ROOT, START, TOKEN, Process


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    """Run a fake provider that wants its key."""
    with FakeProvider(key=KEY) as provider:
        yield provider


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Make an empty data folder with a clock and three tokens."""
    path = tmp_path / "home"
    for name in ("blobs", "journal", "online", "routing/acks"):
        make_folder(path / name)
    made = World(path, {}, BlobStore(path / "blobs"), FileClock(path / "clock", START))
    made.grant({TOKEN: {}, OTHER: {"project": "another"}, ROOT: {"project": None}})
    yield made
    for process in made.processes:
        if process.popen.poll() is None:
            process.kill()
    made.clock.close()


Openai = Callable[..., openai.OpenAI]


@pytest.fixture
def client() -> Iterator[Openai]:
    """Return the official client of OpenAI's API for a data plane; it does not try again by itself."""
    made: list[openai.OpenAI] = []

    def connect(plane: Process, token: str = TOKEN) -> openai.OpenAI:
        new = openai.OpenAI(api_key=token, base_url=f"http://127.0.0.1:{plane.port}/v1", max_retries=0, timeout=20)
        made.append(new)
        return new

    yield connect
    for each in made:
        each.close()


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Make a place for a gateway in this process, which finds the fake provider's key in its environment."""
    monkeypatch.setenv("FAKE_KEY", KEY)
    home = tmp_path / "lab"
    home.mkdir(mode=0o700)
    return Lab(home)
