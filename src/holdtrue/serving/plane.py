"""The data plane's door: a raw ASGI application that knows hosts, tokens, limits and routes.

Whoever has no valid token learns nothing: every path but the two public ones answers 401, known or not.
Paths are compared as they arrive, undecoded, so no spelling of a path reaches a route but its own.
"""

import asyncio
import itertools
import logging
import re
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from holdtrue.core.access import Permission
from holdtrue.core.errors import (
    Forbidden,
    HoldtrueError,
    InvalidInput,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from holdtrue.core.randomness import RandomHex
from holdtrue.serving.access import AccessTable, Grant
from holdtrue.serving.arriving import collect, host_name, read_body
from holdtrue.serving.engine import Engine
from holdtrue.serving.leaving import Leaving
from holdtrue.serving.readiness import readiness

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ErrorForm = Callable[[HoldtrueError], bytes]

BODY_LIMIT: Final = 16 << 20
_LIVE: Final = "/health/live"
_PUBLIC: Final = frozenset({_LIVE, "/health/ready"})
_MATCHES: Final = 4096
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_REQUEST_ID: Final = re.compile(rb"[!-~]{1,128}")
_MILLISECONDS: Final = re.compile(rb"[1-9][0-9]{0,8}")
_REST: Final = 300
Headers = tuple[tuple[bytes, bytes], ...]


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


class DeadlineExceeded(HoldtrueError):
    """A request was not answered within the time that its client waits."""

    code = "deadline_exceeded"
    status = 504


@dataclass(slots=True)
class Request:
    """Hold what an endpoint gets: the body, the project, the path's parameters, who asks, and when it began.

    `id` is the one that the client gave its request, or else one made for it (of a patient endpoint, always one
    made for it). `seconds` bounds a patient one; an endpoint that streams raises it to `longest`.
    """

    body: bytes
    project: str
    path: tuple[str, ...]
    headers: Mapping[bytes, bytes]
    started: float
    grant: Grant
    id: str = ""
    seconds: float = 0.0
    longest: float = 0.0


@dataclass(slots=True)
class Reply:
    """Hold an answer, JSON unless it says otherwise; `named` if its headers need no id of the request."""

    status: int
    body: bytes
    headers: Headers = ()
    media: bytes = b"application/json"
    named: bool = False


@dataclass(slots=True)
class Stream:
    """Hold an answer of server-sent events that comes in pieces.

    `close` is called in the end whatever happens, also if the client goes away before the first piece. If
    they end in an error, `broken` gives the last piece, and the connection is cut after it: no client can
    take what it got for the whole.
    """

    parts: AsyncGenerator[bytes]
    broken: ErrorForm
    close: Callable[[], Awaitable[None]]
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Describe one route: nothing is served that is not described so.

    `path` has parameters in braces; one that ends in an ellipsis takes the rest of the path as it came. A
    `patient` endpoint waits for other servers: its requests are counted apart, end when the client goes away,
    and may answer with a `Stream`. `body_limit` is the
    most bytes its body may have. The requests of a `deferrable` one may be answered later; of one
    that is asked `once`, since others are paid for it, what was begun is never begun again.
    """

    method: str
    path: str
    permission: Permission
    handle: Callable[[Request], Awaitable[Reply | Stream]]
    patient: bool = False
    body_limit: int = BODY_LIMIT
    deferrable: bool = False
    once: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Bound what one worker takes on: requests at a time, and seconds until a request must be done.

    `patient` bounds the requests of patient endpoints, and `stream` the seconds of one that streams.
    """

    requests: int = 256
    deadline: float = 30.0
    patient: int = 2048
    stream: float = 600.0


@dataclass(slots=True)
class _Open:
    """Keep the requests under way, so that the slow ones can be ended.

    `ended` says why one was: the error to answer with, or None if nobody is left to answer to.
    """

    tasks: dict[asyncio.Task[Any], float] = field(default_factory=dict[asyncio.Task[Any], float])
    patient: dict[asyncio.Task[Any], Request] = field(default_factory=dict[asyncio.Task[Any], Request])
    ended: dict[asyncio.Task[Any], HoldtrueError | None] = field(
        default_factory=dict[asyncio.Task[Any], HoldtrueError | None]
    )

    def end(self, task: asyncio.Task[Any], error: HoldtrueError | None) -> None:
        """Cancel a request, once."""
        if task not in self.ended:
            self.ended[task] = error
            # Whoever is at work learns why: an answer that comes too late is another matter than a client that left.
            task.cancel(None if error is None else error.code)

    def why(self) -> HoldtrueError | None:
        """Return why this task was cancelled, None if its client is gone; a cancellation not ours goes on."""
        task = asyncio.current_task()
        if task is None or task not in self.ended:
            raise asyncio.CancelledError
        task.uncancel()
        return self.ended.pop(task)


def house_error(error: HoldtrueError) -> bytes:
    """Return the form in which Holdtrue's own routes report an error."""
    return orjson.dumps(error.to_json())


class Plane:
    """Be the ASGI application of one worker.

    `errors` gives, by prefix of the path, a protocol's own form of an error (the first that fits);
    `lifespan` is what runs beside the requests, from start to shutdown. `projects` are those that have no
    service and are known all the same.
    """

    def __init__(
        self,
        engine: Engine,
        endpoints: Sequence[Endpoint],
        *,
        hosts: Sequence[str],
        errors: Mapping[str, ErrorForm],
        lifespan: Callable[["Plane"], AbstractAsyncContextManager[None]],
        limits: Limits,
    ) -> None:
        self.projects: frozenset[str] = frozenset()
        self._access = AccessTable()
        self._engine = engine
        self._routes = _Router(endpoints)
        self._hosts = frozenset(host.lower() for host in hosts)
        self._known_hosts: set[bytes] = set()
        self._errors = tuple(errors.items())
        self._lifespan = lifespan
        self._limits = limits
        self._open = _Open()
        self._mark = f"req_{secrets.token_hex(6)}"
        self._random = RandomHex()
        self._requests = itertools.count()
        self._log = logging.getLogger("holdtrue.dataplane")
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        started = self._engine.stopwatch()
        raw = scope.get("raw_path")
        path: str = scope["path"] if raw is None else raw.decode("latin-1").partition("?")[0]
        name = b""
        try:
            headers = collect(scope["headers"])
            name = self._name(headers)
            reply = await self._answer(scope, path, headers, name, receive, send, started)
        except HoldtrueError as error:
            reply = self._refusal(path, error)
        except asyncio.CancelledError:
            reply = self._refusal(path, self._open.why())
        except Exception:  # noqa: BLE001  # the last resort: the log learns what, the client only that
            self._log.exception("The request %s failed.", name.decode("latin-1"))
            reply = self._refusal(path, HoldtrueError("The request failed."))
        if reply is None:
            return
        told = [(b"content-type", reply.media), (b"content-length", b"%d" % len(reply.body)), *reply.headers]
        if name and not reply.named:
            told.append((b"x-request-id", name))
        await send({"type": "http.response.start", "status": reply.status, "headers": told})
        await send({"type": "http.response.body", "body": reply.body})

    def _name(self, headers: Mapping[bytes, bytes]) -> bytes:
        """Return the id of a request, its client's or a new one."""
        given = headers.get(b"x-request-id")
        if given is None:
            return f"{self._mark}{next(self._requests):08x}".encode()
        if _REQUEST_ID.fullmatch(given) is None:
            raise InvalidInput("The header X-Request-Id is not 1 to 128 printable characters without spaces.")
        return given

    def _refusal(self, path: str, error: HoldtrueError | None) -> Reply | None:
        if error is None:
            return None
        return Reply(error.status, self.error_form(path)(error), _extra_headers(error))

    @asynccontextmanager
    async def living(self) -> AsyncGenerator[None]:
        """Hold what answers need: requests may come while it is held."""
        # Asked for once: to ask for it costs Python 3.11 a system call each time.
        self._loop = asyncio.get_running_loop()
        async with self._lifespan(self):
            yield

    def set_access(self, access: AccessTable) -> None:
        """Take over a new access table; requests that come from now on, and streams, are held to it."""
        self._access = access
        for task, request in list(self._open.patient.items()):
            if request.grant.digest not in access.grants:
                self._open.end(task, Unauthenticated("The token ended while it was being answered."))

    @contextmanager
    def admitted(self, headers: Mapping[bytes, bytes], permission: Permission, started: float) -> Generator[Request]:
        """Hold a request that another server than this one took in to the same door: token, project, load, deadline.

        Raises what the door raises, and for a request that took too long the reason.
        """
        name = self._name(headers)
        grant = self._authenticate(headers)
        _permit(grant, permission)
        if grant.rate is not None:
            self._engine.rate(f"token/{grant.token}", grant.rate, "This token")
        request = Request(b"", self._project(grant, headers), (), headers, started, grant, name.decode())
        task = asyncio.current_task()
        assert task is not None
        if len(self._open.tasks) >= self._limits.requests:
            raise _too_many()
        timer = self._timer(headers, started, task)
        self._open.tasks[task] = started
        try:
            yield request
        except asyncio.CancelledError:
            error = self._open.why()
            assert error is not None, "only patient requests end because their client left"
            raise error from None
        finally:
            del self._open.tasks[task]
            if timer is not None:
                timer.cancel()

    def expire(self) -> None:
        """End the requests that have been under way for longer than they may."""
        now = self._engine.stopwatch()
        limit = now - self._limits.deadline
        late = [task for task, started in self._open.tasks.items() if started < limit]
        late += [task for task, each in self._open.patient.items() if each.started < now - each.seconds]
        for task in late:
            self._open.end(task, TooSlow("The request was not done in time.", mend="Try again."))

    def error_form(self, path: str) -> ErrorForm:
        """Return the form in which an error is told at this path."""
        return next((form for prefix, form in self._errors if path.startswith(prefix)), house_error)

    async def _answer(
        self,
        scope: Scope,
        path: str,
        headers: Mapping[bytes, bytes],
        name: bytes,
        receive: Receive,
        send: Send,
        started: float,
    ) -> Reply | None:
        """Return the answer, or None if it has been sent already."""
        method: str = scope["method"]
        self._check_host(headers)
        if method == "GET" and path in _PUBLIC:
            return Reply(200, b'{"status":"ok"}') if path == _LIVE else self._ready(headers)
        grant = self._authenticate(headers)
        endpoint, parameters = self._routes.match(method, path)
        _permit(grant, endpoint.permission)
        if grant.rate is not None:
            self._engine.rate(f"token/{grant.token}", grant.rate, "This token")
        request = Request(b"", self._project(grant, headers), parameters, headers, started, grant)
        task = asyncio.current_task(self._loop)
        assert task is not None
        if endpoint.patient:
            return await self._answer_patiently(endpoint, request, path, receive, send, task)
        under_way = self._open.tasks
        if len(under_way) >= self._limits.requests:
            raise _too_many()
        timer = self._timer(headers, started, task)
        request.id = name.decode()
        under_way[task] = started
        try:
            request.body = await read_body(headers, receive, endpoint.body_limit)
            reply = await endpoint.handle(request)
        finally:
            del under_way[task]
            if timer is not None:
                timer.cancel()
        assert isinstance(reply, Reply), "only patient endpoints stream"
        return reply

    def _timer(
        self, headers: Mapping[bytes, bytes], started: float, task: asyncio.Task[Any]
    ) -> asyncio.TimerHandle | None:
        """End a request once the time is over that its client says it waits."""
        given = headers.get(b"x-request-timeout-ms")
        if given is None:
            return None
        if _MILLISECONDS.fullmatch(given) is None:
            raise InvalidInput("The header X-Request-Timeout-Ms is not a whole number of milliseconds above 0.")
        left = int(given) / 1000 - (self._engine.stopwatch() - started)
        late = DeadlineExceeded(
            f"The request was not answered within {int(given)} milliseconds.",
            why="That is how long it says that its client waits.",
            mend="Try again, or wait longer.",
        )
        return asyncio.get_running_loop().call_later(left, self._open.end, task, late)

    async def _answer_patiently(
        self, endpoint: Endpoint, request: Request, path: str, receive: Receive, send: Send, task: asyncio.Task[Any]
    ) -> Reply | None:
        """Answer while the client is there to be answered: when it goes away, the work for it ends."""
        under_way = self._open.patient
        if len(under_way) >= self._limits.patient:
            raise _too_many()
        request.id = f"req_{self._random.take(16)}"
        request.seconds, request.longest = self._limits.deadline, self._limits.stream
        under_way[task] = request

        watch = Leaving(task.get_loop(), receive, lambda: self._open.end(task, None))
        try:
            request.body = await read_body(request.headers, receive, endpoint.body_limit)
            watch.start_later()
            reply = await endpoint.handle(request)
            if isinstance(reply, Reply):
                reply.named = True
                return reply
            await self._send_stream(reply, send, watch)
        except HoldtrueError as error:
            refusal = Reply(error.status, self.error_form(path)(error), _extra_headers(error))
            refusal.headers += ((b"x-request-id", request.id.encode()),)
            refusal.named = True
            return refusal
        finally:
            del under_way[task]
            watch.stop()
        return None

    async def _send_stream(self, stream: Stream, send: Send, watch: Leaving) -> None:
        """Send the pieces as they come; what breaks after the first byte is told in the protocol's form."""
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        broken: HoldtrueError | None = None
        try:
            await send({"type": "http.response.start", "status": 200, "headers": [*headers, *stream.headers]})
            async for part in stream.parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
                watch.start()
        except HoldtrueError as error:
            broken = error
        except asyncio.CancelledError:
            broken = self._open.why()
            if broken is None:
                return
        except Exception:  # noqa: BLE001  # as above: the log learns what, the client only that
            self._log.exception("A stream failed.")
            broken = HoldtrueError("The request failed.")
        finally:
            await stream.parts.aclose()
            await stream.close()
        if broken is None:
            await send({"type": "http.response.body", "body": b""})
        else:
            # Without a last piece the server cuts the connection, which every client takes for a failure.
            await send({"type": "http.response.body", "body": stream.broken(broken), "more_body": True})

    def _check_host(self, headers: Mapping[bytes, bytes]) -> None:
        host = headers.get(b"host", b"")
        if host in self._known_hosts:
            return
        if host_name(host.decode("latin-1").lower()) not in self._hosts:
            raise WrongHost("This server does not answer for that host.")
        if len(self._known_hosts) < _MATCHES:
            self._known_hosts.add(host)

    def _authenticate(self, headers: Mapping[bytes, bytes]) -> Grant:
        header = headers.get(b"authorization", b"")
        key = headers.get(b"x-api-key")
        if key is not None:
            # Clients of Anthropic's API send their key so. Two credentials at once would leave open whose it is.
            header = b"bearer " + key if not header else b""
        if header[:7].lower() == b"bearer ":
            grant = self._access.check(header[7:].strip())
            if grant is not None:
                return grant
        raise Unauthenticated(
            "A valid token is needed.",
            why="The request has no token, or one that is unknown, revoked or expired.",
            mend="Send the header “Authorization: Bearer TOKEN”, or “x-api-key: TOKEN” (one of them); "
            "`holdtrue token create` makes a token.",
        )

    def _ready(self, headers: Mapping[bytes, bytes]) -> Reply:
        try:
            grant = self._authenticate(headers)
        except Unauthenticated:
            grant = None
        return Reply(*readiness(self._engine.table, self._engine.unread, grant))

    def _project(self, grant: Grant, headers: Mapping[bytes, bytes]) -> str:
        """Return the project a request is about: its token's, or the one it names if the token is for all."""
        header = headers.get(b"x-holdtrue-project")
        if header is None:
            if grant.project is not None:
                return grant.project
            projects = self._engine.table.projects | self.projects
            if len(projects) == 1:
                return next(iter(projects))
            raise InvalidInput(
                "Which project is meant?",
                why="The token is for all projects.",
                mend="Send the header “X-Holdtrue-Project: NAME”, or use a token of the project.",
            )
        name = header.decode("latin-1")
        if name == grant.project or (grant.project is None and name in self._engine.table.projects | self.projects):
            return name
        raise NotFound.of("project", name[:80])


class _Router:
    """Find the endpoint of a method and raw path."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._patterns = [(each.path.split("/"), each) for each in endpoints]
        self._matches: dict[tuple[str, str], tuple[Endpoint, tuple[str, ...]]] = {}

    def match(self, method: str, path: str) -> tuple[Endpoint, tuple[str, ...]]:
        """Return the endpoint and the path's parameters; raise NotFound or MethodNotAllowed."""
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
            raise MethodNotAllowed("The path exists, and not for this method.")
        raise NotFound("There is nothing at this path.")


def _match(pattern: list[str], parts: list[str]) -> tuple[str, ...] | None:
    if pattern[-1].endswith("...}"):
        start = len(pattern) - 1
        rest = "/".join(parts[start:])
        if parts[:start] != pattern[:-1] or not 0 < len(rest) <= _REST:
            return None
        return (rest,)
    if len(pattern) != len(parts):
        return None
    parameters: list[str] = []
    for expected, part in zip(pattern, parts, strict=True):
        if expected[:1] == "{":
            # A name needs no decoding, so a path that does names nothing here.
            if _NAME.fullmatch(part) is None:
                return None
            parameters.append(part)
        elif expected != part:
            return None
    return tuple(parameters)


def _permit(grant: Grant, permission: Permission) -> None:
    if permission not in grant.permissions:
        raise Forbidden(
            "This token may not do that.",
            why=f"It lacks the permission {permission.value}.",
            mend="Ask an administrator for a token with a role that has it.",
        )


def _too_many() -> Unavailable:
    return Unavailable("Too many requests at once.", mend="Try again in a second.")


def _extra_headers(error: HoldtrueError) -> Headers:
    status = error.status
    if status == 401:
        return ((b"www-authenticate", b"Bearer"),)
    if status in (429, 503):
        seconds = error.facts.get("retry_after", 1 if status == 503 else None)
        return () if seconds is None else ((b"retry-after", b"%d" % seconds),)
    if status in (408, 413, 504):
        return ((b"connection", b"close"),)
    return ()
