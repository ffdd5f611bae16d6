"""Bring what is served to what is wished: one snapshot, one recorded step at a time.

Every pass computes the wished snapshot from the ledger, gives it the next sequence number if it is new, writes
the file if the file is not it, and then looks at what the data planes say of it. A crash anywhere leaves
a state from which the next pass goes on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson
import sqlalchemy as sa

from holdtrue import catalog, llm, monitoring
from holdtrue.core.actor import SYSTEM
from holdtrue.core.canonical import content_hash
from holdtrue.core.codec import dump
from holdtrue.core.errors import NotFound
from holdtrue.delivery import bundles, changing, store
from holdtrue.delivery.backing import backup_of
from holdtrue.delivery.model import Deployment, DeploymentState, NotDeployable, RolloutState, Stop
from holdtrue.delivery.rules import ranked, standing
from holdtrue.delivery.stopping import constant
from holdtrue.serving import Application, Bundle, Route, Snapshot, write_snapshot
from holdtrue.serving.acks import Ack, read_acks
from holdtrue.storage import Stores
from holdtrue.storage.ledger import Transaction, WriteContext

_STANDING_BY: Final = 4


@dataclass(frozen=True, slots=True)
class Wished:
    """Hold what the ledger asks data planes to serve, of all projects."""

    services: Mapping[str, Route]
    releases: Mapping[str, Bundle]
    applications: Mapping[str, Application]
    gateway: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Return the hash of all of it."""
        return content_hash(
            {
                "services": {name: dump(route) for name, route in self.services.items()},
                "releases": {name: dump(each) for name, each in self.releases.items()},
                "applications": {name: dump(each) for name, each in self.applications.items()},
                "gateway": dict(self.gateway),
            }
        )

    @property
    def empty(self) -> bool:
        """Tell whether nothing is asked for."""
        return not (self.services or self.gateway)

    def snapshot(self, sequence: int, issued_at: datetime) -> Snapshot:
        """Return the routing snapshot that says so."""
        return Snapshot(
            sequence,
            issued_at,
            dict(self.services),
            dict(self.releases),
            dict(self.applications),
            dict(self.gateway),
        )


def reconcile(stores: Stores, project: str) -> list[str]:
    """Issue the wished snapshot and take in what data planes say of it; return the steps that were taken."""
    done = _mark_beginnings(stores, project)
    done += _issue(stores)
    latest = stores.ledger.read(store.latest_snapshot)
    if latest is None:
        return done
    current = [ack for ack in read_acks(stores.home) if ack.sequence >= latest[0]]
    if not current:
        return done
    for deployment in stores.ledger.read(lambda connection: store.list_deployments(connection, project)):
        done += _compare(stores, project, deployment, current)
    return done


def wished(connection: sa.Connection) -> Wished:
    """Return what the ledger asks for, of all projects.

    A request that names no environment is answered from the first of production, staging and dev (then others by
    name) in which its service is deployed; each other one answers the requests that name it.
    """
    deployed: dict[tuple[str, str], list[Deployment]] = {}
    for project, deployment in store.all_deployments(connection):
        deployed.setdefault((project, deployment.service), []).append(deployment)
    routes: dict[str, Route] = {}
    models: dict[str, Bundle] = {}
    applications: dict[str, Application] = {}
    for (project, _), found in sorted(deployed.items()):
        for place, deployment in enumerate(ranked(found)):
            made = _route(connection, project, deployment)
            route = replace(made, environment=deployment.environment, named=place > 0)
            routes[f"{project}/{route.name}"] = route
            _collect(connection, project, route, models, applications)
            for each in _standing_by(connection, project, deployment):
                models.setdefault(each.release, each)
    return Wished(routes, models, applications, llm.gateway_config(connection))


def _collect(
    connection: sa.Connection,
    project: str,
    route: Route,
    models: dict[str, Bundle],
    applications: dict[str, Application],
) -> None:
    """Add what a route's releases need to answer."""
    for name in route.releases:
        if name in models or name in applications:
            continue
        found = catalog.release(connection, project, name)
        if bundles.is_application(found):
            applications[name] = bundles.application(connection, project, found)
        else:
            models[name] = bundles.bundle(connection, project, found)


