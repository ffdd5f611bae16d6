import math
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdtrue.core.clock import SimulatedClock
from holdtrue.core.errors import InvalidInput
from holdtrue.storage import Journal
from tests.storage.records import DAY, START, columns


def add(journal: Journal, ids: list[str], day: int = 0, service: str = "svc", **more: Any) -> None:
    """Append one frame of labels."""
    writer = journal._writers[0] if journal._writers else journal.writer("w", "fast")  # pyright: ignore[reportPrivateUsage]
    writer.append("label", "flights", service, columns(ids, day, **more), len(ids))


def ids(table: pa.Table) -> list[str]:
    return table["id"].to_pylist()


@pytest.fixture(params=["live", "sealed", "half"])
def settle(request: pytest.FixtureRequest, journal: Journal) -> Any:
    """What to do between appends: nothing, seal each time, or seal every second time."""
    calls = [0]

    def settle() -> None:
        calls[0] += 1
        if request.param == "sealed" or (request.param == "half" and calls[0] % 2):
            assert journal.seal()

    return settle


def test_a_table_has_all_records_in_order_of_arrival(journal: Journal, settle: Any) -> None:
    add(journal, ["a", "b"], day=1, value=[1, 2])
    settle()
    add(journal, ["c"], day=0, value=[3])
    settle()
    table = journal.table("label", "flights")
    assert ids(table) == ["a", "b", "c"]
    assert table["value"].to_pylist() == [1, 2, 3]
    assert table["time"].to_pylist() == [START + DAY, START + DAY + 1_000_000, START]
    assert table["service"].to_pylist() == ["svc"] * 3


def test_the_first_record_of_an_id_wins(journal: Journal, settle: Any) -> None:
    add(journal, ["a", "b", "a"], day=3, value=[1, 2, 3])
    settle()
    add(journal, ["b", "c"], day=0, value=[4, 5])
    settle()
    table = journal.table("label", "flights")
    assert dict(zip(ids(table), table["value"].to_pylist(), strict=True)) == {"a": 1, "b": 2, "c": 5}
    assert ids(table) == ["a", "b", "c"]
    assert journal.counts() == {"label/flights/svc": 5}


def test_columns_are_the_union_and_types_widen(journal: Journal, settle: Any) -> None:
    add(journal, ["a"], whole=1, number=1, text="x", mixed=5, flag=True, gone=None, only_first=1)
    settle()
    add(
        journal,
        ["b"],
        whole=None,
        number=0.5,
        text=None,
        mixed="y",
        flag=False,
        gone=None,
        only_second=[[1, 2]],
    )
    settle()
    table = journal.table("label", "flights")
    assert {field.name: str(field.type) for field in table.schema} == {
        "id": "string",
        "time": "int64",
        "whole": "int64",
        "number": "double",
        "text": "string",
        "mixed": "string",
        "flag": "bool",
        "gone": "null",
        "only_first": "int64",
        "only_second": "string",
        "service": "string",
    }
    rows = {row["id"]: row for row in table.to_pylist()}
    assert rows["a"]["mixed"] == "5"
    assert rows["a"]["number"] == 1.0
    assert rows["b"]["only_first"] is None
    assert rows["b"]["only_second"] == "[1,2]"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2.5, None], [1.0, 2.5, None]),
        ([True, 2], [1, 2]),
        ([True, 2.5], [1.0, 2.5]),
        ([2**63, 1], [float(2**63), 1.0]),
        ([2**60, 0.5], [float(2**60), 0.5]),
        ([1, "x"], ["1", "x"]),
        ([True, "x"], ["true", "x"]),
        ([{"a": 1}, None], ['{"a":1}', None]),
        ([[1], [2, 3]], ["[1]", "[2,3]"]),
        (["é\u0000漢", "\U0001f600"], ["é\u0000漢", "\U0001f600"]),
    ],
)
def test_values_of_one_frame_get_one_type(journal: Journal, values: list[Any], expected: list[Any]) -> None:
    add(journal, [str(at) for at in range(len(values))], value=values)
    assert journal.table("label", "flights")["value"].to_pylist() == expected
    journal.seal()
    assert journal.table("label", "flights")["value"].to_pylist() == expected


