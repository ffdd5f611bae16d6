"""How fast and how safely changes reach production, by the five measures of DORA, from what was recorded.

The definitions are those of “DORA's software delivery performance metrics” (dora.dev, 2025): change lead time,
deployment frequency, failed deployment recovery time, change fail rate and deployment rework rate. What a system with
models adds: a deployment may change code, data, features, models or prompts, and each is measured on its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import sqlalchemy as sa

from holdtrue import catalog, monitoring
from holdtrue.catalog import Manifest
from holdtrue.core.errors import NotFound
from holdtrue.delivery import store
from holdtrue.delivery.model import PRODUCTION, Change, Rollout, RolloutState, Trigger
from holdtrue.monitoring import Incident
from holdtrue.stats import clopper_pearson

KINDS: Final = ("code", "data", "features", "model", "prompt", "settings")
_ROLES: Final[Mapping[str, str]] = {
    "dataset": "data",
    "features": "features",
    "contract": "features",
    "model": "model",
    "prompt": "prompt",
    "index": "data",
}
# What says how sure answers are is measured anew with each model, and then no change of its own.
_MEASURED: Final = frozenset({"sets", "class_sets", "ranges"})
_MANY: Final = 100_000


@dataclass(frozen=True, slots=True)
class Attempt:
    """Hold one release that met users: when, whether it was deployed, and whether it failed.

    `began_at` is when its rollout began, or when it was deployed; `lead` the seconds from the making of what is new in
    it to its deployment, by kind; `rework` whether an incident of the service was open when it began, or made it.
    """

    service: str
    release: str
    kinds: frozenset[str]
    began_at: datetime
    deployed_at: datetime | None
    failed_at: datetime | None
    lead: Mapping[str, float]
    rework: bool

    @property
    def at(self) -> datetime:
        """Return when it counts: when it was deployed, or else when it failed."""
        return self.deployed_at or self.failed_at or self.began_at

    @property
    def harm(self) -> float | None:
        """Return the seconds from its deployment, or its rollout's beginning, to the way back; None if it stands."""
        if self.failed_at is None:
            return None
        return (self.failed_at - (self.deployed_at or self.began_at)).total_seconds()


@dataclass(frozen=True, slots=True)
class Measures:
    """Hold the five measures of one kind of change (“all”: of every deployment).

    Times are medians in hours; rates have exact 95 % intervals; None where nothing happened that could be measured.
    """

    kind: str
    deployments: int
    per_week: float
    lead_hours: float | None
    attempts: int
    failed: int
    fail_rate: Mapping[str, float | int | None]
    recovery_hours: float | None
    rework: int
    rework_rate: Mapping[str, float | int | None]


def dora(
    connection: sa.Connection,
    project: str,
    since: datetime,
    until: datetime,
    *,
    service: str | None = None,
    environment: str = PRODUCTION,
) -> list[Measures]:
    """Return the measures of what counted at `since` ≤ time < `until`: of all, then by kind; raise NotFound."""
    names = [each.name for each in store.list_services(connection, project)]
    if service is not None and service not in names:
        raise NotFound.of("service", service)
    chosen = names if service is None else [service]
    found = [each for name in chosen for each in attempts(connection, project, name, environment)]
    return measures(found, since, until)


def measures(found: Sequence[Attempt], since: datetime, until: datetime) -> list[Measures]:
    """Return the measures of what happened in a time: of all, then by kind."""
    within = [each for each in found if since <= each.at < until]
    weeks = max((until - since) / timedelta(weeks=1), 1e-9)
    return [
        _measure(kind, [each for each in within if kind in ("all", *each.kinds)], weeks) for kind in ("all", *KINDS)
    ]


def _measure(kind: str, found: Sequence[Attempt], weeks: float) -> Measures:
    deployed = [each for each in found if each.deployed_at is not None]
    failed = [each for each in found if each.failed_at is not None]
    rework = sum(each.rework for each in deployed)
    leads = [max(each.lead.values()) if kind == "all" else each.lead[kind] for each in deployed if _led(each, kind)]
    return Measures(
        kind=kind,
        deployments=len(deployed),
        per_week=len(deployed) / weeks,
        lead_hours=_median_hours(leads),
        attempts=len(found),
        failed=len(failed),
        fail_rate=clopper_pearson(len(failed), len(found)).to_json(),
        recovery_hours=_median_hours([each.harm for each in failed if each.harm is not None]),
        rework=rework,
        rework_rate=clopper_pearson(rework, len(deployed)).to_json(),
    )


