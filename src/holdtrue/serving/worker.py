"""One data plane worker: everything it holds open, put together, from start to stop."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Literal

from holdtrue.core.clock import Clock
from holdtrue.core.errors import Locked
from holdtrue.features.model import View
from holdtrue.serving.assembly import compile_assembly, compile_check
from holdtrue.serving.engine import Engine
from holdtrue.serving.intake import intake_endpoints
from holdtrue.serving.known import OnlineFeatures
from holdtrue.serving.plan import Loaded
from holdtrue.serving.plane import Endpoint, ErrorForm, Limits, Plane
from holdtrue.serving.runtime import load_model
from holdtrue.serving.snapshot import Bundle
from holdtrue.serving.watch import RoutingFiles, Watcher
from holdtrue.storage import BlobStore, Journal, Writer, make_folder

Protocol = Callable[[Engine], Sequence[Endpoint]]
_MOST_WORKERS = 256


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
        protocols: Sequence[Protocol],
        errors: Mapping[str, ErrorForm],
    ) -> None:
        self._home = home
        self._blobs = BlobStore(home / "blobs")
        self._online = OnlineFeatures(home / "online", self._views)
        journal = Journal(home / "journal", clock)
        self.name, self._records = _writer(journal, records)
        self._intake = self._records if records == "strict" else journal.writer(f"{self.name}-intake", "strict")
        self._engine = Engine(clock, self._records, self._online.lookup, strict=records == "strict")
        endpoints = [*intake_endpoints(self._engine, self._intake, self._online)]
        for protocol in protocols:
            endpoints += protocol(self._engine)
        self.app = Plane(self._engine, endpoints, hosts=hosts, errors=errors, lifespan=self._lifespan, limits=limits)

    def _lifespan(self, plane: Plane) -> AbstractAsyncContextManager[None]:
        @asynccontextmanager
        async def running() -> AsyncGenerator[None]:
            for folder in ("acks", "good"):
                make_folder(self._home / "routing" / folder)
            files = RoutingFiles.of(self._home, self.name)
            watcher = Watcher(files, self._engine, self._load, plane.set_access, plane.expire)
            async with watcher.running():
                yield
            self._records.close()
            self._intake.close()
            self._online.close()

        return running()

    def _load(self, bundle: Bundle) -> Loaded:
        """Load a release; every way in which it can fail is a HoldtrueError."""
        model = load_model(self._blobs.get(bundle.model.digest), bundle.model.digest)
        assembly = compile_assembly(bundle, model.features)
        check, moments = compile_check(bundle)
        return Loaded(bundle, model, assembly, check, assembly.moments | moments)

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
