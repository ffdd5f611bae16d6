"""How rows are kept online: what a view asks for, what it makes of the answer, and how new rows are merged in.

Rows are kept as they came, with their moments: so an answer is for the moment asked, exactly as `offline` computes it,
also when a row is late or the question is about a moment before the newest row.
"""

import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, NamedTuple, TypeAlias

from holdtrue.core.canonical import canonical_bytes
from holdtrue.features.keeper import LEAD, TAG, Ask, Change, Merged
from holdtrue.features.model import Aggregate, Latest, Trailing, View, microseconds_of

Values: TypeAlias = "tuple[float, ...]"

NAN: Final = float("nan")
_LATEST_ROWS: Final = 1024
_VERSIONS: Final = 16
_EXTRA_TILES: Final = 192
_HEAD: Final = struct.Struct("<qddd")
"""The last moment of a tile's rows, their sum, least and greatest value; its rows follow."""
_BODY: Final = LEAD + _HEAD.size


class Row(NamedTuple):
    """Hold a row of a source: its moments (µs), values, and a hash of its id (0: it has none)."""

    moment: int
    values: Values
    mark: int
    created: int


class Found(NamedTuple):
    """Hold a view's features, and the moment (µs) of the newest row they are made of."""

    values: Values
    moment: int | None


class Format(NamedTuple):
    """Say how a view's rows are kept, asked for and read.

    `tag` names what is kept by what the view is; names, aggregates and age limits are not in it, as they change
    nothing of that. `ask` makes the question for an entity's prefix at a moment. `read` makes its answer from what was
    kept, or returns an earlier moment for which to ask instead; `dated` does the same and says how new it is.
    """

    view: View
    tag: bytes
    features: tuple[str, ...]
    nothing: Values
    ask: Callable[[bytes, int], Ask]
    read: Callable[[Any, int], "Values | int"]
    dated: Callable[[Any, int], "Found | int"]
    change: "Callable[[bytes, Sequence[int], Sequence[Row]], Change]"


def format_of(view: View) -> Format:
    """Return how the rows of a view are kept."""
    created = () if view.created is None else (view.created,)
    if isinstance(view, Latest):
        kept: list[Any] = ["latest", view.source, view.entity, view.time, list(view.columns), *created]
        form = _Versions(view) if created else _LastValues(view)
        return _format(view, kept, form, (NAN,) * len(view.columns))
    tile, window = microseconds_of(view.tile), microseconds_of(view.window)
    texts = ("texts",) if view.takes_texts else ()
    kept = ["trailing", view.source, view.entity, view.time, view.column, tile, window, *created, *texts]
    return _format(view, kept, _Tiles(view, tile, window), (NAN,) * len(view.aggregates))


def _format(view: View, kept: list[Any], form: "_LastValues | _Versions | _Tiles", nothing: Values) -> Format:
    tag = blake2b(canonical_bytes(kept), digest_size=TAG).digest()
    return Format(view, tag, view.features, nothing, form.ask, form.read, form.dated, form.change)


class _LastValues:
    """Keep the last row of each moment: a hash of its id and its values."""

    def __init__(self, view: Latest) -> None:
        self._nothing = (NAN,) * len(view.columns)
        self._ttl = microseconds_of(view.ttl)
        self._form = struct.Struct(f"<Q{len(view.columns)}d")
        self._unpack = struct.Struct(f"<{len(view.columns)}d").unpack_from

    def ask(self, prefix: bytes, moment: int) -> Ask:
        """Ask for the last row."""
        return Ask(prefix, None, moment)

    def read(self, kept: "tuple[int, bytes] | None", moment: int) -> "Values | int":
        """Return the last values unless they are too old."""
        if kept is None or moment - kept[0] > self._ttl:
            return self._nothing
        return self._unpack(kept[1], LEAD + 8)

    def dated(self, kept: "tuple[int, bytes] | None", moment: int) -> "Found | int":
        """Return them with their moment."""
        values = self.read(kept, moment)
        assert isinstance(values, tuple)
        return Found(values, None if kept is None or values is self._nothing else kept[0])

    def change(self, prefix: bytes, numbers: Sequence[int], rows: Sequence[Row]) -> Change:
        """Put rows in their places; of several with one moment the last that came counts."""
        pack, marks = self._form.pack, struct.Struct("<Q").unpack_from

        def merge(held: Mapping[int, bytes]) -> Merged:
            puts: dict[int, bytes] = {}
            fresh: list[int] = []
            for number, row in zip(numbers, rows, strict=True):
                if row.mark:
                    if row.moment in puts:
                        present = marks(puts[row.moment])[0]
                    else:
                        present = marks(held[row.moment], LEAD)[0] if row.moment in held else 0
                    if present == row.mark:
                        continue
                puts[row.moment] = pack(row.mark, *row.values)
                fresh.append(number)
            return Merged(puts, fresh)

        return Change(prefix, tuple({row.moment: None for row in rows}), _LATEST_ROWS, merge)


