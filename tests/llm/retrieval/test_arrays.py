"""Files of arrays: what was put in comes out, and what was tampered with is refused."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.errors import Corrupt, NotFound
from holdtrue.llm.retrieval import IndexRefused
from holdtrue.llm.retrieval.arrays import join, map_file, pack, starts, unpack
from tests.sampling import examples

ARRAYS: dict[str, Any] = {
    "a": np.arange(7, dtype=np.uint8),
    "b": np.arange(12, dtype=np.float16).reshape(3, 4),
    "none": np.empty((0, 5), np.int64),
    "c": np.array([1 << 63], np.uint64),
}


def test_arrays_come_back_as_views() -> None:
    data = pack(ARRAYS, {"title": "Größe"})
    assert pack(ARRAYS, {"title": "Größe"}) == data
    found, meta = unpack(data)
    assert meta == {"title": "Größe"}
    assert list(found) == sorted(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
        assert not found[name].flags.writeable or not found[name].size


@settings(max_examples=examples(300))
@given(st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_whatever_is_changed_is_read_or_refused(place: int, change: bytes) -> None:
    data = bytearray(pack(ARRAYS))
    data[place : place + len(change)] = change
    with suppress(IndexRefused):
        unpack(bytes(data))


@given(st.integers(0, 600))
def test_a_file_that_was_cut_is_refused(length: int) -> None:
    data = pack(ARRAYS)
    if length < len(data) - 64:
        with pytest.raises(IndexRefused):
            unpack(data[:length])


def test_a_mapped_file_must_have_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "file"
    data = pack(ARRAYS)
    path.write_bytes(data)
    assert bytes(map_file(path, bytes_hash(data))) == data
    path.write_bytes(data[:-1] + b"x")
    with pytest.raises(Corrupt):
        map_file(path, bytes_hash(data))
    path.write_bytes(b"")
    with pytest.raises(Corrupt):
        map_file(path, bytes_hash(data))
    with pytest.raises(NotFound):
        map_file(tmp_path / "absent", bytes_hash(data))


def test_texts_and_their_places() -> None:
    joined, lengths = join([b"ab", b"", b"cde"])
    assert joined.tobytes() == b"abcde"
    assert starts(lengths).tolist() == [0, 2, 2, 5]
    assert starts(np.empty(0, np.int32)).tolist() == [0]
