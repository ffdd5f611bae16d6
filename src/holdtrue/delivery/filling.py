"""Feature views are kept filled: a worker takes in what the online store lacks of releases that answer or soon may.

Data planes take events for the views of releases that they have loaded. What came before, and what comes as accepted
windows alone, is taken from history: by jobs that go on where the last one was, as often as a view has to be fresh.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from holdtrue import catalog, data, governance, monitoring, pipelines
from holdtrue.core.actor import SYSTEM
from holdtrue.core.canonical import content_hash
from holdtrue.core.clock import microseconds
from holdtrue.core.codec import dump
from holdtrue.core.jobs import JobKind
from holdtrue.delivery import store
from holdtrue.delivery.model import PRODUCTION, Deployment
from holdtrue.delivery.watching_features import Trouble, settle
from holdtrue.features import FeatureSet, View, microseconds_of
from holdtrue.governance import Outcome
from holdtrue.pipelines import Job, JobFilter, JobState
from holdtrue.serving.acks import read_acks
from holdtrue.storage import Stores
from holdtrue.storage.ledger import Transaction, WriteContext

INCIDENT: Final = "filling"
_JOBS: Final = 100
_CANDIDATES: Final = 3
_PARTS: Final = 4
"""A view is filled this many times in the span by which it may be old."""
_SHORTEST: Final = timedelta(seconds=5)
_LONGEST: Final = timedelta(minutes=15)
_PATIENCE: Final = timedelta(hours=1)
"""How long a fill may take of views that say nothing of their freshness."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is known of a service whose views are kept filled.

    `features` are the versions of its releases that answer or soon may, `views` their views, and `waiting` those of
    them that are in no release which all data planes have loaded. `data` are the present versions of datasets.
    """

    service: str
    features: tuple[str, ...]
    views: tuple[View, ...]
    waiting: tuple[View, ...]
    data: Mapping[str, str]
    job: Job | None
    incident: str | None

    @property
    def state(self) -> dict[str, Any]:
        """Return what a fill is about; when it is another one than the last time, there is something to take."""
        named = {name: sorted(content_hash(dump(view))[:16] for view in views) for name, views in self._groups}
        return {**named, "data": dict(self.data)}

    @property
    def _groups(self) -> tuple[tuple[str, tuple[View, ...]], ...]:
        return (("views", self.views), ("waiting", self.waiting))

    @property
    def shortest(self) -> timedelta | None:
        """Return the smallest span by which a view may be old, None if no view says one."""
        spans = [microseconds_of(view.freshness) for view in self.views if view.freshness is not None]
        return timedelta(microseconds=min(spans)) if spans else None

    def is_settled(self, now: datetime) -> bool:
        """Tell whether there is an incident if the views are not filled, and none if they are."""
        behind = self.behind(now)
        return behind is None or bool(behind) == (self.incident is not None)

    @property
    def period(self) -> timedelta:
        """Return how often rows that come are taken."""
        return _LONGEST if self.shortest is None else min(_LONGEST, max(_SHORTEST, self.shortest / _PARTS))

    def behind(self, now: datetime) -> str | None:
        """Return what keeps the views from being filled, “” if nothing does, None while that is open."""
        job = self.job
        if job is None or job.state is JobState.DONE:
            return ""
        if job.state is JobState.DEAD:
            return f"The feature views of {self.service} cannot be filled. {job.reason}"
        since = now - job.created_at
        if since <= max(_SHORTEST, self.shortest or _PATIENCE):
            return None
        what = "no worker has taken it" if job.state is JobState.QUEUED else f"{job.worker} has not ended it"
        waited = f"{since.total_seconds():,.0f} seconds"
        return f"Rows for the feature views of {self.service} wait to be taken in: {what} for {waited}."


def fill_features(stores: Stores, project: str) -> list[str]:
    """Ask for what is to be filled in each service of a project, and return the services for which anything was done.

    A fill that fails, or that is not done within the span by which a view may be old, opens an incident of the kind
    “filling”; the next one that is done resolves it.
    """
    now = stores.clock.now()
    done: list[str] = []
    for each in _look_with_acks(stores, project):
        came = _is_due(stores, project, each, now)

        def work(tx: Transaction, each: _Kept = each, came: bool = came) -> bool:
            # What is open now decides: two passes at a time ask once.
            present = [
                found for found in _look(tx.connection, project, _loaded(stores)) if found.service == each.service
            ]
            return any(_act(tx, found, now, came) for found in present)

        if (came or not each.is_settled(now)) and stores.ledger.write(WriteContext(SYSTEM, project), work):
            done.append(each.service)
    return done


def _look_with_acks(stores: Stores, project: str) -> list[_Kept]:
    loaded = _loaded(stores)
    return stores.ledger.read(lambda connection: _look(connection, project, loaded))


def _loaded(stores: Stores) -> frozenset[str]:
    """Return the releases that every worker of the data planes has."""
    acks = read_acks(stores.home)
    return frozenset[str].intersection(*(each.releases for each in acks)) if acks else frozenset()


def _look(connection: sa.Connection, project: str, loaded: frozenset[str]) -> list[_Kept]:
    deployed: dict[str, list[Deployment]] = {}
    for each in store.list_deployments(connection, project):
        deployed.setdefault(each.service, []).append(each)
    found: list[_Kept] = []
    versions: dict[str, str] | None = None
    for service in store.list_services(connection, project):
        name = service.spec.name
        if service.spec.kind != "model":
            continue
        releases = _releases(connection, project, name, deployed.get(name, ()))
        sets = {each: _features(connection, project, each) for each in releases}
        kept = {version: views for version, views in sets.values() if views}
        if not kept:
            continue
        if versions is None:
            versions = _data(connection, project)
        served = {view for each in releases if each in loaded for view in sets[each][1]}
        views = tuple(dict.fromkeys(view for each in kept.values() for view in each))
        jobs = pipelines.jobs(connection, project, JobFilter(kind=JobKind.FILL, limit=_JOBS))
        incidents = monitoring.incidents(connection, project, service=name, kind=INCIDENT, unresolved=True)
        found.append(
            _Kept(
                name,
                tuple(sorted(kept)),
                views,
                tuple(view for view in views if view not in served),
                versions,
                next((each for each in jobs if each.payload.get("service") == name), None),
                incidents[0].id if incidents else None,
            )
        )
    return found


def _releases(connection: sa.Connection, project: str, service: str, deployed: Sequence[Deployment]) -> list[str]:
    """Return the releases of a service that answer, and the newest ones that may be promoted."""
    answering = [each.release for each in deployed]
    for each in deployed:
        running = store.running_rollout(connection, project, service, each.environment)
        if running is not None:
            answering.append(running.challenger)
    found = dict.fromkeys(answering)
    for release in catalog.releases(connection, project, service, limit=_CANDIDATES):
        if release.id in found:
            # What is older than one that answers was passed over.
            break
        decision = governance.latest_decision(connection, project, release.id, PRODUCTION)
        if decision is not None and decision.outcome in (Outcome.ALLOWED, Outcome.WAITING):
            found[release.id] = None
    return [*found]


def _features(connection: sa.Connection, project: str, release: str) -> tuple[str, tuple[View, ...]]:
    pinned = catalog.release(connection, project, release).manifest.versions.get("features")
    content: Any = None if pinned is None else catalog.get(connection, project, pinned).content
    return pinned or "", FeatureSet.from_json(content).views if content and "views" in content else ()


def _data(connection: sa.Connection, project: str) -> dict[str, str]:
    found = {name: data.latest(connection, project, name) for name in data.datasets(connection, project)}
    return {name: version.id for name, version in found.items() if version is not None}


def _is_due(stores: Stores, project: str, each: _Kept, now: datetime) -> bool:
    """Tell whether there is anything to take: other releases or data than the last time, or events for who waits."""
    job = each.job
    if job is None:
        return True
    if job.state not in (JobState.DONE, JobState.DEAD):
        return False
    if any(job.payload.get(name) != value for name, value in each.state.items()):
        return True
    if now - job.created_at < each.period:
        return False
    if job.state is JobState.DEAD:
        return True
    taken = job.result.get("taken", ()) if isinstance(job.result, dict) else ()
    cursors = {one["source"]: one["events_until"] for one in taken}
    sources = {view.source for view in each.waiting} & cursors.keys()
    return any(_came(stores, project, source, cursors[source]) for source in sorted(sources))


def _came(stores: Stores, project: str, source: str, cursor: str) -> bool:
    rows, _ = stores.journal.tail("event", project, source, cursor, columns=("id",))
    return rows.num_rows > 0


def _act(tx: Transaction, each: _Kept, now: datetime, came: bool) -> bool:
    acted = False
    if came and (each.job is None or each.job.state in (JobState.DONE, JobState.DEAD)):
        payload = {"service": each.service, "features": [*each.features], **each.state, "now": microseconds(now)}
        pipelines.enqueue(tx, JobKind.FILL, payload, unique_key=f"{JobKind.FILL}:{each.service}")
        acted = True
    trouble = Trouble(each.service, INCIDENT, f"Feature views of {each.service} are not filled", each.behind(now) or "")
    return (not each.is_settled(now) and settle(tx, trouble, each.incident)) or acted
