"""The gateway's way out: one pool of connections to the providers that an administrator has named.

No redirect is followed, no proxy of the environment asked, no cookie kept. A host that is given by name must
have public addresses, unless its provider says that it may be private; the connection goes to the address that
was checked. What comes back is bounded in time, in size and in kind.
"""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import orjson

from holdtrue._version import __version__
from holdtrue.core.addresses import is_public
from holdtrue.core.errors import ConfigurationError, HoldtrueError, MissingExtra
from holdtrue.llm.gateway.model import Provider, ProviderFailed, ProviderTimeout
from holdtrue.llm.gateway.sse import EventParser

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

ANSWER_LIMIT: Final = 32 << 20
STREAM_LIMIT: Final = 64 << 20
_ERROR_LIMIT: Final = 64 << 10
_CONNECT_SECONDS: Final = 5.0
# Servers of the uvicorn family close a connection after five idle seconds; asking on one that is about to close fails.
_KEEP_SECONDS: Final = 4.0
_SETTLE_SECONDS: Final = 0.25
_CONNECTIONS: Final = 4096
Resolve = Callable[[str, int], Sequence[str]]


class Unreachable(ProviderFailed):
    """No connection to the provider came about: it has not seen the request."""

    code = "provider_unreachable"


@dataclass(frozen=True, slots=True)
class Place:
    """Hold where a provider answers: what its base URL says, checked."""

    url: str
    host: str
    private: bool


@dataclass(slots=True)
class Response:
    """Hold what came of a request: the status, and the body to be read."""

    status: int
    headers: Mapping[str, str]
    raw: "aiohttp.ClientResponse"
    seen: int = field(default=0)

    async def json(self) -> Any:
        """Return the whole body as JSON; raise ProviderFailed if it is something else, or too long."""
        if not self._is("json"):
            raise _unusable("Its answer is not JSON.")
        data = await self._read(ANSWER_LIMIT)
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            raise _unusable("Its answer is broken JSON.") from None

    async def error(self) -> Any:
        """Return the body of a refusal as JSON, None if it is not JSON or cannot be read."""
        try:
            data = await self._read(_ERROR_LIMIT)
            return orjson.loads(data)
        except (HoldtrueError, orjson.JSONDecodeError):
            return None

    async def events(self, idle: float, until: float) -> AsyncGenerator[list[tuple[str, bytes]]]:
        """Yield the events of each read, until the body ends.

        Silence of `idle` seconds, or the loop's moment `until`, raises ProviderTimeout.
        """
        if not self._is("event-stream"):
            raise _unusable("Its answer is not a stream of events.")
        parser = EventParser()
        content = self.raw.content
        loop = asyncio.get_running_loop()
        while True:
            with _failing():
                async with asyncio.timeout_at(min(until, loop.time() + idle)):
                    data = await content.readany()
            if not data:
                break
            self.seen += len(data)
            if self.seen > STREAM_LIMIT:
                raise _unusable(f"Its stream is over {STREAM_LIMIT >> 20} MiB.")
            events = parser.feed(data)
            if events:
                yield events
        if parser.pending:
            raise _unusable("Its stream ended within an event.")

    async def settle(self) -> None:
        """Read the end of a body of which all that matters has come, so that the connection can be used again."""
        with suppress(TimeoutError, HoldtrueError), _failing():
            async with asyncio.timeout(_SETTLE_SECONDS):
                while not self.raw.content.at_eof():
                    await self.raw.content.readany()

    def drop(self) -> None:
        """Give the connection up, so that the provider learns that nobody waits any more."""
        self.raw.close()

    def _is(self, kind: str) -> bool:
        if self.headers.get("content-encoding", "identity") != "identity":
            return False
        return kind in self.headers.get("content-type", "").partition(";")[0].lower()

    async def _read(self, limit: int) -> bytes:
        length = self.raw.content_length
        if length is not None and length > limit:
            raise _unusable("Its answer is too long.")
        parts: list[bytes] = []
        with _failing():
            while True:
                data = await self.raw.content.readany()
                if not data:
                    return parts[0] if len(parts) == 1 else b"".join(parts)
                self.seen += len(data)
                if self.seen > limit:
                    raise _unusable("Its answer is too long.")
                parts.append(data)


