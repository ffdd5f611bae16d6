"""What tests of several rooms start: a PostgreSQL of the session's own."""

from collections.abc import Iterator

import pytest

from tests.clusters import Cluster, running


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Run a PostgreSQL for all tests of this session that want a database."""
    with running() as started:
        yield started