class _Versions:
    """Keep the newest rows of each moment with the moments from which they count, in the order of these."""

    def __init__(self, view: Latest) -> None:
        self._nothing = (NAN,) * len(view.columns)
        self._ttl = microseconds_of(view.ttl)
        self._form = struct.Struct(f"<qQ{len(view.columns)}d")

    def ask(self, prefix: bytes, moment: int) -> Ask:
        """Ask for the rows of the last moment."""
        return Ask(prefix, None, moment)

    def read(self, kept: "tuple[int, bytes] | None", moment: int) -> "Values | int":
        """Return the last values known at `moment`, or the moment before, if none of this one was."""
        found = self.dated(kept, moment)
        return found if isinstance(found, int) else found.values

    def dated(self, kept: "tuple[int, bytes] | None", moment: int) -> "Found | int":
        """Return them with their moment."""
        if kept is None or moment - kept[0] > self._ttl:
            return Found(self._nothing, None)
        known = [entry for entry in self._form.iter_unpack(kept[1][LEAD:]) if entry[0] <= moment]
        return Found(known[-1][2:], kept[0]) if known else kept[0] - 1

    def change(self, prefix: bytes, numbers: Sequence[int], rows: Sequence[Row]) -> Change:
        """Put rows in their places; of several that count from one moment on, the last that came comes last."""
        pack = self._form.pack

        def merge(held: Mapping[int, bytes]) -> Merged:
            entries: dict[int, list[Any]] = {
                moment: list(self._form.iter_unpack(value[LEAD:])) for moment, value in held.items()
            }
            touched: dict[int, None] = {}
            fresh: list[int] = []
            for number, row in zip(numbers, rows, strict=True):
                mine = entries.setdefault(row.moment, [])
                if row.mark and any(entry[:2] == (row.created, row.mark) for entry in mine):
                    continue
                mine.insert(
                    bisect_right([entry[0] for entry in mine], row.created), (row.created, row.mark, *row.values)
                )
                touched[row.moment] = None
                fresh.append(number)
            puts = {moment: b"".join([pack(*entry) for entry in entries[moment][-_VERSIONS:]]) for moment in touched}
            return Merged(puts, fresh)

        return Change(prefix, tuple({row.moment: None for row in rows}), _LATEST_ROWS, merge)