class Upstream:
    """Hold the connections of one worker to all its providers."""

    def __init__(self, resolver: Resolve | None = None) -> None:
        self._resolve = resolver
        self._session: aiohttp.ClientSession | None = None
        self._urls: dict[str, URL] = {}
        self._private: frozenset[str] = frozenset()

    def allow(self, places: Sequence[Place]) -> None:
        """Take over which hosts may have private addresses."""
        self._private = frozenset(place.host for place in places if place.private)

    async def post(self, place: Place, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        """Send a request and return the answer's head; the time it may take is the caller's to bound.

        Raises Unreachable if no connection came about, else ProviderFailed.
        """
        session = self._session or self._open()
        address = place.url + path
        url = self._urls.get(address) or self._parsed(address)
        with _failing():
            raw = await session.post(url, data=body, headers=headers, allow_redirects=False)
        return Response(raw.status, raw.headers, raw)

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _parsed(self, address: str) -> "URL":
        from yarl import URL

        if len(self._urls) > 1000:
            self._urls.clear()
        url = self._urls[address] = URL(address, encoded=True)
        return url

    def _open(self) -> "aiohttp.ClientSession":
        try:
            import aiohttp
        except ImportError:
            raise MissingExtra.of("llm", "aiohttp") from None
        connector = aiohttp.TCPConnector(
            limit=_CONNECTIONS, keepalive_timeout=_KEEP_SECONDS, ttl_dns_cache=10, resolver=self._checking()
        )
        session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"user-agent": f"holdtrue/{__version__}", "accept-encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            trust_env=False,
            read_bufsize=1 << 16,
        )
        self._session = session
        return session

    def _checking(self) -> Any:
        """Return a resolver that refuses private addresses of hosts that may not have them."""
        from aiohttp.abc import AbstractResolver, ResolveResult

        upstream = self

        class Checking(AbstractResolver):
            async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
                found = await asyncio.get_running_loop().run_in_executor(None, upstream.look_up, host, port)
                return [_entry(host, address, port) for address in found]

            async def close(self) -> None: ...

        return Checking()

    def look_up(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of `host`; OSError if it has none, or one that it may not have."""
        addresses = (self._resolve or resolve)(host, port)
        if host not in self._private and not all(is_public(address) for address in addresses):
            raise OSError("the host has an address that is not public")
        return addresses


def resolve(host: str, port: int) -> list[str]:
    """Return every address of `host`."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def place_of(provider: Provider) -> Place:
    """Return where `provider` answers; raise ConfigurationError for a base URL that is not called.

    An address given as a number, or `localhost`, is called because the administrator named it; by plain HTTP
    only where it is not public. Link-local addresses are where clouds keep their secrets, and never called.
    """
    url = provider.base_url
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _bad_url(provider.name, str(error)) from None
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or any(ord(sign) < 33 for sign in url)
        or "\\" in url
    ):
        raise _bad_url(provider.name, "It is not of the form https://host/path.")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise _bad_url(provider.name, "It carries a user, password, query or fragment.")
    host = parts.hostname.lower()
    private = provider.private
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        private = private or host == "localhost"
    else:
        if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
            raise _bad_url(provider.name, "No provider has such an address.")
        private = private or not is_public(host)
    if parts.scheme == "http" and not private:
        raise _bad_url(provider.name, "Over plain HTTP everybody on the way reads the key and the prompts.")
    shown = f"[{host}]" if ":" in host else host
    at = "" if port is None else f":{port}"
    return Place(f"{parts.scheme}://{shown}{at}{parts.path.rstrip('/')}", host, private)


def _entry(host: str, address: str, port: int) -> Any:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return {
        "hostname": host,
        "host": address,
        "port": port,
        "family": family,
        "proto": 0,
        "flags": socket.AI_NUMERICHOST,
    }


class _failing:  # reads as the statement it is used in
    """Turn what the client library raises into the gateway's own errors, which name no host and no header."""

    __slots__ = ()

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, HoldtrueError | asyncio.CancelledError):
            return
        if isinstance(error, TimeoutError) and not _is_connecting(error):
            raise ProviderTimeout("The provider did not answer in time.", mend="Try again.") from None
        import aiohttp

        if isinstance(
            error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.ClientConnectorDNSError
        ):
            raise Unreachable(
                "The provider cannot be reached.", why=type(error).__name__, mend="Look at its server and address."
            ) from None
        if isinstance(error, aiohttp.ClientError | OSError | ValueError):
            raise ProviderFailed(
                "The connection to the provider broke.", why=type(error).__name__, mend="Try again."
            ) from None


def _is_connecting(error: BaseException) -> bool:
    import aiohttp

    return isinstance(error, aiohttp.ConnectionTimeoutError)


def _unusable(why: str) -> ProviderFailed:
    return ProviderFailed("The provider gave no usable answer.", why=why, mend="Try again, or look at the provider.")


def _bad_url(name: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"The address of the provider {name} is not called.",
        why=why,
        mend="Give the address that its documentation names, such as https://api.example.com/v1.",
    )
