"""Carry a whole ledger from a SQLite file into a PostgreSQL database, or back: all of it, or nothing.

Rows go as they stand in the columns, in the order of their keys, inside one transaction of the new database; before it
is committed each table is read back, and count and hash compared with what was read from the old one.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson
import sqlalchemy as sa
from blake3 import blake3
from sqlalchemy.dialects import postgresql, sqlite

from holdtrue.core.errors import Conflict, Corrupt, HoldtrueError, InvalidInput, NotFound, Unavailable
from holdtrue.storage.files import sync_folder
from holdtrue.storage.ledger import database as files
from holdtrue.storage.ledger.care import check_file, fold
from holdtrue.storage.ledger.sqlite import SqliteWriter
from holdtrue.storage.ledger.tables import metadata
from holdtrue.storage.ledger.verify import verify

if TYPE_CHECKING:
    from holdtrue.storage.ledger.postgres_writer import PostgresWriter

Tell = Callable[[str, int], None]
Rows = Iterator[Sequence[tuple[Any, ...]]]

_AT_ONCE = 5_000
_SUFFIX = ".converting"
_COMPANIONS = ("-wal", "-shm")


@dataclass(frozen=True, slots=True)
class Carried:
    """Hold what was carried of one table: its rows, and the BLAKE3 of all of them in the order of their keys."""

    rows: int
    digest: str


class _Place(Protocol):
    """A database that tables are read from, or carried into."""

    def rows(self, table: sa.Table) -> Rows:
        """Yield a table's rows in the order of its key, in equal parts."""
        ...

    def add(self, table: sa.Table, parts: Rows) -> None:
        """Add rows to a table."""
        ...


def to_postgres(source: Path, url: str, public_key: str, tell: Tell) -> dict[str, Carried]:
    """Carry the ledger in the file `source` into the empty database at `url`; the file stays as it is.

    Nobody may write to either. `tell` gets each table's name and rows once they are over. Raises Conflict for a
    database that holds anything, Corrupt for a source whose log is not sound, InvalidInput for what PostgreSQL
    cannot hold, Locked, Unavailable.
    """
    # Imported here: a ledger in a file needs no driver.
    from holdtrue.storage.ledger.postgres_writer import PostgresBackend

    files.must_exist(source)
    _need_current(check_file(source)["schema"].split()[0], str(source))
    _need_sound(source, public_key)
    reader = files.connect_reader(source)
    try:
        reader.execute("BEGIN")
        writer = PostgresBackend(url).open_writer()
        try:
            if (found := writer.revision()) is None:
                files.upgrade(writer)
            else:
                _need_current(found, "in the database")
            carried = _into_postgres(_File(reader), writer, tell)
        finally:
            writer.close()
    finally:
        reader.close()
    _need_sound(url, public_key)
    return carried


def to_file(url: str, target: Path, kept: Path, public_key: str, tell: Tell) -> dict[str, Carried]:
    """Carry the ledger in the database at `url` into the file `target`; a file that is there is kept as `kept`.

    The database stays as it is. Raises as `to_postgres` does.
    """
    # Imported here: a ledger in a file needs no driver.
    from holdtrue.storage.ledger.postgres_writer import PostgresBackend

    _need_sound(url, public_key)
    part = target.with_name(target.name + _SUFFIX)
    _remove(part)
    held = PostgresBackend(url).open_writer()
    try:
        _need_current(held.revision() or "none", "in the database")
        held.begin(None)
        writer = SqliteWriter(part)
        try:
            files.upgrade(writer)
            writer.begin(None)
            carried = _carry(_Server(held), _File(writer.raw), tell)
            writer.commit()
            writer.raw.execute("ANALYZE")
            writer.finish()
        finally:
            writer.close()
        held.rollback()
    finally:
        held.close()
    _need_sound(part, public_key)
    fold(part)
    _put_in_place(part, target, kept)
    return carried


def _into_postgres(source: _Place, writer: "PostgresWriter", tell: Tell) -> dict[str, Carried]:
    target = _Server(writer)
    writer.begin(None)
    try:
        for table in _tables():
            if next(iter(target.rows(table)), ()):
                raise Conflict(
                    "The database is not empty.",
                    why=f"Its table {table.name} has rows: a ledger is there already.",
                    mend="Name an empty database in the setting “database”; `createdb NAME` makes one.",
                )
        carried = _carry(source, target, tell)
        writer.commit()
    except BaseException as error:
        if writer.in_transaction:
            writer.rollback()
        meant = writer.refusal(error)
        if meant is not error:
            raise meant from error
        raise
    writer.raw.execute("ANALYZE")
    return carried


def _carry(source: _Place, target: _Place, tell: Tell) -> dict[str, Carried]:
    """Carry every table over, read each back, and return what was carried; raise Corrupt where the two differ."""
    carried: dict[str, Carried] = {}
    for table in _tables():
        sum_there = _Sum()
        try:
            target.add(table, sum_there.over(source.rows(table)))
        except HoldtrueError:
            raise
        except Exception as error:
            raise _refused(table.name, error) from error
        sum_here = _Sum()
        for _ in sum_here.over(target.rows(table)):
            pass
        if (there := sum_there.carried()) != (here := sum_here.carried()):
            raise Corrupt(
                f"The table {table.name} did not come over as it was; nothing was kept.",
                why=f"There {there.rows} rows with hash {there.digest[:16]}, here {here.rows} with {here.digest[:16]}.",
                mend="Check both databases (`holdtrue db check`), then try again.",
            )
        carried[table.name] = there
        tell(table.name, there.rows)
    return carried


