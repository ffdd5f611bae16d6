"""Read the journal: sealed Parquet and live segments as one table, relation, tail or record."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from holdtrue.core.errors import Corrupt, HoldtrueError, InvalidInput, Unavailable
from holdtrue.storage.journal.frames import ROW, Frame, stream_name
from holdtrue.storage.journal.index import Index, Manifest, SealedFile, stream_files
from holdtrue.storage.journal.segments import Reading, SegmentName, read_segment
from holdtrue.storage.journal.tables import concat, decode_frames, first_of_each

_MANY = 4
_THREADS = 4
_DAY = 86_400_000_000
_REWRITES = 20
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Query:
    """Which records: a stream (or all services), `since` ≤ time < `until` in microseconds, which columns."""

    kind: str
    project: str
    service: str | None
    since: int | None
    until: int | None
    columns: tuple[str, ...] | None

    def needed(self) -> frozenset[str] | None:
        """Return the stored columns that must be read, or None for all."""
        if self.columns is None:
            return None
        return frozenset(self.columns) | {"id", "time"} - ({"time"} if not self.bounded else set())

    @property
    def bounded(self) -> bool:
        """Say whether the query has a limit of time."""
        return self.since is not None or self.until is not None

    def meets_day(self, day: str) -> bool:
        """Say whether a day has moments within the limits."""
        if not self.bounded:
            return True
        start = int(np.datetime64(day, "us").astype(np.int64))
        return (self.until is None or start < self.until) and (self.since is None or start + _DAY > self.since)

    def files(self, manifest: Manifest) -> Iterator[SealedFile]:
        """Yield the files of a manifest that may have rows of this query."""
        for file in stream_files(manifest, self.kind, self.project, self.service):
            if self.meets_day(file.day):
                yield file

    def wants(self, frame: Frame) -> bool:
        """Say whether a frame of the stream may have rows within the limits of time."""
        before_end = self.until is None or frame.first < self.until
        return before_end and (self.since is None or frame.last >= self.since)

    def within(self, table: pa.Table) -> pa.Table:
        """Return the rows within the limits of time."""
        if self.since is not None:
            table = table.filter(pc.field("time") >= self.since)
        if self.until is not None:
            table = table.filter(pc.field("time") < self.until)
        return table


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of one stream out of one segment."""

    rank: tuple[int, str, int]
    service: str
    table: pa.Table


def empty_table() -> pa.Table:
    """Return no records, with the columns every record has."""
    return pa.table({"id": pa.array([], pa.string()), "time": pa.array([], pa.int64())})


def read_table(index: Index, query: Query) -> pa.Table:
    """Return the records of a query in order of arrival, the first of each id."""
    return _assemble(list(_parts(index, query)), query)


def _parts(index: Index, query: Query) -> Iterator[_Part]:
    sealed, live = survey(index)
    jobs = [(manifest, file) for manifest in sealed for file in query.files(manifest)]
    yield from _sealed_parts(index, jobs, query)
    for name, reading in live:
        yield from live_parts(name, reading, query)


def survey(index: Index) -> tuple[list[Manifest], list[tuple[SegmentName, Reading]]]:
    """Return the sealed segments and what stands in the live ones: every row once."""
    contents = index.contents()
    sealed = list(contents.sealed)
    live: list[tuple[SegmentName, Reading]] = []
    for name in contents.live:
        read = _read_live(index, name)
        if isinstance(read, Manifest):
            sealed.append(read)
        else:
            live.append((name, read))
    return sealed, live


def _read_live(index: Index, name: SegmentName, offset: int = 0, row: int = 0) -> Reading | Manifest:
    """Return the frames of a live segment, or its manifest if it was sealed since it was listed."""
    try:
        return read_segment(index.segment_path(name), offset, row)
    except FileNotFoundError:
        manifest = index.manifest(name)
        if manifest is None:
            raise
        return manifest


def _sealed_parts(
    index: Index, jobs: list[tuple[Manifest, SealedFile]], query: Query, first_row: int = 0
) -> Iterator[_Part]:
    columns = query.needed()

    def part(job: tuple[Manifest, SealedFile]) -> _Part:
        manifest, file = job
        table = query.within(read_sealed(index, file, columns))
        if file.first_row < first_row:
            table = table.filter(pc.field(ROW) >= first_row)
        return _Part(manifest.rank, file.service, table)

    if len(jobs) < _MANY:
        yield from map(part, jobs)
        return
    # Decoding leaves the interpreter's lock; more threads than this gain nothing on small files.
    with ThreadPoolExecutor(_THREADS) as threads:
        yield from threads.map(part, jobs)


