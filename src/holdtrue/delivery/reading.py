"""What other rooms may look at: services, deployments, their history, rollouts, triggers."""

import sqlalchemy as sa

from holdtrue.core.errors import NotFound
from holdtrue.delivery import store
from holdtrue.delivery.model import (
    PRODUCTION,
    Change,
    Deployment,
    RetrainSpec,
    Rollout,
    RolloutState,
    RolloutStep,
    Service,
    Stop,
    Trigger,
)
from holdtrue.delivery.rules import ranked


def services(connection: sa.Connection, project: str) -> list[Service]:
    """Return the declared services by name."""
    return store.list_services(connection, project)


def find_service(connection: sa.Connection, project: str, name: str) -> Service:
    """Return a declared service; raise NotFound."""
    found = store.service(connection, project, name)
    if found is None:
        raise NotFound.of("service", name)
    return found


def retrains(connection: sa.Connection, project: str) -> list[RetrainSpec]:
    """Return the retrain declarations by model."""
    return [spec for spec, _ in store.list_retrains(connection, project)]


def deployments(connection: sa.Connection, project: str) -> list[Deployment]:
    """Return what is deployed, by service; first where requests are answered that name no environment."""
    found = store.list_deployments(connection, project)
    return sorted(ranked(found), key=lambda each: each.service)


def deployment(
    connection: sa.Connection, project: str, service: str, environment: str = PRODUCTION
) -> Deployment | None:
    """Return what is deployed of a service in an environment, or None."""
    return store.deployment(connection, project, service, environment)


def stream(connection: sa.Connection, project: str, service: str, environment: str = PRODUCTION) -> str:
    """Return under which name the records of a service are kept that were answered in an environment."""
    mine = [each for each in store.list_deployments(connection, project) if each.service == service]
    first = ranked(mine)[0].environment if mine else environment
    return service if environment == first else f"{service}@{environment}"


def stops(connection: sa.Connection, project: str, service: str | None = None) -> list[Stop]:
    """Return what is switched off, of one service or of all."""
    return [each for each in store.list_stops(connection, project) if service in (None, each.service)]


def changes(connection: sa.Connection, project: str, service: str) -> list[Change]:
    """Return every change of what is deployed of a service, oldest first."""
    return store.list_changes(connection, project, service)


def rollouts(
    connection: sa.Connection,
    project: str,
    *,
    service: str | None = None,
    state: RolloutState | None = None,
    limit: int = 100,
) -> list[Rollout]:
    """Return rollouts, newest first."""
    return store.list_rollouts(connection, project, service=service, state=state, limit=limit)


def rollout(connection: sa.Connection, project: str, name: str) -> Rollout:
    """Return a rollout; raise NotFound."""
    return store.rollout(connection, project, name)


def rollout_steps(connection: sa.Connection, project: str, rollout: str) -> list[RolloutStep]:
    """Return the recorded steps of a rollout, in order."""
    return store.list_steps(connection, project, rollout)


def triggers(
    connection: sa.Connection, project: str, *, service: str | None = None, limit: int | None = None
) -> list[Trigger]:
    """Return reasons to retrain and what became of them, newest first."""
    return store.list_triggers(connection, project, service=service, limit=limit)
