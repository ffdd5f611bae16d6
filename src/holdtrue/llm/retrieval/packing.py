"""Put the entries of documents together to the files of an index; what did not change is copied in runs.

The files depend on the documents alone, never on the version before: to build anew gives the same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdtrue.core.errors import TooLarge
from holdtrue.llm.retrieval import arrays
from holdtrue.llm.retrieval.arrays import Array
from holdtrue.llm.retrieval.entries import read_entry
from holdtrue.llm.retrieval.keywords import merged, postings
from holdtrue.llm.retrieval.model import EmbedderFailed
from holdtrue.llm.retrieval.vectors import quantised

Files = Mapping[str, Mapping[str, Array]]
"""The arrays of each file: “passages”, “keywords”, and “vectors” if the index has them."""
_MOST_CHUNKS = 1 << 31


@dataclass(frozen=True, slots=True)
class Part:
    """Hold one document for packing, and its entry or its place in the version before.

    `digest` is the hash of what it was made from, `key` names its entry.
    """

    id: str
    uri: str
    title: str
    digest: str
    key: str
    chunks: int
    entry: bytes | None = None
    place: int = -1

    def listed(self) -> dict[str, Any]:
        """Return what an index's manifest says of the document."""
        return {
            "id": self.id,
            "uri": self.uri,
            "title": self.title,
            "digest": self.digest,
            "key": self.key,
            "chunks": self.chunks,
        }


@dataclass(slots=True)
class _Pieces:
    """Pieces of arrays, in the order of documents; names of the arrays are those of the files."""

    of: dict[str, list[Array]] = field(default_factory=dict[str, list[Array]])

    def add(self, name: str, array: Array) -> None:
        self.of.setdefault(name, []).append(array)

    def joined(self, name: str, empty: Array) -> Array:
        pieces = self.of.get(name)
        return np.concatenate(pieces) if pieces else empty


@dataclass(slots=True)
class _Fresh:
    """The postings of documents that are not in the version before."""

    keys: list[Array] = field(default_factory=list[Array])
    rows: list[Array] = field(default_factory=list[Array])
    counts: list[Array] = field(default_factory=list[Array])


@dataclass(frozen=True, slots=True)
class Before:
    """Hold the files of the version before, with where its documents start in them."""

    files: Files
    rows: NDArray[np.int64]
    texts: NDArray[np.int64]
    headings: NDArray[np.int64]

    @classmethod
    def of(cls, files: Files) -> "Before":
        """Find where the documents start."""
        passages = files["passages"]
        rows = arrays.starts(passages["document_chunks"])
        headings = arrays.starts(passages["heading_lengths"])
        return cls(files, rows, arrays.starts(passages["text_lengths"]), headings[rows])


def pack_files(parts: Sequence[Part], before: Before | None, *, vectors: bool) -> dict[str, bytes]:
    """Return the files of an index of `parts`, which are sorted by the documents' ids."""
    pieces, fresh = _Pieces(), _Fresh()
    moved = np.full(int(before.rows[-1]) if before else 0, -1, np.int64)
    row = place = 0
    while place < len(parts):
        part = parts[place]
        if part.entry is None:
            assert before is not None
            last = _run(parts, place)
            row = _copy(before, part.place, parts[last - 1].place + 1, pieces, moved, row)
            place = last
        else:
            row = _append(part.entry, pieces, fresh, row)
            place += 1
    if row >= _MOST_CHUNKS:
        raise TooLarge("An index holds fewer than 2^31 chunks.", mend="Split the documents into several indexes.")
    out = {"passages": _passages(parts, pieces)}
    if vectors:
        out["vectors"] = _vectors(pieces)
    out["keywords"] = _keywords(before.files["keywords"] if before else None, moved, pieces, fresh)
    return out


def _run(parts: Sequence[Part], place: int) -> int:
    """Return the end of the run of parts from `place` that were neighbours in the version before."""
    last = place + 1
    while last < len(parts) and parts[last].entry is None and parts[last].place == parts[last - 1].place + 1:
        last += 1
    return last


