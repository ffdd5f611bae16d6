"""Stores in a temporary folder on a simulated clock, and a call into the room's routes."""

import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest

from holdtrue.core.access import Role
from holdtrue.core.actor import Actor
from holdtrue.core.clock import SimulatedClock
from holdtrue.core.codec import load
from holdtrue.door import Call
from holdtrue.pipelines.api import routes
from holdtrue.storage import Stores, open_stores
from holdtrue.storage.ledger import Transaction, WriteContext

T = TypeVar("T")
ANNA = Actor("usr_anna", "human", "Anna", frozenset({Role.DEVELOPER}))


@dataclass(frozen=True, slots=True)
class Room:
    """Hold open stores, and act in the project “flights” as Anna."""

    stores: Stores
    clock: SimulatedClock

    def write(self, work: Callable[[Transaction], T], project: str = "flights") -> T:
        """Run work in one transaction."""
        return self.stores.ledger.write(WriteContext(ANNA, project), work)

    def read(self, work: Callable[[Any], T]) -> T:
        """Run work on a reading connection."""
        return self.stores.ledger.read(work)

    def call(self, method: str, path: str, body: Any = None, *, project: str = "flights", **query: str) -> Any:
        """Call a route of the room as the server would, once it has matched `path`."""
        for route in routes:
            given = _matched(route.path, path, route.method == method)
            if given is not None:
                call = Call(self.stores, ANNA, project, given, query)
                return route.handler(call) if route.body is None else route.handler(call, load(route.body, body))
        raise LookupError(path)

    def actions(self) -> list[str]:
        """Return the actions of the project's events, in order."""
        return [event.action for event in self.stores.ledger.events("flights")]


@contextmanager
def opened() -> Generator[Room]:
    """Open stores in a folder that goes away with them."""
    with tempfile.TemporaryDirectory() as folder:
        clock = SimulatedClock(datetime(2013, 4, 1, tzinfo=UTC))
        stores = open_stores(Path(folder), clock)
        yield Room(stores, clock)
        stores.close()


@pytest.fixture
def room() -> Iterator[Room]:
    with opened() as room:
        yield room


def _matched(pattern: str, path: str, right_method: bool) -> dict[str, str] | None:
    wanted = pattern.removeprefix("/api/projects/{project}/").split("/")
    given = path.split("/")
    if not right_method or len(wanted) != len(given):
        return None
    found = {part[1:-1]: text for part, text in zip(wanted, given, strict=True) if part.startswith("{")}
    fixed = all(part == text for part, text in zip(wanted, given, strict=True) if not part.startswith("{"))
    return found if fixed else None
