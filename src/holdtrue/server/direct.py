"""Ask a server for JSON with no more than the standard library.

A client library brings certificates, proxies, pools and a console of its own along; loading it takes longer than most
commands have to ask for. Where a connection is encrypted, or a body is a stream, it is loaded all the same.
"""

import re
import select
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, cast
from urllib.parse import quote, urlencode, urlsplit

Pairs: TypeAlias = Sequence[tuple[bytes, bytes]]

# What the server takes unescaped in a path; anything else is left to a library to write.
_MOST_LINE = 1 << 16
_MOST_FIELDS = 200
_WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE"})
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
    """Ask a server over HTTP/1.1 (RFC 9112) without encryption, on one kept connection for each thread."""

    def __init__(self, url: str, seconds: float) -> None:
        address = urlsplit(url)
        self._host = address.netloc.rpartition("@")[2]
        self._place = (address.hostname or "", address.port or 80)
        self._base = address.path.rstrip("/")
        self._seconds = seconds
        self._own = threading.local()
        self._open: list[_Connection] = []
        self._opening = threading.Lock()

    def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        sent = {"host": self._host, "accept": "application/json", **headers}
        if body or method not in _WITHOUT_BODY:
            sent["content-length"] = str(len(body))
        try:
            head = [f"{method} {self._base}{target} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
            if any(not line.isprintable() for line in head):
                raise Unreachable("A header holds control signs.")
            connection = self._connection()
            return connection.ask(method, "\r\n".join([*head, "", ""]).encode("latin-1"), body)
        except TimeoutError as error:
            self._drop()
            raise Unreachable(type(error).__name__, late=True) from error
        except (OSError, ValueError) as error:
            self._drop()
            raise Unreachable(type(error).__name__) from error

    def close(self) -> None:
        with self._opening:
            while self._open:
                self._open.pop().close()

    def _connection(self) -> "_Connection":
        found: _Connection | None = getattr(self._own, "connection", None)
        if found is None or found.ended():
            self._drop()
            found = self._own.connection = _Connection(self._place, self._seconds)
            with self._opening:
                self._open.append(found)
        return found

    def _drop(self) -> None:
        found: _Connection | None = getattr(self._own, "connection", None)
        if found is not None:
            found.close()
            self._own.connection = None
            with self._opening:
                if found in self._open:
                    self._open.remove(found)


class _Connection:
    """Hold one connection, and read one whole answer after each request."""

    def __init__(self, place: tuple[str, int], seconds: float) -> None:
        host, port = place
        # As bytes where that says the same: of a text, even of an address, a table of all scripts is loaded.
        self._socket = socket.create_connection((cast("str", host.encode()) if host.isascii() else host, port), seconds)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")
        self._kept = True

    def ended(self) -> bool:
        """Tell whether nothing more can be asked: what can be read before a request is the end of the connection."""
        if not self._kept:
            return True
        # Not `select`, which knows no descriptor above 1,023.
        looking = select.poll()
        looking.register(self._socket, select.POLLIN)
        return bool(looking.poll(0))

    def ask(self, method: str, head: bytes, body: bytes) -> Answer:
        """Return the answer; raise OSError or ValueError for one that does not come whole."""
        self._socket.sendall(head + body)
        status, version = 100, b""
        headers: list[tuple[bytes, bytes]] = []
        while 100 <= status < 200:
            version, code, *_ = self._line().split(b" ", 2)
            if not version.startswith(b"HTTP/1.") or len(code) != 3:
                raise ValueError("no HTTP")
            status = int(code)
            headers = [(name.strip().lower(), value.strip()) for name, _, value in self._fields()]
        named = dict(headers)
        self._kept = version == b"HTTP/1.1" and named.get(b"connection", b"").lower() != b"close"
        empty = method == "HEAD" or status in (204, 304)
        return Answer(status, headers, b"" if empty else self._body(named))

    def close(self) -> None:
        """End the connection."""
        self._file.close()
        self._socket.close()

    def _body(self, named: Mapping[bytes, bytes]) -> bytes:
        if named.get(b"transfer-encoding", b"").lower() == b"chunked":
            parts: list[bytes] = []
            while size := int(self._line().partition(b";")[0], 16):
                parts.append(self._exactly(size))
                self._exactly(2)
            list(self._fields())
            return b"".join(parts)
        if b"content-length" in named:
            return self._exactly(int(named[b"content-length"]))
        self._kept = False
        return self._file.read()

    def _fields(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        for _ in range(_MOST_FIELDS):
            line = self._line()
            if not line:
                return
            yield line.partition(b":")
        raise ValueError("too many fields")

    def _line(self) -> bytes:
        line = self._file.readline(_MOST_LINE)
        if not line.endswith(b"\n"):
            raise ConnectionError("the answer ended")
        return line.rstrip(b"\r\n")

    def _exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            raise ConnectionError("the answer ended")
        return data
