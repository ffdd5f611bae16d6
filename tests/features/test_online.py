"""The online store: the same answers as the join over history, in any order, from several processes."""

import itertools
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.core.clock import SimulatedClock
from holdtrue.core.errors import ConfigurationError, InvalidInput, StorageFull, Unavailable
from holdtrue.features import Latest, OnlineStore, Trailing, point_in_time
from holdtrue.features.online import open_online
from holdtrue.features.rediskeeper import RedisKeeper
from tests.features.conftest import OpenStore
from tests.features.worlds import HOUR, VIEWS, World, worlds
from tests.sampling import examples

LATEST = Latest("seen", "rows", "place", "at", ("a",), "1h")
SETTINGS = settings(deadline=None, max_examples=examples(60))
WINDOW = Trailing("sum", "rows", "place", "at", "a", ("sum", "count"), "2h", "1h")


def _rows(*rows: tuple[str, str | None, int | None, float | None]) -> dict[str, list[Any]]:
    return {name: [row[place] for row in rows] for place, name in enumerate(("id", "place", "at", "a"))}


def _one(store: OnlineStore, entity: Any, moment: int, view: Any = WINDOW) -> list[float]:
    found = store.lookup([view], {"place": [entity]}, [moment])
    return [float(found[name][0]) for name in view.features]


def _compare(store: OnlineStore, world: World) -> None:
    offline = point_in_time(world.questions(), VIEWS, {"rows": world.source()}, time="t")
    asked = {"place": [each["place"] for each in world.asked]}
    online = store.lookup(VIEWS, asked, [each["t"] for each in world.asked])
    singles = [store.lookup(VIEWS, {"place": [each["place"]]}, [each["t"]]) for each in world.asked]
    for view in VIEWS:
        for name in view.features:
            expected = offline[name].to_numpy()
            if isinstance(view, Latest) or name.rpartition("_")[2] in ("count", "min", "max"):
                np.testing.assert_array_equal(online[name], expected, err_msg=name)
            else:
                np.testing.assert_allclose(online[name], expected, rtol=1e-12, atol=1e-6, err_msg=name)
            for place, single in enumerate(singles):
                np.testing.assert_array_equal(single[name], online[name][place : place + 1])


@SETTINGS
@given(world=worlds(), cuts=st.lists(st.integers(0, 30)))
def test_online_answers_are_the_joins_over_history(world: World, cuts: list[int], open_store: OpenStore) -> None:
    store = open_store()
    columns = world.columns()
    edges = [0, *sorted(min(cut, len(world.rows)) for cut in cuts), len(world.rows)]
    for start, end in itertools.pairwise(edges):
        store.ingest(VIEWS, "rows", {name: values[start:end] for name, values in columns.items()})
    _compare(store, world)


@SETTINGS
@given(world=worlds(), again=st.lists(st.integers(0, 29)))
def test_rows_sent_again_count_once(world: World, again: list[int], open_store: OpenStore) -> None:
    # Moments of their own, as the last of several rows with one moment is whichever came last.
    rows = [{**row, "at": None if row["at"] is None else row["at"] + place} for place, row in enumerate(world.rows)]
    world = World(rows, world.asked)
    store = open_store()
    store.ingest(VIEWS, "rows", world.columns())
    repeated = World([world.rows[place] for place in again if place < len(world.rows)], [])
    assert store.ingest(VIEWS, "rows", repeated.columns()) == 0
    _compare(store, world)


def test_rows_without_ids_all_count(store: OnlineStore) -> None:
    columns = {name: values for name, values in _rows(("", "x", 5, 1.0)).items() if name != "id"}
    assert store.ingest([WINDOW], "rows", columns) == 1
    assert store.ingest([WINDOW], "rows", columns) == 1
    assert _one(store, "x", 5) == [2.0, 2.0]


