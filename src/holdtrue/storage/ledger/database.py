"""Connections to the SQLite file, and the migrations that bring it to this version's schema.

SQLite before 3.51.3 can corrupt a database in WAL mode that several connections write or
checkpoint (the “WAL-reset bug”). So one connection writes and checkpoints; every other one is
opened read-only by the operating system (`mode=ro`, which cannot checkpoint on close either) and
by `query_only`, and none maps the file into memory.
"""

import os
import sqlite3
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.pool import QueuePool, StaticPool

from holdtrue.core.errors import Corrupt, NewerSchema, NotFound
from holdtrue.storage.ledger.tables import to_json

# Known revisions, oldest first. Read here so that opening a current ledger need not import Alembic,
# which takes longer than everything else at start; a test compares this with the scripts.
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010")
HEAD = REVISIONS[-1]

BUSY_SECONDS = 10.0
_READERS = 8

# Result codes of SQLite (https://www.sqlite.org/rescode.html).
_FULL = 13
_IOERR_SHMSIZE = 4874
_CORRUPT = 11
_NOTADB = 26


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open the one writing connection, creating the file (0600) if there is none."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        for pragma in (
            "PRAGMA mmap_size=0",
            "PRAGMA journal_mode=WAL",
            "PRAGMA synchronous=FULL",
            # The writer checkpoints by itself: SQLite's automatic one reports its I/O errors to nobody.
            "PRAGMA wal_autocheckpoint=0",
            "PRAGMA journal_size_limit=67108864",
            "PRAGMA foreign_keys=ON",
            # What is deleted is overwritten: erased payloads leave nothing in free pages.
            "PRAGMA secure_delete=ON",
            "PRAGMA recursive_triggers=ON",
            "PRAGMA trusted_schema=OFF",
            "PRAGMA cell_size_check=ON",
            "PRAGMA analysis_limit=400",
            "PRAGMA cache_size=-32768",
        ):
            database.execute(pragma).fetchall()
    except sqlite3.DatabaseError as error:
        database.close()
        raise unreadable(path, error) from error
    return database


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open a connection that can neither write nor checkpoint."""
    database = sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    for pragma in (
        "PRAGMA query_only=ON",
        "PRAGMA mmap_size=0",
        "PRAGMA trusted_schema=OFF",
        "PRAGMA cell_size_check=ON",
    ):
        database.execute(pragma).fetchall()
    return database


def writer_engine(database: sqlite3.Connection) -> sa.Engine:
    """Wrap the writing connection for SQLAlchemy, which neither begins nor commits on it."""
    return sa.create_engine(
        "sqlite://",
        creator=lambda: database,
        poolclass=StaticPool,
        pool_reset_on_return=None,
        json_serializer=to_json,
    )


def reader_engine(path: Path) -> sa.Engine:
    """Make the pool of reading connections; each use sees one consistent snapshot."""
    engine = sa.create_engine(
        "sqlite://",
        creator=lambda: connect_reader(path),
        poolclass=QueuePool,
        pool_size=_READERS,
        max_overflow=0,
        pool_timeout=30,
        json_serializer=to_json,
    )

    event.listen(engine, "begin", _begin)
    return engine


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def revision(database: sqlite3.Connection, path: Path) -> str | None:
    """Return the schema revision of the file; None when it is empty.

    A file that is no ledger raises Corrupt, one of a newer version raises NewerSchema.
    """
    try:
        names = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not names:
            return None
        if not {"alembic_version", "events"} <= names:
            raise Corrupt(
                f"{path} is a SQLite database, but not a ledger.",
                why="It has tables, and not those of a ledger.",
                mend="Choose another data folder, or move the file away.",
            )
        row = database.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.DatabaseError as error:
        raise unreadable(path, error) from error
    found = str(row[0]) if row else ""
    return known_revision(found, str(path))


class Transactional(Protocol):
    """A writing connection, as far as migrating needs it."""

    @property
    def sql(self) -> sa.Connection:
        """Return the connection for SQLAlchemy."""
        ...

    @property
    def in_transaction(self) -> bool:
        """Tell whether a transaction is open."""
        ...

    def begin(self, head: None) -> None:
        """Open a transaction."""
        ...

    def commit(self) -> None:
        """Make it durable."""
        ...

    def rollback(self) -> None:
        """Undo it."""
        ...


def upgrade(database: Transactional) -> None:
    """Run the migrations up to this version's schema, in one transaction."""
    # Imported here: a ledger that is current starts without Alembic.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    # Begun for SQLAlchemy too: Alembic commits what it began itself and leaves alone what it found.
    begun = database.sql.begin()
    database.begin(None)
    try:
        config.attributes["connection"] = database.sql
        command.upgrade(config, HEAD)
        database.commit()
    except BaseException:
        if database.in_transaction:
            database.rollback()
        raise
    finally:
        begun.close()


def known_revision(found: str, name: str) -> str:
    """Return a revision that this version knows; raise NewerSchema for another one."""
    if found not in REVISIONS:
        raise NewerSchema(
            f"The ledger {name} was written by a newer version of Holdtrue.",
            why=f"Its schema is “{found}”; this version knows schemas up to “{HEAD}”.",
            mend="Install that newer version again (pip install --upgrade holdtrue), "
            "or restore a backup made before the upgrade (backups/ in the data folder).",
            facts={"found": found, "known": HEAD},
        )
    return found


def back_up(database: sqlite3.Connection, target: Path) -> Path:
    """Copy the database to `target` (0600) while it is in use; whole or absent after a crash."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    copy = sqlite3.connect(part)
    try:
        database.backup(copy)
        # A backup is one file: in WAL mode it would need its companions.
        copy.execute("PRAGMA journal_mode=DELETE").fetchall()
    finally:
        copy.close()
    descriptor = os.open(part, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return part.replace(target)


def must_exist(path: Path) -> None:
    """Raise NotFound when there is no ledger to read at `path`."""
    if not path.is_file():
        raise NotFound(
            f"There is no ledger at {path}.",
            why="Reading does not make one.",
            mend="Give the data folder of an existing installation, or start one with `holdtrue up`.",
        )


def unreadable(path: Path, error: Exception) -> Corrupt:
    """Return the error for a file whose bytes SQLite cannot make sense of."""
    return Corrupt(
        f"The ledger {path} cannot be read.",
        why=f"SQLite says: {error}.",
        mend="Restore the newest backup from backups/ in the data folder; keep the damaged file.",
    )


def sqlite_code(error: BaseException | Any) -> int | None:
    """Return the extended result code of the SQLite error in `error`, or under SQLAlchemy's wrapper."""
    original = getattr(error, "orig", error)
    code = getattr(original, "sqlite_errorcode", None)
    return code if isinstance(code, int) else None


def is_full(error: BaseException) -> bool:
    """Tell whether SQLite found no room on the disk, before it promised anything.

    When the index of the write-ahead log cannot grow (SQLITE_IOERR_SHMSIZE), nothing was written yet.
    """
    return sqlite_code(error) in (_FULL, _IOERR_SHMSIZE)


def is_damage(error: BaseException) -> bool:
    """Tell whether SQLite found bytes that no database has."""
    code = sqlite_code(error)
    return code is not None and code & 0xFF in (_CORRUPT, _NOTADB)
