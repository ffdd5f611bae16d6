"""SQL of what is known of traces beside their spans."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import sqlalchemy as sa

from holdtrue.core.filters import Condition, Order
from holdtrue.storage.ledger import Transaction, insert, project_table, scoped
from holdtrue.storage.ledger.querying import Term, compared, paged, values_of
from holdtrue.traces.infos.model import NAME, PROMPTS, RUN, Assessment, Kind, State, TraceInfo
from holdtrue.traces.infos.rules import number_of

traces = project_table(
    "traces",
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("experiment", sa.BigInteger, nullable=False),
    sa.Column("requested_ms", sa.BigInteger, nullable=False),
    sa.Column("duration_ms", sa.BigInteger),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("response", sa.Text, nullable=False),
    sa.Column("client_request", sa.Text, nullable=False),
    sa.Column("finalized", sa.Integer, nullable=False),
    sa.Column("deleted_ms", sa.BigInteger),
    sa.Index("ix_traces_of_experiment", "project", "experiment", "requested_ms", "id"),
)

pairs = project_table(
    "trace_pairs",
    sa.Column("trace", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sa.Index("ix_trace_pairs_by_value", "project", "kind", "key", "value"),
    clustered=True,
)

assessments = project_table(
    "trace_assessments",
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("trace", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("plain", sa.Text, nullable=False),
    sa.Column("number", sa.Float),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("valid", sa.Integer, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("updated_ms", sa.BigInteger, nullable=False),
    sa.Index("ix_trace_assessments_of_trace", "project", "trace"),
    sa.Index("ix_trace_assessments_by_name", "project", "kind", "name", "number"),
)

_AT_ONCE = 500
_SHORT = 400


def put(tx: Transaction, info: TraceInfo) -> None:
    """Write a trace down, in place of what was known of it; tags and metadata that are not named stay."""
    columns: dict[str, Any] = {
        "experiment": info.experiment,
        "requested_ms": info.requested_ms,
        "duration_ms": info.duration_ms,
        "state": info.state.value,
        "request": info.request,
        "response": info.response,
        "client_request": info.client_request,
        "finalized": int(info.finalized),
        "deleted_ms": None,
    }
    statement = insert(traces).values(project=tx.project, id=info.id, **columns)
    tx.execute(statement.on_conflict_do_update(index_elements=["project", "id"], set_=columns))
    put_pairs(tx, info.id, "metadata", info.metadata)
    put_pairs(tx, info.id, "tag", info.tags)


def put_pairs(tx: Transaction, trace: str, kind: Kind, values: Mapping[str, str]) -> None:
    """Set tags or metadata."""
    for key, value in values.items():
        statement = insert(pairs).values(project=tx.project, trace=trace, kind=kind, key=key, value=value)
        keys = ["project", "trace", "kind", "key"]
        tx.execute(statement.on_conflict_do_update(index_elements=keys, set_={"value": statement.excluded.value}))


def delete_pair(tx: Transaction, trace: str, kind: Kind, key: str) -> bool:
    """Remove a tag or metadata; tell whether it was there."""
    own = (pairs.c.trace == trace) & (pairs.c.kind == kind) & (pairs.c.key == key)
    return tx.execute(sa.delete(pairs).where(pairs.c.project == tx.project, own)).rowcount > 0


def lines_of(connection: sa.Connection, project: str, ids: Sequence[str]) -> dict[str, tuple[bool, bool]]:
    """Return of those traces that are written down whether each is finalized, and whether it is deleted."""
    found: dict[str, tuple[bool, bool]] = {}
    for start in range(0, len(ids), _AT_ONCE):
        query = sa.select(traces.c.id, traces.c.finalized, traces.c.deleted_ms).where(
            traces.c.project == project, traces.c.id.in_(ids[start : start + _AT_ONCE])
        )
        for row in connection.execute(query):
            found[row.id] = (bool(row.finalized), row.deleted_ms is not None)
    return found


def several(connection: sa.Connection, project: str, ids: Sequence[str]) -> list[TraceInfo]:
    """Return traces by their ids, in that order; those that are deleted or not there are left out."""
    found: list[TraceInfo] = []
    for start in range(0, len(ids), _AT_ONCE):
        part = ids[start : start + _AT_ONCE]
        query = scoped(traces, project).where(traces.c.id.in_(part), traces.c.deleted_ms.is_(None))
        rows = {row.id: row for row in connection.execute(query)}
        found += _whole(connection, project, [rows[each] for each in part if each in rows])
    return found


def _whole(connection: sa.Connection, project: str, rows: Sequence[Any]) -> list[TraceInfo]:
    ids = [row.id for row in rows]
    kept: dict[tuple[str, str], dict[str, str]] = {}
    for start in range(0, len(ids), _AT_ONCE):
        query = scoped(pairs, project).where(pairs.c.trace.in_(ids[start : start + _AT_ONCE]))
        for row in connection.execute(query):
            kept.setdefault((row.trace, row.kind), {})[row.key] = row.value
    judged = assessments_of(connection, project, ids)
    return [
        TraceInfo(
            row.id,
            row.experiment,
            row.requested_ms,
            row.duration_ms,
            State(row.state),
            row.request,
            row.response,
            row.client_request,
            kept.get((row.id, "metadata"), {}),
            kept.get((row.id, "tag"), {}),
            tuple(judged.get(row.id, ())),
            bool(row.finalized),
        )
        for row in rows
    ]


def search(
    connection: sa.Connection,
    project: str,
    experiments: Sequence[int],
    conditions: Sequence[Condition],
    orders: Sequence[Order],
    limit: int,
    after: list[Any] | None,
) -> list[tuple[TraceInfo, list[Any]]]:
    """Return traces in a stable order, each with its place in it."""
    query = sa.select(traces).where(
        traces.c.project == project, traces.c.experiment.in_(list(experiments)), traces.c.deleted_ms.is_(None)
    )
    for condition in conditions:
        query = query.where(_condition(project, condition))
    terms = [_term(project, order) for order in orders]
    if not any(order.subject.key == "requested_ms" for order in orders):
        terms.append(Term(traces.c.requested_ms, ascending=False))
    terms.append(Term(traces.c.id, ascending=True))
    rows = connection.execute(paged(query, terms, after, limit)).fetchall()
    return list(zip(_whole(connection, project, rows), [values_of(row) for row in rows], strict=True))


def within(
    connection: sa.Connection, project: str, experiments: Sequence[int], first_ms: int, last_ms: int, limit: int
) -> list[TraceInfo]:
    """Return up to `limit` traces that experiments were asked for between two moments, both included."""
    query = scoped(traces, project).where(
        traces.c.experiment.in_(list(experiments)),
        traces.c.requested_ms.between(first_ms, last_ms),
        traces.c.deleted_ms.is_(None),
    )
    return _whole(connection, project, connection.execute(query.limit(limit)).fetchall())


def _expression(project: str, key: str) -> sa.ColumnElement[Any]:
    kinds: dict[str, tuple[Kind, str]] = {"name": ("tag", NAME), "run": ("metadata", RUN)}
    if key in kinds:
        kind, named = kinds[key]
        value = sa.select(pairs.c.value).where(_pair(project, kind, named)).correlate(traces).scalar_subquery()
        return sa.func.coalesce(value, "")
    if key == "ended_ms":
        return traces.c.requested_ms + sa.func.coalesce(traces.c.duration_ms, 0)
    if key == "duration_ms":
        return sa.func.coalesce(traces.c.duration_ms, -1)
    return traces.c[key]


def _term(project: str, order: Order) -> Term:
    return Term(_expression(project, order.subject.key), order.ascending)


def _pair(project: str, kind: Kind, key: str) -> sa.ColumnElement[bool]:
    return sa.and_(pairs.c.project == project, pairs.c.trace == traces.c.id, pairs.c.kind == kind, pairs.c.key == key)


def _condition(project: str, condition: Condition) -> sa.ColumnElement[bool]:
    entity, key = condition.subject.entity, condition.subject.key
    if entity == "attribute" and key == "prompt":
        return _linked(project, str(condition.value))
    if entity == "attribute":
        return compared(_expression(project, key), condition)
    about: Any
    if entity in ("tag", "metadata"):
        kind: Kind = "tag" if entity == "tag" else "metadata"
        about, value = _pair(project, kind, key), pairs.c.value
        query = sa.select(sa.literal(1)).where(about).correlate(traces)
    else:
        table = assessments
        about = sa.and_(table.c.project == project, table.c.trace == traces.c.id, table.c.valid == 1)
        about = sa.and_(about, table.c.kind == entity, table.c.name == key)
        value = table.c.number if _is_number(condition.value) else table.c.plain
        query = sa.select(sa.literal(1)).where(about).correlate(traces)
    if condition.operator == "IS NULL":
        return ~query.exists()
    if condition.operator == "IS NOT NULL":
        return query.exists()
    return query.where(compared(value, condition)).exists()


def _linked(project: str, prompt: str) -> sa.ColumnElement[bool]:
    """Choose the traces that are linked to a prompt's version, “name/version”."""
    name, _, version = prompt.rpartition("/")
    line = {"name": name, "version": version}
    # The tag is a JSON list, which clients write in their way and this server in its own.
    written = {json.dumps(line), orjson.dumps(line).decode()}
    holds = sa.or_(*(sa.func.replace(pairs.c.value, each, "") != pairs.c.value for each in sorted(written)))
    return sa.select(sa.literal(1)).where(_pair(project, "tag", PROMPTS), holds).correlate(traces).exists()


