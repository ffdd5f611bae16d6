"""Read and write tensors in the format safetensors: eight bytes of length, a JSON header, raw little-endian numbers.

The format's own rules hold: offsets lie one after the other without holes or overlap, and every byte belongs to a
tensor. It holds numbers and nothing else, so that reading it runs no code.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from holdtrue.serving.package import BadPackage

_DTYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "BOOL": "?",
        "U8": "u1",
        "I8": "i1",
        "I16": "<i2",
        "U16": "<u2",
        "I32": "<i4",
        "U32": "<u4",
        "I64": "<i8",
        "U64": "<u8",
        "F16": "<f2",
        "F32": "<f4",
        "F64": "<f8",
    }
)
_LENGTH: Final = 8
_MOST_HEADER: Final = 100_000_000


def read_tensors(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the tensors in `data` by name, as arrays of their own; raise BadPackage for what breaks the format."""
    end = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
    if len(data) < _LENGTH or end > len(data) or end > _MOST_HEADER:
        raise _bad("its header is longer than it")
    try:
        header: dict[str, Any] = orjson.loads(data[_LENGTH:end])
        header.pop("__metadata__", None)
        listed = [
            (str(name), each["dtype"], _sizes(each["shape"]), *map(int, each["data_offsets"]))
            for name, each in header.items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _bad(f"its header cannot be read ({type(error).__name__})") from None
    found: dict[str, NDArray[Any]] = {}
    body, place = data[end:], 0
    for name, dtype, shape, begin, stop in sorted(listed, key=lambda each: each[3:]):
        if dtype not in _DTYPES:
            raise _bad(f"{name[:80]} is of the type {str(dtype)[:20]}")
        kind, count = np.dtype(_DTYPES[dtype]), 1
        for size in shape:
            count *= size
        if begin != place or min(shape, default=0) < 0 or stop - begin != count * kind.itemsize or stop > len(body):
            raise _bad(f"{name[:80]} does not lie where its shape says")
        found[name] = np.frombuffer(body[begin:stop], kind).reshape(shape).copy()
        place = stop
    if place != len(body):
        raise _bad(f"{len(body) - place} bytes belong to no tensor")
    return found


def _sizes(shape: Any) -> list[int]:
    if type(shape) is not list or not all(type(size) is int for size in shape):
        raise TypeError(shape)
    return shape


def write_tensors(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Return arrays as a safetensors file, in the order of their names; raise BadPackage for types it has none of."""
    codes = {np.dtype(code): name for name, code in _DTYPES.items()}
    header: dict[str, Any] = {}
    parts: list[bytes] = []
    place = 0
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name]).reshape(np.shape(tensors[name]))
        code = codes.get(array.dtype.newbyteorder("<"))
        if code is None:
            raise _bad(f"{name[:80]} is of the type {array.dtype}")
        part = array.astype(np.dtype(_DTYPES[code]), copy=False).tobytes()
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [place, place + len(part)]}
        place += len(part)
        parts.append(part)
    text = orjson.dumps(header)
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(_LENGTH, "little"), text, *parts])


def _bad(why: str) -> BadPackage:
    return BadPackage(
        "This file of weights is not one of safetensors, or holds what is not read here.",
        why=f"In it, {why}.",
        mend="Save the weights anew, in the types float16, float32, float64, integers or booleans.",
    )
