"""The gateway's way out: one pool of connections to the providers that an administrator has named.

No redirect is followed, no proxy of the environment asked, no cookie kept. A host that is given by name must
have public addresses, unless its provider says that it may be private; the connection goes to the address that
was checked. What comes back is bounded in time, in size and in kind.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlsplit

import orjson

from holdtrue._version import __version__
from holdtrue.core.addresses import is_public
from holdtrue.core.errors import ConfigurationError, HoldtrueError
from holdtrue.llm.gateway.connection import Exchange
from holdtrue.llm.gateway.model import Provider, ProviderFailed
from holdtrue.llm.gateway.pool import Origin, Pool, Unreachable
from holdtrue.llm.gateway.sse import EventParser

__all__ = ["ANSWER_LIMIT", "STREAM_LIMIT", "Place", "Response", "Unreachable", "Upstream", "place_of", "resolve"]

ANSWER_LIMIT: Final = 32 << 20
STREAM_LIMIT: Final = 64 << 20
_ERROR_LIMIT: Final = 64 << 10
_SETTLE_SECONDS: Final = 0.25
_PLACES: Final = 1000
_HEADS: Final = 256
_PATH: Final = "/%:@!$&'()*+,;=-._~"
_AGENT: Final = f"user-agent: holdtrue/{__version__}\r\naccept-encoding: identity\r\n"
# What a header may hold (RFC 9110, section 5.5): nothing that would begin another one.
_HEADER = re.compile(r"[A-Za-z0-9-]+: [\t -~\x80-\xff]*")
Resolve = Callable[[str, int], Sequence[str]]


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
    raw: Exchange
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
        read = self.raw.read
        now = asyncio.get_running_loop().time
        while True:
            data = await read(min(until, now() + idle))
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
        until = asyncio.get_running_loop().time() + _SETTLE_SECONDS
        with suppress(HoldtrueError):
            while await self.raw.read(until):
                pass

    def drop(self) -> None:
        """Give the connection up, so that the provider learns that nobody waits any more."""
        self.raw.drop()

    def _is(self, kind: str) -> bool:
        if self.headers.get("content-encoding", "identity") != "identity":
            return False
        return kind in self.headers.get("content-type", "").partition(";")[0].lower()

    async def _read(self, limit: int) -> bytes:
        raw = self.raw
        if raw.length is not None and raw.length > limit:
            raise _unusable("Its answer is too long.")
        parts: list[bytes] = []
        while data := await raw.read():
            self.seen += len(data)
            if self.seen > limit:
                raise _unusable("Its answer is too long.")
            parts.append(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class Upstream:
    """Hold the connections of one worker to all its providers."""

    def __init__(self, resolver: Resolve | None = None) -> None:
        self._resolve = resolver
        self._pool = Pool(self.look_up)
        self._places: dict[str, tuple[Origin, str, str]] = {}
        self._heads: dict[tuple[str, ...], tuple[Origin, bytes]] = {}
        self._private: frozenset[str] = frozenset()

    def allow(self, places: Sequence[Place]) -> None:
        """Take over which hosts may have private addresses."""
        self._private = frozenset(place.host for place in places if place.private)
        self._heads.clear()

    async def post(self, place: Place, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        """Send a request and return the answer's head; the time it may take is the caller's to bound.

        Raises Unreachable if no connection came about, else ProviderFailed.
        """
        # The same few heads are sent all the time.
        known = (place.url, path, *headers, *headers.values())
        origin, head = self._heads.get(known) or self._head(known, place, path, headers)
        connection = self._pool.idle(origin) or await self._pool.connect(origin)
        exchange = connection.send(b"%b%d\r\n\r\n" % (head, len(body)), body)
        try:
            await exchange.head()
        except BaseException:
            exchange.drop()
            raise
        return Response(exchange.status, exchange.headers, exchange)

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()

    def _head(
        self, known: tuple[str, ...], place: Place, path: str, headers: Mapping[str, str]
    ) -> tuple[Origin, bytes]:
        """Return the server, and the head of a request up to the length of its body."""
        origin, base, host = self._places.get(place.url) or self._parsed(place.url)
        head = f"POST {base}{path} HTTP/1.1\r\nhost: {host}\r\n{_AGENT}{_lines(headers)}content-length: "
        if len(self._heads) >= _HEADS:
            self._heads.clear()
        found = self._heads[known] = origin, head.encode("latin-1")
        return found

    def _parsed(self, url: str) -> tuple[Origin, str, str]:
        """Return the server of a base URL, the path that begins all others, and the name for the Host header."""
        if len(self._places) >= _PLACES:
            self._places.clear()
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        usual = 443 if tls else 80
        port = parts.port or usual
        host = parts.hostname or ""
        name = f"[{host}]" if ":" in host else host
        shown = name if port == usual else f"{name}:{port}"
        found = self._places[url] = Origin(host, port, tls), quote(parts.path, safe=_PATH), shown
        return found

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
    try:
        host = parts.hostname.encode("idna").decode("ascii").lower() if not parts.hostname.isascii() else parts.hostname
    except UnicodeError as error:
        raise _bad_url(provider.name, str(error)) from None
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


def _lines(headers: Mapping[str, str]) -> str:
    """Return headers as they go over the wire; raise ProviderFailed for one that would be another, too."""
    lines = [f"{name}: {value}" for name, value in headers.items()]
    if not all(map(_HEADER.fullmatch, lines)):
        raise _unusable("A header for it has signs that none may have.")
    return "\r\n".join([*lines, ""])


def _unusable(why: str) -> ProviderFailed:
    return ProviderFailed("The provider gave no usable answer.", why=why, mend="Try again, or look at the provider.")


def _bad_url(name: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"The address of the provider {name} is not called.",
        why=why,
        mend="Give the address that its documentation names, such as https://api.example.com/v1.",
    )
