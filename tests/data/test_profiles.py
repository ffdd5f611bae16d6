"""Profiles: the merge of any split of a table says what the profile of the whole says."""

import re
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.core.errors import Corrupt
from holdtrue.data import Profile, fragment_profile, merge_profiles, profile_table
from holdtrue.data.profiles import MEASURED, Spread, shift, told
from holdtrue.stats import token_counts
from tests.data.conftest import Room
from tests.sampling import examples

MOMENT = pa.timestamp("us", "UTC")
_PARTS = st.floats(-(2.0**20), 2.0**20, width=32) | st.sampled_from([float("nan"), float("inf")])
_COLUMNS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "whole": (pa.int64(), st.integers(-(2**40), 2**40) | st.integers(0, 3)),
    "number": (pa.float64(), st.floats(width=32)),
    "text": (pa.string(), st.text(max_size=5) | st.sampled_from(["EWR", "JFK"])),
    "truth": (pa.bool_(), st.booleans()),
    "moment": (MOMENT, st.integers(0, 2**50)),
    "nothing": (pa.null(), st.none()),
    "prose": (pa.string(), st.text("ab .,-_日本ü", max_size=12)),
    "vector": (pa.list_(pa.float32(), 3), st.lists(_PARTS, min_size=3, max_size=3)),
    "list": (pa.list_(pa.float64()), st.lists(st.floats(-5, 5), min_size=2, max_size=2)),
    "ragged": (pa.large_list(pa.float64()), st.lists(st.floats(-5, 5), max_size=2)),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[pa.Table, list[int]]:
    """Draw a table of every kind of column with missing values, and where to cut it."""
    rows = draw(st.integers(0, 400))
    # One drawn seed for the rows: hypothesis shrinks the kinds of values, not each of them.
    numbers = np.random.default_rng(draw(st.integers(0, 2**32)))
    columns: dict[str, Any] = {}
    for name, (kind, values) in _COLUMNS.items():
        pool = draw(st.lists(st.none() | values, min_size=1, max_size=120))
        columns[name] = pa.array([pool[place] for place in numbers.integers(0, len(pool), rows)], kind)
    return pa.table(columns), sorted(draw(st.lists(st.integers(0, rows), max_size=4)))


@settings(max_examples=examples(60), deadline=None)
@given(drawn=tables())
def test_the_merge_of_any_split_is_the_profile_of_the_whole(drawn: tuple[pa.Table, list[int]]) -> None:
    table, cuts = drawn
    ends = [*cuts, table.num_rows]
    parts = [table.slice(start, end - start) for start, end in zip([0, *cuts], ends, strict=True)]
    # Through its stored form, as fragments are.
    merged = merge_profiles([Profile.from_json(orjson.loads(orjson.dumps(profile_table(p).to_json()))) for p in parts])
    whole = profile_table(table)
    assert merged.rows == whole.rows == table.num_rows
    for one, other in zip(merged.columns, whole.columns, strict=True):
        assert (one.name, one.kind, one.rows, one.missing) == (other.name, other.kind, other.rows, other.missing)
        if one.kind not in MEASURED:
            continue
        assert (one.low, one.high, one.infinite) == (other.low, other.high, other.infinite)
        _agree(one.tokens, other.tokens)
        if one.center is not None and other.center is not None:
            assert one.center.n == other.center.n
            assert one.center.mean == pytest.approx(other.center.mean, rel=1e-9, abs=1e-9)
            assert one.center.squares == pytest.approx(other.center.squares, rel=1e-6, abs=1e-3)
        assert (one.center is None) == (other.center is None) == (one.kind != "vector")
        assert one.moments.n == other.moments.n
        assert one.moments.mean == pytest.approx(other.moments.mean, rel=1e-9, abs=1e-9)
        assert one.moments.squares == pytest.approx(other.moments.squares, rel=1e-6, abs=1e-3)
        assert one.distinct.count == other.distinct.count
        error = one.frequent.error + other.frequent.error
        for value in {*one.frequent.counts, *other.frequent.counts}:
            assert abs(one.frequent.counts.get(value, 0) - other.frequent.counts.get(value, 0)) <= error
        if one.quantiles.n:
            points = other.quantiles.points
            gap = np.abs(one.quantiles.below(points) - other.quantiles.below(points)).max()
            assert gap <= one.quantiles.error + other.quantiles.error + 1e-9


