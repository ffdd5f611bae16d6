"""Releases that no route needs: loaded when asked for, gone when others need the memory, never those that answer."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from holdtrue.serving import Bundle, Route, Snapshot, load_model, write_snapshot
from holdtrue.serving.assembly import compile_assembly
from holdtrue.serving.plan import Loaded
from holdtrue.serving.residence import NoRoom, NotLoaded, Residence
from tests.serving.plane_home import PROJECT, SERVICE, Home, flight

SIZE = 100


def publish(home: Home, live: Bundle, *standby: Bundle) -> Snapshot:
    """Write a snapshot whose one route names one release, with others beside it."""
    snapshot = home.publish(live)
    releases = {each.release: each for each in (live, *standby)}
    changed = replace(snapshot, releases=releases)
    write_snapshot(home.path / "routing" / "current.json", changed)
    return changed


class Bench:
    """A residence whose loader counts, and waits or fails when told to."""

    def __init__(self, home: Home, budget: int) -> None:
        self.loads: list[str] = []
        self.may = threading.Event()
        self.may.set()
        self.began = threading.Event()
        self.broken: set[str] = set()
        self.home = home
        self.residence = Residence(self.load, budget)
        self.route = next(iter(home.publish(home.bundle("rel_live", "champion")).services.values()))

    def load(self, bundle: Bundle) -> Loaded:
        self.loads.append(bundle.release)
        self.began.set()
        assert self.may.wait(30)
        if bundle.release in self.broken:
            raise ZeroDivisionError
        model = load_model(self.home.blobs.get(bundle.model.digest), bundle.model.digest)
        return Loaded(bundle, model, compile_assembly(bundle, model.features), None, frozenset(), SIZE)

    def bundle(self, release: str) -> Bundle:
        return self.home.bundle(release, "challenger")

    async def ask(self, release: str, route: Route | None = None, live: int = 0) -> Any:
        key = (PROJECT, SERVICE, release)
        return await self.residence.plan(key, self.bundle(release), route or self.route, live)

    def here(self) -> set[str]:
        return {release for _, _, release in self.residence.releases}


Make = Callable[[int], Bench]


@pytest.fixture
def make(home: Home) -> Make:
    return lambda budget: Bench(home, budget)


def test_the_one_asked_for_longest_ago_goes_first(make: Make) -> None:
    bench = make(3 * SIZE)

    async def main() -> None:
        for release in ("rel_1", "rel_2", "rel_3", "rel_1", "rel_4"):
            plan = await bench.ask(release)
            assert [*plan.loaded] == [release]
        assert bench.here() == {"rel_1", "rel_3", "rel_4"}
        await bench.ask("rel_1", live=SIZE)
        await bench.ask("rel_5", live=2 * SIZE)
        assert bench.here() == {"rel_5"}

    asyncio.run(main())
    assert bench.loads == ["rel_1", "rel_2", "rel_3", "rel_4", "rel_5"]


def test_what_does_not_fit_is_refused_and_nobody_goes_for_it(make: Make) -> None:
    bench = make(2 * SIZE)

    async def main() -> None:
        await bench.ask("rel_1")
        with pytest.raises(NoRoom, match="rel_2"):
            await bench.ask("rel_2", live=2 * SIZE)
        assert bench.here() == {"rel_1"}

    asyncio.run(main())


def test_all_who_ask_meanwhile_wait_for_one_loading(make: Make) -> None:
    bench = make(2 * SIZE)

    async def main() -> None:
        bench.may.clear()
        asked = [asyncio.ensure_future(bench.ask("rel_1")) for _ in range(5)]
        await asyncio.to_thread(bench.began.wait, 30)
        asked[0].cancel()
        bench.may.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(found[0], asyncio.CancelledError)
        assert len({id(each) for each in found[1:]}) == 1

    asyncio.run(main())
    assert bench.loads == ["rel_1"]


def test_what_cannot_be_loaded_says_so_and_is_tried_again(make: Make) -> None:
    bench = make(2 * SIZE)
    bench.broken.add("rel_1")

    async def main() -> None:
        with pytest.raises(NotLoaded) as failed:
            await bench.ask("rel_1")
        assert failed.value.why == "ZeroDivisionError"
        bench.broken.clear()
        await bench.ask("rel_1")

    asyncio.run(main())
    assert bench.loads == ["rel_1", "rel_1"]


def test_a_release_is_handed_over_to_a_route_and_let_go_with_its_snapshot(make: Make) -> None:
    bench = make(3 * SIZE)

    async def main() -> None:
        for release in ("rel_1", "rel_2"):
            await bench.ask(release)
        other = replace(bench.route, fallback=0.5)
        assert (await bench.ask("rel_1", other)).route.fallback == 0.5

    asyncio.run(main())
    taken = bench.residence.take(bench.bundle("rel_1"))
    assert taken is not None
    assert taken.bundle.release == "rel_1"
    assert bench.residence.take(bench.bundle("rel_1")) is None
    assert bench.here() == {"rel_2"}
    changed = replace(bench.bundle("rel_2"), output="delay")
    bench.residence.keep({(PROJECT, SERVICE, "rel_2"): changed})
    assert bench.here() == set()


def test_a_data_plane_loads_a_release_that_a_request_names(home: Home) -> None:
    live, earlier = home.bundle("rel_live", "champion"), home.bundle("rel_earlier", "challenger")
    broken = home.bundle("rel_broken", "narrow")
    publish(home, live, earlier, broken)
    plane = home.start()
    assert plane.until_acked()["releases"] == ["rel_live"]
    states = {each["version"]: each["state"] for each in plane.client.post("/v2/repository/index").json()}
    assert states == {"rel_live": "READY", "rel_earlier": "UNAVAILABLE", "rel_broken": "UNAVAILABLE"}

    def ask(release: str) -> Any:
        return plane.infer([flight(1)], path=f"/v2/models/{SERVICE}/versions/{release}/infer")

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, ["rel_earlier"] * 4))
    assert {each.json()["parameters"]["releases"][0] for each in answers} == {"rel_earlier"}
    assert plane.client.post("/predict/delay/versions/rel_earlier", json=flight(2)).json()["release"] == "rel_earlier"
    states = {each["version"]: each["state"] for each in plane.client.post("/v2/repository/index").json()}
    assert states["rel_earlier"] == "READY"
    refused = ask("rel_broken")
    assert (refused.status_code, "features" in refused.json()["error"]) == (503, True)
    assert ask("rel_unknown").status_code == 404
    assert {each["arm"] for each in home.records("prediction")} == {"pinned"}
    # What stood by answers for the service from the next snapshot on, without being loaded again.
    home.publish(earlier)
    plane.until_acked()
    assert plane.infer([flight(3)]).json()["parameters"]["releases"] == ["rel_earlier"]
