"""Features as they were known at a moment of the past: point-in-time joins.

Rows are found by binary search in one sorted key of entity and moment. DuckDB's ASOF join was measured for this and does
the same in about twice the time; of several rows with one moment it takes any, and which one changes from run to run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.features.model import Latest, Trailing, View, microseconds_of

Floats: TypeAlias = NDArray[np.float64]
Longs: TypeAlias = NDArray[np.int64]
Places: TypeAlias = NDArray[np.intp]

_UNKNOWN = -1


def point_in_time(
    queries: pa.Table, views: Sequence[View], sources: Mapping[str, pa.Table], *, time: str
) -> pa.Table:
    """Return `queries` with one float64 column per feature, in the same order of rows.

    A query row asks for its entity's values at its column `time`. No source row counts before its own time; of several
    rows with one moment the last in the source counts, as it does where they arrive. Missing values are NaN.
    Moments are timestamps with a zone, or int64 microseconds. Raises NotFound and InvalidInput.
    """
    joiner = _Joiner(queries, sources, _moments(queries, time, "the query rows"))
    result = queries
    for view in views:
        values = joiner.latest(view) if isinstance(view, Latest) else joiner.trailing(view)
        for name, column in zip(view.features, values, strict=True):
            if name in result.column_names:
                raise InvalidInput(
                    f"Two columns would have the name “{name}”.",
                    why=f"The feature view “{view.name}” makes it, and the rows have it already.",
                    mend="Give the view another name.",
                )
            result = result.append_column(name, pa.array(column))
    return result


@dataclass(frozen=True, slots=True)
class _Moments:
    """Microseconds since the epoch, and which of them are known."""

    values: Longs
    known: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Timeline:
    """Source rows sorted by entity, moment and place, as one ascending int64 key; and the queries' entities.

    `rows` are numbers of source rows; `codes` of queries are -1 where the source has no such entity.
    """

    rows: Places
    moments: Longs
    key: Longs
    codes: Longs
    low: int
    span: int

    def before(self, moments: Longs, *, inclusive: bool) -> Places:
        """Return for each query the number of sorted rows before `moments` of its entity, or up to them."""
        inside = np.clip(moments - self.low, -1 if inclusive else 0, self.span - 1)
        return np.searchsorted(self.key, self.codes * self.span + inside, "right" if inclusive else "left")


@dataclass(slots=True)
class _Joiner:
    """Join views to one table of queries; timelines are shared by views that read the same rows."""

    queries: pa.Table
    sources: Mapping[str, pa.Table]
    asked: _Moments
    timelines: dict[tuple[str, ...], _Timeline] = field(default_factory=dict[tuple[str, ...], _Timeline])

    def latest(self, view: Latest) -> list[Floats]:
        """Return the columns of a view of last values."""
        line = self._timeline(view, None)
        found = line.before(self.asked.values, inclusive=True) - 1
        first = line.before(np.full(len(found), line.low, np.int64), inclusive=False)
        hit = (found >= first) & (line.codes != _UNKNOWN)
        found[~hit] = 0
        if len(line.rows) == 0:
            return [np.full(len(hit), np.nan) for _ in view.columns]
        hit &= self.asked.values - line.moments[found] <= microseconds_of(view.ttl)
        hit &= self.asked.known
        rows = line.rows[found]
        source = self.sources[view.source]
        return [np.where(hit, _numbers(source, name, view)[rows], np.nan) for name in view.columns]

    def trailing(self, view: Trailing) -> list[Floats]:
        """Return the columns of a view of aggregates: whole tiles first, then the begun one up to the moment."""
        values = _numbers(self._source(view), view.column, view)
        line = self._timeline(view, values)
        values = values[line.rows]
        tile, window = microseconds_of(view.tile), microseconds_of(view.window)
        begun = self.asked.values // tile * tile
        start = line.before(begun - window, inclusive=False)
        middle = line.before(begun, inclusive=False)
        end = line.before(self.asked.values, inclusive=True)
        for place in (start, middle, end):
            place[line.codes == _UNKNOWN] = 0
        windows = _Windows(values, _tile_starts(line, tile), start, middle, end)
        n = (end - start).astype(np.float64)
        some = n > 0
        columns: list[Floats] = []
        for aggregate in view.aggregates:
            if aggregate == "count":
                column = n
            elif aggregate in ("mean", "sum"):
                total = windows.reduce(np.add, 0.0)
                column = total / np.maximum(n, 1) if aggregate == "mean" else total
            elif aggregate == "min":
                column = windows.reduce(np.minimum, np.inf)
            else:
                column = windows.reduce(np.maximum, -np.inf)
            kept = column if aggregate == "count" else np.where(some, column, np.nan)
            columns.append(np.where(self._asked_for(view), kept, np.nan))
        return columns

    def _asked_for(self, view: View) -> NDArray[np.bool_]:
        """Tell which queries name an entity and a moment at all."""
        entity = _column(self.queries, view.entity, "the query rows")
        return self.asked.known & pc.is_valid(entity).to_numpy()

    def _source(self, view: View) -> pa.Table:
        if view.source not in self.sources:
            raise NotFound.of("source", view.source)
        return self.sources[view.source]

    def _timeline(self, view: View, values: Floats | None) -> _Timeline:
        """Return the timeline of a view; with `values`, of the rows only that have one."""
        own = () if isinstance(view, Latest) else (view.column,)
        name = (view.source, view.entity, view.time, *own)
        if name not in self.timelines:
            source = self._source(view)
            moments = _moments(source, view.time, f"the source “{view.source}”")
            codes, asked = _encode(
                _column(source, view.entity, f"the source “{view.source}”"),
                _column(self.queries, view.entity, "the query rows"),
            )
            usable = moments.known & (codes != _UNKNOWN)
            if values is not None:
                usable &= ~np.isnan(values)
            self.timelines[name] = _sorted(np.flatnonzero(usable), moments.values, codes, asked)
        return self.timelines[name]


@dataclass(frozen=True, slots=True)
class _Windows:
    """The windows of queries over sorted rows: whole tiles are [start, middle), single rows [middle, end)."""

    values: Floats
    tiles: Places
    start: Places
    middle: Places
    end: Places

    def reduce(self, operation: np.ufunc, empty: float) -> Floats:
        """Return float64 [queries]: `operation` over each window; `empty` where there is nothing.

        Every window is added up on its own. Differences of running totals would be faster, and would let one
        huge value spoil the last digits of all later windows.
        """
        if len(self.values) == 0:
            return np.full(len(self.start), empty)
        totals = operation.reduceat(self.values, self.tiles)
        first, last = np.searchsorted(self.tiles, self.start), np.searchsorted(self.tiles, self.middle)
        whole = _segments(operation, totals, first, last, empty)
        return operation(whole, _segments(operation, self.values, self.middle, self.end, empty))


def _segments(operation: np.ufunc, values: Floats, low: Places, high: Places, empty: float) -> Floats:
    """Return `operation` over values[low:high] for each pair, `empty` where low = high."""
    # reduceat also reduces what lies between two windows: sorted, that is at most once everything.
    order = np.argsort(low, kind="stable")
    pairs = np.empty(2 * len(low), np.intp)
    pairs[0::2], pairs[1::2] = low[order], high[order]
    out = np.empty(len(low))
    out[order] = operation.reduceat(np.append(values, empty), pairs)[0::2] if len(low) else 0.0
    return np.where(low < high, out, empty)


def _tile_starts(line: _Timeline, tile: int) -> Places:
    """Return the places of sorted rows at which another entity or another tile begins."""
    if len(line.rows) == 0:
        return np.empty(0, np.intp)
    tiles, entities = line.moments // tile, line.key // line.span
    changes = (tiles[1:] != tiles[:-1]) | (entities[1:] != entities[:-1])
    return np.concatenate([[0], np.flatnonzero(changes) + 1]).astype(np.intp)


def _sorted(rows: Places, moments: Longs, codes: Longs, asked: Longs) -> _Timeline:
    moments, codes = moments[rows], codes[rows]
    if len(rows) == 0:
        return _Timeline(rows, moments, moments, np.full(len(asked), _UNKNOWN, np.int64), 0, 1)
    low = int(moments.min())
    span = int(moments.max()) - low + 2
    if span * (int(codes.max()) + 1) >= 2**62:
        raise InvalidInput(
            "The moments of a source lie too far apart.",
            why=f"{int(codes.max()) + 1} entities over {span // 86_400_000_000} days do not fit one 64-bit key.",
            mend="Leave out rows of the far past or future: they are mostly mistakes.",
        )
    key = codes * span + (moments - low)
    # Stable, so that among equal moments the order of the source remains.
    order = np.argsort(key, kind="stable")
    return _Timeline(rows[order], moments[order], key[order], asked, low, span)


def _encode(source: pa.ChunkedArray, asked: pa.ChunkedArray) -> tuple[Longs, Longs]:
    """Return int64 codes of the entities on both sides, -1 for a missing one."""
    left, right = _plain(source), _plain(asked)
    if left.type != right.type and not (pa.types.is_null(left.type) or pa.types.is_null(right.type)):
        raise InvalidInput(
            f"An entity is {left.type} in the source and {right.type} in the query rows.",
            why="Values of different types are never equal.",
            mend="Make both the same type.",
        )
    kind = right.type if pa.types.is_null(left.type) else left.type
    both = pa.chunked_array([*left.cast(kind).chunks, *right.cast(kind).chunks], kind).combine_chunks()
    codes = both.dictionary_encode().indices.fill_null(_UNKNOWN).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes[: len(source)], codes[len(source) :]


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_integer(kind):
        return column.cast(pa.int64())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    if pa.types.is_null(kind):
        return column
    raise InvalidInput(
        f"An entity cannot be of type {kind}.",
        why="Entities are whole numbers or texts: those are equal or not, without rounding.",
        mend="Make the entity's column one of these.",
    )


def _moments(table: pa.Table, name: str, where: str) -> _Moments:
    column = _column(table, name, where)
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    elif column.type != pa.int64() and not pa.types.is_null(column.type):
        raise InvalidInput(
            f"The column “{name}” of {where} is {column.type}, which is no moment.",
            why="A moment is a timestamp with a time zone, or int64 microseconds since the epoch.",
            mend="Say in which zone its values are, for example with DuckDB: timezone('UTC', column).",
            facts={"column": name},
        )
    known = pc.is_valid(column).to_numpy()
    filled = column.cast(pa.int64()).fill_null(0).to_numpy()
    return _Moments(filled, known)


def _numbers(table: pa.Table, name: str, view: View) -> Floats:
    column = _column(table, name, f"the source “{view.source}”")
    kind: Any = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    elif not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    ):
        raise InvalidInput(
            f"The feature view “{view.name}” reads “{name}”, which is {kind}.",
            why="Feature views give numbers.",
            mend="Choose a number, or make one of it in the source.",
            facts={"view": view.name, "column": name},
        )
    return column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy()


def _column(table: pa.Table, name: str, where: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise InvalidInput(
            f"The column “{name}” is not in {where}.",
            why=f"There are: {', '.join(table.column_names)}.",
            mend="Correct the name, or select the column too.",
            facts={"column": name},
        )
    return table[name]
