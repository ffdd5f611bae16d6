"""Large content in parts: one change stores little, whoever asks gets the whole, and damage is never served."""

import io
import itertools
import os
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.core.errors import Corrupt, NotFound, StorageFull
from holdtrue.storage import BlobStore, files
from holdtrue.storage.chunks import LARGE, LEAST, MOST, Parts, PartsReader, cut
from tests.sampling import examples
from tests.storage.faults import Fault, Killed, no_space
from tests.storage.test_blobs import HOUR, age

SIZE = 5_000_000


def content(seed: int = 1, size: int = SIZE) -> bytes:
    return random.Random(seed).randbytes(size)


def bytes_of(blobs: BlobStore) -> int:
    return sum(blobs.occupied(digest) for digest in blobs.digests())


def grow_old(blobs: BlobStore, tmp_path: Path) -> None:
    for path in (tmp_path / "blobs").rglob("*"):
        if path.is_file():
            age(path, 2 * HOUR)


def test_a_large_file_has_the_name_of_its_bytes_and_comes_back_by_every_door(blobs: BlobStore, tmp_path: Path) -> None:
    size = LARGE + 300_000
    data = content(size=size)
    source = tmp_path / "source"
    source.write_bytes(data)
    digest = blobs.put_large(source)
    assert digest == blake3(data).hexdigest()
    assert blobs.has(digest)
    assert blobs.size(digest) == size
    assert len(blobs.parts(digest)) > size // MOST
    assert blobs.get(digest) == data
    with blobs.open(digest) as file:
        file.seek(5_000_000)
        assert file.read(1000) == data[5_000_000:5_001_000]
        file.seek(-10, os.SEEK_END)
        assert file.read() == data[-10:]
    assert blobs.path(digest).read_bytes() == data
    assert digest in set(blobs.digests())
    assert list(blobs.verify()) == []
    # Little more than the bytes themselves.
    assert bytes_of(blobs) < size * 1.001


def test_a_small_file_stays_one(blobs: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"small")
    digest = blobs.put_large(source)
    assert blobs.parts(digest) == ()
    with blobs.open(digest) as file:
        assert file.read() == b"small"


@pytest.mark.parametrize("change", ["one block", "bytes put in at the beginning", "bytes at the end"])
def test_a_changed_place_stores_only_what_is_around_it(blobs: BlobStore, change: str) -> None:
    data = content()
    before = blobs.put_large(io.BytesIO(data))
    stored = bytes_of(blobs)
    middle = SIZE // 2
    changed = {
        "one block": data[:middle] + bytes(4096) + data[middle + 4096 :],
        "bytes put in at the beginning": b"and more" + data,
        "bytes at the end": data + b"and more",
    }[change]
    after = blobs.put_large(io.BytesIO(changed))
    assert after != before
    assert 0 < bytes_of(blobs) - stored < 2 * MOST + 100_000
    assert blobs.get(after) == changed
    assert blobs.get(before) == data


class Slow(io.RawIOBase):
    """Give at most so many bytes at a time."""

    def __init__(self, data: bytes, most: int) -> None:
        self._file = io.BytesIO(data)
        self._most = most

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, self._most) if size >= 0 else self._most)


def test_parts_are_cut_alike_however_the_bytes_come() -> None:
    data = content()
    whole = list(cut(io.BytesIO(data), lambda _: None))
    slowly = list(cut(Slow(data, 1_000_001), lambda _: None))  # type: ignore[arg-type]  # it reads, which is all
    assert whole == slowly
    assert b"".join(whole) == data
    assert all(LEAST <= len(part) <= MOST for part in whole[:-1])


def test_what_is_put_again_stores_nothing(blobs: BlobStore) -> None:
    data = content()
    digest = blobs.put_large(io.BytesIO(data))
    stored = set(blobs.digests())
    assert blobs.put_large(io.BytesIO(data)) == digest
    assert set(blobs.digests()) == stored
    # Known as it is, it is not cut as well.
    plain = blobs.put(content(2))
    assert blobs.put_large(io.BytesIO(content(2))) == plain
    assert blobs.parts(plain) == ()


