"""One door for commands, the worker and other software: the HTTP API, with a server running or without."""

import contextlib
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self
from urllib.parse import urlsplit

import orjson

from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import HoldtrueError, InvalidInput, Locked, NotFound, Unavailable
from holdtrue.server.home import read_address, read_token
from holdtrue.server.settings import Settings, is_loopback, load_settings, own_trust
from holdtrue.storage import FolderLock

if TYPE_CHECKING:
    # Loaded by the first client: most commands only show their help, or start something else.
    import httpx

_SECONDS = 60.0
_STARTING_SECONDS = 5.0


class Client:
    """Call the API. Errors come back as the same HoldtrueErrors that a handler raised."""

    def __init__(
        self,
        http: "httpx.Client",
        closing: Callable[[], None] = lambda: None,
        *,
        inner: "httpx.BaseTransport | None" = None,
        trust: ssl.SSLContext | bool = True,
        read: Callable[[], str] = str,
    ) -> None:
        """Take over `http`; `inner` reaches an application in this process; `read` gives the token."""
        self._http = http
        self._closing = closing
        self._inner = inner
        self._trust = trust
        self._read = read

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
    def at(cls, url: str, token: str | Callable[[], str], *, trust: ssl.SSLContext | None = None) -> Self:
        """Return a client for the server at `url`.

        A token given as a function is read again when the server knows it no longer; `trust` replaces the
        certificates that are usually trusted.
        """
        import httpx

        from holdtrue.server.transport import Bearer

        read: Callable[[], str] = token if callable(token) else lambda: token
        auth = Bearer(read)
        http = httpx.Client(base_url=url, auth=auth, timeout=_SECONDS, trust_env=False, verify=trust or True)
        return cls(http, trust=trust or True, read=read)

    @classmethod
    def _inside(cls, home: Path, token: str | None, clock_file: Path | None) -> Self:
        # Imported here: with a server running, a command needs neither the stores nor the rooms.
        import httpx

        from holdtrue.server.build import open_app
        from holdtrue.server.transport import Bearer, in_process

        settings = load_settings(home)
        if not settings.home.is_dir():
            raise NotFound(
                f"There is no data folder at {settings.home}.",
                mend="Start a server there once (`holdtrue up --home DIR`), or give the right --home.",
            )
        built = open_app(settings, clock_file=clock_file, growing=True)
        stack = contextlib.ExitStack()
        stack.callback(built.close)
        transport = stack.enter_context(in_process(built.gate))

        def read() -> str:
            return token or read_token(settings.home) or ""

        http = httpx.Client(base_url=settings.url, auth=Bearer(read), transport=transport, trust_env=False)
        return cls(http, stack.close, inner=transport, read=read)

    def data_plane(self) -> "httpx.Client | None":
        """Return a client of the data plane beside this server, with the same token; None without a server."""
        import httpx

        if self._inner:
            return None
        address = self._http.base_url.copy_with(port=(self._http.base_url.port or 7700) + 1)
        return httpx.Client(
            base_url=address, auth=self._http.auth, timeout=_SECONDS, trust_env=False, verify=self._trust
        )

    def speaking(self, project: str) -> "httpx.Client":
        """Return a client of the same server that asks about `project` in protocols which do not name one."""
        import httpx

        from holdtrue.server.transport import Named

        return httpx.Client(
            base_url=self._http.base_url,
            auth=Named(self._read, project),
            transport=self._inner,
            timeout=_SECONDS,
            trust_env=False,
            verify=self._trust,
        )

    def keeps(self, settings: Settings) -> bool:
        """Tell whether what is behind this client keeps its data in the folder of these settings."""
        if self._inner:
            return True
        present = read_address(settings.home)
        if present is None:
            return False
        called, mine = self._http.base_url, urlsplit(present.url)
        here = is_loopback(called.host) or called.host.lower() in settings.names()
        return (here and called.port == mine.port) or self.url == settings.origin

    @property
    def inner(self) -> bool:
        """Tell whether the application is in this process, since no server runs."""
        return self._inner is not None

    @property
    def url(self) -> str:
        """Return the address this client calls."""
        return str(self._http.base_url).rstrip("/")

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
        with self._http.stream("GET", path) as answer:
            if not answer.is_success:
                answer.read()
                _value(answer)
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
        import httpx

        headers = {} if key is None else {"idempotency-key": key}
        content: Any = stream
        if body is not None:
            content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
            headers["content-type"] = "application/json"
        given = {name: str(value) for name, value in (query or {}).items() if value is not None}
        try:
            answer = self._http.request(method, path, content=content, params=given, headers=headers)
        except httpx.TimeoutException as error:
            raise Unavailable(
                f"The server at {self.url} did not answer in time.",
                why="Whether the request took effect is not known.",
                mend="Look at the present state, or send it again with the same idempotency key.",
            ) from error
        except httpx.TransportError as error:
            raise Unavailable(
                f"No server answers at {self.url}.",
                why=type(error).__name__,
                mend="Start it with `holdtrue up`, or correct HOLDTRUE_URL.",
            ) from error
        return _value(answer)

    def close(self) -> None:
        """Close the connection, and the application if it runs in this process."""
        self._http.close()
        self._closing()

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


def _value(answer: "httpx.Response") -> Any:
    if answer.is_success:
        return answer.json() if answer.content else None
    try:
        error: dict[str, Any] = answer.json()["error"]
        raise _error_of(answer.status_code, error)
    except (ValueError, KeyError, TypeError):
        raise Unavailable(
            f"The server answered {answer.status_code} and not in the form of this API.",
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
