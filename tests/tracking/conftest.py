"""A ledger with tracking's tables, in a folder of the test's own."""

from collections.abc import Iterator

import pytest

from holdtrue.core.actor import SYSTEM
from holdtrue.core.clock import SystemClock
from holdtrue.server.table import room_routes
from holdtrue.storage.ledger import Ledger, WriteContext

CONTEXT = WriteContext(SYSTEM, "flights")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """Open a ledger."""
    room_routes()
    folder = tmp_path_factory.mktemp("ledger")
    opened = Ledger.open(folder / "ledger.db", clock=SystemClock(), keys=folder / "keys")
    yield opened
    opened.close()
