"""A ledger transaction: changes, and the events that tell of them, or neither."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import sqlalchemy as sa

from holdtrue.core.actor import Actor
from holdtrue.core.canonical import Json, content_hash
from holdtrue.core.codec import dump
from holdtrue.core.errors import NotFound
from holdtrue.storage.ledger.events import Draft, Event, Head, append
from holdtrue.storage.ledger.statements import Prepared
from holdtrue.storage.ledger.tables import ERASED, payloads

if TYPE_CHECKING:
    from holdtrue.storage.ledger.backend import WritingConnection

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WriteContext:
    """State who writes, in which project ("" for the whole house), and for which request.

    With an idempotency key, `request_digest` is the hash of what was asked for.
    """

    actor: Actor
    project: str
    request_id: str = ""
    idempotency_key: str | None = None
    request_digest: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Joint(Generic[T]):
    """Work that is done for many jobs at once, where many wait: `together` gets the items of all of them.

    It answers each with None or with the error that refuses this one, of which nothing was written. It only touches
    SQL and emits no event; it may be run twice, after the first was undone.

    Work that `owes` only keeps what came, and tells by `Transaction.owe` what is to be written for it later.
    """

    item: T
    together: "Callable[[Transaction, Sequence[T]], Sequence[Exception | None]]"
    owes: bool = False

    def __call__(self, tx: "Transaction") -> None:
        """Do it for this item alone."""
        (refusal,) = self.together(tx, [self.item])
        if refusal is not None:
            raise refusal


class Owed(NamedTuple):
    """Hold what one row of `table` was made of and will be settled to; None where only the row has it."""

    table: sa.Table
    rows: int
    item: Any


class Transaction:
    """Let one piece of work change tables and append events; both become durable together.

    Work runs on the ledger's only writing thread: it computes and touches SQL, and never waits for
    the network, another thread, or the ledger itself. Commit and rollback are the ledger's.

    `memory` is for joint work: what it looked up holds for the joint work after it, until any other work has run.
    """

    def __init__(
        self,
        context: WriteContext,
        database: "WritingConnection",
        head: Head,
        memory: dict[Any, Any] | None = None,
    ) -> None:
        self.context = context
        self.memory: dict[Any, Any] = {} if memory is None else memory
        self.connection = database.sql
        self.head = head
        self.sealed = False
        self.scrubbed = False
        self.owed: list[Owed] = []
        self.actions: set[str] = set()
        self._database = database
        self._now: datetime | None = None

    def begin(self, now: datetime) -> None:
        """Set the moment at which the work happens."""
        self._now = now

    @property
    def now(self) -> datetime:
        """Return the moment at which this transaction happens, the same all through it."""
        assert self._now is not None
        return self._now

    @property
    def project(self) -> str:
        """Return the project in whose name this transaction writes."""
        return self.context.project

    def execute(self, statement: sa.Executable, parameters: Any = None) -> sa.CursorResult[Any]:
        """Run a statement on the writing connection."""
        result = self.connection.execute(statement, parameters)
        assert isinstance(result, sa.CursorResult)
        return result

    def many(self, statement: Prepared, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run a prepared statement once for each row of values."""
        self._database.many(statement, rows)

    def rows(self, statement: Prepared, *values: Any) -> list[tuple[Any, ...]]:
        """Run a prepared statement and return its rows."""
        return self._database.rows(statement, values)

    def emit(
        self,
        action: str,
        object: str,
        payload: Any = None,
        *,
        before: Any = None,
        after: Any = None,
        reason: str = "",
    ) -> Event:
        """Append an event to the log, in this transaction.

        `action` is “noun.verb”, `object` the id it happened to. `before` and `after` are digests or
        ids; any other JSON value is kept as its content hash. `payload` is JSON or a dataclass; it
        and the reason stand outside the hashed entry, which only commits to them.
        """
        draft = Draft(
            time=self.now,
            project=self.context.project,
            actor=self.context.actor,
            action=action,
            object=object,
            before=_digest(before),
            after=_digest(after),
            payload=_plain(payload),
            reason=reason,
            request_id=self.context.request_id,
        )
        self.head, event = append(self._database, self.head, draft)
        self.actions.add(action)
        return event

    def owe(self, table: sa.Table, rows: int, item: Any) -> None:
        """Tell that a row of `table` now keeps `item`, which will be so many rows once it is settled."""
        self.owed.append(Owed(table, rows, item))

    def seal(self) -> None:
        """Ask for a signed checkpoint in this commit, as after an approval or a promotion."""
        self.sealed = True

    def scrub(self) -> None:
        """Ask that what was deleted, in this commit or before, leaves nothing in the database's files."""
        self.scrubbed = True

    def erase(self, seq: int, *, reason: str) -> Event:
        """Erase the payload and salt of event `seq` of this project; a tombstone event tells of it.

        The erased event stays in the log and every proof stays valid. An unknown or already erased
        event raises NotFound.
        """
        mine = (payloads.c.seq == seq) & (payloads.c.project == self.context.project)
        if self.connection.execute(sa.select(payloads.c.seq).where(mine)).first() is None:
            raise NotFound.of("event payload", str(seq))
        tombstone = self.emit(ERASED, f"event:{seq}", reason=reason)
        self.connection.execute(sa.delete(payloads).where(mine))
        return tombstone


def _plain(value: Any) -> Json:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return dump(value) if is_dataclass(value) else value


def _digest(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else content_hash(_plain(value))
