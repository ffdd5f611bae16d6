"""Lay the tables of erased entities and of the blobs that held them."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create both."""
    op.create_table(
        "erasures",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("mark", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("found", sa.JSON(), nullable=False),
        sa.Column("requested_at", sa.BigInteger(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("project", "id", name=op.f("pk_erasures")),
        sa.UniqueConstraint("project", "mark", name=op.f("uq_erasures_project_mark")),
    )
    op.create_table(
        "erased_blobs",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("erasure", sa.Text(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("window", sa.Text(), nullable=False),
        sa.Column("replacement", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "digest", "erasure", name=op.f("pk_erased_blobs")),
    )


def downgrade() -> None:
    """Drop both: who was erased is forgotten, and may come back with the next delivery."""
    op.drop_table("erased_blobs")
    op.drop_table("erasures")
