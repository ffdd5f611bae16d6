"""Many small contents in one file: as readable, checked, removable and whole as if each had its own."""

import itertools
import os
import time
from pathlib import Path

import pytest
from blake3 import blake3

from holdtrue.core.errors import Corrupt, NotFound, StorageFull
from holdtrue.storage import BlobStore
from holdtrue.storage.packs import LEAST
from tests.storage.faults import Fault, Killed, no_space


def _contents(count: int) -> dict[str, bytes]:
    made = (number.to_bytes(4, "big") * (1 + number % 50) for number in range(count))
    return {blake3(data).hexdigest(): data for data in made}


def _packs(store: BlobStore) -> list[Path]:
    return sorted(store.packs.folder.iterdir())


def _age(path: Path) -> None:
    os.utime(path, (time.time() - 7200, time.time() - 7200))


def test_many_share_a_file_and_each_is_found_by_every_door(blobs: BlobStore, tmp_path: Path) -> None:
    contents = _contents(LEAST)
    assert blobs.put_many(list(contents.values())) == list(contents)
    (pack,) = _packs(blobs)
    assert not [path for path in (tmp_path / "blobs").glob("??") if path.is_dir()]
    other = BlobStore(tmp_path / "blobs")
    for digest, data in contents.items():
        assert other.has(digest)
        assert other.get(digest) == data
        assert other.size(digest) == other.occupied(digest) == len(data)
    first = next(iter(contents))
    assert other.path(first).read_bytes() == contents[first]
    with other.open(first) as file:
        assert file.read() == contents[first]
    assert set(other.digests()) == contents.keys()
    assert list(other.verify()) == []
    assert other.lacking([*contents, "0" * 64]) == {"0" * 64}
    assert other.tree(other.put_tree({f"{digest}.txt": digest for digest in contents})).keys()
    assert pack.stat().st_size < sum(map(len, contents.values())) + 64 * LEAST


def test_what_is_packed_is_not_stored_again(blobs: BlobStore) -> None:
    contents = _contents(LEAST + 5)
    blobs.put_many(list(contents.values())[:LEAST])
    (pack,) = _packs(blobs)
    _age(pack)
    assert blobs.put(contents[next(iter(contents))]) == next(iter(contents))
    assert pack.stat().st_mtime > time.time() - 60
    assert blobs.put_many(list(contents.values())) == list(contents)
    assert _packs(blobs) == [pack]
    assert all(blobs.file_of(digest).is_file() == (place >= LEAST) for place, digest in enumerate(contents))


def test_a_pack_is_written_anew_without_what_nothing_refers_to(blobs: BlobStore, tmp_path: Path) -> None:
    contents = _contents(LEAST)
    blobs.put_many(list(contents.values()))
    (pack,) = _packs(blobs)
    other = BlobStore(tmp_path / "blobs")
    assert other.get(next(iter(contents))) is not None
    live = set(list(contents)[::2])
    assert blobs.collect(live, 3600.0) == 0
    _age(pack)
    assert blobs.collect(live, 3600.0) == LEAST - len(live)
    assert len(_packs(blobs)) == 1
    assert not pack.exists()
    kept = _packs(blobs)[0].read_bytes()
    # The other process knew the old file.
    for digest, data in contents.items():
        if digest in live:
            assert other.get(digest) == data
        else:
            assert len(data) == 4 or data not in kept
            with pytest.raises(NotFound):
                other.get(digest)
    _age(_packs(blobs)[0])
    assert blobs.collect(set(), 3600.0) == len(live)
    assert _packs(blobs) == []


def test_a_damaged_content_is_told_and_mended_by_the_next_put(blobs: BlobStore) -> None:
    contents = _contents(LEAST)
    blobs.put_many(list(contents.values()))
    (pack,) = _packs(blobs)
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    pack.write_bytes(bytes(data))
    hurt = max(contents)
    assert list(blobs.verify()) == [hurt]
    for door in (blobs.get, blobs.path, blobs.open):
        with pytest.raises(Corrupt, match=hurt):
            door(hurt)
    assert blobs.put_many(list(contents.values())) == list(contents)
    assert blobs.get(hurt) == contents[hurt]
    assert list(blobs.verify()) == []


@pytest.mark.parametrize("place", [0, 20, 70])
def test_a_pack_with_a_damaged_list_counts_as_gone_and_is_named(blobs: BlobStore, tmp_path: Path, place: int) -> None:
    contents = _contents(LEAST)
    blobs.put_many(list(contents.values()))
    (pack,) = _packs(blobs)
    whole = pack.read_bytes()
    for damage in (whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :], whole[:place]):
        pack.write_bytes(damage)
        other = BlobStore(tmp_path / "blobs")
        assert list(other.verify()) == [pack.name]
        assert not other.has(next(iter(contents)))
        assert other.collect(set(), -1.0) == 0
        assert pack.exists()
        assert other.put_many(list(contents.values())) == list(contents)
        assert all(BlobStore(tmp_path / "blobs").get(digest) == data for digest, data in contents.items())


@pytest.mark.parametrize("error", [no_space(), Killed()], ids=["full disk", "killed"])
def test_a_pack_that_fails_at_any_step_is_whole_or_not_there(tmp_path: Path, error: BaseException) -> None:
    contents = _contents(12)
    for number in itertools.count(1):
        store = BlobStore(tmp_path / f"blobs-{number}", packed_from=8)
        fault = Fault(number, error)
        try:
            with fault:
                store.put_many(list(contents.values()))
        except (StorageFull, Killed):
            found = set(BlobStore(tmp_path / f"blobs-{number}").digests())
            assert found in (set(), contents.keys())
            assert all(store.get(digest) == contents[digest] for digest in found)
        assert store.put_many(list(contents.values())) == list(contents)
        if not fault.hit:
            assert number > 4
            return


@pytest.mark.parametrize("error", [no_space(), Killed()], ids=["full disk", "killed"])
def test_a_collection_that_fails_at_any_step_loses_nothing_that_is_kept(tmp_path: Path, error: BaseException) -> None:
    contents = _contents(12)
    live = set(list(contents)[::3])
    for number in itertools.count(1):
        store = BlobStore(tmp_path / f"blobs-{number}", packed_from=8)
        store.put_many(list(contents.values()))
        fault = Fault(number, error)
        try:
            with fault:
                store.collect(live, -1.0)
        except (OSError, StorageFull, Killed):
            pass
        other = BlobStore(tmp_path / f"blobs-{number}", packed_from=8)
        assert all(other.get(digest) == contents[digest] for digest in live)
        other.collect(live, -1.0)
        assert set(other.digests()) == live
        if not fault.hit:
            assert number > 4
            return
