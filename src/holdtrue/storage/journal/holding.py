"""What a stream holds, part by part: sealed files to read a few rows of, and the rows that are live, decoded once.

Other readers put all records of a query together; this one lets a search look at each part as far as it needs.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.parquet as pq

from holdtrue.storage.journal.frames import ROW, Frame
from holdtrue.storage.journal.index import Index, Manifest, SealedFile
from holdtrue.storage.journal.reading import Query, gone, sealed_damage
from holdtrue.storage.journal.segments import SegmentName, read_segment
from holdtrue.storage.journal.tables import concat, decode_frames

Rank = tuple[int, str, int]


@dataclass(frozen=True, slots=True)
class SealedPart:
    """One Parquet file of a stream; parts with a lower rank came first."""

    rank: Rank
    file: SealedFile

    @property
    def service(self) -> str:
        """Return the service whose rows these are."""
        return self.file.service


@dataclass(frozen=True, slots=True)
class LivePart:
    """The rows of a stream in one segment that is not sealed yet; `_row` is their place in the segment."""

    rank: Rank
    service: str
    table: pa.Table


@dataclass(frozen=True, slots=True)
class Holding:
    """The parts of a stream at one moment: every appended row once, repeats included."""

    sealed: tuple[SealedPart, ...]
    live: tuple[LivePart, ...]


@dataclass(slots=True)
class _Kept:
    """What is known of a live segment: how far it was read, and its rows by stream, frame by frame."""

    created: int
    end: int = 0
    row: int = 0
    tables: dict[bytes, list[pa.Table]] = field(default_factory=dict[bytes, list[pa.Table]])


class LiveRows:
    """Keep the decoded rows of some kinds out of the live segments; each look reads only what is new."""

    def __init__(self, index: Index, kinds: Sequence[str]) -> None:
        self._index = index
        self._prefixes = tuple(f"{kind}\0".encode() for kind in kinds)
        self._kept: dict[SegmentName, _Kept] = {}
        self._lock = threading.Lock()

    def holding(self, query: Query) -> Holding:
        """Return the parts of a stream that may have rows of `query`."""
        with self._lock:
            contents = self._index.contents()
            sealed = list(contents.sealed)
            self._kept = {name: self._kept[name] for name in contents.live if name in self._kept}
            live: list[LivePart] = []
            for name in contents.live:
                kept = self._read(name)
                if isinstance(kept, Manifest):
                    sealed.append(kept)
                else:
                    live.extend(_live_parts(name, kept, query))
        parts = [SealedPart(manifest.rank, file) for manifest in sealed for file in query.files(manifest)]
        return Holding(tuple(parts), tuple(live))

    def projects(self, kind: str) -> set[str]:
        """Return the projects that have live rows of a kind."""
        with self._lock:
            found: set[str] = set()
            for name in self._index.contents().live:
                kept = self._read(name)
                for stream in kept.tables if isinstance(kept, _Kept) else ():
                    of, project, _ = stream.decode().split("\0")
                    if of == kind:
                        found.add(project)
            return found

    def _read(self, name: SegmentName) -> "_Kept | Manifest":
        """Return what a live segment holds, or its manifest if it was sealed since it was listed."""
        kept = self._kept.get(name)
        try:
            reading = read_segment(self._index.segment_path(name), kept.end if kept else 0, kept.row if kept else 0)
        except FileNotFoundError:
            self._kept.pop(name, None)
            manifest = self._index.manifest(name)
            if manifest is None:
                raise
            return manifest
        if kept is None:
            kept = self._kept[name] = _Kept(reading.created)
        kept.end, kept.row = reading.end, reading.row
        for frame in reading.frames:
            if frame.stream.startswith(self._prefixes):
                kept.tables.setdefault(frame.stream, []).append(decode_frames([_owned(frame)]))
        return kept


def _owned(frame: Frame) -> Frame:
    """Return a frame that does not keep all that was read with it."""
    return replace(frame, payload=memoryview(bytes(frame.payload)))


def _live_parts(name: SegmentName, kept: _Kept, query: Query) -> list[LivePart]:
    found: list[LivePart] = []
    for stream, tables in kept.tables.items():
        kind, project, service = stream.decode().split("\0")
        if kind != query.kind or project != query.project or query.service not in (None, service):
            continue
        if len(tables) > 1:
            tables[:] = [concat(tables)]
        found.append(LivePart((kept.created, name.writer, name.number), service, tables[0]))
    return found


def read_rows(index: Index, file: SealedFile, columns: Sequence[str] | None, rows: Sequence[int] | None) -> pa.Table:
    """Return rows of a Parquet file by their places in it, ascending (None: all); Corrupt if it is damaged.

    Only the row groups in which they lie are decoded. Columns that the file lacks are left out.
    """
    try:
        with pq.ParquetFile(index.sealed / file.path, page_checksum_verification=True) as parquet:
            known = parquet.schema_arrow.names
            names = known if columns is None else [name for name in known if name in columns or name == ROW]
            if rows is None:
                return parquet.read(columns=names, use_threads=False)
            groups: list[int] = []
            places: list[int] = []
            start = kept = at = 0
            for group in range(parquet.num_row_groups):
                count = parquet.metadata.row_group(group).num_rows
                first = at
                while at < len(rows) and rows[at] < start + count:
                    places.append(rows[at] - start + kept)
                    at += 1
                if at > first:
                    groups.append(group)
                    kept += count
                start += count
            return parquet.read_row_groups(groups, columns=names, use_threads=False).take(pa.array(places, pa.int64()))
    except FileNotFoundError as error:
        raise gone(index, file) from error
    except (OSError, pa.ArrowException) as error:
        raise sealed_damage(file, str(error)) from error
