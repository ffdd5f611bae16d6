"""All SQL of this room: declared datasets and quarantines."""

import dataclasses
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from holdtrue.data.model import Quarantine, QuarantineState
from holdtrue.storage.ledger import Timestamp, Transaction, project_table, scoped

datasets = project_table(
    "datasets",
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("spec", sa.JSON, nullable=False),
    sa.Column("declared_at", Timestamp, nullable=False),
)

quarantines = project_table(
    "quarantines",
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("dataset", sa.Text, nullable=False),
    sa.Column("window", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("blocked", sa.Boolean, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("blob", sa.Text),
    sa.Column("findings", sa.JSON, nullable=False),
    sa.Column("opened_at", Timestamp, nullable=False),
    sa.Column("closed_at", Timestamp),
    sa.Column("mended_by", sa.Text),
    sa.Index(None, "project", "dataset", "window"),
)


def put_dataset(tx: Transaction, name: str, spec: Any) -> None:
    """Set a dataset's declaration."""
    project = tx.project
    tx.execute(sa.delete(datasets).where(datasets.c.project == project, datasets.c.name == name))
    tx.execute(sa.insert(datasets).values(project=project, name=name, spec=spec, declared_at=tx.now))


def drop_dataset(tx: Transaction, name: str) -> bool:
    """Forget a dataset's declaration; tell whether there was one."""
    gone = sa.delete(datasets).where(datasets.c.project == tx.project, datasets.c.name == name)
    return bool(tx.execute(gone).rowcount)


def dataset_spec(connection: sa.Connection, project: str, name: str) -> Any | None:
    """Return a dataset's declaration as JSON."""
    row = connection.execute(scoped(datasets, project).where(datasets.c.name == name)).first()
    return None if row is None else row.spec


def dataset_names(connection: sa.Connection, project: str) -> list[str]:
    """Return the names of all declared datasets."""
    rows = connection.execute(scoped(datasets, project).order_by(datasets.c.name))
    return [row.name for row in rows]


def insert_quarantine(tx: Transaction, quarantine: Quarantine) -> None:
    """Add a quarantine."""
    values = {each.name: getattr(quarantine, each.name) for each in dataclasses.fields(quarantine)}
    values["state"] = quarantine.state.value
    values["findings"] = list(quarantine.findings)
    tx.execute(sa.insert(quarantines).values(**values))


def quarantine(connection: sa.Connection, project: str, id: str) -> Quarantine | None:
    """Return a quarantine."""
    row = connection.execute(scoped(quarantines, project).where(quarantines.c.id == id)).first()
    return None if row is None else _quarantine(row)


def close_quarantine(tx: Transaction, id: str, state: QuarantineState, mended_by: str | None) -> None:
    """Move a quarantine to its end."""
    tx.execute(
        sa.update(quarantines)
        .where(quarantines.c.project == tx.project, quarantines.c.id == id)
        .values(state=state.value, closed_at=tx.now, mended_by=mended_by)
    )


def replace_quarantined(tx: Transaction, id: str, blob: str, rows: int) -> None:
    """Let a quarantine hold other rows: those that it held without an erased entity's."""
    tx.execute(
        sa.update(quarantines)
        .where(quarantines.c.project == tx.project, quarantines.c.id == id)
        .values(blob=blob, rows=rows)
    )


def set_findings(tx: Transaction, id: str, findings: list[Any]) -> None:
    """Let a quarantine tell its findings with other examples."""
    tx.execute(
        sa.update(quarantines)
        .where(quarantines.c.project == tx.project, quarantines.c.id == id)
        .values(findings=findings)
    )


def list_quarantines(
    connection: sa.Connection,
    project: str,
    *,
    dataset: str | None = None,
    window: str | None = None,
    state: QuarantineState | None = None,
) -> list[Quarantine]:
    """Return quarantines, oldest first."""
    query = scoped(quarantines, project).order_by(quarantines.c.opened_at, quarantines.c.id)
    if dataset is not None:
        query = query.where(quarantines.c.dataset == dataset)
    if window is not None:
        query = query.where(quarantines.c.window == window)
    if state is not None:
        query = query.where(quarantines.c.state == state.value)
    return [_quarantine(row) for row in connection.execute(query)]


def _quarantine(row: sa.Row[Any]) -> Quarantine:
    closed: datetime | None = row.closed_at
    return Quarantine(
        id=row.id,
        project=row.project,
        dataset=row.dataset,
        window=row.window,
        state=QuarantineState(row.state),
        blocked=row.blocked,
        rows=row.rows,
        blob=row.blob,
        findings=tuple(row.findings),
        opened_at=row.opened_at,
        closed_at=closed,
        mended_by=row.mended_by,
    )
