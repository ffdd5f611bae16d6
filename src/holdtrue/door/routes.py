"""Declare HTTP routes without a web framework: path, permission, handler, and the call it gets."""

import inspect
import typing
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import sqlalchemy as sa

from holdtrue.core.access import Permission
from holdtrue.core.actor import Actor
from holdtrue.core.errors import HoldtrueError
from holdtrue.storage.ledger import Transaction, WriteContext
from holdtrue.storage.stores import Stores

T = TypeVar("T")
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Kind = Literal["json", "html", "static", "stream"]
Handler = Callable[..., Any]
Declare = Callable[[Handler], Handler]
Public = Literal["public"]


@dataclass(frozen=True, slots=True)
class Call:
    """Hold what a handler may know of its request: who asks, in which project, for what."""

    stores: Stores
    actor: Actor
    project: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    request_id: str = ""
    idempotency_key: str | None = None
    body_digest: str | None = None
    origin: str = ""
    stream: AsyncIterator[bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def context(self) -> WriteContext:
        """Return the write context that carries this call's actor, project and idempotency key."""
        return WriteContext(
            actor=self.actor,
            project=self.project,
            request_id=self.request_id,
            idempotency_key=self.idempotency_key,
            request_digest=self.body_digest,
        )

    def write(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in one ledger transaction; it is durable when this returns."""
        return self.stores.ledger.write(self.context(), work)

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` on a read-only connection."""
        return self.stores.ledger.read(work)

    def within(self, project: str) -> "Call":
        """Return this call as one about `project`, which a handler found by other means than the token."""
        return replace(self, project=project)

    async def write_async(self, work: Callable[[Transaction], T]) -> T:
        """Do as `write` does in a handler that is a coroutine: no thread waits for the disk."""
        return await self.stores.ledger.write_async(self.context(), work)


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer with more than a JSON body: a status, headers, or text of another type."""

    body: str | bytes = b""
    status: int = 200
    media_type: str = "text/html; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Download:
    """Answer with the bytes of a stored file, which no browser opens: saved, never shown."""

    file: Path = field(repr=False)
    size: int
    name: str


@dataclass(frozen=True, slots=True)
class Dialect:
    """Describe how clients of another protocol are spoken to, at the paths that begin with `prefixes`.

    `error` gives the status and JSON of a failure. `aliases` are prefixes that mean another one. Below the
    prefixes in `escaped` a path may hold percent escapes, which handlers decode. A token of no project, sent
    without a project as its user name, means the project `fallback`. Bodies are JSON objects or query fields,
    of which the unknown ones are the protocol's to ignore. `unserved` names what the protocol has below some prefixes
    and this server has not.
    """

    name: str
    prefixes: tuple[str, ...]
    error: Callable[[HoldtrueError], tuple[int, Any]]
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])
    escaped: tuple[str, ...] = ()
    fallback: str = ""
    unserved: Mapping[str, str] = field(default_factory=dict[str, str])

    def speaks_at(self, path: str) -> bool:
        """Tell whether requests at `path` are of this protocol."""
        return path.startswith(self.prefixes)

    def missing_at(self, path: str) -> str | None:
        """Return what the protocol has at `path` that is not served, or None."""
        return next((what for prefix, what in self.unserved.items() if path.startswith(prefix)), None)

    def canonical(self, path: str) -> str:
        """Return the address that `path` means."""
        for alias, prefix in self.aliases.items():
            if path.startswith(alias):
                return prefix + path[len(alias) :]
        return path


@dataclass(frozen=True, slots=True)
class Route:
    """Describe one route: nothing is served that is not described so.

    A handler that is a coroutine function (`awaited`) runs on the event loop and must never block it. A route of kind
    “stream” gets its body as `call.stream`, and in `call.headers` those of the request's that `headers` names.
    """

    room: str
    method: Method
    path: str
    permission: Permission | Public
    handler: Handler
    body: Any
    summary: str
    kind: Kind = "json"
    dialect: Dialect | None = None
    headers: tuple[str, ...] = ()
    awaited: bool = False


class Routes:
    """Collect the routes of one room, or of one protocol with its dialect."""

    def __init__(self, room: str, dialect: Dialect | None = None) -> None:
        self.room = room
        self.dialect = dialect
        self._routes: list[Route] = []

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def add(
        self,
        method: Method,
        path: str,
        permission: Permission | Public,
        *,
        summary: str,
        kind: Kind = "json",
        headers: tuple[str, ...] = (),
    ) -> Callable[[Handler], Handler]:
        """Declare a route; the handler's parameter `body`, if it has one, names the type of the body."""

        def declare(handler: Handler) -> Handler:
            body = None
            if "body" in inspect.signature(handler).parameters:
                body = typing.get_type_hints(handler)["body"]
            # Asked once: it takes longer than finding the route of a request.
            awaited = inspect.iscoroutinefunction(handler)
            route = Route(
                self.room, method, path, permission, handler, body, summary, kind, self.dialect, headers, awaited
            )
            self._routes.append(route)
            return handler

        return declare

    def get(self, path: str, permission: Permission | Public, *, summary: str) -> Callable[[Handler], Handler]:
        """Declare a route that only reads."""
        return self.add("GET", path, permission, summary=summary)

    def page(self, path: str, permission: Permission | Public, *, summary: str) -> Callable[[Handler], Handler]:
        """Declare a page: the handler returns HTML text."""
        return self.add("GET", path, permission, summary=summary, kind="html")

    def post(self, path: str, permission: Permission | Public, *, summary: str) -> Callable[[Handler], Handler]:
        """Declare a route that changes something."""
        return self.add("POST", path, permission, summary=summary)

    def put(self, path: str, permission: Permission | Public, *, summary: str) -> Callable[[Handler], Handler]:
        """Declare a route that sets something to a stated value."""
        return self.add("PUT", path, permission, summary=summary)

    def patch(self, path: str, permission: Permission | Public, *, summary: str) -> Callable[[Handler], Handler]:
        """Declare a route that changes a part of something."""
        return self.add("PATCH", path, permission, summary=summary)

    def delete(self, path: str, permission: Permission | Public, *, summary: str) -> Callable[[Handler], Handler]:
        """Declare a route that removes something."""
        return self.add("DELETE", path, permission, summary=summary)
