"""Closed segments become Parquet; damage is found and set aside."""

import fcntl
import itertools
import os
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.errors import Corrupt, Locked
from holdtrue.storage.files import fresh_file, make_folders, storing, sync_folder, write_all, write_atomic
from holdtrue.storage.journal.frames import ROW, Frame
from holdtrue.storage.journal.index import Index, Manifest, SealedFile
from holdtrue.storage.journal.segments import (
    Damage,
    SegmentName,
    closed_segment,
    read_segment,
    read_skips,
    repair_segment,
)
from holdtrue.storage.journal.tables import decode_frames

_GROUP_BYTES = 2 << 20
_GROUP_ROWS = 1024
_THREADS = 8


def seal_closed(index: Index, *, request_roll: bool) -> int:
    """Seal every segment without a writer, return how many; raise Corrupt at the end if one is damaged."""
    sealed = 0
    failure: Corrupt | None = None
    with storing("sealed journal records"), only_sealer(index):
        _remove_leftovers(index)
        if request_roll:  # writers of other processes see that this file is another one
            write_atomic(index.sealed / "roll", b"")
        for name in index.contents().live:
            path = index.segment_path(name)
            with closed_segment(path) as closed:
                if not closed:
                    continue
                try:
                    _seal(index, name, path)
                    sealed += 1
                except Corrupt as error:
                    failure = failure or error
    if failure is not None:
        raise failure
    return sealed


