"""Use cases of scorers. Their text may hold code: it is kept and given back, and never run or parsed here."""

import uuid

import sqlalchemy as sa

from holdtrue.core.errors import InvalidInput
from holdtrue.storage.ledger import Transaction
from holdtrue.tracking import rules, service
from holdtrue.tracking.model import NotActive
from holdtrue.tracking.scorers import store
from holdtrue.tracking.scorers.model import BODY_LENGTH, NAME_LENGTH, NoScorer, Scorer


def register(tx: Transaction, experiment: int, name: str, body: str) -> Scorer:
    """Register the next version of a scorer in an active experiment."""
    rules.check_text(name, "name of a scorer")
    if not name.strip() or len(name) > NAME_LENGTH:
        raise InvalidInput(f"The name of a scorer has 1 to {NAME_LENGTH} signs.")
    if len(body) > BODY_LENGTH:
        raise InvalidInput(f"A scorer has at most {BODY_LENGTH} signs.")
    _need_active(tx.connection, tx.project, experiment)
    if experiment == 0:
        service.ensure_default(tx)
    known = store.select(tx.connection, tx.project, experiment, name)
    own = known[-1].id if known else str(uuid.uuid4())
    number = known[-1].version + 1 if known else 1
    made = Scorer(own, experiment, name, number, body, service.milliseconds(tx))
    store.insert(tx, made)
    tx.emit("scorer.registered", f"experiment:{experiment}", {"name": name, "version": number})
    return made


def newest(connection: sa.Connection, project: str, experiment: int) -> list[Scorer]:
    """Return the newest version of each scorer of an experiment, by name."""
    _need_active(connection, project, experiment)
    return list({each.name: each for each in store.select(connection, project, experiment)}.values())


def versions(connection: sa.Connection, project: str, experiment: int, name: str) -> list[Scorer]:
    """Return all versions of a scorer, the oldest first; raise NoScorer."""
    _need_active(connection, project, experiment)
    found = store.select(connection, project, experiment, name)
    if not found:
        raise NoScorer.named(experiment, name)
    return found


def find(connection: sa.Connection, project: str, experiment: int, name: str, version: int | None) -> Scorer:
    """Return a version of a scorer, the newest where none is named; raise NoScorer."""
    found = versions(connection, project, experiment, name)
    if version is None:
        return found[-1]
    for each in found:
        if each.version == version:
            return each
    raise NoScorer.named(experiment, name, version)


def delete(tx: Transaction, experiment: int, name: str, version: int | None) -> None:
    """Remove a version of a scorer, or all of them; raise NoScorer."""
    _need_active(tx.connection, tx.project, experiment)
    gone = store.delete(tx, experiment, name, version)
    if not gone:
        raise NoScorer.named(experiment, name, version)
    tx.emit("scorer.deleted", f"experiment:{experiment}", {"name": name, "versions": gone})


def _need_active(connection: sa.Connection, project: str, experiment: int) -> None:
    found = service.find_experiment(connection, project, id=experiment)
    if found.lifecycle != "active":
        raise NotActive(
            f"The experiment {experiment} must be in the 'active' state. Current state is deleted.",
            mend="Restore it, or use another one.",
        )