class _Tiles:
    """Keep the rows of each tile with what they add up to; tiles of a window are merged."""

    def __init__(self, view: Trailing, tile: int, window: int) -> None:
        self._tile = tile
        self._tiles = window // tile
        self._extremes = bool({"min", "max"} & set(view.aggregates))
        self._last = "last" in view.aggregates
        self._distinct = "distinct" in view.aggregates
        self._plain = not (self._extremes or self._last or self._distinct)
        self._created = view.created is not None
        self._width = 32 if self._created else 24
        self._pick = _picker(view.aggregates)

    def ask(self, prefix: bytes, moment: int) -> Ask:
        """Ask for the tiles of the window."""
        begun = moment // self._tile
        return Ask(prefix, begun - self._tiles, begun)

    def read(self, kept: Sequence[bytes], moment: int) -> "Values | int":
        """Merge the tiles of a window; of one that is not over, the rows up to `moment`."""
        n, total, least, greatest, newest = 0, 0.0, float("inf"), float("-inf"), NAN
        seen = set[float]()
        unpack, width = _HEAD.unpack_from, self._width
        for held in kept:
            last, tile_sum, tile_least, tile_greatest = unpack(held, LEAD)
            if last > moment:
                values = _values_until(held, moment) if width == 24 else read_tile(held, True).values_until(moment)
                if not values:
                    continue
                n, total = n + len(values), total + sum(values)
                if not self._plain:
                    least, greatest = min(least, min(values)), max(greatest, max(values))
                    newest = values[-1]
                    seen.update(values)
                continue
            count = (len(held) - _BODY) // width
            n += count
            total += tile_sum
            if self._plain:
                continue
            if tile_least < least:
                least = tile_least
            if tile_greatest > greatest:
                greatest = tile_greatest
            if self._last:
                newest = struct.unpack_from("<d", held, _BODY + 16 * count - 8)[0]
            if self._distinct:
                seen.update(struct.unpack_from(f"<{count}d", held, _BODY + 8 * count))
        return self._pick(n, total, least, greatest, newest, len(seen))

    def dated(self, kept: Sequence[bytes], moment: int) -> "Found | int":
        """Return the aggregates with the moment of the newest row among theirs."""
        newest: int | None = None
        for held in reversed(kept):
            known = read_tile(held, self._created).moments_until(moment)
            if known:
                newest = known[-1]
                break
        values = self.read(kept, moment)
        assert isinstance(values, tuple)
        return Found(values, newest)

    def change(self, prefix: bytes, numbers: Sequence[int], rows: Sequence[Row]) -> Change:
        """Put rows into their tiles."""

        def merge(held: Mapping[int, bytes]) -> Merged:
            tiles: dict[int, Tile] = {}
            touched: dict[int, None] = {}
            fresh: list[int] = []
            for number, row in zip(numbers, rows, strict=True):
                place = row.moment // self._tile
                if place not in tiles:
                    tiles[place] = read_tile(held.get(place, b""), self._created)
                if tiles[place].add(row):
                    touched[place] = None
                    fresh.append(number)
            return Merged({place: tiles[place].pack() for place in touched}, fresh)

        places = tuple({row.moment // self._tile: None for row in rows})
        return Change(prefix, places, self._tiles + 1 + _EXTRA_TILES, merge)


def _picker(aggregates: tuple[Aggregate, ...]) -> Callable[..., Values]:
    """Return the function that gives the aggregates of a window: of count, sum, least, greatest, last, distinct."""
    empty = tuple(0.0 if name in ("count", "distinct") else NAN for name in aggregates)
    places = {"count": 0, "sum": 1, "min": 2, "max": 3, "last": 4, "distinct": 5, "mean": 6}
    order = tuple(places[name] for name in aggregates)

    def pick(n: int, total: float, least: float, greatest: float, last: float, distinct: int) -> Values:
        if not n:
            return empty
        known = (float(n), total, least, greatest, last, float(distinct), total / n)
        return tuple([known[place] for place in order])

    return pick


@dataclass(frozen=True, slots=True)
class Tile:
    """The rows of one tile in the order of their moments; rows of one moment as they came.

    `created` are the moments from which they count, empty where that is from their own moment on.
    """

    moments: "array[int]"
    values: "array[float]"
    marks: "array[int]"
    created: "array[int]"
    has_created: bool

    def add(self, row: Row) -> bool:
        """Put a row in its place; return False if it is there already."""
        if row.mark and row.mark in self.marks:
            return False
        place = bisect_right(self.moments, row.moment)
        if self.has_created:
            # Rows of one moment stand in the order in which they came to count.
            while place and self.moments[place - 1] == row.moment and self.created[place - 1] > row.created:
                place -= 1
            self.created.insert(place, row.created)
        self.moments.insert(place, row.moment)
        self.values.insert(place, row.values[0])
        self.marks.insert(place, row.mark)
        return True

    def values_until(self, moment: int) -> Sequence[float]:
        """Return the values of the rows that are known at `moment`, and not after it."""
        return self._until(self.values, moment)

    def moments_until(self, moment: int) -> Sequence[int]:
        """Return the moments of these rows."""
        return self._until(self.moments, moment)

    def _until(self, column: Any, moment: int) -> Sequence[Any]:
        end = bisect_right(self.moments, moment)
        if not self.has_created:
            return column[:end]
        return [value for value, known in zip(column[:end], self.created, strict=False) if known <= moment]

    def pack(self) -> bytes:
        """Return the tile's bytes, without the keeper's own."""
        values = self.values
        last = max(self.moments[-1], max(self.created)) if self.has_created else self.moments[-1]
        head = _HEAD.pack(last, sum(values), min(values), max(values))
        return b"".join((head, *(each.tobytes() for each in (self.moments, values, self.marks, self.created))))


def _values_until(held: bytes, moment: int) -> Sequence[float]:
    """Return the values of a tile's rows up to `moment`, where rows count from their own moments on."""
    count = (len(held) - _BODY) // 24
    end = bisect_right(struct.unpack_from(f"<{count}q", held, _BODY), moment)
    return struct.unpack_from(f"<{end}d", held, _BODY + 8 * count)


def read_tile(held: bytes, has_created: bool) -> Tile:
    """Return the tile that is kept as `held`, with the keeper's bytes before it; of no bytes an empty one."""
    columns = (array("q"), array("d"), array("Q"), array("q"))
    count = max(0, len(held) - _BODY) // (32 if has_created else 24)
    for place, column in enumerate(columns[: 4 if has_created else 3]):
        start = _BODY + 8 * count * place
        column.frombytes(held[start : start + 8 * count])
    moments, values, marks, created = columns
    return Tile(moments, values, marks, created, has_created)
