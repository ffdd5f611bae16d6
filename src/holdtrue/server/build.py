"""Put the application together: stores, identities, due work, routes, gate."""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from holdtrue.core.clock import Clock, SystemClock
from holdtrue.door import Route
from holdtrue.server.access import publish_access
from holdtrue.server.api import server_routes
from holdtrue.server.asgi import App, ErrorPage, Gate
from holdtrue.server.home import check_private, mark_queue
from holdtrue.server.local import ensure_local_tokens
from holdtrue.server.loops import DueWork, duties
from holdtrue.server.service import Identities, SignIns
from holdtrue.server.settings import Settings, capture_of
from holdtrue.server.table import (
    TRACES,
    GrowingTable,
    Room,
    RouteTable,
    Table,
    error_page,
    room_routes,
    rooms,
    settling_rooms,
)
from holdtrue.storage import FileClock, Stores, open_stores

_WAITING_JOBS = frozenset({"job.queued", "job.failed"})


@dataclass(frozen=True, slots=True)
class Built:
    """Hold an application that can be served, and what must be closed after it."""

    app: App
    gate: Gate

    def close(self) -> None:
        """Let requests under way end, then close the stores."""
        self.gate.pool.close()
        self.app.stores.close()


def open_app(
    settings: Settings, *, clock_file: Path | None = None, timer: Clock | None = None, growing: bool = False
) -> Built:
    """Open the data folder as its only writer and build the application over it.

    A `growing` one answers the same, and imports a room when it is first asked for it. Raises Locked if another process
    has the folder, ConfigurationError if others can open it.
    """
    # Tables must be known before rows are read, and rooms declare them on import.
    declared = None if growing else room_routes()
    settling_rooms()
    check_private(settings.home)
    anchors = Path(settings.anchor_file).absolute() if settings.anchor_file else None
    clock: Clock = SystemClock() if clock_file is None else FileClock(clock_file)
    stores = open_stores(
        settings.home, clock, anchors=anchors, database=settings.database, online=settings.online_store
    )
    try:
        return build(stores, settings, timer or SystemClock(), declared, error_page)
    except BaseException:
        stores.close()
        raise


def build(stores: Stores, settings: Settings, clock: Clock, declared: Sequence[Route] | None, page: ErrorPage) -> Built:
    """Build the application over open stores; `clock` is the machine's own, by which credentials expire.

    With no routes `declared`, each room is imported when it is first asked for.
    """
    app = App(
        stores=stores,
        settings=settings,
        clock=clock,
        identities=Identities(stores.ledger, clock),
        sign_ins=SignIns(stores.ledger, clock),
        due=DueWork(stores, SystemClock(), partial(duties, settings.online_store)),
        wake=threading.Event(),
    )
    stores.ledger.observe(lambda actions: mark_queue(stores.home) if actions & _WAITING_JOBS else None)
    tables: list[Table] = []
    traces = trace_room(stores, settings)
    own = server_routes(app, lambda: tables[0])
    if declared is None:
        tables.append(GrowingTable(own, [*rooms(), traces]))
    else:
        tables.append(RouteTable([*own, *traces.routes(), *declared]))
    keep_credentials(app)
    return Built(app, Gate(app, tables[0], page))


def trace_room(stores: Stores, settings: Settings) -> Room:
    """Return the room of traces over an intake that keeps of each project what the settings say."""
    captures = dict(map(capture_of, settings.trace_captures))

    def load() -> Iterable[Route]:
        # Imported here: only who sends or reads traces in another protocol needs it.
        from holdtrue.protocols.mlflow.casesin import case_routes
        from holdtrue.protocols.mlflow.traces import trace_routes
        from holdtrue.protocols.mlflow.tracesin import imported_routes
        from holdtrue.traces import Capture
        from holdtrue.traces.intake import Intake

        kept = {name: Capture(each) for name, each in captures.items()}
        intake = Intake(stores, kept, Capture(settings.trace_capture))
        return chain(trace_routes(intake), imported_routes(intake), *case_routes(intake))

    return Room("protocols.mlflow.traces", TRACES, load)


def keep_credentials(app: App) -> None:
    """Renew this machine's own tokens where they end soon, and tell data planes of all that are live."""
    ensure_local_tokens(app.stores, app.clock)
    publish_access(app.stores, app.clock)
