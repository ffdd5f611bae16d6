"""SQL of searches: conditions to bound expressions, and pages by the values of the last row.

An order that begins with a metric is answered in three parts, each from an index: numbers in order of value, then
NaN, then runs without that metric. So a page costs what it shows, however many runs there are.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from holdtrue.core.errors import InvalidInput
from holdtrue.core.filters import Condition, Order
from holdtrue.storage.ledger import pairs_in
from holdtrue.storage.ledger.querying import Term, compared, is_missing, paged, values_of
from holdtrue.tracking.model import Experiment, RunInfo, View
from holdtrue.tracking.store import (
    experiment_tags,
    experiments,
    in_view,
    run_datasets,
    run_info,
    run_metrics,
    run_params,
    run_tags,
    runs,
    with_tags,
)

_MOST_MERGED = 32
# SQLite joins at most 64 tables, and orders need some too.
_MOST_JOINED = 32
_PAIRS = {"param": run_params, "tag": run_tags}


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Ask for runs: where, which, in what order, from what place on."""

    experiments: tuple[int, ...]
    view: View
    conditions: tuple[Condition, ...]
    orders: tuple[Order, ...]
    limit: int
    after: list[Any] | None


@dataclass(frozen=True, slots=True)
class RunPage:
    """Hold found runs, and the place of the last one if more follow."""

    runs: list[RunInfo]
    next: list[Any] | None


def search_runs(connection: sa.Connection, project: str, wish: RunQuery) -> RunPage:
    """Return a page of runs in a stable order."""
    phases = 3 if wish.orders and wish.orders[0].subject.entity == "metric" else 1
    bounded = any(_bounds_first(wish, condition) for condition in wish.conditions)
    phase, place = (0, None) if wish.after is None else (wish.after[0], wish.after[1:])
    if phase not in range(phases):
        raise InvalidInput("Invalid page token.", mend="Start again without a page token.")
    found: list[tuple[int, Any]] = []
    # Who compares the metric with a number wants neither NaN nor runs without it.
    while phase < (1 if bounded else phases) and len(found) <= wish.limit:
        rows = _phase(connection, project, wish, phase if phases > 1 else None, place, wish.limit + 1 - len(found))
        found += [(phase, row) for row in rows]
        phase, place = phase + 1, None
    shown = found[: wish.limit]
    last = None
    if len(found) > wish.limit and shown:
        last = [shown[-1][0], *values_of(shown[-1][1])]
    return RunPage([run_info(row) for _, row in shown], last)


def _phase(
    connection: sa.Connection, project: str, wish: RunQuery, phase: int | None, place: list[Any] | None, limit: int
) -> list[Any]:
    """Return rows of one part, the experiments merged in order."""
    if not wish.experiments:
        return []
    single = len(wish.experiments) == 1 or len(wish.experiments) > _MOST_MERGED
    parts = [wish.experiments] if single else [(each,) for each in wish.experiments]
    rows: list[Any] = []
    directions: Sequence[bool] = ()
    for part in parts:
        asked = replace(wish, after=None)
        query, directions = _paged(project, asked, part, phase, None if place is None else tuple(place), limit)
        rows += connection.execute(query).fetchall()
    if len(parts) > 1:
        rows.sort(key=functools.cmp_to_key(_comparison(directions)))
    return rows[:limit]


# Who looks at a list looks at it again: to make a query takes as long as to find a page of runs by it.
@functools.lru_cache(maxsize=256)
def _paged(
    project: str, wish: RunQuery, where: tuple[int, ...], phase: int | None, place: tuple[Any, ...] | None, limit: int
) -> tuple[sa.Select[Any], tuple[bool, ...]]:
    """Return the query of a page of one part, and which of the terms of its order are ascending."""
    query, terms = _query(project, wish, where, phase)
    return paged(query, terms, None if place is None else list(place), limit), tuple(each.ascending for each in terms)


def _comparison(directions: Sequence[bool]) -> Callable[[Any, Any], int]:
    def compare(a: Any, b: Any) -> int:
        for left, right, ascending in zip(values_of(a), values_of(b), directions, strict=True):
            if left != right:
                return (-1 if left < right else 1) if ascending else (1 if left < right else -1)
        return 0

    return compare


def _query(
    project: str, wish: RunQuery, where: tuple[int, ...], phase: int | None
) -> tuple[sa.Select[Any], list[Term]]:
    """Return the query of one part and its order."""
    query = sa.select(runs).where(runs.c.project == project, runs.c.experiment.in_(where))
    query = query.where(in_view(runs.c.lifecycle, wish.view))
    terms: list[Term] = []
    for position, order in enumerate(wish.orders):
        if position == 0 and phase is not None:
            query, own = _first_metric(query, project, order, where, phase)
        else:
            query, own = _order(query, project, order, position)
        terms += own
    for position, condition in enumerate(wish.conditions):
        if phase == 0 and _bounds_first(wish, condition):
            # On the row by which runs are ordered, so that the walk through the index ends where it must.
            query = query.where(compared(terms[0].expression, condition))
        else:
            query = _condition(query, project, condition, position)
    if not any(order.subject.key == "start_ms" for order in wish.orders):
        terms.append(Term(runs.c.start_ms, ascending=False))
    return query, [*terms, Term(runs.c.id, ascending=True)]


