"""The application: one table of routes behind one gate.

Each request passes, in this order: shape and host, public list, identity, declared route, permission,
project, origin and page token, body; only then its handler runs, in a bounded pool of threads.
"""

import asyncio
import itertools
import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from holdtrue.core.access import Permission
from holdtrue.core.actor import Actor
from holdtrue.core.canonical import bytes_hash
from holdtrue.core.clock import Clock
from holdtrue.core.codec import load
from holdtrue.core.errors import HoldtrueError, InvalidInput, Unauthenticated, Unavailable
from holdtrue.core.ids import check_name
from holdtrue.door import Call, Dialect, Download, Reply, Route
from holdtrue.server import guard
from holdtrue.server.answers import (
    download_answer,
    error_answer,
    finish,
    html_answer,
    json_answer,
    public_error,
    reply_answer,
)
from holdtrue.server.loops import DueWork
from holdtrue.server.model import Identity
from holdtrue.server.rules import parse_token
from holdtrue.server.service import Identities, SignIns
from holdtrue.server.settings import Settings
from holdtrue.server.table import Table
from holdtrue.storage import Stores

T = TypeVar("T")
ErrorPage: TypeAlias = Callable[[HoldtrueError, str], str]

ANONYMOUS = Actor(id="anonymous", kind="human", name="nobody")
# Due work of a long simulated jump, and reading the whole event log, take as long as they take.
_LONG: Mapping[Permission, float] = MappingProxyType({Permission.OPERATIONS_RUN: 900.0, Permission.AUDIT_READ: 300.0})
_STREAM_SECONDS = 3600.0
_log = logging.getLogger("holdtrue.server")


@dataclass(frozen=True, slots=True)
class App:
    """Hold what the control plane needs: stores, settings, who is known, and what wakes background work.

    `clock` is the machine's own: credentials expire by it even where production time is replayed.
    """

    stores: Stores
    settings: Settings
    clock: Clock
    identities: Identities
    sign_ins: SignIns
    due: DueWork
    wake: threading.Event


