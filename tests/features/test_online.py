"""The online store: the same answers as the join over history, in any order, from several processes."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.core.errors import InvalidInput
from holdtrue.features import Latest, OnlineStore, Trailing, point_in_time
from tests.features.worlds import HOUR, VIEWS, World, worlds

LATEST = Latest("seen", "rows", "place", "at", ("a",), "1h")
WINDOW = Trailing("sum", "rows", "place", "at", "a", ("sum", "count"), "2h", "1h")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    base = tmp_path_factory.mktemp("online")
    return (base / str(number) for number in itertools.count())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OnlineStore]:
    store = OnlineStore(tmp_path)
    yield store
    store.close()


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


@settings(deadline=None)
@given(world=worlds(), cuts=st.lists(st.integers(0, 30)))
def test_online_answers_are_the_joins_over_history(world: World, cuts: list[int], folders: Iterator[Path]) -> None:
    store = OnlineStore(next(folders))
    columns = world.columns()
    edges = [0, *sorted(min(cut, len(world.rows)) for cut in cuts), len(world.rows)]
    for start, end in itertools.pairwise(edges):
        store.ingest(VIEWS, "rows", {name: values[start:end] for name, values in columns.items()})
    _compare(store, world)
    store.close()


@settings(deadline=None)
@given(world=worlds(), again=st.lists(st.integers(0, 29)))
def test_rows_sent_again_count_once(world: World, again: list[int], folders: Iterator[Path]) -> None:
    # Moments of their own, as the last of several rows with one moment is whichever came last.
    rows = [{**row, "at": None if row["at"] is None else row["at"] + place} for place, row in enumerate(world.rows)]
    world = World(rows, world.asked)
    store = OnlineStore(next(folders))
    store.ingest(VIEWS, "rows", world.columns())
    repeated = World([world.rows[place] for place in again if place < len(world.rows)], [])
    assert store.ingest(VIEWS, "rows", repeated.columns()) == 0
    _compare(store, world)
    store.close()


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


def test_old_tiles_and_rows_are_dropped_and_new_ones_kept(store: OnlineStore, tmp_path: Path) -> None:
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


def test_another_process_sees_what_was_taken_in_and_adds_to_it(store: OnlineStore, tmp_path: Path) -> None:
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


def test_it_loads_no_database_and_no_table_library() -> None:
    text = """
import sys
import holdtrue.features.online, holdtrue.features.vector
print(sorted({"sqlalchemy", "duckdb", "pyarrow", "fastapi", "starlette"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
