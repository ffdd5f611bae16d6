"""What tests of several rooms start, a PostgreSQL and a Redis of the session's own, and what makes them quick.

With HOLDTRUE_TEST_PLACE=postgresql in the environment every ledger that a test opens in this process by a file's
name is in a database instead: so the tests of all rooms try its statements on PostgreSQL too.
"""

import os
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import certifi
import pytest
from hypothesis import settings

from holdtrue.storage.ledger import database
from holdtrue.storage.ledger import ledger as opening
from holdtrue.storage.ledger.backend import Backend
from holdtrue.storage.ledger.sqlite import SqliteWriter
from tests import redisservers
from tests.clusters import Cluster, running

# Of the tests that ask a server on each database, these do so in every run, the others among the long ones.
_ON_BOTH = ("test_client", "test_recording", "test_crash")

_LONGEST = ("test_types", "test_demo")

# How long an example takes is for the benchmarks to say: this machine may be busy.
settings.register_profile("patient", deadline=None)
settings.register_profile("sampled", deadline=None, max_examples=25)


def pytest_configure(config: pytest.Config) -> None:
    """Look at fewer examples where the long tests are left out, but for tests that say how many they need."""
    settings.load_profile("sampled" if "not long" in str(config.option.markexpr) else "patient")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a sample of what is tried on both databases for every run, and begin with what takes longest."""
    items.sort(key=lambda item: item.path.stem not in _LONGEST)
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


@pytest.fixture(scope="session", autouse=True)
def one_trusted_authority() -> Iterator[None]:
    """Trust one authority: reading all of them took a tenth of the tests' time, and no test leaves the machine."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        first, end, _ = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----")
        alone = Path(folder) / "authority.pem"
        alone.write_text(f"{first}{end}\n")
        patch.setenv("SSL_CERT_FILE", str(alone))
        yield


@cache
def migrated() -> str:
    """Return the statements that make a ledger as the migrations leave it."""
    with tempfile.TemporaryDirectory() as folder:
        writer = SqliteWriter(Path(folder) / "ledger.db")
        database.upgrade(writer)
        statements = "\n".join(writer.raw.iterdump())
        writer.close()
        return statements


@pytest.fixture(scope="session", autouse=True)
def migrations_run_once() -> Iterator[None]:
    """Make each new ledger as the first one was made: the migrations took a fifth of the tests' time."""
    upgrade = database.upgrade

    def instead(writer: database.Transactional) -> None:
        if isinstance(writer, SqliteWriter) and writer.revision() is None:
            writer.raw.executescript(statements)
        else:
            upgrade(writer)

    statements = migrated()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "upgrade", instead)
        yield


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
