"""The open connections of one worker: made where the address is allowed, used again while they are fresh."""

import asyncio
import ipaddress
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from holdtrue.llm.gateway.connection import Connection
from holdtrue.llm.gateway.model import ProviderFailed

LookUp = Callable[[str, int], Sequence[str]]
_CONNECT_SECONDS: Final = 5.0
# Servers of the uvicorn family close a connection after five idle seconds; asking on one that is about to close fails.
_KEEP_SECONDS: Final = 4.0
_KNOWN_SECONDS: Final = 10.0
_CONNECTIONS: Final = 4096


class Unreachable(ProviderFailed):
    """No connection to the provider came about: it has not seen the request."""

    code = "provider_unreachable"


@dataclass(frozen=True, slots=True)
class Origin:
    """Name the server at the other end of a connection."""

    host: str
    port: int
    tls: bool


class Pool:
    """Hold connections; `look_up` gives the addresses of a host that may be called, in a thread."""

    def __init__(self, look_up: LookUp) -> None:
        self._look_up = look_up
        self._idle: dict[Origin, list[Connection]] = {}
        self._open: set[Connection] = set()
        self._known: dict[Origin, tuple[float, Sequence[str]]] = {}
        self._answered: dict[Origin, str] = {}
        self._looking: dict[Origin, asyncio.Future[Sequence[str]]] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._tls: ssl.SSLContext | None = None

    def idle(self, origin: Origin) -> Connection | None:
        """Return an open connection that nobody uses, None if there is none."""
        idle = self._idle.get(origin)
        if idle:
            fresh = idle[-1].now() - _KEEP_SECONDS
            while idle:
                # The one used last is the one that the server will close last.
                found = idle.pop()
                if found.usable and found.idle_since >= fresh:
                    return found
                found.abort()
        return None

    async def close(self) -> None:
        """Close all connections."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for connection in list(self._open):
            connection.abort()
        while self._open:
            await asyncio.sleep(0)

    async def connect(self, origin: Origin) -> Connection:
        """Return a new connection; raise Unreachable. Addresses are tried in turn, each for its share of the time."""
        self._make_room()
        loop = asyncio.get_running_loop()
        end = loop.time() + _CONNECT_SECONDS
        context = self._context() if origin.tls else None
        last: Exception = TimeoutError()
        try:
            async with asyncio.timeout_at(end):
                addresses = await self._addresses(origin)
                for place, address in enumerate(addresses):
                    share = (end - loop.time()) / (len(addresses) - place)
                    try:
                        return await self._connect_to(origin, address, context, share)
                    except OSError as error:  # also of TLS, and one that took too long
                        last = error
        except (OSError, UnicodeError) as error:
            last = error
        raise Unreachable(
            "The provider cannot be reached.", why=type(last).__name__, mend="Look at its server and address."
        )

    async def _connect_to(
        self, origin: Origin, address: str, context: ssl.SSLContext | None, seconds: float
    ) -> Connection:
        loop = asyncio.get_running_loop()
        connection = Connection(loop, lambda each: self._free(origin, each), self._open.discard)
        async with asyncio.timeout(seconds):
            await loop.create_connection(
                lambda: connection,
                address,
                origin.port,
                ssl=context,
                server_hostname=None if context is None else origin.host,
            )
        if not connection.usable:
            raise ConnectionResetError
        self._open.add(connection)
        self._answered[origin] = address
        return connection

    async def _addresses(self, origin: Origin) -> Sequence[str]:
        """Return the addresses to be tried: the one that answered last, then the others."""
        with suppress(ValueError):
            # Whoever names an address has said which one is meant.
            return [str(ipaddress.ip_address(origin.host))]
        loop = asyncio.get_running_loop()
        until, found = self._known.get(origin, (0.0, ()))
        if loop.time() >= until:
            looking = self._looking.get(origin)
            if looking is None:
                looking = loop.run_in_executor(None, self._look_up, origin.host, origin.port)
                self._looking[origin] = looking
                looking.add_done_callback(lambda done: self._looked(origin, done))
            # Others may wait for the same, also if this call ends.
            found = await asyncio.shield(looking)
            self._known[origin] = loop.time() + _KNOWN_SECONDS, found
        good = self._answered.get(origin, "")
        return sorted(found, key=lambda address: address != good)

    def _looked(self, origin: Origin, done: "asyncio.Future[Sequence[str]]") -> None:
        del self._looking[origin]
        if not done.cancelled():
            done.exception()  # whoever waits is told; perhaps nobody does any more

    def _make_room(self) -> None:
        """Close an idle connection where there are as many as may be; raise Unreachable if all are in use."""
        if len(self._open) < _CONNECTIONS:
            return
        for idle in self._idle.values():
            if idle:
                idle.pop(0).abort()
                return
        raise Unreachable("Too many calls are under way.", mend="Try again in a second.", facts={"retry_after": 1})

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    def _free(self, origin: Origin, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.setdefault(origin, []).append(connection)
        if self._sweeping is None:
            self._sweeping = loop.call_later(_KEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle for long."""
        self._sweeping = None
        loop = asyncio.get_running_loop()
        fresh = loop.time() - _KEEP_SECONDS
        for origin, idle in list(self._idle.items()):
            kept: list[Connection] = []
            for each in idle:
                if each.usable and each.idle_since > fresh:
                    kept.append(each)
                else:
                    each.abort()
            if kept:
                self._idle[origin] = kept
            else:
                del self._idle[origin]
        if self._idle:
            self._sweeping = loop.call_later(_KEEP_SECONDS / 4, self._sweep)
