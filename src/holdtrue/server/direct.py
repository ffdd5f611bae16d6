"""Ask a server for JSON with no more than the standard library.

A client library brings certificates, proxies, pools and a console of its own along; loading it takes longer than most
commands have to ask for. Where a connection is encrypted, or a body is a stream, it is loaded all the same.
"""

import http.client
import re
import select
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias
from urllib.parse import quote, urlencode, urlsplit

Pairs: TypeAlias = Sequence[tuple[bytes, bytes]]

# What the server takes unescaped in a path; anything else is left to a library to write.
_PLAIN = re.compile(r"/[A-Za-z0-9/._~@:+=-]*")


class Unreachable(Exception):
    """No server answers; `why` says what happened instead, `late` that it may have taken the request."""

    def __init__(self, why: str, *, late: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.late = late


@dataclass(frozen=True, slots=True)
class Answer:
    """Hold the status, headers and whole body of an answer."""

    status: int
    headers: Pairs
    body: bytes


class Direct(Protocol):
    """Send one request and wait for its whole answer."""

    def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Return the answer to a request for `target`, a plain path with its query; raise Unreachable."""
        ...

    def close(self) -> None:
        """Give back what is held."""
        ...


def is_plain(path: str) -> bool:
    """Tell whether a path is sent as it is."""
    return _PLAIN.fullmatch(path) is not None


def target_of(path: str, query: Mapping[str, str]) -> str:
    """Return a plain path with its query."""
    return f"{path}?{urlencode(query, quote_via=quote)}" if query else path


class Plain:
    """Ask a server over HTTP without encryption, on one kept connection for each thread."""

    def __init__(self, url: str, seconds: float) -> None:
        address = urlsplit(url)
        self._host = address.hostname or ""
        self._port = address.port or 80
        self._base = address.path.rstrip("/")
        self._seconds = seconds
        self._own = threading.local()
        self._open: list[http.client.HTTPConnection] = []
        self._opening = threading.Lock()

    def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        connection = self._connection()
        try:
            connection.request(method, self._base + target, body or None, dict(headers))
            answer = connection.getresponse()
            return Answer(
                answer.status,
                [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.getheaders()],
                answer.read(),
            )
        except TimeoutError as error:
            connection.close()
            raise Unreachable(type(error).__name__, late=True) from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unreachable(type(error).__name__) from error

    def close(self) -> None:
        with self._opening:
            while self._open:
                self._open.pop().close()

    def _connection(self) -> http.client.HTTPConnection:
        found: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if found is None:
            found = self._own.connection = http.client.HTTPConnection(self._host, self._port, timeout=self._seconds)
            with self._opening:
                self._open.append(found)
        # What can be read before anything was asked is the end: the server has closed an idle connection.
        elif found.sock is not None and select.select([found.sock], [], [], 0)[0]:
            found.close()
        return found
