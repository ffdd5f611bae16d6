"""Lay the tables of tracking: experiments, runs, metrics, artifacts, the model registry."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create everything."""
    for create in (
        _artifact_parts,
        _artifact_uploads,
        _artifacts,
        _experiment_tags,
        _experiments,
        _logged_model_pairs,
        _logged_models,
        _metric_points,
        _model_aliases,
        _model_metrics,
        _model_tags,
        _model_versions,
        _registered_models,
        _run_datasets,
        _run_metrics,
        _run_models,
        _run_params,
        _run_tags,
        _runs,
    ):
        create()


def downgrade() -> None:
    """Drop everything that `upgrade` made; what was logged is lost."""
    for table in (
        "runs",
        "run_tags",
        "run_params",
        "run_models",
        "run_metrics",
        "run_datasets",
        "registered_models",
        "model_versions",
        "model_tags",
        "model_metrics",
        "model_aliases",
        "metric_points",
        "logged_models",
        "logged_model_pairs",
        "experiments",
        "experiment_tags",
        "artifacts",
        "artifact_uploads",
        "artifact_parts",
    ):
        op.drop_table(table)


def _artifact_parts() -> None:
    op.create_table(
        "artifact_parts",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("upload", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "upload", "number", name=op.f("pk_artifact_parts")),
    )


def _artifact_uploads() -> None:
    op.create_table(
        "artifact_uploads",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("parts", sa.Integer(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "id", name=op.f("pk_artifact_uploads")),
    )


def _artifacts() -> None:
    op.create_table(
        "artifacts",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "folder", "name", name=op.f("pk_artifacts")),
        sqlite_with_rowid=False,
    )


def _experiment_tags() -> None:
    op.create_table(
        "experiment_tags",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("experiment", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "experiment", "key", name=op.f("pk_experiment_tags")),
        sqlite_with_rowid=False,
    )


def _experiments() -> None:
    op.create_table(
        "experiments",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("artifact_location", sa.Text(), nullable=False),
        sa.Column("lifecycle", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "id", name=op.f("pk_experiments")),
        sa.UniqueConstraint("project", "name", name=op.f("uq_experiments_project_name")),
        sqlite_with_rowid=False,
    )


def _logged_model_pairs() -> None:
    op.create_table(
        "logged_model_pairs",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "model", "kind", "key", name=op.f("pk_logged_model_pairs")),
        sqlite_with_rowid=False,
    )


def _logged_models() -> None:
    op.create_table(
        "logged_models",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("experiment", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_ms", sa.BigInteger(), nullable=False),
        sa.Column("artifact_uri", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("model_type", sa.Text(), nullable=False),
        sa.Column("source_run", sa.Text(), nullable=False),
        sa.Column("lifecycle", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "id", name=op.f("pk_logged_models")),
    )
    op.create_index(
        op.f("ix_logged_models_project_experiment_created_ms"),
        "logged_models",
        ["project", "experiment", "created_ms"],
        unique=False,
    )


def _metric_points() -> None:
    op.create_table(
        "metric_points",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("timestamp", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("nan", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint(
            "project", "run", "key", "step", "timestamp", "value", "nan", name=op.f("pk_metric_points")
        ),
        sqlite_with_rowid=False,
    )


def _model_aliases() -> None:
    op.create_table(
        "model_aliases",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "name", "alias", name=op.f("pk_model_aliases")),
    )


def _model_metrics() -> None:
    op.create_table(
        "model_metrics",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("dataset_name", sa.Text(), nullable=False),
        sa.Column("dataset_digest", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("nan", sa.SmallInteger(), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "project", "model", "key", "dataset_name", "dataset_digest", name=op.f("pk_model_metrics")
        ),
        sqlite_with_rowid=False,
    )


def _model_tags() -> None:
    op.create_table(
        "model_tags",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "name", "number", "key", name=op.f("pk_model_tags")),
        sqlite_with_rowid=False,
    )


def _model_versions() -> None:
    op.create_table(
        "model_versions",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("status_message", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_ms", sa.BigInteger(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("run_link", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("artifact_uri", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "name", "number", name=op.f("pk_model_versions")),
    )
    op.create_index(op.f("ix_model_versions_project_model"), "model_versions", ["project", "model"], unique=False)


def _registered_models() -> None:
    op.create_table(
        "registered_models",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_ms", sa.BigInteger(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "name", name=op.f("pk_registered_models")),
    )


def _run_datasets() -> None:
    op.create_table(
        "run_datasets",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("experiment", sa.BigInteger(), nullable=False),
        sa.Column("source_type", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("schema", sa.Text(), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("project", "run", "name", "digest", name=op.f("pk_run_datasets")),
    )
    op.create_index(
        op.f("ix_run_datasets_project_experiment_name_digest"),
        "run_datasets",
        ["project", "experiment", "name", "digest"],
        unique=False,
    )


def _run_metrics() -> None:
    op.create_table(
        "run_metrics",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("experiment", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("nan", sa.SmallInteger(), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "run", "key", name=op.f("pk_run_metrics")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_run_metrics_project_experiment_key_nan_value"),
        "run_metrics",
        ["project", "experiment", "key", "nan", "value"],
        unique=False,
    )


def _run_models() -> None:
    op.create_table(
        "run_models",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "run", "model", "direction", name=op.f("pk_run_models")),
        sqlite_with_rowid=False,
    )


def _run_params() -> None:
    op.create_table(
        "run_params",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "run", "key", name=op.f("pk_run_params")),
        sqlite_with_rowid=False,
    )


def _run_tags() -> None:
    op.create_table(
        "run_tags",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "run", "key", name=op.f("pk_run_tags")),
        sqlite_with_rowid=False,
    )


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("experiment", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("start_ms", sa.BigInteger(), nullable=False),
        sa.Column("end_ms", sa.BigInteger(), nullable=True),
        sa.Column("artifact_uri", sa.Text(), nullable=False),
        sa.Column("lifecycle", sa.Text(), nullable=False),
        sa.Column("deleted_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("project", "number", name=op.f("pk_runs")),
        sa.UniqueConstraint("project", "id", name=op.f("uq_runs_project_id")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_runs_project_experiment_lifecycle_start_ms"),
        "runs",
        ["project", "experiment", "lifecycle", "start_ms"],
        unique=False,
    )