def hurt_part(blobs: BlobStore, tmp_path: Path, part: str) -> None:
    path = tmp_path / "blobs" / part[:2] / part
    found = bytearray(path.read_bytes())
    found[len(found) // 2] ^= 1
    path.write_bytes(found)


@pytest.mark.parametrize("damage", ["part changed", "part gone", "list changed", "list cut", "parts swapped"])
def test_damage_is_found_whichever_door_is_used_and_mended_by_a_put(
    blobs: BlobStore, tmp_path: Path, damage: str
) -> None:
    data = content()
    digest = blobs.put_large(io.BytesIO(data))
    assert blobs.path(digest)
    part = blobs.parts(digest)[3]
    listed = tmp_path / "blobs" / digest[:2] / f"{digest}.parts"
    if damage == "part changed":
        hurt_part(blobs, tmp_path, part)
    elif damage == "part gone":
        (tmp_path / "blobs" / part[:2] / part).unlink()
    elif damage == "list changed":
        other = blobs.put(b"other")
        listed.write_bytes(listed.read_bytes().replace(part.encode(), other.encode()))
    elif damage == "list cut":
        listed.write_bytes(listed.read_bytes()[:-30])
    else:
        found = Parts.from_bytes(listed.read_bytes())
        digests, sizes = list(found.digests), list(found.sizes)
        digests[:2], sizes[:2] = digests[1::-1], sizes[1::-1]
        listed.write_bytes(Parts(tuple(digests), tuple(sizes)).to_bytes())
    for use in (blobs.get, blobs.open):
        with pytest.raises(Corrupt, match=digest) as caught:
            use(digest)
        assert "Store the original bytes again" in caught.value.mend
    fresh = BlobStore(tmp_path / "blobs")
    assert digest in set(fresh.verify())
    assert blobs.put_large(io.BytesIO(data)) == digest
    assert blobs.get(digest) == data
    assert digest not in set(fresh.verify())


def test_an_assembled_file_that_was_changed_is_not_served(blobs: BlobStore) -> None:
    digest = blobs.put_large(io.BytesIO(content()))
    path = blobs.path(digest)
    path.write_bytes(b"x" + path.read_bytes()[1:])
    with pytest.raises(Corrupt, match=digest):
        blobs.path(digest)


def test_a_collection_keeps_parts_that_are_needed_and_takes_the_others(blobs: BlobStore, tmp_path: Path) -> None:
    data = content()
    first = blobs.put_large(io.BytesIO(data))
    second = blobs.put_large(io.BytesIO(data[:-4096] + bytes(4096)))
    tree = blobs.put_tree({"large": second})
    assert blobs.path(first)
    own = set(blobs.parts(first)) - set(blobs.parts(second))
    grow_old(blobs, tmp_path)
    assert blobs.collect({tree}, HOUR) == 1 + len(own)
    assert not blobs.has(first)
    assert list((tmp_path / "blobs" / "whole").iterdir()) == []
    with pytest.raises(NotFound):
        blobs.open(first)
    assert blobs.get(second) == data[:-4096] + bytes(4096)
    grow_old(blobs, tmp_path)
    blobs.collect(set(), HOUR)
    assert list(blobs.digests()) == []


def test_a_young_list_keeps_its_older_parts(blobs: BlobStore, tmp_path: Path) -> None:
    digest = blobs.put_large(io.BytesIO(content()))
    for part in blobs.parts(digest):
        age(blobs.path(part), 2 * HOUR)
    assert blobs.collect(set(), HOUR) == 0
    assert blobs.get(digest) == content()
    # Another put renews the age of the parts as well as of the list.
    grow_old(blobs, tmp_path)
    blobs.put_large(io.BytesIO(content()))
    assert blobs.collect(set(), HOUR) == 0


@pytest.mark.parametrize("error", [no_space(), Killed()], ids=["full disk", "killed"])
def test_a_put_in_parts_that_fails_shows_nothing_half_made(tmp_path: Path, error: BaseException) -> None:
    data = content()
    digest = blake3(data).hexdigest()
    # The first steps, then some of the last: every one of hundreds would take long and say the same.
    for number in (*range(1, 12), 60, 70, 80, 90, 100, 100_000):
        store = BlobStore(tmp_path / f"blobs-{number}")
        fault = Fault(number, error)
        try:
            with fault:
                store.put_large(io.BytesIO(data))
        except (StorageFull, Killed):
            assert not store.has(digest) or store.get(digest) == data
        assert store.put_large(io.BytesIO(data)) == digest
        assert store.get(digest) == data


def test_many_are_put_as_one_by_one(blobs: BlobStore) -> None:
    contents = [bytes([number]) * number for number in range(50)]
    again = blobs.put(contents[7])
    digests = blobs.put_many([*contents, contents[3]])
    assert digests == [blake3(data).hexdigest() for data in [*contents, contents[3]]]
    assert [blobs.get(digest) for digest in digests[:50]] == contents
    assert digests[7] == again
    assert blobs.put_many([]) == []


@pytest.mark.parametrize("error", [no_space(), Killed()], ids=["full disk", "killed"])
def test_many_that_fail_at_any_step_are_each_whole_or_not_there(tmp_path: Path, error: BaseException) -> None:
    contents = {blake3(data).hexdigest(): data for data in (bytes([number]) * 3000 for number in range(4))}
    for number in itertools.count(1):
        store = BlobStore(tmp_path / f"blobs-{number}")
        fault = Fault(number, error)
        try:
            with fault:
                store.put_many(list(contents.values()))
        except (StorageFull, Killed):
            assert all(store.get(digest) == contents[digest] for digest in store.digests())
        assert store.put_many(list(contents.values())) == list(contents)
        if not fault.hit:
            assert number > 20
            return


@settings(max_examples=examples(40), deadline=None)
@given(data=st.data(), sizes=st.lists(st.integers(0, 40), max_size=6))
def test_a_reader_of_parts_reads_as_a_file_does(
    tmp_path_factory: pytest.TempPathFactory, data: Any, sizes: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    parts = [os.urandom(size) for size in sizes]
    paths: list[Path] = []
    for number, part in enumerate(parts):
        (folder / str(number)).write_bytes(part)
        paths.append(folder / str(number))
    plain = io.BytesIO(b"".join(parts))
    reader = io.BufferedReader(PartsReader(tuple(paths), tuple(sizes)), 8)
    total = sum(sizes)
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, total + 3))
        count = data.draw(st.integers(0, total + 3))
        assert reader.seek(place) == plain.seek(place)
        assert reader.read(count) == plain.read(count)
        assert reader.tell() == plain.tell()
    reader.close()


