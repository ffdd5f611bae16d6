"""The online store: what is known of each entity now, shared by all processes of a data plane.

LMDB gives lock-free readers and one writer at a time across processes. It can be made again from the
event journal, so a commit does not wait for the disk.
"""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from numpy.typing import NDArray

from holdtrue.core.errors import InvalidInput
from holdtrue.features.model import Latest, Trailing, View, microseconds_of

_TILE = struct.Struct("<qdqdd")
"""One tile: rows, sum of values, last moment, least and greatest value."""
_NAN = float("nan")
_MAP_SIZE = 4 << 30


class OnlineStore:
    """Keep latest values and window tiles by view and entity in a folder."""

    def __init__(self, path: Path) -> None:
        """Open the store in the folder `path`, making it if needed."""
        self._env = lmdb.open(
            str(path),
            map_size=_MAP_SIZE,
            subdir=True,
            sync=False,
            metasync=False,
            max_readers=512,
            mode=0o600,
        )

    def close(self) -> None:
        """Close the store."""
        self._env.close()

    def ingest(
        self,
        views: Sequence[View],
        source: str,
        columns: Mapping[str, Sequence[Any]],
        ids: Sequence[str] | None = None,
    ) -> int:
        """Take rows of `source` into every view on it; return how many were new.

        Moments are int64 microseconds. Rows whose id was taken in before are left out; without ids every
        row counts. A row with no entity, time or value is left out of the view that needs it.
        """
        rows = len(next(iter(columns.values()))) if columns else 0
        mine = [view for view in views if view.source == source]
        for view in mine:
            _need(view, columns)
        with self._env.begin(write=True) as transaction:
            fresh = (
                range(rows)
                if ids is None
                else [row for row in range(rows) if _new(transaction, source, ids[row])]
            )
            for view in mine:
                if isinstance(view, Latest):
                    _take_latest(transaction, view, columns, fresh)
                else:
                    _take_trailing(transaction, view, columns, fresh)
        return len(fresh)

    def lookup(
        self, views: Sequence[View], entities: Mapping[str, Sequence[Any]], times: Sequence[int]
    ) -> dict[str, NDArray[np.float64]]:
        """Return float64 [n] per feature: what was known of each row's entity at its moment (µs)."""
        out: dict[str, NDArray[np.float64]] = {}
        with self._env.begin(buffers=True) as transaction:
            for view in views:
                find = _find_latest if isinstance(view, Latest) else _find_trailing
                known: dict[tuple[Any, int], tuple[float, ...]] = {}
                values: list[tuple[float, ...]] = []
                for entity, moment in zip(entities[view.entity], times, strict=True):
                    # Rows of one request ask for few entities at one moment: look each up once.
                    key = (entity, moment)
                    found = known.get(key)
                    if found is None:
                        found = known[key] = find(transaction, view, entity, moment)  # type: ignore[arg-type]
                    values.append(found)
                matrix = np.array(values, np.float64).reshape(len(values), len(view.features))
                for place, name in enumerate(view.features):
                    out[name] = matrix[:, place]
        return out


def _need(view: View, columns: Mapping[str, Any]) -> None:
    wanted = view.columns if isinstance(view, Latest) else (view.column,)
    for name in (view.entity, view.time, *wanted):
        if name not in columns:
            raise InvalidInput(
                f"Events of “{view.source}” need the column “{name}”.",
                why=f"The feature view “{view.name}” reads it; the events have: {', '.join(columns)}.",
                mend="Send the column, with null where a value is not known.",
                facts={"source": view.source, "column": name},
            )


def _new(transaction: Any, source: str, id: str) -> bool:
    return transaction.put(f"i\0{source}\0{id}".encode()[:500], b"", overwrite=False)


def _prefix(view: View, entity: Any) -> bytes:
    return f"v\0{view.name}\0{view.time}\0{entity}\0".encode()[:480]


def _take_latest(
    transaction: Any, view: Latest, columns: Mapping[str, Sequence[Any]], rows: Sequence[int]
) -> None:
    pack = struct.Struct(f"<q{len(view.columns)}d").pack
    entities, moments = columns[view.entity], columns[view.time]
    taken = [columns[name] for name in view.columns]
    for row in rows:
        if entities[row] is None or moments[row] is None:
            continue
        values = [_NAN if column[row] is None else float(column[row]) for column in taken]
        key = _prefix(view, entities[row])
        held = transaction.get(key)
        # A late row does not replace a newer one.
        if held is None or struct.unpack_from("<q", held)[0] <= moments[row]:
            transaction.put(key, pack(moments[row], *values))


def _take_trailing(
    transaction: Any, view: Trailing, columns: Mapping[str, Sequence[Any]], rows: Sequence[int]
) -> None:
    tile = microseconds_of(view.tile)
    entities, moments, values = columns[view.entity], columns[view.time], columns[view.column]
    for row in rows:
        value = values[row]
        if entities[row] is None or moments[row] is None or value is None:
            continue
        number = float(value)
        key = _prefix(view, entities[row]) + struct.pack(">q", moments[row] // tile)
        held = transaction.get(key)
        if held is None:
            transaction.put(key, _TILE.pack(1, number, moments[row], number, number))
            continue
        n, total, last, low, high = _TILE.unpack(held)
        transaction.put(
            key,
            _TILE.pack(n + 1, total + number, max(last, moments[row]), min(low, number), max(high, number)),
        )


def _find_latest(transaction: Any, view: Latest, entity: Any, moment: int) -> tuple[float, ...]:
    held = transaction.get(_prefix(view, entity))
    if held is None:
        return (_NAN,) * len(view.columns)
    at, *values = struct.unpack(f"<q{len(view.columns)}d", held)
    alive = 0 <= moment - at <= microseconds_of(view.ttl)
    return tuple(values) if alive else (_NAN,) * len(view.columns)


def _find_trailing(transaction: Any, view: Trailing, entity: Any, moment: int) -> tuple[float, ...]:
    tile = microseconds_of(view.tile)
    prefix = _prefix(view, entity)
    last = moment // tile
    n, total, low, high = 0, 0.0, float("inf"), float("-inf")
    for number in range(last - microseconds_of(view.window) // tile, last + 1):
        held = transaction.get(prefix + struct.pack(">q", number))
        if held is not None:
            count, subtotal, _, least, greatest = _TILE.unpack(held)
            n, total = n + count, total + subtotal
            low, high = min(low, least), max(high, greatest)
    known = {
        "mean": total / n if n else _NAN,
        "count": float(n),
        "sum": total if n else _NAN,
        "min": low if n else _NAN,
        "max": high if n else _NAN,
    }
    return tuple(known[aggregate] for aggregate in view.aggregates)
