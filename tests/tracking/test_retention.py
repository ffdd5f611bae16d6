"""Uploads in parts that nobody finishes are forgotten after a day, by themselves and by `holdtrue retain`."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdtrue.cli.main import main
from holdtrue.core.actor import SYSTEM
from holdtrue.core.clock import SimulatedClock, SystemClock
from holdtrue.server.loops import DueWork
from holdtrue.server.table import room_routes
from holdtrue.storage import Stores, open_stores
from holdtrue.storage.ledger import WriteContext
from holdtrue.tracking import artifacts, retention, service

CONTEXT = WriteContext(actor=SYSTEM, project="flights")
START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    """Open a data folder at a simulated time."""
    room_routes()
    opened = open_stores(tmp_path / "home", SimulatedClock(START))
    yield opened
    opened.close()


def begin(stores: Stores) -> str:
    """Begin an upload in parts, and send one of them."""
    digest = "0" * 64

    def work(tx: object) -> str:
        made = artifacts.begin_upload(tx, "0/run/big.bin", 2, "secret").id  # type: ignore[arg-type]  # a transaction
        artifacts.put_part(tx, made, 1, digest, 10)  # type: ignore[arg-type]  # a transaction
        return made

    return stores.ledger.write(CONTEXT, work)


def parts(stores: Stores, upload: str) -> int:
    """Count the parts that are kept of an upload."""
    return len(stores.ledger.read(lambda c: artifacts.parts_of(c, "flights", upload)))


def test_an_upload_that_nobody_finished_is_forgotten_after_a_day(stores: Stores) -> None:
    clock = stores.clock
    assert isinstance(clock, SimulatedClock)
    old = begin(stores)
    clock.advance(timedelta(hours=23).total_seconds())
    young = begin(stores)
    assert retention.forget_abandoned(stores, "flights") == 0
    clock.advance(timedelta(hours=1).total_seconds())
    assert retention.forget_abandoned(stores, "elsewhere") == 0
    assert retention.forget_abandoned(stores, "flights") == 1
    assert (parts(stores, old), parts(stores, young)) == (0, 1)
    assert [each.action for each in stores.ledger.events(project="flights")][-1] == "upload.abandoned"


def test_it_is_done_by_itself_and_by_retaining(stores: Stores) -> None:
    clock = stores.clock
    assert isinstance(clock, SimulatedClock)
    first = begin(stores)
    stores.ledger.write(CONTEXT, lambda tx: service.create_experiment(tx, "e"))
    clock.advance(timedelta(days=1).total_seconds())
    done = DueWork(stores, SystemClock()).run("flights")["projects"]["flights"]
    assert {each["work"]: each["done"] for each in done}["abandoned uploads"] == 1
    second = begin(stores)
    assert retention.remove_deleted(stores.ledger, CONTEXT, 30, 1000).uploads == 0
    clock.advance(timedelta(days=1).total_seconds())
    assert retention.remove_deleted(stores.ledger, CONTEXT, 30, 1000).uploads == 1
    assert (parts(stores, first), parts(stores, second)) == (0, 0)


def test_the_command_says_how_many_went(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    room_routes()
    home = tmp_path / "home"
    opened = open_stores(home, SimulatedClock(datetime.now(UTC) - timedelta(days=2)))
    begin(opened)
    opened.close()
    assert main(["retain", "--home", str(home), "--project", "flights"]) == 0
    assert capsys.readouterr().out.strip() == "removed 0 runs and 0 points, 1 unfinished uploads"
