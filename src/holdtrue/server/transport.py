"""How the client reaches the application: with a token; and without a socket inside one process."""

import base64
import contextlib
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import httpx

from holdtrue.core.errors import Unauthenticated
from holdtrue.server.home import LOCAL_TOKEN

if TYPE_CHECKING:
    from starlette.types import ASGIApp


@contextlib.contextmanager
def in_process(gate: "ASGIApp") -> Generator[httpx.BaseTransport, None, None]:
    """Give a transport that hands requests to an application in this process, without a socket."""
    from anyio.from_thread import start_blocking_portal

    with start_blocking_portal() as portal:
        yield _InProcess(lambda request: portal.call(_answer, gate, request))


class Bearer(httpx.Auth):
    """Add the token, and once more what the folder keeps by now if the server knows it no longer."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._token = read()

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if not self._token:
            self._token = self._read()
        if not self._token:
            raise Unauthenticated(
                "There is no token to call the server with.",
                mend=f"Set HOLDTRUE_TOKEN, or name the data folder with {LOCAL_TOKEN} in it: --home DIR",
            )
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


class _InProcess(httpx.BaseTransport):
    """Answer requests by a function in place of a network."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        self._answer = answer

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._answer(request)


async def _answer(gate: "ASGIApp", request: httpx.Request) -> httpx.Response:
    transport = httpx.ASGITransport(app=gate, raise_app_exceptions=False)
    body = request.read()
    sent = httpx.Request(request.method, request.url, content=body)
    # As they are, repeated and missing ones too: what the application refuses must reach it.
    sent.headers = httpx.Headers(request.headers.raw)
    answer = await transport.handle_async_request(sent)
    return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())
