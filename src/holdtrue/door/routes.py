"""Declare HTTP routes without a web framework: path, permission, handler, and the call it gets."""

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import sqlalchemy as sa

from holdtrue.core.access import Permission
from holdtrue.core.actor import Actor
from holdtrue.storage.ledger import Transaction, WriteContext
from holdtrue.storage.stores import Stores

T = TypeVar("T")
Method = Literal["GET", "POST", "PUT", "DELETE"]
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


@dataclass(frozen=True, slots=True)
class Route:
    """Describe one route: nothing is served that is not described so."""

    room: str
    method: Method
    path: str
    permission: Permission | Public
    handler: Handler
    body: Any
    summary: str
    kind: Literal["json", "html", "static"] = "json"


class Routes:
    """Collect the routes of one room."""

    def __init__(self, room: str) -> None:
        self.room = room
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
        kind: Literal["json", "html", "static"] = "json",
    ) -> Callable[[Handler], Handler]:
        """Declare a route; the handler's parameter `body`, if it has one, names the type of the body."""

        def declare(handler: Handler) -> Handler:
            body = None
            if "body" in inspect.signature(handler).parameters:
                body = typing.get_type_hints(handler)["body"]
            self._routes.append(Route(self.room, method, path, permission, handler, body, summary, kind))
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

    def delete(self, path: str, permission: Permission | Public, *, summary: str) -> Callable[[Handler], Handler]:
        """Declare a route that removes something."""
        return self.add("DELETE", path, permission, summary=summary)
