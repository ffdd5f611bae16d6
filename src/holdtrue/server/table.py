"""The table of all routes: collected from the rooms, all at once or as asked for; checked, matched without decoding."""

import importlib
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, cast

from starlette.routing import compile_path

from holdtrue.core.access import Permission
from holdtrue.core.errors import HoldtrueError
from holdtrue.door import Dialect, Route

_PROJECT = "/api/projects/{project}"
_TRACKING = ("/api/2.0", "/api/3.0", "/ajax-api/2.0", "/ajax-api/3.0")


def _below(*words: str) -> tuple[str, ...]:
    return tuple(f"{_PROJECT}/{word}" for word in words)


# Each declares its routes in the module of this name; pages cut across rooms and have a module of their own. A route
# outside its room's areas fails the build, so that whoever loads the rooms of an address has every route it can match.
AREAS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "catalog.api": _below("aliases", "lineage", "releases", "versions"),
        "data.api": ("/api/blobs", *_below("datasets", "quarantines")),
        "pipelines.api": _below("jobs", "lease"),
        "monitoring.api": _below("alarms", "incidents", "monitors", "services"),
        "traces.api": ("/api/traces", *_below("traces")),
        "governance.api": _below("decisions", "evidence", "policies", "releases"),
        "llm.api": ("/api/gateway", *_below("prompts")),
        "delivery.api": _below(
            "deployments", "dora", "rollouts", "services", "status", "submissions", "triggers", "why"
        ),
        "delivery.privacy.api": _below("erasures", "usage"),
        "project.api": _below("apply", "definitions", "events", "plan"),
        "tracking.api": _below(
            "experiments",
            "imported-experiments",
            "imported-logged-models",
            "imported-runs",
            "model-version",
            "run-comparison",
            "run-retention",
            "runs",
        ),
        "protocols.mlflow.api": (*_TRACKING, "/version", *_below("imported-models")),
        "web.pages": ("/", "/projects", "/sign-in", "/static"),
    }
)
TRACES = (*_TRACKING, "/v1/traces", *_below("imported-evaluation-datasets", "imported-traces"))
"""The areas of traces as the tracking protocol knows them, which need the application's intake."""

# Rows that a process owed when it was killed are settled by the room they are of, before anything is read: such
# rooms are known to every writer of the ledger, whatever else it loads.
_SETTLING = ("tracking.kept",)

PUBLIC_AT_MOST = 8
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})


class UndeclaredRoute(Exception):
    """A route breaks the rules of the table: the build fails."""


@dataclass(frozen=True, slots=True)
class Match:
    """Hold what a path matched: the routes of that path by method, and the values of its parameters."""

    routes: Mapping[str, Route]
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Entry:
    pattern: re.Pattern[str]
    routes: Mapping[str, Route]


class Table(Protocol):
    """Find the declared route of a request."""

    @property
    def routes(self) -> tuple[Route, ...]:
        """Return every declared route."""
        ...

    def dialect_at(self, path: str) -> Dialect | None:
        """Return the dialect that clients speak at `path`; None for the house's own."""
        ...

    def match(self, path: str) -> Match | None:
        """Return what is declared at `path`, or None."""
        ...

    def is_public(self, method: str, path: str) -> bool:
        """Tell whether this exact method and path may be asked for by anybody."""
        ...


class RouteTable:
    """Find the declared route of a request. What is not in the table is not served."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Check all routes; raise UndeclaredRoute for one without permission, twice declared or wrongly
        public.
        """
        self._routes = tuple(routes)
        named = {each.dialect.name: each.dialect for each in self.routes if each.dialect is not None}
        self._dialects = tuple(named.values())
        by_path: dict[str, dict[str, Route]] = {}
        for route in self.routes:
            _check(route)
            methods = by_path.setdefault(route.path, {})
            if route.method in methods:
                raise UndeclaredRoute(f"{route.method} {route.path} is declared twice")
            methods[route.method] = route
        self.public = frozenset((route.method, route.path) for route in self.routes if route.permission == "public")
        if len(self.public) > PUBLIC_AT_MOST:
            raise UndeclaredRoute(f"{len(self.public)} routes are public, more than {PUBLIC_AT_MOST}")
        shapes: dict[str, str] = {}
        for path in by_path:
            shape = re.sub(r"\{[^}]*\}", "{}", path)
            if shapes.setdefault(shape, path) != path:
                raise UndeclaredRoute(f"{path} and {shapes[shape]} match the same addresses")
        # A fixed word wins over a parameter at the same place, whoever declared it first.
        ordered = sorted(by_path, key=_precedence)
        self._fixed = {path: by_path[path] for path in ordered if "{" not in path}
        self._entries = [_Entry(compile_path(path)[0], by_path[path]) for path in ordered if "{" in path]

    @property
    def routes(self) -> tuple[Route, ...]:
        """Return every declared route."""
        return self._routes

    def dialect_at(self, path: str) -> Dialect | None:
        """Return the dialect that clients speak at `path`; None for the house's own."""
        for dialect in self._dialects:
            if dialect.speaks_at(path):
                return dialect
        return None

    def match(self, path: str) -> Match | None:
        """Return what is declared at `path`, or None."""
        fixed = self._fixed.get(path)
        if fixed is not None:
            return Match(fixed, {})
        for entry in self._entries:
            found = entry.pattern.match(path)
            if found is not None:
                return Match(entry.routes, found.groupdict())
        return None

    def is_public(self, method: str, path: str) -> bool:
        """Tell whether this exact method and path may be asked for by anybody."""
        return ("GET" if method == "HEAD" else method, path) in self.public


