"""Lay the tables of batches of metrics that are kept until they are settled, and of evaluation datasets."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Create the tables."""
    for create in (_metric_batches, _evaluation_datasets, _evaluation_links, _evaluation_records):
        create()


def downgrade() -> None:
    """Drop the tables: evaluation datasets are lost; of metrics nothing is kept there in a ledger that was closed."""
    for table in (
        "evaluation_records",
        "evaluation_experiments",
        "evaluation_tags",
        "evaluation_datasets",
        "metric_batches",
    ):
        op.drop_table(table)


def _metric_batches() -> None:
    op.create_table(
        "metric_batches",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("run", sa.BigInteger(), nullable=False),
        sa.Column("experiment", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("project", "number", name=op.f("pk_metric_batches")),
    )


def _evaluation_datasets() -> None:
    op.create_table(
        "evaluation_datasets",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("schema", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("updated_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "id", name=op.f("pk_evaluation_datasets")),
    )
    op.create_index(
        op.f("ix_evaluation_datasets_project_created_ms"),
        "evaluation_datasets",
        ["project", "created_ms"],
        unique=False,
    )


def _evaluation_links() -> None:
    op.create_table(
        "evaluation_tags",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "dataset", "key", name=op.f("pk_evaluation_tags")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "evaluation_experiments",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("experiment", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("project", "dataset", "experiment", name=op.f("pk_evaluation_experiments")),
        sqlite_with_rowid=False,
    )


def _evaluation_records() -> None:
    op.create_table(
        "evaluation_records",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("inputs_hash", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("updated_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "dataset", "number", name=op.f("pk_evaluation_records")),
        sa.UniqueConstraint(
            "project", "dataset", "inputs_hash", name=op.f("uq_evaluation_records_project_dataset_inputs_hash")
        ),
    )
