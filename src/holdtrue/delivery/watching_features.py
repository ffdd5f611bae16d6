"""Features in production: incidents where a view misses its freshness, or where answers do not replay."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from holdtrue import catalog, governance, monitoring, pipelines
from holdtrue.core.actor import SYSTEM
from holdtrue.core.clock import microseconds
from holdtrue.core.errors import HoldtrueError
from holdtrue.core.jobs import JobKind
from holdtrue.delivery import store
from holdtrue.delivery.model import PRODUCTION, Deployment, ServiceSpec
from holdtrue.features import FeatureSet, View, open_online
from holdtrue.features.freshness import standing
from holdtrue.pipelines import Job, JobFilter, JobState
from holdtrue.storage import Stores
from holdtrue.storage.ledger import Transaction, WriteContext

_JOBS: Final = 100


@dataclass(frozen=True, slots=True)
class Trouble:
    """Say what is wrong with a service's features, as the incident of a kind will; no text: nothing is."""

    service: str
    kind: str
    title: str
    text: str
    release: str = ""


@dataclass(frozen=True, slots=True)
class _Watched:
    """What is known of a service in production: release, views, last replay, evidence of replays, open incidents."""

    spec: ServiceSpec
    release: str
    views: tuple[View, ...]
    job: Job | None
    reports: tuple[Mapping[str, Any], ...]
    open: Mapping[str, str]

    @property
    def unrecorded(self) -> list[Mapping[str, Any]]:
        """Return the reports of the last replay that are not evidence yet."""
        if self.job is None or self.job.state is not JobState.DONE or not isinstance(self.job.result, dict):
            return []
        known = {each.get("job") for each in self.reports}
        reports = self.job.result.get("reports", ())
        return [each for each in reports if each["release"] == self.release and self.job.id not in known]

    def is_due(self, now: datetime) -> bool:
        """Tell whether answers are to be replayed again."""
        if self.spec.replay_days <= 0.0:
            return False
        if self.job is None:
            return True
        ended = self.job.state in (JobState.DONE, JobState.DEAD)
        return ended and now - self.job.created_at >= timedelta(days=self.spec.replay_days)


def watch_features(stores: Stores, project: str, online: str = "") -> list[str]:
    """Do what is due for the features of each service in production, and return the services for which it was.

    Asks a worker for the replays that services declare, takes their results in as evidence, and opens or resolves
    incidents of the kinds “freshness” and “parity”. `online` is the address of the server with online features.
    """
    now = stores.clock.now()
    watched = stores.ledger.read(lambda connection: _look(connection, project))
    done: list[str] = []
    for each in watched:
        stale = _stale(stores, project, each, now, online)

        def work(tx: Transaction, each: _Watched = each, stale: str | None = stale) -> bool:
            # What is wanted by what is open now: two passes at a time open one incident.
            present = [found for found in _look(tx.connection, project) if found.spec.name == each.spec.name]
            return any(_act(tx, found, stale, now) for found in present)

        if _wants(each, stale, now) and stores.ledger.write(WriteContext(SYSTEM, project), work):
            done.append(each.spec.name)
    return done


def _look(connection: sa.Connection, project: str) -> list[_Watched]:
    """Return the services in production that declare something about their features."""
    found: list[_Watched] = []
    deployed = {each.service: each.release for each in store.list_deployments(connection, project) if _is_live(each)}
    for service in store.list_services(connection, project):
        release = deployed.get(service.name)
        if release is None or service.spec.kind != "model":
            continue
        pinned = catalog.release(connection, project, release).manifest.versions.get("features")
        content = None if pinned is None else catalog.get(connection, project, pinned).content
        views = FeatureSet.from_json(content).views if content and "views" in content else ()
        if service.spec.replay_days <= 0.0 and all(view.freshness is None for view in views):
            continue
        jobs = pipelines.jobs(connection, project, JobFilter(kind=JobKind.REPLAY, limit=_JOBS))
        job = next((each for each in jobs if each.payload.get("service") == service.name), None)
        evidence = governance.evidence_of(connection, project, release)
        reports = tuple(each.content for each in evidence if each.kind == JobKind.REPLAY and each.subject == release)
        incidents = monitoring.incidents(connection, project, service=service.name, unresolved=True)
        open_ones = {each.kind: each.id for each in incidents if each.kind in ("freshness", "parity")}
        found.append(_Watched(service.spec, release, views, job, reports, open_ones))
    return found


