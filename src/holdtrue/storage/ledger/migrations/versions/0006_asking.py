"""Keep which services are switched off, and what a token may ask: of which environment, and how often."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create the table of switches, and add two columns to tokens."""
    op.create_table(
        "service_stops",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("actor_name", sa.Text(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "service", "environment", name=op.f("pk_service_stops")),
    )
    op.add_column("tokens", sa.Column("environment", sa.Text(), nullable=True))
    op.add_column("tokens", sa.Column("rate", sa.Float(), nullable=True))


def downgrade() -> None:
    """Take both away; services that were switched off answer again, and tokens ask of every environment."""
    op.drop_column("tokens", "rate")
    op.drop_column("tokens", "environment")
    op.drop_table("service_stops")
