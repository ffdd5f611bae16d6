"""One data plane worker: everything it holds open, put together, from start to stop."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol

from holdtrue.core.clock import Clock, microseconds
from holdtrue.core.errors import ConfigurationError, Locked
from holdtrue.features.model import View
from holdtrue.serving.applications import Answering, LoadedApplication
from holdtrue.serving.assembly import compile_assembly, compile_check
from holdtrue.serving.engine import Engine
from holdtrue.serving.feedback import feedback_endpoints
from holdtrue.serving.intake import intake_endpoints
from holdtrue.serving.known import OnlineFeatures
from holdtrue.serving.lookups import lookup_endpoints
from holdtrue.serving.plan import Loaded
from holdtrue.serving.plane import Endpoint, ErrorForm, Limits, Plane
from holdtrue.serving.probe import load_probed
from holdtrue.serving.snapshot import Application, Bundle, Snapshot
from holdtrue.serving.table import Loaders
from holdtrue.serving.watch import RoutingFiles, Watcher
from holdtrue.storage import BlobStore, Journal, Writer, make_folder
from holdtrue.traces import Capture, SpanSink, TraceSettings
from holdtrue.traces.redaction import mask_text

Endpoints = Callable[[Engine], Sequence[Endpoint]]
Telemetry = Callable[[SpanSink], Sequence[Endpoint]]
_MOST_WORKERS = 256
# Spans that are not sealed yet are read from their segment at each search: it stays small.
_SPAN_SEGMENT = 16 << 20


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

    `app` is its ASGI application; it opens the routing files when its lifespan starts and closes the
    journal when it ends.
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
        capture: Capture = Capture.FULL,
        captures: Mapping[str, Capture] = MappingProxyType({}),
        mask: Callable[[str], str] = mask_text,
        online: str = "",
    ) -> None:
        """Open what lies in `home`; each of `parts` is made with what it may need of the worker.

        `telemetry` are the protocols of spans, `capture` (`captures` by project) what is kept of them, and `mask` what
        texts go through where that is “masked”. `online` is the address of a server that keeps online features.
        """
        self._home = home
        self._blobs = BlobStore(home / "blobs")
        self._online = OnlineFeatures(home / "online", self._views, online, lambda: microseconds(clock.now()))
        journal = Journal(home / "journal", clock)
        self.name, self._records = _writer(journal, records)
        self._intake = self._records if records == "strict" else journal.writer(f"{self.name}-intake", "strict")
        self._engine = Engine(clock, self._records, self._online.lookup, strict=records == "strict")
        self._traces = journal.writer(f"{self.name}-traces", "strict", segment_bytes=_SPAN_SEGMENT)
        settings = {project: TraceSettings(each) for project, each in captures.items()}
        self.spans = SpanSink(self._traces, clock, settings, default=TraceSettings(capture), mask=mask)
        endpoints = [
            *intake_endpoints(self._engine, self._intake, self._online),
            *feedback_endpoints(self._engine, self._intake),
            *lookup_endpoints(self._engine, self._online.dated),
        ]
        for protocol in protocols:
            endpoints += protocol(self._engine)
        for each in telemetry:
            endpoints += each(self.spans)
        fitting = Fitting(self.name, self._engine, self._blobs, self.spans)
        self._parts = [make(fitting) for make in parts]
        for part in self._parts:
            endpoints += part.endpoints
        self.app = Plane(self._engine, endpoints, hosts=hosts, errors=errors, lifespan=self._lifespan, limits=limits)

    def _lifespan(self, plane: Plane) -> AbstractAsyncContextManager[None]:
        @asynccontextmanager
        async def running() -> AsyncGenerator[None]:
            for folder in ("acks", "good"):
                make_folder(self._home / "routing" / folder)
            files = RoutingFiles.of(self._home, self.name)

            def configure(snapshot: Snapshot) -> None:
                try:
                    for part in self._parts:
                        part.configure(snapshot)
                finally:
                    plane.projects = frozenset[str]().union(*(part.projects for part in self._parts))

            loaders = Loaders(self._load, self._load_app)
            watcher = Watcher(files, self._engine, loaders, configure, plane.set_access, plane.expire)
            async with watcher.running(), AsyncExitStack() as stack:
                for part in self._parts:
                    await part.start()
                    stack.push_async_callback(part.close)
                yield
            self._records.close()
            self._intake.close()
            self._traces.close()
            self._online.close()

        return running()

    def _load(self, bundle: Bundle) -> Loaded:
        """Load a release; every way in which it can fail is a HoldtrueError."""
        model = load_probed(self._blobs.get(bundle.model.digest), bundle.model.digest, bundle.model.format)
        assembly = compile_assembly(bundle, model.features)
        check, moments = compile_check(bundle)
        return Loaded(bundle, model, assembly, check, assembly.moments | moments)

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