def _is_live(deployment: Deployment) -> bool:
    return deployment.environment == PRODUCTION


def _stale(stores: Stores, project: str, each: _Watched, now: datetime, online: str) -> str | None:
    """Return what is wrong with the freshness of a service's views, None if nothing is."""
    views = [view for view in each.views if view.freshness is not None]
    if not views:
        return None
    folder = stores.home / "online"
    newest: Sequence[int | None] = [None] * len(views)
    if online or (folder / project).is_dir():
        try:
            kept = open_online(folder, project, online)
            try:
                newest = kept.newest(views)
            finally:
                kept.close()
        except HoldtrueError as error:
            return f"{error.what} {error.why}".strip()
    missed = [one.sentence for one in standing(views, newest, microseconds(now)) if one.misses]
    return " ".join(missed) or None


def _wants(each: _Watched, stale: str | None, now: datetime) -> bool:
    """Tell whether there is anything to write, so that an idle pass writes nothing."""
    unequal = _unequal(each)
    return (
        bool(each.unrecorded)
        or each.is_due(now)
        or (stale is not None) != ("freshness" in each.open)
        or (unequal is not None and (unequal != "") != ("parity" in each.open))
    )


def _unequal(each: _Watched) -> str | None:
    """Return what is wrong with the newest replay of the release, “” for nothing, None where there is no replay."""
    if not each.reports or each.spec.replay_days <= 0.0:
        return None
    newest = each.reports[-1]
    if newest["rate"] <= each.spec.replay_most:
        return ""
    features = ", ".join(list(newest.get("features", {}))[:5])
    return (
        f"{newest['rate']:.2%} of {newest['rows']} answers have other features than history gives; "
        f"{each.spec.replay_most:.2%} may: {features}."
    )


def _act(tx: Transaction, each: _Watched, stale: str | None, now: datetime) -> bool:
    recorded = [*each.reports]
    for report in each.unrecorded:
        assert each.job is not None
        content = {**{name: value for name, value in report.items() if name != "release"}, "job": each.job.id}
        governance.record_evidence(tx, JobKind.REPLAY, each.release, content)
        recorded.append(content)
    acted = len(recorded) > len(each.reports)
    if each.is_due(now):
        pipelines.enqueue(
            tx, JobKind.REPLAY, {"service": each.spec.name}, unique_key=f"{JobKind.REPLAY}:{each.spec.name}"
        )
        acted = True
    present = _Watched(each.spec, each.release, each.views, each.job, tuple(recorded), each.open)
    unequal = _unequal(present)
    name = each.spec.name
    late = Trouble(name, "freshness", f"Features of {name} are out of date", stale or "", each.release)
    moved = settle(tx, late, each.open.get(late.kind))
    if unequal is not None:
        odd = Trouble(name, "parity", f"Features of {name} are not what history gives", unequal, each.release)
        moved |= settle(tx, odd, each.open.get(odd.kind))
    return acted or moved


def settle(tx: Transaction, trouble: Trouble, incident: str | None) -> bool:
    """Open an incident for what is wrong, or resolve the open one where nothing is; tell whether either was done."""
    if trouble.text and incident is None:
        monitoring.open_incident(
            tx,
            service=trouble.service,
            kind=trouble.kind,
            title=trouble.title,
            text=trouble.text,
            release=trouble.release,
        )
        return True
    if not trouble.text and incident is not None:
        monitoring.resolve(tx, incident, "It is as it should be again.")
        return True
    return False
