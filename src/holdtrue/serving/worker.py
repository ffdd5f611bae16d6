"""One data plane worker: everything it holds open, put together, from start to stop."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol

from holdtrue.core.clock import Clock, microseconds
from holdtrue.core.errors import ConfigurationError, Locked
from holdtrue.features.model import View
from holdtrue.serving.applications import Answering, LoadedApplication
from holdtrue.serving.assembly import check_classes, compile_assembly, compile_check
from holdtrue.serving.deferring import Deferring, Keeping
from holdtrue.serving.endpoints import Endpoint, ErrorForm
from holdtrue.serving.engine import Engine
from holdtrue.serving.explaining import explaining
from holdtrue.serving.feedback import feedback_endpoints
from holdtrue.serving.intake import intake_endpoints
from holdtrue.serving.isolated import code_refused, holds_code
from holdtrue.serving.known import OnlineFeatures
from holdtrue.serving.lookups import lookup_endpoints
from holdtrue.serving.plan import Loaded
from holdtrue.serving.plane import Limits, Plane
from holdtrue.serving.probe import load_probed, resident_bytes, takes_long
from holdtrue.serving.rates import Rates
from holdtrue.serving.residence import Residence
from holdtrue.serving.runtime import held_to_chances
from holdtrue.serving.snapshot import Application, Bundle, Snapshot
from holdtrue.serving.table import Loaders
from holdtrue.serving.watch import RoutingFiles, Watcher
from holdtrue.storage import BlobStore, Journal, Writer, make_folder
from holdtrue.traces import Capture, SpanSink, TraceSettings
from holdtrue.traces.online import SPAN_SEGMENT
from holdtrue.traces.redaction import mask_text

Endpoints = Callable[[Engine], Sequence[Endpoint]]
Telemetry = Callable[[SpanSink], Sequence[Endpoint]]
Listener = Callable[[Plane, Engine], AbstractAsyncContextManager[None]]
_MOST_WORKERS = 256
_MOST_OF_FILE = 16


class Part(Protocol):
    """Something else that lives in a worker, such as the LLM gateway: with endpoints and a life of its own."""

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        """Return its routes."""
        ...

    @property
    def projects(self) -> frozenset[str]:
        """Return the projects that it answers for at present."""
        ...

    def load(self, application: Application) -> Answering | None:
        """Make a release of an application ready to answer, or return None if that is another part's work."""
        ...

    def configure(self, snapshot: Snapshot) -> None:
        """Take over what a new snapshot says; called on any thread. A HoldtrueError keeps what was before."""
        ...

    async def start(self) -> None:
        """Begin, in the worker's event loop, after the first snapshot has been read."""
        ...

    async def close(self) -> None:
        """End: no request comes any more."""
        ...


@dataclass(frozen=True, slots=True)
class Fitting:
    """Hold what a part may need of the worker it lives in; no other process has the worker's name."""

    name: str
    engine: Engine
    blobs: BlobStore
    spans: SpanSink


