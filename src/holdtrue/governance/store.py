"""All SQL of this room: evidence, policy bindings, decisions, approvals, contributors, effects."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import sqlalchemy as sa

from holdtrue.core.codec import dump
from holdtrue.governance.model import Approval, Decision, Evidence, Finding, Outcome
from holdtrue.storage.ledger import Timestamp, Transaction, project_table, scoped

evidence = project_table(
    "evidence",
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("run", sa.Text, nullable=True),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Index(None, "project", "subject", "kind", "number"),
)

policy_bindings = project_table(
    "policy_bindings",
    sa.Column("environment", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("bound_at", Timestamp, nullable=False),
    sa.Column("bound_by", sa.Text, nullable=False),
)

decisions = project_table(
    "decisions",
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("release", sa.Text, nullable=False),
    sa.Column("release_digest", sa.Text, nullable=False),
    sa.Column("service", sa.Text, nullable=False),
    sa.Column("environment", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("policy", sa.Text, nullable=False),
    sa.Column("findings", sa.Text, nullable=False),
    sa.Column("evidence", sa.Text, nullable=False),
    sa.Column("approvals", sa.Text, nullable=False),
    sa.Column("approvals_needed", sa.Integer, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Index(None, "project", "release", "environment", "number", unique=True),
)

approvals = project_table(
    "approvals",
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("release", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("environment", sa.Text, nullable=False),
    sa.Column("person", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("expires_at", Timestamp, nullable=False),
    sa.Index(None, "project", "release", "environment"),
)

contributors = project_table(
    "contributors",
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("person", sa.Text, primary_key=True),
    sa.Column("part", sa.Text, primary_key=True),
)

effects = project_table(
    "decision_effects",
    sa.Column("service", sa.Text, primary_key=True),
    sa.Column("environment", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("decision", sa.Text, nullable=False),
    sa.Column("release", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("time", Timestamp, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Effect:
    """Tell what a decision brought about."""

    decision: str
    release: str
    action: str
    time: datetime


def insert_evidence(tx: Transaction, row: Evidence) -> None:
    """Add evidence as the newest of its kind about its subject."""
    number = _next(tx, evidence, evidence.c.subject == row.subject, evidence.c.kind == row.kind)
    tx.execute(
        evidence.insert().values(
            project=tx.project,
            id=row.id,
            number=number,
            kind=row.kind,
            subject=row.subject,
            content=_text(row.content),
            run=row.run,
            created_at=row.created_at,
            created_by=row.created_by,
        )
    )


def evidence_by_id(connection: sa.Connection, project: str, id: str) -> Evidence | None:
    """Return one piece of evidence, or None."""
    row = connection.execute(scoped(evidence, project).where(evidence.c.id == id)).one_or_none()
    return None if row is None else _evidence(row)


def evidence_of(
    connection: sa.Connection, project: str, subjects: Sequence[str], kind: str | None = None
) -> list[Evidence]:
    """Return the evidence about any of `subjects`, oldest first within a kind and subject."""
    query = scoped(evidence, project).where(evidence.c.subject.in_(subjects))
    if kind is not None:
        query = query.where(evidence.c.kind == kind)
    rows = connection.execute(query.order_by(evidence.c.created_at, evidence.c.number))
    return [_evidence(row) for row in rows]


def bind_policy(tx: Transaction, environment: str, version: str) -> None:
    """Make `version` the policy of `environment`."""
    tx.execute(
        policy_bindings.delete().where(
            policy_bindings.c.project == tx.project, policy_bindings.c.environment == environment
        )
    )
    tx.execute(
        policy_bindings.insert().values(
            project=tx.project,
            environment=environment,
            version=version,
            bound_at=tx.now,
            bound_by=tx.context.actor.id,
        )
    )


def unbind_policy(tx: Transaction, environment: str) -> None:
    """Leave `environment` without a policy."""
    mine = (policy_bindings.c.project == tx.project) & (policy_bindings.c.environment == environment)
    tx.execute(policy_bindings.delete().where(mine))


def bound_policy(connection: sa.Connection, project: str, environment: str) -> str | None:
    """Return the version id of the environment's policy, or None."""
    return connection.execute(
        sa.select(policy_bindings.c.version).where(
            policy_bindings.c.project == project, policy_bindings.c.environment == environment
        )
    ).scalar_one_or_none()


def bound_policies(connection: sa.Connection, project: str) -> dict[str, str]:
    """Return the version id of each environment's policy."""
    rows = connection.execute(scoped(policy_bindings, project).order_by(policy_bindings.c.environment))
    return {row.environment: row.version for row in rows}


def insert_decision(tx: Transaction, row: Decision) -> None:
    """Add a decision."""
    tx.execute(
        decisions.insert().values(
            project=tx.project,
            id=row.id,
            number=row.number,
            release=row.release,
            release_digest=row.release_digest,
            service=row.service,
            environment=row.environment,
            outcome=row.outcome.value,
            policy=row.policy,
            findings=_text([dump(finding) for finding in row.findings]),
            evidence=_text(row.evidence),
            approvals=_text(row.approvals),
            approvals_needed=row.approvals_needed,
            digest=row.digest,
            created_at=row.created_at,
            created_by=row.created_by,
        )
    )


