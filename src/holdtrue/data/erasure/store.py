"""All SQL of erasures: the list of the erased, and the blobs that held their rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from holdtrue.data.erasure.model import ErasedBlob, Erasure, State
from holdtrue.storage.ledger import Timestamp, Transaction, project_table, scoped

_erasures = project_table(
    "erasures",
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("mark", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("found", sa.JSON, nullable=False),
    sa.Column("requested_at", Timestamp, nullable=False),
    sa.Column("requested_by", sa.Text, nullable=False),
    sa.Column("finished_at", Timestamp),
    sa.UniqueConstraint("project", "mark"),
)

_blobs = project_table(
    "erased_blobs",
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("erasure", sa.Text, primary_key=True),
    sa.Column("dataset", sa.Text, nullable=False),
    sa.Column("window", sa.Text, nullable=False),
    sa.Column("replacement", sa.Text, nullable=False),
)


def request(tx: Transaction, erasure: Erasure) -> None:
    """Put an entity on the list."""
    tx.execute(
        sa.insert(_erasures).values(
            project=erasure.project,
            id=erasure.id,
            name=erasure.column,
            mark=erasure.mark,
            state=erasure.state.value,
            found=dict(erasure.found),
            requested_at=erasure.requested_at,
            requested_by=erasure.requested_by,
        )
    )


def progress(tx: Transaction, id: str, found: Mapping[str, Any]) -> None:
    """Note what the parts that are done found."""
    _set(tx, id, found=dict(found))


def finish(tx: Transaction, id: str, found: Mapping[str, Any], state: State = State.DONE) -> None:
    """Note that all parts are done, or that they are to be done again."""
    _set(tx, id, found=dict(found), state=state.value, finished_at=tx.now if state is State.DONE else None)


def _set(tx: Transaction, id: str, **values: Any) -> None:
    mine = (_erasures.c.project == tx.project) & (_erasures.c.id == id)
    tx.execute(sa.update(_erasures).where(mine).values(**values))


def erasure_of(connection: sa.Connection, project: str, mark: str) -> Erasure | None:
    """Return the erasure of a mark, or None."""
    row = connection.execute(scoped(_erasures, project).where(_erasures.c.mark == mark)).first()
    return None if row is None else _erasure(row)


def erasures(connection: sa.Connection, project: str) -> list[Erasure]:
    """Return all erasures of a project, the oldest first."""
    rows = connection.execute(scoped(_erasures, project).order_by(_erasures.c.requested_at, _erasures.c.id))
    return [_erasure(row) for row in rows]


def add_blobs(tx: Transaction, blobs: Sequence[ErasedBlob]) -> None:
    """Note which blobs held rows of an erased entity; those that are known stay as they are."""
    for each in blobs:
        mine = (_blobs.c.project == tx.project) & (_blobs.c.digest == each.digest) & (_blobs.c.erasure == each.erasure)
        if tx.execute(sa.select(_blobs.c.digest).where(mine)).first() is None:
            tx.execute(
                sa.insert(_blobs).values(
                    project=tx.project,
                    digest=each.digest,
                    erasure=each.erasure,
                    dataset=each.dataset,
                    window=each.window,
                    replacement=each.replacement,
                )
            )


def blobs_of(connection: sa.Connection, project: str, erasure: str) -> list[ErasedBlob]:
    """Return the blobs that held rows of one erased entity."""
    query = scoped(_blobs, project).where(_blobs.c.erasure == erasure).order_by(_blobs.c.digest)
    return [_blob(row) for row in connection.execute(query)]


def erased_blobs(connection: sa.Connection, project: str) -> dict[str, ErasedBlob]:
    """Return what is known of each blob that held an erased entity, by its digest."""
    return {row.digest: _blob(row) for row in connection.execute(scoped(_blobs, project))}


def collectable(connection: sa.Connection) -> dict[str, set[str]]:
    """Return the digests of blobs that held erased entities, by project."""
    found: dict[str, set[str]] = {}
    for row in connection.execute(sa.select(_blobs.c.project, _blobs.c.digest)):
        found.setdefault(row.project, set()).add(row.digest)
    return found


def _erasure(row: sa.Row[Any]) -> Erasure:
    return Erasure(
        id=row.id,
        project=row.project,
        column=row.name,
        mark=row.mark,
        state=State(row.state),
        found=dict(row.found),
        requested_at=row.requested_at,
        requested_by=row.requested_by,
        finished_at=row.finished_at,
    )


def _blob(row: sa.Row[Any]) -> ErasedBlob:
    return ErasedBlob(row.digest, row.erasure, row.dataset, row.window, row.replacement)
