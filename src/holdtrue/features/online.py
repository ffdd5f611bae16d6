"""The online store: what was known of each entity lately, shared by all processes of a data plane.

LMDB gives readers that wait for nobody and one writer at a time across processes. The store can be made
again from the event journal; a power failure may cost its last commit, and nothing else.

Rows are kept as they came, with their moments: so an answer is for the moment asked, exactly as `offline`
computes it, also when a row is late or the question is about a moment before the newest row.
"""

import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from math import isnan
from pathlib import Path
from typing import Any, TypeAlias

import lmdb
import numpy as np
from numpy.typing import NDArray

from holdtrue.core.canonical import canonical_bytes
from holdtrue.core.errors import InvalidInput, StorageFull
from holdtrue.features.model import Aggregate, Latest, Trailing, View, microseconds_of

Rows: TypeAlias = "list[tuple[int, tuple[float, ...], int]]"
"""Moment (µs), values, and a hash of the row's id (0: it has none)."""
Find: TypeAlias = Callable[[Any, bytes, int], tuple[float, ...]]

_NAN = float("nan")
_MAP_SIZE = 16 << 30  # of address space; the file takes the room of what is in it
_MOMENT = struct.Struct(">Q")
_OFFSET = 1 << 63
_HEAD = struct.Struct("<Iqddd")
"""A tile's serial number and its last moment, sum, least and greatest value; its rows follow."""
_SERIAL = struct.Struct("<I")
_LATEST_ROWS = 1024
_EXTRA_TILES = 192
_PRUNE_EVERY = 64


class OnlineStore:
    """Keep the recent rows of every feature view by entity, in a folder.

    Of each entity the newest 1,024 rows of a `Latest` view are kept, and of a `Trailing` view the newest
    tiles: those of its window and 192 more.
    """

    def __init__(self, path: Path) -> None:
        """Open the store in the folder `path`, making it if needed. One process opens a folder once."""
        self._env = lmdb.open(str(path), map_size=_MAP_SIZE, metasync=False, max_readers=1024, mode=0o600)
        # A killed process leaves its place among the readers behind.
        self._env.reader_check()
        self._compiled: dict[View, _Compiled] = {}

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
        """Take rows of `source` into every view on it; return how many were new to at least one.

        Moments are int64 microseconds, entities texts or whole numbers, values numbers. `ids` (by default
        the column `id`, if there is one) name rows: one taken in before at the same moment is left out. A
        row with no entity or moment is left out, and one with no value of the windows over it. Raises
        InvalidInput before anything is taken in, and StorageFull.
        """
        return self.take([self.prepare(views, source, columns, ids)])[0]

    def prepare(
        self,
        views: Sequence[View],
        source: str,
        columns: Mapping[str, Sequence[Any]],
        ids: Sequence[str] | None = None,
    ) -> "Prepared":
        """Check rows as `ingest` does and return what `take` takes; nothing is written. Raises InvalidInput."""
        mine = [self._compile(view) for view in dict.fromkeys(views) if view.source == source]
        given = columns.get("id") if ids is None else ids
        marks = [0] * _length(columns) if given is None else [_mark(str(name)) for name in given]
        return Prepared(tuple((each, _parted(each, columns, marks)) for each in mine))

    def take(self, batch: Sequence["Prepared"]) -> list[int]:
        """Take all of `batch` in with one commit, or nothing; return how many rows of each were new.

        Raises StorageFull.
        """
        with _writing(self._env) as transaction:
            return [_take(transaction, each) for each in batch]

    def lookup(
        self, views: Sequence[View], entities: Mapping[str, Sequence[Any]], times: Sequence[int]
    ) -> dict[str, NDArray[np.float64]]:
        """Return float64 [n] per feature: what was known of each row's entity at its moment (µs)."""
        out: dict[str, NDArray[np.float64]] = {}
        compiled = [self._compiled.get(view) or self._compile(view) for view in views]
        with self._env.begin() as transaction:
            cursor = transaction.cursor()
            for each in compiled:
                values = _found(cursor, each, entities[each.view.entity], times)
                if len(times) == 1:
                    for name, value in zip(each.features, values[0], strict=True):
                        out[name] = np.array((value,))
                    continue
                matrix = np.array(values, np.float64).reshape(len(values), len(each.features))
                for place, name in enumerate(each.features):
                    out[name] = matrix[:, place]
        return out

    def remove(self, views: Sequence[View], entity: Any) -> int:
        """Take everything out that the views keep of an entity, with one commit; return how many keys that were."""
        prefixes = {self._compile(view).tag + _entity(entity) for view in views}
        with _writing(self._env) as transaction:
            keys = [key for prefix in sorted(prefixes) for key in _keys_of(transaction, prefix)]
            for key in keys:
                transaction.delete(key)
        return len(keys)

    def _compile(self, view: View) -> "_Compiled":
        if view not in self._compiled:
            self._compiled[view] = _compile(view)
        return self._compiled[view]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows of one source, checked, by the view and the entity they belong to."""

    groups: "tuple[tuple[_Compiled, Mapping[bytes, _Part]], ...]"


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A view with what is the same for all its rows; `tag` names the rows it keeps by what the view is.

    Name, aggregates and age limit are not in the tag, since they do not change what is kept.
    """

    view: View
    tag: bytes
    features: tuple[str, ...]
    find: Find
    tile: int = 1
    window: int = 0


