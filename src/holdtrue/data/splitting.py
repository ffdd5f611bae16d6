"""Divide the rows of a version into parts, check what the parts share, and record the split."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from holdtrue import catalog
from holdtrue.core.canonical import content_hash
from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.core.ids import check_name
from holdtrue.data import service, versions
from holdtrue.data.columns import MOST_EXAMPLES, MOST_TEXT
from holdtrue.data.reading import read_rows
from holdtrue.data.splits import NewSplit, Split, check_split, cut_moments, cuts_of, moments, said, text_hashes_of
from holdtrue.stats.sketches import Hashes, finished, mixed
from holdtrue.storage import BlobStore, Stores
from holdtrue.storage.ledger import Transaction

_MOST = 1000
_Read = Callable[[Sequence[str]], "list[pa.Table]"]


def divided(stores: Stores, project: str, name: str, version: str, wanted: NewSplit) -> tuple[catalog.Version, Any]:
    """Return the version that is divided, and the content of the split: its rule, its parts, and what they share.

    Only the columns that are needed are read. Raises InvalidInput for a split that cannot be, or whose parts share
    values that are to be apart.
    """
    check_name(wanted.name, "name of a split")
    check_split(wanted)
    found, spec = stores.ledger.read(
        lambda connection: (
            versions.resolve(connection, project, name, version),
            service.dataset(connection, project, name),
        )
    )
    if not versions.parts(found):
        raise InvalidInput(
            f"{found.label} has no rows to divide.", why="It keeps files as they are.", mend="Divide a table."
        )
    key = versions.key_of(found, spec)
    column = wanted.column or (None if spec is None or wanted.by != "time" else spec.time) or key
    if column is None:
        raise InvalidInput(
            f"{found.label} has no {'key' if wanted.by == 'random' else 'time'} to divide by.",
            why="Rows go to a part by what is in them, so that they go there again.",
            mend="Name a column: --column NAME",
        )
    read = _reader(stores.blobs, found)
    split = _rule(wanted, column, read)
    places = np.concatenate([split.places(table[column]) for table in read([column])])
    return found, _content(found, wanted, split, key, places, read)


def record(tx: Transaction, version: catalog.Version, name: str, content: Any) -> catalog.Version:
    """Register a split; the same division of the same version is the same split."""
    return catalog.register(tx, "split", name, content, derived_from=(version.id,))


def recorded(connection: sa.Connection, project: str, dataset: str) -> list[dict[str, Any]]:
    """Return the splits of a dataset's versions, by name, the newest first."""
    found = catalog.versions(connection, project, "split", limit=_MOST)
    return [_told(each) for each in found if each.content["dataset"] == dataset]


def one(connection: sa.Connection, project: str, dataset: str, name: str, number: int | None = None) -> dict[str, Any]:
    """Return one split of a dataset: the newest of its name, or the one of that number."""
    found = catalog.find(connection, project, "split", name, number=number)
    if found.content["dataset"] != dataset:
        raise NotFound.of("split", name)
    return _told(found)


def _told(split: catalog.Version) -> dict[str, Any]:
    head = {"name": split.name, "split": split.id, "number": split.number, "label": split.label}
    return {**head, "created_at": split.created_at.isoformat(), **split.content}


def _reader(blobs: BlobStore, version: catalog.Version) -> _Read:
    def read(columns: Sequence[str]) -> list[pa.Table]:
        return [_columns(blobs, part["digest"], columns) for _, part in sorted(versions.parts(version).items())]

    return read


def _columns(blobs: BlobStore, digest: str, columns: Sequence[str]) -> pa.Table:
    """Return some columns of a window, or all; one that it does not have is missing in all its rows."""
    if not columns:
        return read_rows(blobs, digest)
    with blobs.open(digest) as file:
        schema = pq.read_schema(file)
    there = [name for name in columns if name in schema.names]
    table = read_rows(blobs, digest, there or schema.names[:1])
    for name in columns:
        if name not in there:
            table = table.append_column(name, pa.nulls(table.num_rows))
    return table.select(list(columns))


def _rule(wanted: NewSplit, column: str, read: _Read) -> Split:
    names, shares = tuple(wanted.parts), tuple(wanted.parts.values())
    tables = read([column])
    if all(pa.types.is_null(table[column].type) for table in tables):
        raise InvalidInput(f"There is no column “{column}”.", why="No window has it.", mend="Name another column.")
    cuts: tuple[int, ...] = ()
    if wanted.by == "time":
        times = np.concatenate([moments(column, table[column]) for table in tables])
        cuts = cut_moments(wanted.cuts) or cuts_of(shares, times)
    return Split(wanted.by, column, names, shares, wanted.seed, cuts)


