"""The rows of a source, as its own function selects them from accepted windows of its dataset."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import duckdb
import pyarrow as pa

from holdtrue.core.errors import HoldtrueError, InvalidInput
from holdtrue.features import View, microseconds_of
from holdtrue.project.definitions import Source

_SHORTEST_MONTH: Final = 28 * 86_400_000_000


def connect() -> duckdb.DuckDBPyConnection:
    """Return a connection for selecting rows: two threads, times in UTC."""
    connection = duckdb.connect(config={"threads": 2})
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def selected_rows(connection: duckdb.DuckDBPyConnection, source: Source, parts: Sequence[pa.Table]) -> pa.Table:
    """Return what the function of `source` makes of parts of its dataset; raise InvalidInput, naming the source.

    It gets a DuckDB relation, or a table, and returns a relation, SQL over `rows`, anything with the Arrow PyCapsule
    interface, or arrays by name.
    """
    rows = connection.from_arrow(pa.concat_tables(parts, promote_options="permissive"))
    try:
        return _table(rows, source.select(rows.to_arrow_table() if source.takes == "table" else rows))
    except HoldtrueError:
        raise
    except Exception as error:
        raise InvalidInput(
            f"The rows of the source “{source.name}” cannot be selected: {type(error).__name__}: {error}",
            why="The source's own function, or the SQL that it returned, raised this.",
            mend=f"Correct the function; the columns are: {', '.join(rows.columns)}.",
        ) from error


def windows_around(window: str, views: Sequence[View]) -> list[str]:
    """Return the months whose rows may count for features in the month `window`, the oldest first.

    They are as many as the widest window or age limit of `views` needs, and the month before in any case.
    """
    back = max((reach_of(view) for view in views), default=0) // _SHORTEST_MONTH + 1
    found = [window]
    for _ in range(back):
        found.append(previous_window(found[-1]))
    return found[::-1]


def reach_of(view: View) -> int:
    """Return how far back (µs) rows may lie that a view's features at a moment are made of."""
    if view.view == "latest":
        return microseconds_of(view.ttl)
    return microseconds_of(view.window) + microseconds_of(view.tile)


def previous_window(window: str) -> str:
    """Return the month before `window`, both written YYYY-MM."""
    year, month = (int(part) for part in window.split("-"))
    return f"{year - 1:04d}-12" if month == 1 else f"{year:04d}-{month - 1:02d}"


def _table(rows: duckdb.DuckDBPyRelation, made: Any) -> pa.Table:
    if isinstance(made, str):
        made = rows.query("rows", made)
    if isinstance(made, duckdb.DuckDBPyRelation):
        return made.to_arrow_table()
    if isinstance(made, Mapping):
        return pa.table({str(name): pa.array(column) for name, column in made.items()})
    if hasattr(made, "__arrow_c_stream__"):
        return pa.table(made)
    raise InvalidInput(
        f"A source's function returned {type(made).__name__}.",
        why="Rows are a DuckDB relation, SQL over “rows”, a table of Arrow, pandas or Polars, or arrays by name.",
        mend="Return one of these.",
    )