def _standing_by(connection: sa.Connection, project: str, deployment: Deployment) -> list[Bundle]:
    """Return the releases that answered before this one: a request may name one, which is loaded then."""
    changes = store.list_changes(connection, project, deployment.service, deployment.environment)
    names = dict.fromkeys(each.release for each in reversed(standing(changes)) if each.release != deployment.release)
    found: list[Bundle] = []
    for name in [*names][:_STANDING_BY]:
        try:
            release = catalog.release(connection, project, name)
            if not bundles.is_application(release):
                found.append(bundles.bundle(connection, project, release))
        except (NotFound, NotDeployable):
            continue
    return found


def _route(connection: sa.Connection, project: str, deployment: Deployment) -> Route:
    champion = catalog.release(connection, project, deployment.release)
    running = store.running_rollout(connection, project, deployment.service, deployment.environment)
    declared = store.service(connection, project, deployment.service)
    spec = None if declared is None else declared.spec
    shadows = [] if spec is None else _known(connection, project, deployment, spec.shadows)
    route = bundles.route(project, champion, running, shadows)
    backup = backup_of(connection, project, deployment, spec).release
    route = replace(route, backup=backup, rate=0.0 if spec is None else spec.rate)
    stop = store.stop(connection, project, deployment.service, deployment.environment)
    return route if stop is None else _switched_off(route, stop, answers=bundles.is_application(champion))


def _switched_off(route: Route, stop: Stop, *, answers: bool) -> Route:
    """Return the route while its service is switched off, with the safe default that was given."""
    if stop.answer is None:
        return replace(route, stopped=stop.reason)
    if answers:
        return replace(route, stopped=stop.reason, words=stop.answer)
    return replace(route, stopped=stop.reason, fallback=constant(stop.answer))


def _known(connection: sa.Connection, project: str, deployment: Deployment, shadows: tuple[str, ...]) -> list[str]:
    """Return the declared shadows that can be served; a typing error there must not stop the service."""
    found: list[str] = []
    for name in shadows:
        try:
            release = catalog.release(connection, project, name)
            bundles.bundle(connection, project, release)
        except (NotFound, NotDeployable):
            continue
        if release.service == deployment.service:
            found.append(name)
    return found


def _mark_beginnings(stores: Stores, project: str) -> list[str]:
    """Note where in the journal a new rollout's records will begin, before any data plane hears of it."""
    running = stores.ledger.read(
        lambda connection: store.list_rollouts(connection, project, state=RolloutState.RUNNING)
    )
    done: list[str] = []
    for rollout in (each for each in running if each.cursor is None):
        # A stream that nobody writes: only the places are wanted, which are the same for all streams.
        _, cursor = stores.journal.tail("none", project, rollout.service, None)

        def work(tx: Transaction, name: str = rollout.id, cursor: str = cursor) -> None:
            store.mark_beginning(tx, name, cursor)

        stores.ledger.write(WriteContext(SYSTEM, project), work)
        done.append(f"rollout {rollout.id}: records from here on")
    return done


def _issue(stores: Stores) -> list[str]:
    """Record the wished snapshot if it is new, and put it into the file if the file is not it."""

    def look(connection: sa.Connection) -> tuple[Wished, Any]:
        return wished(connection), store.latest_snapshot(connection)

    wanted, latest = stores.ledger.read(look)
    done: list[str] = []
    if (latest is None and not wanted.empty) or (latest is not None and latest[1] != wanted.digest):
        sequence, issued_at, wanted = stores.ledger.write(WriteContext(SYSTEM, ""), _record)
        done.append(f"snapshot {sequence}: issued")
    elif latest is None:
        return done
    else:
        sequence, _, issued_at = latest
    path = stores.home / "routing" / "current.json"
    if _sequence_of(path) != sequence:
        write_snapshot(path, wanted.snapshot(sequence, issued_at))
        done.append(f"snapshot {sequence}: written")
    return done


def _record(tx: Transaction) -> tuple[int, datetime, Wished]:
    wanted = wished(tx.connection)
    digest = wanted.digest
    latest = store.latest_snapshot(tx.connection)
    if latest is not None and latest[1] == digest:
        return latest[0], latest[2], wanted
    sequence = 1 if latest is None else latest[0] + 1
    store.insert_snapshot(tx, sequence, digest)
    tx.emit(
        "snapshot.issued",
        f"snapshot:{sequence}",
        {
            "services": sorted(wanted.services),
            "releases": sorted([*wanted.releases, *wanted.applications]),
            "gateway": sorted(wanted.gateway),
        },
        before="" if latest is None else latest[1],
        after=digest,
    )
    return sequence, tx.now, wanted


