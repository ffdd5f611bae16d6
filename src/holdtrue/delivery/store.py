"""All SQL of this room: services, switches, deployments, changes, rollouts, steps, triggers, snapshots."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
import sqlalchemy as sa

from holdtrue.core.codec import dump, load
from holdtrue.core.errors import NotFound
from holdtrue.delivery.model import (
    Canary,
    Change,
    Deployment,
    DeploymentState,
    RetrainSpec,
    Rollout,
    RolloutState,
    RolloutStep,
    Service,
    ServiceSpec,
    Stop,
    Trigger,
    TriggerState,
)
from holdtrue.storage.ledger import Timestamp, Transaction, metadata, project_table, scoped

services = project_table(
    "services",
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("declared_at", Timestamp, nullable=False),
)

retrains = project_table(
    "retrain_policies",
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("service", sa.Text, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("seen", sa.Integer, nullable=False),
)

deployments = project_table(
    "deployments",
    sa.Column("service", sa.Text, primary_key=True),
    sa.Column("environment", sa.Text, primary_key=True),
    sa.Column("release", sa.Text, nullable=False),
    sa.Column("decision", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("good", sa.Text, nullable=True),
    sa.Column("failed", sa.Text, nullable=True),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("sequence", sa.Integer, nullable=False),
    sa.Column("updated_at", Timestamp, nullable=False),
)

stops = project_table(
    "service_stops",
    sa.Column("service", sa.Text, primary_key=True),
    sa.Column("environment", sa.Text, primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("answer", sa.Text, nullable=True),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("actor_name", sa.Text, nullable=False),
    sa.Column("since", Timestamp, nullable=False),
)

changes = project_table(
    "deployment_changes",
    sa.Column("service", sa.Text, primary_key=True),
    sa.Column("environment", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("release", sa.Text, nullable=False),
    sa.Column("before", sa.Text, nullable=True),
    sa.Column("decision", sa.Text, nullable=False),
    sa.Column("rollout", sa.Text, nullable=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("time", Timestamp, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
)

rollouts = project_table(
    "rollouts",
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("service", sa.Text, nullable=False),
    sa.Column("environment", sa.Text, nullable=False),
    sa.Column("champion", sa.Text, nullable=False),
    sa.Column("challenger", sa.Text, nullable=False),
    sa.Column("decision", sa.Text, nullable=False),
    sa.Column("canary", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("started_at", Timestamp, nullable=False),
    sa.Column("step_started_at", Timestamp, nullable=False),
    sa.Column("ended_at", Timestamp, nullable=True),
    sa.Column("cursor", sa.Text, nullable=True),
    sa.Column("judging", sa.Text, nullable=False),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Index(None, "project", "service", "environment", "started_at"),
    # Two challengers at once could not be told apart; the database itself holds that line.
    sa.Index(
        "uq_rollouts_running",
        "project",
        "service",
        "environment",
        unique=True,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    ),
)

steps = project_table(
    "rollout_steps",
    sa.Column("rollout", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("percent", sa.Float, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("facts", sa.Text, nullable=False),
    sa.Column("time", Timestamp, nullable=False),
)

triggers = project_table(
    "triggers",
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("service", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("job", sa.Text, nullable=True),
    sa.Column("release", sa.Text, nullable=True),
    sa.Column("requester", sa.Text, nullable=False),
    sa.Column("raised_at", Timestamp, nullable=False),
    sa.Column("ended_at", Timestamp, nullable=True),
    # One reason raises one trigger, however often the loop looks.
    sa.Index(None, "project", "model", "reason", "source", unique=True),
)

# A snapshot holds the routes of all projects, so its row has no project.
snapshots = sa.Table(
    "snapshots",
    metadata,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("issued_at", Timestamp, nullable=False),
)


def put_service(tx: Transaction, spec: ServiceSpec) -> None:
    """Set a service's declaration."""
    mine = (services.c.project == tx.project) & (services.c.name == spec.name)
    tx.execute(services.delete().where(mine))
    tx.execute(services.insert().values(project=tx.project, name=spec.name, spec=_text(dump(spec)), declared_at=tx.now))


