"""Lay the tables of every room, and the guards of the event log."""

import sqlalchemy as sa
from alembic import op

from holdtrue.storage.ledger.guards import create_guards

revision = "0001"
down_revision = None

# What a decision rests on, and what was done, must not change under it, whoever writes to the file by accident.
_NEVER_CHANGED = (
    "CREATE TRIGGER approvals_no_update BEFORE UPDATE ON approvals "
    "BEGIN SELECT RAISE(ABORT, 'rows of approvals never change'); END",
    "CREATE TRIGGER approvals_no_delete BEFORE DELETE ON approvals "
    "BEGIN SELECT RAISE(ABORT, 'rows of approvals never change'); END",
    "CREATE TRIGGER decision_effects_no_update BEFORE UPDATE ON decision_effects "
    "BEGIN SELECT RAISE(ABORT, 'rows of decision_effects never change'); END",
    "CREATE TRIGGER decision_effects_no_delete BEFORE DELETE ON decision_effects "
    "BEGIN SELECT RAISE(ABORT, 'rows of decision_effects never change'); END",
    "CREATE TRIGGER decisions_no_update BEFORE UPDATE ON decisions "
    "BEGIN SELECT RAISE(ABORT, 'rows of decisions never change'); END",
    "CREATE TRIGGER decisions_no_delete BEFORE DELETE ON decisions "
    "BEGIN SELECT RAISE(ABORT, 'rows of decisions never change'); END",
    "CREATE TRIGGER deployment_changes_no_update BEFORE UPDATE ON deployment_changes "
    "BEGIN SELECT RAISE(ABORT, 'rows of deployment_changes never change'); END",
    "CREATE TRIGGER deployment_changes_no_delete BEFORE DELETE ON deployment_changes "
    "BEGIN SELECT RAISE(ABORT, 'rows of deployment_changes never change'); END",
    "CREATE TRIGGER evidence_no_update BEFORE UPDATE ON evidence "
    "BEGIN SELECT RAISE(ABORT, 'rows of evidence never change'); END",
    "CREATE TRIGGER evidence_no_delete BEFORE DELETE ON evidence "
    "BEGIN SELECT RAISE(ABORT, 'rows of evidence never change'); END",
    "CREATE TRIGGER rollout_steps_no_update BEFORE UPDATE ON rollout_steps "
    "BEGIN SELECT RAISE(ABORT, 'rows of rollout_steps never change'); END",
    "CREATE TRIGGER rollout_steps_no_delete BEFORE DELETE ON rollout_steps "
    "BEGIN SELECT RAISE(ABORT, 'rows of rollout_steps never change'); END",
)

# On PostgreSQL the function is one that guards the event log too.
_NEVER_CHANGED_ON_POSTGRESQL = (
    "CREATE TRIGGER approvals_never BEFORE UPDATE OR DELETE ON approvals FOR EACH ROW EXECUTE FUNCTION never_changed()",
    "CREATE TRIGGER approvals_not_emptied BEFORE TRUNCATE ON approvals "
    "FOR EACH STATEMENT EXECUTE FUNCTION never_changed()",
    "CREATE TRIGGER decision_effects_never BEFORE UPDATE OR DELETE ON decision_effects "
    "FOR EACH ROW EXECUTE FUNCTION never_changed()",
    "CREATE TRIGGER decision_effects_not_emptied BEFORE TRUNCATE ON decision_effects "
    "FOR EACH STATEMENT EXECUTE FUNCTION never_changed()",
    "CREATE TRIGGER decisions_never BEFORE UPDATE OR DELETE ON decisions FOR EACH ROW EXECUTE FUNCTION never_changed()",
    "CREATE TRIGGER decisions_not_emptied BEFORE TRUNCATE ON decisions "
    "FOR EACH STATEMENT EXECUTE FUNCTION never_changed()",
    "CREATE TRIGGER deployment_changes_never BEFORE UPDATE OR DELETE ON deployment_changes "
    "FOR EACH ROW EXECUTE FUNCTION never_changed()",
    "CREATE TRIGGER deployment_changes_not_emptied BEFORE TRUNCATE ON deployment_changes "
    "FOR EACH STATEMENT EXECUTE FUNCTION never_changed()",
    "CREATE TRIGGER evidence_never BEFORE UPDATE OR DELETE ON evidence FOR EACH ROW EXECUTE FUNCTION never_changed()",
    "CREATE TRIGGER evidence_not_emptied BEFORE TRUNCATE ON evidence "
    "FOR EACH STATEMENT EXECUTE FUNCTION never_changed()",
    "CREATE TRIGGER rollout_steps_never BEFORE UPDATE OR DELETE ON rollout_steps "
    "FOR EACH ROW EXECUTE FUNCTION never_changed()",
    "CREATE TRIGGER rollout_steps_not_emptied BEFORE TRUNCATE ON rollout_steps "
    "FOR EACH STATEMENT EXECUTE FUNCTION never_changed()",
)