def _is_number(value: Any) -> bool:
    first = value[0] if isinstance(value, tuple) and value else value
    return isinstance(first, int | float)


def mark_deleted(
    tx: Transaction, experiment: int, now: int, *, ids: Sequence[str] | None, before_ms: int | None, most: int
) -> list[str]:
    """Delete traces of an experiment by their ids, or the oldest; return the ids of those that went."""
    query = sa.select(traces.c.id).where(
        traces.c.project == tx.project, traces.c.experiment == experiment, traces.c.deleted_ms.is_(None)
    )
    if ids is not None:
        query = query.where(traces.c.id.in_(list(ids)))
    if before_ms is not None:
        query = query.where(traces.c.requested_ms <= before_ms)
    gone = list(tx.execute(query.order_by(traces.c.requested_ms, traces.c.id).limit(most)).scalars())
    clear(tx, gone, now)
    return gone


def clear(tx: Transaction, ids: Sequence[str], now: int) -> None:
    """Empty traces of all that was said in and about them."""
    for start in range(0, len(ids), _AT_ONCE):
        part = ids[start : start + _AT_ONCE]
        own = (traces.c.project == tx.project) & traces.c.id.in_(part)
        cleared = {"request": "", "response": "", "client_request": "", "deleted_ms": now}
        tx.execute(sa.update(traces).where(own).values(**cleared))
        tx.execute(sa.delete(pairs).where(pairs.c.project == tx.project, pairs.c.trace.in_(part)))
        tx.execute(sa.delete(assessments).where(assessments.c.project == tx.project, assessments.c.trace.in_(part)))