def service(connection: sa.Connection, project: str, name: str) -> Service | None:
    """Return a declared service, or None."""
    row = connection.execute(scoped(services, project).where(services.c.name == name)).one_or_none()
    return None if row is None else _service(row)


def drop_service(tx: Transaction, name: str) -> bool:
    """Forget a service's declaration; tell whether there was one."""
    mine = (services.c.project == tx.project) & (services.c.name == name)
    return bool(tx.execute(services.delete().where(mine)).rowcount)


def list_services(connection: sa.Connection, project: str) -> list[Service]:
    """Return the project's services by name."""
    rows = connection.execute(scoped(services, project).order_by(services.c.name))
    return [_service(row) for row in rows]


def put_retrain(tx: Transaction, spec: RetrainSpec, seen: int) -> None:
    """Set when a model is retrained; `seen` is the last event of the log that was looked at for it."""
    mine = (retrains.c.project == tx.project) & (retrains.c.model == spec.model)
    tx.execute(retrains.delete().where(mine))
    tx.execute(
        retrains.insert().values(
            project=tx.project, model=spec.model, service=spec.service, spec=_text(dump(spec)), seen=seen
        )
    )


def drop_retrain(tx: Transaction, model: str) -> bool:
    """Forget when a model is retrained; tell whether it was declared."""
    mine = (retrains.c.project == tx.project) & (retrains.c.model == model)
    return bool(tx.execute(retrains.delete().where(mine)).rowcount)


def list_retrains(connection: sa.Connection, project: str) -> list[tuple[RetrainSpec, int]]:
    """Return the project's retrain declarations, each with the last event that was looked at."""
    rows = connection.execute(scoped(retrains, project).order_by(retrains.c.model))
    return [(load(RetrainSpec, orjson.loads(row.spec), "A retrain"), row.seen) for row in rows]


def newest_event(connection: sa.Connection) -> int:
    """Return the sequence number of the newest event of the log, 0 for none."""
    log = metadata.tables["events"]
    return int(connection.execute(sa.select(sa.func.coalesce(sa.func.max(log.c.seq), 0))).scalar_one())


def put_deployment(tx: Transaction, row: Deployment) -> None:
    """Set a deployment."""
    mine = (
        (deployments.c.project == tx.project)
        & (deployments.c.service == row.service)
        & (deployments.c.environment == row.environment)
    )
    tx.execute(deployments.delete().where(mine))
    tx.execute(
        deployments.insert().values(
            project=tx.project,
            service=row.service,
            environment=row.environment,
            release=row.release,
            decision=row.decision,
            state=row.state.value,
            good=row.good,
            failed=row.failed,
            why=row.why,
            sequence=row.sequence,
            updated_at=row.updated_at,
        )
    )


def deployment(connection: sa.Connection, project: str, service: str, environment: str) -> Deployment | None:
    """Return what is deployed of a service in an environment, or None."""
    row = connection.execute(
        scoped(deployments, project).where(deployments.c.service == service, deployments.c.environment == environment)
    ).one_or_none()
    return None if row is None else _deployment(row)


def list_deployments(connection: sa.Connection, project: str) -> list[Deployment]:
    """Return the project's deployments by service and environment."""
    rows = connection.execute(scoped(deployments, project).order_by(deployments.c.service, deployments.c.environment))
    return [_deployment(row) for row in rows]


def all_deployments(connection: sa.Connection) -> list[tuple[str, Deployment]]:
    """Return (project, deployment) of the whole house: one snapshot serves all projects."""
    rows = connection.execute(
        sa.select(deployments).order_by(deployments.c.project, deployments.c.service, deployments.c.environment)
    )
    return [(row.project, _deployment(row)) for row in rows]


def put_stop(tx: Transaction, row: Stop) -> None:
    """Note that a service is switched off."""
    drop_stop(tx, row.service, row.environment)
    tx.execute(stops.insert().values(project=tx.project, **{name: getattr(row, name) for name in Stop.__slots__}))


def drop_stop(tx: Transaction, service: str, environment: str) -> None:
    """Forget that a service is switched off."""
    tx.execute(
        stops.delete().where(
            stops.c.project == tx.project, stops.c.service == service, stops.c.environment == environment
        )
    )