def upgrade() -> None:
    """Create everything."""
    for create in (
        _alarms,
        _aliases,
        _approvals,
        _checkpoints,
        _contributors,
        _datasets,
        _decision_effects,
        _decisions,
        _deployment_changes,
        _deployments,
        _edges,
        _events,
        _evidence,
        _idempotency,
        _incident_entries,
        _incidents,
        _jobs,
        _judgements,
        _monitor_references,
        _monitors,
        _payloads,
        _policy_bindings,
        _principals,
        _quarantines,
        _releases,
        _retrain_policies,
        _rollout_steps,
        _rollouts,
        _scored_days,
        _services,
        _sessions,
        _snapshots,
        _tokens,
        _triggers,
        _versions,
        _watches,
        _windows,
    ):
        create()
    create_guards(op.get_bind())
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in _NEVER_CHANGED if on_sqlite else _NEVER_CHANGED_ON_POSTGRESQL:
        op.execute(statement)


def _alarms() -> None:
    op.create_table(
        "alarms",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("monitor", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("end", sa.Integer(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("limit", sa.Float(), nullable=False),
        sa.Column("reference", sa.Float(), nullable=False),
        sa.Column("raised_at", sa.BigInteger(), nullable=False),
        sa.Column("incident", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "id", name=op.f("pk_alarms")),
    )


def _aliases() -> None:
    op.create_table(
        "aliases",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "kind", "name", "alias", name=op.f("pk_aliases")),
    )


def _approvals() -> None:
    op.create_table(
        "approvals",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "id", name=op.f("pk_approvals")),
    )
    op.create_index(
        op.f("ix_approvals_project_release_environment"),
        "approvals",
        ["project", "release", "environment"],
        unique=False,
    )


def _checkpoints() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("frontier", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_checkpoints")),
    )


def _contributors() -> None:
    op.create_table(
        "contributors",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("part", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "subject", "person", "part", name=op.f("pk_contributors")),
    )


def _datasets() -> None:
    op.create_table(
        "datasets",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("declared_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "name", name=op.f("pk_datasets")),
    )


def _decision_effects() -> None:
    op.create_table(
        "decision_effects",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "service", "environment", "number", name=op.f("pk_decision_effects")),
    )


def _decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("release_digest", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("findings", sa.Text(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("approvals", sa.Text(), nullable=False),
        sa.Column("approvals_needed", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "id", name=op.f("pk_decisions")),
    )
    op.create_index(
        op.f("ix_decisions_project_release_environment_number"),
        "decisions",
        ["project", "release", "environment", "number"],
        unique=True,
    )


def _deployment_changes() -> None:
    op.create_table(
        "deployment_changes",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("before", sa.Text(), nullable=True),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("rollout", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "service", "environment", "number", name=op.f("pk_deployment_changes")),
    )


def _deployments() -> None:
    op.create_table(
        "deployments",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("good", sa.Text(), nullable=True),
        sa.Column("failed", sa.Text(), nullable=True),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "service", "environment", name=op.f("pk_deployments")),
    )


def _edges() -> None:
    op.create_table(
        "edges",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("relation", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "source", "target", "relation", name=op.f("pk_edges")),
    )
    op.create_index(op.f("ix_edges_project_target"), "edges", ["project", "target"], unique=False)


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("on_behalf_of", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("before_digest", sa.Text(), nullable=False),
        sa.Column("after_digest", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("payload_commitment", sa.Text(), nullable=False),
        sa.Column("prev_hash", sa.Text(), nullable=False),
        sa.Column("leaf_hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_events")),
    )
    op.create_index(op.f("ix_events_project_object_seq"), "events", ["project", "object", "seq"], unique=False)
    op.create_index(op.f("ix_events_project_seq"), "events", ["project", "seq"], unique=False)


def _evidence() -> None:
    op.create_table(
        "evidence",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "id", name=op.f("pk_evidence")),
    )
    op.create_index(
        op.f("ix_evidence_project_subject_kind_number"),
        "evidence",
        ["project", "subject", "kind", "number"],
        unique=False,
    )


def _idempotency() -> None:
    op.create_table(
        "idempotency",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "actor", "key", name=op.f("pk_idempotency")),
    )
    op.create_index(op.f("ix_idempotency_created_at"), "idempotency", ["created_at"], unique=False)