def _led(attempt: Attempt, kind: str) -> bool:
    return bool(attempt.lead) if kind == "all" else kind in attempt.lead


def _median_hours(seconds: Sequence[float]) -> float | None:
    return float(np.median(np.asarray(seconds, dtype=np.float64))) / 3600.0 if seconds else None


def attempts(connection: sa.Connection, project: str, service: str, environment: str = PRODUCTION) -> list[Attempt]:
    """Return every release of a service that met users of an environment, in the order in which they counted."""
    changes = store.list_changes(connection, project, service, environment)
    every = store.list_rollouts(connection, project, service=service, limit=_MANY)
    rollouts = {each.id: each for each in every if each.environment == environment}
    book = _Book(
        connection,
        project,
        store.list_triggers(connection, project, service=service),
        tuple(_incidents(connection, project, service)),
    )
    made = _deployed(book, changes, rollouts)
    # What nobody was answered by, such as a shadow, is no change of production.
    made += [
        book.attempt(each.service, each.challenger, each.champion, each.started_at, None, each.ended_at)
        for each in rollouts.values()
        if each.state is RolloutState.ROLLED_BACK and max(each.canary.steps) > 0.0
    ]
    return sorted(made, key=lambda each: each.at)


def _deployed(book: "_Book", changes: Iterable[Change], rollouts: Mapping[str, Rollout]) -> list[Attempt]:
    """Return what was deployed; what a rollback undid has failed."""
    made: list[Attempt] = []
    standing: list[int] = []
    for change in changes:
        if change.action == "deployed":
            rollout = rollouts.get(change.rollout or "")
            began = change.time if rollout is None else rollout.started_at
            made.append(book.attempt(change.service, change.release, change.before, began, change.time, None))
            standing.append(len(made) - 1)
        elif standing:
            undone = standing.pop()
            made[undone] = replace(made[undone], failed_at=change.time)
    return made


def _incidents(connection: sa.Connection, project: str, service: str) -> Iterable[Incident]:
    after: str | None = None
    while page := monitoring.incidents(connection, project, service=service, limit=200, after=after):
        yield from page
        after = page[-1].id


@dataclass(frozen=True, slots=True)
class _Book:
    """Look up what a release consists of, and what was wrong when it came."""

    connection: sa.Connection
    project: str
    triggers: Sequence[Trigger]
    incidents: Sequence[Incident]

    def attempt(
        self,
        service: str,
        release: str,
        before: str | None,
        began_at: datetime,
        deployed_at: datetime | None,
        failed_at: datetime | None,
    ) -> Attempt:
        """Return an attempt with what is new in it since `before`."""
        made = self._new(release, before)
        lead = {} if deployed_at is None else {kind: (deployed_at - at).total_seconds() for kind, at in made.items()}
        return Attempt(
            service,
            release,
            frozenset(made),
            began_at,
            deployed_at,
            failed_at,
            lead,
            self._is_rework(release, began_at),
        )

    def _new(self, release: str, before: str | None) -> dict[str, datetime]:
        """Return the kinds that are new in a release, and when the oldest new part of each was made."""
        found = catalog.release(self.connection, self.project, release)
        now = found.manifest
        old = Manifest(now.service) if before is None else self._manifest(before)
        new: dict[str, datetime] = {}
        for role, version in now.versions.items():
            if old.versions.get(role) != version:
                kind = _ROLES.get(role, "settings")
                made = catalog.get(self.connection, self.project, version).created_at
                new[kind] = min(made, new.get(kind, made))
        # When a commit was written is not known here; the release is made from it, so it is at least as old.
        if (now.commit, now.environment_lock) != (old.commit, old.environment_lock):
            new["code"] = found.created_at
        measured = _MEASURED if "model" in new else frozenset[str]()
        if _without(now.config, measured) != _without(old.config, measured):
            new["settings"] = min(found.created_at, new.get("settings", found.created_at))
        return new

    def _manifest(self, release: str) -> Manifest:
        return catalog.release(self.connection, self.project, release).manifest

    def _is_rework(self, release: str, began_at: datetime) -> bool:
        asked = any(each.release == release and each.reason == "quality" for each in self.triggers)
        return asked or any(
            each.opened_at < began_at and (each.resolved_at is None or each.resolved_at >= began_at)
            for each in self.incidents
        )


def _without(config: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in names}