def read_sealed(index: Index, file: SealedFile, columns: frozenset[str] | None) -> pa.Table:
    """Return the rows of one Parquet file; Corrupt if its pages are not what was written."""
    return index.cache.get((file.path, columns), lambda: _read_parquet(index, file, columns))


def _read_parquet(index: Index, file: SealedFile, columns: frozenset[str] | None) -> pa.Table:
    path = index.sealed / file.path
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
            names = None
            if columns is not None:
                names = [name for name in parquet.schema_arrow.names if name in columns or name == ROW]
            return parquet.read(columns=names, use_threads=False)
    except FileNotFoundError as error:
        raise gone(index, file) from error
    except (OSError, pa.ArrowException) as error:
        raise sealed_damage(file, str(error)) from error


class Rewritten(Unavailable):
    """A file of the journal was replaced while it was to be read: what is asked again finds its successor."""

    code = "journal_rewritten"


def gone(index: Index, file: SealedFile) -> HoldtrueError:
    """Return the error for a file that is not there: replaced by one without erased rows, or lost."""
    if index.lists(file):
        return sealed_damage(file, "it is not there")
    return Rewritten(
        f"Journal file sealed/{file.path} was written anew while it was to be read.",
        why="Records were erased from it.",
        mend="Ask again.",
        facts={"file": f"sealed/{file.path}"},
    )


def settled(work: Callable[[], T]) -> T:
    """Return what `work` reads, begun again where files were replaced under it."""
    for _ in range(_REWRITES):
        try:
            return work()
        except Rewritten:
            continue
    return work()


def sealed_damage(file: SealedFile, why: str) -> Corrupt:
    """Return the error that names a damaged Parquet file."""
    return Corrupt(
        f"Journal file sealed/{file.path} is damaged.",
        why=f"It cannot be read as it was written ({why[:200]}).",
        mend="Restore the file from a backup, or run `holdtrue doctor --repair`: it sets the file aside, "
        "tells how many records it held, and makes every other record readable.",
        facts={"file": f"sealed/{file.path}", "rows": file.rows},
    )


def live_parts(name: SegmentName, reading: Reading, query: Query) -> Iterator[_Part]:
    """Yield the rows of a query out of one live segment, service by service."""
    for service, frames in _by_service(reading.frames, query).items():
        table = query.within(decode_frames(frames, query.needed()))
        yield _Part((reading.created, name.writer, name.number), service, table)


def _by_service(frames: list[Frame], query: Query) -> dict[str, list[Frame]]:
    found: dict[str, list[Frame]] = {}
    if query.service is not None:
        stream = stream_name(query.kind, query.project, query.service)
        mine = [frame for frame in frames if frame.stream == stream and query.wants(frame)]
        return {query.service: mine} if mine else {}
    prefix = stream_name(query.kind, query.project, "")
    for frame in frames:
        if frame.stream.startswith(prefix) and query.wants(frame):
            found.setdefault(frame.stream[len(prefix) :].decode(), []).append(frame)
    return found


def _assemble(parts: list[_Part], query: Query) -> pa.Table:
    """Put parts together in order of arrival."""
    parts = [part for part in parts if part.table.num_rows]
    if not parts:
        return empty_table()
    ranks = {rank: at for at, rank in enumerate(sorted({part.rank for part in parts}))}
    tables: list[pa.Table] = []
    orders: list[np.ndarray] = []
    for part in parts:
        table = part.table
        # 2^40 rows do not fit into a segment, so this orders by segment, then by row.
        orders.append((ranks[part.rank] << 40) + table[ROW].to_numpy())
        table = table.drop_columns([ROW])
        if "service" not in table.column_names and (query.columns is None or "service" in query.columns):
            table = table.append_column("service", pa.repeat(pa.scalar(part.service), table.num_rows))
        tables.append(table)
    table = first_of_each(concat(tables), np.concatenate(orders))
    if query.columns is not None:
        table = table.select([name for name in query.columns if name in table.column_names])
    return table


