"""Lay the tables of the LLM gateway: providers, budgets, switches."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create them."""
    op.create_table(
        "gateway_providers",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "name", name=op.f("pk_gateway_providers")),
    )
    op.create_table(
        "gateway_budgets",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "key", "period", name=op.f("pk_gateway_budgets")),
    )
    op.create_table(
        "gateway_switches",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("stopped", sa.Text(), nullable=False),
        sa.Column("capture", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", name=op.f("pk_gateway_switches")),
    )
