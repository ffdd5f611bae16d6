"""Many small contents in one file: as readable, checked, removable and whole as if each had its own."""

import itertools
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from blake3 import blake3

from holdtrue.core.errors import Corrupt, NotFound, StorageFull
from holdtrue.storage import BlobStore
from holdtrue.storage.packs import LEAST, MOST
from holdtrue.storage.sweeping import Merged
from tests.storage.faults import CALLS, Fault, Killed, no_space


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


def _small_packs(store: BlobStore, packs: int, each: int = 8) -> dict[str, bytes]:
    """Put contents as so many packs, all of them old."""
    contents = _contents(packs * each)
    for start in range(0, len(contents), each):
        store.put_many(list(contents.values())[start : start + each])
    for path in _packs(store):
        _age(path)
    return contents


def test_small_packs_become_one_and_are_read_by_who_knew_them(tmp_path: Path) -> None:
    store, other = (BlobStore(tmp_path / "blobs", packed_from=8) for _ in range(2))
    contents = _small_packs(store, 6)
    assert all(other.get(digest) == data for digest, data in contents.items())
    assert store.merge(3600.0, dry=True) == Merged(6, 6, 1)
    assert len(_packs(store)) == 6
    assert store.merge(3600.0) == Merged(6, 6, 1)
    (pack,) = _packs(store)
    # What waits for its time to be removed does not wait anew.
    assert pack.stat().st_mtime < time.time() - 3600
    for reader in (other, store, BlobStore(tmp_path / "blobs")):
        assert all(reader.get(digest) == data for digest, data in contents.items())
        assert set(reader.digests()) == contents.keys()
    assert list(store.verify()) == []
    assert store.merge(3600.0) == Merged(1, 0, 0)
    assert store.collect(set(list(contents)[:3]), 3600.0) == len(contents) - 3
    assert _packs(store)[0].stat().st_mtime < time.time() - 3600


def test_packs_that_were_put_to_or_are_half_full_stay_as_they_are(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs", packed_from=8)
    contents = _small_packs(store, 3)
    first, found = next(iter(contents)), next(iter(contents.values()))
    store.put(found)
    young = store.packs.find(first)
    assert young is not None
    full = _contents(MOST // 2 + len(contents))
    fresh = [data for digest, data in full.items() if digest not in contents]
    store.put_many(fresh)
    for path in _packs(store):
        if path != young[0]:
            _age(path)
    assert store.merge(3600.0) == Merged(4, 2, 1)
    assert young[0].exists()
    assert all(store.get(digest) == data for digest, data in full.items())


def test_a_damaged_content_is_not_taken_where_another_pack_has_it_whole(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs", packed_from=8)
    contents = _contents(8)
    store.put_many(list(contents.values()))
    first, last = min(contents), max(contents)
    for number, pair in enumerate([{first: b"no!!", last: contents[last]}, {first: contents[first]}]):
        store.packs.put(pair)
        assert len(_packs(store)) == 2 + number
    for path in _packs(store):
        data = path.read_bytes()
        if len(data) > 8 * 48:
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        _age(path)
    assert store.merge(3600.0) == Merged(3, 3, 1)
    assert {digest: store.get(digest) for digest in contents} == contents
    assert list(store.verify()) == []


def test_two_collections_at_once_lose_nothing(tmp_path: Path) -> None:
    store, other = (BlobStore(tmp_path / "blobs", packed_from=8) for _ in range(2))
    contents = _small_packs(store, 4)
    known = list(store.packs.all(anew=True).values())
    assert other.merge(3600.0) == Merged(4, 4, 1)
    # It had looked at the packs before the other one wrote them together.
    assert not store.packs.replace(known, frozenset(), time.time())
    (merged,) = store.packs.all(anew=True).values()
    assert store.packs.replace([merged], frozenset(), time.time())
    assert store.packs.replace([merged], {known[0].digests()[0]}, time.time())
    assert len(list(store.digests())) == len(contents) - 1
    assert store.get(known[1].digests()[0]) == contents[known[1].digests()[0]]


@pytest.mark.parametrize("error", [no_space(), Killed()], ids=["full disk", "killed"])
def test_merging_that_fails_at_any_step_loses_nothing(tmp_path: Path, error: BaseException) -> None:
    for number in itertools.count(1):
        store = BlobStore(tmp_path / f"blobs-{number}", packed_from=8)
        contents = _small_packs(store, 3)
        fault = Fault(number, error, (*CALLS, "utime", "pread"))
        with suppress(OSError, StorageFull, Killed), fault:
            store.merge(3600.0)
        other = BlobStore(tmp_path / f"blobs-{number}", packed_from=8)
        assert {digest: other.get(digest) for digest in contents} == contents
        other.merge(3600.0)
        assert {digest: store.get(digest) for digest in contents} == contents
        assert len(_packs(other)) == 1
        assert set(other.digests()) == contents.keys()
        if not fault.hit:
            assert number > 30
            return


def test_readers_find_everything_while_packs_are_written_together(tmp_path: Path) -> None:
    store, reader = (BlobStore(tmp_path / "blobs", packed_from=8) for _ in range(2))
    contents = _small_packs(store, 12)
    done = threading.Event()

    def read() -> int:
        rounds = 0
        while not done.is_set() or rounds < 2:
            assert {digest: reader.get(digest) for digest in contents} == contents
            assert reader.lacking(contents) == set()
            rounds += 1
        return rounds

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        for start in range(0, 12, 2):
            packs = list(store.packs.all(anew=True).values())
            assert store.packs.replace(packs[: 2 + start % 3], frozenset(), time.time())
        done.set()
        assert reading.result() >= 2
