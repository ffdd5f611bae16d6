"""A ledger with the catalog's tables, on a simulated clock."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest

import holdtrue.catalog  # noqa: F401  # pyright: ignore[reportUnusedImport]  # makes its tables known
from holdtrue.core.actor import Actor
from holdtrue.core.clock import SimulatedClock
from holdtrue.storage.ledger import Ledger, Transaction, WriteContext

T = TypeVar("T")
Write = Callable[[Callable[[Transaction], T]], T]

ANN = Actor("usr_ann", "human", "Ann")
ROBOT = Actor("svc_1", "service", "robot", created_by="usr_ann")


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(datetime(2013, 1, 1, tzinfo=UTC))


@pytest.fixture
def ledger(tmp_path: Path, clock: SimulatedClock) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path / "ledger.db", clock=clock, keys=tmp_path / "keys")
    yield opened
    opened.close()


class Desk:
    """Write and read in one project."""

    def __init__(self, ledger: Ledger, clock: SimulatedClock, project: str = "flights", actor: Actor = ANN) -> None:
        self.ledger = ledger
        self.clock = clock
        self.project = project
        self.actor = actor

    def write(self, work: Callable[[Transaction], T]) -> T:
        self.clock.advance(1)
        return self.ledger.write(WriteContext(self.actor, self.project), work)

    def actions(self) -> list[str]:
        return [event.action for event in self.ledger.events(self.project)]


@pytest.fixture
def desk(ledger: Ledger, clock: SimulatedClock) -> Desk:
    return Desk(ledger, clock)


@pytest.fixture
def other(ledger: Ledger, clock: SimulatedClock) -> Desk:
    """Another project, another actor, the same ledger."""
    return Desk(ledger, clock, "other", ROBOT)
