"""Kill a process during blob puts, journal appends and sealing: nothing acknowledged is lost, half there or double."""

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdtrue.storage import BlobStore
from tests.crash import storage_clients as clients
from tests.crash.harness import History, Nursery, Plan, crash, crash_folders, nursery

KINDS = ("label", "prediction")


@pytest.fixture(scope="module")
def home() -> Iterator[Nursery]:
    with nursery("tests.crash.storage_clients") as running:
        yield running


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Iterator[Path]]:
    yield crash_folders(tmp_path)
    for link in tmp_path.glob("memory-*"):
        shutil.rmtree(link.resolve())


def check_blobs(folder: Path, history: History) -> None:
    store = BlobStore(folder / "blobs")
    for digest, facts in history.acknowledged.items():
        assert store.get(digest) == clients.content(facts["number"])
    assert list(store.verify()) == []
    assert set(store.digests()) <= history.intended.keys()


def check_folders(folder: Path, history: History) -> None:
    store = BlobStore(folder / "blobs")
    for number, facts in history.acknowledged.items():
        files = store.tree(facts["tree"])
        assert {name: store.get(digest) for name, digest in files.items()} == clients.files_of(int(number))
    assert list(store.verify()) == []


class JournalChecker:
    """Check a journal after each kill, reading it with `tail` from kill to kill as a monitor would."""

    def __init__(self) -> None:
        self._tails: dict[Path, tuple[dict[str, str | None], Counter[str]]] = {}

    def check(self, folder: Path, history: History) -> None:
        journal = clients.open_journal(folder)
        rows: Counter[str] = Counter()
        for kind in KINDS:
            rows.update(journal.table(kind, "project")["id"].to_pylist())
        self._check_rows(rows, history)
        # Row counts are not deduplicated: a segment sealed twice, or sealed and still live, would show here.
        assert sum(journal.counts().values()) == len(rows)
        cursors, seen = self._tails.setdefault(folder, (dict.fromkeys(KINDS), Counter()))
        for kind in KINDS:
            table, cursors[kind] = journal.tail(kind, "project", "service", cursors[kind])
            seen.update(table["id"].to_pylist())
        assert seen == rows
        assert list(journal.verify()) == []

    @staticmethod
    def _check_rows(rows: Counter[str], history: History) -> None:
        assert set(rows.values()) <= {1}
        found = Counter(row.rpartition(".")[0] for row in rows)
        for key, count in found.items():
            assert count == history.intended[key]["rows"], "a frame is there in part"
        assert history.acknowledged.keys() <= found.keys()


def check_after_sealing(folder: Path, history: History) -> None:
    journal = clients.open_journal(folder)
    before = {kind: journal.table(kind, "project").to_pylist() for kind in KINDS}
    journal.seal()
    assert list((folder / "journal" / "live").glob("*.seg")) == []
    assert {kind: journal.table(kind, "project").to_pylist() for kind in KINDS} == before


def test_blob_puts_survive_kills(home: Nursery, folders: Iterator[Path]) -> None:
    history = crash(home, "tests.crash.storage_clients:put_blobs", Plan(20), folders, check_blobs)
    assert history.acknowledged, "no put finished: the test saw nothing"


def test_versions_of_folders_survive_kills(home: Nursery, folders: Iterator[Path]) -> None:
    history = crash(home, "tests.crash.storage_clients:add_folders", Plan(20), folders, check_folders)
    assert history.acknowledged, "no version was finished: the test saw nothing"


def test_strict_appends_survive_kills(home: Nursery, folders: Iterator[Path]) -> None:
    checker = JournalChecker()
    history = crash(home, "tests.crash.storage_clients:append_records", Plan(20), folders, checker.check)
    assert history.acknowledged


def test_strict_appends_of_several_threads_survive_kills(home: Nursery, folders: Iterator[Path]) -> None:
    checker = JournalChecker()
    history = crash(home, "tests.crash.storage_clients:append_together", Plan(10), folders, checker.check)
    assert history.acknowledged


def test_sealing_survives_kills(home: Nursery, folders: Iterator[Path]) -> None:
    checker = JournalChecker()

    def check(folder: Path, history: History) -> None:
        checker.check(folder, history)
        if len(history.intended) % 3 == 0:
            check_after_sealing(folder, history)
            checker.check(folder, history)

    history = crash(home, "tests.crash.storage_clients:seal_records", Plan(20, longest=0.1), folders, check)
    assert history.acknowledged


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("client", "kills"), [("put_blobs", 1_000), ("append_records", 500), ("seal_records", 300)])
def test_many_more_kills(home: Nursery, folders: Iterator[Path], client: str, kills: int) -> None:
    check = check_blobs if client == "put_blobs" else JournalChecker().check
    crash(home, f"tests.crash.storage_clients:{client}", Plan(kills, longest=0.1, per_folder=5), folders, check)