def test_a_late_row_and_a_question_about_the_past_are_answered_as_of_then(store: OnlineStore) -> None:
    store.ingest([LATEST, WINDOW], "rows", _rows(("1", "x", 30, 3.0), ("2", "x", 10, 1.0)))
    assert _one(store, "x", 20, LATEST) == [1.0]
    assert _one(store, "x", 30, LATEST) == [3.0]
    assert _one(store, "x", 29) == [1.0, 1.0]
    assert _one(store, "x", 9) == pytest.approx([np.nan, 0.0], nan_ok=True)


def test_a_view_that_changed_begins_anew_and_its_old_rows_stay(store: OnlineStore) -> None:
    finer = Trailing("sum", "rows", "place", "at", "a", ("sum", "count"), "2h", "30m")
    store.ingest([WINDOW], "rows", _rows(("1", "x", 5, 1.0)))
    assert _one(store, "x", 5, finer)[1] == 0.0
    assert store.ingest([WINDOW, finer], "rows", _rows(("1", "x", 5, 1.0))) == 1
    assert _one(store, "x", 5, finer) == _one(store, "x", 5) == [1.0, 1.0]


def test_a_text_and_a_number_are_two_entities(store: OnlineStore) -> None:
    store.ingest([WINDOW], "rows", {"place": ["1", 1], "at": [5, 5], "a": [1.0, 2.0]})
    assert _one(store, "1", 5)[0] == 1.0
    assert _one(store, 1, 5)[0] == 2.0


def test_other_sources_are_left_alone(store: OnlineStore) -> None:
    assert store.ingest([WINDOW], "other", {"anything": [1, 2]}) == 0


def test_old_tiles_and_rows_are_dropped_and_new_ones_kept(store: OnlineStore) -> None:
    for hour in range(0, 3000, 100):
        rows = [(f"{each}", "x", each * HOUR, 1.0) for each in range(hour, hour + 100)]
        store.ingest([LATEST, WINDOW], "rows", _rows(*rows))
    assert _one(store, "x", 2999 * HOUR) == [3.0, 3.0]
    assert _one(store, "x", 2900 * HOUR, LATEST) == [1.0]
    assert _one(store, "x", 10 * HOUR)[1] == 0.0
    assert np.isnan(_one(store, "x", 10 * HOUR, LATEST)[0])


def test_one_row_of_the_far_future_drops_nothing_that_is_needed(store: OnlineStore) -> None:
    store.ingest([LATEST, WINDOW], "rows", _rows(*((f"{n}", "x", n * HOUR, 1.0) for n in range(300))))
    store.ingest([LATEST, WINDOW], "rows", _rows(("odd", "x", 2**60, 9.0)))
    store.ingest([LATEST, WINDOW], "rows", _rows(*((f"{n}", "x", n * HOUR, 1.0) for n in range(300, 600))))
    assert _one(store, "x", 599 * HOUR) == [3.0, 3.0]
    assert _one(store, "x", 599 * HOUR, LATEST) == [1.0]


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ({"place": ["x"], "at": [5]}, "“a”"),
        ({"place": ["x"], "at": ["now"], "a": [1.0]}, "now"),
        ({"place": ["x"], "at": [2**63], "a": [1.0]}, "922"),
        ({"place": ["x"], "at": [5], "a": ["much"]}, "much"),
        ({"place": [1.5], "at": [5], "a": [1.0]}, "1.5"),
        ({"place": ["x", "y"], "at": [5], "a": [1.0]}, "lengths"),
    ],
)
def test_events_that_cannot_be_used_are_refused_whole(
    store: OnlineStore, columns: dict[str, list[Any]], word: str
) -> None:
    good = {"place": ["x"], "at": [5], "a": [1.0]}
    bad = {name: good[name] + values for name, values in columns.items()}
    with pytest.raises(InvalidInput, match=word):
        store.ingest([WINDOW], "rows", bad)
    assert _one(store, "x", 5)[1] == 0.0


