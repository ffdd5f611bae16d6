"""Keep what windows of classes and of numbers are measured by."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the column; windows get their measures when the next label of theirs comes."""
    op.add_column("windows", sa.Column("measures", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Take it away: the measures are lost, and are made again from scores and labels."""
    op.drop_column("windows", "measures")
