"""A server of HTTP/1.1 on the event loop: the application is called on the thread that reads the socket.

A server whose own threads read hands each request over to the one that runs Python and back, which takes longer than
most requests themselves. What is read of the protocol is in `heads` and `bodies`; whatever concerns the request, the
application checks.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager, suppress
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final, cast

import orjson

from holdtrue.core.errors import HoldtrueError
from holdtrue.wire.bodies import Chunks
from holdtrue.wire.heads import (
    CONTINUE,
    HEAD_LIMIT,
    LAST_CHUNK,
    BadHttp,
    Head,
    chunk,
    head_too_large,
    read_head,
    write_head,
)
from holdtrue.wire.sockets import BACKLOG

App = Callable[..., Awaitable[None]]
Message = MutableMapping[str, Any]
Sent = Callable[[int, list[tuple[bytes, bytes]], bytes], None]
# Takes a request's scope and body, and what sends its answer; says whether it took it.
Begin = Callable[[Message, bytes, Sent], bool]

_AHEAD: Final = 256 << 10
_MOST: Final = 4096
_IDLE: Final = 75.0
_HEAD_SECONDS: Final = 10.0
_LINGER: Final = 2.0
_STALLED: Final = 60.0
_DRAIN: Final = 10.0
_DRAIN_LOOK: Final = 0.005
_LOOK: Final = 1.0
_log: Final = logging.getLogger("holdtrue.wire")


class Turn:
    """Tell of one turn of the event loop: how many of its requests have yet to begin, and which began last."""

    __slots__ = ("last", "starting")

    def __init__(self) -> None:
        self.starting = 0
        self.last: asyncio.Task[None] | None = None


@asynccontextmanager
async def answering(
    app: App,
    listening: socket.socket,
    now_us: Callable[[], int],
    certificate: Path | None = None,
    key: Path | None = None,
    turn: Turn | None = None,
    begin: Begin | None = None,
) -> AsyncGenerator[None]:
    """Let an ASGI application answer on a listening socket; what it has begun when this ends, it finishes.

    `turn` is kept for an application that wants to know which requests came together. `begin` is offered requests that
    are there as a whole, with a head that the application has noted something of: those that it takes, and answers in
    any turn of the event loop, need no task.
    """
    loop = asyncio.get_running_loop()
    secured: ssl.SSLContext | None = None
    if certificate is not None and key is not None:
        secured = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        secured.load_cert_chain(certificate, key)
    connections = Connections(app, now_us, turn, begin)
    handshake = None if secured is None else _HEAD_SECONDS
    server = await loop.create_server(
        connections.connection, sock=listening, ssl=secured, ssl_handshake_timeout=handshake, backlog=BACKLOG
    )
    looking = loop.create_task(connections.look())
    try:
        yield
    finally:
        server.close()
        looking.cancel()
        await connections.close()


class Connections:
    """Hold the connections to an application, and end those that do nothing."""

    def __init__(
        self, app: App, now_us: Callable[[], int], turn: Turn | None = None, begin: Begin | None = None
    ) -> None:
        self.app = app
        self.begin = begin
        self.turn = Turn() if turn is None else turn
        self.closing = False
        self.date = b""
        self.loop = asyncio.get_running_loop()
        self.connections: set[_Connection] = set()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.done.set_result(None)
        self._now_us = now_us
        self._tell()

    def connection(self) -> "_Connection":
        """Return the protocol of a new connection."""
        return _Connection(self)

    async def look(self) -> None:
        """Keep the date, and end connections whose time is over; never returns."""
        while True:
            await asyncio.sleep(_LOOK)
            self._tell()
            now = self.loop.time()
            for each in list(self.connections):
                each.look(now)

    async def close(self) -> None:
        """End all connections, those that are answered after their answer."""
        self.closing = True
        for each in list(self.connections):
            each.leave()
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN):
                while any(each.busy for each in self.connections):
                    await asyncio.sleep(_DRAIN_LOOK)
        for each in list(self.connections):
            each.abort()

    def _tell(self) -> None:
        self.date = formatdate(self._now_us() / 1e6, usegmt=True).encode()


class _Connection(asyncio.Protocol):
    """Answer the requests of one connection, one after the other."""

    def __init__(self, server: Connections) -> None:
        self.task: asyncio.Task[None] | None = None
        self.busy = False
        self._server = server
        self._transport = cast(asyncio.Transport, None)
        self._buffer = b""
        self._raw = b""
        self._head = cast(Head, None)
        self._scope: dict[str, Any] = {}
        self._body: bytes | None = None
        self._missing = 0
        self._chunks: Chunks | None = None
        self._broken: BadHttp | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._gone = self._drops = self._paused = False
        self._told = self._begun = self._complete = self._last = self._waits = self._chunking = False
        self._owed: int | None = None
        self._start: Message = {}
        self._since = self._stalled = server.loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if len(self._server.connections) >= _MOST or self._server.closing:
            self.abort()
            return
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._server.connections.discard(self)
        self._wake()
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._drops:
            return
        if self._missing:
            data = self._take(data)
            self._wake()
            if not data:
                return
        if self._buffer:
            self._buffer += data
        else:
            self._buffer = data
            self._since = self._server.loop.time()
        if not self.busy and self._writable is None:
            self._next()
        elif len(self._buffer) > _AHEAD:
            self._pause()

    def pause_writing(self) -> None:
        self._writable = self._server.loop.create_future()
        self._stalled = self._server.loop.time()

    def resume_writing(self) -> None:
        if self._writable is not None:
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None
            self._go_on()

    def look(self, now: float) -> None:
        """End a connection that asks for nothing for long, does not end its headers, or reads none of its answer."""
        if self._writable is not None and now - self._stalled > _STALLED:
            self.abort()
            return
        most = _LINGER if self._drops else _HEAD_SECONDS if self._buffer else _IDLE
        if not self.busy and now - self._since > most:
            self.abort()

    def held(self) -> int:
        """Return how many bytes wait here to be read by the client, or to be answered."""
        return self._transport.get_write_buffer_size() + len(self._buffer)

    def leave(self) -> None:
        """End a connection that asks for nothing."""
        if not self.busy:
            self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self._gone = True
        self._transport.abort()

    def _next(self) -> None:
        """Begin with the next request, if its head is there."""
        buffer = self._buffer
        if buffer[:2] == b"\r\n":
            # An empty line before a request is passed over (RFC 9112, section 2.2).
            buffer = self._buffer = buffer[2:]
        end = buffer.find(b"\r\n\r\n", 0, HEAD_LIMIT)
        if self._gone or end < 0:
            if not self._gone and len(buffer) >= HEAD_LIMIT:
                self._refuse(head_too_large())
            return
        raw = buffer[:end]
        # A client's requests mostly have the same headers; what they mean is kept with the connection they came by.
        if raw != self._raw:
            try:
                self._head = read_head(raw)
            except HoldtrueError as error:
                self._refuse(error)
                return
            self._raw = raw
            self._scope = _scope(self._head)
        head = self._head
        if head.chunked:
            self._chunks, self._missing, self._body = Chunks(), 1, None
            self._buffer = self._take(buffer[end + 4 :])
        else:
            stop = end + 4 + head.length
            self._chunks, self._body, self._buffer = None, buffer[end + 4 : stop], buffer[stop:]
            self._missing = head.length - len(self._body)
        self._last, self._waits = head.last, head.waits
        self._told = self._begun = self._complete = False
        self.busy = True
        server, scope = self._server, self._scope
        if self._missing or self._body is None:
            scope = scope.copy()
        else:
            if server.begin is not None and scope["notes"] and server.begin(scope, self._body, self._answer):
                return
            # An application may take the body from here, without asking for it.
            scope = {**scope, "body": self._body}
        self.task = server.loop.create_task(self._run(scope))
        self._server.turn.starting += 1

    def _take(self, data: bytes) -> bytes:
        """Keep a body's pieces until the application asks for them; return what came after its end."""
        if self._chunks is None:
            taken, rest = data[: self._missing], data[self._missing :]
            self._missing -= len(taken)
        else:
            try:
                taken, rest = self._chunks.feed(data)
            except BadHttp as error:
                # Where the body ends is not known any more, and so neither where the next request begins.
                self._broken = error
                self._drops = True
                return b""
            self._missing = 0 if self._chunks.ended else 1
        self._body = self._body + taken if self._body else taken
        if len(self._body) > _AHEAD:
            self._pause()
        return rest

    async def _run(self, scope: Message) -> None:
        turn = self._server.turn
        turn.starting -= 1
        turn.last = self.task
        try:
            await self._server.app(scope, self._receive, self._send)
        except Exception:  # noqa: BLE001  # the last resort, as in the application itself: the client is cut off
            _log.exception("A request failed.")
        finally:
            self._finish()

    def _answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Send the whole answer to a request that was taken without a task."""
        if not self._gone:
            self._start = {"status": status, "headers": headers}
            try:
                self._write(body, more=False)
            except Exception:  # noqa: BLE001  # as of an application: whoever answers is in the middle of answering others
                _log.exception("A request failed.")
        # Not at once: of requests that come together and are each refused at once, none should wait within the other.
        self._finish(later=True)

    def _go_on(self) -> None:
        # Who does not read its answers gets no further ones: they would be held here.
        if self._buffer and not self.busy and self._writable is None:
            self._next()

    def _finish(self, *, later: bool = False) -> None:
        self.task = None
        self.busy = False
        self._since = self._server.loop.time()
        if self._gone:
            return
        if not self._complete:
            # Without its end no client takes an answer for a whole one.
            self.abort()
        elif self._ends():
            self._end()
        else:
            self._body = None
            self._resume()
            if self._buffer and later:
                self._server.loop.call_soon(self._go_on)
            else:
                self._go_on()

    def _end(self) -> None:
        """End the connection after its answer.

        A client that still sends would lose the answer by an end at once (RFC 9112, section 9.6): for a moment, what
        it sends is dropped.
        """
        if not self._missing:
            self._transport.close()
            return
        self._drops = True
        self._buffer = b""
        self._resume()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    async def _receive(self) -> Message:
        if self._missing:
            if self._waits and not self._body:
                self._transport.write(CONTINUE)
            self._waits = False
            self._resume()
        while not self._gone:
            if self._body or (not self._told and not self._missing):
                body, self._body = self._body or b"", None
                self._told = not self._missing
                return {"type": "http.request", "body": body, "more_body": self._missing > 0}
            if self._broken is not None:
                raise self._broken
            self._waiter = self._server.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return {"type": "http.disconnect"}

    def _send(self, message: Message) -> Awaitable[None]:
        """Send a piece of the answer; not a coroutine, of which each request would make two."""
        if message["type"] == "http.response.start":
            self._start = message
        elif not self._gone and not self._complete:
            more: bool = message.get("more_body", False)
            self._write(message.get("body", b""), more=more)
            if more and self._writable is not None:
                # Shielded: who stops waiting would else end the wait of all that follow.
                return asyncio.shield(self._writable)
        return self._server.done

    def _write(self, body: bytes, *, more: bool) -> None:
        parts = b"" if self._begun else self._head_of(self._start, more=more)
        if self._head.method != "HEAD":
            if self._chunking:
                parts += chunk(body) if more else chunk(body) + LAST_CHUNK
            else:
                parts += body
            if self._owed is not None:
                self._owed -= len(body)
                if self._owed < 0 or (self._owed and not more):
                    # Another length than was said: without its end no client takes it for the answer.
                    self.abort()
                    return
        self._transport.write(parts)
        self._complete = not more

    def _head_of(self, start: Message, *, more: bool) -> bytes:
        """Begin the answer, and return its head: a stream comes in chunks unless its length is said or HTTP is old."""
        status: int = start["status"]
        headers: list[tuple[bytes, bytes]] = start["headers"]
        self._begun = True
        self._chunking, self._owed = False, None
        if more:
            length = next((value for name, value in headers if name == b"content-length"), None)
            self._chunking = length is None and not self._head.old
            self._owed = None if length is None else int(length)
        if status >= 400:
            told = [each for each in headers if each[0] != b"connection"]
            self._last = self._last or len(told) < len(headers)
            headers = told
        return write_head(status, headers, self._server.date, last=self._ends(), chunked=self._chunking)

    def _pause(self) -> None:
        self._paused = True
        self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def _ends(self) -> bool:
        """Tell whether the connection ends with this answer: a body that nobody read would be taken for a request."""
        return self._last or self._missing > 0 or self._server.closing

    def _refuse(self, error: HoldtrueError) -> None:
        """Answer bytes that are no request, and end the connection: where the next one begins is not known."""
        body = orjson.dumps(error.to_json())
        told = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        self._transport.write(write_head(error.status, told, self._server.date, last=True, chunked=False) + body)
        self._missing = 1
        self._end()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _scope(head: Head) -> dict[str, Any]:
    """Return what an application is told of a request; its `notes` are there when the same head comes again."""
    path, _, query = head.target.partition(b"?")
    return {
        "type": "http",
        "http_version": "1.1",
        "method": head.method,
        "path": path.decode("latin-1"),
        "raw_path": head.target,
        "query_string": query,
        "headers": head.headers,
        "notes": {},
    }
