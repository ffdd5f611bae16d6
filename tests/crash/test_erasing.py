"""Kill a process while it takes rows out of the journal: whose erasure was acknowledged is gone, nobody else is."""

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import erasing_clients as clients
from tests.crash.harness import History, Nursery, Plan, crash, crash_folders, nursery
from tests.crash.storage_clients import open_journal

CLIENT = "tests.crash.erasing_clients:erase_records"


@pytest.fixture(scope="module")
def home() -> Iterator[Nursery]:
    with nursery("tests.crash.erasing_clients") as running:
        yield running


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Iterator[Path]]:
    yield crash_folders(tmp_path)
    for link in tmp_path.glob("memory-*"):
        shutil.rmtree(link.resolve())


def check(folder: Path, history: History) -> None:
    """Hold the journal against what was promised; then go on with what was cut off, and look again."""
    begun = {key.partition(" ")[2] for key in history.intended if key.startswith("erase ")}
    done = {key.partition(" ")[2] for key in history.acknowledged if key.startswith("erase ")}
    appended = {key: facts["customer"] for key, facts in history.acknowledged.items() if "customer" in facts}
    intended = {key: facts["customer"] for key, facts in history.intended.items() if "customer" in facts}
    journal = open_journal(folder)

    def look(gone: set[str]) -> None:
        table = journal.table("event", "shop")
        rows = Counter(table["id"].to_pylist())
        assert set(rows.values()) <= {1}
        assert not gone & set(table["customer"].to_pylist() if rows else [])
        assert rows.keys() <= intended.keys()
        assert {key for key, customer in appended.items() if customer not in begun} <= rows.keys()
        assert list(journal.verify()) == []

    look(done)
    journal.seal()
    for customer in sorted(begun - done):
        journal.erase(clients.of(customer))
    look(begun)
    if begun - done:
        # What the killed process left beside the manifests is gone as well.
        assert not begun & clients.customers_in_files(folder)


def test_erasing_survives_kills(home: Nursery, folders: Iterator[Path]) -> None:
    begun: set[str] = set()

    def noted(folder: Path, history: History) -> None:
        begun.update(key for key in history.intended if key.startswith("erase "))
        check(folder, history)

    crash(home, CLIENT, Plan(16, longest=0.25), folders, noted)
    assert begun, "no erasure began: the test saw nothing"


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_many_more_kills(home: Nursery, folders: Iterator[Path]) -> None:
    crash(home, CLIENT, Plan(500, longest=0.2, per_folder=5), folders, check)
