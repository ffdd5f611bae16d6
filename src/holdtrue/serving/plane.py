"""The data plane as a raw ASGI application: it lets requests in, bounds them, and sends what they are answered.

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
from holdtrue.core.errors import HoldtrueError, InvalidInput, NotFound, Unauthenticated, Unavailable
from holdtrue.core.randomness import RandomHex
from holdtrue.serving.access import AccessTable, Grant
from holdtrue.serving.arriving import collect, read_body
from holdtrue.serving.door import Door, Entry, permit
from holdtrue.serving.endpoints import Endpoint, ErrorForm, Headers, Reply, Request, Stream
from holdtrue.serving.engine import Engine
from holdtrue.serving.leaving import Leaving
from holdtrue.serving.readiness import readiness
from holdtrue.wire import Sent

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_LIVE: Final = "/health/live"
_PUBLIC: Final = frozenset({_LIVE, "/health/ready"})
_REQUEST_ID: Final = re.compile(rb"[!-~]{1,128}")
_MILLISECONDS: Final = re.compile(rb"[1-9][0-9]{0,8}")


class TooSlow(HoldtrueError):
    """A request did not arrive before its deadline."""

    code = "too_slow"
    status = 408


class DeadlineExceeded(HoldtrueError):
    """A request was not answered within the time that its client waits."""

    code = "deadline_exceeded"
    status = 504


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
    """Keep the requests under way, so that the slow ones can be ended: those of tasks, and those that have none.

    `ended` says why one was: the error to answer with, or None if nobody is left to answer to.
    """

    tasks: dict[asyncio.Task[Any], float] = field(default_factory=dict[asyncio.Task[Any], float])
    patient: dict[asyncio.Task[Any], Request] = field(default_factory=dict[asyncio.Task[Any], Request])
    direct: set["_Direct"] = field(default_factory=set["_Direct"])
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


class _Direct:
    """Be told of the answer to a request that has no task, once, and send it."""

    __slots__ = ("_ended", "_form", "_open", "_path", "_refused", "_send", "name", "started")

    def __init__(
        self,
        open_: _Open,
        path: str,
        started: float,
        send: Sent,
        refused: Callable[[str, bytes, Exception], Reply],
    ) -> None:
        self._form: Callable[[Any], Reply] = _formless
        self.name = b""
        self.started = started
        self._open = open_
        self._path = path
        self._send = send
        self._refused = refused
        self._ended = False

    def shape(self, form: Callable[[Any], Reply], /) -> None:
        self._form = form

    def done(self) -> bool:
        return self._ended

    def set_result(self, result: Any, /) -> None:
        try:
            reply = self._form(result)
        except Exception as error:  # noqa: BLE001  # whoever told of the answer is in the middle of telling others
            self.fail(error)
            return
        self._end(reply)

    def set_exception(self, exception: HoldtrueError, /) -> None:
        self.fail(exception)

    def fail(self, error: Exception) -> None:
        self._end(self._refused(self._path, self.name, error))

    def _end(self, reply: Reply) -> None:
        self._ended = True
        self._open.direct.discard(self)
        self._send(reply.status, _told(reply, self.name), reply.body)


def _formless(_answer: Any) -> Reply:
    raise HoldtrueError("The request failed.", why="Its endpoint gave its answer no form.")


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
        self._engine = engine
        self._door = Door(endpoints, hosts)
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
        entry = self._door.known(scope)
        path = _path(scope) if entry is None else entry.path
        name = b""
        try:
            headers = collect(scope["headers"]) if entry is None else entry.headers
            name = self._name(headers)
            if entry is None:
                self._door.check_host(headers)
            if path in _PUBLIC and scope["method"] == "GET":
                reply = Reply(200, b'{"status":"ok"}') if path == _LIVE else self._ready(headers)
            else:
                entry = entry or self._door.enter(scope, path, headers)
                reply = await self._answer(entry, name, scope, receive, send, started)
        except asyncio.CancelledError:
            ended = self._open.why()
            reply = None if ended is None else self._refused(path, name, ended)
        except Exception as error:  # noqa: BLE001  # the last resort: the log learns what, the client only that
            reply = self._refused(path, name, error)
        if reply is None:
            return
        await send({"type": "http.response.start", "status": reply.status, "headers": _told(reply, name)})
        await send({"type": "http.response.body", "body": reply.body})

    def begin(self, scope: Scope, body: bytes, send: Sent) -> bool:
        """Begin to answer a request that needs no task, and say whether it is one; `send` gets its answer.

        Its head was let in before, and asks for nothing but an answer. A task for each takes a fifth of such a request.
        """
        entry = self._door.known(scope)
        if entry is None or entry.begin is None or len(body) > entry.endpoint.body_limit:
            return False
        started = self._engine.stopwatch()
        direct = _Direct(self._open, entry.path, started, send, self._refused)
        try:
            direct.name = self._name(entry.headers)
            project = self._project(entry.grant, entry.headers)
            if len(self._open.tasks) + len(self._open.direct) >= self._limits.requests:
                raise _too_many()
            name = direct.name.decode()
            request = Request(body, project, entry.parameters, entry.headers, started, entry.grant, name)
            if not entry.begin(request, direct):
                return False
        except Exception as error:  # noqa: BLE001  # as above: whatever it is, somebody waits for an answer
            direct.fail(error)
            return True
        if not direct.done():
            self._open.direct.add(direct)
        return True

    def _name(self, headers: Mapping[bytes, bytes]) -> bytes:
        """Return the id of a request, its client's or a new one."""
        given = headers.get(b"x-request-id")
        if given is None:
            return f"{self._mark}{next(self._requests):08x}".encode()
        if _REQUEST_ID.fullmatch(given) is None:
            raise InvalidInput("The header X-Request-Id is not 1 to 128 printable characters without spaces.")
        return given

    def _refused(self, path: str, name: bytes, error: Exception) -> Reply:
        if not isinstance(error, HoldtrueError):
            self._log.error("The request %s failed.", name.decode("latin-1"), exc_info=error)
            error = HoldtrueError("The request failed.")
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
        self._door.access = access
        for task, request in list(self._open.patient.items()):
            if request.grant.digest not in access.grants:
                self._open.end(task, Unauthenticated("The token ended while it was being answered."))

    @contextmanager
    def admitted(self, headers: Mapping[bytes, bytes], permission: Permission, started: float) -> Generator[Request]:
        """Hold a request that another server than this one took in to the same door: token, project, load, deadline.

        Raises what the door raises, and for a request that took too long the reason.
        """
        name = self._name(headers)
        grant = self._door.authenticate(headers)
        permit(grant, permission)
        if grant.rate is not None:
            self._engine.rate(f"token/{grant.token}", grant.rate, "This token")
        request = Request(b"", self._project(grant, headers), (), headers, started, grant, name.decode())
        task = asyncio.current_task()
        assert task is not None
        if len(self._open.tasks) + len(self._open.direct) >= self._limits.requests:
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
        error = TooSlow("The request was not done in time.", mend="Try again.")
        for task in late:
            self._open.end(task, error)
        for direct in [each for each in self._open.direct if each.started < limit]:
            direct.set_exception(error)

    def error_form(self, path: str) -> ErrorForm:
        """Return the form in which an error is told at this path."""
        return next((form for prefix, form in self._errors if path.startswith(prefix)), house_error)

    def _ready(self, headers: Mapping[bytes, bytes]) -> Reply:
        try:
            grant = self._door.authenticate(headers)
        except Unauthenticated:
            grant = None
        return Reply(*readiness(self._engine.table, self._engine.unread, grant))

    async def _answer(
        self, entry: Entry, name: bytes, scope: Scope, receive: Receive, send: Send, started: float
    ) -> Reply | None:
        """Return the answer, or None if it has been sent already."""
        grant, endpoint, headers = entry.grant, entry.endpoint, entry.headers
        if grant.rate is not None:
            self._engine.rate(f"token/{grant.token}", grant.rate, "This token")
        request = Request(b"", self._project(grant, headers), entry.parameters, headers, started, grant)
        task = asyncio.current_task(self._loop)
        assert task is not None
        if endpoint.patient:
            return await self._answer_patiently(endpoint, request, entry.path, receive, send, task)
        under_way = self._open.tasks
        if len(under_way) + len(self._open.direct) >= self._limits.requests:
            raise _too_many()
        timer = self._timer(headers, started, task)
        request.id = name.decode()
        under_way[task] = started
        try:
            # A body that came with its head need not be asked for.
            body: bytes | None = scope.get("body")
            if body is None or len(body) > endpoint.body_limit:
                body = await read_body(headers, receive, endpoint.body_limit)
            request.body = body
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
            raise InvalidInput(
                "The header X-Request-Timeout-Ms is not a whole number of milliseconds from 1 to 999999999."
            )
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


def _told(reply: Reply, name: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers of a reply to the request of this name."""
    told = [(b"content-type", reply.media), (b"content-length", b"%d" % len(reply.body)), *reply.headers]
    if name and not reply.named:
        told.append((b"x-request-id", name))
    return told


def _path(scope: Scope) -> str:
    """Return the path as it came, undecoded."""
    raw = scope.get("raw_path")
    return scope["path"] if raw is None else raw.decode("latin-1").partition("?")[0]


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
