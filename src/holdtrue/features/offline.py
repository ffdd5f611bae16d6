"""Features as they were known at a moment of the past: point-in-time joins.

Rows are found by binary search in one sorted key of entity and moment. DuckDB's ASOF join was measured for
this and does the same in about twice the time; of several rows with one moment it takes any, and which one
changes from run to run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.features.model import Latest, Trailing, View, microseconds_of, number_of_text
from holdtrue.features.windows import Windows, known_windows, last_known

Floats: TypeAlias = NDArray[np.float64]
Longs: TypeAlias = NDArray[np.int64]
Places: TypeAlias = NDArray[np.intp]

_UNKNOWN = -1
_DENSE = 4
"""How many times as many numbers as rows an entity's range may have, for the numbers to be used as they are."""


def point_in_time(queries: pa.Table, views: Sequence[View], sources: Mapping[str, pa.Table], *, time: str) -> pa.Table:
    """Return `queries` with one float64 column per feature, in the same order of rows.

    A query row asks for its entity's values at its column `time`. No source row counts before its own time, and where
    the view names a column `created` not before that. Of several rows with one moment the one created last counts, and
    of these the last in the source, as it does where they arrive. Missing values are NaN. Moments are timestamps with a
    zone, or int64 microseconds. Raises NotFound and InvalidInput.
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
    """Source rows sorted by entity, moment and place, as one ascending int64 key; queries sorted likewise.

    For last values queries are sorted by entity alone, which is quicker and has the rows of one at hand as well. `rows`
    are numbers of source rows, `order` of queries; `codes` and `asked` (µs) are the queries' in that order, so that
    searches run through the key once. A code is -1 where the source has no such entity. `created` are
    the moments from which the sorted rows count, if that is not from their own.
    """

    rows: Places
    moments: Longs
    key: Longs
    order: Places
    codes: Longs
    asked: Longs
    low: int
    span: int
    created: Longs | None = None

    def before(self, moments: Longs, *, inclusive: bool) -> Places:
        """Return for each query the number of sorted rows before `moments` of its entity, or up to them."""
        inside = np.clip(moments - self.low, -1 if inclusive else 0, self.span - 1)
        return np.searchsorted(self.key, self.codes * self.span + inside, "right" if inclusive else "left")

    def restored(self, values: Floats) -> Floats:
        """Return values of queries in the order in which they were asked."""
        out = np.empty_like(values)
        out[self.order] = values
        return out


@dataclass(slots=True)
class _Joiner:
    """Join views to one table of queries; timelines are shared by views that read the same rows."""

    queries: pa.Table
    sources: Mapping[str, pa.Table]
    asked: _Moments
    timelines: dict[tuple[str, ...], _Timeline] = field(default_factory=dict[tuple[str, ...], _Timeline])

    def latest(self, view: Latest) -> list[Floats]:
        """Return the columns of a view of last values."""
        source = self._source(view)
        columns = [_numbers(source, name, view) for name in view.columns]
        line = self._timeline(view, None)
        if len(line.rows) == 0:
            return [np.full(len(line.order), np.nan) for _ in view.columns]
        found = line.before(line.asked, inclusive=True) - 1
        if line.created is not None:
            first = line.before(np.full(len(found), line.low, np.int64), inclusive=False)
            found = last_known(line.created, found, first, line.asked)
        hit = (found >= 0) & (line.codes != _UNKNOWN)
        found[~hit] = 0
        # The row before may be of another entity, which has no row then.
        hit &= line.key[found] // line.span == line.codes
        hit &= line.asked - line.moments[found] <= microseconds_of(view.ttl)
        hit &= self.asked.known[line.order]
        rows, missed = np.empty(len(found), np.intp), np.empty(len(found), np.bool_)
        rows[line.order], missed[line.order] = line.rows[found], ~hit
        taken = [column[rows] for column in columns]
        for column in taken:
            column[missed] = np.nan
        return taken

    def trailing(self, view: Trailing) -> list[Floats]:
        """Return the columns of a view of aggregates: whole tiles, then the begun one up to the moment."""
        values = _numbers(self._source(view), view.column, view)
        line = self._timeline(view, values)
        values = values[line.rows]
        tile, window = microseconds_of(view.tile), microseconds_of(view.window)
        begun = line.asked // tile * tile
        places = (
            line.before(begun - window, inclusive=False),
            line.before(begun, inclusive=False),
            line.before(line.asked, inclusive=True),
        )
        for place in places:
            place[line.codes == _UNKNOWN] = 0
        windows = Windows(values, line.key // line.span, _tile_starts(line, tile), *places)
        columns = [windows.aggregate(name) for name in view.aggregates]
        if line.created is not None and len(values):
            for queries, known in known_windows(windows, line.created, line.asked):
                for column, name in zip(columns, view.aggregates, strict=True):
                    column[queries] = known.aggregate(name)
        asked_for = self._asked_for(view)
        return [np.where(asked_for, line.restored(column), np.nan) for column in columns]

    def _asked_for(self, view: View) -> NDArray[np.bool_]:
        """Tell which queries name an entity and a moment at all."""
        entity = _column(self.queries, view.entity, "the query rows")
        return self.asked.known & entity.is_valid().to_numpy()

    def _source(self, view: View) -> pa.Table:
        if view.source not in self.sources:
            raise NotFound.of("source", view.source)
        return self.sources[view.source]

    def _timeline(self, view: View, values: Floats | None) -> _Timeline:
        """Return the timeline of a view; with `values`, of the rows only that have one."""
        own = () if isinstance(view, Latest) else (view.column,)
        name = (view.source, view.entity, view.time, view.created or "", *own)
        if name not in self.timelines:
            source = self._source(view)
            moments = _moments(source, view.time, f"the source “{view.source}”")
            codes, asked = _encode(
                _column(source, view.entity, f"the source “{view.source}”"),
                _column(self.queries, view.entity, "the query rows"),
            )
            usable = moments.known & (codes != _UNKNOWN)
            created: Longs | None = None
            if view.created is not None:
                found = _moments(source, view.created, f"the source “{view.source}”")
                usable, created = usable & found.known, found.values
            if values is not None:
                usable &= ~np.isnan(values)
            rows = np.flatnonzero(usable)
            exact = values is not None
            self.timelines[name] = _sorted(rows, moments.values, codes, asked, self.asked.values, created, exact=exact)
        return self.timelines[name]


def _tile_starts(line: _Timeline, tile: int) -> Places:
    """Return the places of sorted rows at which another entity or another tile begins."""
    if len(line.rows) == 0:
        return np.empty(0, np.intp)
    tiles, entities = line.moments // tile, line.key // line.span
    changes = (tiles[1:] != tiles[:-1]) | (entities[1:] != entities[:-1])
    return np.concatenate([[0], np.flatnonzero(changes) + 1]).astype(np.intp)


def _sorted(
    rows: Places, moments: Longs, codes: Longs, asked_codes: Longs, asked: Longs, created: Longs | None, *, exact: bool
) -> _Timeline:
    if len(rows) == 0:
        every = np.arange(len(asked))
        nothing = np.empty(0, np.int64)
        return _Timeline(rows, nothing, nothing, every, np.full(len(asked), _UNKNOWN, np.int64), asked, 0, 1)
    if len(rows) < len(moments):
        moments, codes = moments[rows], codes[rows]
    low = int(moments.min())
    span = int(moments.max()) - low + 2
    entities = int(max(codes.max(), asked_codes.max(initial=0))) + 1
    if span * entities >= 2**62:
        codes, asked_codes = _compact(codes, asked_codes)
        entities = int(codes.max()) + 1
    if span * entities >= 2**62:
        raise InvalidInput(
            "The moments of a source lie too far apart.",
            why=f"{entities} entities over {span // 86_400_000_000} days do not fit one 64-bit key.",
            mend="Leave out rows of the far past or future: they are mostly mistakes.",
        )
    key = codes * span + (moments - low)
    # Stable, so that among equal moments the order of the source remains.
    sort = _order(codes, moments) if created is None else np.lexsort((created[rows], key))
    known = None if created is None else created[rows][sort]
    order = _order(asked_codes, asked) if exact else _by_entity(asked_codes)
    return _Timeline(rows[sort], moments[sort], key[sort], order, asked_codes[order], asked[order], low, span, known)


def _compact(codes: Longs, asked: Longs) -> tuple[Longs, Longs]:
    """Return codes that leave no number out, -1 for those that are asked for and not there."""
    known, compact = np.unique(codes, return_inverse=True)
    places = np.searchsorted(known, asked)
    there = known[np.minimum(places, len(known) - 1)] == asked
    return compact.astype(np.int64), np.where(there, places, _UNKNOWN).astype(np.int64)


def _order(codes: Longs, moments: Longs) -> Places:
    """Return the order by entity and moment; equal ones stay in theirs."""
    if bool((moments[1:] >= moments[:-1]).all()):
        # As logs mostly are: only the entities have to be sorted.
        return _by_entity(codes)
    low, entities = int(moments.min()), int(codes.max()) + 2
    span = int(moments.max()) - low + 1
    if span * entities >= 2**62:
        return np.lexsort((moments, codes))
    return np.argsort(codes * span + (moments - low), kind="stable")


def _by_entity(codes: Longs) -> Places:
    """Return the order by entity; those of one stay in theirs. NumPy sorts 16 bits by radix, several times faster."""
    if int(codes.max(initial=0)) >= 2**32 - 1:
        return np.argsort(codes, kind="stable")
    shifted = codes + 1
    order = np.argsort((shifted & 0xFFFF).astype(np.uint16), kind="stable")
    if int(shifted.max(initial=0)) > 0xFFFF:
        order = order[np.argsort((shifted[order] >> 16).astype(np.uint16), kind="stable")]
    return order


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
    if kind == pa.int64():
        codes = _offsets(left.cast(kind), right.cast(kind))
        if codes is not None:
            return codes
    both = pa.chunked_array([*left.cast(kind).chunks, *right.cast(kind).chunks], kind).combine_chunks()
    codes = both.dictionary_encode().indices.fill_null(_UNKNOWN).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes[: len(source)], codes[len(source) :]


def _offsets(source: pa.ChunkedArray, asked: pa.ChunkedArray) -> tuple[Longs, Longs] | None:
    """Return whole numbers less the least of the source, -1 outside its range; None if that range is wide."""
    if source.null_count == len(source):
        return None
    known = source.drop_null().to_numpy()
    low, high = int(known.min()), int(known.max())
    if high - low >= max(_DENSE * len(source), 1 << 16):
        return None

    def offsets(column: pa.ChunkedArray) -> Longs:
        values = _filled(column, low)
        inside = (values >= low) & (values <= high)
        if column.null_count:
            inside &= column.is_valid().to_numpy()
        return np.where(inside, np.clip(values, low, high) - low, _UNKNOWN)

    return offsets(source), offsets(asked)


def _filled(column: pa.ChunkedArray, value: Any) -> Any:
    """Return a column as an array, with `value` where one is missing; nothing is copied where none is."""
    return (column.fill_null(value) if column.null_count else column).to_numpy()


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
    known = column.is_valid().to_numpy()
    return _Moments(_filled(column.cast(pa.int64()), 0), known)


def _numbers(table: pa.Table, name: str, view: View) -> Floats:
    column = _column(table, name, f"the source “{view.source}”")
    kind: Any = column.type
    if isinstance(view, Trailing) and view.takes_texts and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return _numbers_of_texts(column)
    if pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    elif not (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)
    ):
        raise InvalidInput(
            f"The feature view “{view.name}” reads “{name}”, which is {kind}.",
            why="Feature views give numbers.",
            mend="Choose a number, or make one of it in the source.",
            facts={"view": view.name, "column": name},
        )
    return _filled(column.cast(pa.float64(), safe=False), np.nan)


def _numbers_of_texts(column: pa.ChunkedArray) -> Floats:
    encoded = column.combine_chunks().dictionary_encode()
    numbers = np.array([*map(number_of_text, encoded.dictionary.to_pylist()), np.nan])
    return numbers[encoded.indices.fill_null(len(numbers) - 1).to_numpy(zero_copy_only=False)]


def _column(table: pa.Table, name: str, where: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise InvalidInput(
            f"The column “{name}” is not in {where}.",
            why=f"There are: {', '.join(table.column_names)}.",
            mend="Correct the name, or select the column too.",
            facts={"column": name},
        )
    return table[name]
