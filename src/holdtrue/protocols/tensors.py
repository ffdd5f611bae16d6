"""The binary tensor data extension of the Open Inference Protocol: raw bytes behind the JSON of a request.

`Inference-Header-Content-Length` says where the JSON ends; the tensors that declare `binary_data_size` follow in
their order, little-endian and row by row; an element of BYTES is its length in four bytes and then itself. FP16 and
BF16 have no JSON form and no service declares them: they are refused like every datatype that is not the input's.
"""

import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from holdtrue.protocols.columns import BadRequest, first

HEADER: Final = b"inference-header-content-length"
_DTYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "BOOL": "u1",
        "INT8": "i1",
        "INT16": "<i2",
        "INT32": "<i4",
        "INT64": "<i8",
        "UINT8": "u1",
        "UINT16": "<u2",
        "UINT32": "<u4",
        "UINT64": "<u8",
        "FP32": "<f4",
        "FP64": "<f8",
    }
)


def split(body: bytes, length: bytes | None) -> tuple[bytes, memoryview | None]:
    """Return the JSON of a request and the bytes behind it (None without the header)."""
    if length is None:
        return body, None
    if not length.isdigit() or len(length) > 12 or int(length) > len(body):
        raise BadRequest("The header Inference-Header-Content-Length is not the length of the JSON in the body.")
    end = int(length)
    return body[:end], memoryview(body)[end:]


class Tail:
    """Hand out the bytes behind the JSON, tensor by tensor."""

    def __init__(self, data: memoryview | None) -> None:
        self._data = data
        self._start = 0

    def take(self, name: str, size: Any) -> memoryview:
        """Return the next `size` bytes, which `name` says are its own."""
        if self._data is None:
            raise BadRequest(
                f"The input {first([name])} says that its data is binary, and there is no header "
                "Inference-Header-Content-Length."
            )
        if type(size) is not int or size < 0:
            raise BadRequest(f"The binary_data_size of the input {first([name])} is not a number of bytes.")
        end = self._start + size
        if end > len(self._data):
            raise BadRequest(f"The body ends before the binary data of the input {first([name])} does.")
        part = self._data[self._start : end]
        self._start = end
        return part

    def finish(self) -> None:
        """Raise BadRequest if bytes are left that no tensor declares."""
        if self._data is not None and self._start != len(self._data):
            raise BadRequest(f"The body has {len(self._data) - self._start} bytes that no input declares.")


def decode(name: str, datatype: str, shape: Sequence[int], data: memoryview) -> list[Any]:
    """Return the values of a tensor, NaN as None; raise BadRequest if the bytes are not what shape and type say."""
    count = 1
    for size in shape:
        count *= size
    if datatype == "BYTES":
        return _decode_texts(name, count, data)
    dtype = np.dtype(_DTYPES[datatype])
    if len(data) != count * dtype.itemsize:
        raise BadRequest(
            f"The input {first([name])} has {len(data)} bytes; {count} of {datatype} have {count * dtype.itemsize}."
        )
    values = np.frombuffer(data, dtype)
    if datatype == "BOOL":
        if values.size and values.max() > 1:
            raise BadRequest(f"The input {first([name])} is BOOL; its data holds bytes other than 0 and 1.")
        return values.astype(bool).tolist()
    if datatype[:2] != "FP":
        return values.tolist()
    if np.isinf(values).any():
        raise BadRequest(f"The input {first([name])} holds an infinite number.")
    found: list[Any] = values.tolist()
    # What JSON writes as null has no other form here; a contract decides on both alike.
    return [None if value != value else value for value in found] if np.isnan(values).any() else found


def _decode_texts(name: str, count: int, data: memoryview) -> list[Any]:
    texts: list[Any] = []
    start, end = 0, len(data)
    if end < 4 * count:
        raise BadRequest(f"The input {first([name])} has {end} bytes, too few for {count} texts.")
    while start < end and len(texts) <= count:
        if end - start < 4:
            raise BadRequest(f"The binary data of the input {first([name])} is cut off.")
        (size,) = struct.unpack_from("<I", data, start)
        start += 4
        if size > end - start:
            raise BadRequest(f"A text of the input {first([name])} is longer than its binary data.")
        try:
            texts.append(str(data[start : start + size], "utf-8"))
        except UnicodeDecodeError:
            raise BadRequest(f"A text of the input {first([name])} is not UTF-8.") from None
        start += size
    if len(texts) != count:
        raise BadRequest(f"The input {first([name])} has not as many texts as its shape says, {count}.")
    return texts


def encode(values: Sequence[Any], datatype: str = "FP32") -> bytes:
    """Return an output of FP32 or BYTES as bytes: numbers little-endian, texts each after its length."""
    if datatype == "BYTES":
        texts = [each.encode() for each in values]
        return b"".join(struct.pack("<I", len(each)) + each for each in texts)
    return np.asarray(values, "<f4").tobytes()