def test_nan_and_infinity_are_missing_values(journal: Journal) -> None:
    add(journal, ["a", "b", "c"], value=[math.nan, math.inf, 1.0])
    assert journal.table("label", "flights")["value"].to_pylist() == [None, None, 1.0]


def test_arrays_and_tuples_may_be_columns(journal: Journal) -> None:
    writer = journal.writer("arrays", "fast")
    times = np.array([START, START + 1], np.int64)
    score = np.array([0.1, 0.2], np.float32)
    writer.append("label", "flights", "svc", {"id": ("a", "b"), "time": times, "score": score}, 2)
    assert journal.table("label", "flights").select(["id", "time", "score"]).to_pylist() == [
        {"id": "a", "time": START, "score": 0.1},
        {"id": "b", "time": START + 1, "score": 0.2},
    ]


def test_limits_of_time_are_half_open_and_take_moments_or_microseconds(journal: Journal, settle: Any) -> None:
    for day in range(4):
        add(journal, [f"{day}.0", f"{day}.1"], day=day)
        settle()
    found = journal.table("label", "flights", since=START + DAY, until=START + 2 * DAY + 1_000_000)
    assert ids(found) == ["1.0", "1.1", "2.0"]
    third, fourth = datetime(2013, 1, 3, tzinfo=UTC), datetime(2013, 1, 4, tzinfo=UTC)
    assert ids(journal.table("label", "flights", since=third, until=fourth)) == ["2.0", "2.1"]
    assert ids(journal.table("label", "flights", since=START + 9 * DAY)) == []


def test_only_the_wanted_columns_come_in_the_wanted_order(journal: Journal, settle: Any) -> None:
    add(journal, ["a", "b"], value=[1, 2], other="x")
    settle()
    table = journal.table("label", "flights", columns=["value", "service", "absent"], until=START + 1)
    assert table.column_names == ["value", "service"]
    assert table.to_pylist() == [{"value": 1, "service": "svc"}]


def test_streams_do_not_mix(journal: Journal, settle: Any) -> None:
    writer = journal.writer("w", "fast")
    for kind in ("label", "labels"):
        for project in ("flights", "flight"):
            for service in ("a", "b"):
                writer.append(kind, project, service, columns([f"{kind}/{project}/{service}"]), 1)
    settle()
    assert ids(journal.table("label", "flights", service="a")) == ["label/flights/a"]
    both = journal.table("label", "flights")
    assert sorted(zip(ids(both), both["service"].to_pylist(), strict=True)) == [
        ("label/flights/a", "a"),
        ("label/flights/b", "b"),
    ]
    assert journal.table("event", "flights").num_rows == 0
    assert len(journal.counts()) == 8


def test_a_column_called_service_stays_the_records_own(journal: Journal, settle: Any) -> None:
    add(journal, ["a"], service="svc")
    writer = journal.writer("zeta", "fast")
    writer.append("label", "flights", "svc", {**columns(["b"]), "day": "x", "kind": 1}, 1)
    settle()
    writer.append("event", "flights", "weather", {**columns(["a"]), "service": "mine"}, 1)
    assert journal.table("event", "flights")["service"].to_pylist() == ["mine"]
    assert journal.table("label", "flights")["day"].to_pylist() == [None, "x"]


def test_find_returns_the_first_record_of_an_id_or_none(journal: Journal, settle: Any) -> None:
    add(journal, ["a", "b"], value=[1, 2])
    settle()
    add(journal, ["b", 'c"\\é'], value=[3, 4])
    settle()
    assert journal.find("label", "flights", "b") == {
        "service": "svc",
        "id": "b",
        "time": START + 1_000_000,
        "value": 2,
    }
    found = journal.find("label", "flights", 'c"\\é', service="svc")
    assert found is not None
    assert found["value"] == 4
    assert journal.find("label", "flights", "d") is None
    assert journal.find("label", "flights", "b", service="other") is None


