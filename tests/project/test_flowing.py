"""Which columns flow into a model: asked of DuckDB for each source, and all of them where that cannot be told."""

from typing import Any

import pytest

import holdtrue as ht
from holdtrue.project.definitions import Dataset, Source
from holdtrue.project.flowing import columns_of, origins

CONTRACT = ht.Contract(
    columns=(
        ht.column("id", "string"),
        ht.column("who", "string", personal="identifier"),
        ht.column("left_at", "timestamp"),
        ht.column("distance", "float64"),
        ht.column("delay", "float64"),
    )
)
ALL = {column.name for column in CONTRACT.columns}


def declared(select: Any = None, fit: Any = None, **model: Any) -> tuple[ht.Project, Any]:
    """Return a project with one source and a model that looks up what is late by whom."""
    project = ht.Project("p", owner="me")

    @project.dataset(key="id", time="left_at", contract=CONTRACT)
    def trips(window: str) -> Any: ...

    @project.source(of=trips)
    def seen(rows: Any) -> Any:
        return (select or (lambda each: each))(rows)

    view = ht.Trailing("by", "seen", "who", "left_at", model.pop("column", "delay"), ("mean",))

    def trained(train: Any, params: Any) -> Any:
        return train.X

    made = project.model(
        dataset=trips, label="late", outcome="delay > 15", time="left_at", features=[ht.numeric("distance"), view]
    )(fit or trained)
    return project, made


def source_of(select: Any) -> Source:
    project, _ = declared()
    dataset: Dataset = project.datasets["trips"]
    return Source("seen", dataset, select)


@pytest.mark.parametrize(
    ("select", "column", "read"),
    [
        (lambda rows: rows, "delay", {"delay"}),
        (lambda rows: rows.filter("distance > 5"), "delay", {"delay", "distance"}),
        (lambda rows: rows.select("delay * distance AS d, who"), "d", {"delay", "distance"}),
        (lambda rows: rows.select("delay AS who, who AS delay"), "who", {"delay"}),
        (lambda rows: rows.aggregate("who, avg(delay) AS mean", "who"), "mean", {"who", "delay"}),
        (lambda rows: rows.query("r", "SELECT id, count(*) OVER (PARTITION BY who) AS n FROM r"), "n", {"who"}),
        (lambda rows: rows.select("1 AS one, count(*) OVER () AS n"), "one", set[str]()),
        (lambda rows: rows.query("r", "SELECT a.id FROM r a JOIN r b ON a.who = b.who"), "id", {"id", "who"}),
        (lambda rows: "SELECT id, delay / distance AS speed FROM rows", "speed", {"delay", "distance"}),
        (lambda rows: rows.order("delay").limit(5).select("id"), "id", {"id", "delay"}),
        (lambda rows: rows.fetchall() and None, "id", ALL),
        (lambda rows: 1 / 0, "whatever", ALL),
        (lambda rows: __import__("duckdb").from_arrow(rows.to_arrow_table()), "id", ALL),
    ],
)
def test_what_a_column_of_a_source_is_made_of(select: Any, column: str, read: set[str]) -> None:
    assert set(origins(source_of(select))[column]) == read


def test_features_outcome_and_what_is_looked_up_by_count() -> None:
    project, model = declared()
    assert columns_of(project, model) == {
        "trips": {
            "delay": ["by_mean", "outcome"],
            "distance": ["distance"],
            "left_at": ["by_mean"],
            "who": ["by_mean"],
        }
    }


def test_a_function_that_looks_at_the_rows_may_read_everything() -> None:
    def weighted(train: Any, params: Any) -> Any:
        return [train.rows for _ in params]

    project, model = declared(fit=weighted)
    assert set(columns_of(project, model)["trips"]) == ALL
