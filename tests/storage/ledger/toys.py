"""A plain table for tests of the ledger, and the work they do on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from holdtrue.core.access import Role
from holdtrue.core.actor import SYSTEM, Actor
from holdtrue.storage.ledger import Ledger, Transaction, WriteContext
from holdtrue.storage.ledger.verify import Verification, verify

ANN = Actor("usr_ann", "human", "Ann", frozenset({Role.DEVELOPER}))
ROBOT = Actor("svc_1", "service", "robot", frozenset({Role.SERVICE}), "flights", created_by="usr_ann")
CONTEXT = WriteContext(ANN, "flights", request_id="req_1")


def make_table(ledger: Ledger) -> None:
    """Create the table `toys`, which no room knows."""
    statement = "CREATE TABLE IF NOT EXISTS toys (key TEXT NOT NULL, value TEXT)"
    ledger.write(WriteContext(SYSTEM, ""), lambda tx: tx.connection.exec_driver_sql(statement) and None)


def put(key: str, value: str = "") -> Callable[[Transaction], int]:
    """Return work that inserts a row and tells of it; its result is the event's sequence number."""

    def work(tx: Transaction) -> int:
        tx.execute(sa.text("INSERT INTO toys VALUES (:key, :value)"), {"key": key, "value": value})
        return tx.emit("toy.put", key, {"value": value}).seq

    return work


def rows(ledger: Ledger) -> list[Any]:
    """Return all rows in the order they came."""
    return ledger.read(lambda connection: list(connection.execute(sa.text("SELECT * FROM toys ORDER BY rowid"))))


def keys(ledger: Ledger) -> list[str]:
    """Return the keys of all rows in the order they came."""
    return [row.key for row in rows(ledger)]


def check(folder: Path, *, anchors: Path | None = None) -> Verification:
    """Verify the ledger in `folder` with its public key."""
    return verify(folder / "ledger.db", (folder / "keys" / "ledger.pub").read_text(), anchors=anchors)
