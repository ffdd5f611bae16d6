"""The journal as a DuckDB relation: Parquet files and live rows together, read as far as a query needs."""

from functools import reduce

import duckdb
import pyarrow as pa

from holdtrue.storage.journal.frames import ROW
from holdtrue.storage.journal.index import Index
from holdtrue.storage.journal.reading import Query, live_parts, read_table, survey
from holdtrue.storage.journal.tables import concat


def open_relation(index: Index, connection: duckdb.DuckDBPyConnection, query: Query) -> duckdb.DuckDBPyRelation:
    """Return the records of a query, the first of each id, as a relation of `connection`.

    Reads all ids once to know whether any repeats; if so, the records are put together in memory.
    """
    sealed, live = survey(index)
    files: dict[str, list[str]] = {}
    for manifest in sealed:
        for file in query.files(manifest):
            files.setdefault(file.service, []).append(str(index.sealed / file.path))
    rows: dict[str, list[pa.Table]] = {}
    for name, reading in live:
        for part in live_parts(name, reading, query):
            rows.setdefault(part.service, []).append(part.table)
    parts = [
        _limited(connection.read_parquet(paths, union_by_name=True, hive_partitioning=False), query, service)
        for service, paths in sorted(files.items())
    ]
    parts.extend(
        _limited(connection.from_arrow(concat(tables)), query, service) for service, tables in sorted(rows.items())
    )
    if not parts:
        return connection.from_arrow(read_table(index, query))
    whole = reduce(lambda one, other: one.union_by_name(other), parts)
    total, different = whole.aggregate("count(*), count(distinct id)").fetchall()[0]
    return whole if total == different else connection.from_arrow(read_table(index, query))


def _limited(relation: duckdb.DuckDBPyRelation, query: Query, service: str) -> duckdb.DuckDBPyRelation:
    time = duckdb.ColumnExpression("time")
    if query.since is not None:
        relation = relation.filter(time >= duckdb.ConstantExpression(query.since))
    if query.until is not None:
        relation = relation.filter(time < duckdb.ConstantExpression(query.until))
    relation = relation.drop(ROW)
    if "service" in relation.columns:
        return relation
    return relation.with_columns(service=duckdb.ConstantExpression(service))