def _sequence_of(path: Path) -> int | None:
    try:
        return int(orjson.loads(path.read_bytes())["sequence"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _compare(stores: Stores, project: str, deployment: Deployment, acks: list[Ack]) -> list[str]:
    """Take the step that the data planes' answers ask for, if any."""
    failed = {name: why for ack in acks for name, why in ack.failed.items()}
    loaded = all(deployment.release in ack.releases for ack in acks)
    where = f"{deployment.service} in {deployment.environment}"
    context = WriteContext(SYSTEM, project)
    running = stores.ledger.read(
        lambda connection: store.running_rollout(connection, project, deployment.service, deployment.environment)
    )
    done: list[str] = []
    if running is not None and running.challenger in failed:
        reason = failed[running.challenger]
        stores.ledger.write(context, lambda tx: _challenger_failed(tx, running.id, reason))
        done.append(f"{where}: challenger {running.challenger} cannot be loaded")
    if deployment.release in failed and deployment.state is not DeploymentState.FAILED:
        reason = failed[deployment.release]
        stores.ledger.write(context, lambda tx: _release_failed(tx, deployment, reason))
        done.append(f"{where}: {deployment.release} cannot be loaded")
    elif loaded and _comes_alive(deployment):
        sequence = max(ack.sequence for ack in acks)
        stores.ledger.write(context, lambda tx: _alive(tx, deployment, sequence))
        done.append(f"{where}: {deployment.release} is live")
    return done


def _comes_alive(deployment: Deployment) -> bool:
    if deployment.state is DeploymentState.PENDING:
        return True
    # A failed one that fell back on its last good release stays marked until somebody promotes another.
    return deployment.state is DeploymentState.FAILED and deployment.failed == deployment.release


def _challenger_failed(tx: Transaction, name: str, reason: str) -> None:
    rollout = store.rollout(tx.connection, tx.project, name)
    if rollout.state is RolloutState.RUNNING:
        why = f"A data plane could not load it: {reason}"
        changing.end_rollout(tx, rollout, RolloutState.ROLLED_BACK, why, {})


def _release_failed(tx: Transaction, seen: Deployment, reason: str) -> None:
    """Mark a deployment as failed and go back to the last good release, if there is one."""
    present = store.deployment(tx.connection, tx.project, seen.service, seen.environment)
    if present is None or present.release != seen.release or present.state is not seen.state:
        return
    why = f"The release {seen.release} could not be loaded: {reason}"
    back = None
    if present.good not in (None, present.release):
        past = store.list_changes(tx.connection, tx.project, seen.service, seen.environment)
        back = next((each for each in reversed(past) if each.release == present.good), None)
    if back is not None:
        changing.set_release(
            tx,
            service=seen.service,
            environment=seen.environment,
            release=back.release,
            decision=back.decision,
            action="rolled_back",
            reason=why,
            failed=seen.release,
        )
    else:
        changing.mark(tx, present, DeploymentState.FAILED, failed=seen.release, why=why)
    tx.emit(
        "deployment.failed",
        seen.service,
        {"environment": seen.environment, "release": seen.release},
        reason=why,
    )
    monitoring.open_incident(
        tx,
        service=seen.service,
        kind="deployment",
        title=f"A release of {seen.service} could not be loaded",
        release=seen.release,
        text=why,
        data={"environment": seen.environment, "kept": back.release if back else None},
    )


def _alive(tx: Transaction, seen: Deployment, sequence: int) -> None:
    present = store.deployment(tx.connection, tx.project, seen.service, seen.environment)
    if present is None or present.release != seen.release or present.state is not seen.state:
        return
    changing.mark(tx, present, DeploymentState.LIVE, good=present.release, sequence=sequence)
    tx.emit(
        "deployment.live",
        seen.service,
        {
            "environment": seen.environment,
            "release": seen.release,
            "snapshot": sequence,
            # From the wish, such as a rollback, until all data planes have it.
            "seconds": round((tx.now - seen.updated_at).total_seconds(), 3),
        },
    )
    deployed = [each for each in store.list_deployments(tx.connection, tx.project) if each.service == seen.service]
    if all(each.state is not DeploymentState.FAILED for each in deployed):
        # One incident tells of all environments of a service.
        again = "answers again" if seen.state is DeploymentState.FAILED else "answers now"
        words = f"The release {seen.release} {again} in {seen.environment}."
        monitoring.resolve_service(tx, seen.service, words, kinds=("deployment",))
