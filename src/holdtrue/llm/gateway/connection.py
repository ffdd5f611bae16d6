"""One HTTP/1.1 connection to a provider and the answers that come over it (RFC 9112), one after the other.

The bytes are taken apart by llhttp. What has come and was not read yet is bounded: beyond it the provider is held back.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from holdtrue.core.errors import HoldtrueError, MissingExtra
from holdtrue.llm.gateway.model import ProviderFailed, ProviderTimeout

_HEAD_LIMIT: Final = 64 << 10
_HEADERS: Final = 200
_HIGH: Final = 256 << 10
# Answers that say no more than that another follows; after 101 it would be no HTTP, so that one is taken for the last.
_INTERIM: Final = frozenset({100, *range(102, 200)})


class Exchange:
    """Hold one answer as it comes over a connection: the head, and of the body what has not been read."""

    __slots__ = (
        "_connection",
        "_failure",
        "_loop",
        "_parts",
        "_size",
        "_waiter",
        "ended",
        "headed",
        "headers",
        "length",
        "status",
    )

    def __init__(self, connection: "Connection", loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.length: int | None = None
        self.headed = False
        self.ended = False
        self._connection: Connection | None = connection
        self._loop = loop
        self._failure: HoldtrueError | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None

    async def head(self) -> None:
        """Wait until status and headers have come; raise ProviderFailed."""
        while not self.headed:
            if self._failure is not None:
                raise self._failure
            await self._more(None)

    async def read(self, until: float | None = None) -> bytes:
        """Return what has come of the body, b"" at its end.

        Raises ProviderFailed if it breaks, and ProviderTimeout at the loop's moment `until`.
        """
        while not self._parts:
            if self.ended:
                return b""
            if self._failure is not None:
                raise self._failure
            await self._more(until)
        parts = self._parts
        self._parts, self._size = [], 0
        if self._connection is not None:
            self._connection.resume()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def drop(self) -> None:
        """Close the connection unless the answer has come whole."""
        if self._connection is not None:
            self._connection.abort()

    def take(self, data: bytes) -> bool:
        """Take a piece of the body in; tell whether it is enough for now."""
        self._parts.append(data)
        self._size += len(data)
        return self._size >= _HIGH

    def end(self, failure: HoldtrueError | None = None) -> None:
        """Note that nothing more comes."""
        self._connection = None
        if failure is None:
            self.ended = True
        else:
            self._failure = failure
        self.wake()

    def wake(self) -> None:
        """Let whoever waits look again."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _more(self, until: float | None) -> None:
        waiter = self._waiter = self._loop.create_future()
        timer = None if until is None else self._loop.call_at(until, _expire, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()


class Connection(asyncio.Protocol):
    """Send requests over one connection, and hand what comes to the exchange that is under way.

    `free` is told when an answer has come whole and the connection can be used again, `gone` when it has closed.
    """

    __slots__ = (
        "_again",
        "_exchange",
        "_free",
        "_gone",
        "_head",
        "_loop",
        "_parser",
        "_paused",
        "_strange",
        "_transport",
        "_until_closed",
        "_whole",
        "idle_since",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        free: "Callable[[Connection], None]",
        gone: "Callable[[Connection], None]",
    ) -> None:
        self.idle_since = 0.0
        self._loop = loop
        self._free = free
        self._gone = gone
        self._parser: Any = _parser(self)
        self._transport: Any = None
        self._exchange: Exchange | None = None
        self._reset()

    @property
    def usable(self) -> bool:
        """Tell whether a request can be sent."""
        transport = self._transport
        return transport is not None and self._exchange is None and not transport.is_closing()

    def send(self, head: bytes, body: bytes) -> Exchange:
        """Send a request, and return what its answer will come to."""
        exchange = self._exchange = Exchange(self, self._loop)
        self._reset()
        self._transport.write(head + body)
        return exchange

    def now(self) -> float:
        """Return the present moment of its loop."""
        return self._loop.time()

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    def resume(self) -> None:
        """Let more come after it was held back."""
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take in what came."""
        exchange = self._exchange
        if exchange is None:
            # Nobody has asked anything: what comes would be taken for the next answer.
            self.abort()
            return
        headed = exchange.headed
        try:
            self._parser.feed_data(data)
        except Exception as error:  # noqa: BLE001  # each of the parser's errors means the same
            self._break(type(error).__name__)
            return
        if not headed:
            self._head += len(data)
            if self._strange or (not exchange.headed and self._head > _HEAD_LIMIT):
                self._break(self._strange or "Its head is too long.")
                return
        if self._whole:
            self._done(exchange)
        else:
            exchange.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is under way."""
        exchange, self._exchange = self._exchange, None
        self._transport = self._parser = None
        if exchange is not None:
            whole = exc is None and exchange.headed and self._until_closed
            exchange.end(None if whole else _broken("It was closed." if exc is None else type(exc).__name__))
        self._gone(self)

    def on_message_begin(self) -> None:
        """Note that an answer begins; behind another one nobody has asked for it."""
        if self._whole:
            self._again = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; of one that is given twice the first counts. Those after the body are left out."""
        exchange = self._exchange
        if exchange is None or exchange.headed:
            return
        headers = exchange.headers
        headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
        if len(headers) > _HEADERS:
            self._strange = "It has too many headers."

    def on_headers_complete(self) -> None:
        """Take the head."""
        exchange = self._exchange
        if exchange is None or exchange.headed:
            return
        status = self._parser.get_status_code()
        if status in _INTERIM:
            return
        headers = exchange.headers
        length = headers.get("content-length", "")
        exchange.status = status
        exchange.length = int(length) if length.isascii() and length.isdigit() and len(length) < 20 else None
        exchange.headed = True
        self._until_closed = not length and "transfer-encoding" not in headers

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        exchange = self._exchange
        if exchange is not None and not self._whole and exchange.take(body) and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Note that the answer is whole; one that only says that another follows is forgotten."""
        exchange = self._exchange
        if self._whole or exchange is None:
            return
        if exchange.headed:
            self._whole = True
            self._again = self._parser.should_keep_alive()
        else:
            exchange.headers.clear()

    def _reset(self) -> None:
        self._head = 0
        self._strange = ""
        self._whole = False
        self._again = False
        self._paused = False
        self._until_closed = False

    def _done(self, exchange: Exchange) -> None:
        """Give the connection back, or close it if it may not be used again."""
        self.resume()
        self._exchange = None
        exchange.end()
        if self._again:
            self._free(self)
        else:
            self.abort()

    def _break(self, why: str) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.end(_broken(why))
        self.abort()


Tell = Callable[[Connection], None]


def late() -> ProviderTimeout:
    """Say that a provider took too long."""
    return ProviderTimeout("The provider did not answer in time.", mend="Try again.")


def _broken(why: str) -> ProviderFailed:
    return ProviderFailed("The connection to the provider broke.", why=why, mend="Try again.")


def _expire(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_exception(late())


def _parser(connection: Connection) -> Any:
    try:
        from httptools import HttpResponseParser
    except ImportError:
        raise MissingExtra.of("llm", "httptools") from None
    return HttpResponseParser(connection)
