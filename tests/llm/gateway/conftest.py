"""Fake providers, data folders, and the official clients of both dialects."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdtrue.storage import BlobStore, FileClock, make_folder
from holdtrue.testing import FakeProvider
from tests.llm.gateway.labs import Lab
from tests.llm.gateway.worlds import KEY, Served, World, only, provider
from tests.serving.plane_home import OTHER, ROOT, START, TOKEN


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    """Run a fake provider that wants its key."""
    with FakeProvider(key=KEY) as made:
        yield made


def empty_world(path: Path) -> World:
    """Make an empty data folder with a clock and three tokens."""
    for name in ("blobs", "journal", "online", "routing/acks"):
        make_folder(path / name)
    made = World(path, {}, BlobStore(path / "blobs"), FileClock(path / "clock", START))
    made.grant({TOKEN: {}, OTHER: {"project": "another"}, ROOT: {"project": None}})
    return made


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Make a data folder that a test starts processes over."""
    made = empty_world(tmp_path / "home")
    yield made
    made.end()


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Run one data plane over one fake provider for all tests of a module."""
    with FakeProvider(key=KEY) as made:
        world = empty_world(tmp_path_factory.mktemp("gateway") / "home")
        yield Served(world, made, world.plane(only(provider(made.url))))
        world.end()


@pytest.fixture
def served(process: Served) -> Iterator[Served]:
    """Give the module's data plane to one test, with its first configuration and nothing received."""
    process.fake.clear()
    process.configure(only(provider(process.fake.url)))
    yield process
    process.close_clients()


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Make a place for a gateway in this process, which finds the fake provider's key in its environment."""
    monkeypatch.setenv("FAKE_KEY", KEY)
    home = tmp_path / "lab"
    home.mkdir(mode=0o700)
    return Lab(home)
