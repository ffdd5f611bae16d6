"""A key names one row: in its file, and in all files of a version together."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from holdtrue.core.errors import InvalidInput
from holdtrue.data.profiling import hashes_of, plain_texts
from holdtrue.data.reading import read_rows
from holdtrue.storage import BlobStore

_NAMED = 3


def check_key(path: str, table: pa.Table, key: str) -> None:
    """Raise InvalidInput unless the rows of one file, or of what `path` calls it, have a key each of their own."""
    if key not in table.column_names:
        raise InvalidInput(
            f"{path} has no column “{key}”, which shall be the key.",
            why=f"Its columns: {', '.join(table.column_names[:20])}.",
            mend="Name another column with --key, or none.",
        )
    column = table[key]
    if column.null_count:
        raise InvalidInput(
            f"The key “{key}” is missing in {column.null_count} rows of {path}.",
            why="A key names its row.",
            mend="Mend these rows, or name another column with --key.",
        )
    counts = column.value_counts()
    twice = [each["values"] for each in counts.to_pylist() if each["counts"] > 1] if len(counts) < len(column) else []
    if twice:
        raise InvalidInput(
            f"The key “{key}” is doubled in {path}: {len(twice)} keys, such as {', '.join(map(str, twice[:3]))}.",
            why="A key names one row.",
            mend="Remove the doubled rows, or name another column with --key.",
        )


def check_keys(blobs: BlobStore, digests: Mapping[str, str], key: str) -> None:
    """Raise InvalidInput if a key is in two of these stored files, each of which has it once at most.

    Only the column of keys is read. Two keys are the same if their texts have one hash of 64 bits.
    """
    if len(digests) < 2:
        return
    names = list(digests)
    columns = [plain_texts(read_rows(blobs, digests[name], [key])[key].cast(pa.string())) for name in names]
    hashes = np.concatenate([hashes_of(column) for column in columns])
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    again = np.flatnonzero(ordered[1:] == ordered[:-1])
    if not len(again):
        return
    ends = np.cumsum([len(column) for column in columns])
    first, second = (int(np.searchsorted(ends, order[again[0] + step], side="right")) for step in (0, 1))
    shown = [_at(columns, ends, int(order[place])) for place in again[:_NAMED]]
    raise InvalidInput(
        f"The key “{key}” is doubled in {len(again):,} rows, such as {', '.join(shown)}.",
        why=f"A key names one row, and {shown[0]} is in {names[first]} and in {names[second]}.",
        mend="Remove the doubled rows from one of the files, or name another column with --key.",
        facts={"key": key, "files": [names[first], names[second]]},
    )


def _at(columns: "list[pa.Array[str]]", ends: np.ndarray, place: int) -> str:
    number = int(np.searchsorted(ends, place, side="right"))
    return str(columns[number][place - (int(ends[number - 1]) if number else 0)].as_py())
