"""The ledger's own tables, and the column types and helpers every room builds its tables with."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.schema import SchemaItem

_DIALECT = sqlite.dialect(paramstyle="qmark")
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


@dataclass(frozen=True, slots=True)
class Prepared:
    """Hold a statement compiled once: its text with a mark for each value.

    `wide` is the same for `width` rows at once, 0 if there is no such form.
    """

    text: str
    wide: str = ""
    width: int = 0


def prepare(statement: sa.ClauseElement) -> Prepared:
    """Compile a statement whose parameters are `sa.bindparam`s, for work too frequent to compile each time.

    Values go to the database as they are given, in the order in which the text names them: columns whose type
    converts them have no place here.
    """
    return Prepared(str(statement.compile(dialect=_DIALECT)))


def prepare_insert(table: sa.Table, finish: Callable[[sqlite.Insert], sqlite.Insert], width: int = 50) -> Prepared:
    """Compile an insert of all columns of `table` in their order, for one row and for `width` rows at once.

    `finish` adds what happens on a conflict.
    """
    one = sqlite.insert(table).values({each.name: sa.bindparam(each.name) for each in table.c})
    rows = [{each.name: sa.bindparam(f"{each.name}_{row}") for each in table.c} for row in range(width)]
    texts = [str(finish(each).compile(dialect=_DIALECT)) for each in (one, sqlite.insert(table).values(rows))]
    return Prepared(texts[0], texts[1], width)


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

# These stop accidents and careless scripts; the signatures catch intent (they can be dropped by
# whoever owns the file). The insert guard also closes INSERT OR REPLACE, which deletes silently.
_TRIGGERS = (
    """CREATE TRIGGER events_no_update BEFORE UPDATE ON events
       BEGIN SELECT RAISE(ABORT, 'events are never changed'); END""",
    """CREATE TRIGGER events_no_delete BEFORE DELETE ON events
       BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END""",
    """CREATE TRIGGER events_in_order BEFORE INSERT ON events
       WHEN NEW.seq <> (SELECT COALESCE(MAX(seq), 0) + 1 FROM events)
       BEGIN SELECT RAISE(ABORT, 'events are only appended'); END""",
    """CREATE TRIGGER checkpoints_no_update BEFORE UPDATE ON checkpoints
       BEGIN SELECT RAISE(ABORT, 'checkpoints are never changed'); END""",
    """CREATE TRIGGER checkpoints_no_delete BEFORE DELETE ON checkpoints
       BEGIN SELECT RAISE(ABORT, 'checkpoints are never deleted'); END""",
    """CREATE TRIGGER checkpoints_in_order BEFORE INSERT ON checkpoints
       WHEN NEW.number <> (SELECT COALESCE(MAX(number), 0) + 1 FROM checkpoints)
       BEGIN SELECT RAISE(ABORT, 'checkpoints are only appended'); END""",
    """CREATE TRIGGER payloads_no_update BEFORE UPDATE ON payloads
       BEGIN SELECT RAISE(ABORT, 'payloads are never changed'); END""",
    """CREATE TRIGGER payloads_once BEFORE INSERT ON payloads
       WHEN EXISTS (SELECT 1 FROM payloads WHERE seq = NEW.seq)
       BEGIN SELECT RAISE(ABORT, 'payloads are written once'); END""",
    """CREATE TRIGGER payloads_erase_needs_tombstone BEFORE DELETE ON payloads
       WHEN NOT EXISTS (SELECT 1 FROM events WHERE project = OLD.project
                        AND object = 'event:' || OLD.seq AND action = 'payload.erased')
       BEGIN SELECT RAISE(ABORT, 'a payload is erased only with a tombstone event'); END""",
)


def create_triggers(connection: sa.Connection) -> None:
    """Create the triggers that keep events, payloads and checkpoints append-only."""
    for statement in _TRIGGERS:
        connection.exec_driver_sql(statement)
