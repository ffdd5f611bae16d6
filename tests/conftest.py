"""What tests of several rooms start: a PostgreSQL and a Redis of the session's own.

With HOLDTRUE_TEST_PLACE=postgresql in the environment every ledger that a test opens in this process by a file's
name is in a database instead: so the tests of all rooms try its statements on PostgreSQL too.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from holdtrue.storage.ledger import ledger as opening
from holdtrue.storage.ledger.backend import Backend
from tests import redisservers
from tests.clusters import Cluster, running

# Of the tests that ask a server on each database, these do so in every run, the others among the long ones.
_ON_BOTH = ("test_client", "test_recording", "test_crash")


# How long an example takes is for the benchmarks to say: this machine may be busy.
settings.register_profile("patient", deadline=None)
settings.register_profile("sampled", deadline=None, max_examples=40)


def pytest_configure(config: pytest.Config) -> None:
    """Look at fewer examples where the long tests are left out, but for tests that say how many they need."""
    settings.load_profile("sampled" if "not long" in str(config.option.markexpr) else "patient")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a sample of what is tried on both databases for every run."""
    for item in items:
        chosen = getattr(item, "callspec", None)
        if chosen is not None and chosen.params.get("server") == "postgresql" and item.path.stem not in _ON_BOTH:
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Run a PostgreSQL for all tests of this session that want a database."""
    with running() as started:
        yield started


@pytest.fixture(scope="session")
def redis_address() -> Iterator[str]:
    """Run a server of Redis for all tests of this session that want one, and return its address."""
    with redisservers.running() as address:
        yield address


@pytest.fixture(scope="session", autouse=os.environ.get("HOLDTRUE_TEST_PLACE") == "postgresql")
def every_ledger_in_a_database(cluster: Cluster) -> Iterator[None]:
    """Let the name of a file stand for a database, the same one each time."""
    databases: dict[Path, str] = {}
    backend_of = opening.backend_of

    def instead(where: Path | str) -> Backend:
        if isinstance(where, Path):
            where = databases.setdefault(where, databases.get(where) or cluster.database())
        return backend_of(where)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "backend_of", instead)
        yield
