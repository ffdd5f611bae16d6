"""Who may do what: roles, permissions, and the one table that joins them."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType


class Role(StrEnum):
    """Name what a person or program is trusted with inside one project."""

    VIEWER = "viewer"
    DEVELOPER = "developer"
    REVIEWER = "reviewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    SERVICE = "service"


class Permission(StrEnum):
    """Name one thing that a route lets its caller do."""

    STATUS_READ = "status.read"
    VERSIONS_READ = "versions.read"
    VERSIONS_WRITE = "versions.write"
    RELEASES_READ = "releases.read"
    RELEASES_WRITE = "releases.write"
    EVIDENCE_READ = "evidence.read"
    EVIDENCE_WRITE = "evidence.write"
    GATES_EVALUATE = "gates.evaluate"
    APPROVALS_WRITE = "approvals.write"
    DEPLOYMENTS_READ = "deployments.read"
    DEPLOYMENTS_WRITE = "deployments.write"
    SERVICES_STOP = "services.stop"
    ROLLOUTS_READ = "rollouts.read"
    INCIDENTS_READ = "incidents.read"
    INCIDENTS_WRITE = "incidents.write"
    JOBS_READ = "jobs.read"
    JOBS_WRITE = "jobs.write"
    JOBS_LEASE = "jobs.lease"
    PROJECT_APPLY = "project.apply"
    DATA_READ = "data.read"
    DATA_WRITE = "data.write"
    DATA_ERASE = "data.erase"
    ACTIVITY_READ = "activity.read"
    PREDICTIONS_READ = "predictions.read"
    PREDICT = "predict"
    LABELS_WRITE = "labels.write"
    EVENTS_WRITE = "events.write"
    RUNS_READ = "runs.read"
    RUNS_WRITE = "runs.write"
    TRACES_READ = "traces.read"
    TRACES_WRITE = "traces.write"
    GATEWAY_READ = "gateway.read"
    GATEWAY_WRITE = "gateway.write"
    TOKENS_WRITE = "tokens.write"
    AUDIT_READ = "audit.read"
    OPERATIONS_RUN = "operations.run"


_READ = frozenset(
    {
        Permission.STATUS_READ,
        Permission.VERSIONS_READ,
        Permission.RELEASES_READ,
        Permission.EVIDENCE_READ,
        Permission.DEPLOYMENTS_READ,
        Permission.ROLLOUTS_READ,
        Permission.INCIDENTS_READ,
        Permission.JOBS_READ,
        Permission.DATA_READ,
        Permission.ACTIVITY_READ,
        Permission.PREDICTIONS_READ,
        Permission.AUDIT_READ,
        Permission.RUNS_READ,
        Permission.TRACES_READ,
        Permission.GATEWAY_READ,
    }
)
_RECORD = frozenset({Permission.PREDICT, Permission.LABELS_WRITE, Permission.EVENTS_WRITE, Permission.TRACES_WRITE})

PERMISSIONS: Mapping[Role, frozenset[Permission]] = MappingProxyType(
    {
        Role.VIEWER: _READ,
        Role.DEVELOPER: _READ
        | _RECORD
        | {
            Permission.VERSIONS_WRITE,
            Permission.RUNS_WRITE,
            Permission.RELEASES_WRITE,
            Permission.EVIDENCE_WRITE,
            Permission.GATES_EVALUATE,
            Permission.JOBS_WRITE,
            Permission.JOBS_LEASE,
            Permission.PROJECT_APPLY,
            Permission.DATA_WRITE,
            Permission.INCIDENTS_WRITE,
            # Whoever is there when a model does harm may end it; to let it answer again is the operator's.
            Permission.SERVICES_STOP,
        },
        Role.REVIEWER: _READ | {Permission.APPROVALS_WRITE, Permission.GATES_EVALUATE},
        Role.OPERATOR: _READ
        | {
            Permission.DEPLOYMENTS_WRITE,
            Permission.SERVICES_STOP,
            Permission.GATES_EVALUATE,
            Permission.INCIDENTS_WRITE,
            Permission.OPERATIONS_RUN,
            Permission.DATA_ERASE,
        },
        # An administrator decides who may act, and therefore neither approves nor deploys.
        Role.ADMIN: _READ | {Permission.TOKENS_WRITE, Permission.GATEWAY_WRITE, Permission.DATA_ERASE},
        Role.SERVICE: _RECORD
        | {
            Permission.STATUS_READ,
            Permission.RUNS_READ,
            Permission.RUNS_WRITE,
            Permission.JOBS_LEASE,
            Permission.JOBS_READ,
            Permission.VERSIONS_READ,
            Permission.DATA_READ,
            Permission.RELEASES_READ,
            Permission.DEPLOYMENTS_READ,
        },
    }
)


def allowed(roles: Iterable[Role], permission: Permission) -> bool:
    """Tell whether any of `roles` grants `permission`."""
    return any(permission in PERMISSIONS[role] for role in roles)
