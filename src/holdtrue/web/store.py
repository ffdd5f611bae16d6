"""What pages ask that no room answers: which projects there are; and how people are called."""

from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from holdtrue import project
from holdtrue.storage.ledger import metadata


def projects(connection: sa.Connection) -> list[str]:
    """Return the names of all projects that something happened in, by name.

    Walks the index of the event log from one project to the next, so its cost is the number of
    projects and not that of the events.
    """
    log = metadata.tables["events"]
    first = sa.select(sa.func.min(log.c.project).label("name")).where(log.c.project > "")
    walk = first.cte("walk", recursive=True)
    following = sa.select(sa.func.min(log.c.project)).where(log.c.project > walk.c.name).scalar_subquery()
    walk = walk.union_all(sa.select(following).where(walk.c.name.is_not(None)))
    found = connection.execute(sa.select(walk.c.name).where(walk.c.name.is_not(None)))
    return [str(name) for name in found.scalars()]


def names(connection: sa.Connection, ids: Iterable[str]) -> Mapping[str, str]:
    """Return how the people and programs of these ids are called; who is not known is left out."""
    return project.names(connection, ids)
