"""Arrays in one run of bytes that can be mapped into memory: a header of JSON, then the numbers as they are.

Layout: 8 bytes of mark, 8 bytes length of the header (little-endian), the header, then each array at a multiple
of 64 bytes. The same arrays give the same bytes.
"""

import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from blake3 import blake3
from numpy.typing import NDArray

from holdtrue.core.errors import Corrupt, NotFound
from holdtrue.llm.retrieval.model import IndexRefused

Array = NDArray[Any]
_MARK = b"HTARRAY1"
_HEAD = struct.Struct("<8sQ")
_ALIGN = 64
_TYPES = {name: np.dtype(name) for name in ("uint8", "int8", "int32", "int64", "uint64", "float16", "float32")}
_MOST_HEADER = 1 << 16


def pack(arrays: Mapping[str, Array], meta: Mapping[str, Any] | None = None) -> bytes:
    """Return arrays, and a few JSON values about them, as bytes."""
    placed: dict[str, list[Any]] = {}
    offset = 0
    for name, array in arrays.items():
        placed[name] = [array.dtype.name, list(array.shape), offset]
        offset += -(-array.nbytes // _ALIGN) * _ALIGN
    header = orjson.dumps({"meta": dict(meta or {}), "arrays": placed}, option=orjson.OPT_SORT_KEYS)
    start = -(-(_HEAD.size + len(header)) // _ALIGN) * _ALIGN
    pieces: list[bytes | memoryview] = [_HEAD.pack(_MARK, len(header)), header, bytes(start - _HEAD.size - len(header))]
    for array in arrays.values():
        pieces.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        pieces.append(bytes(-array.nbytes % _ALIGN))
    return b"".join(pieces)


def unpack(data: bytes | memoryview | mmap.mmap) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays in `data`, read-only views of it, and the values about them; IndexRefused if it has none."""
    view = memoryview(data)
    try:
        mark, length = _HEAD.unpack_from(view)
        if mark != _MARK or length > _MOST_HEADER:
            raise ValueError("it does not start as one")
        header = orjson.loads(view[_HEAD.size : _HEAD.size + length])
        start = -(-(_HEAD.size + length) // _ALIGN) * _ALIGN
        arrays = {name: _array(view, start, *each) for name, each in header["arrays"].items()}
        return arrays, header["meta"]
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise IndexRefused(
            "A file of the index is not a file of arrays.",
            why=f"{error!s:.200}.",
            mend="Build the index again with this version of Holdtrue.",
        ) from None


def map_file(path: Path, digest: str) -> mmap.mmap:
    """Map a file into memory, read-only, whose BLAKE3 must be `digest`: the very bytes that are used are hashed.

    Raises NotFound, Corrupt.
    """
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    except FileNotFoundError:
        raise NotFound.of("blob", digest) from None
    except ValueError:
        raise _changed(digest) from None
    if blake3(mapped, max_threads=blake3.AUTO).hexdigest() != digest:
        raise _changed(digest)
    return mapped


def join(texts: list[bytes]) -> tuple[Array, Array]:
    """Return byte strings as one array uint8 and the length of each, int32."""
    return np.frombuffer(b"".join(texts), np.uint8), np.array([len(each) for each in texts], np.int32)


def starts(lengths: Array) -> Array:
    """Return where each of several pieces starts, and where the last ends: int64 [n + 1]."""
    out = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=out[1:])
    return out


def _array(view: memoryview, start: int, dtype: str, shape: list[int], offset: int) -> Array:
    if any(side < 0 for side in shape) or offset < 0:
        raise ValueError("a shape or offset is negative")
    count = 1
    for side in shape:
        count *= side
    if not count:
        return np.empty(shape, _TYPES[dtype])
    return np.frombuffer(view, _TYPES[dtype], count, start + offset).reshape(shape)


def _changed(digest: str) -> Corrupt:
    return Corrupt(
        "A file of the index is not the one that was approved.",
        why=f"The file of blob {digest[:16]} has another digest.",
        mend="Restore the blob from a backup, or build the index again.",
        facts={"digest": digest},
    )
