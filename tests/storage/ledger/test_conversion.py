"""A ledger carried from a file into a database and back: every row, all or nothing, and written on from there."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from holdtrue import tracking
from holdtrue.core.actor import SYSTEM
from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import Conflict, Corrupt, InvalidInput
from holdtrue.server.table import room_routes
from holdtrue.storage.ledger import Ledger, Transaction, WriteContext
from holdtrue.storage.ledger.conversion import Carried, to_file, to_postgres
from holdtrue.storage.ledger.verify import verify
from holdtrue.tracking import Batch, DatasetInput, Metric, NewRun, Pair
from tests.clusters import Cluster

CONTEXT = WriteContext(SYSTEM, "flights")


def quiet(table: str, rows: int) -> None:
    assert table
    assert rows >= 0


def opened(where: Path | str, home: Path) -> Ledger:
    return Ledger.open(where, clock=SystemClock(), keys=home / "keys")


def filled(tx: Transaction, text: str = "größer 🚀 \\N \t\n'\"") -> str:
    """Log what is hard to carry: signs, great and small numbers, NaN, JSON."""
    info = tracking.create_run(tx, NewRun(0, user="u", name=text.partition("\t")[0])).info
    metrics = [Metric("m", step, 5, value, 0) for step, value in enumerate((0.1, -0.0, 1e-308, 1.7976931348623157e308))]
    metrics.append(Metric("m", -(1 << 63), (1 << 63) - 1, 0.0, 1))
    tracking.log(tx, Batch(info.id, tuple(metrics), (Pair("p", text),), (Pair("t", ""),)))
    tracking.log_inputs(tx, info.id, [DatasetInput("d", "1", "local", text, tags=(Pair("k", text),))], [])
    return info.id


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Give a folder with a ledger in a file."""
    room_routes()
    with_rows = opened(tmp_path / "ledger.db", tmp_path)
    with_rows.write(CONTEXT, filled)
    with_rows.close()
    return tmp_path


def key(home: Path) -> str:
    return (home / "keys" / "ledger.pub").read_text("ascii")


def content(path: Path) -> dict[str, list[Any]]:
    """Return every row of every table of a file."""
    with sqlite3.connect(path) as database:
        names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        kept = [name for name in names if not name.startswith("sqlite_")]
        found = {name: sorted(map(repr, database.execute(f"SELECT * FROM {name}"))) for name in kept}
    database.close()
    return found


def test_a_ledger_goes_into_a_database_and_back_as_it_was(home: Path, cluster: Cluster) -> None:
    file, url, kept = home / "ledger.db", cluster.database(), home / "backups" / "kept.db"
    before = content(file)
    there = to_postgres(file, url, key(home), quiet)
    assert {name: each.rows for name, each in there.items() if each.rows} == {
        name: len(rows) for name, rows in before.items() if rows and name != "alembic_version"
    }
    assert content(file) == before
    ledger = opened(url, home)
    assert verify(url, key(home)).ok
    run = ledger.write(CONTEXT, filled)
    more = ledger.read(lambda c: tracking.find_run(c, "flights", run))
    ledger.close()
    back = to_file(url, file, kept, key(home), quiet)
    assert content(kept) == before
    assert changed(there, back) >= {"events", "metric_points", "run_datasets", "run_params", "runs"}
    assert "tokens" not in changed(there, back)
    assert verify(file, key(home)).ok
    ledger = opened(file, home)
    assert ledger.read(lambda c: tracking.find_run(c, "flights", run)) == more
    ledger.write(CONTEXT, filled)
    ledger.close()
    again = to_postgres(file, cluster.database(), key(home), quiet)
    assert again["runs"].rows == 3
    left = {path.name for path in home.iterdir()} - {"ledger.db-shm", "ledger.db-wal"}
    assert left == {"backups", "keys", "ledger.db"}


def changed(one: dict[str, Carried], other: dict[str, Carried]) -> set[str]:
    """Return the tables that differ."""
    return {name for name in one if one[name] != other[name]}


def test_what_was_not_written_between_has_the_same_hashes_on_both(home: Path, cluster: Cluster) -> None:
    url = cluster.database()
    there = to_postgres(home / "ledger.db", url, key(home), quiet)
    assert to_file(url, home / "other.db", home / "kept.db", key(home), quiet) == there
    assert not (home / "kept.db").exists()
    assert content(home / "other.db") == content(home / "ledger.db")


def test_a_database_that_holds_a_ledger_is_refused_and_stays(home: Path, cluster: Cluster) -> None:
    url = cluster.database()
    ledger = opened(url, home)
    run = ledger.write(CONTEXT, filled)
    ledger.close()
    with pytest.raises(Conflict, match="not empty"):
        to_postgres(home / "ledger.db", url, key(home), quiet)
    ledger = opened(url, home)
    assert ledger.read(lambda c: tracking.find_run_info(c, "flights", run)).id == run
    ledger.close()


def test_one_that_breaks_off_leaves_nothing_and_can_be_begun_again(home: Path, cluster: Cluster) -> None:
    url = cluster.database()

    def broken(table: str, rows: int) -> None:
        if table == "runs":
            raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="terminal"):
        to_postgres(home / "ledger.db", url, key(home), broken)
    there = to_postgres(home / "ledger.db", url, key(home), quiet)
    before = content(home / "ledger.db")
    with pytest.raises(OSError, match="terminal"):
        to_file(url, home / "ledger.db", home / "kept.db", key(home), broken)
    assert content(home / "ledger.db") == before
    assert to_file(url, home / "ledger.db", home / "kept.db", key(home), quiet) == there
    assert not list(home.glob("*.converting*"))


def test_a_sign_that_postgresql_cannot_keep_is_named_with_its_table(home: Path, cluster: Cluster) -> None:
    ledger = opened(home / "ledger.db", home)
    ledger.write(CONTEXT, lambda tx: filled(tx, "nul\0"))
    ledger.close()
    url = cluster.database()
    with pytest.raises(InvalidInput, match="U\\+0000") as refused:
        to_postgres(home / "ledger.db", url, key(home), quiet)
    assert "The table run" in refused.value.what
    assert cluster.execute("SELECT COUNT(*) FROM events", url.rpartition("/")[2]) == [(0,)]


def test_an_altered_log_is_not_carried(home: Path, cluster: Cluster) -> None:
    with sqlite3.connect(home / "ledger.db") as database:
        database.execute("DROP TRIGGER events_no_update")
        database.execute("UPDATE events SET actor = 'somebody else' WHERE seq = 1")
    database.close()
    with pytest.raises(Corrupt, match="does not verify"):
        to_postgres(home / "ledger.db", cluster.database(), key(home), quiet)
