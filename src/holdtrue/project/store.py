"""All SQL of this room: how the people and programs in the event log are called."""

from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from holdtrue.storage.ledger import metadata


def names(connection: sa.Connection, ids: Iterable[str]) -> Mapping[str, str]:
    """Return how the people and programs of these ids are called; who is not known is left out."""
    principals = metadata.tables["principals"]
    wanted = sorted(set(ids) - {""})
    found = connection.execute(sa.select(principals.c.id, principals.c.name).where(principals.c.id.in_(wanted)))
    return {str(row.id): str(row.name) for row in found}