class _Sum:
    """Count and hash rows while they pass."""

    def __init__(self) -> None:
        self._rows = 0
        self._hash = blake3()

    def over(self, parts: Rows) -> Rows:
        """Yield what comes."""
        for part in parts:
            self._rows += len(part)
            self._hash.update(orjson.dumps(list(part), default=bytes.hex))
            yield part

    def carried(self) -> Carried:
        """Return what has passed."""
        return Carried(self._rows, self._hash.hexdigest())


class _File:
    """Read and write tables of a SQLite file through the driver, in the transaction that is open."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._dialect = sqlite.dialect(paramstyle="qmark")

    def rows(self, table: sa.Table) -> Rows:
        cursor = self._raw.execute(str(_selected(table).compile(dialect=self._dialect)))
        while part := cursor.fetchmany(_AT_ONCE):
            yield part

    def add(self, table: sa.Table, parts: Rows) -> None:
        # Without the types of the columns, which would convert what stands in them already.
        plain = sa.table(table.name, *(sa.column(each.name) for each in table.c))
        text = str(sa.insert(plain).compile(dialect=self._dialect))
        for part in parts:
            self._raw.executemany(text, part)


class _Server:
    """Read and write tables of a PostgreSQL database through the driver, in the transaction that is open."""

    def __init__(self, writer: "PostgresWriter") -> None:
        self._raw = writer.raw
        self._dialect = postgresql.dialect()

    def rows(self, table: sa.Table) -> Rows:
        odd = [place for place, each in enumerate(table.c) if isinstance(each.type, sa.Boolean | sa.Float)]
        with self._raw.cursor(name="conversion") as cursor:
            cursor.execute(str(_selected(table).compile(dialect=self._dialect)).encode())
            while part := cursor.fetchmany(_AT_ONCE):
                yield [_as_in_file(row, odd) for row in part] if odd else part

    def add(self, table: sa.Table, parts: Rows) -> None:
        from psycopg import sql

        names = sql.SQL(", ").join(sql.Identifier(each.name) for each in table.c)
        statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table.name), names)
        with self._raw.cursor() as cursor, cursor.copy(statement) as copy:
            for part in parts:
                for row in part:
                    copy.write_row(row)


def _tables() -> list[sa.Table]:
    return metadata.sorted_tables


def _selected(table: sa.Table) -> sa.Select[Any]:
    """Return the query of a table's columns as they stand in the database, JSON as its text."""
    columns: list[sa.ColumnElement[Any]] = [
        sa.cast(each, sa.Text) if isinstance(each.type, sa.JSON) else sa.type_coerce(each, sa.types.NULLTYPE)
        for each in table.c
    ]
    return sa.select(*columns).order_by(*table.primary_key.columns)


def _as_in_file(row: tuple[Any, ...], places: Sequence[int]) -> tuple[Any, ...]:
    """Return a row with true, false and the negative zero at `places` as SQLite keeps them: 1, 0 and 0."""
    values = list(row)
    for place in places:
        if values[place] is not None:
            values[place] += 0
    return tuple(values)


def _need_current(found: str, name: str) -> None:
    if found != files.HEAD:
        raise Unavailable(
            f"The ledger {name} has the schema “{found}”, this version's is “{files.HEAD}”.",
            mend="Bring it up to date first: holdtrue db upgrade",
        )


def _need_sound(where: Path | str, public_key: str) -> None:
    """Raise Corrupt unless the event log there verifies."""
    found = verify(where, public_key)
    if not found.ok:
        raise Corrupt(
            "The event log does not verify; nothing is carried from or into it.",
            why=f"{found.findings[0].what}.",
            mend="Run `holdtrue audit verify` to see all of it, and restore the newest sound backup.",
        )


def _refused(table: str, error: Exception) -> Exception:
    """Return what to raise where the new database took a row of a table badly."""
    if "NUL" in str(error) or "0x00" in str(error):
        return InvalidInput(
            f"The table {table} holds text that PostgreSQL cannot keep; nothing was carried over.",
            why="There is the sign U+0000 in it.",
            mend="Change that text (a tag or parameter, most likely), or stay with the file.",
        )
    return error


def _put_in_place(part: Path, target: Path, kept: Path) -> None:
    """Rename a finished file to what it shall be; what is there is renamed to `kept` with all that is in it."""
    if target.exists():
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fold(target)
        os.rename(target, kept)
        for companion in _COMPANIONS:
            target.with_name(target.name + companion).unlink(missing_ok=True)
    os.rename(part, target)
    for companion in _COMPANIONS:
        part.with_name(part.name + companion).unlink(missing_ok=True)
    sync_folder(target.parent)


def _remove(part: Path) -> None:
    """Remove what a conversion that broke off has left."""
    for suffix in ("", *_COMPANIONS):
        part.with_name(part.name + suffix).unlink(missing_ok=True)


def need_ledger(home: Path) -> str:
    """Return the public key of a data folder; NotFound where there was no ledger yet."""
    path = home / "keys" / "ledger.pub"
    if not path.is_file():
        raise NotFound(f"There is no ledger in {home} yet.", mend="Start one: holdtrue up")
    return path.read_text("ascii")
