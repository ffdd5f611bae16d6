"""Take rows out of sealed files for good; a reader, and a crash, sees a segment with them or without.

A segment's files are written anew beside the old ones, then its manifest is replaced, then the old files go. Places of
rows, the segment's length and order stay as they were: cursors of tails hold, and the first of each id stays the first.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from holdtrue.storage.files import storing, sync_folder, write_atomic
from holdtrue.storage.journal.frames import ROW
from holdtrue.storage.journal.index import Index, Manifest, SealedFile, stream_files
from holdtrue.storage.journal.reading import read_sealed
from holdtrue.storage.journal.sealing import Part, only_sealer, write_part

Matches = Callable[[str, pa.Table], NDArray[np.bool_]]
"""Which rows of a table of one service are meant, bool[n]."""


@dataclass(frozen=True, slots=True)
class Meant:
    """Say which records: of a kind and project, those that `matches` finds by looking at `columns`."""

    kind: str
    project: str
    columns: tuple[str, ...]
    matches: Matches


@dataclass(slots=True)
class Erased:
    """Count what was taken out: rows, and files that were written anew or removed."""

    rows: int = 0
    files: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """Hold the rows that are meant, with the columns that were looked at, by service."""

    by_service: Mapping[str, pa.Table] = field(default_factory=dict[str, pa.Table])

    def values(self, column: str) -> dict[str, set[str]]:
        """Return the values of a column, as texts, by service."""
        found: dict[str, set[str]] = {}
        for service, table in self.by_service.items():
            if column in table.column_names:
                found[service] = {str(each) for each in table[column].unique().to_pylist() if each is not None}
        return found


def find_sealed(index: Index, meant: Meant) -> Found:
    """Return the rows of sealed segments that are meant."""
    parts: dict[str, list[pa.Table]] = {}
    for manifest in index.contents().sealed:
        for file in stream_files(manifest, meant.kind, meant.project, None):
            table = _looked_at(index, file, meant)
            mask = meant.matches(file.service, table)
            if mask.any():
                parts.setdefault(file.service, []).append(table.filter(pa.array(mask)))
    return Found({name: pa.concat_tables(each, promote_options="permissive") for name, each in parts.items()})


def erase_sealed(index: Index, meant: Meant) -> Erased:
    """Take out the rows of sealed segments that are meant, and repeats of them under the same ids.

    A repeat was hidden behind the first record of its id; without that one it would come to light. The newest segments
    go first: killed in between, the first records are still there to find their repeats by. Raises Locked, Corrupt,
    StorageFull.
    """
    done = Erased()
    with storing("journal records"), only_sealer(index):
        remove_unlisted(index, meant.kind, meant.project)
        found = find_sealed(index, meant).values("id")
        ids = _first_meant(index, meant, found)
        for manifest in reversed(index.contents().sealed):
            mine = [file for file in stream_files(manifest, meant.kind, meant.project, None) if file.service in found]
            made = {file: _without(index, manifest, file, meant, ids[file.service]) for file in mine}
            changed = {file: after for file, after in made.items() if after != file}
            if changed:
                _replace(index, manifest, changed)
                done.files += len(changed)
                done.rows += sum(file.rows - (0 if after is None else after.rows) for file, after in changed.items())
    return done


def _first_meant(index: Index, meant: Meant, ids: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return those of the ids, by service, whose first record is meant: only of them repeats are hidden."""
    firsts: dict[tuple[str, str], tuple[int, int, bool]] = {}
    for rank, manifest in enumerate(index.contents().sealed):
        for file in stream_files(manifest, meant.kind, meant.project, None):
            wanted = sorted(ids.get(file.service, ()))
            if not wanted or wanted[-1] < file.first_id or wanted[0] > file.last_id:
                continue
            table = _looked_at(index, file, meant)
            known = same_text(table, "id", wanted)
            is_meant = meant.matches(file.service, table)[known]
            rows = table.filter(pa.array(known))
            for name, row, mine in zip(rows["id"].to_pylist(), rows[ROW].to_pylist(), is_meant.tolist(), strict=True):
                place = (rank, row, mine)
                key = (file.service, name)
                firsts[key] = min(firsts.get(key, place), place)
    found: dict[str, set[str]] = {service: set() for service in ids}
    for (service, name), (_, _, mine) in firsts.items():
        if mine:
            found[service].add(name)
    return found


def _looked_at(index: Index, file: SealedFile, meant: Meant) -> pa.Table:
    return read_sealed(index, file, frozenset({*meant.columns, "id"}))


def _without(
    index: Index, manifest: Manifest, file: SealedFile, meant: Meant, ids: Collection[str]
) -> SealedFile | None:
    """Return the file without the rows that are meant: itself if it has none, None if it has no others."""
    table = _looked_at(index, file, meant)
    gone = same_text(table, "id", sorted(ids))
    gone |= meant.matches(file.service, table)
    if not gone.any():
        return file
    if gone.all():
        return None
    kept = read_sealed(index, file, None).filter(pa.array(~gone))
    # The name tells the rows that are left: done again after a crash, it is the same file.
    name = f"{manifest.segment.text}.{file.digest[:8]}-{kept.num_rows}.parquet"
    path = f"{Path(file.path).parent.as_posix()}/{name}"
    made = write_part(index, Part(path, (file.kind, file.project, file.service), file.day, kept))
    sync_folder((index.sealed / path).parent)
    return made


def _replace(index: Index, manifest: Manifest, changed: Mapping[SealedFile, SealedFile | None]) -> None:
    files = [changed.get(file, file) for file in manifest.files]
    after = replace(manifest, files=tuple(file for file in files if file is not None))
    write_atomic(index.manifests / f"{manifest.segment.text}.json", orjson.dumps(after.to_json()))
    # From here on the new files count. Whoever knows the old manifest, in any process, is told before its files go.
    index.tell_rewritten()
    for file in changed:
        _unlink(index.sealed / file.path)


def remove_unlisted(index: Index, kind: str, project: str) -> int:
    """Remove files that no manifest lists, which a killed process left; return how many."""
    listed = {file.path for manifest in index.contents().sealed for file in manifest.files}
    found = [
        path
        for path in (index.sealed / f"kind={kind}" / f"project={project}").glob("service=*/day=*/*.parquet")
        if path.relative_to(index.sealed).as_posix() not in listed
    ]
    for path in found:
        _unlink(path)
    return len(found)


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def same_text(table: pa.Table, column: str, values: Sequence[str]) -> NDArray[np.bool_]:
    """Tell which rows have one of `values` in a column; numbers are compared as they are written."""
    if column not in table.column_names or not values:
        return np.zeros(table.num_rows, np.bool_)
    texts = texts_of(table[column])
    options = pc.SetLookupOptions(pa.array(sorted(values), pa.string()), skip_nulls=True)
    return np.array(pc.call_function("is_in", [texts], options), np.bool_)


def texts_of(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as texts; whole numbers are written without a fraction, however they are stored."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        values = values.cast(kind.value_type)
        kind = values.type
    if pa.types.is_floating(kind):
        distinct = values.unique()
        plain = {each: _number(each) for each in distinct.to_pylist()}
        return pa.chunked_array([pa.array([plain[each] for each in values.to_pylist()], pa.string())])
    if pa.types.is_string(kind):
        return values
    if pa.types.is_large_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return values.cast(pa.string())
    return pa.chunked_array(
        [pa.array([None if each is None else str(each) for each in values.to_pylist()], pa.string())]
    )


def _number(value: float | None) -> str | None:
    if value is None:
        return None
    return str(int(value)) if value.is_integer() else str(value)