def decision_by_id(connection: sa.Connection, project: str, id: str) -> Decision | None:
    """Return one decision, or None."""
    row = connection.execute(scoped(decisions, project).where(decisions.c.id == id)).one_or_none()
    return None if row is None else _decision(row)


def latest_decision(connection: sa.Connection, project: str, release: str, environment: str) -> Decision | None:
    """Return the newest decision about a release in an environment, or None."""
    row = connection.execute(
        scoped(decisions, project)
        .where(decisions.c.release == release, decisions.c.environment == environment)
        .order_by(decisions.c.number.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else _decision(row)


def list_decisions(
    connection: sa.Connection, project: str, *, release: str | None, service: str | None, limit: int
) -> list[Decision]:
    """Return decisions, newest first."""
    query = scoped(decisions, project)
    if release is not None:
        query = query.where(decisions.c.release == release)
    if service is not None:
        query = query.where(decisions.c.service == service)
    order = (decisions.c.created_at.desc(), decisions.c.number.desc(), decisions.c.id)
    return [_decision(row) for row in connection.execute(query.order_by(*order).limit(limit))]


def insert_approval(tx: Transaction, row: Approval) -> None:
    """Add an approval."""
    tx.execute(approvals.insert().values(project=tx.project, **dump_row(row)))


def dump_row(row: Approval) -> dict[str, Any]:
    """Return an approval's columns."""
    return {
        "id": row.id,
        "release": row.release,
        "digest": row.digest,
        "environment": row.environment,
        "person": row.person,
        "name": row.name,
        "reason": row.reason,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
    }


def approvals_of(
    connection: sa.Connection, project: str, release: str, environment: str | None = None
) -> list[Approval]:
    """Return the approvals of a release, expired ones too, oldest first."""
    query = scoped(approvals, project).where(approvals.c.release == release)
    if environment is not None:
        query = query.where(approvals.c.environment == environment)
    rows = connection.execute(query.order_by(approvals.c.created_at, approvals.c.id))
    return [Approval(**{name: row[name] for name in Approval.__slots__}) for row in rows.mappings()]


def add_contributors(tx: Transaction, subject: str, persons: Iterable[str], part: str) -> None:
    """Note that `persons` took `part` in making `subject`."""
    known = {
        row.person
        for row in tx.execute(
            scoped(contributors, tx.project).where(contributors.c.subject == subject, contributors.c.part == part)
        )
    }
    for person in sorted(set(persons) - known):
        tx.execute(contributors.insert().values(project=tx.project, subject=subject, person=person, part=part))


def contributors_of(connection: sa.Connection, project: str, subjects: Sequence[str]) -> dict[str, set[str]]:
    """Return the persons who took part in making any of `subjects`, with their parts."""
    found: dict[str, set[str]] = {}
    for row in connection.execute(scoped(contributors, project).where(contributors.c.subject.in_(subjects))):
        found.setdefault(row.person, set()).add(row.part)
    return found


def insert_effect(tx: Transaction, service: str, environment: str, effect: Effect) -> None:
    """Add what a decision brought about."""
    number = _next(tx, effects, effects.c.service == service, effects.c.environment == environment)
    tx.execute(
        effects.insert().values(
            project=tx.project,
            service=service,
            environment=environment,
            number=number,
            decision=effect.decision,
            release=effect.release,
            action=effect.action,
            time=effect.time,
        )
    )


def effects_of(connection: sa.Connection, project: str, service: str, environment: str) -> list[Effect]:
    """Return what decisions brought about in a service's environment, oldest first."""
    rows = connection.execute(
        scoped(effects, project)
        .where(effects.c.service == service, effects.c.environment == environment)
        .order_by(effects.c.number)
    )
    return [Effect(row.decision, row.release, row.action, row.time) for row in rows]


def _next(tx: Transaction, table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
    query = sa.select(sa.func.coalesce(sa.func.max(table.c.number), 0)).where(table.c.project == tx.project, *where)
    return int(tx.execute(query).scalar_one()) + 1


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()


def _evidence(row: sa.Row[Any]) -> Evidence:
    return Evidence(row.id, row.kind, row.subject, orjson.loads(row.content), row.run, row.created_at, row.created_by)


def _decision(row: sa.Row[Any]) -> Decision:
    return Decision(
        id=row.id,
        number=row.number,
        release=row.release,
        release_digest=row.release_digest,
        service=row.service,
        environment=row.environment,
        outcome=Outcome(row.outcome),
        findings=tuple(Finding(**finding) for finding in orjson.loads(row.findings)),
        policy=row.policy,
        evidence=tuple(orjson.loads(row.evidence)),
        approvals=tuple(orjson.loads(row.approvals)),
        approvals_needed=row.approvals_needed,
        digest=row.digest,
        created_at=row.created_at,
        created_by=row.created_by,
    )
