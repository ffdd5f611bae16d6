"""Ledgers in temporary folders, with one plain table to change, on a simulated clock."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdtrue.core.clock import SimulatedClock
from holdtrue.storage.ledger import Ledger
from tests.storage.ledger.toys import make_table

OpenLedger = Callable[..., Ledger]


@pytest.fixture
def open_ledger(tmp_path: Path, clock: SimulatedClock) -> Iterator[OpenLedger]:
    """Open the ledger of this test; whatever was opened is closed at the end."""
    opened: list[Ledger] = []

    def open_(**options: object) -> Ledger:
        arguments = {"clock": clock, "keys": tmp_path / "keys", **options}
        ledger = Ledger.open(tmp_path / "ledger.db", **arguments)  # pyright: ignore[reportArgumentType]  # options
        opened.append(ledger)
        return ledger

    yield open_
    for ledger in opened:
        ledger.close()


@pytest.fixture
def ledger(open_ledger: OpenLedger) -> Ledger:
    """Return a fresh ledger with the table `toys`."""
    fresh = open_ledger()
    make_table(fresh)
    return fresh
