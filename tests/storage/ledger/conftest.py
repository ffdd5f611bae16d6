"""Ledgers in temporary folders or databases, with one plain table to change, on a simulated clock.

A test of a module whose PLACES are BOTH runs on each of them, unless it is marked as being about files.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdtrue.core.clock import SimulatedClock
from holdtrue.storage.ledger import Ledger, database
from tests.clusters import Cluster
from tests.storage.ledger.toys import FILES, URL, make_table, place_of

OpenLedger = Callable[..., Ledger]

_UPGRADE = database.upgrade


@pytest.fixture
def migrations_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the migrations themselves for each new ledger, where they are what is tested."""
    monkeypatch.setattr(database, "upgrade", _UPGRADE)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test the places that it, or else its module, names."""
    if "place" in metafunc.fixturenames:
        chosen = getattr(metafunc.function, "places", getattr(metafunc.module, "PLACES", FILES))
        metafunc.parametrize("place", chosen, indirect=True)


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """Return where the ledger of this test is: a file in its folder, or a database named by a file in it."""
    if request.param != "postgresql":
        yield place_of(tmp_path)
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    (tmp_path / URL).write_text(cluster.database())
    yield place_of(tmp_path)
    cluster.drop(str(place_of(tmp_path)))


@pytest.fixture
def open_ledger(tmp_path: Path, place: Path | str, clock: SimulatedClock) -> Iterator[OpenLedger]:
    """Open the ledger of this test; whatever was opened is closed at the end."""
    opened: list[Ledger] = []

    def open_(**options: object) -> Ledger:
        arguments = {"clock": clock, "keys": tmp_path / "keys", **options}
        ledger = Ledger.open(place, **arguments)  # pyright: ignore[reportArgumentType]  # options
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
