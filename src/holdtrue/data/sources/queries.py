"""Read rows by a query of DuckDB, which reads Parquet, CSV and JSON files by itself, and databases of its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from holdtrue.core.errors import InvalidInput, NotFound


def read_query(
    query: str, parameters: Mapping[str, Any] | None = None, *, database: "Path | str | None" = None
) -> pa.Table:
    """Return the rows of a query to DuckDB, with its `parameters` named as in `$window`.

    `database` is a file of DuckDB, opened for reading only; without one, the query names its files itself. Moments
    are read in UTC.
    """
    if database is not None and not Path(database).is_file():
        raise NotFound(f"There is no file {database}.", why="A database of DuckDB is a file.", mend="Name one.")
    try:
        with duckdb.connect(
            ":memory:" if database is None else str(database), read_only=database is not None, config={"threads": 2}
        ) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            # None for a statement that gives no rows, whatever its type says.
            relation: Any = connection.sql(query, params=dict(parameters or {}))
            table = None if relation is None else relation.to_arrow_table()
    except duckdb.Error as error:
        raise InvalidInput(
            "The query cannot be run by DuckDB.",
            why=" ".join(str(error).split())[:400],
            mend="Correct the query, or the file that it names.",
        ) from None
    if table is None:
        raise InvalidInput("The query gives no rows.", why="It is not one that selects.", mend="Write a SELECT.")
    names = table.column_names
    twice = next((name for name in dict.fromkeys(names) if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInput(
            f"The query gives two columns “{twice}”.",
            why="Rows are known by the names of their columns.",
            mend="Name one of them otherwise: SELECT a AS b.",
        )
    return table