def _agree(one: Spread | None, other: Spread | None) -> None:
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert (one.low, one.high, one.moments.n) == (other.low, other.high, other.moments.n)
        assert one.moments.mean == pytest.approx(other.moments.mean)
        gap = np.abs(one.quantiles.below(other.quantiles.points) - other.quantiles.below(other.quantiles.points)).max()
        assert gap <= one.quantiles.error + other.quantiles.error + 1e-9


_LARGE: dict[str, Any] = {
    "normal": lambda numbers, n: numbers.normal(size=n),
    "wide": lambda numbers, n: np.exp(numbers.normal(size=n) * 20),
    "zeros": lambda numbers, n: np.where(numbers.random(n) < 0.4, 0.0, numbers.normal(size=n)),
    "near": lambda numbers, n: numbers.integers(-500, 70_000, n),
    "far": lambda numbers, n: numbers.integers(-(2**60), 2**60, n),
    "two ends": lambda numbers, n: np.where(numbers.random(n) < 0.5, -1.7e308, 1.7e308),
    "one": lambda _, n: np.full(n, 3.5),
}


@pytest.mark.parametrize("name", _LARGE)
def test_a_long_column_is_known_within_its_errors_however_it_is_cut(name: str) -> None:
    values = _LARGE[name](np.random.default_rng(8), 60_000)
    table = pa.table({"c": values})
    whole = profile_table(table).columns[0]
    cut = [table.slice(start, size) for start, size in ((0, 500), (500, 30_000), (30_500, 29_500))]
    merged = merge_profiles([profile_table(part) for part in cut]).columns[0]
    ordered = np.sort(values.astype(np.float64))
    true = np.searchsorted(ordered, ordered, side="right") / len(ordered)
    different, counts = np.unique(values, return_counts=True)
    for found in (whole, merged):
        assert (found.low, found.high, found.moments.n) == (values.min(), values.max(), len(values))
        assert found.quantiles.error < 0.005
        assert np.abs(found.quantiles.below(ordered) - true).max() <= found.quantiles.error + 1e-9
        assert found.distinct.count == pytest.approx(len(different), rel=0.06)
        for value, count in zip(different.tolist(), counts.tolist(), strict=True):
            kept = found.frequent.counts.get(value, 0)
            assert kept <= count <= kept + found.frequent.error
    assert merged.distinct.count == whole.distinct.count
    if name != "two ends":
        assert merged.moments.mean == pytest.approx(values.astype(np.float64).mean(), rel=1e-9, abs=1e-9)


def test_many_names_of_rows_are_known_within_their_errors() -> None:
    names = [f"trip {number:07d}" for number in range(40_000)] + ["late"] * 30
    (column,) = profile_table(pa.table({"s": names})).columns
    assert column.distinct.count == pytest.approx(40_001, rel=0.06)
    assert 30 - column.frequent.counts.get("late", 0) <= column.frequent.error < 40_000 / 900
    often = profile_table(pa.table({"s": names + ["late"] * 4000})).columns[0]
    assert often.frequent.counts["late"] + often.frequent.error >= 4030


def test_what_is_told_of_embeddings() -> None:
    numbers = np.random.default_rng(3)

    def of(shift_by: float) -> Any:
        vectors = (numbers.normal(size=(3000, 8)) + shift_by).astype(np.float32)
        vectors[0, 0] = np.inf
        kept = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 8)
        return profile_table(pa.table({"v": pa.concat_arrays([kept, pa.nulls(2, kept.type)])})).columns[0]

    still, moved = of(0.0), of(1.0)
    found = told(still)
    assert (found["kind"], found["dimensions"], found["missing"], found["infinite"]) == ("vector", 8, 2, 1)
    assert found["of"] == "norm"
    assert found["distance"] == pytest.approx(8**0.5, rel=0.05)
    assert found["mean"] == pytest.approx(8**0.5, rel=0.1)
    assert shift(still, of(0.0))["centers"] < 0.05
    # Each of eight dimensions moved by one: √8, and so are they from their mean.
    assert shift(still, moved)["centers"] == pytest.approx(1.0, rel=0.05)
    (other,) = profile_table(pa.table({"v": pa.array([[1.0, 2.0]], pa.list_(pa.float32()))})).columns
    assert shift(still, other)["centers"] is None
    assert (
        merge_profiles([profile_table(pa.table({"v": [[1.0]]})), profile_table(pa.table({"v": [[1.0, 2.0]]}))])
        .columns[0]
        .kind
        == "other"
    )