def _compile(view: View) -> _Compiled:
    if isinstance(view, Latest):
        kept: list[Any] = ["latest", view.source, view.entity, view.time, list(view.columns)]
        tag = blake2b(canonical_bytes(kept), digest_size=8).digest()
        return _Compiled(view, tag, view.features, _latest_finder(view))
    tile, window = microseconds_of(view.tile), microseconds_of(view.window)
    kept = ["trailing", view.source, view.entity, view.time, view.column, tile, window]
    tag = blake2b(canonical_bytes(kept), digest_size=8).digest()
    return _Compiled(view, tag, view.features, _trailing_finder(view.aggregates, tile, window), tile, window)


def _found(cursor: Any, each: _Compiled, entities: Sequence[Any], times: Sequence[int]) -> list[tuple[float, ...]]:
    find, tag = each.find, each.tag
    nothing = (_NAN,) * len(each.features)
    if len(times) == 1:
        entity = entities[0]
        return [nothing if entity is None else find(cursor, tag + _entity(entity), times[0])]
    # Rows of one request often ask for the same entity at the same moment: each is looked up once.
    known: dict[tuple[Any, int], tuple[float, ...]] = {}
    values: list[tuple[float, ...]] = []
    for entity, moment in zip(entities, times, strict=True):
        found = known.get((entity, moment))
        if found is None:
            found = nothing if entity is None else find(cursor, tag + _entity(entity), moment)
            known[entity, moment] = found
        values.append(found)
    return values


def _latest_finder(view: Latest) -> Find:
    unpack = struct.Struct(f"<{len(view.columns)}d").unpack_from
    ttl = microseconds_of(view.ttl)
    nothing = (_NAN,) * len(view.columns)

    def find(cursor: Any, prefix: bytes, moment: int) -> tuple[float, ...]:
        found = _at_or_before(cursor, prefix, moment)
        if found is None or moment - found > ttl:
            return nothing
        return unpack(cursor.value(), _SERIAL.size + 8)

    return find


def _trailing_finder(aggregates: tuple[Aggregate, ...], tile: int, window: int) -> Find:
    extremes = bool({"min", "max"} & set(aggregates))
    tiles, unpack, head = window // tile, _HEAD.unpack_from, _HEAD.size

    def find(cursor: Any, prefix: bytes, moment: int) -> tuple[float, ...]:
        begun = moment // tile
        end = prefix + _key(begun)
        n, total, least, greatest = 0, 0.0, float("inf"), float("-inf")
        if cursor.set_range(prefix + _key(begun - tiles)):
            for key, held in cursor.iternext():
                if key > end:
                    break
                _, last, tile_sum, tile_least, tile_greatest = unpack(held)
                count = (len(held) - head) // 24
                if last > moment:
                    values = _tile_rows(held).values_until(moment)
                    count, tile_sum = len(values), sum(values)
                    tile_least, tile_greatest = min(values, default=least), max(values, default=greatest)
                n += count
                total += tile_sum
                if extremes:
                    least, greatest = min(least, tile_least), max(greatest, tile_greatest)
        known = {"count": float(n), "mean": _NAN, "sum": _NAN, "min": _NAN, "max": _NAN}
        if n:
            known |= {"mean": total / n, "sum": total, "min": least, "max": greatest}
        return tuple([known[aggregate] for aggregate in aggregates])

    return find


