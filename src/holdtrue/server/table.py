"""The table of all routes: collected from the rooms, checked once, matched without decoding anything."""

import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from starlette.routing import compile_path

from holdtrue.core.access import Permission
from holdtrue.core.errors import HoldtrueError
from holdtrue.door import Dialect, Route

# Rooms that declare routes, each in its module `api`; pages cut across rooms and have a module of their own.
ROOMS = (
    "catalog.api",
    "data.api",
    "pipelines.api",
    "monitoring.api",
    "traces.api",
    "governance.api",
    "llm.api",
    "delivery.api",
    "delivery.privacy.api",
    "project.api",
    "tracking.api",
    "protocols.mlflow.api",
    "web.pages",
)
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


class RouteTable:
    """Find the declared route of a request. What is not in the table is not served."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Check all routes; raise UndeclaredRoute for one without permission, twice declared or wrongly
        public.
        """
        self.routes = tuple(routes)
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


def room_routes() -> list[Route]:
    """Import every room that declares routes and return them all."""
    found: list[Route] = []
    for room in ROOMS:
        module = importlib.import_module(f"holdtrue.{room}")
        routes: Iterable[Route] = module.routes
        found += list(routes)
    return found


def error_page() -> Callable[[HoldtrueError, str], str]:
    """Return the function that renders an error as a page: the pages' own."""
    module = importlib.import_module("holdtrue.web.pages")
    render: Callable[[HoldtrueError, str], str] = module.error_page
    return render


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
