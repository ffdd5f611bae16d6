"""Fill the online store from history: accepted windows as the sources select them, and the events that came since.

How far it got is noted with the rows themselves, in one commit, so that a run that was killed goes on where it was
and a further run takes only what came since. The newest rows are taken first: they are what is asked for.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import duckdb
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from holdtrue.core.clock import from_microseconds
from holdtrue.core.codec import dump, load
from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.features import OnlineStore, Trailing, View, microseconds_of
from holdtrue.features.vector import plain
from holdtrue.project.definitions import Project
from holdtrue.project.sources import connect, previous_window, reach_of, selected_rows
from holdtrue.serving.times import read_times
from holdtrue.storage import BlobStore
from holdtrue.storage.journal import Journal

Fragments = Mapping[str, Mapping[str, Any]]
_KEPT_TILES: Final = 192


@dataclass(frozen=True, slots=True)
class Materialise:
    """Say what is filled from where: views of the project into a store, up to the moment `now` (µs).

    `since` is the moment (µs) from which rows are taken; without it as far back as views need, from the newest row on.
    """

    project: Project
    views: Sequence[View]
    store: OnlineStore
    journal: Journal
    blobs: BlobStore
    fragments_of: Callable[[str], Fragments]
    now: int
    since: int | None = None
    batch: int = 20_000


@dataclass(frozen=True, slots=True)
class Taken:
    """Tell what was taken into one view: rows that were looked at and those new to it, and where they came from.

    `unnamed` are windows that were replaced since and whose rows have no id, so that they were not taken again.
    `refused` is how many events were recorded before a data plane knew the view, and cannot be used by it; `why`
    says so of one. `events_until` is the journal's cursor up to which events of the source were looked at.
    """

    view: str
    source: str
    rows: int
    new: int
    windows: tuple[str, ...]
    events: int
    newest: int | None
    unnamed: tuple[str, ...] = ()
    refused: int = 0
    why: str = ""
    events_until: str = ""


@dataclass(slots=True)
class _Mark:
    """How far a view is filled: of each window (by its digest) the rows from a moment on, and events up to a cursor."""

    windows: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    events: str | None = None

    def bytes(self) -> bytes:
        """Return the mark as it is kept."""
        return orjson.dumps(dump(self))


def materialised(asked: Materialise) -> Iterator[Taken]:
    """Fill the store, view by view, and yield what was taken into each.

    Raises NotFound for a source that is not declared, and InvalidInput for rows that cannot be used.
    """
    with connect() as connection:
        history = _History(asked, connection)
        for view in asked.views:
            yield _Filling(asked, history, view).run()


class _History:
    """Read each window of a source once, however many views are made of it."""

    def __init__(self, asked: Materialise, connection: duckdb.DuckDBPyConnection) -> None:
        self._asked = asked
        self._connection = connection
        self._windows: dict[tuple[str, str], pa.Table] = {}
        self._fragments: dict[str, dict[str, str]] = {}

    def fragments(self, source: str) -> Mapping[str, str]:
        """Return the digest of each accepted window of a source's dataset."""
        if source not in self._asked.project.sources:
            raise NotFound.of("source", source)
        name = self._asked.project.sources[source].dataset.spec.name
        if name not in self._fragments:
            found = self._asked.fragments_of(name)
            self._fragments[name] = {window: each["digest"] for window, each in found.items()}
        return self._fragments[name]

    def rows(self, source: str, window: str) -> pa.Table:
        """Return the rows of a source in a window."""
        if (source, window) not in self._windows:
            part = pq.read_table(self._asked.blobs.path(self.fragments(source)[window]))
            declared = self._asked.project.sources[source]
            self._windows[source, window] = selected_rows(self._connection, declared, [part])
        return self._windows[source, window]

    def key(self, source: str) -> str:
        """Return the column that names the rows of a source's dataset."""
        return self._asked.project.sources[source].dataset.spec.key


