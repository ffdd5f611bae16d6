"""What was acknowledged survives a loss of power: of every write and every name that no fsync made durable."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from holdtrue.core.clock import SimulatedClock
from holdtrue.storage import ActionCache, BlobStore, Journal
from tests.storage.records import columns


class Disk:
    """Note what each fsync made durable under a folder; rebuild what a power loss would leave of it.

    With `names`, changes of names are kept though nobody synced their folder (file systems may do that), and only
    the bytes of files are lost.
    """

    def __init__(self, root: Path, names: bool) -> None:
        self.root = root
        self._names = names
        self._bytes: dict[int, bytes] = {}
        self._folders: dict[int, dict[str, os.stat_result]] = {}
        self._losses = 0

    def note(self, descriptor: int) -> None:
        """Take in that the file or folder behind `descriptor` was synced."""
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        inode = os.fstat(descriptor).st_ino
        if path.is_dir():
            self._folders[inode] = _names(path)
        else:
            self._bytes[inode] = path.read_bytes()

    def lose_power(self) -> Path:
        """Return a new folder as `root` would be found afterwards."""
        self._losses += 1
        found = self.root.with_name(f"{self.root.name}-{self._losses}")
        self._rebuild(self.root, self.root.stat(), found)
        return found

    def _rebuild(self, source: Path, status: os.stat_result, target: Path) -> None:
        target.mkdir(mode=0o700)
        names = _names(source) if self._names else self._folders.get(status.st_ino, {})
        for name, entry in names.items():  # a file removed since, but not durably, is there again
            if stat.S_ISDIR(entry.st_mode):
                self._rebuild(source / name, entry, target / name)
            else:
                (target / name).write_bytes(self._bytes.get(entry.st_ino, b""))


def _names(folder: Path) -> dict[str, os.stat_result]:
    return {entry.name: entry.stat() for entry in os.scandir(folder)}


@pytest.fixture(params=[False, True], ids=["names lost", "names kept"])
def disk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    root = tmp_path / "home"
    root.mkdir(mode=0o700)
    disk = Disk(root, request.param)

    def noting(real: Callable[[int], None]) -> Callable[[int], None]:
        def sync(descriptor: int) -> None:
            real(descriptor)
            disk.note(descriptor)

        return sync

    monkeypatch.setattr(os, "fsync", noting(os.fsync))
    monkeypatch.setattr(os, "fdatasync", noting(os.fdatasync))
    return disk


def test_blobs_and_actions_survive(disk: Disk, tmp_path: Path) -> None:
    store, cache = BlobStore(disk.root / "blobs", packed_from=2), ActionCache(disk.root / "actions")
    (tmp_path / "source").write_bytes(b"from a file" * 1000)
    kept = [store.put(b"one"), store.put(b"two" * 5000), store.put_file(tmp_path / "source")]
    kept.append(store.put_tree({"one": kept[0]}))
    kept += store.put_many([b"packed", b"together"])
    for digest in kept:
        cache.put(digest, kept[0])
        found = disk.lose_power()
        assert all(BlobStore(found / "blobs").get(each) for each in kept)
        assert ActionCache(found / "actions").get(digest) == kept[0]


def test_strict_appends_and_sealed_records_survive(disk: Disk, clock: SimulatedClock) -> None:
    journal = Journal(disk.root / "journal", clock)
    writer = journal.writer("w", "strict", segment_bytes=1_000)
    kept: list[str] = []
    for number in range(12):
        writer.append("label", "flights", "svc", columns([f"{number}.a", f"{number}.b"], number % 3), 2)
        kept += [f"{number}.a", f"{number}.b"]
        if number % 4 == 3:
            journal.seal()
        found = Journal(disk.lose_power() / "journal", clock)
        assert found.table("label", "flights")["id"].to_pylist() == kept
        assert found.counts() == {"label/flights/svc": len(kept)}
        assert list(found.verify()) == []
        found.seal()
        assert found.table("label", "flights")["id"].to_pylist() == kept
    journal.close()


def test_fast_appends_survive_once_they_are_flushed(disk: Disk, clock: SimulatedClock) -> None:
    journal = Journal(disk.root / "journal", clock)
    writer = journal.writer("w", "fast", sync_seconds=3600)
    for number in range(3):
        writer.append("label", "flights", "svc", columns([str(number)]), 1)
    writer.flush()
    writer.append("label", "flights", "svc", columns(["not promised"]), 1)
    found = Journal(disk.lose_power() / "journal", clock)
    assert found.table("label", "flights")["id"].to_pylist() == ["0", "1", "2"]
    journal.close()