def test_another_process_sees_what_was_taken_in_and_adds_to_it(tmp_path: Path) -> None:
    store = OnlineStore(tmp_path)
    store.ingest([WINDOW], "rows", _rows(("1", "x", 5, 1.0)))
    text = f"""
from pathlib import Path
from holdtrue.features.model import Trailing
from holdtrue.features.online import OnlineStore
view = Trailing("sum", "rows", "place", "at", "a", ("sum", "count"), "2h", "1h")
store = OnlineStore(Path({str(tmp_path)!r}))
store.ingest([view], "rows", {{"id": ["1", "2"], "place": ["x", "x"], "at": [5, 6], "a": [1.0, 10.0]}})
print(store.lookup([view], {{"place": ["x"]}}, [6])["sum_sum"][0])
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "11.0"
    assert _one(store, "x", 6) == [11.0, 2.0]
    store.close()


def test_an_entity_is_removed_from_all_views_or_some_and_others_stay(store: OnlineStore) -> None:
    rows = _rows(("1", "x", 5, 1.0), ("2", "y", 5, 2.0), ("3", "x", HOUR, 3.0))
    store.ingest([LATEST, WINDOW], "rows", rows)
    assert store.remove("x", [LATEST]) == 2
    assert np.isnan(_one(store, "x", HOUR, LATEST)[0])
    assert _one(store, "x", HOUR) == [4.0, 2.0]
    assert store.remove("x") == 2
    assert store.remove("x") == store.remove("never seen") == store.remove(7) == 0
    assert _one(store, "x", HOUR)[1] == 0.0
    assert _one(store, "y", HOUR) == [2.0, 1.0]
    assert _one(store, "y", 5, LATEST) == [2.0]
    store.ingest([WINDOW], "rows", rows)
    assert _one(store, "x", HOUR) == [4.0, 2.0]
    with pytest.raises(InvalidInput, match="entity"):
        store.remove(1.5)  # type: ignore[arg-type]


def test_the_newest_row_of_a_view_is_known_and_one_of_the_future_counts_as_of_its_arrival(store: OnlineStore) -> None:
    assert store.newest([LATEST, WINDOW]) == [None, None]
    store.ingest([LATEST], "rows", _rows(("1", "x", -5, 1.0), ("2", "y", -7, 2.0)))
    assert store.newest([LATEST, WINDOW]) == [-5, None]
    store.take([store.prepare([LATEST, WINDOW], "rows", _rows(("3", "x", 10**15, 1.0)))], 700)
    assert store.newest([LATEST, WINDOW]) == [700, 700]
    store.take([store.prepare([LATEST], "rows", _rows(("4", "x", 600, 1.0)))], 800)
    assert store.newest([LATEST]) == [700]


def test_values_come_with_the_moment_of_the_newest_row_they_are_made_of(store: OnlineStore) -> None:
    told = Latest("told", "rows", "place", "at", ("a",), "1h", created="known")
    rows = _rows(("1", "x", 5, 1.0), ("2", "x", 9, 2.0))
    store.ingest([LATEST, WINDOW, told], "rows", {**rows, "known": [6, 20]})
    (latest,), (window,), (late,) = store.dated([LATEST, WINDOW, told], {"place": ["x"]}, [10])
    assert (latest.moment, window.moment, late.moment) == (9, 9, 5)
    assert (latest.values, window.values, late.values) == ((2.0,), (3.0, 2.0), (1.0,))
    assert store.dated([LATEST], {"place": ["x"]}, [2 * HOUR])[0][0].moment is None
    assert [found.moment for found in store.dated([WINDOW], {"place": ["x", None, "z"]}, [8, 8, 8])[0]] == [
        5,
        None,
        None,
    ]
    assert store.values([LATEST, WINDOW], {"place": "x"}, 10) == [2.0, 3.0, 2.0]


def test_what_is_noted_is_kept_with_the_rows(store: OnlineStore) -> None:
    assert store.note("how far") is None
    prepared = store.prepare([WINDOW], "rows", _rows(("1", "x", 5, 1.0)))
    assert store.take([prepared, prepared], notes={"how far": b"5"}) == [1, 0]
    assert store.note("how far") == b"5"
    assert store.note("other") is None


def test_how_much_is_kept_of_a_view_is_known(store: OnlineStore) -> None:
    store.ingest([WINDOW], "rows", _rows(("1", "x", 5, 1.0), ("2", "y", 5, 2.0), ("3", "x", HOUR, 3.0)))
    window, latest = store.extents([WINDOW, LATEST])
    assert (window.entities, window.records) == (2, 3)
    assert window.bytes > 3 * 48
    assert (latest.entities, latest.records, latest.bytes) == (0, 0, 0)


def test_writers_at_the_same_time_lose_no_row(open_store: OpenStore) -> None:
    store = open_store()

    def send(writer: int) -> int:
        return sum(
            store.ingest([LATEST, WINDOW], "rows", _rows((f"{writer}-{number}", "x", number, 1.0)))
            for number in range(25)
        )

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(send, range(4))) == 100
    assert _one(store, "x", 100) == [100.0, 100.0]


def test_a_server_that_is_not_there_is_unavailable_and_left_alone_for_a_moment() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        clock = SimulatedClock(datetime(2030, 1, 1, tzinfo=UTC))
        keeper = RedisKeeper(f"redis://:hidden@127.0.0.1:{taken.getsockname()[1]}/0", "project", clock)
        store = OnlineStore(keeper)
        with pytest.raises(Unavailable, match="cannot be read") as first:
            _one(store, "x", 5)
        with pytest.raises(Unavailable) as second:
            store.ingest([WINDOW], "rows", _rows(("1", "x", 5, 1.0)))
        assert "a moment ago" in second.value.why
        assert "hidden" not in f"{first.value.what} {first.value.why}"
        clock.advance(2.0)
        with pytest.raises(Unavailable) as third:
            store.ingest([WINDOW], "rows", _rows(("1", "x", 5, 1.0)))
        assert "a moment ago" not in third.value.why
        store.close()


def test_a_server_without_room_loses_nothing_and_says_so(redis_address: str) -> None:
    store = open_online(Path(), "full", redis_address)
    store.ingest([WINDOW], "rows", _rows(("1", "x", 5, 1.0)))
    with redis.Redis.from_url(redis_address) as client:
        client.config_set("maxmemory", "1mb")
        try:
            with pytest.raises(StorageFull, match="no room"):
                store.ingest([LATEST, WINDOW], "rows", _rows(("2", "x", 6, 2.0)))
        finally:
            client.config_set("maxmemory", "0")
    assert _one(store, "x", 6) == [1.0, 1.0]
    assert np.isnan(_one(store, "x", 6, LATEST)[0])
    store.ingest([LATEST, WINDOW], "rows", _rows(("2", "x", 6, 2.0)))
    assert _one(store, "x", 6) == [3.0, 2.0]
    store.close()


def test_projects_of_one_server_do_not_see_each_other(redis_address: str) -> None:
    one, other = (open_online(Path(), name, redis_address) for name in ("one", "one*"))
    one.ingest([WINDOW], "rows", _rows(("1", "x", 5, 1.0)))
    assert _one(other, "x", 5)[1] == 0.0
    assert other.remove("x") == 0
    assert other.extents([WINDOW])[0].records == 0
    assert _one(one, "x", 5) == [1.0, 1.0]
    one.close()
    other.close()


def test_an_address_of_something_else_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="online store"):
        open_online(Path(), "project", "http://127.0.0.1")


def test_without_its_library_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigurationError, match="not installed") as caught:
        open_online(Path(), "project", "redis://127.0.0.1")
    assert caught.value.mend == "Install it: pip install 'holdtrue[redis]'"


def test_it_loads_no_database_and_no_table_library() -> None:
    text = """
import sys
from concurrent.futures import ThreadPoolExecutor
import holdtrue.features.online, holdtrue.features.vector
print(sorted({"sqlalchemy", "duckdb", "pyarrow", "fastapi", "starlette", "redis"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
