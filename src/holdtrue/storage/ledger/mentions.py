"""Find what the ledger mentions: every digest in any cell of any table, whichever room wrote it."""

import re
from collections.abc import Iterator

import sqlalchemy as sa

_DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


def mentioned_digests(connection: sa.Connection) -> set[str]:
    """Return every text of 64 hexadecimal digits in the database.

    Too many rather than too few: what is no digest of a blob harms nobody, and a room that keeps digests in a way
    of its own loses nothing.
    """
    return {found for table in _tables(connection) for found in _in_table(connection, table)}


def _tables(connection: sa.Connection) -> Iterator[sa.Table]:
    """Yield the tables that are there with their columns; keys, which PostgreSQL tells only untyped, are not needed."""
    there = sa.inspect(connection)
    for name in there.get_table_names():
        columns = (sa.Column(each["name"], each["type"]) for each in there.get_columns(name))
        yield sa.Table(name, sa.MetaData(), *columns)


def _in_table(connection: sa.Connection, table: sa.Table) -> Iterator[str]:
    columns = [column for column in table.columns if not isinstance(column.type, sa.Integer | sa.Float | sa.Boolean)]
    if not columns:
        return
    cells = (column if isinstance(column.type, sa.LargeBinary) else sa.cast(column, sa.Text) for column in columns)
    for row in connection.execute(sa.select(*cells)):
        for value in row:
            if value is not None:
                yield from digests_in(value.encode() if isinstance(value, str) else bytes(value))


def digests_in(data: bytes) -> Iterator[str]:
    """Yield every text of 64 hexadecimal digits that stands alone in `data`."""
    for found in _DIGEST.finditer(data):
        yield found.group().decode()
