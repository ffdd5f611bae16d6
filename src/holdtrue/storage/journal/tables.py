"""Columnar JSON frames as Arrow tables, and many tables as one."""

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from holdtrue.storage.journal.frames import ROW, Frame

_PIECE = 8 << 20
# Each holds what those before it hold: a boolean among numbers is 0 or 1, anything among strings is text.
_KINDS = (pa.null(), pa.bool_(), pa.int64(), pa.float64(), pa.string())


def decode_frames(frames: Iterable[Frame], columns: Collection[str] | None = None) -> pa.Table:
    """Return the rows of frames of one stream with `_row`, their place in the segment (int64)."""
    parts: list[pa.Table] = []
    present: tuple[str, ...] | None = None
    lists: dict[str, list[Any]] = {}
    rows: list[tuple[int, int]] = []
    size = 0
    for frame in frames:
        data: dict[str, Any] = orjson.loads(frame.payload)
        size += len(frame.payload)
        # Values as Python objects take ten times the room they take in Arrow: they are converted in pieces.
        if present != (names := tuple(data)) or size > _PIECE:
            if present is not None:
                parts.append(_build(lists, rows))
            present, rows, size = names, [], 0
            lists = {name: [] for name in names if columns is None or name in columns}
        for name, target in lists.items():
            values = data[name]
            target.extend(values if type(values) is list else [values] * frame.rows)
        rows.append((frame.row, frame.rows))
    if present is not None:
        parts.append(_build(lists, rows))
    return concat(parts)


def _build(lists: dict[str, list[Any]], rows: list[tuple[int, int]]) -> pa.Table:
    starts = np.array([start for start, _ in rows], np.int64)
    counts = np.array([count for _, count in rows], np.int64)
    before = np.concatenate(([0], np.cumsum(counts)[:-1]))
    places = np.arange(counts.sum()) + np.repeat(starts - before, counts)
    return pa.table({**{name: array(values) for name, values in lists.items()}, ROW: pa.array(places)})


def array(values: list[Any]) -> pa.Array:
    """Return JSON values as the narrowest of null, bool, int64, float64 and string that holds them all.

    Lists and objects become text (JSON).
    """
    try:
        result = pa.array(values)
        if result.type in _KINDS:
            return result
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        pass
    if all(value is None or isinstance(value, int | float) for value in values):
        numbers = pa.array([None if value is None else float(value) for value in values], pa.float64())
        return numbers if any(type(value) is float for value in values) else _whole(numbers, values)
    return pa.array([_text(value) for value in values], pa.string())


def _whole(numbers: pa.Array, values: list[Any]) -> pa.Array:
    try:
        return pa.array([None if value is None else int(value) for value in values], pa.int64())
    except OverflowError:  # beyond int64
        return numbers


def _text(value: Any) -> str | None:
    if value is None or type(value) is str:
        return value
    return orjson.dumps(value).decode()


def concat(parts: list[pa.Table]) -> pa.Table:
    """Return tables one after another: union of their columns, types widened."""
    parts = [part for part in parts if part.num_columns]
    if not parts:
        return pa.table({})
    if len(parts) == 1:
        return parts[0]
    try:
        return pa.concat_tables(parts, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.concat_tables(_align(parts), promote_options="default")


def _align(parts: list[pa.Table]) -> list[pa.Table]:
    """Cast columns whose types differ between tables to one type that holds all."""
    types: dict[str, pa.DataType] = {}
    for part in parts:
        for field in part.schema:
            types[field.name] = _widest(types.get(field.name, pa.null()), field.type)
    return [
        pa.table([_cast(part[name], types[name]) for name in part.column_names], names=part.column_names)
        for part in parts
    ]


def _widest(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    return max(one, other, key=_KINDS.index)


def _cast(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    return column if column.type == wanted else pc.cast(column, wanted, safe=False)


def first_of_each(table: pa.Table, order: np.ndarray | None) -> pa.Table:
    """Return the first row of each id, in order of `order` (int64 keys; None: as the rows stand)."""
    if order is not None and (np.diff(order) < 0).any():
        table = table.take(pa.array(np.argsort(order, kind="stable")))
    ids = table["id"]
    if pc.call_function("count_distinct", [ids]).as_py() == len(ids):
        return table
    codes = ids.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    _, first = np.unique(codes, return_index=True)
    return table.take(pa.array(np.sort(first)))
