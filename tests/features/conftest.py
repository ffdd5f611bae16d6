"""Online stores of every kind, for tests that hold for all of them."""

import itertools
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from holdtrue.features.online import OnlineStore, open_online

OpenStore: TypeAlias = Callable[[], OnlineStore]


@pytest.fixture(scope="session")
def redis_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a real server on a port of its own, and return its address."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        pytest.skip("NOT TESTED against a server: neither redis-server nor valkey-server is installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen([program, *options], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        told: list[str] = []
        for line in process.stdout:
            told.append(line)
            if "Ready to accept connections" in line:
                break
        else:
            raise AssertionError("".join(told))
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.fixture(params=["lmdb", "redis"], scope="module")
def open_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenStore]:
    """Return a function that opens an empty store of the kind that is tested; each is closed at the end."""
    address = request.getfixturevalue("redis_address") if request.param == "redis" else ""
    folder: Path = tmp_path_factory.mktemp("online")
    numbers, opened = itertools.count(), list[OnlineStore]()

    def fresh() -> OnlineStore:
        opened.append(open_online(folder, f"{folder.name}-{next(numbers)}", address))
        return opened[-1]

    yield fresh
    for each in opened:
        each.close()


@pytest.fixture
def store(open_store: OpenStore) -> OnlineStore:
    """Return an empty store."""
    return open_store()