def test_tail_gives_each_appended_row_once_across_sealing(journal: Journal, settle: Any) -> None:
    cursor: str | None = None
    for number in range(6):
        add(journal, [f"{number}.{row}" for row in range(3)], day=number % 3, value=number)
        settle()
        rows, cursor = journal.tail("label", "flights", "svc", cursor)
        assert ids(rows) == [f"{number}.{row}" for row in range(3)]
        assert journal.tail("label", "flights", "svc", cursor)[0].num_rows == 0
    everything, _ = journal.tail("label", "flights", "svc", None)
    assert ids(everything) == ids(journal.table("label", "flights"))


def test_tail_goes_on_in_the_middle_of_a_segment_sealed_meanwhile(journal: Journal) -> None:
    add(journal, ["a", "b"], day=0)
    _, cursor = journal.tail("label", "flights", "svc", None)
    add(journal, ["c"], day=0)
    add(journal, ["d"], day=1)
    journal.seal()
    add(journal, ["e"], day=0)
    rows, cursor = journal.tail("label", "flights", "svc", cursor)
    assert ids(rows) == ["c", "d", "e"]
    journal.seal()
    assert journal.tail("label", "flights", "svc", cursor)[0].num_rows == 0


def test_tail_reads_only_new_bytes(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    add(journal, [f"old-{row}" for row in range(500)])
    _, cursor = journal.tail("label", "flights", "svc", None)
    add(journal, ["new"])
    from holdtrue.storage.journal import tables

    decoded: list[Any] = []
    loads = tables.orjson.loads
    monkeypatch.setattr(tables.orjson, "loads", lambda data: decoded.append(data) or loads(data))
    rows, _ = journal.tail("label", "flights", "svc", cursor)
    assert ids(rows) == ["new"]
    assert [len(data) < 100 for data in decoded if isinstance(data, memoryview)] == [True]


@pytest.mark.parametrize("cursor", ["", "[]", "x", '{"w":1}', '{"w":[1,2]}', '{"w":["a","b","c"]}'])
def test_a_foreign_cursor_is_refused(journal: Journal, cursor: str) -> None:
    with pytest.raises(InvalidInput, match="cursor"):
        journal.tail("label", "flights", "svc", cursor)


def test_a_relation_has_the_same_rows_as_the_table(journal: Journal, settle: Any) -> None:
    connection = duckdb.connect()
    assert journal.relation(connection, "label", "flights").fetchall() == []
    add(journal, ["a", "b"], day=1, value=[1, None], first="x")
    settle()
    add(journal, ["c"], day=2, value=[2.5], service="other")
    settle()
    every: tuple[dict[str, Any], ...] = ({}, {"since": START + 2 * DAY}, {"until": START + DAY + 1}, {"service": "svc"})
    for limits in every:
        table = journal.table("label", "flights", **limits)
        relation = journal.relation(connection, "label", "flights", **limits)
        expected = sorted(table.to_pylist(), key=lambda row: row["id"])
        found = [dict(zip(relation.columns, row, strict=True)) for row in relation.order("id").fetchall()]
        assert found == expected
    add(journal, ["a"], day=1, value=[9])
    again = journal.relation(connection, "label", "flights", service="svc")
    assert again.order("id").project("id, value").fetchall() == [("a", 1.0), ("b", None)]


def test_sealed_files_are_plain_partitioned_parquet(journal: Journal, tmp_path: Path) -> None:
    add(journal, ["a", "b"], day=0, value=1)
    add(journal, ["c"], day=1, value=2)
    assert journal.seal()
    sealed = tmp_path / "journal" / "sealed"
    names = sorted(str(path.relative_to(sealed)) for path in sealed.rglob("*.parquet"))
    stem = "kind=label/project=flights/service=svc/day=2013-01"
    assert names == [f"{stem}-01/w-000001.parquet", f"{stem}-02/w-000001.parquet"]
    assert pq.read_table(sealed / names[1]).column("value").to_pylist() == [2]
    assert list((tmp_path / "journal" / "live").glob("w-*")) == []
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "journal").rglob("*")}
    assert modes == {0o600, 0o700}
    relation = duckdb.connect().read_parquet(f"{sealed}/**/*.parquet", hive_partitioning=True)
    found = relation.aggregate("day, count(*)", "day").order("day").fetchall()
    assert [(str(day), count) for day, count in found] == [("2013-01-01", 2), ("2013-01-02", 1)]


