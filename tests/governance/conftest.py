"""A ledger in a temporary folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdtrue.core.clock import SimulatedClock
from holdtrue.storage.ledger import Ledger
from tests.governance.worlds import START, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    clock = SimulatedClock(START)
    ledger = Ledger.open(tmp_path / "ledger.db", clock=clock, keys=tmp_path / "keys")
    yield World(ledger, clock)
    ledger.close()
