"""Rollback drills: prove, before it is needed, that the release before could come back, and record how long it takes.

A drill does all that a data plane would do to bring the earlier release back, up to a first answer of its model, and
changes nothing that is served.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from holdtrue import catalog, monitoring
from holdtrue.core.actor import SYSTEM
from holdtrue.core.clock import Clock, SystemClock
from holdtrue.core.errors import HoldtrueError
from holdtrue.delivery import bundles, rules, store
from holdtrue.delivery.model import DRILLED, PRODUCTION
from holdtrue.delivery.service import need_service, nothing_earlier
from holdtrue.serving import load_model
from holdtrue.serving.assembly import compile_assembly
from holdtrue.storage import Stores
from holdtrue.storage.ledger import EventFilter, Transaction, WriteContext, select_events


@dataclass(frozen=True, slots=True)
class Drill:
    """Tell whether an environment could go back to `release`, after how many seconds, and what stood in the way."""

    service: str
    environment: str
    release: str
    ready: bool
    seconds: float
    why: str


def drill(
    stores: Stores,
    project: str,
    service: str,
    environment: str = PRODUCTION,
    *,
    context: WriteContext | None = None,
    timer: Clock | None = None,
) -> Drill:
    """Make the earlier release of a service ready, record how long that took, and open an incident if it failed.

    Raises NothingEarlier where there is none, NotFound for no such service.
    """

    def look(connection: Any) -> str:
        need_service(connection, project, service)
        back = rules.earlier(store.list_changes(connection, project, service, environment))
        if back is None:
            raise nothing_earlier(service, environment)
        return back.release

    release = stores.ledger.read(look)
    clock = timer or SystemClock()
    began = clock.monotonic()
    try:
        _make_ready(stores, project, release)
        why = ""
    except HoldtrueError as error:
        why = f"{error.what} {error.why}".strip()
    found = Drill(service, environment, release, not why, round(clock.monotonic() - began, 4), why)
    stores.ledger.write(context or WriteContext(SYSTEM, project), lambda tx: _record(tx, found))
    return found


def _make_ready(stores: Stores, project: str, release: str) -> None:
    """Do what a data plane does before a release answers."""

    def look(connection: Any) -> Any:
        found = catalog.release(connection, project, release)
        if bundles.is_application(found):
            bundles.application(connection, project, found)
            return None
        return bundles.bundle(connection, project, found)

    bundle = stores.ledger.read(look)
    if bundle is not None:
        model = load_model(stores.blobs.get(bundle.model.digest), bundle.model.digest, bundle.model.format)
        compile_assembly(bundle, model.features)
        model.score(np.zeros((1, model.features), np.float32))


def _record(tx: Transaction, found: Drill) -> None:
    facts = {
        "environment": found.environment,
        "release": found.release,
        "ready": found.ready,
        "seconds": found.seconds,
    }
    tx.emit("deployment.drilled", found.service, facts, reason=found.why)
    if not found.ready:
        monitoring.open_incident(
            tx,
            service=found.service,
            kind="drill",
            title=f"{found.service} could not go back to its earlier release",
            release=found.release,
            text=found.why,
            data={"environment": found.environment},
        )


def run_drills(stores: Stores, project: str) -> list[Drill]:
    """Drill each service whose declaration asks for it and whose last drill is as many days ago; return the drills."""
    now = stores.clock.now()

    def look(connection: Any) -> list[str]:
        due: list[str] = []
        for each in store.list_services(connection, project):
            if each.spec.drill_days <= 0.0:
                continue
            if rules.earlier(store.list_changes(connection, project, each.name, PRODUCTION)) is None:
                continue
            chosen = EventFilter(project, limit=1, action=DRILLED, object=each.name, newest_first=True)
            last = select_events(connection, chosen)
            if not last or now - last[0].time >= timedelta(days=each.spec.drill_days):
                due.append(each.name)
        return due

    return [drill(stores, project, name) for name in stores.ledger.read(look)]
