"""The one connection that writes a ledger in PostgreSQL, and the backend around it.

A lock of the session keeps every other writer out for as long as the connection lives. When it breaks, the next
transaction opens another one, takes the lock again, and goes on only if the log ends where this process left it.
A commit whose answer was lost is looked up by its number: it is known then, not guessed, what became of it.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
import sqlalchemy as sa
from psycopg.pq import TransactionStatus
from sqlalchemy import event, exc
from sqlalchemy.dialects.postgresql.base import PGDialect

from holdtrue.core.clock import Clock
from holdtrue.core.errors import Corrupt, HoldtrueError, Locked, NotFound, Unavailable
from holdtrue.storage.ledger import database as files
from holdtrue.storage.ledger import postgres
from holdtrue.storage.ledger.events import NO_HASH, Head
from holdtrue.storage.ledger.statements import Prepared

if TYPE_CHECKING:
    from psycopg import Connection

# How long a killed server's session may take to end, and a restarted PostgreSQL to answer.
_LOCK_SECONDS = 5
_RESOLVE_SECONDS = 30.0
_RESOLVE_PAUSE = 0.25

_LOCK = "SELECT pg_advisory_lock(hashtextextended('holdtrue ledger ' || current_schema(), 0))"
_MARK = b"SAVEPOINT job"
_MOST_PENDING = 256
_SESSION = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
_END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND backend_start = %s"
_HOLDER = """
    SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.granted AND l.database = (SELECT oid FROM pg_database
    WHERE datname = current_database()) AND a.application_name LIKE 'holdtrue %'
