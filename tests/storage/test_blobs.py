import itertools
import os
import shutil
import stat
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from holdtrue.core.errors import Corrupt, InvalidInput, NotFound, StorageFull
from holdtrue.storage import BlobStore
from tests.sampling import examples
from tests.storage.faults import Fault, Killed, no_space

HOUR = 3600.0
ABSENT = "ab" * 32


def age(path: Path, seconds: float) -> None:
    moment = path.stat().st_mtime - seconds
    os.utime(path, (moment, moment))


def damage(store: BlobStore, digest: str) -> Path:
    path = store.path(digest)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path


def test_put_names_bytes_by_their_blake3_hash_and_get_returns_them(blobs: BlobStore) -> None:
    digest = blobs.put(b"hello")
    assert digest == blake3(b"hello").hexdigest()
    assert blobs.get(digest) == b"hello"
    assert blobs.has(digest)
    assert blobs.size(digest) == 5


def test_put_file_gives_the_same_name_as_put(blobs: BlobStore, tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    source = tmp_path / "source"
    source.write_bytes(data)
    assert blobs.put_file(source) == blobs.put(data)
    assert blobs.put_file(source) == blake3(data).hexdigest()
    assert list((tmp_path / "blobs" / "tmp").iterdir()) == []


def test_putting_equal_bytes_again_leaves_the_file_alone(blobs: BlobStore) -> None:
    digest = blobs.put(b"hello")
    before = blobs.path(digest).stat().st_ino
    blobs.put(b"hello")
    assert blobs.path(digest).stat().st_ino == before


def test_files_are_private(blobs: BlobStore) -> None:
    path = blobs.path(blobs.put(b"secret"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("text", ["", "../" * 21 + "x", ABSENT.upper(), ABSENT + "0", "g" * 64, ABSENT[:-1] + "\n"])
def test_what_is_not_a_digest_never_becomes_a_path(blobs: BlobStore, text: str) -> None:
    for use in (blobs.get, blobs.path, blobs.has, blobs.size, blobs.tree):
        with pytest.raises(InvalidInput):
            use(text)


def test_an_absent_blob_is_not_found(blobs: BlobStore) -> None:
    assert not blobs.has(ABSENT)
    for use in (blobs.get, blobs.path, blobs.size, blobs.tree):
        with pytest.raises(NotFound, match=ABSENT):
            use(ABSENT)


def test_a_tree_maps_names_to_digests_whatever_the_order(blobs: BlobStore) -> None:
    one, two = blobs.put(b"1"), blobs.put(b"2")
    tree = blobs.put_tree({"b": two, "a": one, "__proto__": one, "../x": two})
    assert blobs.tree(tree) == {"a": one, "b": two, "__proto__": one, "../x": two}
    assert tree == blobs.put_tree({"../x": two, "__proto__": one, "a": one, "b": two})


def test_a_tree_may_not_name_what_is_not_stored(blobs: BlobStore) -> None:
    with pytest.raises(NotFound, match="weights"):
        blobs.put_tree({"weights": ABSENT})


@pytest.mark.parametrize("data", [b"plain", b'{"!holdtrue":"tree/1","entries":{"cut'])
def test_plain_bytes_are_not_a_tree(blobs: BlobStore, data: bytes) -> None:
    with pytest.raises(InvalidInput, match="not a tree"):
        blobs.tree(blobs.put(data))


def test_damage_is_named_with_its_digest_and_the_mend(blobs: BlobStore) -> None:
    digest = blobs.put(b"x" * 1000)
    assert blobs.path(digest)
    damage(blobs, digest)
    for use in (blobs.get, blobs.path):
        with pytest.raises(Corrupt, match=digest) as caught:
            use(digest)
        assert "Store the original bytes again" in caught.value.mend
    assert list(blobs.verify()) == [digest]


@pytest.mark.parametrize("cut", [0, 500, 999])
def test_a_cut_blob_is_corrupt_and_a_put_of_its_bytes_mends_it(blobs: BlobStore, tmp_path: Path, cut: int) -> None:
    data = os.urandom(1000)
    digest = blobs.put(data)
    for mend in (lambda: blobs.put(data), lambda: blobs.put_file(tmp_path / "source")):
        (tmp_path / "source").write_bytes(data)
        os.truncate(blobs.path(digest), cut)
        with pytest.raises(Corrupt):
            blobs.get(digest)
        assert mend() == digest
        assert blobs.get(digest) == data
        assert list(blobs.verify()) == []


def test_collect_spares_what_is_live_young_or_in_a_live_tree(blobs: BlobStore) -> None:
    loose, live, leaf, young = (blobs.put(data) for data in (b"loose", b"live", b"leaf", b"young"))
    inner = blobs.put_tree({"leaf": leaf})
    outer = blobs.put_tree({"inner": inner})
    for digest in (loose, live, leaf, inner, outer):
        age(blobs.path(digest), 2 * HOUR)
    assert blobs.collect({live, outer}, HOUR) == 1
    assert set(blobs.digests()) == {live, leaf, inner, outer, young}
    assert not blobs.has(loose)


def test_collect_counts_the_age_of_a_blob_from_its_last_put(blobs: BlobStore) -> None:
    digest = blobs.put(b"again")
    age(blobs.path(digest), 2 * HOUR)
    blobs.put(b"again")
    assert blobs.collect(set(), HOUR) == 0
    assert blobs.get(digest) == b"again"


def test_collect_removes_what_killed_puts_left(blobs: BlobStore, tmp_path: Path) -> None:
    left = tmp_path / "blobs" / "tmp" / "0.tmp"
    left.write_bytes(b"half")
    assert blobs.collect(set(), HOUR) == 0
    assert left.exists()
    age(left, 2 * HOUR)
    blobs.collect(set(), HOUR)
    assert not left.exists()


@pytest.mark.parametrize("error", [no_space(), Killed()], ids=["full disk", "killed"])
@pytest.mark.parametrize("way", ["put", "put_file"])
def test_a_put_that_fails_at_any_step_leaves_a_whole_blob_or_none(
    tmp_path: Path, way: str, error: BaseException
) -> None:
    data = b"x" * 5000
    digest = blake3(data).hexdigest()
    (tmp_path / "source").write_bytes(data)
    for number in itertools.count(1):
        store = BlobStore(tmp_path / f"blobs-{number}")
        fault = Fault(number, error)
        try:
            with fault:
                store.put(data) if way == "put" else store.put_file(tmp_path / "source")
        except (StorageFull, Killed):
            assert not store.has(digest) or store.get(digest) == data
            assert store.put(data) == digest
        assert store.get(digest) == data
        if not fault.hit:
            assert number > 6
            return


def test_threads_may_put_the_same_bytes_at_once(blobs: BlobStore) -> None:
    barrier = threading.Barrier(8)
    found: list[str] = []

    def put() -> None:
        barrier.wait()
        found.extend(blobs.put(bytes([number])) for number in range(20))

    threads = [threading.Thread(target=put) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 160
    assert set(found) == set(blobs.digests())
    assert list(blobs.verify()) == []


def test_a_really_full_disk_refuses_and_loses_nothing(small_disk: Path) -> None:
    store = BlobStore(small_disk / "blobs")
    kept: dict[str, bytes] = {}

    def fill() -> None:
        for _ in range(100):
            data = os.urandom(20_000)
            kept[store.put(data)] = data

    with pytest.raises(StorageFull) as caught:
        fill()
    assert "Free space" in caught.value.mend
    assert 10 < len(kept) < 30
    assert set(store.digests()) == kept.keys()
    assert all(store.get(digest) == data for digest, data in kept.items())
    victim = next(iter(kept))
    age(store.path(victim), 2 * HOUR)
    assert store.collect(kept.keys() - {victim}, HOUR) == 1
    again = os.urandom(15_000)
    assert store.get(store.put(again)) == again


class BlobMachine(RuleBasedStateMachine):
    """The store does what a dict would, through damage, mending and collection."""

    digests: Bundle[str] = Bundle("digests")

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.store = BlobStore(self.folder / "blobs", packed_from=2)
        self.twin: dict[str, bytes] = {}
        self.damaged: set[str] = set()
        self.trees: dict[str, dict[str, str]] = {}

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    @rule(target=digests, data=st.binary(max_size=64))
    def put(self, data: bytes) -> str:
        digest = self.store.put(data)
        self.twin[digest] = data
        self.damaged.discard(digest)
        return digest

    @rule(target=digests, contents=st.lists(st.binary(max_size=64), max_size=4))
    def put_many(self, contents: list[bytes]) -> Any:
        found = self.store.put_many(contents)
        self.twin.update(zip(found, contents, strict=True))
        self.damaged.difference_update(found)
        return multiple(*found)

    @rule(target=digests, names=st.dictionaries(st.text(max_size=5), digests, max_size=3))
    def put_tree(self, names: dict[str, str]) -> Any:
        if not set(names.values()) <= self.twin.keys():
            with pytest.raises(NotFound):
                self.store.put_tree(names)
            return multiple()
        digest = self.store.put_tree(names)
        self.trees[digest] = names
        self.twin[digest] = self.store.get(digest)
        self.damaged.discard(digest)
        return digest

    @rule(digest=digests)
    def hurt(self, digest: str) -> None:
        if self.twin.get(digest) and digest not in self.damaged and self.store.file_of(digest).is_file():
            damage(self.store, digest)
            self.damaged.add(digest)

    @rule(live=st.sets(digests, max_size=3))
    def collect(self, live: set[str]) -> None:
        if self.damaged:
            return  # a damaged tree stops a collection; tested by itself
        kept = {digest for digest in live if digest in self.twin}
        while (more := kept | {leaf for tree in kept for leaf in self.trees.get(tree, {}).values()}) != kept:
            kept = more
        removed = self.store.collect(live, -1.0)
        assert removed == len(self.twin) - len(kept)
        self.twin = {digest: self.twin[digest] for digest in kept}

    @rule(digest=digests)
    def get(self, digest: str) -> None:
        if digest not in self.twin:
            with pytest.raises(NotFound):
                self.store.get(digest)
        elif digest in self.damaged:
            with pytest.raises(Corrupt):
                self.store.get(digest)
            with pytest.raises(Corrupt):
                self.store.path(digest)
        else:
            assert self.store.get(digest) == self.twin[digest]
            assert self.store.path(digest).read_bytes() == self.twin[digest]
            if digest in self.trees:
                assert self.store.tree(digest) == self.trees[digest]

    @invariant()
    def same_names(self) -> None:
        assert set(self.store.digests()) == self.twin.keys()
        assert set(self.store.verify()) == self.damaged


BlobMachine.TestCase.settings = settings(max_examples=examples(25), stateful_step_count=20, deadline=None)
TestBlobMachine = BlobMachine.TestCase


def test_collect_stops_at_a_damaged_tree_rather_than_lose_its_leaves(blobs: BlobStore) -> None:
    leaf = blobs.put(b"leaf")
    tree = blobs.put_tree({"leaf": leaf})
    path = blobs.path(tree)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(Corrupt, match=tree):
        blobs.collect({tree}, -1.0)
    assert blobs.get(leaf) == b"leaf"
