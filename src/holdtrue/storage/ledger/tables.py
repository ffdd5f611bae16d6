"""The ledger's own tables, and the column types and helpers every room builds its tables with."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.schema import SchemaItem

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Timestamp(sa.types.TypeDecorator[datetime]):
    """Keep an aware moment as whole microseconds since the epoch; read it back in UTC."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> int | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone: moments are aware everywhere in the house")
        return (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else _EPOCH + int(value) * _MICROSECOND


def project_table(name: str, *columns: SchemaItem, clustered: bool = False) -> sa.Table:
    """Define a table whose first column is `project`, NOT NULL and first in the primary key.

    The columns marked `primary_key` follow it in the key, so one id may exist in two projects and
    every lookup is scoped by an index. Keys are therefore texts or numbers the caller gives: SQLite
    counts up by itself only in keys of one column. Upserts name `["project", …]` as index elements.
    A `clustered` table keeps its rows in the order of the key, with no row ids beside it.
    """
    project = sa.Column("project", sa.Text, primary_key=True, nullable=False)
    table = sa.Table(name, metadata, project, *columns)
    if clustered:
        table.dialect_options["sqlite"]["with_rowid"] = False
    return table


def scoped(table: sa.Table, project: str) -> sa.Select[Any]:
    """Return the base query of `table`: every column, only the rows of `project`."""
    return sa.select(table).where(table.c.project == project)


def key_of(table: sa.Table) -> list[sa.Column[Any]]:
    """Return the columns of a table's key that follow the project, to order by.

    SQLite reads a clustered table in their order anyway; PostgreSQL returns rows in no order that was not asked for.
    """
    return [column for column in table.primary_key.columns if column.name != "project"]


def to_json(value: Any) -> str:
    """Serialise a JSON column; NaN and infinities raise ValueError, since JSON has none."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


# The primary key of `events` and of `payloads` is the one sequence of the whole house, so `project`
# stands beside it. Integer keys of one column are SQLite's row ids: an append touches one page.
events = sa.Table(
    "events",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("time", Timestamp, nullable=False),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("on_behalf_of", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("object", sa.Text, nullable=False),
    sa.Column("before_digest", sa.Text, nullable=False),
    sa.Column("after_digest", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("payload_commitment", sa.Text, nullable=False),
    sa.Column("prev_hash", sa.Text, nullable=False),
    sa.Column("leaf_hash", sa.Text, nullable=False),
    sa.Index(None, "project", "seq"),
    sa.Index(None, "project", "object", "seq"),
)

payloads = sa.Table(
    "payloads",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("salt", sa.LargeBinary, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)

# A checkpoint seals the events of all projects at once, so it has no project column. Nothing stands
# in it that the signature or the tree does not cover.
checkpoints = sa.Table(
    "checkpoints",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("frontier", sa.Text, nullable=False),
)

idempotency = project_table(
    "idempotency",
    sa.Column("actor", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("result", sa.Text, nullable=False),
    sa.Column("created_at", Timestamp, nullable=False, index=True),
)

ERASED = "payload.erased"
