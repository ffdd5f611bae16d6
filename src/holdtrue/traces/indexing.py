"""The search index of one sealed file of spans: which rows hold a word, an attribute, a trace. It can be made again.

The file, named by the digest of the Parquet file it was made of, holds a JSON header and arrays: of each row its time,
duration and trace; of each term (a short number of `words`) its rows, as a list or, where they are many, as bits, and
its print: the rest of the number, or that two terms of the file share the short one. A search reads the few kilobytes
that its terms need; where prints agree, the rows are those that have the term.
"""

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from holdtrue.storage import write_atomic
from holdtrue.traces.words import BITS, Numbering, Numbers, number_of, short, words

VERSION: Final = 2
VALUE: Final = 256
WORD, PAIR = 1, 2
FIELDS: Final[Mapping[str, int]] = {
    name: salt
    for salt, name in enumerate(
        (
            "trace_id",
            "span_id",
            "name",
            "status",
            "release",
            "prompt",
            "operation",
            "provider",
            "model",
            "user",
            "session",
            "prediction_id",
        ),
        start=3,
    )
}
"""The columns that are found by their whole value, and the salt of each."""
NEEDED: Final = (*FIELDS, "time", "duration", "text", "attributes", "resource")
_MAGIC: Final = b"HTSPANS1"
_HEADER: Final = 1 << 16
_CHUNK: Final = 2048
_SAMPLE: Final = 256
_DENSE: Final = 16
_ROW_BITS: Final = 64 - BITS
_PRINT: Final = (1 << _ROW_BITS) - 1
_SHARED: Final = 1 << 31


@dataclass(frozen=True, slots=True)
class Term:
    """Hold what rows are found by: a number, and whether those with it surely have what was asked for."""

    number: int
    exact: bool = True


Found = tuple[Numbers, NDArray[np.int64]]
"""Numbers, and the row that each is of."""


def term_of(column: str, value: str) -> Term:
    """Return what finds the rows with `value` in a column."""
    return Term(number_of(FIELDS[column], value.encode(errors="replace")), _writable(value))


def word_term(word: str) -> Term:
    """Return what finds the rows with a word in their text."""
    return Term(number_of(WORD, word.encode(errors="replace")), _writable(word))


def pair_term(name: str, value: str) -> Term:
    """Return what finds the rows with an attribute; longer values are found by their beginning."""
    said = _pair(name, value)
    # Between a name and its value stands a sign that either may have, too.
    exact = len(value) <= VALUE and said.count("\0") == 1 and _writable(said)
    return Term(number_of(PAIR, said.encode(errors="replace")), exact)


def trace_number(trace_id: str) -> int:
    """Return the number by which the rows of a trace are known."""
    return short(number_of(FIELDS["trace_id"], trace_id.encode(errors="replace")))


def _writable(text: str) -> bool:
    """Tell whether a text has a form in UTF-8: else a question mark stands for what has none."""
    return text.isascii() or text.encode(errors="replace").decode() == text


def _pair(name: str, value: str) -> str:
    return f"{name}\0{value[:VALUE]}"


def pair_texts(attributes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of all attributes that can be asked for: of a list each of its values."""
    for name, value in attributes.items():
        if type(value) is str:
            yield name, value
        elif type(value) is list:
            for each in value:
                if type(each) is not list and type(each) is not dict:
                    yield name, value_text(each)
        elif type(value) is not dict:
            yield name, value_text(value)


def value_text(value: Any) -> str:
    """Return an attribute's value as the text it is compared by."""
    return value if type(value) is str else orjson.dumps(value).decode()


@dataclass(frozen=True, slots=True)
class Core:
    """Hold what every search needs of a file: of each row time, duration and trace; where each trace's rows are."""

    times: NDArray[np.int64]
    durations: NDArray[np.int64]
    traces: Numbers
    known: Numbers
    starts: NDArray[np.int64]
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, times: NDArray[np.int64], durations: NDArray[np.int64], traces: Numbers) -> "Core":
        """Build it from the columns of all rows."""
        rows = np.argsort(traces, kind="stable")
        ordered = traces[rows]
        starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        return cls(times, durations, traces, ordered[starts], np.append(starts, len(rows)), rows)

    @property
    def first(self) -> int:
        """Return the earliest time."""
        return int(self.times.min())

    @property
    def last(self) -> int:
        """Return the latest time."""
        return int(self.times.max())

    def rows_of(self, trace: int) -> list[int]:
        """Return the rows of a trace, ascending."""
        at = int(np.searchsorted(self.known, np.uint64(trace)))
        if at == len(self.known) or int(self.known[at]) != trace:
            return []
        return sorted(self.rows[self.starts[at] : self.starts[at + 1]].tolist())

    def which(self, traces: Numbers) -> NDArray[np.bool_]:
        """Tell for each of `traces` whether it has rows here."""
        if not len(self.known):
            return np.zeros(len(traces), np.bool_)
        at = np.searchsorted(self.known, traces)
        at[at == len(self.known)] = 0
        return self.known[at] == traces


