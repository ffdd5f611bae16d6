"""The ledger in a SQLite file: its one writing connection, and how its errors are read."""

import sqlite3
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from holdtrue.core.clock import Clock
from holdtrue.core.errors import Corrupt, HoldtrueError, StorageFull, Unavailable
from holdtrue.storage.ledger import database as files
from holdtrue.storage.ledger.events import Head
from holdtrue.storage.ledger.statements import Prepared

_WAIT_TO_SCRUB = "PRAGMA busy_timeout=500"
_WAIT_AS_EVER = f"PRAGMA busy_timeout={int(files.BUSY_SECONDS * 1000)}"
_JOBS_BETWEEN_WAL_CHECKPOINTS = 256
_ROWS_BETWEEN_WAL_CHECKPOINTS = 20_000

# Result codes of SQLite (https://www.sqlite.org/rescode.html).
_BUSY = 5
_IOERR = 10


class SqliteWriter:
    """Hold the one connection that writes and checkpoints a file."""

    errors: ClassVar[tuple[type[Exception], ...]] = (sqlite3.Error,)

    def __init__(self, path: Path) -> None:
        self.raw = files.connect_writer(path)
        self._path = path
        self._sql: sa.Connection | None = None
        self._texts: dict[tuple[Prepared, int], str] = {}
        self._dialect = sqlite.dialect(paramstyle="qmark")
        self._jobs, self._rows = 0, self.raw.total_changes
        self._version = self._data_version()

    @property
    def sql(self) -> sa.Connection:
        """Return the connection for SQLAlchemy, which neither begins nor commits on it."""
        if self._sql is None:
            self._sql = files.writer_engine(self.raw).connect()
        return self._sql

    @property
    def in_transaction(self) -> bool:
        """Tell whether the transaction that was begun can still be committed or rolled back."""
        return self.raw.in_transaction

    def revision(self) -> str | None:
        """Return the schema's revision, None when the file is empty; Corrupt if it is no ledger."""
        return files.revision(self.raw, self._path)

    def migrate(self, clock: Clock, backups: Path) -> None:
        """Bring the schema to this version's, in one transaction, after a backup into `backups` if there was one."""
        current = self.revision()
        if current == files.HEAD:
            return
        if current is not None:
            stamp = f"{clock.now():%Y%m%dT%H%M%S%f}"
            files.back_up(self.raw, backups / f"ledger-{current}-{stamp}.db")
        files.upgrade(self)

    def begin(self, head: Head | None) -> None:
        """Open a transaction; raise Corrupt if another connection wrote since the last one."""
        self.raw.execute("BEGIN IMMEDIATE")
        if head is not None and self._data_version() != self._version:
            raise Corrupt(
                "Something other than this process wrote to the ledger.",
                why="Exactly one process may write to it; two would fork its history.",
                mend="Stop the other process, then start Holdtrue again.",
            )

    def commit(self) -> None:
        """Make the transaction durable."""
        self.raw.execute("COMMIT")

    def rollback(self) -> None:
        """Undo the transaction."""
        self.raw.execute("ROLLBACK")

    def set_savepoint(self) -> None:
        """Mark the place to which one job may be undone."""
        self.raw.execute("SAVEPOINT job")

    def keep(self) -> None:
        """Keep what was done since the mark."""
        self.raw.execute("RELEASE job")

    def undo(self) -> None:
        """Undo what was done since the mark."""
        self.raw.execute("ROLLBACK TO job")
        self.raw.execute("RELEASE job")

    def rows(self, statement: Prepared, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run a prepared statement and return its rows, none for one that only changes."""
        return self.raw.execute(self._text(statement), values).fetchall()

    def many(self, statement: Prepared, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run a prepared statement once for each row of values; many rows go in groups, each in one step.

        Between two steps the interpreter's lock changes hands, which costs more than the row under load.
        """
        start = 0
        for width in statement.groups(len(rows)):
            values = list(chain.from_iterable(rows[start : start + width]))
            self.raw.execute(self._text(statement, width), values)
            start += width

    def tend(self, jobs: int) -> None:
        """Move the write-ahead log into the database from time to time, and see if that fails."""
        self._jobs += jobs
        rows = self.raw.total_changes - self._rows
        if self._jobs < _JOBS_BETWEEN_WAL_CHECKPOINTS and rows < _ROWS_BETWEEN_WAL_CHECKPOINTS:
            return
        self._jobs, self._rows = 0, self.raw.total_changes
        self.raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def scrub(self) -> bool:
        """Empty the write-ahead log, whose old frames still have what was deleted; False while somebody reads them."""
        self.raw.execute(_WAIT_TO_SCRUB).fetchall()
        try:
            return not self.raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            self.raw.execute(_WAIT_AS_EVER).fetchall()

    def finish(self) -> None:
        """Fold the write-ahead log in, before the connection is closed."""
        self.raw.execute("PRAGMA optimize").fetchall()
        self.raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close the connection."""
        self.raw.close()

    def is_fatal(self, error: BaseException) -> bool:
        """Tell whether no further job of this transaction may be tried.

        A full disk or an I/O error may have ended the whole transaction (SQLite's choice).
        """
        code = files.sqlite_code(error)
        broken = code is not None and code & 0xFF == _IOERR
        return not self.raw.in_transaction or ((broken or files.is_damage(error)) and not files.is_full(error))

    def wrote_nothing(self, error: BaseException) -> bool:
        """Tell whether the lost transaction surely wrote nothing, so that the next one may be tried."""
        return files.is_full(error) or _is_busy(error)

    def refusal(self, error: BaseException) -> BaseException:
        """Return the error that a caller gets for `error`."""
        if files.is_full(error):
            return StorageFull(
                "The disk is full: this change was not written.",
                why="SQLite found no room. Everything acknowledged before is safe.",
                mend="Make room on the disk of the data folder, then send the request again.",
            )
        if _is_busy(error):
            return Unavailable(
                "The ledger is busy.",
                why="Another process holds it, for example a backup tool.",
                mend="Try again in a moment.",
            )
        return error

    def _text(self, statement: Prepared, width: int = 1) -> str:
        found = self._texts.get((statement, width))
        if found is None:
            element = statement.of_width(width)
            found = self._texts[(statement, width)] = str(element.compile(dialect=self._dialect))
        return found

    def _data_version(self) -> int:
        return int(self.raw.execute("PRAGMA data_version").fetchone()[0])


def _is_busy(error: BaseException) -> bool:
    code = files.sqlite_code(error)
    return code is not None and code & 0xFF == _BUSY


class SqliteBackend:
    """Open the ledger in the file `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """Return how messages call it."""
        return str(self.path)

    def open_writer(self) -> SqliteWriter:
        """Open the one writing connection, creating the file (0600) if there is none."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return SqliteWriter(self.path)

    def revision_to_read(self) -> str | None:
        """Return the revision as a reader finds it; NotFound if there is nothing to read."""
        files.must_exist(self.path)
        probe = files.connect_reader(self.path)
        try:
            return files.revision(probe, self.path)
        finally:
            probe.close()

    def reader_engine(self) -> sa.Engine:
        """Make the pool of reading connections; each use sees one consistent snapshot."""
        return files.reader_engine(self.path)

    def is_lost(self, error: BaseException) -> bool:
        """Tell whether a read failed because its connection broke: a file's never does."""
        return False

    def explain(self, error: BaseException) -> HoldtrueError | None:
        """Return what a database error means for whoever reads or opens the ledger; None if it is no such thing."""
        if files.is_damage(error):
            return files.unreadable(self.path, error if isinstance(error, Exception) else Exception(str(error)))
        if files.is_full(error):
            return StorageFull(
                f"There is no room for the ledger {self.path}.",
                why=f"{error}.",
                mend="Make room on the disk of the data folder, then try again.",
            )
        return None
