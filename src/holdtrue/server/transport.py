"""How the client reaches the application: with a token; and without a socket inside one process."""

import base64
import contextlib
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from holdtrue.server.home import no_token
from holdtrue.server.inside import Inside, inside

if TYPE_CHECKING:
    from starlette.types import ASGIApp


@contextlib.contextmanager
def in_process(gate: "ASGIApp") -> Generator[httpx.BaseTransport, None, None]:
    """Give a transport that hands requests to an application in this process, without a socket."""
    with inside(gate) as found:
        yield InProcess(found)


class Bearer(httpx.Auth):
    """Add the token, and once more what the folder keeps by now if the server knows it no longer."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._token = read()

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if not self._token:
            self._token = self._read()
        if not self._token:
            raise no_token()
        request.headers["authorization"] = self.header(self._token)
        answer = yield request
        if answer.status_code == 401 and (fresh := self._read()) != self._token:
            self._token = fresh
            request.headers["authorization"] = self.header(fresh)
            yield request

    def header(self, token: str) -> str:
        """Return what is sent of the token."""
        return f"Bearer {token}"


class Named(Bearer):
    """Send the token with a project's name beside it, as clients of other protocols say which project they mean."""

    def __init__(self, read: Callable[[], str], project: str) -> None:
        super().__init__(read)
        self._project = project

    def header(self, token: str) -> str:
        """Return name and token as user and password."""
        return f"Basic {base64.b64encode(f'{self._project}:{token}'.encode()).decode()}"


class InProcess(httpx.BaseTransport):
    """Hand requests to an application in this process in place of a network."""

    def __init__(self, application: Inside) -> None:
        self._application = application

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        address = urlsplit(str(request.url.copy_with(raw_path=b"/")))
        # Headers as they are, repeated and missing ones too: what the application refuses must reach it.
        answer = self._application.ask(
            request.method, address, request.url.raw_path, request.headers.raw, request.read()
        )
        return httpx.Response(answer.status, headers=list(answer.headers), content=answer.body)
