"""Splits: the same parts again for everybody, and what the parts share is found."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue import data
from holdtrue.core.errors import HoldtrueError, InvalidInput, NotFound
from holdtrue.data import Contract, DatasetSpec, RowCount, column, part_of
from holdtrue.data.splits import NewSplit, Split, check_split, cuts_of
from tests.data.conftest import Room
from tests.sampling import examples

MOMENT = pa.timestamp("us", "UTC")
HOUR = 3_600_000_000
SPEC = DatasetSpec(
    "trips",
    key="id",
    time="at",
    contract=Contract(
        (
            column("id", "string"),
            column("at", "timestamp"),
            column("who", "string", nullable=True),
            column("v", "float64"),
        ),
        (RowCount(ge=1),),
    ),
)


def rows(start: int, count: int, **change: Any) -> pa.Table:
    numbers = np.arange(start, start + count)
    columns: dict[str, Any] = {
        "id": [f"t{number}" for number in numbers],
        "at": pa.array(numbers * HOUR, MOMENT),
        "who": [f"w{number % 40}" for number in numbers],
        "v": numbers / 7,
        **change,
    }
    return pa.table(columns)


@pytest.fixture
def trips(room: Room) -> Room:
    room.write(lambda tx: data.declare(tx, (SPEC,)))
    for window, table in (("2013-01", rows(0, 600)), ("2013-02", rows(600, 400))):
        result = data.ingest(room.stores.blobs, SPEC, window, table)
        room.write(lambda tx, result=result: data.accept(tx, result))
    return room


def split(room: Room, version: str = "current", **wanted: Any) -> Any:
    body = {"name": "holdout", "by": "random", "parts": {"train": 0.8, "test": 0.2}, **wanted}
    return room.call("POST", f"datasets/trips/versions/{version}/splits", body)


def sizes(found: Any) -> dict[str, int]:
    return {each["part"]: each["rows"] for each in found["parts"]}


def ids(room: Room, content: Any, part: str, version: str | None = None) -> set[str]:
    found = room.read(lambda connection: data.latest(connection, "flights", "trips"))
    assert found is not None
    return set(part_of(data.read(room.stores.blobs, found.content), content, part)["id"].to_pylist())


def test_a_split_is_recorded_and_the_same_again(trips: Room) -> None:
    first = split(trips)
    assert sum(sizes(first).values()) == 1000
    assert sizes(first)["test"] == pytest.approx(200, abs=40)
    assert split(trips)["split"] == first["split"]
    assert first["label"] == "holdout@1"
    other = split(trips, seed=1)
    assert other["label"] == "holdout@2"
    assert ids(trips, other, "test") != ids(trips, first, "test")
    (newest, oldest) = trips.call("GET", "datasets/trips/splits")["items"]
    assert (newest["label"], oldest["label"]) == ("holdout@2", "holdout@1")
    assert trips.call("GET", "datasets/trips/splits/holdout")["seed"] == 1
    assert first["overlap"] == {"columns": {"id": {"values": 0, "examples": []}}, "rows": {"rows": 0, "share": 0.0}}


def test_the_parts_are_all_rows_and_no_row_is_in_two(trips: Room) -> None:
    found = split(trips, parts={"train": 0.6, "tune": 0.2, "test": 0.2})
    parts = [ids(trips, found, part) for part in ("train", "tune", "test")]
    assert [len(part) for part in parts] == list(sizes(found).values())
    assert set().union(*parts) == {f"t{number}" for number in range(1000)}
    with pytest.raises(InvalidInput, match="train, tune, test"):
        ids(trips, found, "validation")


def test_rows_that_come_later_move_no_row(trips: Room) -> None:
    before = split(trips)
    kept = ids(trips, before, "test")
    result = data.ingest(trips.stores.blobs, SPEC, "2013-03", rows(1000, 300))
    trips.write(lambda tx: data.accept(tx, result))
    after = split(trips)
    assert after["label"] == "holdout@2"
    assert kept == {each for each in ids(trips, after, "test") if int(each[1:]) < 1000}


def test_by_time_the_later_rows_are_in_the_later_part(trips: Room) -> None:
    found = split(trips, by="time")
    assert sizes(found) == {"train": 800, "test": 200}
    assert found["column"] == "at"
    assert found["cuts"] == ["1970-02-03T08:00:00+00:00"]
    assert ids(trips, found, "test") == {f"t{number}" for number in range(800, 1000)}
    at = split(trips, by="time", name="at", cuts=["1970-01-02T00:00:00"])
    assert sizes(at) == {"train": 24, "test": 976}


def test_equal_values_of_a_group_stay_together(trips: Room) -> None:
    found = split(trips, by="group", column="who", apart=["who"])
    assert found["overlap"]["columns"]["who"] == {"values": 0, "examples": []}
    whos = [{int(each[1:]) % 40 for each in ids(trips, found, part)} for part in ("train", "test")]
    assert whos[0].isdisjoint(whos[1])


def test_values_that_are_to_be_apart_and_are_not_refuse_the_split(trips: Room) -> None:
    with pytest.raises(InvalidInput, match=r"40 values of “who” are in two parts, such as w\d+") as raised:
        split(trips, apart=["who"])
    assert "--by group --column who" in raised.value.mend
    assert trips.call("GET", "datasets/trips/splits")["items"] == []


def test_equal_rows_and_keys_in_two_parts_are_counted(room: Room) -> None:
    room.write(lambda tx: data.declare(tx, (SPEC,)))
    table = rows(0, 500)
    twins = rows(500, 500, who=table["who"], v=table["v"], at=table["at"])
    again = rows(0, 10, at=pa.array(np.arange(10) * HOUR + 40 * 24 * HOUR, MOMENT))
    result = data.ingest(room.stores.blobs, SPEC, "2013-01", pa.concat_tables([table, twins, again]))
    room.write(lambda tx: data.accept(tx, result))
    found = split(room)
    # A row and its twin are in two parts with chance 2 · 0.8 · 0.2.
    assert found["overlap"]["rows"]["rows"] == pytest.approx(1000 * 0.32, abs=90)
    assert found["overlap"]["columns"]["id"]["values"] == 0
    by_time = split(room, by="time", parts={"train": 0.99, "test": 0.01})
    assert by_time["overlap"]["columns"]["id"]["values"] == 10
    assert by_time["overlap"]["columns"]["id"]["examples"][0].startswith("t")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"parts": {"train": 1.0}}, "two parts"),
        ({"parts": {"train": 0.8, "test": 0.3}}, "together 1"),
        ({"parts": {"a b": 0.5, "c": 0.5}}, "letters"),
        ({"by": "group"}, "needs the column"),
        ({"cuts": ["2013-01-01"]}, "by time"),
        ({"by": "time", "cuts": ["soon"]}, "no moment"),
        ({"by": "time", "cuts": ["1960-01-01"]}, "no row"),
        ({"by": "time", "column": "v"}, "divided by time"),
        ({"column": "nothing"}, "no column “nothing”"),
        ({"by": "month"}, "by"),
        ({"seed": -1}, "seed"),
        ({"name": "no name"}, "name of a split"),
    ],
)
def test_a_split_that_cannot_be_meant_is_refused(trips: Room, wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(HoldtrueError, match=said):
        split(trips, **wanted)
    assert trips.call("GET", "datasets/trips/splits")["items"] == []


def test_what_is_not_there_is_named(trips: Room) -> None:
    for path in ("datasets/trips/splits/none", "datasets/buses/splits/none"):
        with pytest.raises(NotFound):
            trips.call("GET", path)
    with pytest.raises(NotFound):
        split(trips, version="7")


@settings(max_examples=examples(50), deadline=None)
@given(
    times=st.lists(st.integers(-(2**40), 2**40), min_size=4, max_size=60),
    shares=st.sampled_from([(0.5, 0.5), (0.8, 0.2), (0.6, 0.2, 0.2)]),
)
def test_parts_by_time_are_in_order_and_about_as_large_as_asked(times: list[int], shares: tuple[float, ...]) -> None:
    moments = np.array(times, np.int64)
    rule = Split("time", "at", tuple("abc"[: len(shares)]), shares, cuts=cuts_of(shares, moments))
    places = rule.places(pa.chunked_array([pa.array(moments, MOMENT)]))
    order = np.argsort(moments, kind="stable")
    assert (np.diff(places[order]) >= 0).all()
    # Rows of one moment stay together, so a part is too small by no more than the largest such group.
    largest = int(np.unique(moments, return_counts=True)[1].max())
    ends = np.cumsum(shares)[:-1] * len(times)
    for place, end in enumerate(ends):
        assert abs(int((places <= place).sum()) - end) <= largest


def test_a_split_by_hash_is_near_its_shares_whatever_the_keys() -> None:
    check_split(NewSplit("s", "random", {"train": 0.9, "test": 0.1}))
    for keys in (np.arange(20_000), [f"customer-{number:08d}" for number in range(20_000)]):
        found = Split("random", "id", ("train", "test"), (0.9, 0.1), seed=5).places(pa.chunked_array([pa.array(keys)]))
        # Four standard errors of a share.
        assert float((found == 1).mean()) == pytest.approx(0.1, abs=4 * (0.1 * 0.9 / 20_000) ** 0.5)
