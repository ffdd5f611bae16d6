"""A data plane with applications, for the tests of this room."""

from collections.abc import Iterator

import pytest

from tests.llm.apps import Desk, open_desk


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Run one data plane with applications over one fake provider for all tests of a module."""
    with open_desk(tmp_path_factory.mktemp("desk")) as made:
        yield made


@pytest.fixture
def desk(running: Desk) -> Iterator[Desk]:
    """Give the module's data plane to one test, with nothing received."""
    running.fake.clear()
    yield running
    running.close_clients()
