"""The ledger: SQL state and the event log, changed together, durable when a write returns."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy import exc

from holdtrue.core.actor import SYSTEM
from holdtrue.core.clock import Clock
from holdtrue.core.errors import HoldtrueError, StorageFull, Unavailable
from holdtrue.storage.ledger import database as files
from holdtrue.storage.ledger.checkpoints import load
from holdtrue.storage.ledger.events import Event, EventFilter, select_events
from holdtrue.storage.ledger.notes import load_signer
from holdtrue.storage.ledger.transaction import Transaction, WriteContext
from holdtrue.storage.ledger.writer import Writer

T = TypeVar("T")


class Ledger:
    """Read the SQL state from many threads; write it through one, with group commit."""

    def __init__(self, path: Path, readers: sa.Engine, writer: Writer | None, closing: Callable[[], None]) -> None:
        self.path = path
        self._readers = readers
        self._writer = writer
        self._closing = closing

    @classmethod
    def open(
        cls, path: Path, *, clock: Clock, keys: Path, writer: bool = True, anchors: Path | None = None
    ) -> "Ledger":
        """Open the ledger at `path`, as its only writer unless `writer` is False.

        A writer makes the file and the signing key in `keys` when they are missing, brings the schema
        up to date after a backup, and appends each checkpoint to the file `anchors`, best kept outside
        the data folder. The tables of every room must be imported by then. Raises NewerSchema for a
        database of a newer version, Corrupt for one that was altered, StorageFull, and
        ConfigurationError for a missing key.
        """
        if writer:
            return cls._open_writer(path, clock, keys, anchors)
        files.must_exist(path)
        probe = files.connect_reader(path)
        try:
            found = files.revision(probe, path)
        finally:
            probe.close()
        if found != files.HEAD:
            raise Unavailable(
                f"The ledger {path} has an older schema than this version reads.",
                why=f"Its schema is “{found}”, this version's is “{files.HEAD}”.",
                mend="Start `holdtrue up` once: it brings the ledger up to date after a backup.",
            )
        return cls(path, files.reader_engine(path), None, lambda: None)

    @classmethod
    def _open_writer(cls, path: Path, clock: Clock, keys: Path, anchors: Path | None) -> "Ledger":
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = files.connect_writer(path)
        try:
            fresh = files.revision(database, path) is None
            signer = load_signer(keys, fresh=fresh)
            connection = files.writer_engine(database).connect()
            files.migrate(database, connection, path, clock)
            head, checkpointer = load(connection, signer, anchors, clock.now())
        except BaseException as error:
            database.close()
            if files.is_full(error):
                raise _no_room(error, path) from error
            raise
        checkpointer.anchor()
        thread = Writer(connection, database, clock, head, checkpointer)
        return cls(path, files.reader_engine(path), thread, database.close)

    def write(self, context: WriteContext, work: Callable[[Transaction], T]) -> T:
        """Run `work` in a transaction and return its result once that is durable.

        An exception in `work` undoes it and is raised here; others are not touched. With an
        idempotency key in the context a repeated request gets the stored answer in its JSON form.
        Raises StorageFull, Unavailable, IdempotencyMismatch.
        """
        return self._need_writer().submit(context, work).result()

    async def write_async(self, context: WriteContext, work: Callable[[Transaction], T]) -> T:
        """Do as `write` does, without blocking the event loop or holding a thread."""
        return await asyncio.wrap_future(self._need_writer().submit(context, work))

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` on a read-only connection that sees one consistent, committed state.

        Raises Corrupt for a damaged file and Unavailable when all connections stay in use.
        """
        try:
            with self._readers.connect() as connection:
                return work(connection)
        except exc.TimeoutError as error:
            raise Unavailable(
                "Too many readers use the ledger.", why="All connections are taken.", mend="Try again in a moment."
            ) from error
        except exc.DatabaseError as error:
            if files.is_damage(error):
                raise files.unreadable(self.path, error) from error
            raise

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


def _no_room(error: BaseException, path: Path) -> StorageFull:
    return StorageFull(
        f"There is no room to open the ledger {path}.",
        why=f"{error}.",
        mend="Make room on the disk of the data folder and start again.",
    )