def stop(connection: sa.Connection, project: str, service: str, environment: str) -> Stop | None:
    """Return the switch of a service in an environment, None while it answers."""
    found = list_stops(connection, project)
    return next((each for each in found if (each.service, each.environment) == (service, environment)), None)


def list_stops(connection: sa.Connection, project: str) -> list[Stop]:
    """Return what is switched off, by service and environment."""
    rows = connection.execute(scoped(stops, project).order_by(stops.c.service, stops.c.environment))
    return [Stop(**{name: row[name] for name in Stop.__slots__}) for row in rows.mappings()]


def insert_change(tx: Transaction, row: Change) -> None:
    """Add a change of what is deployed."""
    tx.execute(
        changes.insert().values(
            project=tx.project,
            service=row.service,
            environment=row.environment,
            number=row.number,
            action=row.action,
            release=row.release,
            before=row.before,
            decision=row.decision,
            rollout=row.rollout,
            reason=row.reason,
            time=row.time,
            actor=row.actor,
        )
    )


def list_changes(connection: sa.Connection, project: str, service: str, environment: str | None = None) -> list[Change]:
    """Return the changes of what is deployed of a service, oldest first."""
    query = scoped(changes, project).where(changes.c.service == service)
    if environment is not None:
        query = query.where(changes.c.environment == environment)
    rows = connection.execute(query.order_by(changes.c.time, changes.c.environment, changes.c.number))
    return [Change(**{name: row[name] for name in Change.__slots__}) for row in rows.mappings()]


def put_rollout(tx: Transaction, row: Rollout) -> None:
    """Set a rollout."""
    tx.execute(rollouts.delete().where(rollouts.c.project == tx.project, rollouts.c.id == row.id))
    tx.execute(
        rollouts.insert().values(
            project=tx.project,
            id=row.id,
            service=row.service,
            environment=row.environment,
            champion=row.champion,
            challenger=row.challenger,
            decision=row.decision,
            canary=_text(dump(row.canary)),
            state=row.state.value,
            step=row.step,
            started_at=row.started_at,
            step_started_at=row.step_started_at,
            ended_at=row.ended_at,
            cursor=row.cursor,
            judging=_text(row.judging),
            verdict=_text(row.verdict),
            reason=row.reason,
        )
    )


def mark_beginning(tx: Transaction, rollout: str, cursor: str) -> None:
    """Note from where in the journal a rollout's records are read, if that is not known yet."""
    tx.execute(
        rollouts.update()
        .where(rollouts.c.project == tx.project, rollouts.c.id == rollout, rollouts.c.cursor.is_(None))
        .values(cursor=cursor)
    )


def rollout(connection: sa.Connection, project: str, name: str) -> Rollout:
    """Return a rollout; raise NotFound."""
    row = connection.execute(scoped(rollouts, project).where(rollouts.c.id == name)).one_or_none()
    if row is None:
        raise NotFound.of("rollout", name)
    return _rollout(row)


def running_rollout(connection: sa.Connection, project: str, service: str, environment: str) -> Rollout | None:
    """Return the rollout under way in a service's environment, or None."""
    row = connection.execute(
        scoped(rollouts, project).where(
            rollouts.c.service == service,
            rollouts.c.environment == environment,
            rollouts.c.state == RolloutState.RUNNING.value,
        )
    ).one_or_none()
    return None if row is None else _rollout(row)


def list_rollouts(
    connection: sa.Connection,
    project: str,
    *,
    service: str | None = None,
    state: RolloutState | None = None,
    limit: int = 100,
) -> list[Rollout]:
    """Return rollouts, newest first."""
    query = scoped(rollouts, project)
    if service is not None:
        query = query.where(rollouts.c.service == service)
    if state is not None:
        query = query.where(rollouts.c.state == state.value)
    rows = connection.execute(query.order_by(rollouts.c.started_at.desc(), rollouts.c.id.desc()).limit(limit))
    return [_rollout(row) for row in rows]


def insert_step(tx: Transaction, row: RolloutStep) -> None:
    """Add a recorded step of a rollout."""
    tx.execute(
        steps.insert().values(
            project=tx.project,
            rollout=row.rollout,
            number=row.number,
            action=row.action,
            percent=row.percent,
            why=row.why,
            facts=_text(row.facts),
            time=row.time,
        )
    )


