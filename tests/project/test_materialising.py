"""Online stores filled from accepted windows and the journal: the same answers as the join over history."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

import holdtrue as ht
from holdtrue import data
from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.features import Latest, OnlineStore, Trailing, View, open_online, point_in_time
from holdtrue.project.materialising import Materialise, Taken, materialised
from holdtrue.storage import BlobStore
from holdtrue.storage.journal import Journal

MOMENT = pa.timestamp("us", "UTC")
HOUR = 3_600_000_000
DAY = 24 * HOUR
JANUARY = 1_704_067_200_000_000
FEBRUARY = JANUARY + 31 * DAY
VIEWS: tuple[View, ...] = (
    Trailing("past", "endings", "place", "ended_at", "delay", ("mean", "count", "last", "distinct"), "3h"),
    Latest("last", "endings", "place", "ended_at", ("delay",), "2d"),
)


def _rows(start: int, days: int, seed: int, first: int = 0) -> pa.Table:
    numbers = np.random.default_rng(seed)
    n = 12 * days
    at = start + np.sort(numbers.integers(0, days * DAY, n))
    return pa.table(
        {
            "id": [f"r{first + each}" for each in range(n)],
            "at": pa.array(at, MOMENT),
            "place": numbers.choice(["x", "y"], n),
            "ended_at": pa.array(at + HOUR, MOMENT),
            "delay": numbers.integers(0, 50, n).astype(float),
        }
    )


class _World:
    """Two months of rows in a project, a journal, and an empty online store."""

    def __init__(self, folder: Path, columns: str = "id, place, ended_at, delay") -> None:
        contract = ht.Contract(
            (
                ht.column("id", "string", unique=True),
                ht.column("at", "timestamp"),
                ht.column("place", "string"),
                ht.column("ended_at", "timestamp"),
                ht.column("delay", "float64"),
            )
        )
        self.project = ht.Project("toy", owner="me")

        @self.project.dataset(key="id", time="at", contract=contract)
        def rows(window: str) -> pa.Table:
            raise NotImplementedError(window)

        @self.project.source(of=rows)
        def endings(given: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
            return given.select(columns)

        self.rows, self.endings = rows, endings
        self.journal = Journal(folder / "journal", SystemClock())
        self.writer = self.journal.writer("plane")
        self.blobs = BlobStore(folder / "blobs")
        self.store = OnlineStore(folder / "online")
        self.fragments: dict[str, Any] = {}
        self.january, self.february = _rows(JANUARY, 31, 1), _rows(FEBRUARY, 20, 2, 1000)

    def accept(self, window: str, rows: pa.Table) -> None:
        taken = data.ingest(self.blobs, self.project.datasets["rows"].spec, window, rows)
        self.fragments[window] = {"digest": taken.digest}

    def events(self, rows: pa.Table) -> None:
        columns = {name: rows[name].to_pylist() for name in ("id", "place", "delay")}
        moments = rows["ended_at"].cast(pa.int64()).to_pylist()
        record = {**columns, "ended_at": moments, "time": moments, "known_at": moments}
        self.writer.append("event", "toy", "endings", record, rows.num_rows)

    def fill(self, since: int | None = None, views: tuple[View, ...] = VIEWS, batch: int = 50) -> list[Taken]:
        asked = Materialise(
            self.project, views, self.store, self.journal, self.blobs, lambda _: self.fragments, FEBRUARY + 60 * DAY,
            since, batch,
        )  # fmt: skip
        return list(materialised(asked))

    def check(self, rows: pa.Table, start: int, end: int, views: tuple[View, ...] = VIEWS) -> None:
        times = np.arange(start, end, 5 * HOUR)
        asked = pa.table({"place": ["x", "y"] * len(times), "t": pa.array(np.repeat(times, 2), MOMENT)})
        offline = point_in_time(asked, views, {"endings": rows}, time="t")
        online = self.store.lookup(views, {"place": ["x", "y"] * len(times)}, np.repeat(times, 2).tolist())
        for view in views:
            for name in view.features:
                np.testing.assert_array_equal(online[name], offline[name].to_numpy(), err_msg=name)

    def close(self) -> None:
        self.journal.close()
        self.store.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[_World]:
    made = _World(tmp_path)
    yield made
    made.close()


def test_a_new_view_knows_the_windows_that_were_accepted(world: _World) -> None:
    world.accept("2024-01", world.january)
    world.accept("2024-02", world.february)
    past, last = world.fill()
    end = FEBRUARY + 20 * DAY
    both = pa.concat_tables([world.january, world.february])
    world.check(both, end - 6 * DAY, end, VIEWS[:1])
    world.check(both, end - HOUR, end + 3 * DAY)
    # As far back as tiles are kept, and as a last value is good for; the month before is too old for both.
    assert past.windows == last.windows == ("2024-02", "2024-01")
    assert world.february.num_rows > past.new > last.new > 10
    assert past.newest == max(world.february["ended_at"].cast(pa.int64()).to_pylist())
    again = world.fill()
    assert [(each.rows, each.new, each.windows) for each in again] == [(0, 0, ())] * 2


def test_a_store_in_redis_is_filled_as_one_in_a_file_is(world: _World, redis_address: str) -> None:
    world.store.close()
    world.store = open_online(Path(), "filled", redis_address)
    world.accept("2024-01", world.january)
    world.events(world.february.slice(0, 50))
    taken = world.fill(JANUARY)
    assert [each.events for each in taken] == [50, 50]
    end = max(world.february.slice(0, 50)["ended_at"].cast(pa.int64()).to_pylist())
    both = pa.concat_tables([world.january, world.february.slice(0, 50)])
    world.check(both, end - 30 * HOUR, end + 30 * HOUR)
    assert [(each.rows, each.new) for each in world.fill(JANUARY)] == [(0, 0)] * 2


def test_what_came_since_is_taken_and_what_came_as_events_counts_once(world: _World) -> None:
    world.accept("2024-01", world.january)
    world.fill(JANUARY)
    world.events(world.february.slice(0, 100))
    world.store.ingest(VIEWS, "endings", _columns(world.february.slice(50, 50)))
    taken = world.fill(JANUARY)
    assert [(each.windows, each.events, each.new) for each in taken] == [((), 100, 50)] * 2
    world.accept("2024-02", world.february)
    taken = world.fill(JANUARY)
    assert [(each.windows, each.events, each.new) for each in taken] == [(("2024-02",), 0, 140)] * 2
    # Latest keeps 1,024 rows of an entity, so that all of them are there still.
    world.check(pa.concat_tables([world.january, world.february]), JANUARY + DAY, FEBRUARY + 20 * DAY, VIEWS[1:])


def test_an_earlier_beginning_takes_the_rest_and_a_further_view_all(world: _World) -> None:
    world.accept("2024-01", world.january)
    half = JANUARY + 15 * DAY
    (first,) = world.fill(half, VIEWS[1:])
    (second,) = world.fill(JANUARY, VIEWS[1:])
    assert first.new + second.new == second.rows + first.rows == world.january.num_rows
    past, last = world.fill(JANUARY)
    assert (past.new, last.new) == (world.january.num_rows, 0)
    # Views that keep the same rows share them.
    (other,) = world.fill(JANUARY, (Latest("other", "endings", "place", "ended_at", ("delay",), "9d"),))
    assert other.rows == 0


def test_a_run_that_was_killed_goes_on_where_it_was(world: _World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.accept("2024-01", world.january)
    take, calls = OnlineStore.take, list[int]()

    def failing(self: OnlineStore, *arguments: Any) -> list[int]:
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("killed")
        return take(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(OnlineStore, "take", failing)
        with pytest.raises(RuntimeError):
            world.fill(JANUARY, VIEWS[:1])
    (rest,) = world.fill(JANUARY, VIEWS[:1])
    assert rest.rows == rest.new == world.january.num_rows - 150


def test_a_window_that_was_mended_is_taken_again(world: _World) -> None:
    world.accept("2024-01", world.january.slice(0, 300))
    world.fill(JANUARY)
    world.accept("2024-01", world.january)
    assert [each.new for each in world.fill(JANUARY)] == [world.january.num_rows - 300] * 2


def test_rows_without_ids_are_taken_up_to_the_first_event_and_never_twice(tmp_path: Path) -> None:
    world = _World(tmp_path, "place, ended_at, delay")
    world.accept("2024-01", world.january)
    events = world.january.slice(200)
    world.events(events)
    first = min(events["ended_at"].cast(pa.int64()).to_pylist())
    before = sum(moment < first for moment in world.january["ended_at"].cast(pa.int64()).to_pylist())
    taken = world.fill(JANUARY)
    assert [each.new for each in taken] == [before + events.num_rows] * 2
    world.check(world.january, JANUARY + 28 * DAY, FEBRUARY)
    world.accept("2024-02", world.february)
    assert [(each.new, each.unnamed) for each in world.fill(JANUARY)] == [(0, ("2024-02",))] * 2
    world.close()


def test_nothing_accepted_and_nothing_sent_is_nothing_taken(world: _World) -> None:
    assert [(each.rows, each.newest) for each in world.fill()] == [(0, None)] * 2


def test_what_cannot_be_filled_is_named(world: _World) -> None:
    world.accept("2024-01", world.january)
    with pytest.raises(NotFound, match="nowhere"):
        world.fill(views=(Latest("v", "nowhere", "place", "ended_at", ("delay",), "2d"),))
    with pytest.raises(InvalidInput, match="wind"):
        world.fill(views=(Latest("v", "endings", "place", "ended_at", ("wind",), "2d"),))
    with pytest.raises(InvalidInput, match="landed_at"):
        world.fill(views=(Latest("v", "endings", "place", "landed_at", ("delay",), "2d"),))


def _columns(rows: pa.Table) -> dict[str, list[Any]]:
    found = {name: rows[name].to_pylist() for name in ("id", "place", "delay")}
    return {**found, "ended_at": rows["ended_at"].cast(pa.int64()).to_pylist()}


def test_events_of_before_a_data_plane_knew_the_view_are_taken_as_they_were_sent(world: _World) -> None:
    moments = ["2024-01-05T10:00:00Z", "2024-01-05T12:30:00+02:00", "2024-01-05T11:00:00", "noon", None]
    first = {"id": list("abcde"), "place": ["x"] * 5, "delay": [1, 2, 3, 4, 5], "ended_at": moments, "time": [0] * 5}
    world.writer.append("event", "toy", "endings", first, 5)
    then = JANUARY + 5 * DAY
    second = {
        "id": ["f", "g"], "place": ["x", "x"], "delay": ["7.5", "much"], "ended_at": [then, then], "time": [0, 0],
    }  # fmt: skip
    world.writer.append("event", "toy", "endings", second, 2)
    past, last = world.fill(JANUARY)
    assert (past.new, last.new) == (4, 4)
    assert (past.refused, last.refused) == (2, 2)
    assert "moment" in past.why
    at = [JANUARY + 4 * DAY + 12 * HOUR, then]
    found = world.store.lookup(VIEWS, {"place": ["x", "x"]}, at)
    assert found["past_count"].tolist() == [3.0, 1.0]
    assert found["last_delay"].tolist() == [3.0, 7.5]


def test_entities_that_are_whole_numbers_are_the_same_in_windows_and_events(world: _World) -> None:
    view = (Latest("last", "endings", "delay", "ended_at", ("delay",), "9d"),)
    record = {"id": ["a"], "place": ["x"], "delay": [7], "ended_at": [JANUARY], "time": [JANUARY]}
    world.writer.append("event", "toy", "endings", record, 1)
    world.writer.append("event", "toy", "endings", {**record, "id": ["b"], "delay": [7.5]}, 1)
    (taken,) = world.fill(JANUARY, view)
    assert (taken.new, taken.refused) == (1, 1)
    assert world.store.lookup(view, {"delay": [7]}, [JANUARY + HOUR])["last_delay"].tolist() == [7.0]
