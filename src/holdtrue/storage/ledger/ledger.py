"""The ledger: SQL state and the event log, changed together, durable when a write returns."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy import exc

from holdtrue.core.actor import SYSTEM
from holdtrue.core.clock import Clock
from holdtrue.core.errors import HoldtrueError, Unavailable
from holdtrue.storage.ledger.backend import Backend
from holdtrue.storage.ledger.checkpoints import load
from holdtrue.storage.ledger.database import HEAD
from holdtrue.storage.ledger.events import Event, EventFilter, select_events
from holdtrue.storage.ledger.notes import load_signer
from holdtrue.storage.ledger.sqlite import SqliteBackend
from holdtrue.storage.ledger.transaction import Transaction, WriteContext
from holdtrue.storage.ledger.writer import Writer

T = TypeVar("T")


class Ledger:
    """Read the SQL state from many threads; write it through one, with group commit."""

    def __init__(
        self, backend: Backend, readers: sa.Engine, writer: Writer | None, closing: Callable[[], None]
    ) -> None:
        self._backend = backend
        self._readers = readers
        self._writer = writer
        self._closing = closing

    @classmethod
    def open(
        cls, where: Path | str, *, clock: Clock, keys: Path, writer: bool = True, anchors: Path | None = None
    ) -> "Ledger":
        """Open the ledger in the file or (a URL) the PostgreSQL database `where`, as its only writer unless
        `writer` is False.

        A writer makes the tables and the signing key in `keys` when they are missing, brings the schema
        up to date after a backup, and appends each checkpoint to the file `anchors`, best kept outside
        the data folder. The tables of every room must be imported by then. Raises NewerSchema for a
        database of a newer version, Corrupt for one that was altered, StorageFull, Locked if another process
        writes to it, Unavailable if it cannot be reached, and ConfigurationError for a missing key.
        """
        backend = backend_of(where)
        if writer:
            return cls._open_writer(backend, clock, keys, anchors)
        found = backend.revision_to_read()
        if found != HEAD:
            raise Unavailable(
                f"The ledger {backend.name} has an older schema than this version reads.",
                why=f"Its schema is “{found}”, this version's is “{HEAD}”.",
                mend="Start `holdtrue up` once: it brings the ledger up to date after a backup.",
            )
        return cls(backend, backend.reader_engine(), None, lambda: None)

    @classmethod
    def _open_writer(cls, backend: Backend, clock: Clock, keys: Path, anchors: Path | None) -> "Ledger":
        database = backend.open_writer()
        try:
            signer = load_signer(keys, fresh=database.revision() is None)
            database.migrate(clock, keys.parent / "backups")
            head, checkpointer = load(database.sql, signer, anchors, clock.now())
        except BaseException as error:
            database.close()
            found = backend.explain(error)
            if found is not None:
                raise found from error
            raise
        checkpointer.anchor()
        thread = Writer(database, clock, head, checkpointer)
        return cls(backend, backend.reader_engine(), thread, database.close)

    @property
    def name(self) -> str:
        """Return how messages call the database; no secret is in it."""
        return self._backend.name

    def write(self, context: WriteContext, work: Callable[[Transaction], T]) -> T:
        """Run `work` in a transaction and return its result once that is durable.

        An exception in `work` undoes it and is raised here; others are not touched. With an
        idempotency key in the context a repeated request gets the stored answer in its JSON form.
        Raises StorageFull, Unavailable, IdempotencyMismatch.
        """
        return self._need_writer().submit(context, work).result()

    async def write_async(self, context: WriteContext, work: Callable[[Transaction], T]) -> T:
        """Do as `write` does, without blocking the event loop or holding a thread."""
        return await self._need_writer().submit_async(context, work)

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` on a read-only connection that sees one consistent, committed state.

        Raises Corrupt for a damaged database, and Unavailable when it cannot be reached or all connections
        stay in use.
        """
        if self._writer is not None:
            self._writer.settle()
        try:
            return self._read(work)
        except exc.DatabaseError as error:
            if not self._backend.is_lost(error):
                raise self._meant(error) from error
        # The server was started again: its old connections are gone, and reading twice does no harm.
        try:
            return self._read(work)
        except exc.DatabaseError as error:
            raise self._meant(error) from error

    def _meant(self, error: exc.DatabaseError) -> HoldtrueError:
        """Return what an error of reading means; raise again one that is about a statement."""
        found = self._backend.explain(error)
        if found is None:
            raise error
        return found

    def _read(self, work: Callable[[sa.Connection], T]) -> T:
        try:
            with self._readers.connect() as connection:
                return work(connection)
        except exc.TimeoutError as error:
            raise Unavailable(
                "Too many readers use the ledger.", why="All connections are taken.", mend="Try again in a moment."
            ) from error

    async def read_async(self, work: Callable[[sa.Connection], T]) -> T:
        """Do as `read` does, in a thread."""
        return await asyncio.to_thread(self.read, work)

    def events(
        self,
        project: str | None = None,
        *,
        after: int = 0,
        limit: int = 100,
        action: str | None = None,
        object: str | None = None,
        newest_first: bool = False,
    ) -> list[Event]:
        """Return events in order of their sequence (None: of every project).

        `after` is the last sequence number already seen. An `action` ending with a dot matches all
        actions under it.
        """
        chosen = EventFilter(project, after, limit, action, object, newest_first)
        return self.read(lambda connection: select_events(connection, chosen))

    def observe(self, observer: Callable[[frozenset[str]], None]) -> None:
        """Call `observer` with the actions of each commit's events, once durable and before anybody is answered.

        There is one observer. It runs on the writing thread, so it must neither wait nor write to the ledger.
        """
        self._need_writer().observer = observer

    def checkpoint(self) -> str:
        """Sign the present head of the log and return the newest signed note ("" for an empty log)."""
        writer = self._need_writer()
        writer.submit(WriteContext(SYSTEM, ""), lambda tx: tx.seal()).result()
        return writer.note

    def scrub(self) -> bool:
        """Leave nothing of what was deleted in the database's files; False while readers stand in the way."""
        writer = self._need_writer()
        writer.submit(WriteContext(SYSTEM, ""), lambda tx: tx.scrub()).result()
        return writer.scrubbed

    def sign_late(self) -> None:
        """Sign the head if a checkpoint is due: on a quiet log no commit comes that would do it."""
        self._need_writer().submit(WriteContext(SYSTEM, ""), lambda tx: None).result()

    @property
    def waiting(self) -> int:
        """Return how many transactions are in line."""
        return self._writer.waiting if self._writer else 0

    @property
    def failure(self) -> HoldtrueError | None:
        """Return why the ledger stopped writing, or None while all is well."""
        return self._writer.failure if self._writer else None

    def close(self) -> None:
        """Finish what waits, seal the log and close every connection; a second call does nothing."""
        if self._writer is not None:
            self._writer.close()
        self._readers.dispose()
        self._closing()

    def _need_writer(self) -> Writer:
        if self._writer is None:
            raise Unavailable(
                "This process only reads the ledger.",
                why="Exactly one process writes to it.",
                mend="Send the change to the running server.",
            )
        return self._writer


def backend_of(where: Path | str) -> Backend:
    """Return the database behind a path or a URL; MissingExtra where PostgreSQL's driver is not installed."""
    if isinstance(where, Path):
        return SqliteBackend(where)
    # Imported here: a ledger in a file needs no driver.
    from holdtrue.storage.ledger.postgres_writer import PostgresBackend

    return PostgresBackend(where)
