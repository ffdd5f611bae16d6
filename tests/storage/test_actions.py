from pathlib import Path

import pytest

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.errors import InvalidInput, StorageFull
from holdtrue.storage import ActionCache
from tests.storage.faults import Fault, no_space

KEY, OTHER = bytes_hash(b"key"), bytes_hash(b"other")
ONE, TWO = bytes_hash(b"1"), bytes_hash(b"2")


def test_an_entry_is_found_by_its_key_also_after_reopening(tmp_path: Path) -> None:
    cache = ActionCache(tmp_path / "actions")
    assert cache.get(KEY) is None
    cache.put(KEY, ONE)
    assert ActionCache(tmp_path / "actions").get(KEY) == ONE
    assert cache.get(OTHER) is None


def test_the_last_put_wins(tmp_path: Path) -> None:
    cache = ActionCache(tmp_path)
    cache.put(KEY, ONE)
    cache.put(KEY, TWO)
    assert cache.get(KEY) == TWO


@pytest.mark.parametrize("at", range(0, 73, 8))
def test_a_damaged_entry_is_a_miss_and_never_another_digest(tmp_path: Path, at: int) -> None:
    cache = ActionCache(tmp_path)
    cache.put(KEY, ONE)
    path = tmp_path / KEY[:2] / KEY
    data = bytearray(path.read_bytes())
    data[at] = ord("0") if data[at] != ord("0") else ord("1")
    path.write_bytes(data)
    assert cache.get(KEY) is None
    path.write_bytes(data[:at])
    assert cache.get(KEY) is None
    cache.put(KEY, TWO)
    assert cache.get(KEY) == TWO


def test_keys_and_digests_must_have_their_form(tmp_path: Path) -> None:
    cache = ActionCache(tmp_path)
    with pytest.raises(InvalidInput):
        cache.get("../../etc/passwd")
    with pytest.raises(InvalidInput):
        cache.put("x", ONE)
    with pytest.raises(InvalidInput):
        cache.put(KEY, "x")


def test_a_full_disk_keeps_the_old_entry(tmp_path: Path) -> None:
    cache = ActionCache(tmp_path)
    cache.put(KEY, ONE)
    with Fault(1, no_space(), ["write"]), pytest.raises(StorageFull):
        cache.put(KEY, TWO)
    assert cache.get(KEY) == ONE
