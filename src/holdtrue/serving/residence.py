"""Releases that no route needs now, loaded when somebody asks for one and gone when others need the memory.

What answers for services is loaded with the snapshot and stays. Other releases of the snapshot stand by: the first
request that names one loads it, on another thread and with a trial of its model before it answers, while whoever asks
for the same one waits for the same loading. Together they may have the memory that the budget leaves beside those of
the routes; the one that was asked for longest ago goes first. Who is being answered by it goes on: it ends with them.
"""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from holdtrue.core.errors import HoldtrueError, Unavailable
from holdtrue.serving.plan import Loaded, Plan, compile_plan
from holdtrue.serving.snapshot import Arm, Bundle, Route

PINNED = "pinned"
Key: TypeAlias = tuple[str, str, str]


class NoRoom(Unavailable):
    """A release does not fit into the memory that models may have."""

    code = "no_room"


class NotLoaded(Unavailable):
    """A release that stands by could not be loaded."""

    code = "not_loaded"


@dataclass(slots=True)
class _Resident:
    route: Route
    loaded: Loaded
    plan: Plan


def pin(route: Route, loaded: Loaded) -> Plan:
    """Return the plan that answers with one release only."""
    bundle = loaded.bundle
    names = {each.name for each in bundle.inputs}
    only = replace(
        route,
        # An earlier release may have been made for a service that had other inputs.
        key=route.key if route.key in names else None,
        entity=route.entity if route.entity in names else None,
        arms=(Arm(PINNED, bundle.release, 100.0),),
        shadows=(),
        paired=False,
        rollout=None,
        backup=None,
    )
    return compile_plan(only, {bundle.release: loaded}, bundle)


class Residence:
    """Hold the releases that were loaded on demand; `budget` bytes are for them and for those of the routes."""

    def __init__(self, load: Callable[[Bundle], Loaded], budget: int) -> None:
        self._load = load
        self._budget = budget
        self._residents: OrderedDict[Key, _Resident] = OrderedDict()
        self._loading: dict[Key, asyncio.Future[Loaded]] = {}
        # The event loop asks, and the thread that loads a snapshot takes releases over.
        self._lock = threading.Lock()

    @property
    def releases(self) -> frozenset[Key]:
        """Return what is loaded here now."""
        return frozenset(self._residents)

    async def plan(self, key: Key, bundle: Bundle, route: Route, live: int) -> Plan:
        """Return the plan of a release that stands by, loaded if need be; `live` bytes belong to the routes' own.

        Raises NotLoaded with the loader's reason, and NoRoom.
        """
        with self._lock:
            found = self._residents.get(key)
            if found is not None and found.loaded.bundle == bundle:
                self._residents.move_to_end(key)
                if found.route != route:
                    found.route, found.plan = route, pin(route, found.loaded)
                return found.plan
        loaded = await self._once(key, bundle)
        return self._admit(key, route, loaded, live)

    def take(self, bundle: Bundle) -> Loaded | None:
        """Give a release away that a route needs from now on, None if it is not here."""
        with self._lock:
            for key, found in self._residents.items():
                if found.loaded.bundle == bundle:
                    del self._residents[key]
                    return found.loaded
        return None

    def keep(self, standby: Mapping[Key, Bundle]) -> None:
        """Let go what stands by no more."""
        with self._lock:
            for key in [key for key, each in self._residents.items() if standby.get(key) != each.loaded.bundle]:
                del self._residents[key]

    async def _once(self, key: Key, bundle: Bundle) -> Loaded:
        """Load a release, once for all who ask for it meanwhile."""
        loading = self._loading.get(key)
        if loading is None:
            loading = self._loading[key] = asyncio.get_running_loop().run_in_executor(None, self._load, bundle)
            loading.add_done_callback(lambda _: self._loading.pop(key, None))
        try:
            # Whoever leaves does not end the loading for the others.
            return await asyncio.shield(loading)
        except HoldtrueError as error:
            raise _not_loaded(bundle, f"{error.what} {error.why}".strip()) from None
        except Exception as error:
            raise _not_loaded(bundle, type(error).__name__) from error

    def _admit(self, key: Key, route: Route, loaded: Loaded, live: int) -> Plan:
        """Keep a release, after as many others as it takes have gone."""
        with self._lock:
            found = self._residents.get(key)
            if found is None or found.loaded.bundle != loaded.bundle:
                room = self._budget - live - loaded.size
                if room < 0:
                    raise _no_room(loaded, self._budget - live)
                self._residents.pop(key, None)
                while self._residents and sum(each.loaded.size for each in self._residents.values()) > room:
                    self._residents.popitem(last=False)
                found = self._residents[key] = _Resident(route, loaded, pin(route, loaded))
            return found.plan


def _not_loaded(bundle: Bundle, why: str) -> NotLoaded:
    return NotLoaded(
        f"The release {bundle.release} cannot be loaded.",
        why=why,
        mend="Ask the service without naming a release, or release the model again.",
    )


def _no_room(loaded: Loaded, left: int) -> NoRoom:
    return NoRoom(
        f"There is no room for the release {loaded.bundle.release}.",
        why=f"It takes {loaded.size >> 20} MiB, and those that answer for services leave {max(0, left) >> 20} MiB.",
        mend="Raise the setting model_memory, or ask for the release that is live.",
    )
