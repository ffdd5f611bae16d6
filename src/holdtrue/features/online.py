"""The online store: what was known of each entity lately, shared by all processes of a data plane.

It is a file of LMDB in the data folder, or a server of Redis or Valkey. Either can be filled again from the event
journal and from accepted windows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import isnan
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from holdtrue.core.errors import InvalidInput
from holdtrue.features.keeper import OFFSET, Extent, Keeper
from holdtrue.features.kept import NAN, Format, Found, Row, format_of
from holdtrue.features.model import Trailing, View, number_of_text

_MOST_SEEN: Final = 4096
_DECLARED: Final = "entity "


def open_online(folder: Path, project: str, address: str = "") -> "OnlineStore":
    """Open a project's online store: under `folder`, or at the `address` of a Redis or Valkey server.

    Raises ConfigurationError without the library that speaks to such a server.
    """
    if not address:
        return OnlineStore(folder / project)
    from holdtrue.features.rediskeeper import RedisKeeper

    return OnlineStore(RedisKeeper(address, project))


class OnlineStore:
    """Keep the recent rows of every feature view by entity.

    Of each entity the newest 1,024 rows of a `Latest` view are kept, and of a `Trailing` view the newest
    tiles: those of its window and 192 more.
    """

    def __init__(self, where: Path | Keeper) -> None:
        """Open the store in a folder, making it if needed, or with another keeper of rows."""
        if isinstance(where, Path):
            from holdtrue.features.lmdbkeeper import LmdbKeeper

            where = LmdbKeeper(where)
        self._keeper = where
        self._formats: dict[View, Format] = {}
        # A view's hash is computed from all it says, which takes longer than to look it up: those seen are known by
        # their identity, which stays theirs as long as they are held here.
        self._seen: dict[int, tuple[View, Format]] = {}

    def close(self) -> None:
        """Close the store."""
        self._keeper.close()

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
        mine = [self._format(view) for view in dict.fromkeys(views) if view.source == source]
        given = columns.get("id") if ids is None else ids
        marks = [0] * _length(columns) if given is None else [_mark(str(name)) for name in given]
        # Views that keep the same rows keep them once.
        return Prepared(
            tuple((each, _parted(each, columns, marks)) for each in {each.tag: each for each in mine}.values())
        )

    def take(
        self,
        batch: Sequence["Prepared"],
        arrived: int | None = None,
        notes: Mapping[str, bytes] = MappingProxyType({}),
    ) -> list[int]:
        """Take all of `batch` in with one commit, or nothing; return how many rows of each were new.

        `arrived` is the moment (µs) at which they came: a row dated after it makes no view newer than that. `notes`
        are kept by name with the same commit. Raises StorageFull and Unavailable.
        """
        changes = [
            each.change(prefix, part.numbers, part.rows)
            for prepared in batch
            for each, parts in prepared.groups
            for prefix, part in parts.items()
        ]
        newest: dict[bytes, int] = {}
        for prepared in batch:
            for each, parts in prepared.groups:
                for part in parts.values():
                    moment = max(row.moment for row in part.rows)
                    moment = moment if arrived is None else min(moment, arrived)
                    newest[each.tag] = max(newest.get(each.tag, moment), moment)
        fresh = iter(self._keeper.apply(changes, newest, notes))
        counts: list[int] = []
        for prepared in batch:
            rows = {number for _, parts in prepared.groups for _ in parts for number in next(fresh)}
            counts.append(len(rows))
        return counts

    def lookup(
        self, views: Sequence[View], entities: Mapping[str, Sequence[Any]], times: Sequence[int]
    ) -> dict[str, NDArray[np.float64]]:
        """Return float64 [n] per feature: what was known of each row's entity at its moment (µs)."""
        formats = self._known(views)
        out: dict[str, NDArray[np.float64]] = {}
        if len(times) == 1:
            found = self._one(formats, {name: values[0] for name, values in entities.items()}, times[0])
            row = np.array([value for values in found for value in values], np.float64)
            names = [name for each in formats for name in each.features]
            return {name: row[place : place + 1] for place, name in enumerate(names)}
        for each, found in zip(formats, self._answers(formats, entities, times, dated=False), strict=True):
            matrix = np.array(found, np.float64).reshape(len(found), len(each.features))
            for place, name in enumerate(each.features):
                out[name] = matrix[:, place]
        return out

    def values(self, views: Sequence[View], entities: Mapping[str, Any], time: int) -> list[float]:
        """Return the features of one row, in the order of the views; `entities` has one value each."""
        return [value for values in self._one(self._known(views), entities, time) for value in values]

    def dated(
        self, views: Sequence[View], entities: Mapping[str, Sequence[Any]], times: Sequence[int]
    ) -> list[list[Found]]:
        """Return, for each view and row, the features and the moment (µs) of the newest row they are made of."""
        formats = self._known(views)
        if len(times) == 1:
            single = {name: values[0] for name, values in entities.items()}
            return [[found] for found in self._one(formats, single, times[0], dated=True)]
        return self._answers(formats, entities, times, dated=True)

    def newest(self, views: Sequence[View]) -> list[int | None]:
        """Return for each view the moment (µs) of the newest row that was taken in, of whatever entity."""
        return self._keeper.newest([self._format(view).tag for view in views])

    def extents(self, views: Sequence[View]) -> list[Extent]:
        """Return for each view how much of it is kept; reads all of it."""
        return self._keeper.extents([self._format(view).tag for view in views])

    def tag(self, view: View) -> bytes:
        """Return the name of what is kept of a view: equal for views that keep the same rows."""
        return self._format(view).tag

    def note(self, name: str) -> bytes | None:
        """Return what was noted under a name with rows that were taken in."""
        return self._keeper.note(name)

    def remove(self, entity: str | int, views: Sequence[View] | None = None) -> int:
        """Remove all that is kept of an entity, of these views or of all; return how many records that were.

        Rows of it that come afterwards are kept again. Raises InvalidInput for what cannot be an entity.
        """
        tags = None if views is None else [self._format(view).tag for view in views]
        return self._keeper.remove(_entity(entity), tags)

    def erase(self, column: str, names: Sequence[str | int], views: Sequence[View]) -> int:
        """Remove an entity, by whatever it is called, from `views` and from others that are known to hold its column.

        Those are views that no release has, and that were filled from history: see `declared`. Returns how many
        records were removed.
        """
        noted = self._keeper.notes(_DECLARED)
        tags = {bytes.fromhex(name[len(_DECLARED) :]) for name, kept in noted.items() if kept == column.encode()}
        tags.update(self._format(view).tag for view in views if view.entity == column)
        return sum(self._keeper.remove(_entity(name), sorted(tags)) for name in names) if tags else 0

    def declared(self, view: View) -> dict[str, bytes]:
        """Return the note that says which column's entities a view is kept of; to be kept with its rows."""
        return {f"{_DECLARED}{self._format(view).tag.hex()}": view.entity.encode()}

    def _one(
        self, formats: Sequence[Format], entities: Mapping[str, Any], moment: int, *, dated: bool = False
    ) -> list[Any]:
        """Answer one row."""
        if len(formats) == 1:
            (each,) = formats
            entity = entities[each.view.entity]
            if entity is None:
                return [Found(each.nothing, None) if dated else each.nothing]
            prefix, read = each.tag + _entity(entity), each.dated if dated else each.read
            values = read(self._keeper.fetch((each.ask(prefix, moment),))[0], moment)
            return [self._earlier(each, prefix, values, moment, read) if isinstance(values, int) else values]
        prefixes = {name: None if value is None else _entity(value) for name, value in entities.items()}
        known = [(each, prefixes[each.view.entity]) for each in formats]
        asks = [each.ask(each.tag + prefix, moment) for each, prefix in known if prefix is not None]
        kept = iter(self._keeper.fetch(asks) if asks else ())
        out: list[Any] = []
        for each, prefix in known:
            if prefix is None:
                out.append(Found(each.nothing, None) if dated else each.nothing)
                continue
            read: Any = each.dated if dated else each.read
            values = read(next(kept), moment)
            if isinstance(values, int):
                values = self._earlier(each, each.tag + prefix, values, moment, read)
            out.append(values)
        return out

    def _answers(
        self, formats: Sequence[Format], entities: Mapping[str, Sequence[Any]], times: Sequence[int], *, dated: bool
    ) -> list[list[Any]]:
        """Answer many rows: those that ask for one entity at one moment are looked up once."""
        out: list[list[Any]] = []
        for each in formats:
            nothing: Any = Found(each.nothing, None) if dated else each.nothing
            read: Any = each.dated if dated else each.read
            asked = [
                None if entity is None else (each.tag + _entity(entity), moment)
                for entity, moment in zip(entities[each.view.entity], times, strict=True)
            ]
            single = list(dict.fromkeys(key for key in asked if key is not None))
            kept = self._keeper.fetch([each.ask(prefix, moment) for prefix, moment in single]) if single else []
            answers = {
                key: self._earlier(each, key[0], read(value, key[1]), key[1], read)
                for key, value in zip(single, kept, strict=True)
            }
            out.append([nothing if key is None else answers[key] for key in asked])
        return out

    def _earlier(self, each: Format, prefix: bytes, found: Any, moment: int, read: Any) -> Any:
        """Ask for earlier rows, as long as those that were found are not known yet at `moment`."""
        while isinstance(found, int):
            found = read(self._keeper.fetch([each.ask(prefix, found)])[0], moment)
        return found

    def _known(self, views: Sequence[View]) -> list[Format]:
        seen = self._seen
        try:
            return [seen[id(view)][1] for view in views]
        except KeyError:
            if len(seen) > _MOST_SEEN:
                seen.clear()
            formats = [self._format(view) for view in views]
            seen.update({id(view): (view, each) for view, each in zip(views, formats, strict=True)})
            return formats

    def _format(self, view: View) -> Format:
        if view not in self._formats:
            self._formats[view] = format_of(view)
        return self._formats[view]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows of one source, checked, by the view and the entity they belong to."""

    groups: "tuple[tuple[Format, Mapping[bytes, _Part]], ...]"


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of one entity, and their numbers in what was sent."""

    numbers: list[int]
    rows: list[Row]