def _copy(before: Before, first: int, last: int, pieces: _Pieces, moved: NDArray[np.int64], row: int) -> int:
    """Take documents `first` to `last` (exclusive) of the version before; return the next row."""
    passages = before.files["passages"]
    start, end = int(before.rows[first]), int(before.rows[last])
    pieces.add("text", passages["text"][before.texts[first] : before.texts[last]])
    pieces.add("headings", passages["headings"][before.headings[first] : before.headings[last]])
    for name in ("text_lengths", "document_chunks"):
        pieces.add(name, passages[name][first:last])
    for name in ("chars", "bytes", "heading_lengths"):
        pieces.add(name, passages[name][start:end])
    for name, array in before.files.get("vectors", {}).items():
        pieces.add(name, array[start:end])
    pieces.add("lengths", before.files["keywords"]["lengths"][start:end])
    moved[start:end] = np.arange(row, row + end - start)
    return row + end - start


def _append(entry: bytes, pieces: _Pieces, fresh: _Fresh, row: int) -> int:
    """Take a document's entry; return the next row."""
    found, _ = read_entry(entry)
    count = len(found["chars"])
    for name in ("text", "headings", "chars", "bytes", "heading_lengths", "lengths"):
        pieces.add(name, found[name])
    pieces.add("text_lengths", np.array([len(found["text"])], np.int64))
    pieces.add("document_chunks", np.array([count], np.int32))
    if "vectors" in found:
        exact: Any = found["vectors"]
        rough, scales = quantised(exact)
        for name, array in (("vectors", exact), ("rough", rough), ("scales", scales)):
            pieces.add(name, array)
    fresh.keys.append(found["keys"])
    fresh.rows.append(found["owners"].astype(np.int64) + row)
    fresh.counts.append(found["counts"])
    return row + count


def _passages(parts: Sequence[Part], pieces: _Pieces) -> bytes:
    names, name_lengths = arrays.join([name.encode() for part in parts for name in (part.id, part.title, part.uri)])
    return arrays.pack(
        {
            "names": names,
            "name_lengths": name_lengths,
            "document_chunks": pieces.joined("document_chunks", np.empty(0, np.int32)),
            "text_lengths": pieces.joined("text_lengths", np.empty(0, np.int64)),
            "chars": pieces.joined("chars", np.empty((0, 2), np.int32)),
            "bytes": pieces.joined("bytes", np.empty((0, 2), np.int32)),
            "heading_lengths": pieces.joined("heading_lengths", np.empty(0, np.int32)),
            "headings": pieces.joined("headings", np.empty(0, np.uint8)),
            "text": pieces.joined("text", np.empty(0, np.uint8)),
        }
    )


def _vectors(pieces: _Pieces) -> bytes:
    found = pieces.of.get("vectors", [])
    if len({each.shape[1] for each in found}) > 1:
        raise EmbedderFailed(
            "The embedding model gave vectors of different lengths.",
            why=f"Lengths seen: {sorted({each.shape[1] for each in found})}.",
            mend="Build with an embedder of another name: what is behind this one was changed.",
        )
    return arrays.pack(
        {
            "scales": pieces.joined("scales", np.empty(0, np.float32)),
            "rough": pieces.joined("rough", np.empty((0, 1), np.int8)),
            "vectors": pieces.joined("vectors", np.empty((0, 1), np.float16)),
        }
    )


def _keywords(old: Mapping[str, Array] | None, moved: NDArray[np.int64], pieces: _Pieces, fresh: _Fresh) -> bytes:
    keys: Any = np.concatenate([*fresh.keys, np.empty(0, np.uint64)])
    rows: Any = np.concatenate([*fresh.rows, np.empty(0, np.int64)])
    counts: Any = np.concatenate([*fresh.counts, np.empty(0, np.uint8)])
    made = postings(keys, rows, counts) if old is None else merged(old, moved, keys, rows, counts)
    return arrays.pack({"lengths": pieces.joined("lengths", np.empty(0, np.int32)), **made})