@dataclass(frozen=True, slots=True)
class Room:
    """Name a room's areas, and how its routes are had."""

    name: str
    areas: tuple[str, ...]
    load: Callable[[], Iterable[Route]]

    def covers(self, path: str) -> bool:
        """Tell whether `path` lies in one of the areas."""
        words = path.split("/")
        return any(_begins(words, area.split("/")) for area in self.areas)

    def routes(self) -> list[Route]:
        """Return the room's routes; raise UndeclaredRoute for one outside its areas."""
        found = list(self.load())
        for route in found:
            if not self.covers(route.path):
                raise UndeclaredRoute(f"{route.path} lies in no area of {self.name}")
        return found


def rooms() -> tuple[Room, ...]:
    """Return all rooms; none of them is imported by that."""
    return tuple(Room(name, areas, _of(name)) for name, areas in AREAS.items())


def room_routes() -> list[Route]:
    """Import every room that declares routes and return them all."""
    return [route for room in rooms() for route in room.routes()]


def settling_rooms() -> None:
    """Import the rooms that may have left rows to be settled."""
    for room in _SETTLING:
        importlib.import_module(f"holdtrue.{room}.store")


def error_page(error: HoldtrueError, request_id: str) -> str:
    """Render an error as a page, as the pages do."""
    render: Callable[[HoldtrueError, str], str] = importlib.import_module("holdtrue.web.pages").error_page
    return render(error, request_id)


class GrowingTable:
    """Find routes as a RouteTable of all rooms does, and import only the rooms whose areas were asked for.

    For an application in a command's own process: a request or two, of which most are for one room.
    """

    def __init__(self, own: Iterable[Route], declaring: Sequence[Room]) -> None:
        """Begin with the routes `own`; what is asked outside of every area is asked of all rooms."""
        self._rooms = tuple(declaring)
        self._loaded: dict[str, list[Route]] = {"": list(own)}
        self._table = RouteTable(self._loaded[""])
        self._loading = threading.Lock()

    @property
    def routes(self) -> tuple[Route, ...]:
        """Return every declared route of every room."""
        return self._with(self._rooms).routes

    def dialect_at(self, path: str) -> Dialect | None:
        """Return the dialect that clients speak at `path`; None for the house's own."""
        return self._at(path).dialect_at(path)

    def match(self, path: str) -> Match | None:
        """Return what is declared at `path`, or None."""
        return self._at(path).match(path)

    def is_public(self, method: str, path: str) -> bool:
        """Tell whether this exact method and path may be asked for by anybody."""
        return self._at(path).is_public(method, path)

    def loaded(self) -> list[str]:
        """Return the names of the rooms that are imported by now."""
        return [name for name in self._loaded if name]

    def _at(self, path: str) -> RouteTable:
        """Return a table that answers for `path` as the whole one would."""
        meant = [room for room in self._rooms if room.covers(path)]
        if not meant and self._table.match(path) is None:
            meant = list(self._rooms)
        return self._with(meant)

    def _with(self, meant: Iterable[Room]) -> RouteTable:
        with self._loading:
            fresh = [room for room in meant if room.name not in self._loaded]
            if fresh:
                self._loaded.update((room.name, room.routes()) for room in fresh)
                self._table = RouteTable(route for routes in self._loaded.values() for route in routes)
            return self._table


def _check(route: Route) -> None:
    if route.method not in METHODS:
        raise UndeclaredRoute(f"{route.path} is declared for {route.method}")
    declared = cast("object", route.permission)
    if declared != "public" and not isinstance(declared, Permission):
        raise UndeclaredRoute(f"{route.method} {route.path} declares no permission")
    if route.permission == "public" and "{" in route.path:
        raise UndeclaredRoute(f"{route.method} {route.path} is public and not one exact address")
    if not route.summary:
        raise UndeclaredRoute(f"{route.method} {route.path} has no summary")
    if route.dialect is not None and not route.dialect.speaks_at(route.path):
        raise UndeclaredRoute(f"{route.path} is outside the addresses of {route.dialect.name}")
    plain = route.path
    if route.dialect is not None and route.dialect.escaped and plain.startswith(route.dialect.escaped):
        # The rest of the path is one value, the name of a stored thing, and never a path of this machine.
        plain = plain.removesuffix("/{path:path}")
    if re.fullmatch(r"/(?:(?:[A-Za-z0-9_-][A-Za-z0-9._-]*|\{[a-z_]+\})(?:/(?!$))?)*", plain) is None:
        raise UndeclaredRoute(f"{route.path} is not a path of plain words and parameters")


def _precedence(path: str) -> tuple[int, ...]:
    return tuple(1 if part.startswith("{") else 0 for part in path.split("/"))


def _of(name: str) -> Callable[[], Iterable[Route]]:
    def load() -> Iterable[Route]:
        routes: Iterable[Route] = importlib.import_module(f"holdtrue.{name}").routes
        return routes

    return load


def _begins(words: Sequence[str], area: Sequence[str]) -> bool:
    return len(words) >= len(area) and all(
        mark == word or mark.startswith("{") for word, mark in zip(words, area, strict=False)
    )