class Worker:
    """Hold the blobs, online features and journal of one worker process.

    `app` is its ASGI application; it reads the routing files when it begins to live, and closes the journal when that
    ends.
    """

    def __init__(
        self,
        home: Path,
        clock: Clock,
        *,
        records: Literal["strict", "fast"],
        hosts: Sequence[str],
        limits: Limits,
        protocols: Sequence[Endpoints],
        errors: Mapping[str, ErrorForm],
        parts: Sequence[Callable[[Fitting], Part]] = (),
        telemetry: Sequence[Telemetry] = (),
        result_seconds: float = 86_400.0,
        capture: Capture = Capture.FULL,
        captures: Mapping[str, Capture] = MappingProxyType({}),
        mask: Callable[[str], str] = mask_text,
        online: str = "",
        code: bool = False,
        memory: int = 1 << 30,
        listeners: Sequence[Listener] = (),
    ) -> None:
        """Open what lies in `home`; each of `parts` is made with what it may need of the worker.

        Results of requests that are answered later are kept for `result_seconds`.
        `telemetry` are the protocols of spans, `capture` (`captures` by project) what is kept of them, and `mask` what
        texts go through where that is “masked”. `online` is the address of a server that keeps online features. With
        `code`, models that are code are served, each in a process of its own. `memory` is how many bytes models may
        take before those go that no route needs. `listeners` are the servers over its door; they end before what they
        need does.
        """
        self._home = home
        self._code = code
        self._listeners = listeners
        self._blobs = BlobStore(home / "blobs")
        self._online = OnlineFeatures(home / "online", self._views, online, lambda: microseconds(clock.now()))
        journal = Journal(home / "journal", clock)
        self.name, self._records = _writer(journal, records)
        self._intake = self._records if records == "strict" else journal.writer(f"{self.name}-intake", "strict")
        self._rates = Rates(home / "routing" / "rates", time.monotonic_ns)
        self._engine = Engine(
            clock, self._records, self._online.lookup, strict=records == "strict", rate=self._rates.take
        )
        self._engine.residence = Residence(self._load, memory)
        self._traces = journal.writer(f"{self.name}-traces", "strict", segment_bytes=SPAN_SEGMENT)
        settings = {project: TraceSettings(each) for project, each in captures.items()}
        self.spans = SpanSink(self._traces, clock, settings, default=TraceSettings(capture), mask=mask)
        endpoints = self._endpoints(protocols, telemetry)
        fitting = Fitting(self.name, self._engine, self._blobs, self.spans)
        self._parts = [make(fitting) for make in parts]
        for part in self._parts:
            endpoints += part.endpoints
        keeping = Keeping(home / "requests", self.name, result_seconds, limits.deadline)
        self._deferring = Deferring(keeping, self._engine.now_us, self._engine.stopwatch, self._form)
        endpoints = [*map(self._deferring.taking, endpoints), *self._deferring.endpoints]
        self.app = Plane(self._engine, endpoints, hosts=hosts, errors=errors, lifespan=self._lifespan, limits=limits)

    def _endpoints(self, protocols: Sequence[Endpoints], telemetry: Sequence[Telemetry]) -> list[Endpoint]:
        return [
            *intake_endpoints(self._engine, self._intake, self._online),
            *feedback_endpoints(self._engine, self._intake),
            *lookup_endpoints(self._engine, self._online.dated),
            *(endpoint for protocol in protocols for endpoint in protocol(self._engine)),
            *(endpoint for each in telemetry for endpoint in each(self.spans)),
        ]

    def _lifespan(self, plane: Plane) -> AbstractAsyncContextManager[None]:
        @asynccontextmanager
        async def running() -> AsyncGenerator[None]:
            for folder in ("acks", "good"):
                make_folder(self._home / "routing" / folder)
            files = RoutingFiles.of(self._home, self.name)
            self._engine.run_on(asyncio.get_running_loop())
            residence = self._engine.residence
            assert residence is not None

            def configure(snapshot: Snapshot) -> None:
                residence.keep(self._engine.table.standby)
                try:
                    for part in self._parts:
                        part.configure(snapshot)
                finally:
                    plane.projects = frozenset[str]().union(*(part.projects for part in self._parts))

            loaders = Loaders(lambda bundle: residence.take(bundle) or self._load(bundle), self._load_app)
            watcher = Watcher(files, self._engine, loaders, configure, plane.set_access, plane.expire)
            async with watcher.running(), AsyncExitStack() as stack:
                for part in self._parts:
                    await part.start()
                    stack.push_async_callback(part.close)
                await self._deferring.start()
                stack.push_async_callback(self._deferring.close)
                for listener in self._listeners:
                    await stack.enter_async_context(listener(plane, self._engine))
                yield
            self._records.close()
            self._intake.close()
            self._traces.close()
            self._online.close()
            self._rates.close()

        return running()

    def _form(self, path: str) -> ErrorForm:
        return self.app.error_form(path)

    def _load(self, bundle: Bundle) -> Loaded:
        """Load a release; every way in which it can fail is a HoldtrueError."""
        data = self._blobs.get(bundle.model.digest)
        if not self._code and holds_code(data, bundle.model.format):
            raise code_refused()
        before = resident_bytes()
        model = load_probed(data, bundle.model.digest, bundle.model.format)
        # What a model takes is what this process grew by, and what it may take elsewhere. The first of a kind brings
        # its library along, which is not its own.
        size = model.memory + min(max(len(data), resident_bytes() - before), _MOST_OF_FILE * len(data))
        if not model.aside and takes_long(model):
            model = replace(model, aside=True)
        assembly = compile_assembly(bundle, model.features)
        check_classes(bundle, model)
        check, moments = compile_check(bundle)
        explain = explaining(bundle, model, assembly.names, self._blobs.get)
        if bundle.event and bundle.model.format != "onnx":
            model = held_to_chances(model, bundle.release)
        return Loaded(bundle, model, assembly, check, assembly.moments | moments, size, explain)

    def _load_app(self, application: Application) -> LoadedApplication:
        for part in self._parts:
            answering = part.load(application)
            if answering is not None:
                return LoadedApplication(application, answering)
        raise ConfigurationError(
            f"The application {application.service} cannot be served here.",
            why="This data plane was started without what answers for applications.",
            mend="Start it with `holdtrue up`.",
        )

    def _views(self, project: str) -> Sequence[View]:
        return self._engine.table.views.get(project, ())


def _writer(journal: Journal, mode: Literal["strict", "fast"]) -> tuple[str, Writer]:
    """Become the first data plane writer whose name is free: a restarted worker takes up its old name."""
    for number in range(_MOST_WORKERS):
        name = f"dataplane-{number}"
        try:
            return name, journal.writer(name, mode)
        except Locked:
            continue
    raise Locked(
        "There is no place for another data plane worker.",
        why=f"{_MOST_WORKERS} of them hold this data folder.",
        mend="Stop some of them.",
    )
