"""One door for commands, the worker and other software: the HTTP API, with a server running or without."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self
from urllib.parse import urlsplit

import orjson

from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import HoldtrueError, InvalidInput, Locked, NotFound, Unavailable
from holdtrue.server.direct import Direct, Plain, Unreachable, is_plain, target_of
from holdtrue.server.home import no_token, read_address, read_token
from holdtrue.server.settings import Settings, is_loopback, load_settings, own_trust
from holdtrue.storage import FolderLock

if TYPE_CHECKING:
    # Loaded where a connection is encrypted or a body is a stream: what most commands ask for needs none of it.
    import ssl

    import httpx

    from holdtrue.server.inside import Inside

_SECONDS = 60.0
_STARTING_SECONDS = 5.0


class Client:
    """Call the API. Errors come back as the same HoldtrueErrors that a handler raised."""

    def __init__(
        self,
        http: "httpx.Client | None" = None,
        closing: Callable[[], None] = lambda: None,
        *,
        url: str = "",
        direct: Direct | None = None,
        inner: "Inside | None" = None,
        trust: "ssl.SSLContext | None" = None,
        read: Callable[[], str] = str,
    ) -> None:
        """Take over `http`, or reach the server at `url`: JSON by `direct`, all else by a library.

        `inner` reaches an application in this process; `read` gives the token.
        """
        self._http = http
        self._url = (str(http.base_url) if http is not None else url).rstrip("/")
        self._closing = closing
        self._direct = direct
        self._inner = inner
        self._trust = trust
        self._read = read
        self._token = ""
        self._making = threading.Lock()

    @classmethod
    def open(
        cls,
        home: Path | str | None = None,
        *,
        url: str | None = None,
        token: str | None = None,
        clock_file: Path | None = None,
    ) -> Self:
        """Return a client for the server at `url`, else for the one of `home`, else for `home` itself.

        With neither given, HOLDTRUE_URL comes first, then the default data folder.
        With no server running, the same application is opened in this process while it holds the folder's
        lock. The token is the one given, else HOLDTRUE_TOKEN, else the owner's token that the folder keeps.
        """
        address = url or (os.environ.get("HOLDTRUE_URL") if home is None else None)
        given = token or os.environ.get("HOLDTRUE_TOKEN")
        if address and home is None:
            folder = Path(os.environ.get("HOLDTRUE_HOME", ".holdtrue"))
            return cls.at(address, given or read_token(folder) or "")
        settings = load_settings(home)
        if address:
            return cls.at(address, given or read_token(settings.home) or "")
        # Only the lock tells whether a server runs; an address it left behind may be another program's by now,
        # which must not be sent a token.
        try:
            if read_address(settings.home) is not None:
                FolderLock(settings.home).release()
            return cls._inside(settings.home, given, clock_file)
        except Locked as locked:
            url = _running(settings.home, locked)
            return cls.at(url, lambda: given or read_token(settings.home) or "", trust=own_trust(settings))

    @classmethod
    def at(cls, url: str, token: str | Callable[[], str], *, trust: "ssl.SSLContext | None" = None) -> Self:
        """Return a client for the server at `url`.

        A token given as a function is read again when the server knows it no longer; `trust` replaces the
        certificates that are usually trusted.
        """
        read: Callable[[], str] = token if callable(token) else lambda: token
        direct = Plain(url, _SECONDS) if trust is None and urlsplit(url).scheme == "http" else None
        return cls(url=url, direct=direct, trust=trust, read=read)

    @classmethod
    def _inside(cls, home: Path, token: str | None, clock_file: Path | None) -> Self:
        # Imported here: with a server running, a command needs neither the stores nor the rooms.
        from holdtrue.server.build import open_app
        from holdtrue.server.inside import Inside

        settings = load_settings(home)
        if not settings.home.is_dir():
            raise NotFound(
                f"There is no data folder at {settings.home}.",
                mend="Start a server there once (`holdtrue up --home DIR`), or give the right --home.",
            )
        built = open_app(settings, clock_file=clock_file, growing=True)
        inner = Inside(built.gate, settings.url)

        def close() -> None:
            inner.close()
            built.close()

        def read() -> str:
            return token or read_token(settings.home) or ""

        return cls(closing=close, url=settings.url, direct=inner, inner=inner, read=read)

    def data_plane(self) -> "httpx.Client | None":
        """Return a client of the data plane beside this server, with the same token; None without a server."""
        if self._inner:
            return None
        import httpx

        http = self._full()
        address = http.base_url.copy_with(port=(http.base_url.port or 7700) + 1)
        return httpx.Client(
            base_url=address, auth=http.auth, timeout=_SECONDS, trust_env=False, verify=self._trust or True
        )

    def speaking(self, project: str) -> "httpx.Client":
        """Return a client of the same server that asks about `project` in protocols which do not name one."""
        from holdtrue.server.transport import Named

        return self._made(Named(self._read, project))

    def keeps(self, settings: Settings) -> bool:
        """Tell whether what is behind this client keeps its data in the folder of these settings."""
        if self._inner:
            return True
        present = read_address(settings.home)
        if present is None:
            return False
        called, mine = urlsplit(self.url), urlsplit(present.url)
        host = called.hostname or ""
        here = is_loopback(host) or host.lower() in settings.names()
        return (here and called.port == mine.port) or self.url == settings.origin

    @property
    def inner(self) -> bool:
        """Tell whether the application is in this process, since no server runs."""
        return self._inner is not None

    @property
    def url(self) -> str:
        """Return the address this client calls."""
        return self._url

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON answer of a GET; fields that are None are left out of the query."""
        return self.request("GET", path, query=query)

    def post(self, path: str, body: Any = None, *, key: str | None = None) -> Any:
        """Send JSON and return the JSON answer; `key` makes repeating the request harmless."""
        return self.request("POST", path, body=body, key=key)

    def put(self, path: str, body: Any = None, *, key: str | None = None) -> Any:
        """Set something to a stated value and return the JSON answer."""
        return self.request("PUT", path, body=body, key=key)

    def delete(self, path: str) -> Any:
        """Remove something and return the JSON answer."""
        return self.request("DELETE", path)

    def upload(self, path: str, /, stream: BinaryIO, **query: Any) -> Any:
        """Send a file's bytes as they are, and return the JSON answer."""
        return self.request("PUT", path, query=query, stream=stream)

    def download(self, path: str, target: BinaryIO) -> None:
        """Write the bytes of a GET's answer to `target`, as they come; raise the error it reports."""
        with self._full().stream("GET", path) as answer:
            if not answer.is_success:
                _value(answer.status_code, answer.read())
            for chunk in answer.iter_bytes():
                target.write(chunk)

    def items(self, path: str, **query: Any) -> Iterator[Any]:
        """Yield every item of a listing, page after page."""
        cursor: str | None = None
        while True:
            page = self.get(path, **{**query, "cursor": cursor})
            yield from page["items"]
            cursor = page.get("next")
            if cursor is None:
                return

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        key: str | None = None,
        stream: BinaryIO | None = None,
    ) -> Any:
        """Send one request and return its JSON answer, else raise the error it reports."""
        headers = {} if key is None else {"idempotency-key": key}
        content: Any = stream
        if body is not None:
            content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
            headers["content-type"] = "application/json"
        given = {name: str(value) for name, value in (query or {}).items() if value is not None}
        try:
            if self._direct is not None and stream is None and is_plain(path):
                return _value(*self._directly(self._direct, method, target_of(path, given), headers, content or b""))
            return _value(*self._by_library(method, path, content, given, headers))
        except Unreachable as error:
            if error.late:
                raise Unavailable(
                    f"The server at {self.url} did not answer in time.",
                    why="Whether the request took effect is not known.",
                    mend="Look at the present state, or send it again with the same idempotency key.",
                ) from error
            raise Unavailable(
                f"No server answers at {self.url}.",
                why=error.why,
                mend="Start it with `holdtrue up`, or correct HOLDTRUE_URL.",
            ) from error

    def close(self) -> None:
        """Close the connection, and the application if it runs in this process."""
        if self._http is not None:
            self._http.close()
        if self._direct is not None:
            self._direct.close()
        self._closing()

    def _directly(
        self, direct: Direct, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes]:
        """Send a request with the token, and once more with what the folder keeps by now if it is known no longer."""
        token = self._token or self._read()
        if not token:
            raise no_token()
        answer = direct.send(method, target, {**headers, "authorization": f"Bearer {token}"}, body)
        if answer.status == 401 and (fresh := self._read()) != token:
            token = fresh
            answer = direct.send(method, target, {**headers, "authorization": f"Bearer {fresh}"}, body)
        self._token = token
        return answer.status, answer.body

    def _by_library(
        self, method: str, path: str, content: Any, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        http = self._full()
        import httpx

        try:
            answer = http.request(method, path, content=content, params=query, headers=headers)
        except httpx.TransportError as error:
            raise Unreachable(type(error).__name__, late=isinstance(error, httpx.TimeoutException)) from error
        return answer.status_code, answer.content

    def _full(self) -> "httpx.Client":
        """Return the library's client of the same server, made when it is first needed."""
        with self._making:
            if self._http is None:
                from holdtrue.server.transport import Bearer

                self._http = self._made(Bearer(self._read))
            return self._http

    def _made(self, auth: "httpx.Auth") -> "httpx.Client":
        import httpx

        from holdtrue.server.transport import InProcess

        return httpx.Client(
            base_url=self._url,
            auth=auth,
            transport=None if self._inner is None else InProcess(self._inner),
            timeout=_SECONDS,
            trust_env=False,
            verify=self._trust or True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _running(home: Path, locked: Locked) -> str:
    """Return the address of the server that has the folder; it may still be starting."""
    timer = SystemClock()
    until = timer.monotonic() + _STARTING_SECONDS
    while timer.monotonic() < until:
        address = read_address(home)
        if address is not None and address.pid == locked.facts.get("pid", address.pid):
            return address.url
        time.sleep(0.05)
    raise locked


def _value(status: int, body: bytes) -> Any:
    if 200 <= status < 300:
        return orjson.loads(body) if body else None
    try:
        error: dict[str, Any] = orjson.loads(body)["error"]
        raise _error_of(status, error)
    except (ValueError, KeyError, TypeError):
        raise Unavailable(
            f"The server answered {status} and not in the form of this API.",
            mend="Check that HOLDTRUE_URL is the address of a Holdtrue server.",
        ) from None


def _error_of(status: int, error: Mapping[str, Any]) -> HoldtrueError:
    """Return the error that the server raised, as the class with its code where that is loaded."""
    kind = next((each for each in _all_errors(HoldtrueError) if each.code == error["code"]), None)
    if kind is None:
        kind = InvalidInput if status < 500 else HoldtrueError
    raised = kind.__new__(kind)
    facts = {**error.get("facts", {}), "code": error["code"], "request_id": error.get("request_id", "")}
    HoldtrueError.__init__(
        raised,
        str(error["what"]),
        why=str(error.get("why", "")),
        mend=str(error.get("mend", "")),
        facts=facts,
    )
    return raised


def _all_errors(kind: type[HoldtrueError]) -> Iterator[type[HoldtrueError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _all_errors(below)
