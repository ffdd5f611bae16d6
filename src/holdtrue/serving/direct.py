"""A second port of the data plane, on which the event loop itself speaks HTTP/1.1: for clients that wait for little.

Granian's threads hand each request over to the one that runs Python and back, which takes longer than to look features
up. Here the same application is called on the thread that reads the socket. So everything that it checks it checks here
too; what this module adds is in `wire`, which refuses what it does not know.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final, cast

from holdtrue.core.errors import HoldtrueError
from holdtrue.serving.engine import Engine
from holdtrue.serving.plane import Plane, house_error
from holdtrue.serving.wire import (
    CONTINUE,
    HEAD_LIMIT,
    LAST_CHUNK,
    Head,
    chunk,
    head_too_large,
    read_head,
    write_head,
)

App = Callable[..., Awaitable[None]]
Message = MutableMapping[str, Any]

_AHEAD: Final = 256 << 10
_MOST: Final = 4096
_IDLE: Final = 75.0
_HEAD_SECONDS: Final = 10.0
_DRAIN: Final = 10.0
_LOOK: Final = 1.0
_log: Final = logging.getLogger("holdtrue.dataplane")


def direct_listener(
    listening: socket.socket, certificate: Path | None = None, key: Path | None = None
) -> Callable[[Plane, Engine], AbstractAsyncContextManager[None]]:
    """Return what answers on a listening socket beside a worker's own, from its start to its end."""

    @asynccontextmanager
    async def running(plane: Plane, engine: Engine) -> AsyncGenerator[None]:
        loop = asyncio.get_running_loop()
        secured: ssl.SSLContext | None = None
        if certificate is not None and key is not None:
            secured = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            secured.load_cert_chain(certificate, key)
        direct = Direct(plane, engine.now_us)
        server = await loop.create_server(direct.connection, sock=listening, ssl=secured)
        looking = loop.create_task(direct.look())
        try:
            yield
        finally:
            server.close()
            looking.cancel()
            await direct.close()

    return running


