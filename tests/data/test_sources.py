"""Rows from SQL databases, DuckDB queries, files and anything that speaks Arrow's PyCapsule interface."""

import datetime as dt
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdtrue import data
from holdtrue.core.errors import ConfigurationError, HoldtrueError, InvalidInput, NotFound, Unavailable
from holdtrue.data import read_files, read_query, read_sql
from tests.clusters import PASSWORD, Cluster
from tests.data.conftest import Room
from tests.data.test_service import MOMENT, SPEC, rows_of


@pytest.fixture
def database(tmp_path: Path) -> str:
    with sqlite3.connect(tmp_path / "trips here.db") as connection:
        connection.execute("CREATE TABLE trips (id TEXT, month TEXT, miles INTEGER, fare REAL, mixed)")
        rows = [(f"t{n}", f"2013-0{1 + n % 3}", n, None if n == 4 else n / 2, n) for n in range(30)]
        connection.executemany("INSERT INTO trips VALUES (?, ?, ?, ?, ?)", rows)
        connection.execute("UPDATE trips SET mixed = 'far' WHERE id = 't25'")
    connection.close()
    return f"sqlite:///{tmp_path / 'trips here.db'}"


@pytest.mark.parametrize("rows", [7, 1000])
def test_rows_of_sqlite_come_in_batches_as_one_table(database: str, rows: int) -> None:
    table = read_sql(
        database, "SELECT id, miles, fare FROM trips WHERE month = :window", {"window": "2013-02"}, rows=rows
    )
    assert table.num_rows == 10
    assert [str(each.type) for each in table.schema] == ["string", "int64", "double"]
    assert table["fare"].to_pylist()[:2] == [0.5, None]
    # Whole numbers first and fractions later are numbers.
    union = read_sql(database, "SELECT 1 AS v UNION ALL SELECT 2.5 UNION ALL SELECT NULL", rows=1)
    assert union["v"].to_pylist() == [1.0, 2.5, None]
    empty = read_sql(database, "SELECT id, miles FROM trips WHERE miles < 0")
    assert (empty.num_rows, empty.column_names) == (0, ["id", "miles"])


def test_an_address_may_be_in_the_environment(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPS", database)
    assert read_sql("env:TRIPS", "SELECT count(*) AS n FROM trips")["n"].to_pylist() == [30]
    monkeypatch.delenv("TRIPS")
    with pytest.raises(ConfigurationError, match="TRIPS"):
        read_sql("env:TRIPS", "SELECT 1")


def test_a_database_is_only_read(database: str) -> None:
    for statement in ("DELETE FROM trips", "INSERT INTO trips (id) VALUES ('x') RETURNING id"):
        with pytest.raises(InvalidInput, match=r"readonly|read-only|no rows"):
            read_sql(database, statement)
    assert read_sql(database, "SELECT count(*) AS n FROM trips")["n"].to_pylist() == [30]


@pytest.mark.parametrize(
    ("query", "error", "said"),
    [
        ("SELECT id, mixed FROM trips", InvalidInput, r"“mixed” .*: whole number \(row 1\), text \(row 26\)"),
        ("SELECT id, id FROM trips", InvalidInput, "two columns “id”"),
        ("SELECT absent FROM trips", InvalidInput, "no such column: absent"),
        ("SELEC", InvalidInput, "syntax error"),
        ("SELECT id FROM trips WHERE month = :window", InvalidInput, "window"),
        ("PRAGMA user_version = 4", InvalidInput, "readonly|no rows"),
    ],
)  # fmt: skip
def test_a_query_that_cannot_be_used_is_named(database: str, query: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said) as raised:
        read_sql(database, query, rows=10)
    assert isinstance(raised.value, HoldtrueError)
    assert raised.value.mend


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("sqlite:///nowhere.db", NotFound),
        ("no address", ConfigurationError),
        ("klingon://user:secret@host/db", ConfigurationError),
        ("postgresql://user:secret@127.0.0.1:1/db", Unavailable),
    ],
)
def test_an_address_that_leads_nowhere_is_named_without_its_password(address: str, error: type[Exception]) -> None:
    with pytest.raises(error) as raised:
        read_sql(address, "SELECT 1")
    assert "secret" not in str(raised.value)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(InvalidInput, match="not a database"):
        read_sql(f"sqlite:///{tmp_path / 'broken.db'}", "SELECT * FROM trips")