def _incident_entries() -> None:
    op.create_table(
        "incident_entries",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("incident", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("project", "incident", "number", name=op.f("pk_incident_entries")),
    )


def _incidents() -> None:
    op.create_table(
        "incidents",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("resolved_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("project", "id", name=op.f("pk_incidents")),
    )


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("unique_key", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "id", name=op.f("pk_jobs")),
    )
    op.create_index(op.f("ix_jobs_project_number"), "jobs", ["project", "number"], unique=True)
    op.create_index(op.f("ix_jobs_project_state_number"), "jobs", ["project", "state", "number"], unique=False)
    op.create_index(op.f("ix_jobs_project_unique_key"), "jobs", ["project", "unique_key"], unique=False)


def _judgements() -> None:
    op.create_table(
        "judgements",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("monitor", sa.Text(), nullable=False),
        sa.Column("end", sa.Integer(), nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("labelled", sa.Integer(), nullable=False),
        sa.Column("maturity", sa.Float(), nullable=True),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("limit", sa.Float(), nullable=True),
        sa.Column("reference", sa.Float(), nullable=True),
        sa.Column("detectable", sa.Float(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "monitor", "end", name=op.f("pk_judgements")),
    )


def _monitor_references() -> None:
    op.create_table(
        "monitor_references",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("monitor", sa.Text(), nullable=False),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("end", sa.Integer(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("limits", sa.JSON(), nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "monitor", "release", name=op.f("pk_monitor_references")),
    )


def _monitors() -> None:
    op.create_table(
        "monitors",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("last_end", sa.Integer(), nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("project", "name", name=op.f("pk_monitors")),
    )


def _payloads() -> None:
    op.create_table(
        "payloads",
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_payloads")),
    )


def _policy_bindings() -> None:
    op.create_table(
        "policy_bindings",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("bound_at", sa.BigInteger(), nullable=False),
        sa.Column("bound_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "environment", name=op.f("pk_policy_bindings")),
    )


def _principals() -> None:
    op.create_table(
        "principals",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "id", name=op.f("pk_principals")),
    )
    op.create_index(op.f("ix_principals_kind_name"), "principals", ["kind", "name"], unique=True)


def _quarantines() -> None:
    op.create_table(
        "quarantines",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("window", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("blocked", sa.Boolean(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("blob", sa.Text(), nullable=True),
        sa.Column("findings", sa.JSON(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.Column("mended_by", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("project", "id", name=op.f("pk_quarantines")),
    )
    op.create_index(
        op.f("ix_quarantines_project_dataset_window"), "quarantines", ["project", "dataset", "window"], unique=False
    )


def _releases() -> None:
    op.create_table(
        "releases",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("manifest", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("project", "id", name=op.f("pk_releases")),
        sa.UniqueConstraint("project", "number", name=op.f("uq_releases_project_number")),
    )
    op.create_index(
        op.f("ix_releases_project_service_number"), "releases", ["project", "service", "number"], unique=False
    )


def _retrain_policies() -> None:
    op.create_table(
        "retrain_policies",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("seen", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("project", "model", name=op.f("pk_retrain_policies")),
    )


def _rollout_steps() -> None:
    op.create_table(
        "rollout_steps",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("rollout", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("percent", sa.Float(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "rollout", "number", name=op.f("pk_rollout_steps")),
    )


def _rollouts() -> None:
    op.create_table(
        "rollouts",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("champion", sa.Text(), nullable=False),
        sa.Column("challenger", sa.Text(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("canary", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("step_started_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("cursor", sa.Text(), nullable=True),
        sa.Column("judging", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "id", name=op.f("pk_rollouts")),
    )
    op.create_index(
        op.f("ix_rollouts_project_service_environment_started_at"),
        "rollouts",
        ["project", "service", "environment", "started_at"],
        unique=False,
    )
    op.create_index(
        "uq_rollouts_running",
        "rollouts",
        ["project", "service", "environment"],
        unique=True,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )


def _scored_days() -> None:
    op.create_table(
        "scored_days",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("project", "service", "day", "release", "role", name=op.f("pk_scored_days")),
    )


def _services() -> None:
    op.create_table(
        "services",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("declared_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "name", name=op.f("pk_services")),
    )


def _sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("project", "id", name=op.f("pk_sessions")),
    )


def _snapshots() -> None:
    op.create_table(
        "snapshots",
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_snapshots")),
    )


def _tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("roles", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("parent", sa.Text(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("project", "id", name=op.f("pk_tokens")),
    )
    op.create_index(op.f("ix_tokens_id"), "tokens", ["id"], unique=True)
    op.create_index(op.f("ix_tokens_parent"), "tokens", ["parent"], unique=False)


def _triggers() -> None:
    op.create_table(
        "triggers",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("job", sa.Text(), nullable=True),
        sa.Column("release", sa.Text(), nullable=True),
        sa.Column("requester", sa.Text(), nullable=False),
        sa.Column("raised_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("project", "id", name=op.f("pk_triggers")),
    )
    op.create_index(
        op.f("ix_triggers_project_model_reason_source"),
        "triggers",
        ["project", "model", "reason", "source"],
        unique=True,
    )


def _versions() -> None:
    op.create_table(
        "versions",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("blobs", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "id", "name", name=op.f("pk_versions")),
        sa.UniqueConstraint("project", "kind", "name", "number", name=op.f("uq_versions_project_kind_name_number")),
    )


def _watches() -> None:
    op.create_table(
        "watches",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("prediction_cursor", sa.Text(), nullable=True),
        sa.Column("label_cursor", sa.Text(), nullable=True),
        sa.Column("pending", sa.LargeBinary(), nullable=False),
        sa.Column("delay_days", sa.Integer(), nullable=False),
        sa.Column("invalid_labels", sa.Integer(), nullable=False),
        sa.Column("forgotten_labels", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("project", "service", name=op.f("pk_watches")),
    )


def _windows() -> None:
    op.create_table(
        "windows",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("grain", sa.Text(), nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("labelled", sa.Integer(), nullable=False),
        sa.Column("due", sa.Integer(), nullable=False),
        sa.Column("labelled_due", sa.Integer(), nullable=False),
        sa.Column("positives", sa.Integer(), nullable=False),
        sa.Column("corrected", sa.Integer(), nullable=False),
        sa.Column("fallbacks", sa.Integer(), nullable=False),
        sa.Column("roc_auc", sa.Float(), nullable=True),
        sa.Column("lower", sa.Float(), nullable=True),
        sa.Column("upper", sa.Float(), nullable=True),
        sa.Column("judged_rows", sa.Integer(), nullable=False),
        sa.Column("brier", sa.Float(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "service", "release", "role", "grain", "start", name=op.f("pk_windows")),
    )