def read_tail(index: Index, query: Query, cursor: str | None) -> tuple[pa.Table, str]:
    """Return the rows appended since `cursor`, in order of arrival, and the next cursor."""
    places = _load_cursor(cursor)
    contents = index.contents()
    parts: list[_Part] = []
    ends = dict(places)
    for manifest in contents.sealed:
        _tail_sealed(index, manifest, query, places, parts, ends)
    for name in contents.live:
        number, offset, row = places.get(name.writer, (0, 0, 0))
        if name.number < number:
            continue
        if name.number > number:
            offset, row = 0, 0
        read = _read_live(index, name, offset, row)
        if isinstance(read, Manifest):
            _tail_sealed(index, read, query, places, parts, ends)
            continue
        parts.extend(live_parts(name, read, query))
        _advance(ends, name, read.end, read.row)
    return _assemble(parts, query), orjson.dumps(ends, option=orjson.OPT_SORT_KEYS).decode()


def _tail_sealed(
    index: Index,
    manifest: Manifest,
    query: Query,
    places: dict[str, tuple[int, int, int]],
    parts: list[_Part],
    ends: dict[str, tuple[int, int, int]],
) -> None:
    name = manifest.segment
    number, _, row = places.get(name.writer, (0, 0, 0))
    if name.number < number or (name.number == number and row >= manifest.rows):
        return
    first_row = row if name.number == number else 0
    jobs = [(manifest, file) for file in query.files(manifest) if file.last_row >= first_row]
    parts.extend(_sealed_parts(index, jobs, query, first_row))
    _advance(ends, name, manifest.end, manifest.rows)


def _advance(ends: dict[str, tuple[int, int, int]], name: SegmentName, end: int, row: int) -> None:
    if name.number >= ends.get(name.writer, (0, 0, 0))[0]:
        ends[name.writer] = (name.number, end, row)


def _load_cursor(cursor: str | None) -> dict[str, tuple[int, int, int]]:
    if cursor is None:
        return {}
    try:
        return {
            str(writer): (int(number), int(offset), int(row))
            for writer, (number, offset, row) in orjson.loads(cursor).items()
        }
    except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError):
        raise InvalidInput(
            "That is not a cursor of the journal.",
            why="A cursor comes from an earlier call of tail.",
            mend="Start without one to read everything.",
        ) from None


def find_record(index: Index, query: Query, id: str) -> dict[str, Any] | None:
    """Return the first record of a stream with that id, or None."""
    sealed, live = survey(index)
    ids = replace(query, columns=("id",))
    jobs = [
        (manifest, file) for manifest in sealed for file in query.files(manifest) if file.first_id <= id <= file.last_id
    ]
    found: list[tuple[tuple[int, str, int], int, SealedFile | _Part]] = []
    for part, (manifest, file) in zip(_sealed_parts(index, jobs, ids), jobs, strict=True):
        found.extend((manifest.rank, row, file) for row in _rows_of(part.table, id))
    text = orjson.dumps(id)
    for name, reading in live:
        frames = [frame for frame in reading.frames if text in bytes(frame.payload)]
        for part in live_parts(name, Reading(reading.created, frames, 0, 0), query):
            found.extend((part.rank, row, part) for row in _rows_of(part.table, id))
    if not found:
        return None
    _, row, where = min(found, key=lambda place: place[:2])
    table = where.table if isinstance(where, _Part) else read_sealed(index, where, None)
    record = table.filter(pc.field(ROW) == row).drop_columns([ROW]).to_pylist()[0]
    return {"service": where.service, **record}


def _rows_of(table: pa.Table, id: str) -> list[int]:
    return table.filter(pc.field("id") == id)[ROW].to_pylist()


def count_rows(index: Index) -> dict[str, int]:
    """Return the number of appended rows of each stream."""
    counts: Counter[str] = Counter()
    sealed, live = survey(index)
    for manifest in sealed:
        for file in manifest.files:
            counts[f"{file.kind}/{file.project}/{file.service}"] += file.rows
    for _, reading in live:
        for frame in reading.frames:
            counts[frame.stream.decode().replace("\0", "/")] += frame.rows
    return dict(sorted(counts.items()))
