"""Point-in-time joins: against the slow obvious answer, and on what is easy to get wrong."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.features import Latest, Trailing, point_in_time
from tests.features.worlds import HOUR, MOMENT, VIEWS, World, obvious, worlds
from tests.sampling import examples


def _joined(world: World) -> pa.Table:
    return point_in_time(world.questions(), VIEWS, {"rows": world.source()}, time="t")


@settings(deadline=None, max_examples=examples(60))
@given(world=worlds())
def test_every_feature_is_what_looking_at_every_row_gives(world: World) -> None:
    joined = _joined(world)
    for view in VIEWS:
        for place, name in enumerate(view.features):
            expected = [obvious(world, view, asked)[place] for asked in world.asked]
            np.testing.assert_allclose(
                joined[name].to_numpy(), np.array(expected, float), rtol=1e-12, atol=1e-6, err_msg=name
            )


@settings(deadline=None, max_examples=examples(60))
@given(world=worlds())
def test_what_comes_later_changes_nothing(world: World) -> None:
    if not world.asked:
        return
    last = max(asked["t"] for asked in world.asked)
    past = World([row for row in world.rows if row["at"] is None or row["at"] <= last], world.asked)
    assert _same(_joined(world), _joined(past))


@settings(deadline=None, max_examples=examples(60))
@given(world=worlds())
def test_the_same_rows_give_the_same_bits(world: World) -> None:
    assert _same(_joined(world), _joined(world))


def test_questions_keep_their_order_and_their_columns() -> None:
    world = World(
        [{"id": "1", "place": "EWR", "at": 0, "a": 5.0, "b": 1, "kind": "x", "known": 0}],
        [{"place": "JFK", "t": 9}, {"place": "EWR", "t": 8}, {"place": "JFK", "t": 1}],
    )
    joined = _joined(world)
    assert joined.select(["place", "t"]).equals(world.questions())
    np.testing.assert_array_equal(joined["seen_a"].to_numpy(), [np.nan, 5.0, np.nan])


def test_a_huge_value_spoils_no_window_but_its_own() -> None:
    rows = [(0, 1e300), (10 * HOUR, 0.1), (10 * HOUR + 1, 0.2)]
    source = pa.table(
        {
            "place": ["x"] * 3,
            "at": pa.array([at for at, _ in rows], MOMENT),
            "a": [value for _, value in rows],
        }
    )
    asked = pa.table({"place": ["x"], "t": pa.array([11 * HOUR], MOMENT)})
    view = Trailing("w", "rows", "place", "at", "a", ("sum",), "3h")
    joined = point_in_time(asked, [view], {"rows": source}, time="t")
    assert joined["w_sum"].to_pylist() == [0.1 + 0.2]


def test_views_of_another_entity_and_whole_number_entities_work() -> None:
    source = pa.table(
        {"n": pa.array([1, 2, 1], pa.int32()), "at": pa.array([1, 2, 3], MOMENT), "late": [True, False, False]}
    )
    asked = pa.table({"n": [2, 1, 1, 3], "t": pa.array([5, 2, 3, 3], MOMENT)})
    views = [
        Latest("l", "rows", "n", "at", ("late",), "1h"),
        Trailing("s", "rows", "n", "at", "late", ("mean",), "1h"),
    ]
    joined = point_in_time(asked, views, {"rows": source}, time="t")
    np.testing.assert_array_equal(joined["l_late"].to_numpy(), [0, 1, 0, np.nan])
    np.testing.assert_array_equal(joined["s_mean"].to_numpy(), [0, 1, 0.5, np.nan])


def test_encoded_texts_and_chunks_are_the_same_entities() -> None:
    source = pa.table({"place": ["a", "b"], "at": pa.array([1, 1], MOMENT), "a": [1.0, 2.0], "b": [3, 4]})
    pieces = pa.concat_tables([source.slice(0, 1), source.slice(1)])
    pieces = pieces.set_column(0, "place", pieces["place"].dictionary_encode())
    asked = pa.table({"place": pa.array(["b", "a"], pa.large_string()), "t": pa.array([2, 2], MOMENT)})
    joined = point_in_time(asked, VIEWS[:1], {"rows": pieces}, time="t")
    assert joined["seen_a"].to_pylist() == [2.0, 1.0]


@pytest.mark.parametrize(
    ("source", "asked", "word"),
    [
        ({"at": pa.array([1], pa.timestamp("us"))}, {}, "at"),
        ({}, {"t": pa.array([1], pa.timestamp("us"))}, "t"),
        ({"a": pa.array(["much"])}, {}, "a"),
        ({"place": pa.array([1.5])}, {}, "double"),
        ({}, {"place": pa.array([1])}, "int64"),
        ({"b": None}, {}, "b"),
        ({}, {"seen_a": pa.array([1.0])}, "seen_a"),
        ({"at": pa.array([2**62, -(2**62)], pa.int64())}, {}, "too far apart"),
    ],
)
def test_what_cannot_be_joined_is_refused_by_name(
    source: dict[str, pa.Array | None], asked: dict[str, pa.Array], word: str
) -> None:
    moment = pa.array([1], MOMENT)
    rows = {"place": ["x"], "at": moment, "a": [1.0], "b": [1], "kind": ["x"], "known": moment, **source}
    rows = {name: column for name, column in rows.items() if column is not None}
    longest = max(len(column) for column in rows.values())
    table = pa.table({name: pa.concat_arrays([pa.array(c)] * (longest // len(c))) for name, c in rows.items()})
    with pytest.raises(InvalidInput) as caught:
        point_in_time(pa.table({"place": ["x"], "t": pa.array([1], MOMENT), **asked}), VIEWS, {"rows": table}, time="t")
    assert word in caught.value.what
    assert caught.value.mend


def test_a_source_that_is_not_there_is_named() -> None:
    with pytest.raises(NotFound, match="rows"):
        point_in_time(pa.table({"place": ["x"], "t": pa.array([1], MOMENT)}), VIEWS, {}, time="t")


def _same(left: pa.Table, right: pa.Table) -> bool:
    return left.column_names == right.column_names and all(
        left[name].to_numpy(zero_copy_only=False).tobytes() == right[name].to_numpy(zero_copy_only=False).tobytes()
        for name in left.column_names
        if name not in ("place",)
    )


@pytest.mark.parametrize(
    ("entities", "ordered"),
    [
        (np.arange(40), False),
        (np.arange(-20, 20), True),
        (np.arange(40) * 10**15 - 7, False),
        (np.array([-(2**63), 0, 2**63 - 1]), True),
        (np.arange(200_000), False),
        (np.arange(200_000), True),
    ],
)
def test_whole_numbers_are_entities_however_they_lie(entities: np.ndarray, ordered: bool) -> None:
    numbers = np.random.default_rng(len(entities))
    known = entities[:: max(1, len(entities) // 2000)]
    at, place = numbers.integers(0, 90 * HOUR, 4000), numbers.choice(known, 4000)
    at = np.sort(at) if ordered else at
    source = pa.table({"n": place, "at": pa.array(at, MOMENT), "a": np.arange(4000.0)})
    asked = numbers.choice(np.concatenate([known, [3, -9, 2**62]]), 3000)
    times = numbers.integers(0, 90 * HOUR, 3000)
    views = [
        Latest("l", "rows", "n", "at", ("a",), "9h"),
        Trailing("t", "rows", "n", "at", "a", ("count", "sum", "distinct"), "20h", "1h"),
    ]
    joined = point_in_time(pa.table({"n": asked, "t": pa.array(times, MOMENT)}), views, {"rows": source}, time="t")
    rows: dict[int, list[tuple[int, float]]] = {}
    for entity, moment, value in sorted(zip(place.tolist(), at.tolist(), range(4000), strict=True)):
        rows.setdefault(entity, []).append((moment, float(value)))
    for number, (entity, moment) in enumerate(zip(asked.tolist(), times.tolist(), strict=True)):
        past = [row for row in rows.get(entity, []) if row[0] <= moment]
        last = past[-1][1] if past and moment - past[-1][0] <= 9 * HOUR else np.nan
        window = [value for when, value in past if when >= moment // HOUR * HOUR - 20 * HOUR]
        np.testing.assert_equal(joined["l_a"][number].as_py(), last)
        assert joined["t_count"][number].as_py() == joined["t_distinct"][number].as_py() == len(window)
        assert not window or joined["t_sum"][number].as_py() == sum(window)
