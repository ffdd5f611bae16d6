"""SQL of evaluation datasets."""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import sqlalchemy as sa

from holdtrue.core.filters import Condition, Order
from holdtrue.storage.ledger import Transaction, insert, key_of, project_table, scoped
from holdtrue.storage.ledger.querying import Term, compared, paged, values_of
from holdtrue.tracking.cases.model import CaseSet, Record
from holdtrue.tracking.model import Pair

_IN_ONE_QUERY = 500

evaluation_datasets = project_table(
    "evaluation_datasets",
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("schema", sa.Text, nullable=False),
    sa.Column("count", sa.BigInteger, nullable=False),
    # Grows only: the place of a record that went is never given again.
    sa.Column("last_number", sa.BigInteger, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("updated_ms", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("updated_by", sa.Text, nullable=False),
    sa.Index(None, "project", "created_ms"),
)

evaluation_tags = project_table(
    "evaluation_tags",
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    clustered=True,
)

evaluation_experiments = project_table(
    "evaluation_experiments",
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("experiment", sa.BigInteger, primary_key=True, autoincrement=False),
    clustered=True,
)

# The body is the JSON of what clients wrote.
evaluation_records = project_table(
    "evaluation_records",
    sa.Column("dataset", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("inputs_hash", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("updated_ms", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("updated_by", sa.Text, nullable=False),
    sa.UniqueConstraint("project", "dataset", "inputs_hash"),
)

_CHILDREN = (evaluation_tags, evaluation_experiments, evaluation_records)


def insert_set(tx: Transaction, row: CaseSet) -> None:
    """Insert a dataset with its tags and experiments."""
    tx.execute(
        sa.insert(evaluation_datasets).values(
            project=tx.project,
            id=row.id,
            name=row.name,
            digest=row.digest,
            schema="",
            count=0,
            last_number=0,
            created_ms=row.created_ms,
            updated_ms=row.updated_ms,
            created_by=row.created_by,
            updated_by=row.updated_by,
        )
    )
    put_tags(tx, row.id, row.tags)
    link(tx, row.id, row.experiments)


def change_set(tx: Transaction, id: str, **values: Any) -> None:
    """Change columns of a dataset."""
    mine = (evaluation_datasets.c.project == tx.project) & (evaluation_datasets.c.id == id)
    tx.execute(sa.update(evaluation_datasets).where(mine).values(**values))


def take_numbers(tx: Transaction, id: str, count: int) -> int:
    """Return the first of so many places for new records."""
    mine = (evaluation_datasets.c.project == tx.project) & (evaluation_datasets.c.id == id)
    last = int(tx.execute(sa.select(evaluation_datasets.c.last_number).where(mine)).scalar_one())
    change_set(tx, id, last_number=last + count)
    return last + 1


def delete_set(tx: Transaction, id: str) -> bool:
    """Remove a dataset with all that is kept with it; tell whether it was there."""
    for table in _CHILDREN:
        tx.execute(sa.delete(table).where(table.c.project == tx.project, table.c.dataset == id))
    mine = (evaluation_datasets.c.project == tx.project) & (evaluation_datasets.c.id == id)
    return tx.execute(sa.delete(evaluation_datasets).where(mine)).rowcount > 0


def select_set(connection: sa.Connection, project: str, id: str) -> CaseSet | None:
    """Return a dataset, or None."""
    rows = connection.execute(scoped(evaluation_datasets, project).where(evaluation_datasets.c.id == id)).fetchall()
    return _sets(connection, project, rows)[0] if rows else None


def search(
    connection: sa.Connection,
    project: str,
    experiments: Sequence[int],
    conditions: Sequence[Condition],
    orders: Sequence[Order],
    limit: int,
    after: list[Any] | None,
) -> tuple[list[CaseSet], list[Any] | None]:
    """Return a page of datasets, and the place of the last one if more follow."""
    table, links = evaluation_datasets, evaluation_experiments
    query = scoped(table, project)
    if experiments:
        linked = sa.select(links.c.dataset).where(links.c.project == project, links.c.experiment.in_(experiments))
        query = query.where(table.c.id.in_(linked))
    for condition in conditions:
        query = query.where(_matches(project, condition))
    terms = [Term(table.c[order.subject.key], order.ascending) for order in orders]
    if not terms:
        terms = [Term(table.c.created_ms, ascending=False)]
    terms.append(Term(table.c.id, ascending=True))
    rows = connection.execute(paged(query, terms, after, limit + 1)).fetchall()
    return _sets(connection, project, rows[:limit]), values_of(rows[limit - 1]) if len(rows) > limit else None


def _matches(project: str, condition: Condition) -> sa.ColumnElement[bool]:
    if condition.subject.entity == "attribute":
        return compared(evaluation_datasets.c[condition.subject.key], condition)
    table = evaluation_tags
    query = sa.select(sa.literal(1)).where(
        table.c.project == project,
        table.c.dataset == evaluation_datasets.c.id,
        table.c.key == condition.subject.key,
    )
    query = query.correlate(evaluation_datasets)
    if condition.operator == "IS NULL":
        return ~query.exists()
    return query.where(compared(table.c.value, condition)).exists()


def _sets(connection: sa.Connection, project: str, rows: Sequence[Any]) -> list[CaseSet]:
    """Return datasets with tags and experiments, in the order of `rows`."""
    tags: dict[str, list[Pair]] = {row.id: [] for row in rows}
    experiments: dict[str, list[int]] = {row.id: [] for row in rows}
    for part in _parts(list(tags)):
        query = scoped(evaluation_tags, project).where(evaluation_tags.c.dataset.in_(part))
        for each in connection.execute(query.order_by(*key_of(evaluation_tags))):
            tags[each.dataset].append(Pair(each.key, each.value))
        query = scoped(evaluation_experiments, project).where(evaluation_experiments.c.dataset.in_(part))
        for each in connection.execute(query.order_by(*key_of(evaluation_experiments))):
            experiments[each.dataset].append(each.experiment)
    return [
        CaseSet(
            row.id,
            row.name,
            row.digest,
            orjson.loads(row.schema) if row.schema else None,
            row._mapping["count"],
            row.created_ms,
            row.updated_ms,
            row.created_by,
            row.updated_by,
            tuple(tags[row.id]),
            tuple(experiments[row.id]),
        )
        for row in rows
    ]


def put_tags(tx: Transaction, id: str, tags: Iterable[Pair]) -> None:
    """Set tags of a dataset."""
    for each in tags:
        statement = insert(evaluation_tags).values(project=tx.project, dataset=id, key=each.key, value=each.value)
        changed = {"value": statement.excluded.value}
        tx.execute(statement.on_conflict_do_update(index_elements=["project", "dataset", "key"], set_=changed))


def delete_tag(tx: Transaction, id: str, key: str) -> None:
    """Remove a tag of a dataset."""
    table = evaluation_tags
    tx.execute(sa.delete(table).where(table.c.project == tx.project, table.c.dataset == id, table.c.key == key))


def link(tx: Transaction, id: str, experiments: Iterable[int]) -> None:
    """Note that a dataset belongs to experiments."""
    for each in experiments:
        statement = insert(evaluation_experiments).values(project=tx.project, dataset=id, experiment=each)
        tx.execute(statement.on_conflict_do_nothing())


def unlink(tx: Transaction, id: str, experiments: Sequence[int]) -> None:
    """Forget that a dataset belongs to experiments."""
    table = evaluation_experiments
    mine = (table.c.project == tx.project) & (table.c.dataset == id)
    tx.execute(sa.delete(table).where(mine & table.c.experiment.in_(experiments)))


def records_by_inputs(connection: sa.Connection, project: str, id: str, hashes: Sequence[str]) -> dict[str, Record]:
    """Return the records of a dataset that have these inputs, by their hashes."""
    table = evaluation_records
    found: dict[str, Record] = {}
    for part in _parts(hashes):
        query = scoped(table, project).where(table.c.dataset == id, table.c.inputs_hash.in_(part))
        found.update({row.inputs_hash: _record(row) for row in connection.execute(query)})
    return found


def put_records(tx: Transaction, id: str, rows: Sequence[Record]) -> None:
    """Insert records, or replace those of the same place."""
    if not rows:
        return
    statement = insert(evaluation_records)
    changed = ("body", "updated_ms", "updated_by")
    tx.execute(
        statement.on_conflict_do_update(
            index_elements=["project", "dataset", "number"], set_={name: statement.excluded[name] for name in changed}
        ),
        [
            {
                "project": tx.project,
                "dataset": id,
                "number": row.number,
                "id": row.id,
                "inputs_hash": row.inputs_hash,
                "body": orjson.dumps([row.inputs, row.outputs, row.expectations, row.tags, row.source]).decode(),
                "created_ms": row.created_ms,
                "updated_ms": row.updated_ms,
                "created_by": row.created_by,
                "updated_by": row.updated_by,
            }
            for row in rows
        ],
    )


def remove_records(tx: Transaction, id: str, records: Sequence[str]) -> int:
    """Remove records of a dataset; return how many went."""
    table = evaluation_records
    gone = 0
    for part in _parts(records):
        mine = (table.c.project == tx.project) & (table.c.dataset == id) & table.c.id.in_(part)
        gone += tx.execute(sa.delete(table).where(mine)).rowcount
    return gone


def select_records(connection: sa.Connection, project: str, id: str, limit: int, after: int) -> list[Record]:
    """Return up to `limit` records in the order in which they came."""
    table = evaluation_records
    query = scoped(table, project).where(table.c.dataset == id, table.c.number > after)
    return [_record(row) for row in connection.execute(query.order_by(table.c.number).limit(limit))]


def records_after(
    connection: sa.Connection, project: str, place: tuple[str, int], limit: int
) -> list[tuple[str, Record]]:
    """Return up to `limit` records of a project with their dataset, in the order of their key, after `place`."""
    table = evaluation_records
    key = table.c.dataset, table.c.number
    query = scoped(table, project).where(sa.tuple_(*key) > sa.tuple_(*map(sa.literal, place)))
    return [(row.dataset, _record(row)) for row in connection.execute(query.order_by(*key).limit(limit))]


def _record(row: Any) -> Record:
    inputs, outputs, expectations, tags, source = orjson.loads(row.body)
    return Record(
        row.id,
        row.number,
        row.inputs_hash,
        inputs,
        outputs,
        expectations,
        row.created_ms,
        row.updated_ms,
        row.created_by,
        row.updated_by,
        tags,
        source,
    )


def _parts(values: Sequence[str]) -> Iterable[Sequence[str]]:
    return (values[start : start + _IN_ONE_QUERY] for start in range(0, len(values), _IN_ONE_QUERY))
