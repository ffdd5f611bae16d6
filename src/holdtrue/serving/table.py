"""What a data plane serves at this moment: loaded releases and compiled plans, replaced as a whole."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from holdtrue.core.errors import HoldtrueError
from holdtrue.features.vector import FeatureSet
from holdtrue.serving.applications import LoadedApplication, Plans, plan_applications
from holdtrue.serving.plan import Loaded, Plan, compile_plan
from holdtrue.serving.residence import Key, pin
from holdtrue.serving.snapshot import Application, Bundle, Route, Snapshot, first_environments, planned_name

P = TypeVar("P")
L = TypeVar("L")


@dataclass(frozen=True, slots=True)
class Loaders:
    """Hold what makes a release ready to answer: a model's bundle, an application's parts."""

    model: Callable[[Bundle], Loaded]
    application: Callable[[Application], LoadedApplication]


@dataclass(frozen=True, slots=True)
class Table:
    """Hold the plans of services by (project, service), of single releases by (project, service, release).

    `failed` says for each release of the snapshot that could not be loaded, why; `unserved` names services
    of the snapshot that have no plan at all. `standby` are releases that no route needs: they are loaded when somebody
    asks for one; `routes` are those of all services, `size` the bytes that the loaded releases take.
    """

    sequence: int = -1
    plans: Mapping[tuple[str, str], Plan] = field(default_factory=dict[tuple[str, str], Plan])
    pinned: Mapping[tuple[str, str, str], Plan] = field(default_factory=dict[tuple[str, str, str], Plan])
    loaded: Mapping[str, Loaded] = field(default_factory=dict[str, Loaded])
    failed: Mapping[str, str] = field(default_factory=dict[str, str])
    unserved: frozenset[tuple[str, str]] = frozenset()
    views: Mapping[str, tuple[Any, ...]] = field(default_factory=dict[str, tuple[Any, ...]])
    applications: Plans = field(default_factory=Plans)
    gateway: Mapping[str, Any] = field(default_factory=dict[str, Any])
    standby: Mapping[Key, Bundle] = field(default_factory=dict[Key, Bundle])
    routes: Mapping[tuple[str, str], Route] = field(default_factory=dict[tuple[str, str], Route])
    size: int = 0
    first: Mapping[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])

    def name(self, project: str, name: str) -> str:
        """Return by which name a service, or `service@environment`, is planned."""
        return planned_name(self.first, project, name) if "@" in name else name

    @property
    def services(self) -> frozenset[tuple[str, str]]:
        """Return the (project, service) of the snapshot's services, served or not."""
        return self.unserved.union(self.plans, self.applications.plans)

    @property
    def releases(self) -> frozenset[str]:
        """Return the releases that are loaded, of models and of applications."""
        return frozenset(self.loaded).union(self.applications.loaded)

    @property
    def projects(self) -> frozenset[str]:
        """Return the projects that have a service here."""
        return frozenset(project for project, _ in self.services)


def build_table(snapshot: Snapshot, previous: Table, loaders: Loaders) -> Table:
    """Return the table for `snapshot`, loading what `previous` has not loaded yet.

    A service with an arm that cannot be loaded keeps its plan of `previous`; if it has none, rows of that
    arm get the backup or the constant; without either the service is not served. A shadow that cannot be loaded is
    left out.
    """
    failed: dict[str, str] = {}
    needed = {release for route in snapshot.services.values() for release in route.releases}
    routed = {release: each for release, each in snapshot.releases.items() if release in needed}
    loaded = _load_all(routed, previous.loaded, lambda each: each.bundle, loaders.model, failed)
    ready = _load_all(
        snapshot.applications, previous.applications.loaded, lambda each: each.application, loaders.application, failed
    )
    applications = plan_applications(snapshot, ready, previous.applications)
    plans: dict[tuple[str, str], Plan] = {}
    pinned: dict[tuple[str, str, str], Plan] = {}
    unserved = set(applications.unserved)
    for route in snapshot.services.values():
        name = (route.project, route.name)
        if route.arms[0].release in snapshot.applications:
            continue
        plan = _plan(route, snapshot, loaded, previous.plans.get(name))
        if plan is None:
            unserved.add(name)
            continue
        plans[name] = plan
        for release, one in plan.loaded.items():
            # A backup may be another service's, under whose name its releases are asked.
            if one.bundle.service == route.service:
                pinned[(*name, release)] = pin(plan.route, one)
    kept = {each: one for plan in plans.values() for each, one in plan.loaded.items()}
    everything = {**kept, **loaded}
    return Table(
        sequence=snapshot.sequence,
        plans=plans,
        pinned=pinned,
        loaded=everything,
        failed=failed,
        unserved=frozenset(unserved),
        views=_views(snapshot, plans, everything),
        applications=applications,
        gateway=snapshot.gateway,
        standby={
            (each.project, each.service, release): each
            for release, each in snapshot.releases.items()
            if release not in needed
        },
        routes={(route.project, route.name): route for route in snapshot.services.values()},
        size=sum(each.size for each in everything.values()),
        first=first_environments(snapshot),
    )


def _load_all(
    wanted: Mapping[str, P],
    before: Mapping[str, L],
    part: Callable[[L], P],
    load: Callable[[P], L],
    failed: dict[str, str],
) -> dict[str, L]:
    """Load what is wanted and not loaded yet; note in `failed` why something could not be."""
    loaded: dict[str, L] = {}
    for release, each in wanted.items():
        known = before.get(release)
        if known is not None and part(known) == each:
            loaded[release] = known
            continue
        try:
            loaded[release] = load(each)
        except HoldtrueError as error:
            failed[release] = error.line
        except Exception as error:  # noqa: BLE001  # whatever a loader trips over, the release is not served
            failed[release] = f"{type(error).__name__}: {error}"[:300]
    return loaded


def _plan(route: Route, snapshot: Snapshot, loaded: Mapping[str, Loaded], before: Plan | None) -> Plan | None:
    complete = all(arm.release in loaded for arm in route.arms)
    if not complete and before is not None:
        # What holds without a model holds at once: a service is also switched off while its release does not load.
        kept = replace(before.route, stopped=route.stopped, fallback=route.fallback)
        return before if kept == before.route else compile_plan(kept, before.loaded, before.bundle)
    if not complete and route.fallback is None and route.backup not in loaded:
        return None
    shadows = tuple(release for release in route.shadows if release in loaded)
    first = snapshot.releases[route.arms[0].release]
    return compile_plan(replace(route, shadows=shadows), loaded, first)


def _views(
    snapshot: Snapshot, plans: Mapping[tuple[str, str], Plan], loaded: Mapping[str, Loaded]
) -> dict[str, tuple[Any, ...]]:
    """Collect, by project, each feature view of its services once."""
    views: dict[str, list[Any]] = {}
    for route in snapshot.services.values():
        if route.arms[0].release in snapshot.applications:
            continue
        plan = plans.get((route.project, route.name))
        mine = views.setdefault(route.project, [])
        for release in dict.fromkeys([*route.releases, *(plan.loaded if plan else ())]):
            if release in loaded:
                mine.extend(view for view in loaded[release].assembly.views if view not in mine)
    for each in snapshot.releases.values():
        # What stands by has to find its features up to date when it is asked.
        mine = views.get(each.project)
        if mine is not None and each.release not in loaded:
            mine.extend(view for view in _looked_up(each) if view not in mine)
    return {project: tuple(found) for project, found in views.items()}


def _looked_up(bundle: Bundle) -> tuple[Any, ...]:
    try:
        return FeatureSet.from_json(bundle.features).views
    except HoldtrueError:
        return ()