def _content(
    version: catalog.Version,
    wanted: NewSplit,
    split: Split,
    key: str | None,
    places: npt.NDArray[np.intp],
    read: _Read,
) -> Any:
    counts = np.bincount(places, minlength=len(split.parts)).tolist()
    if not all(counts):
        empty = split.parts[counts.index(0)]
        raise InvalidInput(
            f"The part “{empty}” would have no row.",
            why=f"{sum(counts):,} rows are divided by “{split.column}”.",
            mend="Give it a larger share, or cut elsewhere.",
        )
    hashes, rows = _row_hashes(read, {key, *((split.column,) if split.by == "time" else ())})
    checked = (*wanted.apart,) if key is None else (key, *wanted.apart)
    shared = {name: _shared(name, places, read) for name in dict.fromkeys(checked)}
    for name in wanted.apart:
        _check_apart(name, shared[name], split)
    return {
        "dataset": version.name,
        "version": version.id,
        "by": split.by,
        "column": split.column,
        "seed": split.seed,
        "cuts": [said(cut) for cut in split.cuts],
        "parts": [
            {
                "part": name,
                "share": split.shares[place],
                "rows": counts[place],
                # Whoever has the same rows in the part, in whatever order, gets the same digest.
                "digest": content_hash([counts[place], str(int(finished(rows[places == place]).sum(dtype=np.uint64)))]),
            }
            for place, name in enumerate(split.parts)
        ],
        "overlap": {"columns": shared, "rows": _shared_rows(hashes, places)},
    }


def _row_hashes(read: _Read, left_out: set[str | None]) -> tuple[Hashes, Hashes]:
    """Return hashes of rows uint64[n] without the columns left out, which tell rows apart, and of whole rows."""
    bare: list[Hashes] = []
    whole: list[Hashes] = []
    for table in read([]):
        sums = [np.zeros(table.num_rows, np.uint64) for _ in range(2)]
        for name in sorted(table.column_names):
            found = finished(_hashes(table[name]) ^ _of_name(name))
            sums[1] += found
            if name not in left_out:
                sums[0] += found
        bare.append(finished(sums[0]))
        whole.append(finished(sums[1]))
    return np.concatenate(bare), np.concatenate(whole)


def _of_name(name: str) -> np.uint64:
    return np.uint64(int(content_hash(name)[:16], 16))


def _hashes(column: pa.ChunkedArray) -> Hashes:
    kind: Any = column.type
    if not column.null_count and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        # Whole numbers may be numbers in another window: both are hashed as such.
        return mixed(column.cast(pa.float64(), safe=False).to_numpy())
    if pa.types.is_nested(kind):
        return text_hashes_of(pa.chunked_array([pa.array([str(value) for value in column.to_pylist()], pa.string())]))
    if pa.types.is_integer(kind):
        return text_hashes_of(column.cast(pa.float64(), safe=False))
    return text_hashes_of(column)


def _shared(name: str, places: npt.NDArray[np.intp], read: _Read) -> dict[str, Any]:
    """Return how many values of a column are in two parts, and some of them."""
    tables = read([name])
    hashes = np.concatenate([text_hashes_of(table[name]) for table in tables])
    there = np.concatenate([table[name].is_valid().to_numpy() for table in tables])
    doubled = _in_two(hashes, places) & there
    values, first = np.unique(hashes[doubled], return_index=True)
    rows = np.flatnonzero(doubled)[first[:MOST_EXAMPLES]]
    column = pa.chunked_array(
        [chunk for table in tables for chunk in table[name].cast(pa.string()).chunks], pa.string()
    )
    examples = [str(column[int(row)].as_py())[:MOST_TEXT] for row in rows]
    return {"values": len(values), "examples": sorted(examples)}


def _in_two(hashes: Hashes, places: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Tell for each row whether its value is in a row of another part too."""
    _, group = np.unique(hashes, return_inverse=True)
    group = group.ravel()
    low = np.full(int(group.max(initial=-1)) + 1, np.iinfo(np.intp).max)
    high = np.full(len(low), -1, np.intp)
    np.minimum.at(low, group, places)
    np.maximum.at(high, group, places)
    return (low != high)[group]


def _shared_rows(hashes: Hashes, places: npt.NDArray[np.intp]) -> dict[str, Any]:
    """Count rows that another part has as well, but for what tells rows apart."""
    count = int(np.count_nonzero(_in_two(hashes, places)))
    return {"rows": count, "share": count / len(hashes)}


def _check_apart(name: str, shared: Mapping[str, Any], split: Split) -> None:
    if shared["values"]:
        raise InvalidInput(
            f"{shared['values']:,} values of “{name}” are in two parts, such as {', '.join(shared['examples'])}.",
            why=f"They are to be apart, and rows are divided by {split.by} (“{split.column}”).",
            mend=f"Keep equal values together: --by group --column {name}",
            facts={"column": name, "values": shared["values"]},
        )
