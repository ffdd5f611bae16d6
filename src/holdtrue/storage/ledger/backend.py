"""What the ledger asks of a database: one connection that writes, many that read, and what its errors mean."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import sqlalchemy as sa

from holdtrue.core.clock import Clock
from holdtrue.core.errors import HoldtrueError
from holdtrue.storage.ledger.events import Head
from holdtrue.storage.ledger.statements import Prepared


class WritingConnection(Protocol):
    """The one connection through which a ledger is written; all its methods run on one thread at a time."""

    errors: ClassVar[tuple[type[Exception], ...]]

    @property
    def sql(self) -> sa.Connection:
        """Return the connection for SQLAlchemy, which neither begins nor commits on it."""
        ...

    @property
    def in_transaction(self) -> bool:
        """Tell whether the transaction that was begun can still be committed or rolled back."""
        ...

    def revision(self) -> str | None:
        """Return the schema's revision, None when the database is empty; Corrupt if it is no ledger."""
        ...

    def migrate(self, clock: Clock, backups: Path) -> None:
        """Bring the schema to this version's, in one transaction, after a backup into `backups` if there was one."""
        ...

    def begin(self, head: Head | None) -> None:
        """Open a transaction; raise Corrupt if another than this connection moved the log on from `head`."""
        ...

    def commit(self) -> None:
        """Make the transaction durable; return only when it is."""
        ...

    def rollback(self) -> None:
        """Undo the transaction."""
        ...

    def set_savepoint(self) -> None:
        """Mark the place to which one job may be undone."""
        ...

    def keep(self) -> None:
        """Keep what was done since the mark."""
        ...

    def undo(self) -> None:
        """Undo what was done since the mark."""
        ...

    def rows(self, statement: Prepared, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run a prepared statement and return its rows, none for one that only changes."""
        ...

    def many(self, statement: Prepared, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run a prepared statement once for each row of values."""
        ...

    def tend(self, jobs: int) -> None:
        """Do what is due from time to time after `jobs` more jobs were committed and answered."""
        ...

    def scrub(self) -> bool:
        """Leave nothing of what was deleted in the database's files; False if that has to be tried again."""
        ...

    def finish(self) -> None:
        """Do what is due before the last connection is closed."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...

    def is_fatal(self, error: BaseException) -> bool:
        """Tell whether no further job of this transaction may be tried."""
        ...

    def wrote_nothing(self, error: BaseException) -> bool:
        """Tell whether the lost transaction surely wrote nothing, so that the next one may be tried."""
        ...

    def refusal(self, error: BaseException) -> BaseException:
        """Return the error that a caller gets for `error`."""
        ...


class Backend(Protocol):
    """A database in which a ledger is, or can be made."""

    @property
    def name(self) -> str:
        """Return how messages call it; no secret is in it."""
        ...

    def open_writer(self) -> WritingConnection:
        """Open the one writing connection; Locked if another process has it."""
        ...

    def revision_to_read(self) -> str | None:
        """Return the revision as a reader finds it; NotFound if there is nothing to read."""
        ...

    def reader_engine(self) -> sa.Engine:
        """Make the pool of reading connections; each use sees one consistent snapshot."""
        ...

    def is_lost(self, error: BaseException) -> bool:
        """Tell whether a read failed because its connection broke, so that it may be tried on another."""
        ...

    def explain(self, error: BaseException) -> HoldtrueError | None:
        """Return what a database error means for whoever reads or opens the ledger; None if it is no such thing."""
        ...
