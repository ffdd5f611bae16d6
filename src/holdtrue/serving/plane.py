"""The data plane's door: a raw ASGI application that knows hosts, tokens, limits and routes.

Whoever has no valid token learns nothing: every path but the two public ones answers 401, known or not.
Paths are compared as they arrive, undecoded, so no spelling of a path reaches a route but its own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from holdtrue.core.access import Permission
from holdtrue.core.errors import (
    Forbidden,
    HoldtrueError,
    InvalidInput,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from holdtrue.serving.access import AccessTable, Grant
from holdtrue.serving.engine import Engine

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_LIMIT: Final = 16 << 20
_LIVE: Final = ("GET", "/health/live")
_READY: Final = ("GET", "/health/ready")
_MATCHES: Final = 4096
_COLLECTED: Final = frozenset(
    {b"host", b"authorization", b"content-length", b"x-holdtrue-project", b"inference-header-content-length"}
)


class WrongHost(InvalidInput):
    """A request came for a host that this server is not."""

    code = "wrong_host"
    status = 421


class MethodNotAllowed(HoldtrueError):
    """The path exists, and not for this method."""

    code = "method_not_allowed"
    status = 405


class TooSlow(HoldtrueError):
    """A request did not arrive before its deadline."""

    code = "too_slow"
    status = 408


@dataclass(slots=True)
class Request:
    """Hold what an endpoint gets: the body, the project, the path's parameters, and when it began."""

    body: bytes
    project: str
    path: tuple[str, ...]
    headers: Mapping[bytes, bytes]
    started: float


@dataclass(slots=True)
class Reply:
    """Hold a JSON answer."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Describe one route: nothing is served that is not described so.

    `path` has parameters in braces; `error` gives the protocol's form of an error.
    """

    method: str
    path: str
    permission: Permission
    handle: Callable[[Request], Awaitable[Reply]]
    error: Callable[[HoldtrueError], bytes]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bound what one worker takes on: requests at a time, and seconds until a request must have arrived."""

    requests: int = 512
    deadline: float = 10.0


@dataclass(slots=True)
class _Open:
    """Keep the requests under way, so that the slow ones can be ended."""

    tasks: dict[asyncio.Task[Any], float] = field(default_factory=dict[asyncio.Task[Any], float])
    late: set[asyncio.Task[Any]] = field(default_factory=set[asyncio.Task[Any]])


def house_error(error: HoldtrueError) -> bytes:
    """Return the form in which Holdtrue's own routes report an error."""
    return orjson.dumps(error.to_json())


class Plane:
    """Be the ASGI application of one worker; `run` is its background work, from start to shutdown."""

    def __init__(
        self,
        engine: Engine,
        endpoints: Sequence[Endpoint],
        *,
        hosts: Sequence[str],
        limits: Limits,
    ) -> None:
        self.access = AccessTable()
        self._engine = engine
        self._routes = _Router(endpoints)
        self._hosts = frozenset(host.lower() for host in hosts)
        self._known_hosts: set[bytes] = set()
        self._limits = limits
        self._open = _Open()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        started = self._engine.stopwatch()
        path = scope.get("raw_path")
        path = scope["path"] if path is None else path.decode("latin-1").partition("?")[0]
        error_form = _error_form(path)
        try:
            reply = await self._answer(scope, path, receive, started)
        except HoldtrueError as error:
            reply = Reply(error.status, error_form(error))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task not in self._open.late:
                raise
            self._open.late.discard(task)
            task.uncancel()
            reply = Reply(408, error_form(TooSlow("The request did not arrive in time.")))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(reply.body))]
        if reply.status >= 400:
            headers += _extra_headers(reply.status)
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    def expire(self) -> None:
        """End the requests that have been arriving for longer than the deadline; called every second."""
        limit = self._engine.stopwatch() - self._limits.deadline
        for task, started in list(self._open.tasks.items()):
            if started < limit and task not in self._open.late:
                self._open.late.add(task)
                task.cancel()

    async def _answer(self, scope: Scope, path: str, receive: Receive, started: float) -> Reply:
        method = scope["method"]
        headers = _collect(scope["headers"])
        self._check_host(headers)
        if (method, path) == _LIVE:
            return Reply(200, b'{"live":true}')
        if (method, path) == _READY:
            ready = self._engine.ready
            return Reply(200 if ready else 503, b'{"ready":true}' if ready else b'{"ready":false}')
        grant = self._authenticate(headers)
        endpoint, parameters = self._routes.match(method, path)
        if endpoint.permission not in grant.permissions:
            raise Forbidden(
                "This token may not do that.",
                why=f"It lacks the permission {endpoint.permission.value}.",
                mend="Ask an administrator for a token with a role that has it.",
            )
        project = self._project(grant, headers)
        open_requests = self._open.tasks
        if len(open_requests) >= self._limits.requests:
            raise Unavailable("Too many requests at once.", mend="Try again in a second.")
        task = asyncio.current_task()
        if task is not None:
            open_requests[task] = started
        try:
            body = await _read_body(headers, receive)
        finally:
            if task is not None:
                open_requests.pop(task, None)
        return await endpoint.handle(Request(body, project, parameters, headers, started))

    def _check_host(self, headers: Mapping[bytes, bytes]) -> None:
        host = headers.get(b"host", b"")
        if host in self._known_hosts:
            return
        name = _host_name(host.decode("latin-1").lower())
        if name not in self._hosts:
            raise WrongHost("This server does not answer for that host.")
        if len(self._known_hosts) < _MATCHES:
            self._known_hosts.add(host)

    def _authenticate(self, headers: Mapping[bytes, bytes]) -> Grant:
        header = headers.get(b"authorization", b"")
        if header[:7].lower() == b"bearer ":
            grant = self.access.check(header[7:].strip(), self._engine.now_us())
            if grant is not None:
                return grant
        raise Unauthenticated(
            "A valid token is needed.",
            why="The request has no token, or one that is unknown, revoked or expired.",
            mend="Send the header “Authorization: Bearer TOKEN”; `holdtrue token create` makes a token.",
        )

    def _project(self, grant: Grant, headers: Mapping[bytes, bytes]) -> str:
        """Return the project a request is about: its token's, or the one it names if the token is for all."""
        header = headers.get(b"x-holdtrue-project")
        if header is None:
            if grant.project is not None:
                return grant.project
            projects = self._engine.table.projects
            if len(projects) == 1:
                return next(iter(projects))
            raise InvalidInput(
                "Which project is meant?",
                why="The token is for all projects.",
                mend="Send the header “X-Holdtrue-Project: NAME”, or use a token of the project.",
            )
        name = header.decode("latin-1")
        if grant.project is None and name in self._engine.table.projects:
            return name
        if name == grant.project:
            return name
        raise NotFound.of("project", name[:80])


