"""The few moves that change what is deployed; each leaves its row and its event in one transaction."""

from dataclasses import replace
from typing import Any, Final, Literal

from holdtrue import catalog, governance, monitoring
from holdtrue.catalog import Release
from holdtrue.core.ids import new_id
from holdtrue.delivery import bundles, store
from holdtrue.delivery.model import (
    DEPLOYMENT_MOVES,
    ROLLOUT_MOVES,
    Canary,
    Change,
    Deployment,
    DeploymentState,
    Rollout,
    RolloutState,
    RolloutStep,
    move,
)
from holdtrue.delivery.strategies import strategy_of
from holdtrue.storage.ledger import Transaction

_SETTLED: Final = ("quality", "rollout", "deployment")


def set_release(
    tx: Transaction,
    *,
    service: str,
    environment: str,
    release: str,
    decision: str,
    action: Literal["deployed", "rolled_back"],
    reason: str = "",
    rollout: str | None = None,
    failed: str | None = None,
) -> Deployment:
    """Wish for `release` in an environment, and record the change, the event and the decision's effect.

    With `failed`, the release before could not be loaded: the deployment is marked so.
    """
    before = store.deployment(tx.connection, tx.project, service, environment)
    wanted = DeploymentState.FAILED if failed else DeploymentState.PENDING
    state = wanted if before is None else move("deployment", DEPLOYMENT_MOVES, before.state, wanted)
    row = Deployment(
        service=service,
        environment=environment,
        release=release,
        decision=decision,
        state=state,
        good=None if before is None else before.good,
        failed=failed,
        why=reason,
        sequence=0,
        updated_at=tx.now,
    )
    store.put_deployment(tx, row)
    _record_change(tx, row, None if before is None else before.release, action, rollout)
    governance.record_effect(tx, governance.decision(tx.connection, tx.project, decision), "deployed")
    _point_alias(tx, release, environment)
    tx.seal()
    return row


def _record_change(
    tx: Transaction,
    row: Deployment,
    before: str | None,
    action: Literal["deployed", "rolled_back"],
    rollout: str | None,
) -> None:
    past = store.list_changes(tx.connection, tx.project, row.service, row.environment)
    change = Change(
        service=row.service,
        environment=row.environment,
        number=len(past) + 1,
        action=action,
        release=row.release,
        before=before,
        decision=row.decision,
        rollout=rollout,
        reason=row.why,
        time=tx.now,
        actor=tx.context.actor.id,
    )
    store.insert_change(tx, change)
    tx.emit(
        "deployment.changed",
        row.service,
        {
            "environment": row.environment,
            "action": action,
            "release": row.release,
            "decision": row.decision,
            "rollout": rollout,
            "number": change.number,
        },
        before=before or "",
        after=row.release,
        reason=row.why,
    )


def mark(
    tx: Transaction,
    deployment: Deployment,
    state: DeploymentState,
    *,
    good: str | None = None,
    failed: str | None = None,
    why: str = "",
    sequence: int | None = None,
) -> Deployment:
    """Note how far a deployment is, without changing what is wished."""
    row = replace(
        deployment,
        state=move("deployment", DEPLOYMENT_MOVES, deployment.state, state),
        good=good or deployment.good,
        failed=failed,
        why=why,
        sequence=deployment.sequence if sequence is None else sequence,
        updated_at=tx.now,
    )
    store.put_deployment(tx, row)
    return row


def _point_alias(tx: Transaction, release: str, environment: str) -> None:
    """Let the environment's alias follow what is deployed: the model, or all parts of an application."""
    versions = catalog.release(tx.connection, tx.project, release).manifest.versions
    for role in ("model", *bundles.APPLICATION_ROLES):
        pinned = versions.get(role)
        if pinned is not None:
            asset = catalog.get(tx.connection, tx.project, pinned)
            catalog.set_alias(tx, asset.kind, asset.name, environment, pinned)


