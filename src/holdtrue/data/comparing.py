"""Compare two tables of a dataset by key: rows added, removed and changed, with examples."""

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from holdtrue.data.columns import MOST_EXAMPLES, MOST_TEXT
from holdtrue.data.profiles import Profile
from holdtrue.data.profiling import kind_of

_COPY = "copy of key"


def schema_changes(before: Profile, after: Profile) -> list[dict[str, Any]]:
    """Return the columns that came, went, or hold another kind of values."""
    old = {each.name: each.kind for each in before.columns}
    new = {each.name: each.kind for each in after.columns}
    found: list[dict[str, Any]] = []
    for name in dict.fromkeys([*old, *new]):
        if name not in new:
            found.append({"column": name, "change": "removed", "before": old[name], "after": None})
        elif name not in old:
            found.append({"column": name, "change": "added", "before": None, "after": new[name]})
        elif old[name] != new[name]:
            found.append({"column": name, "change": "kind", "before": old[name], "after": new[name]})
    return found


def row_changes(before: pa.Table, after: pa.Table, key: str | None) -> dict[str, Any]:
    """Return how many rows were added, removed and changed, with examples; of changed ones also the columns.

    Rows of one key are told apart by their order among themselves. Without a key, or where one side does not have
    it, a changed row is a removed one and an added one.
    """
    # DuckDB's names do not know case: columns get names of our own.
    before, after = _alike(before, after)
    names = list(dict.fromkeys([*before.column_names, *after.column_names]))
    places = {name: f"c{place}" for place, name in enumerate(names)}
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for side, table in (("before", before), ("after", after)):
            connection.register(f"{side}_given", table.rename_columns([places[name] for name in table.column_names]))
        shared = [name for name in before.column_names if name in after.column_names]
        if key is None or key not in shared:
            return _without_key(connection, places, before.column_names, after.column_names)
        doubled = [_number(connection, side, places[key]) for side in ("before", "after")]
        found = _with_key(connection, places, key, shared)
        return {**found, "doubled_keys": max(doubled)}


def _alike(before: pa.Table, after: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the tables with columns whose kinds differ as texts, so that their values can be compared."""
    for name in before.column_names:
        if name in after.column_names and kind_of(before[name].type) != kind_of(after[name].type):
            before, after = _as_text(before, name), _as_text(after, name)
    return before, after


def _as_text(table: pa.Table, name: str) -> pa.Table:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("given", pa.table({"value": table[name]}))
        texts = connection.sql("SELECT value::VARCHAR AS value FROM given").to_arrow_table()
    return table.set_column(table.column_names.index(name), name, texts["value"])


def _number(connection: duckdb.DuckDBPyConnection, side: str, key: str) -> int:
    """Number the rows of each key, and return how many rows have a key that another has."""
    # Only names of our own are in these texts.
    doubled = _one(
        connection,
        f"SELECT coalesce(sum(n), 0) FROM (SELECT count(*) AS n FROM {side}_given GROUP BY {key} HAVING n > 1)",  # noqa: S608
    )
    numbered = "1"
    if doubled:
        columns = [row[0] for row in connection.execute(f"DESCRIBE {side}_given").fetchall()]
        numbered = f"row_number() OVER (PARTITION BY {key} ORDER BY {', '.join(columns)})"
    connection.execute(f'CREATE TEMP VIEW {side} AS SELECT *, {numbered} AS "{_COPY}" FROM {side}_given')  # noqa: S608
    return doubled


def _with_key(
    connection: duckdb.DuckDBPyConnection, places: Mapping[str, str], key: str, shared: Sequence[str]
) -> dict[str, Any]:
    name = places[key]
    same = f'b.{name} IS NOT DISTINCT FROM a.{name} AND b."{_COPY}" = a."{_COPY}"'
    others = [each for each in shared if each != key]
    differ = {each: f"b.{places[each]} IS DISTINCT FROM a.{places[each]}" for each in others}
    any_differs = " OR ".join(differ.values()) or "false"
    found: dict[str, Any] = {}
    for change, side, other in (("added", "after", "before"), ("removed", "before", "after")):
        left, right = ("a", "b") if side == "after" else ("b", "a")
        lonely = f"FROM {side} {left} ANTI JOIN {other} {right} ON {same}"
        found[change] = {
            "rows": _one(connection, f"SELECT count(*) {lonely}"),
            "examples": _texts(connection, f"SELECT {left}.{name} {lonely} ORDER BY 1"),
        }
    joined = f"FROM before b JOIN after a ON {same} WHERE {any_differs}"
    counts = "".join(f", count_if({text})" for text in differ.values())
    row = connection.execute(f"SELECT count(*){counts} {joined}").fetchone()  # names of our own
    assert row is not None
    found["changed"] = {
        "rows": row[0],
        "columns": {each: count for each, count in zip(differ, row[1:], strict=True) if count},
        "examples": _pairs(connection, places, key, list(differ), joined) if row[0] else [],
    }
    return found


def _pairs(
    connection: duckdb.DuckDBPyConnection, places: Mapping[str, str], key: str, others: Sequence[str], joined: str
) -> list[dict[str, Any]]:
    """Return the first changed rows: their key, and each column that differs with both values."""
    wanted = "".join(
        f", b.{places[name]} IS DISTINCT FROM a.{places[name]}, left(b.{places[name]}::VARCHAR, {MOST_TEXT}), "
        f"left(a.{places[name]}::VARCHAR, {MOST_TEXT})"
        for name in others
    )
    rows = connection.execute(
        f"SELECT left(b.{places[key]}::VARCHAR, {MOST_TEXT}){wanted} {joined} ORDER BY 1 LIMIT {MOST_EXAMPLES}"
    ).fetchall()
    return [
        {
            "key": row[0],
            "columns": {
                name: [row[3 * place + 2], row[3 * place + 3]]
                for place, name in enumerate(others)
                if row[3 * place + 1]
            },
        }
        for row in rows
    ]


def _without_key(
    connection: duckdb.DuckDBPyConnection, places: Mapping[str, str], before: Sequence[str], after: Sequence[str]
) -> dict[str, Any]:
    if list(before) != list(after):
        columns = {"before": set(before), "after": set(after)}
        for side in columns:
            chosen = ", ".join(places[name] if name in columns[side] else f"NULL AS {places[name]}" for name in places)
            connection.execute(f"CREATE TEMP VIEW {side} AS SELECT {chosen} FROM {side}_given")  # noqa: S608
    else:
        for side in ("before", "after"):
            connection.execute(f"CREATE TEMP VIEW {side} AS SELECT * FROM {side}_given")  # noqa: S608
    rows = {
        "added": _one(connection, "SELECT count(*) FROM (SELECT * FROM after EXCEPT ALL SELECT * FROM before)"),
        "removed": _one(connection, "SELECT count(*) FROM (SELECT * FROM before EXCEPT ALL SELECT * FROM after)"),
    }
    return {
        **{change: {"rows": count, "examples": []} for change, count in rows.items()},
        "changed": {"rows": 0, "columns": {}, "examples": []},
        "doubled_keys": 0,
    }


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def _texts(connection: duckdb.DuckDBPyConnection, query: str) -> list[str]:
    return [str(row[0])[:MOST_TEXT] for row in connection.execute(f"{query} LIMIT {MOST_EXAMPLES}").fetchall()]
