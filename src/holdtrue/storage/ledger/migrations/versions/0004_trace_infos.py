"""Lay the tables of what is known of traces beside their spans."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create everything."""
    _traces()
    _pairs()
    _assessments()


def downgrade() -> None:
    """Drop everything that `upgrade` made; spans stay, their tags and assessments are lost."""
    for table in ("trace_assessments", "trace_pairs", "traces"):
        op.drop_table(table)


def _traces() -> None:
    op.create_table(
        "traces",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("experiment", sa.BigInteger(), nullable=False),
        sa.Column("requested_ms", sa.BigInteger(), nullable=False),
        sa.Column("duration_ms", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("response", sa.Text(), nullable=False),
        sa.Column("client_request", sa.Text(), nullable=False),
        sa.Column("finalized", sa.Integer(), nullable=False),
        sa.Column("deleted_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("project", "id", name=op.f("pk_traces")),
    )
    op.create_index("ix_traces_of_experiment", "traces", ["project", "experiment", "requested_ms", "id"])


def _pairs() -> None:
    op.create_table(
        "trace_pairs",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("trace", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "trace", "kind", "key", name=op.f("pk_trace_pairs")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_trace_pairs_by_value", "trace_pairs", ["project", "kind", "key", "value"])


def _assessments() -> None:
    op.create_table(
        "trace_assessments",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("trace", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("plain", sa.Text(), nullable=False),
        sa.Column("number", sa.Float(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("valid", sa.Integer(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "id", name=op.f("pk_trace_assessments")),
    )
    op.create_index("ix_trace_assessments_of_trace", "trace_assessments", ["project", "trace"])
    op.create_index("ix_trace_assessments_by_name", "trace_assessments", ["project", "kind", "name", "number"])