def _parted(each: _Compiled, columns: Mapping[str, Sequence[Any]], marks: Sequence[int]) -> dict[bytes, "_Part"]:
    """Return the usable rows by the prefix of their entity, in the order in which they came."""
    view = each.view
    names = view.columns if isinstance(view, Latest) else (view.column,)
    _need(view, columns, names)
    values = [_numbers(view, name, columns[name]) for name in names]
    parts: dict[bytes, _Part] = {}
    prefixes: dict[Any, bytes] = {}
    for row, (entity, moment) in enumerate(zip(columns[view.entity], columns[view.time], strict=True)):
        if entity is None or moment is None:
            continue
        if type(moment) is not int or not -_OFFSET <= moment < _OFFSET:
            raise _unusable(view, view.time, moment, "int64 microseconds since the epoch")
        mine = tuple(column[row] for column in values)
        if isinstance(view, Trailing) and isnan(mine[0]):
            continue
        if (type(entity), entity) not in prefixes:
            prefixes[type(entity), entity] = each.tag + _entity(entity)
        part = parts.setdefault(prefixes[type(entity), entity], _Part([], []))
        part.numbers.append(row)
        part.rows.append((moment, mine, marks[row]))
    return parts


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of one entity, and their numbers in what was sent."""

    numbers: list[int]
    rows: Rows


def _take(transaction: Any, prepared: Prepared) -> int:
    fresh: set[int] = set()
    for each, parts in prepared.groups:
        take = _take_latest if isinstance(each.view, Latest) else _take_trailing
        for prefix, part in parts.items():
            fresh.update(take(transaction, each, prefix, part))
    return len(fresh)


def _take_latest(transaction: Any, each: _Compiled, prefix: bytes, part: _Part) -> Iterator[int]:
    assert isinstance(each.view, Latest)
    pack = struct.Struct(f"<IQ{len(each.view.columns)}d").pack
    cursor = transaction.cursor()
    for number, (moment, values, mark) in zip(part.numbers, part.rows, strict=True):
        found = _at_or_before(cursor, prefix, moment)
        held = b"" if found is None else bytes(cursor.value())
        serial = 0 if found is None else _SERIAL.unpack_from(held)[0] + 1
        if found == moment and mark and struct.unpack_from("<Q", held, _SERIAL.size)[0] == mark:
            continue
        transaction.put(prefix + _key(moment), pack(serial & 0xFFFFFFFF, mark, *values))
        yield number
        if serial % _PRUNE_EVERY == _PRUNE_EVERY - 1:
            _prune(transaction, prefix, _LATEST_ROWS)


def _take_trailing(transaction: Any, each: _Compiled, prefix: bytes, part: _Part) -> Iterator[int]:
    tiles: dict[int, _Tile] = {}
    cursor = transaction.cursor()
    top = 0
    for number, (moment, (value,), mark) in zip(part.numbers, part.rows, strict=True):
        place = moment // each.tile
        if place not in tiles:
            found = _at_or_before(cursor, prefix, place)
            before = 0 if found is None else _SERIAL.unpack_from(cursor.value())[0] + 1
            top = max(top + 1, before)
            tiles[place] = _tile_rows(cursor.value() if found == place else b"", top & 0xFFFFFFFF)
        if tiles[place].add(moment, value, mark):
            yield number
    for place in sorted(tiles):
        tile = tiles[place]
        transaction.put(prefix + _key(place), tile.pack())
        if tile.serial % _PRUNE_EVERY == _PRUNE_EVERY - 1:
            _prune(transaction, prefix, each.window // each.tile + 1 + _EXTRA_TILES)


@dataclass(frozen=True, slots=True)
class _Tile:
    """The rows of one tile in the order of their moments; rows of one moment as they came."""

    serial: int
    moments: "array[int]"
    values: "array[float]"
    marks: "array[int]"

    def add(self, moment: int, value: float, mark: int) -> bool:
        """Put a row in its place; return False if it is there already."""
        if mark and mark in self.marks:
            return False
        place = bisect_right(self.moments, moment)
        self.moments.insert(place, moment)
        self.values.insert(place, value)
        self.marks.insert(place, mark)
        return True

    def values_until(self, moment: int) -> "array[float]":
        """Return the values of the rows up to and with `moment`."""
        return self.values[: bisect_right(self.moments, moment)]

    def pack(self) -> bytes:
        """Return the tile's bytes."""
        values = self.values
        head = _HEAD.pack(self.serial, self.moments[-1], sum(values), min(values), max(values))
        return head + self.moments.tobytes() + values.tobytes() + self.marks.tobytes()


