"""A page of runs costs what it shows, however many runs there are: each of its queries goes through an index by run."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from holdtrue import tracking
from holdtrue.core.clock import SystemClock
from holdtrue.server.table import room_routes
from holdtrue.storage.ledger import Ledger
from holdtrue.tracking import Batch, Metric, NewRun, Pair, search
from holdtrue.tracking.search import Search
from tests.tracking.conftest import CONTEXT

WISHES = (
    Search([0]),
    Search([0], order=["metrics.m DESC"]),
    Search([0], "metrics.m > 0.5", order=["metrics.m"]),
    Search([0], "params.p LIKE 'a%' AND tags.t = 'b'", order=["start_time DESC"]),
)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Keep one run in a file without statistics, as of a server that has only grown."""
    room_routes()
    ledger = Ledger.open(tmp_path / "ledger.db", clock=SystemClock(), keys=tmp_path / "keys")
    info = ledger.write(CONTEXT, lambda tx: tracking.create_run(tx, NewRun(0)).info)
    batch = Batch(info.id, (Metric("m", 0, 0, 1.0, 0),), (Pair("p", "a"),), (Pair("t", "b"),))
    ledger.write(CONTEXT, lambda tx: tracking.log(tx, batch))
    yield tmp_path / "ledger.db"
    ledger.close()


def explained(path: Path, wish: Search) -> list[str]:
    """Return how the database goes through each table for a page of runs."""
    asked: list[tuple[str, object]] = []
    engine = sa.create_engine(f"sqlite:///{path}")

    def note(_connection: object, _cursor: object, statement: str, values: object, *_: object) -> None:
        asked.append((statement, values))

    event.listen(engine, "before_cursor_execute", note)
    with engine.connect() as connection:
        runs, _ = search.search_runs(connection, CONTEXT.project, wish)
    engine.dispose()
    assert len(runs) == 1
    plain = sqlite3.connect(path)
    try:
        return [row[3] for each in asked for row in plain.execute(f"EXPLAIN QUERY PLAN {each[0]}", each[1])]  # type: ignore[arg-type]
    finally:
        plain.close()


@pytest.mark.parametrize("wish", WISHES, ids=[f"{each.filter} {' '.join(each.order)}".strip() for each in WISHES])
def test_no_query_of_a_page_reads_a_whole_project(path: Path, wish: Search) -> None:
    steps = explained(path, wish)
    tables = [each for each in steps if each.startswith(("SCAN", "SEARCH")) and "json_each" not in each]
    assert len(tables) >= 6, steps
    narrow = ("run=?", "number=?", "experiment=?", "key=?", "id=?")
    assert [each for each in tables if not any(word in each for word in narrow)] == []
