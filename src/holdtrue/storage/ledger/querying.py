"""Conditions and orders of searches as bound SQL, and pages by the values of the last row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from holdtrue.core.filters import Condition
from holdtrue.storage.ledger.statements import any_case_like, exact_like


@dataclass(frozen=True, slots=True)
class Term:
    """Hold one expression to order by; it is never null."""

    expression: sa.ColumnElement[Any]
    ascending: bool


def values_of(row: Any) -> list[Any]:
    """Return the values by which a row was ordered."""
    return [value for name, value in row._mapping.items() if name.startswith("order_")]


def paged(query: sa.Select[Any], terms: Sequence[Term], place: list[Any] | None, limit: int) -> sa.Select[Any]:
    """Return `query` in the order of `terms`, from after `place` on."""
    columns = [term.expression.label(f"order_{number}") for number, term in enumerate(terms)]
    query = query.add_columns(*columns)
    if place is not None and len(place) == len(terms):
        later: Any = sa.false()
        for term, value in reversed(list(zip(terms, place, strict=True))):
            beyond = term.expression > value if term.ascending else term.expression < value
            later = sa.or_(beyond, sa.and_(term.expression == value, later))
        first, value = terms[0], place[0]
        # Implied by the rest; said so that an index can begin there.
        bound = first.expression >= value if first.ascending else first.expression <= value
        query = query.where(bound, later)
    by = [term.expression.asc() if term.ascending else term.expression.desc() for term in terms]
    return query.order_by(*by).limit(limit)


def compared(column: sa.ColumnElement[Any], condition: Condition) -> sa.ColumnElement[bool]:
    """Return a comparison of a column with a bound value."""
    operator, value = condition.operator, condition.value
    if operator == "IS NULL":
        return column.is_(None)
    if operator == "IS NOT NULL":
        return column.is_not(None)
    if operator in ("IN", "NOT IN"):
        assert isinstance(value, tuple)
        return column.in_(value) if operator == "IN" else column.not_in(value)
    if operator == "LIKE":
        return exact_like(column, str(value))
    if operator == "ILIKE":
        return any_case_like(column, str(value))
    return {
        "=": column == value,
        "!=": column != value,
        ">": column > value,
        ">=": column >= value,
        "<": column < value,
        "<=": column <= value,
    }[operator]


def is_missing(value: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    """Return 1 where there is no value, else 0."""
    return sa.case((value.is_(None), 1), else_=0)