def test_parquet_is_read_out_of_its_parts(blobs: BlobStore) -> None:
    numbers = random.Random(3)
    table = pa.table(
        {
            "a": [numbers.random() for _ in range(400_000)],
            "b": list(range(400_000)),
            "c": [numbers.random() for _ in range(400_000)],
        }
    )
    out = io.BytesIO()
    pq.write_table(pa.concat_tables([table] * 6), out, compression="none", use_dictionary=False)
    assert len(out.getvalue()) > LARGE
    digest = blobs.put_large(io.BytesIO(out.getvalue()))
    with blobs.open(digest) as file:
        assert pq.read_table(file, columns=["b"]).num_rows == 2_400_000


@pytest.mark.parametrize("error", [None, no_space()], ids=["works", "full disk"])
def test_many_are_durable_before_they_are_named_and_named_before_it_is_promised(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch, error: OSError | None
) -> None:
    contents = [bytes([number]) * 3000 for number in range(20)]
    steps: list[str] = []

    def noted(step: str, call: Any) -> Any:
        def noting(*arguments: Any) -> Any:
            steps.append(step)
            return call(*arguments)

        return noting

    def sync(_: int) -> bool:
        steps.append("sync")
        if error is not None:
            raise error
        return True

    monkeypatch.setattr(files, "_sync_file_system", sync)
    monkeypatch.setattr(os, "rename", noted("rename", os.rename))
    monkeypatch.setattr(os, "write", noted("write", os.write))
    if error is not None:
        with pytest.raises(StorageFull):
            blobs.put_many(contents)
        assert list(blobs.digests()) == []
        return
    blobs.put_many(contents)
    assert steps == ["write"] * 20 + ["sync"] + ["rename"] * 20 + ["sync"]


def test_where_a_file_system_cannot_be_synced_each_file_is(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(files, "_sync_file_system", lambda _: False)
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), fsync(descriptor)))
    digests = blobs.put_many([bytes([number]) * 3000 for number in range(20)])
    assert len(synced) >= 20 + len({digest[:2] for digest in digests})