class FileIndex:
    """Answer which rows of one sealed file hold a term."""

    def __init__(self, path: Path) -> None:
        """Read the header and the core; raise OSError or ValueError for a file that is none."""
        self._path = path
        with path.open("rb", buffering=0) as file:
            head = file.read(16)
            if head[:8] != _MAGIC:
                raise ValueError("not an index of spans")
            size = int.from_bytes(head[8:], "little")
            header: dict[str, Any] = orjson.loads(file.read(min(size, _HEADER)))
            if header["version"] != VERSION:
                raise ValueError("an index of another version")
            self._base = file.tell()
            if self._base + sum(header["sections"]["postings"]) != os.fstat(file.fileno()).st_size:
                raise ValueError("the index is cut")
            self._places: dict[str, list[int]] = header["sections"]
            self.size: int = header["rows"]
            self.core = Core.of(
                self._section(file.fileno(), "times", np.int64),
                self._section(file.fileno(), "durations", np.int64),
                self._section(file.fileno(), "traces", np.uint64),
            )
            # A term is looked for among every 256th first, then in that stretch of the file.
            self._sample = self._section(file.fileno(), "sample", np.uint64)

    @contextmanager
    def opened(self) -> Generator[int]:
        """Open the file for look-ups."""
        descriptor = os.open(self._path, os.O_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def rows_with(self, descriptor: int, term: Term) -> tuple[NDArray[np.int64], bool]:
        """Return the rows that may hold a term, ascending, and whether they surely do."""
        wanted = np.uint64(short(term.number))
        stretch = int(np.searchsorted(self._sample, wanted, side="right")) - 1
        if stretch < 0:
            return _NO_ROWS, True
        first = stretch * _SAMPLE
        terms = self._part(descriptor, "terms", np.uint64, first, _SAMPLE)
        at = int(np.searchsorted(terms, wanted))
        if at == len(terms) or terms[at] != wanted:
            return _NO_ROWS, True
        mark = int(self._part(descriptor, "prints", np.uint32, first + at, 1)[0])
        if mark != _SHARED and mark != term.number & _PRINT:
            return _NO_ROWS, True
        return self._rows(descriptor, first + at), term.exact and mark != _SHARED

    def _rows(self, descriptor: int, place: int) -> NDArray[np.int64]:
        start, end = self._part(descriptor, "starts", np.uint64, place, 2).tolist()
        data = os.pread(descriptor, end - start, self._base + self._places["postings"][0] + start)
        if (end - start) == _bit_bytes(self.size):
            return np.flatnonzero(np.unpackbits(np.frombuffer(data, np.uint8), count=self.size, bitorder="little"))
        return np.frombuffer(data, _row_type(self.size)).astype(np.int64)

    def _section(self, descriptor: int, name: str, kind: type[Any]) -> NDArray[Any]:
        start, size = self._places[name]
        data = os.pread(descriptor, size, self._base + start)
        if len(data) != size:
            raise ValueError("the index is cut")
        return np.frombuffer(data, kind)

    def _part(self, descriptor: int, name: str, kind: type[Any], first: int, count: int) -> NDArray[Any]:
        start, size = self._places[name]
        width = np.dtype(kind).itemsize
        length = min(count * width, size - first * width)
        return np.frombuffer(os.pread(descriptor, length, self._base + start + first * width), kind)


_NO_ROWS: Final = np.empty(0, np.int64)
_NO_NUMBERS: Final = np.empty(0, np.uint64)


def _row_type(rows: int) -> type[Any]:
    return np.uint16 if rows <= 1 << 16 else np.uint32


def _bit_bytes(rows: int) -> int:
    # Padded to an odd length, so that no list of rows is ever as long.
    size = (rows + 7) // 8
    return size + 1 if size % 2 == 0 else size


@lru_cache(maxsize=4096)
def open_index(path: Path) -> FileIndex:
    """Return the index at `path`, read once: the name is a digest, so what it stands for never changes."""
    return FileIndex(path)


def build_index(table: pa.Table, numbering: Numbering) -> bytes:
    """Return the index of a file's rows, which `table` holds in their order with the columns NEEDED."""
    size = table.num_rows
    if size >= 1 << _ROW_BITS:
        raise ValueError("a file has too many rows for an index")
    traces = _numbers_of(table, "trace_id", numbering)
    keys, known = [_keys(traces, np.arange(size))], [_distinct(traces)]
    for column, salt in FIELDS.items():
        if column != "trace_id" and column in table.column_names:
            _add(keys, known, _column_numbers(table, column, salt, numbering))
    for start in range(0, size, _CHUNK):
        piece = table.slice(start, _CHUNK)
        if "text" in table.column_names:
            _add(keys, known, _word_numbers(piece, start, numbering))
        _add(keys, known, _pair_numbers(piece, start, numbering))
    merged = _distinct(np.concatenate(keys))
    terms = merged >> np.uint64(_ROW_BITS)
    rows = (merged & np.uint64((1 << _ROW_BITS) - 1)).astype(np.int64)
    firsts = np.flatnonzero(np.append(True, terms[1:] != terms[:-1]))
    distinct = terms[firsts]
    postings, starts = _postings(rows, np.append(firsts, len(rows)), size)
    sections: dict[str, NDArray[Any]] = {
        "times": table["time"].to_numpy().astype(np.int64),
        "durations": table["duration"].to_numpy().astype(np.int64),
        "traces": traces >> np.uint64(_ROW_BITS),
        "sample": distinct[::_SAMPLE],
        "terms": distinct,
        "prints": _prints(_distinct(np.concatenate(known)), distinct),
        "starts": starts,
        "postings": np.frombuffer(postings, np.uint8),
    }
    return _file(sections, size)


def _add(keys: list[Numbers], known: list[Numbers], found: Found) -> None:
    """Take in numbers and the row that each is of."""
    numbers, rows = found
    if len(numbers):
        keys.append(_distinct(_keys(numbers, rows)))
        known.append(_distinct(numbers))


def _prints(numbers: Numbers, terms: Numbers) -> NDArray[np.uint32]:
    """Return for each term the rest of its number, or that several of `numbers` have it as their short form."""
    firsts = np.searchsorted(numbers >> np.uint64(_ROW_BITS), terms)
    counts = np.diff(np.append(firsts, len(numbers)))
    prints = (numbers[firsts] & np.uint64(_PRINT)).astype(np.uint32)
    prints[counts > 1] = _SHARED
    return prints


def _distinct(values: Numbers) -> Numbers:
    """Return the different values, ascending (sorting them is three times as fast as `np.unique`)."""
    ordered = np.sort(values)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered


def _file(sections: Mapping[str, NDArray[Any]], rows: int) -> bytes:
    places: dict[str, list[int]] = {}
    at = 0
    for name, values in sections.items():
        places[name] = [at, values.nbytes]
        at += values.nbytes
    header = orjson.dumps({"version": VERSION, "rows": rows, "sections": places})
    parts = [_MAGIC, len(header).to_bytes(8, "little"), header, *(values.tobytes() for values in sections.values())]
    return b"".join(parts)


def _postings(rows: NDArray[np.int64], bounds: NDArray[np.int64], size: int) -> tuple[bytes, Numbers]:
    """Return the rows of all terms as bytes, and where those of each start."""
    kind, bits = _row_type(size), _bit_bytes(size)
    counts = np.diff(bounds)
    dense = counts > size // _DENSE
    narrow = rows.astype(kind)
    parts: list[bytes] = []
    lengths = counts * narrow.itemsize
    lengths[dense] = bits
    last = 0
    for place in np.flatnonzero(dense).tolist():
        start, end = int(bounds[place]), int(bounds[place + 1])
        parts.append(narrow[last:start].tobytes())
        mask = np.zeros(bits * 8, np.bool_)
        mask[rows[start:end]] = True
        parts.append(np.packbits(mask, bitorder="little").tobytes())
        last = end
    parts.append(narrow[last:].tobytes())
    return b"".join(parts), np.concatenate(([0], np.cumsum(lengths))).astype(np.uint64)


def _keys(numbers: Numbers, rows: NDArray[np.int64]) -> Numbers:
    return (numbers & ~np.uint64(_PRINT)) | rows.astype(np.uint64)


def trace_numbers(table: pa.Table, numbering: Numbering) -> Numbers:
    """Return the number of its trace for each row."""
    return _numbers_of(table, "trace_id", numbering) >> np.uint64(_ROW_BITS)


def _numbers_of(table: pa.Table, column: str, numbering: Numbering) -> Numbers:
    """Return the number of a column's value for each row; a missing value counts as an empty one."""
    values = [value or "" for value in table[column].to_pylist()]
    return numbering.texts(FIELDS[column], values)


def _column_numbers(table: pa.Table, column: str, salt: int, numbering: Numbering) -> Found:
    if pa.types.is_null(table[column].type):
        return _NO_NUMBERS, _NO_ROWS
    coded = table[column].combine_chunks().dictionary_encode()
    values = [str(value) for value in coded.dictionary.to_pylist()]
    present = np.flatnonzero(coded.indices.is_valid().to_numpy(zero_copy_only=False))
    codes = coded.indices.drop_null().to_numpy(zero_copy_only=False)
    return (numbering.texts(salt, values)[codes], present) if len(present) else (_NO_NUMBERS, _NO_ROWS)


def _word_numbers(table: pa.Table, start: int, numbering: Numbering) -> Found:
    texts = [_spaced(text) for text in table["text"].to_pylist()]
    offsets = np.concatenate(([0], np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))))
    numbers, rows = numbering.words(WORD, np.frombuffer(b"".join(texts), np.uint8), offsets)
    return numbers, rows + start


