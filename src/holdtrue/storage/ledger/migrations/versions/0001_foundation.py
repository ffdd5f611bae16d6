"""Lay the tables of every room, and the guards of the event log."""

from alembic import op

from holdtrue.storage.ledger.tables import create_triggers, metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create everything."""
    connection = op.get_bind()
    metadata.create_all(connection)
    create_triggers(connection)