def _bounds_first(wish: RunQuery, condition: Condition) -> bool:
    """Tell whether a condition compares the metric by which runs are ordered first."""
    return bool(wish.orders) and condition.subject == wish.orders[0].subject and not _about_null(condition)


def _about_null(condition: Condition) -> bool:
    return condition.subject.entity != "metric" or condition.operator in ("IS NULL", "IS NOT NULL")


def _first_metric(
    query: sa.Select[Any], project: str, order: Order, where: tuple[int, ...], phase: int
) -> tuple[sa.Select[Any], list[Term]]:
    """Order by a metric: runs with a number (phase 0), with NaN (1), and without it (2)."""
    table = run_metrics.alias("first_metric")
    mine = sa.and_(table.c.project == project, table.c.key == order.subject.key)
    if phase == 2:
        has = sa.select(sa.literal(1)).where(mine, table.c.run == runs.c.number).correlate(runs)
        return query.where(~has.exists()), []
    joined = query.join(table, sa.and_(mine, table.c.run == runs.c.number))
    joined = joined.where(table.c.experiment.in_(where), table.c.nan == phase)
    return joined, [Term(table.c.value, order.ascending)] if phase == 0 else []


def _order(query: sa.Select[Any], project: str, order: Order, position: int) -> tuple[sa.Select[Any], list[Term]]:
    """Order by anything; what is missing comes last in both directions."""
    subject = order.subject
    if subject.entity == "attribute":
        column = runs.c[subject.key]
        if not column.nullable:
            return query, [Term(column, order.ascending)]
        return query, [
            Term(is_missing(column), ascending=True),
            Term(sa.func.coalesce(column, 0), order.ascending),
        ]
    table = (run_metrics if subject.entity == "metric" else _PAIRS[subject.entity]).alias(f"order_by_{position}")
    on = sa.and_(table.c.project == project, table.c.run == runs.c.number, table.c.key == subject.key)
    query = query.outerjoin(table, on)
    missing = is_missing(table.c.value)
    if subject.entity == "metric":
        missing = sa.case((table.c.value.is_(None), 2), else_=table.c.nan)
        return query, [Term(missing, ascending=True), Term(sa.func.coalesce(table.c.value, 0.0), order.ascending)]
    return query, [Term(missing, ascending=True), Term(sa.func.coalesce(table.c.value, ""), order.ascending)]


def _condition(query: sa.Select[Any], project: str, condition: Condition, position: int) -> sa.Select[Any]:
    subject = condition.subject
    if subject.entity == "attribute":
        return query.where(compared(runs.c[subject.key], condition))
    if subject.entity == "dataset":
        return query.where(_dataset(project, condition))
    table = (run_metrics if subject.entity == "metric" else _PAIRS[subject.entity]).alias(f"filter_{position}")
    on = sa.and_(table.c.project == project, table.c.run == runs.c.number, table.c.key == subject.key)
    if condition.operator in ("IS NULL", "IS NOT NULL"):
        has = sa.select(sa.literal(1)).where(on).correlate(runs).exists()
        return query.where(has if condition.operator == "IS NOT NULL" else ~has)
    meets = compared(table.c.value, condition)
    if subject.entity == "metric":
        meets = sa.and_(meets, table.c.nan == 0)
    if position >= _MOST_JOINED:
        return query.where(sa.select(sa.literal(1)).where(on, meets).correlate(runs).exists())
    return query.join(table, on).where(meets)


def _dataset(project: str, condition: Condition) -> sa.ColumnElement[bool]:
    table = run_datasets
    query = sa.select(sa.literal(1)).where(table.c.project == project, table.c.run == runs.c.number).correlate(runs)
    if condition.subject.key == "context":
        pairs, key, value = pairs_in(table.c.tags)
        query = query.select_from(sa.join(table, pairs, sa.true()))
        query = query.where(key == "mlflow.data.context", compared(value, condition))
    elif condition.operator == "IS NULL":
        return ~query.exists()
    else:
        query = query.where(compared(table.c[condition.subject.key], condition))
    return query.exists()


def search_experiments(
    connection: sa.Connection,
    project: str,
    view: View,
    conditions: Sequence[Condition],
    orders: Sequence[Order],
    limit: int,
    after: list[Any] | None,
) -> tuple[list[Experiment], list[Any] | None]:
    """Return a page of experiments, and the place of the last one if more follow."""
    query = sa.select(experiments).where(experiments.c.project == project, in_view(experiments.c.lifecycle, view))
    for condition in conditions:
        query = query.where(_experiment(project, condition))
    terms = [Term(experiments.c[order.subject.key], order.ascending) for order in orders]
    if not terms:
        terms = [Term(experiments.c.created_ms, ascending=False)]
    terms.append(Term(experiments.c.id, ascending=False))
    rows = connection.execute(paged(query, terms, after, limit + 1)).fetchall()
    last = values_of(rows[limit - 1]) if len(rows) > limit else None
    return with_tags(connection, project, rows[:limit]), last


def _experiment(project: str, condition: Condition) -> sa.ColumnElement[bool]:
    if condition.subject.entity == "attribute":
        return compared(experiments.c[condition.subject.key], condition)
    table = experiment_tags
    query = sa.select(sa.literal(1)).where(
        table.c.project == project,
        table.c.experiment == experiments.c.id,
        table.c.key == condition.subject.key,
    )
    query = query.correlate(experiments)
    if condition.operator == "IS NULL":
        return ~query.exists()
    return query.where(compared(table.c.value, condition)).exists()
