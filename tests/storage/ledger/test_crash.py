"""Kill a process that commits from several threads: nothing acknowledged is lost, nothing is there by half."""

import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.harness import History, Nursery, Plan, crash, crash_folders, nursery
from tests.storage.ledger.crash_client import open_ledger
from tests.storage.ledger.toys import check, make_table

CLIENT = "tests.storage.ledger.crash_client:commit_for_ever"


@pytest.fixture(scope="module")
def home() -> Iterator[Nursery]:
    with nursery("tests.storage.ledger.crash_client") as running:
        yield running


def read(path: Path) -> tuple[dict[str, int], Counter[str]] | None:
    """Return the rows (key → events it stands for) and the events per object; None before the first start was done."""
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'toys'").fetchone() is None:
            return None
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = database.execute("SELECT key, value FROM toys").fetchall()
        told = Counter(row[0] for row in database.execute("SELECT object FROM events WHERE project = 'flights'"))
        assert len(dict(rows)) == len(rows), "a request had its effect twice"
        return {key: int(value) for key, value in rows}, told
    finally:
        database.close()


def check_ledger(folder: Path, history: History) -> None:
    """Check one folder after a kill."""
    state = read(folder / "ledger.db") if (folder / "ledger.db").exists() else None
    if state is None:
        assert not history.acknowledged
        return
    rows, told = state
    assert history.acknowledged.keys() <= rows.keys(), "an acknowledged change is lost"
    assert rows.keys() <= history.intended.keys(), "a change is there that nobody asked for"
    assert told == rows, "changes and events differ"
    anchors = folder / "out" / "anchors"
    found = check(folder, anchors=anchors if anchors.exists() else None)
    assert found.ok, found.findings


def prepared(folders: Iterator[Path]) -> Iterator[Path]:
    """Make a ledger in most folders; in the others the first kills hit the migration."""
    for number, folder in enumerate(folders):
        if number % 4 != 1:
            ledger = open_ledger(folder)
            make_table(ledger)
            ledger.close()
        yield folder


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Iterator[Path]]:
    yield prepared(crash_folders(tmp_path))
    for link in tmp_path.glob("memory-*"):
        shutil.rmtree(link.resolve())


def test_commits_survive_kills(home: Nursery, folders: Iterator[Path]) -> None:
    acknowledged: dict[Path, int] = {}

    def check_and_count(folder: Path, history: History) -> None:
        check_ledger(folder, history)
        acknowledged[folder] = len(history.acknowledged)

    crash(home, CLIENT, Plan(24, longest=0.25), folders, check_and_count)
    print(f"{sum(acknowledged.values())} acknowledged commits")
    assert sum(acknowledged.values()) > 10, "hardly a commit finished: the test saw nothing"


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_commits_survive_two_thousand_kills(home: Nursery, folders: Iterator[Path]) -> None:
    crash(home, CLIENT, Plan(2_000, longest=0.3, per_folder=25), folders, check_ledger)