def start_rollout(
    tx: Transaction, release: Release, champion: str, environment: str, decision: str, canary: Canary
) -> Rollout:
    """Begin to let `release` take over from `champion`, step by step."""
    rollout = Rollout(
        id=new_id("rol", tx.now),
        service=release.service,
        environment=environment,
        champion=champion,
        challenger=release.id,
        decision=decision,
        canary=canary,
        state=RolloutState.RUNNING,
        step=0,
        started_at=tx.now,
        step_started_at=tx.now,
        ended_at=None,
        cursor=None,
        judging=None,
        verdict=None,
        reason="",
    )
    store.put_rollout(tx, rollout)
    record_step(tx, rollout, "started", f"The gate allowed it ({decision}).", {})
    tx.seal()
    return rollout


def advance_rollout(tx: Transaction, rollout: Rollout, why: str, facts: Any) -> Rollout:
    """Give a challenger its next share."""
    move("rollout", ROLLOUT_MOVES, rollout.state, RolloutState.RUNNING)
    judging = strategy_of(rollout.canary).load(rollout.judging).next_step().to_json()
    row = replace(rollout, step=rollout.step + 1, step_started_at=tx.now, judging=judging)
    store.put_rollout(tx, row)
    record_step(tx, row, "advanced", why, facts)
    return row


def move_share(tx: Transaction, before: Rollout, after: Rollout, why: str, facts: Any) -> None:
    """Record that a bandit gives a challenger another share, if it does."""
    if after.percent != before.percent:
        words = f"It gets {after.percent:g} % of the answers, after {before.percent:g} %. {why}"
        record_step(tx, after, "advanced", words, facts)


def end_rollout(
    tx: Transaction,
    rollout: Rollout,
    state: Literal[RolloutState.PROMOTED, RolloutState.ROLLED_BACK, RolloutState.STOPPED],
    why: str,
    facts: Any,
) -> Rollout:
    """End a rollout: the challenger takes over, or the champion stays."""
    wanted = move("rollout", ROLLOUT_MOVES, rollout.state, state)
    judging = None if rollout.judging is None else {**rollout.judging, "waiting": {}}
    row = replace(rollout, state=wanted, ended_at=tx.now, reason=why, judging=judging)
    store.put_rollout(tx, row)
    match wanted:
        case RolloutState.PROMOTED:
            record_step(tx, row, "promoted", why, facts)
            promoted(tx, row)
        case RolloutState.ROLLED_BACK:
            record_step(tx, row, "rolled_back", why, facts)
            monitoring.open_incident(
                tx,
                service=row.service,
                kind="rollout",
                title=f"A rollout of {row.service} was rolled back",
                release=row.challenger,
                text=why,
                data={"rollout": row.id},
            )
        case _:
            record_step(tx, row, "stopped", why, facts)
    tx.seal()
    return row


def promoted(tx: Transaction, rollout: Rollout) -> None:
    """Deploy the challenger of a finished rollout, on the decision that let it start."""
    decision = governance.decision(tx.connection, tx.project, rollout.decision)
    release = catalog.release(tx.connection, tx.project, rollout.challenger)
    # The decision was made on exactly these bytes; anything else is not what was allowed.
    if (
        decision.release != release.id
        or decision.release_digest != governance.manifest_digest(release)
        or decision.environment != rollout.environment
        or decision.outcome is not governance.Outcome.ALLOWED
    ):
        raise governance.NotAllowed.of(decision)
    set_release(
        tx,
        service=rollout.service,
        environment=rollout.environment,
        release=rollout.challenger,
        decision=rollout.decision,
        action="deployed",
        rollout=rollout.id,
    )
    monitoring.resolve_service(
        tx, rollout.service, f"The release {rollout.challenger} took over ({rollout.id}).", kinds=_SETTLED
    )


def record_step(
    tx: Transaction,
    rollout: Rollout,
    action: Literal["started", "advanced", "promoted", "rolled_back", "stopped"],
    why: str,
    facts: Any,
) -> None:
    """Record what was done in a rollout and what was known then."""
    number = len(store.list_steps(tx.connection, tx.project, rollout.id)) + 1
    percent = 100.0 if action == "promoted" else rollout.percent
    store.insert_step(tx, RolloutStep(rollout.id, number, action, percent, why, facts, tx.now))
    tx.emit(
        f"rollout.{action}",
        rollout.id,
        {
            "service": rollout.service,
            "environment": rollout.environment,
            "champion": rollout.champion,
            "challenger": rollout.challenger,
            "percent": percent,
            "why": why,
        },
        before=rollout.champion,
        after=rollout.challenger,
    )