def put_assessment(tx: Transaction, row: Assessment) -> None:
    """Write an assessment down, in place of an earlier one of its id."""
    plain = row.value if isinstance(row.value, str) else orjson.dumps(row.value).decode()
    columns = {
        "trace": row.trace,
        "kind": row.kind,
        "name": row.name,
        "value": orjson.dumps(row.value).decode(),
        "plain": plain[:_SHORT],
        "number": number_of(row.value),
        "body": orjson.dumps(dict(row.body)).decode(),
        "valid": int(row.valid),
        "created_ms": row.created_ms,
        "updated_ms": row.updated_ms,
    }
    statement = insert(assessments).values(project=tx.project, id=row.id, **columns)
    tx.execute(statement.on_conflict_do_update(index_elements=["project", "id"], set_=columns))


def set_valid(tx: Transaction, id: str, valid: bool) -> None:
    """Say whether an assessment still counts."""
    own = (assessments.c.project == tx.project) & (assessments.c.id == id)
    tx.execute(sa.update(assessments).where(own).values(valid=int(valid)))


def delete_assessment(tx: Transaction, trace: str, id: str) -> bool:
    """Remove an assessment; tell whether it was there."""
    own = (assessments.c.project == tx.project) & (assessments.c.trace == trace) & (assessments.c.id == id)
    return tx.execute(sa.delete(assessments).where(own)).rowcount > 0


def assessments_of(connection: sa.Connection, project: str, ids: Sequence[str]) -> dict[str, list[Assessment]]:
    """Return the assessments of traces, the oldest first."""
    found: dict[str, list[Assessment]] = {}
    for start in range(0, len(ids), _AT_ONCE):
        query = scoped(assessments, project).where(assessments.c.trace.in_(ids[start : start + _AT_ONCE]))
        for row in connection.execute(query.order_by(assessments.c.created_ms, assessments.c.id)):
            found.setdefault(row.trace, []).append(_assessment(row))
    return found


def named_assessments(
    connection: sa.Connection, project: str, name: str, least: float | None, most: float | None, limit: int
) -> list[Assessment]:
    """Return valid feedback of a name whose number lies within bounds, the newest first."""
    table = assessments
    query = scoped(table, project).where(table.c.kind == "feedback", table.c.name == name, table.c.valid == 1)
    query = query.where(table.c.number.is_not(None))
    if least is not None:
        query = query.where(table.c.number >= least)
    if most is not None:
        query = query.where(table.c.number <= most)
    return [_assessment(row) for row in connection.execute(query.order_by(table.c.created_ms.desc()).limit(limit))]


def _assessment(row: Any) -> Assessment:
    return Assessment(
        row.id,
        row.trace,
        row.kind,
        row.name,
        orjson.loads(row.value),
        orjson.loads(row.body),
        row.created_ms,
        row.updated_ms,
        bool(row.valid),
    )
