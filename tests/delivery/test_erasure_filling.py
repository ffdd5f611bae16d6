"""An entity is erased at the moment at which its rows are taken into the online store: it is not there afterwards."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow as pa
import pytest

import holdtrue as ht
from holdtrue import catalog, data
from holdtrue.core.actor import SYSTEM
from holdtrue.core.clock import SimulatedClock, microseconds
from holdtrue.delivery.privacy import Erase, Progress, erase
from holdtrue.features import FeatureSet, Latest, open_online
from holdtrue.project.filling import fill
from holdtrue.storage import Stores, open_stores
from holdtrue.storage.ledger import WriteContext

NOW = datetime(2024, 2, 1, tzinfo=UTC)
CONTEXT = WriteContext(SYSTEM, "tails")
PAID = Latest("paid", "sales", "customer", "at", ("amount",), "90d")
ASKED = Erase("customer", "17", "request 17")


class Shop:
    """A project with a data set of two customers, whose source stops after it has read their rows."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.stores: Stores = open_stores(home, SimulatedClock(NOW))
        self.read, self.go_on = Event(), Event()
        self.project = ht.Project("tails", owner="me")
        contract = ht.Contract(
            (
                ht.column("id", "string", unique=True),
                ht.column("at", "timestamp"),
                ht.column("customer", "string"),
                ht.column("amount", "float64"),
            )
        )

        @self.project.dataset(key="id", time="at", contract=contract)
        def orders(window: str) -> pa.Table:
            raise NotImplementedError(window)

        @self.project.source(of=orders)
        def sales(given: pa.Table) -> pa.Table:
            self.read.set()
            assert self.go_on.wait(30)
            return given

        spec = self.project.datasets["orders"].spec
        rows = pa.table(
            {
                "id": ["a", "b"],
                "at": pa.array([microseconds(NOW) - 3_600_000_000] * 2, pa.timestamp("us", "UTC")),
                "customer": ["17", "18"],
                "amount": [5.0, 7.0],
            }
        )
        content = FeatureSet((PAID,), (), {}).to_json()
        self.write(lambda tx: data.declare(tx, (spec,)))
        taken = data.ingest(self.stores.blobs, spec, "2024-01", rows)
        self.write(lambda tx: data.accept(tx, taken))
        self.features: str = self.write(lambda tx: catalog.register(tx, "feature_view", "sales", content).id)

    def write(self, work: Any) -> Any:
        return self.stores.ledger.write(CONTEXT, work)

    def get(self, path: str, **query: Any) -> Any:
        """Answer a fill as the control plane does."""
        name = path.rpartition("/")[2]
        if "/versions/" in path:
            return {"content": self.stores.ledger.read(lambda conn: catalog.get(conn, "tails", name).content)}
        return self.stores.ledger.read(lambda conn: data.latest(conn, "tails", name)).content  # type: ignore[union-attr]

    def fill(self) -> Any:
        return fill(self.project, self.home, self, {"features": [self.features], "now": microseconds(NOW)})

    def erase(self, seconds: float) -> Progress:
        return erase(self.stores, CONTEXT, ASKED, seconds)

    def known(self) -> list[float]:
        """Return what the online store knows of both customers, 0 for nothing."""
        with closing(open_online(self.home / "online", "tails", "")) as store:
            found = store.lookup([PAID], {"customer": ["17", "18"]}, [microseconds(NOW)] * 2)["paid_amount"]
        return [0.0 if each != each else each for each in found.tolist()]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    made = Shop(home)
    yield made
    made.stores.close()


def test_an_erasure_ends_after_the_fill_that_had_read_the_rows(shop: Shop) -> None:
    with ThreadPoolExecutor(2) as pool:
        filling = pool.submit(shop.fill)
        assert shop.read.wait(30)
        # The rows are read and not written yet: what is taken away now would come back.
        waiting = shop.erase(0.3)
        assert (waiting.state, waiting.remaining[0]) == ("open", "online")
        erasing = pool.submit(shop.erase, 60.0)
        assert not erasing.done()
        shop.go_on.set()
        assert filling.result(30)["taken"]
        done = erasing.result(60)
    assert (done.id, done.state, done.remaining) == (waiting.id, "done", ())
    assert done.found["online"]["keys"] == 1
    assert shop.known() == [0.0, 7.0]
    # Nor does a fill that comes later bring it back.
    shop.fill()
    assert shop.known() == [0.0, 7.0]


def test_without_an_erasure_the_fill_brings_both(shop: Shop) -> None:
    shop.go_on.set()
    shop.fill()
    assert shop.known() == [5.0, 7.0]