def test_sealing_leaves_open_segments_alone_unless_they_are_rolled(journal: Journal) -> None:
    add(journal, ["a"])
    assert journal.seal(roll=False) == 0
    assert journal.seal()
    assert journal.seal() == 0


def test_numbers_of_segments_are_not_used_twice(tmp_path: Path, clock: SimulatedClock) -> None:
    cursor = None
    for number in range(3):
        journal = Journal(tmp_path / "journal", clock)
        add(journal, [str(number)])
        journal.close()
        assert journal.seal()
        rows, cursor = journal.tail("label", "flights", "svc", cursor)
        assert ids(rows) == [str(number)]
        assert ids(journal.table("label", "flights")) == [str(each) for each in range(number + 1)]


def test_order_of_arrival_holds_across_writers(journal: Journal, clock: SimulatedClock) -> None:
    for name in ("zeta", "alpha"):
        journal.writer(name, "fast").append("label", "flights", "svc", columns([name, "both"], 1, by=name), 2)
        clock.advance(1)
    for _ in range(2):
        table = journal.table("label", "flights")
        assert ids(table) == ["zeta", "both", "alpha"]
        assert table["by"].to_pylist() == ["zeta", "zeta", "alpha"]
        journal.seal()


@pytest.mark.parametrize(
    ("given", "rows", "column"),
    [
        ({"time": [1]}, 1, "id"),
        ({"id": [1], "time": [1]}, 1, "id"),
        ({"id": "a", "time": [1, 2]}, 2, "id"),
        ({"id": ["a"], "time": [1.0]}, 1, "time"),
        ({"id": ["a"], "time": [True]}, 1, "time"),
        ({"id": ["a"], "time": [-1]}, 1, "time"),
        ({"id": ["a"], "time": [10**18]}, 1, "time"),
        ({"id": ["a"], "time": np.array([1.5])}, 1, "time"),
        ({"id": ["a"]}, 1, "time"),
        ({"id": ["a"], "time": [1], "x": [1, 2]}, 1, "x"),
        ({"id": ["a"], "time": [1], "x": (1, 2)}, 1, "x"),
        ({"id": ["a"], "time": [1], "x": np.array([1, 2])}, 1, "x"),
        ({"id": ["a"], "time": [1], "x": object()}, 1, "x"),
        ({"id": ["a"], "time": [1], "x": [object()]}, 1, "columns"),
        ({"id": ["a"], "time": [1], "x": ["\ud800"]}, 1, "columns"),
        ({"id": ["a"], "time": [1], "x": [2**70]}, 1, "columns"),
        ({"id": ["a"], "time": [1], "_row": [1]}, 1, "_row"),
        ({"id": [], "time": []}, 0, "columns"),
    ],
)
def test_records_that_cannot_be_stored_are_refused_whole(
    journal: Journal, given: dict[str, Any], rows: int, column: str
) -> None:
    writer = journal.writer("w")
    with pytest.raises(InvalidInput) as caught:
        writer.append("label", "flights", "svc", given, rows)
    assert caught.value.facts["column"] == column
    assert caught.value.mend
    assert journal.counts() == {}


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\0b", "x" * 64, "-a"])
def test_names_of_streams_become_folders_and_must_be_names(journal: Journal, name: str) -> None:
    writer = journal.writer("w")
    for stream in ((name, "p", "s"), ("k", name, "s"), ("k", "p", name)):
        with pytest.raises(InvalidInput):
            writer.append(*stream, columns(["a"]), 1)
    with pytest.raises(InvalidInput):
        journal.writer(name)
