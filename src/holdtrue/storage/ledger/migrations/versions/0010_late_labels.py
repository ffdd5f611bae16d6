"""Keep which windows have all measures, and when waiting labels were last looked for among all predictions."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the columns; windows that were there get their measures in the passes that follow."""
    op.add_column("windows", sa.Column("measured", sa.Integer(), nullable=True))
    op.add_column("watches", sa.Column("searched", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Take them away: nothing is lost that is not found again."""
    op.drop_column("watches", "searched")
    op.drop_column("windows", "measured")