class Pool:
    """Run handlers in a bounded number of threads, with a bounded number waiting."""

    def __init__(self, threads: int, queue: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="request")
        self._most = threads + queue
        self._taken = 0

    async def run(self, work: Callable[[], T], seconds: float) -> T:
        """Return what `work` returns; Unavailable if too much waits, or after `seconds`.

        Work that is late goes on in its thread: whether it took effect is unknown to the caller.
        """
        if self._taken >= self._most:
            raise Unavailable("The server has too much to do.", mend="Try again in a moment.")
        self._taken += 1
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        future.add_done_callback(self._give_back)
        try:
            return await asyncio.wait_for(asyncio.shield(future), seconds)
        except TimeoutError:
            raise late(seconds) from None

    def close(self) -> None:
        """Let running work end and take no more."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _give_back(self, future: "asyncio.Future[Any]") -> None:
        self._taken -= 1
        if not future.cancelled():
            # A late failure has nobody left to read it.
            future.exception()


class Gate:
    """Serve the route table as an ASGI application, closed by default."""

    def __init__(self, app: App, table: Table, error_page: ErrorPage) -> None:
        """Serve `table`; `error_page` renders an error for browsers that asked for a page."""
        self.app = app
        self.table = table
        self._error_page = error_page
        self.pool = Pool(app.settings.threads, app.settings.queue)
        self._hosts = app.settings.hosts()
        self._cookie = cookie_name(app.settings)
        # Unique by counting: asking the system for random bytes gives up the interpreter's lock each time.
        self._started = secrets.token_hex(4)
        self._requests = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request_id = f"req_{self._started}{next(self._requests):08x}"
        static = False
        path = guard.raw_path(scope).decode("latin-1")
        dialect = self.table.dialect_at(path)
        try:
            answer, static = await self._answer(scope, receive, request_id, dialect)
        except Exception as error:  # noqa: BLE001  # the edge: every failure becomes an answer
            answer = self._error(error, scope, request_id, dialect)
        finish(answer, request_id, static=static and answer.status_code == 200, secure=self.app.settings.secure)
        if scope["method"] == "HEAD" and not isinstance(answer, FileResponse):
            answer.body = b""
        await answer(scope, receive, send)

    async def _answer(
        self, scope: Scope, receive: Receive, request_id: str, dialect: Dialect | None
    ) -> tuple[Response, bool]:
        headers = Headers(scope=scope)
        guard.check_shape(scope, headers, self._hosts, dialect)
        path = guard.raw_path(scope).decode("ascii")
        if dialect is not None:
            path = dialect.canonical(path)
        method: str = scope["method"]
        identity = None
        credential = None
        if not self.table.is_public(method, path):
            credential = guard.credential_of(headers, self._cookie, basic=dialect is not None)
            identity = await self._identify(credential)
        actor = ANONYMOUS if identity is None else identity.actor
        match = self.table.match(path)
        guard.check_spelling(path, match)
        route = guard.route_of(match, method, actor, path, dialect)
        assert match is not None
        guard.check_permission(route, actor)
        if dialect is None:
            query = guard.query_of(scope)
            project = guard.project_of(match, query, actor)
        else:
            query = {}
            project = actor.project or _project(credential, dialect)
        body = guard.Body(b"", None)
        stream = None
        if method not in guard.READS:
            if credential is not None and credential.cookie:
                guard.check_browser(headers, credential.text, self.app.settings)
            if route.kind == "stream":
                stream = guard.stream_body(headers, receive, self.app.settings.artifact_limit)
            else:
                body = await guard.read_body(headers, receive, self.app.settings.body_limit)
        key = guard.key_of(headers) if method not in guard.READS else None
        call = AppCall(
            stores=self.app.stores,
            actor=actor,
            project=project,
            path=match.parameters,
            query=query,
            request_id=request_id,
            idempotency_key=key,
            body_digest=None if key is None else _digest(scope, path, body.raw),
            origin=self.app.settings.origin,
            stream=stream,
            headers={name: headers[name] for name in route.headers if name in headers},
            identity=identity,
            cookie=credential.text if credential is not None and credential.cookie else None,
        )
        result = await self._run(route, call, lambda: _arguments(route, body, scope))
        if method not in guard.READS and not route.awaited:
            self.app.wake.set()
        return _render(route, result), route.kind == "static"

    async def _run(self, route: Route, call: Call, arguments: Callable[[], Mapping[str, Any]]) -> Any:
        """Run a handler: in the pool, or on this loop if it is a coroutine."""
        if not route.awaited:
            return await self.pool.run(lambda: route.handler(call, **arguments()), self._seconds(route))
        seconds = _STREAM_SECONDS if route.kind == "stream" else self._seconds(route)
        try:
            async with asyncio.timeout(seconds):
                return await route.handler(call, **arguments())
        except TimeoutError:
            raise late(seconds) from None

    async def _identify(self, credential: guard.Credential) -> Identity:
        identities = self.app.identities
        look_up = identities.of_session if credential.cookie else identities.of_token
        if identities.remembers(credential.text):
            return look_up(credential.text)
        if not credential.cookie and parse_token(credential.text) is None:
            # Refused by its form alone, so that guessing costs the ledger nothing.
            raise Unauthenticated("That is not a token of this server.", mend="Send a token as it was printed.")
        return await self.pool.run(lambda: look_up(credential.text), self.app.settings.request_seconds)

    def _seconds(self, route: Route) -> float:
        if isinstance(route.permission, Permission):
            return _LONG.get(route.permission, self.app.settings.request_seconds)
        return self.app.settings.request_seconds

    def _error(self, error: Exception, scope: Scope, request_id: str, dialect: Dialect | None) -> Response:
        shown = public_error(error, request_id, self.app.stores.home)
        if dialect is None and _wants_page(scope):
            return html_answer(self._error_page(shown, request_id), shown.status)
        return error_answer(shown, request_id, dialect)


@dataclass(frozen=True, slots=True)
class AppCall(Call):
    """Add to a call what only this room's own handlers need: the identity, and the session's cookie."""

    identity: Identity | None = None
    cookie: str | None = None


def cookie_name(settings: Settings) -> str:
    """Return the session cookie's name; two servers on one host differ by their ports.

    Browsers take the `__Host-` prefix through TLS only.
    """
    name = f"holdtrue_session_{settings.port}"
    return f"__Host-{name}" if settings.secure else name


def _digest(scope: Scope, path: str, raw: bytes) -> str:
    """Return the hash of what a request asks for, by which an idempotency key is held to one request."""
    return bytes_hash(b"\0".join((scope["method"].encode(), path.encode(), scope["query_string"], raw)))


def late(seconds: float) -> Unavailable:
    """Return the error of a request that was not done in time."""
    return Unavailable(
        f"The request took longer than {seconds:g} seconds.",
        why="Whether it took effect is not known.",
        mend="Look at the present state, or send it again with the same Idempotency-Key.",
    )


def _project(credential: guard.Credential | None, dialect: Dialect) -> str:
    """Return the project of a token that covers every one: its user name, else the protocol's fallback."""
    if credential is not None and credential.project:
        return check_name(credential.project, "project")
    return dialect.fallback


def _arguments(route: Route, body: guard.Body, scope: Scope) -> Mapping[str, Any]:
    """Return what the handler is called with beside the call."""
    if route.body is None:
        if body.value not in (None, {}):
            raise InvalidInput("This address takes no body.", mend="Send the request without one.")
        return {}
    if route.dialect is None:
        return {"body": load(route.body, {} if body.value is None else body.value, "The request")}
    fields = guard.fields_of(scope)
    if body.value is not None:
        if not isinstance(body.value, dict):
            raise InvalidInput("The body is not a JSON object.")
        fields |= body.value
    return {"body": fields}


def _render(route: Route, result: Any) -> Response:
    if isinstance(result, Reply):
        return reply_answer(result)
    if isinstance(result, Download):
        return download_answer(result)
    if route.kind == "html":
        return html_answer(str(result))
    return json_answer(result)


def _wants_page(scope: Scope) -> bool:
    """Tell whether a browser navigates: scripts and clients get JSON also for errors."""
    if scope["method"] != "GET" or guard.raw_path(scope).startswith(b"/api/"):
        return False
    return "text/html" in Headers(scope=scope).get("accept", "")
