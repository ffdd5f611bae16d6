"""SQL of scorers."""

from typing import Any

import sqlalchemy as sa

from holdtrue.storage.ledger import Transaction, project_table, scoped
from holdtrue.tracking.scorers.model import Scorer

scorers = project_table(
    "scorers",
    sa.Column("experiment", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
)


def insert(tx: Transaction, row: Scorer) -> None:
    """Insert a version."""
    tx.execute(
        sa.insert(scorers).values(
            project=tx.project,
            experiment=row.experiment,
            name=row.name,
            version=row.version,
            id=row.id,
            body=row.body,
            created_ms=row.created_ms,
        )
    )


def select(connection: sa.Connection, project: str, experiment: int, name: str | None = None) -> list[Scorer]:
    """Return versions in an experiment by name, the oldest of each first."""
    query = scoped(scorers, project).where(scorers.c.experiment == experiment)
    query = query if name is None else query.where(scorers.c.name == name)
    return [_scorer(row) for row in connection.execute(query.order_by(scorers.c.name, scorers.c.version))]


def delete(tx: Transaction, experiment: int, name: str, version: int | None) -> int:
    """Remove a version, or all of a name; return how many went."""
    mine = (scorers.c.project == tx.project) & (scorers.c.experiment == experiment) & (scorers.c.name == name)
    if version is not None:
        mine &= scorers.c.version == version
    return tx.execute(sa.delete(scorers).where(mine)).rowcount


def _scorer(row: Any) -> Scorer:
    return Scorer(row.id, row.experiment, row.name, row.version, row.body, row.created_ms)
