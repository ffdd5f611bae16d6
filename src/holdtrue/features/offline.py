"""Features as they were known at a moment of the past: point-in-time joins in DuckDB."""

from collections.abc import Mapping, Sequence

import duckdb
import pyarrow as pa

from holdtrue.core.errors import NotFound
from holdtrue.features.model import Latest, Trailing, View, microseconds_of

_ROW = "__row"
_AT = "__at"


def point_in_time(
    queries: pa.Table, views: Sequence[View], sources: Mapping[str, pa.Table], *, time: str
) -> pa.Table:
    """Return `queries` with one float64 column per feature, in the same order of rows.

    A query row asks for its entity's values at its column `time` (a timestamp). No source row counts
    before its own time. Missing values are NaN.
    """
    connection = duckdb.connect(config={"threads": 2})
    connection.execute("SET TimeZone = 'UTC'")
    numbered = queries.append_column(_ROW, pa.array(range(queries.num_rows), pa.int64()))
    connection.register("numbered", numbered)
    connection.execute(
        f"CREATE TABLE queries AS SELECT *, epoch_us({_name(time)}) AS {_AT} FROM numbered"  # noqa: S608
    )
    result = queries
    for view in views:
        if view.source not in sources:
            raise NotFound.of("source", view.source)
        connection.register("source", sources[view.source])
        joined = _latest(connection, view) if isinstance(view, Latest) else _trailing(connection, view)
        connection.unregister("source")
        for feature in view.features:
            result = result.append_column(feature, joined[feature])
    connection.close()
    return result


def _latest(connection: duckdb.DuckDBPyConnection, view: Latest) -> pa.Table:
    """Join the last row of each entity that is not later than the query and not older than the ttl."""
    alive = f"q.{_AT} - s.moment <= {microseconds_of(view.ttl)}"
    features = ", ".join(
        f"coalesce(CASE WHEN {alive} THEN s.{_name(column)}::DOUBLE END, 'nan'::DOUBLE) AS {_name(feature)}"
        for column, feature in zip(view.columns, view.features, strict=True)
    )
    columns = ", ".join(_name(column) for column in view.columns)
    # Of several rows of one moment the last in the source's order counts, as it does where they arrive.
    return connection.execute(
        f"""WITH ordered AS (
              SELECT {_name(view.entity)} AS entity, epoch_us({_name(view.time)}) AS moment, {columns},
                     row_number() OVER () AS place
              FROM source WHERE {_name(view.time)} IS NOT NULL AND {_name(view.entity)} IS NOT NULL),
            s AS (SELECT * EXCLUDE (place) FROM ordered
                  QUALIFY row_number() OVER (PARTITION BY entity, moment ORDER BY place DESC) = 1)
            SELECT {features} FROM queries q ASOF LEFT JOIN s
              ON q.{_name(view.entity)} = s.entity AND q.{_AT} >= s.moment
            ORDER BY q.{_ROW}"""  # noqa: S608  # names of the definition, quoted
    ).to_arrow_table()


def _trailing(connection: duckdb.DuckDBPyConnection, view: Trailing) -> pa.Table:
    if {"min", "max"} & set(view.aggregates):
        return _ranged(connection, view)
    tile, window = microseconds_of(view.tile), microseconds_of(view.window)
    # A window's sum is the running total at its end less the one before its start: two ASOF joins.
    parts = {
        "mean": "CASE WHEN n > 0 THEN total / n ELSE 'nan'::DOUBLE END",
        "count": "n::DOUBLE",
        "sum": "CASE WHEN n > 0 THEN total ELSE 'nan'::DOUBLE END",
    }
    features = ", ".join(
        f"{parts[aggregate]} AS {_name(feature)}"
        for aggregate, feature in zip(view.aggregates, view.features, strict=True)
    )
    return connection.execute(
        f"""WITH {_rows_of(view)},
            moments AS (SELECT entity, moment, sum(value) AS total, count(*) AS n FROM rows GROUP BY ALL),
            running AS (SELECT entity, moment,
                               sum(total) OVER w AS total, sum(n) OVER w AS n
                        FROM moments WINDOW w AS (PARTITION BY entity ORDER BY moment)),
            joined AS (SELECT q.{_ROW} AS place,
                       coalesce(a.total, 0) - coalesce(b.total, 0) AS total, coalesce(a.n, 0) - coalesce(b.n, 0) AS n
                FROM queries q
                ASOF LEFT JOIN running a ON q.{_name(view.entity)} = a.entity AND q.{_AT} >= a.moment
                ASOF LEFT JOIN running b ON q.{_name(view.entity)} = b.entity
                    AND (q.{_AT} // {tile}) * {tile} - {window} > b.moment)
            SELECT {features} FROM joined ORDER BY place"""  # noqa: S608  # names of the definition, quoted
    ).to_arrow_table()


def _ranged(connection: duckdb.DuckDBPyConnection, view: Trailing) -> pa.Table:
    tile, window = microseconds_of(view.tile), microseconds_of(view.window)
    parts = {
        "mean": "coalesce(avg(s.value), 'nan'::DOUBLE)",
        "count": "count(s.value)::DOUBLE",
        "sum": "coalesce(sum(s.value), 'nan'::DOUBLE)",
        "min": "coalesce(min(s.value), 'nan'::DOUBLE)",
        "max": "coalesce(max(s.value), 'nan'::DOUBLE)",
    }
    features = ", ".join(
        f"{parts[aggregate]} AS {_name(feature)}"
        for aggregate, feature in zip(view.aggregates, view.features, strict=True)
    )
    return connection.execute(
        f"""WITH {_rows_of(view)}
            SELECT {features} FROM queries q LEFT JOIN rows s ON q.{_name(view.entity)} = s.entity
              AND s.moment <= q.{_AT} AND s.moment >= (q.{_AT} // {tile}) * {tile} - {window}
            GROUP BY q.{_ROW} ORDER BY q.{_ROW}"""  # noqa: S608  # names of the definition, quoted
    ).to_arrow_table()


def _rows_of(view: Trailing) -> str:
    return (
        f"rows AS (SELECT {_name(view.entity)} AS entity, epoch_us({_name(view.time)}) AS moment, "  # noqa: S608
        f"{_name(view.column)}::DOUBLE AS value FROM source WHERE {_name(view.entity)} IS NOT NULL "
        f"AND {_name(view.time)} IS NOT NULL AND {_name(view.column)} IS NOT NULL)"
    )


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
