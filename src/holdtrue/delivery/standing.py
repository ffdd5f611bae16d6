"""Tell in one answer how a project stands."""

from typing import Any

import sqlalchemy as sa

from holdtrue import data, governance, llm, monitoring
from holdtrue.core.codec import dump
from holdtrue.data import QuarantineState
from holdtrue.delivery import store
from holdtrue.delivery.model import DRILLED, Deployment, Drilled, Rollout, TriggerState
from holdtrue.delivery.rules import ranked
from holdtrue.governance import Decision, Outcome
from holdtrue.storage.ledger import EventFilter, select_events

_RECENT = 200


def status(connection: sa.Connection, project: str) -> dict[str, Any]:
    """Return services with deployments and rollouts, and everything that waits for somebody."""
    deployments = store.list_deployments(connection, project)
    retrains = {spec.service: spec for spec, _ in store.list_retrains(connection, project)}
    stops = store.list_stops(connection, project)
    queued = store.list_triggers(connection, project, states=(TriggerState.QUEUED,))
    services = []
    for each in store.list_services(connection, project):
        drill = last_drill(connection, project, each.name)
        newest = _newest(store.list_rollouts(connection, project, service=each.name, limit=_RECENT))
        services.append(
            {
                "name": each.name,
                "model": each.spec.model,
                "deployments": [describe(one) for one in ranked(deployments) if one.service == each.name],
                "stops": [dump(one) for one in stops if one.service == each.name],
                "rollout": summary(newest[0]) if newest else None,
                "rollouts": [summary(one) for one in newest],
                "retrain": dump(retrains[each.name]) if each.name in retrains else None,
                "drill": None if drill is None else dump(drill),
                "retraining": [one.id for one in queued if one.service == each.name],
            }
        )
    return {
        "project": project,
        "services": services,
        "waiting_approval": [
            {
                "release": each.release,
                "service": each.service,
                "environment": each.environment,
                "decision": each.id,
                "since": each.created_at.isoformat(),
                "approvals": len(each.approvals),
                "approvals_needed": each.approvals_needed,
            }
            for each in waiting(connection, project)
        ],
        "incidents": [dump(each) for each in monitoring.incidents(connection, project, unresolved=True)],
        "gateway": _gateway_stops(connection, project),
        "quarantines": [dump(each) for each in data.quarantines(connection, project, state=QuarantineState.OPEN)],
    }


def last_drill(connection: sa.Connection, project: str, service: str) -> Drilled | None:
    """Return when it was last tried whether a service could go back, to what, in how many seconds; None if never."""
    chosen = EventFilter(project, limit=1, action=DRILLED, object=service, newest_first=True)
    found = select_events(connection, chosen)
    if not found or found[0].payload is None:
        return None
    return Drilled(time=found[0].time, why=found[0].reason, **found[0].payload)


def _newest(rollouts: list[Rollout]) -> list[Rollout]:
    """Return the newest rollout of each environment, newest first."""
    found: dict[str, Rollout] = {}
    for each in rollouts:
        found.setdefault(each.environment, each)
    return list(found.values())


def _gateway_stops(connection: sa.Connection, project: str) -> dict[str, Any]:
    """Return what of the gateway is switched off: why all calls are (None: they are not), and providers."""
    config = llm.gateway_config(connection)
    whole: str | None = None
    providers: dict[str, str] = {}
    # What holds for the whole house holds for each project.
    for name in ("", project):
        mine = config.get("projects", {}).get(name) or {}
        whole = mine.get("stopped") or whole
        providers |= {each["name"]: each["stopped"] for each in mine.get("providers", ()) if each.get("stopped")}
    return {"stopped": whole, "providers": providers}


def waiting(connection: sa.Connection, project: str) -> list[Decision]:
    """Return the newest decision of each release and environment that waits for an approval, newest first."""
    seen: set[tuple[str, str]] = set()
    found: list[Decision] = []
    for each in governance.decisions(connection, project, limit=_RECENT):
        if (each.release, each.environment) in seen:
            continue
        seen.add((each.release, each.environment))
        if each.outcome is Outcome.WAITING:
            found.append(each)
    return found


def describe(row: Deployment) -> dict[str, Any]:
    """Return a deployment as pages and commands show it."""
    return dump(row)


def summary(row: Rollout) -> dict[str, Any]:
    """Return a rollout without its counts, which are only the judge's."""
    return {
        "id": row.id,
        "service": row.service,
        "environment": row.environment,
        "champion": row.champion,
        "challenger": row.challenger,
        "decision": row.decision,
        "state": row.state.value,
        "strategy": row.canary.strategy,
        "metric": row.canary.metric,
        "step": row.step,
        "steps": list(row.canary.steps),
        "percent": row.percent,
        "started_at": row.started_at.isoformat(),
        "step_started_at": row.step_started_at.isoformat(),
        "ended_at": None if row.ended_at is None else row.ended_at.isoformat(),
        "verdict": row.verdict,
        "reason": row.reason,
    }