def _parted(each: Format, columns: Mapping[str, Sequence[Any]], marks: Sequence[int]) -> dict[bytes, _Part]:
    """Return the usable rows by the prefix of their entity, in the order in which they came."""
    view = each.view
    _need(view, columns)
    values = [_numbers(view, name, columns[name]) for name in view.reads]
    times = [columns[name] for name in view.moments]
    parts: dict[bytes, _Part] = {}
    prefixes: dict[Any, bytes] = {}
    for row, (entity, *moments) in enumerate(zip(columns[view.entity], *times, strict=True)):
        if entity is None or None in moments:
            continue
        for name, moment in zip(view.moments, moments, strict=True):
            if type(moment) is not int or not -OFFSET <= moment < OFFSET:
                raise _unusable(view, name, moment, "int64 microseconds since the epoch")
        mine = tuple(column[row] for column in values)
        if isinstance(view, Trailing) and isnan(mine[0]):
            continue
        if (type(entity), entity) not in prefixes:
            prefixes[type(entity), entity] = each.tag + _entity(entity)
        part = parts.setdefault(prefixes[type(entity), entity], _Part([], []))
        part.numbers.append(row)
        part.rows.append(Row(moments[0], mine, marks[row], moments[-1]))
    return parts


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
    if isinstance(view, Trailing) and view.takes_texts:
        values = [number_of_text(value) if type(value) is str else value for value in values]
    try:
        return [NAN if value is None else value + 0.0 for value in values]
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


def _need(view: View, columns: Mapping[str, Any]) -> None:
    for name in (view.entity, *view.moments, *view.reads):
        if name not in columns:
            raise InvalidInput(
                f"Events of “{view.source}” need the column “{name}”.",
                why=f"The feature view “{view.name}” reads it; the events have: {', '.join(columns)}.",
                mend="Send the column, with null where a value is not known.",
                facts={"source": view.source, "column": name},
            )
