"""Sources written as relations, SQL and functions of tables give the same rows, and their mistakes are named."""

from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

import holdtrue as ht
from holdtrue.core.errors import ConfigurationError, InvalidInput
from holdtrue.features import Latest, Trailing, point_in_time
from holdtrue.project.definitions import Dataset, Source
from holdtrue.project.sources import connect, selected_rows, windows_around

MOMENT = pa.timestamp("us", "UTC")
PART = pa.table(
    {
        "id": ["1", "2", "3"],
        "seen_at": pa.array([5, None, 9], MOMENT),
        "place": ["x", "x", "y"],
        "delay": [1.0, 2.0, 3.0],
    }
)


def _project() -> tuple[ht.Project, Dataset]:
    project = ht.Project("toy", owner="me")
    columns = (ht.column("id", "string"), ht.column("seen_at", "timestamp"))

    @project.dataset(key="id", time="seen_at", contract=ht.Contract(columns))
    def rows(window: str) -> pa.Table:
        raise NotImplementedError(window)

    return project, rows


def relation(rows: duckdb.DuckDBPyRelation) -> Any:
    return rows.filter("seen_at IS NOT NULL").select("place, seen_at, delay * 2 AS twice")


def sql(rows: duckdb.DuckDBPyRelation) -> Any:
    return "SELECT place, seen_at, delay * 2 AS twice FROM rows WHERE seen_at IS NOT NULL"


def table(rows: pa.Table) -> Any:
    known = rows.filter(rows["seen_at"].is_valid())
    return known.select(["place", "seen_at"]).append_column("twice", pa.array(known["delay"].to_numpy() * 2))


def arrays(rows: pa.Table) -> Any:
    known = rows.filter(rows["seen_at"].is_valid())
    return {"place": known["place"].to_pylist(), "seen_at": known["seen_at"], "twice": np.asarray(known["delay"]) * 2}


@pytest.mark.parametrize(
    ("function", "takes"), [(relation, "relation"), (sql, "relation"), (table, "table"), (arrays, "table")]
)
def test_all_forms_give_the_same_rows(function: Any, takes: Any) -> None:
    project, rows = _project()
    source = project.source(of=rows, takes=takes)(function)
    with connect() as connection:
        found = selected_rows(connection, source, [PART.slice(0, 2), PART.slice(2)])
    assert found.select(["place", "twice"]).to_pydict() == {"place": ["x", "y"], "twice": [2.0, 6.0]}
    view = Latest("v", source.name, "place", "seen_at", ("twice",), "1h")
    asked = pa.table({"place": ["y", "x"], "t": pa.array([10, 10], MOMENT)})
    joined = point_in_time(asked, [view], {source.name: found}, time="t")
    assert joined["v_twice"].to_pylist() == [6.0, 2.0]


@pytest.mark.parametrize(
    ("function", "word"),
    [
        (lambda rows: "SELECT nothing_here FROM rows", "nothing_here"),
        (lambda rows: rows.select("nothing_here"), "nothing_here"),
        (lambda rows: 1 / 0, "ZeroDivisionError"),
        (lambda rows: 7, "int"),
        (lambda rows: {"place": ["x"], "seen_at": [1, 2]}, "ArrowInvalid"),
    ],
)
def test_a_mistake_in_a_source_is_told_with_its_name(function: Any, word: str) -> None:
    _, rows = _project()
    with connect() as connection, pytest.raises(InvalidInput, match=word):
        selected_rows(connection, Source("endings", rows, function), [PART])


def test_a_source_takes_a_relation_or_a_table() -> None:
    project, rows = _project()
    with pytest.raises(ConfigurationError, match="frame"):
        project.source(of=rows, takes="frame")  # type: ignore[arg-type]


def test_as_many_months_are_read_as_views_reach_back() -> None:
    short = Trailing("t", "s", "e", "seen_at", "c", ("mean",), "27d", "1d")
    assert windows_around("2024-01", []) == ["2023-12", "2024-01"]
    assert windows_around("2024-03", [Latest("l", "s", "e", "seen_at", ("a",), "6h")]) == ["2024-02", "2024-03"]
    assert windows_around("2024-03", [short]) == ["2024-01", "2024-02", "2024-03"]
    assert windows_around("2024-03", [Latest("l", "s", "e", "seen_at", ("a",), "90d"), short])[0] == "2023-11"
