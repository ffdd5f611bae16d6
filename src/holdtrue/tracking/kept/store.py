"""SQL of batches of metrics that are kept as they came until they are settled."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import orjson
import sqlalchemy as sa

from holdtrue.storage.ledger import Transaction, prepare, prepare_insert, project_table, settled_by
from holdtrue.tracking.model import Metric
from holdtrue.tracking.store import add_metrics

Points: TypeAlias = tuple[int, int, Sequence[Metric]]
"""A run's number, its experiment and metrics of it."""

# The body is a JSON array of columns.
metric_batches = project_table(
    "metric_batches",
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("run", sa.BigInteger, nullable=False),
    sa.Column("experiment", sa.BigInteger, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)

_KEEP = prepare_insert(metric_batches, lambda statement: statement)
_KEPT = prepare(sa.select(metric_batches).order_by(metric_batches.c.number))
_LAST = prepare(sa.select(sa.func.max(metric_batches.c.number)))
_CLEAR = prepare(sa.delete(metric_batches))


def keep(tx: Transaction, points: Sequence[Points]) -> None:
    """Keep points as they came, a row for each batch; they are added before anything else is written or read."""
    last = tx.memory.get(metric_batches)
    if last is None:
        last = tx.rows(_LAST)[0][0] or 0
    rows: list[tuple[Any, ...]] = []
    for number, batch in enumerate(points, last + 1):
        run, experiment, metrics = batch
        rows.append((tx.project, number, run, experiment, orjson.dumps(tuple(zip(*metrics, strict=True)))))
        tx.owe(metric_batches, len(metrics), (tx.project, batch))
    tx.memory[metric_batches] = last + len(rows)
    tx.many(_KEEP, rows)


def _settle(tx: Transaction, items: Sequence[tuple[str, Points]] | None) -> None:
    """Add the points of all batches that are kept, in the order in which they came."""
    of_projects: dict[str, list[Points]] = {}
    for project, points in _read(tx) if items is None else items:
        of_projects.setdefault(project, []).append(points)
    for project, several in of_projects.items():
        add_metrics(tx, project, several)
    tx.rows(_CLEAR)


def _read(tx: Transaction) -> list[tuple[str, Points]]:
    return [
        (project, (run, experiment, [Metric(*each) for each in zip(*orjson.loads(body), strict=True)]))
        for project, _, run, experiment, body in tx.rows(_KEPT)
    ]


settled_by(metric_batches, _settle)