def _seal(index: Index, name: SegmentName, path: Path) -> None:
    reading = read_segment(path)
    streams: dict[bytes, list[Frame]] = {}
    for frame in reading.frames:
        streams.setdefault(frame.stream, []).append(frame)
    parts = [part for stream, frames in streams.items() for part in _parts(name, stream, frames)]
    manifest = Manifest(name, reading.created, reading.end, reading.row, _write_files(index, parts))
    # From here on the Parquet files count and the segment does not.
    write_atomic(index.manifests / f"{name.text}.json", orjson.dumps(manifest.to_json()))
    _remove_segment(path)


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one stream and day, and the file they go to, relative to the folder sealed."""

    path: str
    stream: tuple[str, str, str]
    day: str
    table: pa.Table


def _parts(name: SegmentName, stream: bytes, frames: list[Frame]) -> Iterator[Part]:
    kind, project, service = stream.decode().split("\0")
    table = decode_frames(frames)
    days = table["time"].to_numpy().astype("datetime64[us]").astype("datetime64[D]")
    # Sorted once: to look through all rows for each day costs the square of the days.
    order = np.argsort(days, kind="stable")
    if (order[1:] < order[:-1]).any():
        table, days = table.take(pa.array(order)), days[order]
    edges = [0, *(np.flatnonzero(days[1:] != days[:-1]) + 1).tolist(), len(days)]
    for begin, end in itertools.pairwise(edges):
        path = f"kind={kind}/project={project}/service={service}/day={days[begin]}/{name.text}.parquet"
        yield Part(path, (kind, project, service), str(days[begin]), table.slice(begin, end - begin))


def _write_files(index: Index, parts: list[Part]) -> tuple[SealedFile, ...]:
    """Write all files of a segment and return when each is durable under its name.

    A file waits for the disk three times, and threads wait together: 24 days of five streams take a fifth of the time
    that one after the other takes.
    """
    folders = {(index.sealed / part.path).parent for part in parts}
    make_folders(folders)
    with ThreadPoolExecutor(_THREADS) as threads:
        files = tuple(threads.map(lambda part: write_part(index, part), parts))
        list(threads.map(sync_folder, folders))
    return files


def write_part(index: Index, part: Part) -> SealedFile:
    """Write one file and rename it to its name; the folder is not synced yet."""
    kind, project, service = part.stream
    table = part.table
    buffer = pa.BufferOutputStream()
    # A dictionary of numbers that hardly repeat costs half the writing time and makes the file larger.
    texts = [field.name for field in table.schema if field.type == pa.string()]
    pq.write_table(
        table,
        buffer,
        compression="zstd",
        row_group_size=_group_rows(table),
        use_dictionary=texts,  # pyright: ignore[reportArgumentType]  # lists are documented
        write_page_checksum=True,
        store_schema=False,
    )
    data = buffer.getvalue().to_pybytes()
    with fresh_file(index.sealed / "tmp") as (descriptor, temporary):
        write_all(descriptor, data)
        os.fsync(descriptor)
        os.rename(temporary, index.sealed / part.path)
    places = table[ROW].to_numpy()
    ids = pc.call_function("min_max", [table["id"]]).as_py()
    return SealedFile(
        path=part.path,
        kind=kind,
        project=project,
        service=service,
        day=part.day,
        rows=table.num_rows,
        bytes=len(data),
        digest=bytes_hash(data),
        first_row=int(places.min()),
        last_row=int(places.max()),
        first_id=ids["min"],
        last_id=ids["max"],
    )


def _group_rows(table: pa.Table) -> int:
    """Return how many rows go into a row group: a reader of a few rows decodes a few mebibytes, not the file."""
    width = max(1, table.nbytes // max(1, table.num_rows))
    return min(max(_GROUP_BYTES // width, _GROUP_ROWS), 1 << 20)


def _remove_leftovers(index: Index) -> None:
    """Finish what a killed sealer left: sealed segments still lying about, and temporary files."""
    for folder in (index.sealed / "tmp", index.sealed, index.manifests, index.live):
        for path in folder.glob("*.tmp"):
            path.unlink(missing_ok=True)
    for entry in os.listdir(index.live):
        name = SegmentName.parse(entry.rpartition(".")[0])
        if name is not None and index.manifest(name) is not None:
            _remove_segment(index.segment_path(name))


def _remove_segment(path: Path) -> None:
    """Remove a sealed segment; one with damage is kept in the folder damaged."""
    skip = path.with_suffix(".skip")
    if read_skips(path) and path.exists():
        os.rename(path, path.parent.parent / "damaged" / path.name)
    path.unlink(missing_ok=True)
    skip.unlink(missing_ok=True)
    path.with_suffix(".mark").unlink(missing_ok=True)


@contextmanager
def only_sealer(index: Index) -> Generator[None]:
    """Be the only process that writes sealed files for the time of the block; Locked if another one is."""
    descriptor = os.open(index.sealed / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Locked(
            "Another process seals the journal.",
            why="Only the control plane seals, and only one at a time.",
            mend="Let it finish; sealing again does no harm.",
        ) from None
    finally:
        os.close(descriptor)


def verify_all(index: Index) -> Iterator[Damage]:
    """Read every segment and hash every Parquet file; yield what is damaged."""
    contents = index.contents()
    for name in contents.live:
        try:
            read_segment(index.segment_path(name))
        except FileNotFoundError:
            continue
        except Corrupt as error:
            yield Damage(str(error.facts["file"]), int(error.facts["offset"]), -1)
    for manifest in contents.sealed:
        yield from map(_lost, _bad_files(index, manifest))


def _bad_files(index: Index, manifest: Manifest) -> list[SealedFile]:
    bad: list[SealedFile] = []
    for file in manifest.files:
        try:
            data = (index.sealed / file.path).read_bytes()
        except FileNotFoundError:
            data = b""
        if bytes_hash(data) != file.digest:
            bad.append(file)
    return bad


def repair_all(index: Index) -> list[Damage]:
    """Set aside what is damaged; return it."""
    with only_sealer(index):
        return _repair(index)


def _repair(index: Index) -> list[Damage]:
    found: list[Damage] = []
    contents = index.contents()
    for name in contents.live:
        path = index.segment_path(name)
        if path.exists():
            found.extend(repair_segment(path))
    for manifest in contents.sealed:
        bad = _bad_files(index, manifest)
        if not bad:
            continue
        kept = tuple(file for file in manifest.files if file not in bad)
        repaired = Manifest(manifest.segment, manifest.created, manifest.end, manifest.rows, kept)
        path = index.manifests / f"{manifest.segment.text}.json"
        write_atomic(path, orjson.dumps(repaired.to_json()))
        index.forget(manifest.segment)
        for file in bad:
            _set_aside(index, file)
            found.append(_lost(file))
    return found


def _lost(file: SealedFile) -> Damage:
    return Damage(f"sealed/{file.path}", 0, file.bytes, file.rows)


def _set_aside(index: Index, file: SealedFile) -> None:
    target = index.sealed.parent / "damaged" / file.path.replace("/", "~")
    path = index.sealed / file.path
    if path.exists():
        os.rename(path, target)