def listening_socket(address: str, port: int) -> socket.socket:
    """Return a socket that listens, for the workers of a data plane to share."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    made.listen(1024)
    made.setblocking(False)
    made.set_inheritable(True)
    return made


class Direct:
    """Hold the connections of one worker, and end those that do nothing."""

    def __init__(self, app: App, now_us: Callable[[], int]) -> None:
        self.app = app
        self.closing = False
        self.date = b""
        self.loop = asyncio.get_running_loop()
        self.connections: set[_Connection] = set()
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
        tasks = [each.task for each in self.connections if each.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=_DRAIN)
        for each in list(self.connections):
            each.abort()

    def _tell(self) -> None:
        self.date = formatdate(self._now_us() / 1e6, usegmt=True).encode()


class _Connection(asyncio.Protocol):
    """Answer the requests of one connection, one after the other."""

    def __init__(self, direct: Direct) -> None:
        self.task: asyncio.Task[None] | None = None
        self._direct = direct
        self._transport = cast(asyncio.Transport, None)
        self._buffer = b""
        self._raw = b""
        self._head = cast(Head, None)
        self._body: bytes | None = None
        self._missing = 0
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._gone = self._paused = self._told = self._begun = self._complete = self._last = False
        self._start: Message = {}
        self._since = direct.loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if len(self._direct.connections) >= _MOST or self._direct.closing:
            self.abort()
            return
        self._direct.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._direct.connections.discard(self)
        self._wake()
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._missing:
            # A body's pieces: kept until the application asks for them.
            taken = data[: self._missing]
            self._missing -= len(taken)
            data = data[len(taken) :]
            self._body = taken if self._body is None else self._body + taken
            if len(self._body) > _AHEAD:
                self._pause()
            self._wake()
            if not data:
                return
        if self._buffer:
            self._buffer += data
        else:
            self._buffer = data
            self._since = self._direct.loop.time()
        if self.task is None and self._writable is None:
            self._next()
        elif len(self._buffer) > _AHEAD:
            self._pause()

    def pause_writing(self) -> None:
        self._writable = self._direct.loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None:
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None
            if self.task is None and self._buffer:
                self._next()

    def look(self, now: float) -> None:
        """End a connection that asks for nothing for long, or does not end its headers."""
        if self.task is None and now - self._since > (_HEAD_SECONDS if self._buffer else _IDLE):
            self.abort()

    def held(self) -> int:
        """Return how many bytes wait here to be read by the client, or to be answered."""
        return self._transport.get_write_buffer_size() + len(self._buffer)

    def leave(self) -> None:
        """End a connection that asks for nothing."""
        if self.task is None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self._gone = True
        self._transport.abort()

    def _next(self) -> None:
        """Begin with the next request, if its head is there."""
        buffer = self._buffer
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
        head = self._head
        stop = end + 4 + head.length
        self._body, self._buffer = buffer[end + 4 : stop], buffer[stop:]
        self._missing = head.length - len(self._body)
        self._last = head.last
        self._told = self._begun = self._complete = False
        target = head.target
        scope = {
            "type": "http",
            "method": head.method,
            "path": target.decode("latin-1").partition("?")[0],
            "raw_path": target,
            "headers": head.headers,
        }
        self.task = self._direct.loop.create_task(self._run(scope))

    async def _run(self, scope: Message) -> None:
        try:
            await self._direct.app(scope, self._receive, self._send)
        except Exception:  # noqa: BLE001  # the last resort, as in the application itself: the client is cut off
            _log.exception("A request failed.")
        finally:
            self._finish()

    def _finish(self) -> None:
        self.task = None
        self._since = self._direct.loop.time()
        if self._gone:
            return
        if not self._complete:
            # Without its end no client takes an answer for a whole one.
            self.abort()
        elif self._ends():
            self._transport.close()
        else:
            self._body = None
            self._resume()
            # Who does not read its answers gets no further ones: they would be held here.
            if self._buffer and self._writable is None:
                self._next()

    async def _receive(self) -> Message:
        if self._missing and not self._body and not self._told and self._head.waits:
            self._transport.write(CONTINUE)
        if self._missing:
            self._resume()
        while not self._gone:
            if self._body or (not self._told and not self._missing):
                body, self._body = self._body or b"", None
                self._told = True
                return {"type": "http.request", "body": body, "more_body": self._missing > 0}
            self._waiter = self._direct.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        if self._gone or self._complete:
            return
        body: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        chunked = more or self._begun
        parts = b"" if self._begun else self._head_of(self._start, chunked=chunked)
        self._begun = True
        if self._head.method != "HEAD":
            parts += body if not chunked else chunk(body) if more else chunk(body) + LAST_CHUNK
        self._transport.write(parts)
        self._complete = not more
        if self._writable is not None and more:
            await self._writable

    def _head_of(self, start: Message, *, chunked: bool) -> bytes:
        status: int = start["status"]
        headers: list[tuple[bytes, bytes]] = start["headers"]
        if status >= 400:
            told = [each for each in headers if each[0] != b"connection"]
            self._last = self._last or len(told) < len(headers)
            headers = told
        return write_head(status, headers, self._direct.date, last=self._ends(), chunked=chunked)

    def _pause(self) -> None:
        self._paused = True
        self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def _ends(self) -> bool:
        """Tell whether the connection ends with this answer: a body that nobody read would be taken for a request."""
        return self._last or self._missing > 0 or self._direct.closing

    def _refuse(self, error: HoldtrueError) -> None:
        """Answer bytes that are no request, and end the connection: where the next one begins is not known."""
        body = house_error(error)
        told = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        self._transport.write(write_head(error.status, told, self._direct.date, last=True, chunked=False) + body)
        self._gone = True
        self._transport.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
