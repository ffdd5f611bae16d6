"""What is kept as it came and brought into its tables a little later, before anybody looks.

Joint work that owes writes one row where it would change a thousand, and is answered once that is durable. What it owes
is settled before any other work runs and before anything is read, once nobody has written for a moment, when it grows,
before the ledger is closed, and after a crash by the next start: so no one can tell, but by the time it took.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa

from holdtrue.core.actor import SYSTEM
from holdtrue.storage.ledger.tables import metadata
from holdtrue.storage.ledger.transaction import Owed, Transaction, WriteContext

MOST = 10_000
"""How much may be owed: to settle so many rows takes some 30 ms, for which somebody waits."""

IDLE_SECONDS = 0.05
"""How long nobody writes before it is settled."""

RETRY_SECONDS = 5.0
"""How long it is left alone when it could not be settled, as on a full disk."""

HOUSE = WriteContext(SYSTEM, "")


Settle: TypeAlias = Callable[[Transaction, Sequence[Any] | None], None]


def settled_by(table: sa.Table, settle: Settle) -> None:
    """Declare that the rows of `table` are owed: `settle` works off those of all projects and removes them.

    It gets what each row was made of, in the order in which they came, or None if it has to read them.
    """
    table.info["settle"] = settle


def left(connection: sa.Connection) -> list[Owed]:
    """Return what a process that was killed left owed."""
    found: list[Owed] = []
    for table in metadata.tables.values():
        if "settle" in table.info:
            rows = connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            found += [Owed(table, rows, None)] if rows else []
    return found


def settle(tx: Transaction, owed: Sequence[Owed]) -> None:
    """Work off all that is owed."""
    for table in {each.table for each in owed}:
        items = [each.item for each in owed if each.table is table]
        table.info["settle"](tx, None if None in items else items)


def grown(owed: Sequence[Owed]) -> bool:
    """Tell whether so much is owed that it has to be settled now."""
    return sum(each.rows for each in owed) >= MOST


def nothing(tx: Transaction) -> None:
    """Do nothing: as any work that is not joint, it comes after what is owed."""