"""


class PostgresWriter:
    """Hold the one session that writes; open it again when it breaks."""

    errors: ClassVar[tuple[type[Exception], ...]] = (psycopg.Error, exc.DBAPIError)

    def __init__(self, address: postgres.Address) -> None:
        self._address = address
        self._texts: dict[tuple[Prepared, int], bytes] = {}
        self._dialect = PGDialect(paramstyle="numeric_dollar")
        self._session: tuple[Any, ...] | None = None
        self._open()
        self._number = ""
        self._unknown = self._marked = False
        self._pending: list[tuple[bytes, Sequence[Any]]] = []

    @property
    def raw(self) -> "Connection[Any]":
        """Return the driver's connection."""
        return self._raw

    @property
    def sql(self) -> sa.Connection:
        """Return the connection for SQLAlchemy, which neither begins nor commits on it."""
        return self._sql

    @property
    def in_transaction(self) -> bool:
        """Tell whether the transaction that was begun can still be committed or rolled back."""
        status = self._raw.info.transaction_status
        return status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)

    def revision(self) -> str | None:
        """Return the schema's revision, None when the database is empty; Corrupt if it is no ledger."""
        return postgres.revision(self._raw, self._address.name)

    def migrate(self, clock: Clock, backups: Path) -> None:
        """Bring the schema to this version's, in one transaction, after a backup into `backups` if there was one."""
        current = self.revision()
        if current == files.HEAD:
            return
        if current is not None:
            # Imported here: backups are made by programs of PostgreSQL, not by this connection.
            from holdtrue.storage.ledger.postgres_care import PostgresCare

            PostgresCare(self._address).copy_to(backups / f"ledger-{current}-{clock.now():%Y%m%dT%H%M%S%f}.dump")
        files.upgrade(self)

    def begin(self, head: Head | None) -> None:
        """Open a transaction, in a new session where the old one broke; Corrupt if the log moved on meanwhile."""
        self._pending.clear()
        if not self._broken:
            try:
                self._start()
                return
            except psycopg.Error as error:
                if not postgres.is_lost(error):
                    raise
        self._raw.close()
        self._open()
        self._check(head)
        self._start()

    def commit(self) -> None:
        """Make the transaction durable; when the answer is lost, find out what became of it.

        Raises Unavailable if it was undone.
        """
        self._before()
        try:
            done = self._raw.execute("COMMIT").statusmessage == "COMMIT"
        except psycopg.Error as error:
            if not postgres.is_lost(error):
                raise self._undone(f"{postgres.meant(error, self._address.name)}") from error
            self._unknown = True
            self._look_up(error)
            self._unknown = False
            return
        if not done:
            # The server's answer to a commit of what had failed before.
            raise self._undone("A statement of the transaction had failed.")

    def rollback(self) -> None:
        """Undo the transaction."""
        self._pending.clear()
        self._raw.execute("ROLLBACK")

    def set_savepoint(self) -> None:
        """Mark the place to which one job may be undone."""
        self._marked = False
        self._later(_MARK)

    def keep(self) -> None:
        """Keep what was done since the mark; what is wrong with it is known when this returns."""
        self._later(b"RELEASE job")
        self._send()

    def undo(self) -> None:
        """Undo what was done since the mark."""
        self._pending.clear()
        if self._marked:
            self._raw.execute("ROLLBACK TO job; RELEASE job")

    def rows(self, statement: Prepared, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run a prepared statement and return its rows, none for one that only changes."""
        self._later(self._text(statement), values)
        cursor = self._send()
        return cursor.fetchall() if cursor is not None and cursor.description is not None else []

    def many(self, statement: Prepared, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run a prepared statement once for each row of values, together with the next that wants an answer.

        Rows go in groups, one statement for each; from a group on that names a key twice they go row by row, since
        PostgreSQL changes no row twice in one statement.
        """
        done = 0
        for width in statement.groups(len(rows)):
            part = rows[done : done + width]
            if len({tuple(row[place] for place in statement.keys) for row in part}) < len(part):
                break
            self._later(self._text(statement, width), [value for row in part for value in row])
            done += width
        for row in rows[done:]:
            self._later(self._text(statement), row)

    def tend(self, jobs: int) -> None:
        """Do nothing: the server itself does what is due from time to time."""

    def scrub(self) -> bool:
        """Do nothing: the server overwrites what was deleted when it vacuums, and its log goes as it is set."""
        return True

    def finish(self) -> None:
        """Do nothing: the server itself folds its log in."""

    def close(self) -> None:
        """Close the session, and with it give back the lock."""
        self._raw.close()

    def is_fatal(self, error: BaseException) -> bool:
        """Tell whether no further job of this transaction may be tried."""
        return self._broken or not self.in_transaction

    def wrote_nothing(self, error: BaseException) -> bool:
        """Tell whether the lost transaction surely wrote nothing: all but a commit of which nothing is known.

        The server undoes what was not committed. Work that ended the transaction by itself, and a log that
        another process moved on, are no such case.
        """
        if self._unknown or isinstance(error, Corrupt):
            return False
        return self._broken or self.in_transaction or isinstance(error, HoldtrueError)

    def refusal(self, error: BaseException) -> BaseException:
        """Return the error that a caller gets for `error`."""
        return postgres.explain(error, self._address.name) or error

    @property
    def _broken(self) -> bool:
        return self._raw.closed or self._raw.info.transaction_status == TransactionStatus.UNKNOWN

    def _later(self, text: bytes, values: Sequence[Any] = ()) -> None:
        """Take a statement that goes to the server with the next one whose answer is waited for."""
        self._pending.append((text, values))
        if len(self._pending) >= _MOST_PENDING:
            self._send()

    def _send(self) -> "psycopg.Cursor[Any] | None":
        """Send what waits in one round trip; return the cursor of the last, or raise the first error."""
        pending, self._pending = self._pending, []
        self._marked = self._marked or any(text is _MARK for text, _ in pending)
        if len(pending) == 1:
            return self._run(*pending[0])
        cursor = None
        with self._raw.pipeline():
            for text, values in pending:
                cursor = self._run(text, values)
        return cursor

    def _run(self, text: bytes, values: Sequence[Any]) -> "psycopg.Cursor[Any]":
        # The driver would read a statement of fifty rows anew each time to find its marks: 3.5 ms of them.
        return psycopg.RawCursor(self._raw).execute(text, values)

    def _before(self, *_: Any) -> None:
        """Send what waits before SQLAlchemy runs a statement."""
        if self._pending:
            self._send()

    def _open(self) -> None:
        """Open a session and take the lock; Locked, naming the holder, if another process has it."""
        before = self._session
        self._raw = self._address.connect()
        try:
            if before is not None:
                # Where the wire broke and the server has not seen it yet, our own old session has the lock.
                self._raw.execute(_END, before)
            self._session = self._raw.execute(_SESSION).fetchone()
            self._raw.execute("SELECT set_config('lock_timeout', %s, false)", (f"{_LOCK_SECONDS}s",))
            try:
                self._raw.execute(_LOCK)
            except psycopg.errors.LockNotAvailable:
                raise self._locked() from None
            self._raw.execute("SELECT set_config('lock_timeout', '0', false)")
            engine = postgres.writer_engine(self._raw)
            self._sql = engine.connect()
            event.listen(engine, "before_cursor_execute", self._before)
        except BaseException as error:
            self._raw.close()
            if isinstance(error, psycopg.Error):
                raise postgres.meant(error, self._address.name) from None
            raise

    def _start(self) -> None:
        cursor = self._raw.execute("BEGIN; SELECT pg_current_xact_id()::text")
        cursor.nextset()
        found = cursor.fetchone()
        self._number = found[0] if found else ""

    def _check(self, head: Head | None) -> None:
        """Raise Corrupt unless the log ends at `head`."""
        if head is None:
            return
        found = self._raw.execute("SELECT seq, leaf_hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        if (found or (0, NO_HASH)) != (head.size, head.hash):
            raise Corrupt(
                "The database is not as this process left it.",
                why=f"While the connection was down, its log of {head.size} events became another one: a second "
                "server wrote to it, or an older state was put in its place.",
                mend="Stop the other process, or restore the newest state; then start Holdtrue again.",
            )

    def _look_up(self, error: psycopg.Error) -> None:
        """Return if the transaction whose commit got no answer was committed; raise Unavailable if it was undone."""
        until = time.monotonic() + _RESOLVE_SECONDS
        while True:
            try:
                self._raw.close()
                self._open()
                found = self._raw.execute("SELECT pg_xact_status(%s::text::xid8)", (self._number,)).fetchone()
                state = found[0] if found else None
            except (psycopg.Error, HoldtrueError) as again:
                if isinstance(again, Locked) or time.monotonic() > until:
                    raise error from again
                state = "in progress"
            if state == "committed":
                return
            if state == "aborted":
                self._unknown = False
                raise self._undone("The connection was lost before PostgreSQL had it.") from error
            if state != "in progress" or time.monotonic() > until:
                raise error
            time.sleep(_RESOLVE_PAUSE)

    def _undone(self, why: str) -> Unavailable:
        return Unavailable(
            f"The database {self._address.name} undid this change: it was not written.",
            why=why,
            mend="Send the request again.",
        )

    def _locked(self) -> Locked:
        found = self._raw.execute(_HOLDER).fetchone()
        holder = f"The session “{found[0]}” (program, machine, process id) has it." if found else ""
        return Locked(
            f"Another process writes to the database {self._address.name}.",
            why=f"Exactly one may. {holder}".strip(),
            mend="Stop that server, or give this one a database of its own in the setting “database”.",
        )

    def _text(self, statement: Prepared, width: int = 1) -> bytes:
        found = self._texts.get((statement, width))
        if found is None:
            element = statement.of_width(width)
            found = self._texts[(statement, width)] = str(element.compile(dialect=self._dialect)).encode()
        return found


class PostgresBackend:
    """Open the ledger in the database at `url`."""

    def __init__(self, url: str) -> None:
        self._address = postgres.Address(url)

    @property
    def name(self) -> str:
        """Return how messages call it; no secret is in it."""
        return self._address.name

    @property
    def address(self) -> postgres.Address:
        """Return how the database is reached."""
        return self._address

    def open_writer(self) -> PostgresWriter:
        """Open the one writing connection; Locked if another process has it."""
        return PostgresWriter(self._address)

    def revision_to_read(self) -> str | None:
        """Return the revision as a reader finds it; NotFound if there is nothing to read."""
        connection = self._address.connect()
        try:
            found = postgres.revision(connection, self.name)
        finally:
            connection.close()
        if found is None:
            raise NotFound(
                f"There is no ledger in the database {self.name}.",
                why="Reading does not make one.",
                mend="Name the database of an existing installation, or start one with `holdtrue up`.",
            )
        return found

    def reader_engine(self) -> sa.Engine:
        """Make the pool of reading connections; each use sees one consistent snapshot."""
        return postgres.reader_engine(self._address)

    def is_lost(self, error: BaseException) -> bool:
        """Tell whether a read failed because its connection broke, so that it may be tried on another."""
        return postgres.is_lost(error)

    def explain(self, error: BaseException) -> HoldtrueError | None:
        """Return what a database error means for whoever reads or opens the ledger; None if it is no such thing."""
        return postgres.explain(error, self.name)
