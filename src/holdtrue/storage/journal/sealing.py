"""Closed segments become Parquet; damage is found and set aside."""

import fcntl
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.errors import Corrupt, Locked
from holdtrue.storage.files import fresh_file, make_folder, publish, storing, write_all, write_atomic
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


def seal_closed(index: Index, *, request_roll: bool) -> int:
    """Seal every segment without a writer, return how many; raise Corrupt at the end if one is damaged."""
    sealed = 0
    failure: Corrupt | None = None
    with storing("sealed journal records"), _only_sealer(index):
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
    files: list[SealedFile] = []
    for stream, frames in streams.items():
        kind, project, service = stream.decode().split("\0")
        files.extend(_write_days(index, name, (kind, project, service), decode_frames(frames)))
    manifest = Manifest(name, reading.created, reading.end, reading.row, tuple(files))
    # From here on the Parquet files count and the segment does not.
    write_atomic(index.manifests / f"{name.text}.json", orjson.dumps(manifest.to_json()))
    _remove_segment(path)


def _write_days(index: Index, name: SegmentName, stream: tuple[str, str, str], table: pa.Table) -> Iterator[SealedFile]:
    days = table["time"].to_numpy().astype("datetime64[us]").astype("datetime64[D]")
    for day in np.unique(days):
        rows = table if (days == day).all() else table.filter(pa.array(days == day))
        yield _write_file(index, name, stream, str(day), rows)


def _write_file(index: Index, name: SegmentName, stream: tuple[str, str, str], day: str, table: pa.Table) -> SealedFile:
    kind, project, service = stream
    relative = f"kind={kind}/project={project}/service={service}/day={day}/{name.text}.parquet"
    target = index.sealed / relative
    make_folder(target.parent)
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
        publish(descriptor, temporary, target)
    places = table[ROW].to_numpy()
    ids = pc.call_function("min_max", [table["id"]]).as_py()
    return SealedFile(
        path=relative,
        kind=kind,
        project=project,
        service=service,
        day=day,
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
def _only_sealer(index: Index) -> Generator[None]:
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
        yield from (Damage(f"sealed/{file.path}", 0, file.bytes) for file in _bad_files(index, manifest))


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
    with _only_sealer(index):
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
            found.append(Damage(f"sealed/{file.path}", 0, file.bytes))
    return found


def _set_aside(index: Index, file: SealedFile) -> None:
    target = index.sealed.parent / "damaged" / file.path.replace("/", "~")
    path = index.sealed / file.path
    if path.exists():
        os.rename(path, target)