def test_values_of_postgresql_have_their_types(cluster: Cluster) -> None:
    url = cluster.database()
    table = read_sql(
        url,
        """SELECT 1::int8 AS whole, 2.5::numeric AS exact, 'x'::text AS said, true AS truth, NULL::text AS nothing,
                  '2013-01-01 05:00+01'::timestamptz AS moment, '2013-01-01 05:00'::timestamp AS clock,
                  '2013-01-01'::date AS day, '\\x00ff'::bytea AS raw, 'NaN'::float8 AS no_number,
                  '00000000-0000-0000-0000-000000000001'::uuid AS id, ARRAY[1.5, 2]::float8[] AS vector
           WHERE :one = 1""",
        {"one": 1},
    )
    assert {name: str(kind) for name, kind in zip(table.column_names, table.schema.types, strict=True)} == {
        "whole": "int64", "exact": "double", "said": "string", "truth": "bool", "nothing": "null",
        "moment": "timestamp[us, tz=UTC]", "clock": "timestamp[us]", "day": "date32[day]", "raw": "binary",
        "no_number": "double", "id": "string", "vector": "list<item: double>",
    }  # fmt: skip
    assert table["moment"].to_pylist() == [dt.datetime(2013, 1, 1, 4, tzinfo=dt.UTC)]
    assert table["id"].to_pylist() == [str(uuid.UUID(int=1))]
    cluster.execute("CREATE SEQUENCE s", url.rpartition("/")[2])
    with pytest.raises(InvalidInput, match="read-only"):
        read_sql(url, "SELECT nextval('s')")
    wrong = url.replace("p%20w", "wrong")
    with pytest.raises(Unavailable) as raised:
        read_sql(wrong, "SELECT 1")
    assert PASSWORD not in str(raised.value)
    assert "p%20w" not in str(raised.value)


def test_a_database_that_dies_in_the_middle_gives_nothing(cluster: Cluster) -> None:
    dying = """SELECT n, CASE WHEN n = 5000 THEN pg_terminate_backend(pg_backend_pid()) END AS ended
               FROM generate_series(1, 10000) AS n"""
    with pytest.raises(Unavailable, match=r"gave up after [1-5],\d{3} rows") as raised:
        read_sql(cluster.database(), dying, rows=500)
    assert "Nothing of it was taken" in raised.value.mend
    assert PASSWORD not in str(raised.value)


