"""A plain table for tests of the ledger, and the work they do on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from holdtrue.core.access import Role
from holdtrue.core.actor import SYSTEM, Actor
from holdtrue.storage.ledger import Ledger, Transaction, WriteContext
from holdtrue.storage.ledger.verify import Verification, verify

ANN = Actor("usr_ann", "human", "Ann", frozenset({Role.DEVELOPER}))
ROBOT = Actor("svc_1", "service", "robot", frozenset({Role.SERVICE}), "flights", created_by="usr_ann")
CONTEXT = WriteContext(ANN, "flights", request_id="req_1")

FILES, BOTH = ("sqlite",), ("sqlite", "postgresql")
URL = "database.url"

F = TypeVar("F", bound=Callable[..., None])


def about_files(test: F) -> F:
    """Mark a test of what only a file can be or suffer."""
    test.places = FILES  # pyright: ignore[reportFunctionMemberAccess]
    return test


def place_of(folder: Path) -> Path | str:
    """Return where the ledger of a test's folder is."""
    named = folder / URL
    return named.read_text() if named.exists() else folder / "ledger.db"


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

    def work(connection: sa.Connection) -> list[Any]:
        came = "rowid" if connection.dialect.name == "sqlite" else "ctid"
        return list(connection.execute(sa.select(sa.text("*")).select_from(sa.text("toys")).order_by(sa.text(came))))

    return ledger.read(work)


def keys(ledger: Ledger) -> list[str]:
    """Return the keys of all rows in the order they came."""
    return [row.key for row in rows(ledger)]


def check(folder: Path, *, anchors: Path | None = None) -> Verification:
    """Verify the ledger in `folder` with its public key."""
    return verify(place_of(folder), (folder / "keys" / "ledger.pub").read_text(), anchors=anchors)