class _Router:
    """Find the endpoint of a method and raw path."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._patterns = [(each.path.split("/"), each) for each in endpoints]
        self._matches: dict[tuple[str, str], tuple[Endpoint, tuple[str, ...]]] = {}

    def match(self, method: str, path: str) -> tuple[Endpoint, tuple[str, ...]]:
        found = self._matches.get((method, path))
        if found is not None:
            return found
        parts = path.split("/")
        other_method = False
        for pattern, endpoint in self._patterns:
            parameters = _match(pattern, parts)
            if parameters is None:
                continue
            if endpoint.method != method:
                other_method = True
                continue
            if len(self._matches) >= _MATCHES:
                self._matches.clear()
            self._matches[method, path] = endpoint, parameters
            return endpoint, parameters
        if other_method:
            raise MethodNotAllowed(f"The path exists, and not for {method[:20]}.")
        raise NotFound("There is nothing at this path.")


def _match(pattern: list[str], parts: list[str]) -> tuple[str, ...] | None:
    if len(pattern) != len(parts):
        return None
    parameters: list[str] = []
    for expected, part in zip(pattern, parts, strict=True):
        if expected[:1] == "{":
            # Names are unreserved characters only, so a path that needs decoding names nothing here.
            if not part or not part.isascii() or not part.replace("_", "").replace("-", "").replace(".", "").isalnum():
                return None
            parameters.append(part)
        elif expected != part:
            return None
    return tuple(parameters)


def _collect(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Pick the headers that matter here; one of them given twice is an error."""
    collected: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _COLLECTED:
            if name in collected:
                raise InvalidInput(f"The header {name.decode()} is given twice.")
            collected[name] = value
    return collected


async def _read_body(headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
    length = headers.get(b"content-length")
    if length is not None and (not length.isdigit() or int(length) > BODY_LIMIT):
        raise _too_large()
    message = await receive()
    if not message.get("more_body"):
        body = message.get("body", b"")
        if len(body) > BODY_LIMIT:
            raise _too_large()
        return body
    parts: list[bytes] = [message["body"]]
    size = len(parts[0])
    while message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_LIMIT:
            raise _too_large()
    return b"".join(parts)


def _too_large() -> TooLarge:
    return TooLarge(
        "The body is too large.",
        why=f"One request holds up to {BODY_LIMIT >> 20} MiB.",
        mend="Send the rows in several requests.",
    )


def _host_name(host: str) -> str:
    """Return the name in a Host header of the form host[:port], or "" if it has another form."""
    name, separator, port = host.rpartition(":")
    if not separator or host.endswith("]"):
        return host
    return name if port.isdigit() and (":" not in name or name.startswith("[")) else ""


def _error_form(path: str) -> Callable[[HoldtrueError], bytes]:
    return _protocol_error if path.startswith("/v2") else house_error


def _protocol_error(error: HoldtrueError) -> bytes:
    return orjson.dumps({"error": f"{error.what} {error.why}".strip()})


def _extra_headers(status: int) -> list[tuple[bytes, bytes]]:
    if status == 401:
        return [(b"www-authenticate", b"Bearer")]
    if status == 503:
        return [(b"retry-after", b"1")]
    if status == 408:
        return [(b"connection", b"close")]
    return []