def test_duckdb_reads_what_it_can(tmp_path: Path) -> None:
    for month in (1, 2):
        pq.write_table(pa.table({"id": [f"{month}"], "v": [month]}), tmp_path / f"2013-0{month}.parquet")
    found = read_query(f"SELECT * FROM '{tmp_path}/*.parquet' WHERE v >= $least ORDER BY id", {"least": 2})
    assert found.to_pylist() == [{"id": "2", "v": 2}]
    with duckdb.connect(str(tmp_path / "own.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT TIMESTAMPTZ '2013-01-01 05:00+01' AS moment")
    (row,) = read_query("SELECT moment FROM t", database=tmp_path / "own.duckdb").to_pylist()
    assert row["moment"] == dt.datetime(2013, 1, 1, 4, tzinfo=dt.UTC)
    for query, said in (
        ("SELECT 1 AS a, 2 AS a", "two columns|once"),
        ("SELECT nothing FROM t", "nothing"),
        (f"SELECT * FROM '{tmp_path}/none-*.parquet'", "none-"),
        ("INSERT INTO t VALUES (now())", "read-only"),
    ):
        with pytest.raises(InvalidInput, match=said):
            read_query(query, database=tmp_path / "own.duckdb")
    with pytest.raises(NotFound, match="nowhere"):
        read_query("SELECT 1", database="nowhere.duckdb")


def test_files_and_globs_are_one_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,v\n1,2\n")
    (tmp_path / "b.jsonl").write_text('{"id": 3, "v": 2.5}\n')
    assert read_files(str(tmp_path / "*.csv"), str(tmp_path / "b.jsonl"))["v"].to_pylist() == [2.0, 2.5]
    (tmp_path / "c.csv").write_text("id,v\n1,far\n")
    with pytest.raises(InvalidInput, match="one table"):
        read_files(str(tmp_path))


class Speaker:
    """Speak the PyCapsule interface and nothing else, as a library would of which we know nothing."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def _views(table: pa.Table) -> pa.Table:
    """Return the table as Polars gives it: views of texts, nanoseconds, several chunks."""
    table = table.set_column(0, "id", table["id"].cast(pa.string_view()))
    table = table.set_column(1, "left_at", table["left_at"].cast(pa.timestamp("ns", "UTC")))
    return pa.concat_tables([table.slice(0, 2), table.slice(2)])


_SPEAKERS: dict[str, Callable[[pa.Table], Any]] = {
    "pyarrow reader": lambda table: pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=2)),
    "record batch": lambda table: table.to_batches()[0],
    "pandas": lambda table: table.to_pandas(),
    "duckdb": lambda table: duckdb.connect(config={"threads": 1}).from_arrow(table),
    "only the interface": Speaker,
    "as Polars": lambda table: Speaker(_views(table)),
    "large texts": lambda table: Speaker(table.set_column(0, "id", table["id"].cast(pa.large_string()))),
    "encoded texts": lambda table: Speaker(table.set_column(0, "id", table["id"].dictionary_encode())),
}


@pytest.mark.parametrize("name", _SPEAKERS)
def test_whatever_speaks_arrow_is_a_delivery(room: Room, name: str) -> None:
    rows = rows_of(1, 2, None, 4)
    expected = data.ingest(room.stores.blobs, SPEC, "2013-01", rows)
    found = data.ingest(room.stores.blobs, SPEC, "2013-01", _SPEAKERS[name](rows))
    assert found.findings == ()
    assert found.digest == expected.digest


def test_a_blocked_delivery_of_any_speaker_is_kept(room: Room) -> None:
    rows = _views(rows_of(1, 2, 3)).set_column(2, "distance", pa.chunked_array([["far", "x", "y"]]))
    found = data.ingest(room.stores.blobs, SPEC, "2013-01", Speaker(rows))
    assert found.digest is None
    assert found.quarantine is not None
    assert pq.read_table(room.stores.blobs.path(found.quarantine))["distance"].to_pylist() == ["far", "x", "y"]


def _dying(after: int) -> pa.RecordBatchReader:
    batch = rows_of(1, 2, 3).to_batches()[0]

    def batches() -> Iterator[pa.RecordBatch]:
        for _ in range(after):
            yield batch
        raise ConnectionResetError("the other side hung up")

    return pa.RecordBatchReader.from_batches(batch.schema, batches())


@pytest.mark.parametrize("form", [lambda reader: reader, Speaker], ids=["reader", "interface"])
def test_a_source_that_dies_in_the_middle_leaves_nothing(room: Room, form: Callable[[Any], Any]) -> None:
    room.write(lambda tx: data.declare(tx, (SPEC,)))
    events = room.actions()
    stored = set(room.stores.blobs.digests())
    with pytest.raises(InvalidInput, match="broke off after 6 rows") as raised:
        data.ingest(room.stores.blobs, SPEC, "2013-01", form(_dying(2)))
    assert "hung up" in raised.value.why
    assert set(room.stores.blobs.digests()) == stored
    assert room.actions() == events
    assert room.read(lambda connection: data.latest(connection, "flights", "flights")) is None


def test_columns_of_pandas_that_mix_types_are_named(room: Room) -> None:
    frame = pd.DataFrame({"id": ["a", 1], "left_at": [0, 1], "distance": [1, 2], "delay": [1.0, 2.0]})
    with pytest.raises(InvalidInput, match="id"):
        data.ingest(room.stores.blobs, SPEC, "2013-01", frame)


def test_exact_numbers_are_numbers(room: Room) -> None:
    exact = pa.array([1, 2], pa.decimal128(10, 2))
    found = data.ingest(
        room.stores.blobs, SPEC, "2013-01", rows_of(1, 2, delay=exact, distance=pa.array([1, 2], pa.decimal128(38, 0)))
    )
    assert found.findings == ()
    fractions = data.ingest(
        room.stores.blobs, SPEC, "2013-01", rows_of(1, 2, distance=pa.array([1, 2], pa.decimal128(10, 1)))
    )
    assert [each.rule for each in fractions.findings] == ["type"]
    assert MOMENT.tz == "UTC"