class _Filling:
    """Fill one view."""

    def __init__(self, asked: Materialise, history: _History, view: View) -> None:
        self._asked = asked
        self._history = history
        self._view = view
        self._note = f"materialised {asked.store.tag(view).hex()}"
        kept = asked.store.note(self._note)
        self._mark = _Mark() if kept is None else load(_Mark, orjson.loads(kept), "The mark of a view")
        self._rows = self._new = self._events = self._refused = 0
        self._why = ""
        self._windows: list[str] = []
        self._unnamed: list[str] = []

    def run(self) -> Taken:
        """Take what is missing: windows, the newest first, then events."""
        fragments = self._history.fragments(self._view.source)
        events, cursor = self._new_events()
        since = self._since(fragments, events)
        for window in sorted(fragments, reverse=True):
            # A row's own moment may lie somewhat outside of its window.
            if since is not None and window < _month_before(since):
                break
            self._take_window(window, fragments[window], since, events)
        self._take_events(events, cursor, since)
        (newest,) = self._asked.store.newest([self._view])
        view, new = self._view, self._new
        windows, unnamed = tuple(self._windows), tuple(self._unnamed)
        counts = (self._rows, new, windows, self._events, newest, unnamed, self._refused, self._why)
        return Taken(view.name, view.source, *counts, events_until=cursor)

    def _since(self, fragments: Mapping[str, str], events: pa.Table) -> int | None:
        """Return the moment from which rows are needed; None if there are none."""
        if self._asked.since is not None:
            return self._asked.since
        moments: list[int] = []
        if fragments:
            moments += _moments(self._history.rows(self._view.source, max(fragments)), self._view.time)
        if events.num_rows:
            moments += _moments(events, self._view.time)
        # What is dated after now says nothing about how far back to go.
        known = [moment for moment in moments if moment <= self._asked.now]
        if not known:
            return None
        reach = reach_of(self._view)
        if isinstance(self._view, Trailing):
            # As far as tiles are kept, so that questions about the days before are answered too.
            reach += _KEPT_TILES * microseconds_of(self._view.tile)
        return max(known) - reach

    def _take_window(self, window: str, digest: str, since: int | None, events: pa.Table) -> None:
        low = -(2**62) if since is None else since
        present, upper = self._mark.windows.get(window, ("", 2**63 - 1))
        replaced = present not in ("", digest)
        if replaced:
            upper = 2**63 - 1
        if upper <= low:
            return
        table = self._history.rows(self._view.source, window)
        names = self._names(table)
        if names is None:
            # Rows without ids could count twice: those that were taken before, and those that came as events.
            if replaced or self._mark.events is not None:
                self._unnamed.append(window)
                return
            upper = min([upper, *_moments(events, self._view.time)]) if events.num_rows else upper
        table = _between(table, self._view.time, low, upper)
        for part in _newest_first(table, self._view.time, self._asked.batch):
            first = min(_moments(part, self._view.time))
            self._mark.windows[window] = (digest, first)
            self._take(part, names)
        self._windows.append(window)
        self._mark.windows[window] = (digest, low)
        self._asked.store.take([], notes=self._notes())

    def _names(self, table: pa.Table) -> str | None:
        """Return the column that names rows as events name them."""
        return next((name for name in ("id", self._history.key(self._view.source)) if name in table.column_names), None)

    def _new_events(self) -> tuple[pa.Table, str]:
        journal, view = self._asked.journal, self._view
        table, cursor = journal.tail("event", self._asked.project.name, view.source, self._mark.events)
        if table.num_rows and not set(self._needed) <= set(table.column_names):
            table = table.slice(0, 0)
        return (self._usable(table) if table.num_rows else table), cursor

    def _usable(self, table: pa.Table) -> pa.Table:
        """Return the events whose moments can be read, as numbers.

        A data plane checks events for the views that it has: what was recorded before is as it was sent.
        """
        view = self._view
        for name in view.moments:
            column = _column(table, name)
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                moments = pa.array([_moment_of(text) for text in column.to_pylist()], pa.int64())
                table = table.set_column(table.column_names.index(name), name, moments)
                self._refuse(moments.null_count - column.null_count, f"Its “{name}” is no moment.")
        return table

    def _refuse(self, rows: int, why: str) -> None:
        self._refused += rows
        self._why = self._why or (why if rows else "")

    def _take_events(self, table: pa.Table, cursor: str, since: int | None) -> None:
        """Take events as they came, by the ids by which the data plane has kept them: none counts twice."""
        if table.num_rows and since is not None:
            table = _between(table, self._view.time, since, 2**63 - 1)
            for start in range(0, table.num_rows, self._asked.batch):
                self._take_sent(table.slice(start, self._asked.batch))
            self._events = table.num_rows
        # As long as no event came, windows of rows without ids can be taken.
        if table.num_rows or self._mark.events is not None:
            self._mark.events = cursor
        self._asked.store.take([], notes=self._notes())

    def _take_sent(self, part: pa.Table) -> None:
        """Take events; one that cannot be used is left out alone, since no data plane had a say when it came."""
        try:
            self._take(part, "id")
        except InvalidInput as error:
            if part.num_rows == 1:
                self._refuse(1, error.what)
                return
            half = part.num_rows // 2
            self._take_sent(part.slice(0, half))
            self._take_sent(part.slice(half))

    def _take(self, part: pa.Table, names: str | None) -> None:
        numbers = not (isinstance(self._view, Trailing) and self._view.takes_texts)
        columns = {name: _values(_column(part, name), numbers) for name in self._view.reads} | {
            self._view.entity: _whole(_column(part, self._view.entity).to_pylist())
        }
        columns |= {name: _micros(_column(part, name)).to_pylist() for name in self._view.moments}
        ids = None if names is None else [str(each) for each in part[names].to_pylist()]
        prepared = self._asked.store.prepare([self._view], self._view.source, columns, ids)
        (new,) = self._asked.store.take([prepared], self._asked.now, self._notes())
        self._rows += part.num_rows
        self._new += new

    def _notes(self) -> dict[str, bytes]:
        # Whose entities they are is noted too: an erasure has to find what is kept of a view that no release has yet.
        return {self._note: self._mark.bytes(), **self._asked.store.declared(self._view)}

    @property
    def _needed(self) -> tuple[str, ...]:
        view = self._view
        return tuple(dict.fromkeys((view.entity, *view.moments, *view.reads)))


