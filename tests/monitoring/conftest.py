"""Production on real stores in a temporary folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdtrue.core.clock import SimulatedClock
from holdtrue.storage import open_stores
from tests.monitoring.production import START, Production


@pytest.fixture
def production(tmp_path: Path) -> Iterator[Production]:
    clock = SimulatedClock(START)
    stores = open_stores(tmp_path / "home", clock)
    yield Production(stores, stores.journal.writer("plane", "fast"), clock)
    stores.close()
