"""Retention: deleted runs go for good after a time, a batch to a transaction, so that nobody waits for it.

Uploads in parts that nobody finished go after a day: their parts are then named by nothing, and collected as such.
"""

from dataclasses import dataclass, replace
from datetime import timedelta

from holdtrue.core.actor import SYSTEM
from holdtrue.core.errors import InvalidInput
from holdtrue.storage.ledger import Ledger, Transaction, WriteContext
from holdtrue.storage.stores import Stores
from holdtrue.tracking import artifacts, service, store

BATCH = 5_000
ABANDONED = timedelta(days=1)
"""How long an upload in parts may take."""


@dataclass(frozen=True, slots=True)
class Removed:
    """Tell how much went, and whether more is due."""

    runs: int
    points: int
    more: bool
    uploads: int = 0


def remove_deleted(ledger: Ledger, context: WriteContext, days: int, most: int) -> Removed:
    """Remove runs deleted at least `days` days ago with all their points, up to `most` points in this call."""
    if days < 0 or most < 1:
        raise InvalidInput("Retention takes a number of days, 0 or more, and of points, 1 or more.")
    # Each batch is a change of its own, and so has no idempotency key: removing again removes nothing twice.
    plain = replace(context, idempotency_key=None, request_digest=None)
    runs = points = 0
    while points < most:
        gone_run, gone_points = ledger.write(plain, lambda tx: _batch(tx, days))
        runs, points = runs + gone_run, points + gone_points
        if not gone_run and not gone_points:
            return Removed(runs, points, more=False, uploads=ledger.write(plain, _forget_uploads))
    return Removed(runs, points, more=True)


def _batch(tx: Transaction, days: int) -> tuple[int, int]:
    """Remove one batch of points, or a run that has none left; return runs and points removed."""
    before = service.milliseconds(tx) - int(timedelta(days=days).total_seconds() * 1000)
    due = store.deleted_runs(tx.connection, tx.project, before, 1)
    if not due:
        return 0, 0
    gone = store.erase_points(tx, due[0].number, BATCH)
    if gone == BATCH:
        return 0, gone
    store.erase_run(tx, due[0].number)
    tx.emit("run.erased", due[0].id, {"deleted_for_days": days})
    return 1, gone


def forget_abandoned(stores: Stores, project: str) -> int:
    """Forget the uploads in parts of a project that nobody finished within a day; return how many."""
    before = int((stores.clock.now() - ABANDONED).timestamp() * 1000)
    if not stores.ledger.read(lambda c: artifacts.abandoned(c, project, before)):
        return 0
    return stores.ledger.write(WriteContext(actor=SYSTEM, project=project), _forget_uploads)


def _forget_uploads(tx: Transaction) -> int:
    due = artifacts.abandoned(
        tx.connection, tx.project, service.milliseconds(tx) - ABANDONED // timedelta(milliseconds=1)
    )
    for each in due:
        artifacts.end_upload(tx, each)
        tx.emit("upload.abandoned", f"upload:{each}")
    return len(due)