def list_steps(connection: sa.Connection, project: str, rollout: str) -> list[RolloutStep]:
    """Return the recorded steps of a rollout, in order."""
    rows = connection.execute(scoped(steps, project).where(steps.c.rollout == rollout).order_by(steps.c.number))
    return [
        RolloutStep(row.rollout, row.number, row.action, row.percent, row.why, orjson.loads(row.facts), row.time)
        for row in rows
    ]


def put_trigger(tx: Transaction, row: Trigger) -> None:
    """Set a trigger."""
    tx.execute(triggers.delete().where(triggers.c.project == tx.project, triggers.c.id == row.id))
    values = {name: getattr(row, name) for name in Trigger.__slots__}
    values["detail"] = _text(row.detail)
    values["state"] = row.state.value
    tx.execute(triggers.insert().values(project=tx.project, **values))


def trigger(connection: sa.Connection, project: str, name: str) -> Trigger | None:
    """Return a trigger, or None."""
    row = connection.execute(scoped(triggers, project).where(triggers.c.id == name)).one_or_none()
    return None if row is None else _trigger(row)


def trigger_from(connection: sa.Connection, project: str, model: str, reason: str, source: str) -> Trigger | None:
    """Return the trigger that a source raised for a model, or None."""
    row = connection.execute(
        scoped(triggers, project).where(
            triggers.c.model == model, triggers.c.reason == reason, triggers.c.source == source
        )
    ).one_or_none()
    return None if row is None else _trigger(row)


def list_triggers(
    connection: sa.Connection,
    project: str,
    *,
    service: str | None = None,
    states: Sequence[TriggerState] = (),
    limit: int | None = None,
) -> list[Trigger]:
    """Return triggers, newest first."""
    query = scoped(triggers, project)
    if service is not None:
        query = query.where(triggers.c.service == service)
    if states:
        query = query.where(triggers.c.state.in_([state.value for state in states]))
    query = query.order_by(triggers.c.raised_at.desc(), triggers.c.id.desc())
    return [_trigger(row) for row in connection.execute(query if limit is None else query.limit(limit))]


def latest_snapshot(connection: sa.Connection) -> tuple[int, str, datetime] | None:
    """Return sequence, digest and time of the newest routing snapshot, or None."""
    row = connection.execute(sa.select(snapshots).order_by(snapshots.c.sequence.desc()).limit(1)).one_or_none()
    return None if row is None else (row.sequence, row.digest, row.issued_at)


def insert_snapshot(tx: Transaction, sequence: int, digest: str) -> None:
    """Add a routing snapshot."""
    tx.execute(snapshots.insert().values(sequence=sequence, digest=digest, issued_at=tx.now))


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()


def _service(row: sa.Row[Any]) -> Service:
    return Service(row.name, load(ServiceSpec, orjson.loads(row.spec), "A service"), row.declared_at)


def _deployment(row: sa.Row[Any]) -> Deployment:
    return Deployment(
        row.service,
        row.environment,
        row.release,
        row.decision,
        DeploymentState(row.state),
        row.good,
        row.failed,
        row.why,
        row.sequence,
        row.updated_at,
    )


def _rollout(row: sa.Row[Any]) -> Rollout:
    return Rollout(
        id=row.id,
        service=row.service,
        environment=row.environment,
        champion=row.champion,
        challenger=row.challenger,
        decision=row.decision,
        canary=load(Canary, orjson.loads(row.canary), "A canary"),
        state=RolloutState(row.state),
        step=row.step,
        started_at=row.started_at,
        step_started_at=row.step_started_at,
        ended_at=row.ended_at,
        cursor=row.cursor,
        judging=orjson.loads(row.judging),
        verdict=orjson.loads(row.verdict),
        reason=row.reason,
    )


def _trigger(row: sa.Row[Any]) -> Trigger:
    return Trigger(
        id=row.id,
        service=row.service,
        model=row.model,
        reason=row.reason,
        source=row.source,
        detail=orjson.loads(row.detail),
        state=TriggerState(row.state),
        why=row.why,
        job=row.job,
        release=row.release,
        requester=row.requester,
        raised_at=row.raised_at,
        ended_at=row.ended_at,
    )