def _newest_first(table: pa.Table, time: str, batch: int) -> Iterator[pa.Table]:
    """Yield parts of about `batch` rows, the newest first; rows of one moment stay together, in their order."""
    moments = np.array(_moments(table, time), np.int64)
    order = np.argsort(moments, kind="stable")
    ordered, end = moments[order], len(order)
    while end:
        start = max(0, end - batch)
        start = int(np.searchsorted(ordered, ordered[start], "left"))
        yield table.take(pa.array(order[start:end]))
        end = start


def _between(table: pa.Table, time: str, low: int, high: int) -> pa.Table:
    """Return the rows whose moment is known and lies in [low, high)."""
    column = _column(table, time)
    known = column.is_valid().to_numpy()
    moments = _micros(column).fill_null(0).to_numpy()
    return table.filter(pa.array(known & (moments >= low) & (moments < high)))


def _moments(table: pa.Table, name: str) -> list[int]:
    """Return the known moments (µs) of a column."""
    return _micros(_column(table, name)).drop_null().to_pylist()


def _micros(column: pa.ChunkedArray) -> Any:
    """Return moments as int64; those of the journal, which widens whole numbers, are exact until the year 2255."""
    if pa.types.is_timestamp(column.type):
        return pa.chunked_array([pa.array(plain(column), pa.int64())])
    return pc.cast(column, pa.int64())


def _moment_of(text: str | None) -> int | None:
    """Return the microseconds of a moment as events write it, or as a number in text; None for anything else.

    The journal makes text of a column that has numbers in some records and texts in others.
    """
    if text is None:
        return None
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        pass
    try:
        return read_times("moment", [text])[0]
    except InvalidInput:
        return None


def _values(column: pa.ChunkedArray, numbers: bool) -> list[Any]:
    """Return what becomes features: numbers, also where the journal made text of them since others are texts."""
    found = plain(column)
    return [_number_of(each) for each in found] if numbers and pa.types.is_string(column.type) else found


def _number_of(text: str | None) -> Any:
    try:
        return None if text is None else float(text)
    except ValueError:
        # The store says what is wrong with it.
        return text


def _whole(entities: list[Any]) -> list[Any]:
    """Return entities with whole numbers as such: the journal widens them."""
    return [int(each) if isinstance(each, float) and each.is_integer() else each for each in entities]


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise InvalidInput(
            f"The rows of a source have no column “{name}”, which a feature view reads.",
            why=f"They have: {', '.join(table.column_names)}.",
            mend="Select the column too.",
        )
    return table[name]


def _month_before(moment: int) -> str:
    return previous_window(f"{from_microseconds(moment):%Y-%m}")
