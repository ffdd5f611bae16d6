"""A ledger with tracking's tables, of the test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdtrue.core.actor import SYSTEM
from holdtrue.core.clock import SystemClock
from holdtrue.server.table import room_routes
from holdtrue.storage.ledger import Ledger, WriteContext
from tests.clusters import Cluster

CONTEXT = WriteContext(SYSTEM, "flights")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """Open a ledger, in a file or in a database."""
    room_routes()
    folder = tmp_path_factory.mktemp("ledger")
    where: Path | str = folder / "ledger.db"
    if request.param == "postgresql":
        cluster: Cluster = request.getfixturevalue("cluster")
        where = cluster.database()
    opened = Ledger.open(where, clock=SystemClock(), keys=folder / "keys")
    yield opened
    opened.close()
