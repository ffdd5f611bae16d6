"""The watcher of the routing files, in this process: what one look does, whatever else is going on."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.clock import SystemClock
from holdtrue.serving import Application, Bundle, Engine, load_model
from holdtrue.serving.access import AccessTable
from holdtrue.serving.applications import LoadedApplication
from holdtrue.serving.assembly import compile_assembly
from holdtrue.serving.plan import Loaded
from holdtrue.serving.table import Loaders
from holdtrue.serving.watch import POLL_SECONDS, RoutingFiles, Watcher
from holdtrue.storage import Journal, make_folder
from tests.serving.plane_home import OTHER, TOKEN, Home

SECONDS = 60.0

Watch = Callable[[Callable[[Bundle], Loaded], Callable[[AccessTable], None]], Watcher]


def no_application(application: Application) -> LoadedApplication:
    """Refuse: no snapshot here has one."""
    raise AssertionError(application)


@pytest.fixture
def watch(home: Home) -> Iterator[Watch]:
    """Make a watcher of the home's routing files."""
    make_folder(home.path / "routing" / "good")
    journal = Journal(home.path / "journal", SystemClock())

    def make(load: Callable[[Bundle], Loaded], set_access: Callable[[AccessTable], None]) -> Watcher:
        engine = Engine(home.clock, journal.writer("test", "fast"), lambda _: lambda *_: {}, strict=False)
        files = RoutingFiles.of(home.path, "dataplane-0")
        return Watcher(files, engine, Loaders(load, no_application), lambda _: None, set_access, lambda: None)

    yield make
    journal.close()


def test_a_token_revoked_while_a_model_loads_ends_at_the_next_look(home: Home, watch: Watch) -> None:
    """A load may take seconds; looks at the tokens do not wait for it."""
    loading, may_end = threading.Event(), threading.Event()

    def slow(bundle: Bundle) -> Loaded:
        if bundle.release == "rel_large":
            loading.set()
            assert may_end.wait(SECONDS)
        data = home.blobs.get(bundle.model.digest)
        model = load_model(data, bytes_hash(data))
        assembly = compile_assembly(bundle, model.features)
        return Loaded(bundle, model, assembly, None, assembly.moments)

    revoked: list[bool] = []

    async def scenario() -> None:
        done = asyncio.Event()

        def set_access(table: AccessTable) -> None:
            if table.check(TOKEN.encode()) is None:
                revoked.append(not may_end.is_set())
                done.set()

        home.publish(home.bundle("rel_a", "champion"))
        async with watch(slow, set_access).running():
            home.publish(home.bundle("rel_large", "challenger"))
            assert await asyncio.to_thread(loading.wait, SECONDS)
            home.grant({OTHER: {}})
            await asyncio.wait_for(done.wait(), SECONDS)
            may_end.set()
            while home.acks()["sequence"] != 2:
                await asyncio.sleep(POLL_SECONDS)
            assert home.acks()["releases"] == ["rel_large"]

    asyncio.run(asyncio.wait_for(scenario(), 2 * SECONDS))
    assert revoked == [True]


def test_a_load_that_fails_in_an_unknown_way_ends_no_look(
    home: Home, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table stays, the log tells, and the next change of the files is followed again."""
    tables: list[AccessTable] = []

    def unknown(_: Bundle) -> Loaded:
        raise RuntimeError("a bug")

    async def scenario() -> None:
        async with watch(unknown, tables.append).running():
            home.publish(home.bundle("rel_a", "champion"))
            await asyncio.sleep(0)
            home.grant({OTHER: {}})
            before = len(tables)
            while len(tables) == before:
                await asyncio.sleep(POLL_SECONDS)

    asyncio.run(asyncio.wait_for(scenario(), SECONDS))
    assert tables[-1].check(TOKEN.encode()) is None