def _spaced(text: str | None) -> bytes:
    """Return a text whose words the byte-wise reader finds: of other than ASCII signs, the words alone."""
    if not text:
        return b""
    return text.encode() if text.isascii() else " ".join(words(text)).encode()


def _pair_numbers(table: pa.Table, start: int, numbering: Numbering) -> Found:
    values: list[str] = []
    counts: list[int] = []
    known: dict[str, list[str]] = {}
    attributes = table["attributes"].to_pylist()
    resources = table["resource"].to_pylist() if "resource" in table.column_names else [None] * len(attributes)
    for mine, shared in zip(attributes, resources, strict=True):
        before = len(values)
        values += _pairs(mine)
        if shared:
            if shared not in known:
                known[shared] = _pairs(shared)
            values += known[shared]
        counts.append(len(values) - before)
    rows = np.repeat(np.arange(len(counts)) + start, counts)
    return (numbering.texts(PAIR, values), rows) if values else (_NO_NUMBERS, _NO_ROWS)


def _pairs(text: str | None) -> list[str]:
    if not text:
        return []
    loaded: dict[str, Any] = orjson.loads(text)
    # The usual case, a short text, without a call: this runs for every attribute of every span.
    found = [f"{name}\0{value}" for name, value in loaded.items() if type(value) is str and len(value) <= VALUE]
    if len(found) < len(loaded):
        others = {name: value for name, value in loaded.items() if type(value) is not str or len(value) > VALUE}
        found += [_pair(name, value) for name, value in pair_texts(others)]
    return found


def write_index(folder: Path, digest: str, data: bytes) -> None:
    """Put the index of the file with this digest into `folder`."""
    write_atomic(index_path(folder, digest), data)


def index_path(folder: Path, digest: str) -> Path:
    """Return where the index of the file with this digest is."""
    return folder / f"{digest}.idx"


def usable_index(folder: Path, digest: str) -> FileIndex | None:
    """Return the index of the file with this digest, or None if it is not made yet, or damaged."""
    try:
        return open_index(index_path(folder, digest))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove_others(folder: Path, digests: Iterable[str]) -> int:
    """Remove the indexes of files that are no more; return how many."""
    kept = {index_path(folder, digest).name for digest in digests}
    gone = [entry for entry in os.listdir(folder) if entry.endswith(".idx") and entry not in kept]
    for entry in gone:
        (folder / entry).unlink(missing_ok=True)
    return len(gone)


def intersection(lists: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return the rows that are in all lists, the shortest first."""
    found, *others = sorted(lists, key=len)
    for other in others:
        if not len(found):
            break
        at = np.searchsorted(other, found)
        at[at == len(other)] = 0
        found = found[other[at] == found] if len(other) else _NO_ROWS
    return found
