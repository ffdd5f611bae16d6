"""Files of safetensors: what was written is read, and what breaks the format is refused."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.serving.package import BadPackage
from holdtrue.serving.tensorfile import read_tensors, write_tensors

TENSORS = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "bias": np.array([1.5, -2.0], np.float64),
    "steps": np.array(7, np.int64),
    "mask": np.array([True, False]),
    "half": np.array([0.5], np.float16),
    "none": np.zeros((0, 4), np.float32),
}


def test_tensors_come_back_as_they_were() -> None:
    data = write_tensors(TENSORS)
    found = read_tensors(data)
    assert sorted(found) == sorted(TENSORS)
    for name, array in TENSORS.items():
        assert (found[name].dtype, found[name].shape, found[name].tolist()) == (
            array.dtype,
            array.shape,
            array.tolist(),
        )
        assert found[name].flags.writeable
    assert write_tensors(found) == data
    with pytest.raises(BadPackage):
        write_tensors({"text": np.array(["a"])})


def file(header: Any, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


def test_the_published_form_is_read() -> None:
    data = file({"__metadata__": {"format": "pt"}, "a": entry()}, np.array([1.0, 2.0], "<f4").tobytes())
    assert read_tensors(data)["a"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        file(b"[]", b""),
        file(b"{", b""),
        file({"a": entry()}, b"\0" * 7),
        file({"a": entry()}, b"\0" * 9),
        file({"a": entry(data_offsets=[1, 9])}, b"\0" * 9),
        file({"a": entry(data_offsets=[0, 4])}, b"\0" * 4),
        file({"a": entry(shape=[-2])}, b"\0" * 8),
        file({"a": entry(shape=[1 << 62, 8])}, b"\0" * 8),
        file({"a": entry(dtype="BF16")}, b"\0" * 8),
        file({"a": entry(), "b": entry()}, b"\0" * 8),
        file({"a": entry(shape="2")}, b"\0" * 8),
        file({"a": None}, b""),
    ],
)
def test_what_breaks_the_format_is_refused(data: bytes) -> None:
    with pytest.raises(BadPackage):
        read_tensors(data)


@given(st.data())
def test_no_damage_is_taken_for_a_file_of_other_tensors_than_it_says(data: st.DataObject) -> None:
    whole = bytearray(write_tensors(TENSORS))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read_tensors(bytes(whole))
    except BadPackage:
        return
    assert sum(each.nbytes for each in found.values()) <= len(whole)