def _tile_rows(held: Any, serial: int = 0) -> _Tile:
    moments, values, marks = array("q"), array("d"), array("Q")
    if held:
        body = bytes(held)[_HEAD.size :]
        third = len(body) // 3
        moments.frombytes(body[:third])
        values.frombytes(body[third : 2 * third])
        marks.frombytes(body[2 * third :])
        serial = _SERIAL.unpack_from(held)[0]
    return _Tile(serial, moments, values, marks)


def _at_or_before(cursor: Any, prefix: bytes, number: int) -> int | None:
    """Move to the last key of `prefix` whose number is not above `number` and return it, or None."""
    key = prefix + _key(number)
    if not cursor.set_range(key):
        exists = cursor.last()
    elif bytes(cursor.key()) == key:
        return number
    else:
        exists = cursor.prev()
    found = bytes(cursor.key()) if exists else b""
    return _MOMENT.unpack_from(found, len(prefix))[0] - _OFFSET if found.startswith(prefix) else None


def _prune(transaction: Any, prefix: bytes, most: int) -> None:
    """Remove the oldest keys of `prefix` beyond `most`."""
    keys = _keys_of(transaction, prefix)
    for key in keys[: max(0, len(keys) - most)]:
        transaction.delete(key)


def _keys_of(transaction: Any, prefix: bytes) -> list[bytes]:
    cursor = transaction.cursor()
    keys: list[bytes] = []
    more: bool = cursor.set_range(prefix)
    while more and (key := bytes(cursor.key())).startswith(prefix):
        keys.append(key)
        more = cursor.next()
    return keys


@contextmanager
def _writing(env: Any) -> Generator[Any]:
    try:
        with env.begin(write=True) as transaction:
            yield transaction
    except (lmdb.MapFullError, lmdb.DiskError) as error:
        raise StorageFull(
            "There is no room in the store of online features.",
            why=str(error),
            mend="Free space on the disk of the data folder and send the events again.",
        ) from error


def _key(number: int) -> bytes:
    return _MOMENT.pack(number + _OFFSET)


def _entity(entity: Any) -> bytes:
    """Return 16 bytes for an entity; the text “1” and the number 1 are two."""
    if type(entity) is str:
        return blake2b(entity.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    if type(entity) is int:
        return blake2b(b"%d" % entity, digest_size=16, person=b"int").digest()
    raise InvalidInput(
        f"{entity!r:.80} cannot be an entity.",
        why="Entities are texts or whole numbers.",
        mend="Send one of these.",
    )


def _mark(id: str) -> int:
    # 0 says that a row has no id.
    return int.from_bytes(blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest()) or 1


def _numbers(view: View, name: str, values: Sequence[Any]) -> list[float]:
    try:
        return [_NAN if value is None else value + 0.0 for value in values]
    except (TypeError, OverflowError):
        wrong = next((value for value in values if type(value) not in (int, float, bool, type(None))), values)
        raise _unusable(view, name, wrong, "a number or null") from None


def _unusable(view: View, name: str, value: Any, wanted: str) -> InvalidInput:
    return InvalidInput(
        f"{value!r:.80} in the column “{name}” of “{view.source}” cannot be used.",
        why=f"The feature view “{view.name}” needs {wanted} there.",
        mend="Correct the event and send it again.",
        facts={"source": view.source, "column": name},
    )


def _length(columns: Mapping[str, Sequence[Any]]) -> int:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidInput(
            "The columns of the events have different lengths.",
            why=", ".join(f"{name}: {length}" for name, length in lengths.items()),
            mend="Send as many values in each column as there are rows.",
        )
    return next(iter(lengths.values()), 0)


def _need(view: View, columns: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in (view.entity, view.time, *names):
        if name not in columns:
            raise InvalidInput(
                f"Events of “{view.source}” need the column “{name}”.",
                why=f"The feature view “{view.name}” reads it; the events have: {', '.join(columns)}.",
                mend="Send the column, with null where a value is not known.",
                facts={"source": view.source, "column": name},
            )