@given(texts=st.lists(st.text("ab1_ .,-\n\t日本üé(", max_size=12), max_size=20))
def test_tokens_are_words_and_signs(texts: list[str]) -> None:
    data = [text.encode() for text in texts]
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in data])]).astype(np.int64)
    expected = [len(re.findall(r"[日本]|[ab1_üé]+|[.,\-(]", text)) for text in texts]
    assert token_counts(np.frombuffer(b"".join(data), np.uint8), offsets).tolist() == expected


def test_texts_are_told_by_their_tokens() -> None:
    texts = ["late again", "on time, they said", "late again"]
    (column,) = profile_table(pa.table({"s": texts})).columns
    assert told(column)["tokens"]["mean"] == 3
    assert told(column)["tokens"]["high"] == 5


def test_what_a_person_reads() -> None:
    table = pa.table(
        {
            "n": pa.array([1, 2, 2, None], pa.int64()),
            "f": [0.5, float("nan"), float("inf"), 1.5],
            "s": ["EWR", "JFK", "EWR", "LGAA"],
            "t": pa.array([0, 60_000_000, 0, None], MOMENT),
            "x": pa.array([[1], [2], [], None], pa.list_(pa.int64())),
        }
    )
    n, f, s, t, x = (told(each) for each in profile_table(table).columns)
    assert (n["missing"], n["low"], n["high"], n["distinct"], n["quantiles"]["p50"]) == (1, 1, 2, 2, 2)
    assert n["frequent"] == [{"value": 2, "count": 2}, {"value": 1, "count": 1}]
    assert (f["missing"], f["infinite"], f["mean"]) == (1, 1, 1.0)
    assert (s["of"], s["low"], s["high"], s["frequent"][0]) == ("length", 3, 4, {"value": "EWR", "count": 2})
    assert t["high"] == "1970-01-01T00:01:00+00:00"
    assert x == {"name": "x", "kind": "other", "rows": 4, "missing": 1}


def test_long_texts_are_told_apart_though_only_their_beginnings_are_shown() -> None:
    texts = ["a" * 500 + "x", "a" * 500 + "y", "a" * 500 + "x"]
    (column,) = profile_table(pa.table({"s": texts})).columns
    assert sorted(column.frequent.counts.values()) == [1, 2]
    assert all(len(value) <= 200 for value in column.frequent.counts)


def test_a_column_that_came_later_is_missing_before() -> None:
    merged = merge_profiles([profile_table(pa.table({"a": [1, 2]})), profile_table(pa.table({"a": [1.5], "b": ["x"]}))])
    a, b = merged.columns
    assert (a.kind, a.rows, a.missing, a.high) == ("number", 3, 0, 2)
    assert (b.kind, b.rows, b.missing) == ("text", 3, 2)
    mixed = merge_profiles([profile_table(pa.table({"a": [1]})), profile_table(pa.table({"a": ["x"]}))])
    assert mixed.columns[0].kind == "other"


def test_effect_sizes_say_how_far_a_column_moved() -> None:
    numbers = np.random.default_rng(1)
    base = numbers.normal(size=4000)

    def of(values: Any) -> Any:
        return profile_table(pa.table({"c": values})).columns[0]

    same = shift(of(base), of(numbers.normal(size=4000)))
    moved = shift(of(base), of(numbers.normal(size=4000) + 1))
    assert same["distance"] < 0.08 < 0.3 < moved["distance"]
    assert abs(same["standardised"]) < 0.1
    assert moved["standardised"] == pytest.approx(1.0, abs=0.1)
    assert moved["moved"] == pytest.approx(1.0, abs=0.1)
    assert shift(of(["a", "b"]), of(["c", "d"]))["distance"] == pytest.approx(1.0)
    assert shift(of([f"id{each}" for each in range(900)]), of(["a"]))["distance"] is None
    assert shift(of(base), of(["a"]))["distance"] is None


def test_a_fragments_profile_is_made_once_and_again_when_it_is_lost(room: Room) -> None:
    import io

    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.table({"a": [1, 2, 3]}), out)
    blobs, actions = room.stores.blobs, room.stores.actions
    digest = blobs.put(out.getvalue())
    first, read = fragment_profile(blobs, actions, digest)
    assert read
    second, read = fragment_profile(blobs, actions, digest)
    assert not read
    assert second.to_json() == first.to_json()
    assert blobs.collect({digest}, -1.0) == 1
    third, read = fragment_profile(blobs, actions, digest)
    assert read
    assert third.to_json() == first.to_json()


def test_a_profile_of_another_form_is_refused() -> None:
    with pytest.raises(Corrupt, match="profile"):
        Profile.from_json({"profile": 2})
