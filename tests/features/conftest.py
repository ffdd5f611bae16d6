"""Online stores of every kind, for tests that hold for all of them."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from holdtrue.features.online import OnlineStore, open_online

OpenStore: TypeAlias = Callable[[], OnlineStore]


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
