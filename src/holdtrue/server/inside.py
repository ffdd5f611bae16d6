"""Ask an application in this process as a server is asked, without a socket."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Generator, Mapping, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import SplitResult, urlsplit

from holdtrue.server.direct import Answer, Pairs

_Message: TypeAlias = MutableMapping[str, Any]
Application: TypeAlias = Callable[
    [_Message, Callable[[], Awaitable[_Message]], Callable[[_Message], Awaitable[None]]], Awaitable[None]
]
"""An ASGI application (https://asgi.readthedocs.io/en/latest/specs/main.html)."""


class Inside:
    """Ask an application in this process, on an event loop of its own; from any thread."""

    def __init__(self, application: Application, url: str) -> None:
        self._application = application
        self._address = urlsplit(url)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), name="application")
        self._thread.daemon = True
        self._thread.start()
        started.wait()

    def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        sent = {"host": self._address.netloc, **headers}
        if body:
            sent["content-length"] = str(len(body))
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in sent.items()]
        return self.ask(method, self._address, target.encode("ascii"), pairs, body)

    def ask(self, method: str, address: SplitResult, target: bytes, headers: Pairs, body: bytes) -> Answer:
        """Return the answer to a request as it would come over a network, headers as they are."""
        assert self._loop is not None
        work = self._answer(method, address, target, headers, body)
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """Let what is asked be answered, and end the loop."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    async def _serve(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        started.set()
        await self._stop.wait()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            await asyncio.wait(left)

    async def _answer(self, method: str, address: SplitResult, target: bytes, headers: Pairs, body: bytes) -> Answer:
        path, _, query = target.partition(b"?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "headers": [(name.lower(), value) for name, value in headers],
            "scheme": address.scheme,
            "path": path.decode("latin-1"),
            "raw_path": path,
            "query_string": query,
            "server": (address.hostname, address.port),
            "client": ("127.0.0.1", 123),
            "root_path": "",
        }
        asked: list[_Message] = [{"type": "http.request", "body": body, "more_body": False}]
        told: list[_Message] = []
        done = asyncio.Event()

        async def receive() -> _Message:
            if asked:
                return asked.pop()
            await done.wait()
            return {"type": "http.disconnect"}

        async def send(message: _Message) -> None:
            told.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                done.set()

        # The application turns its own failures into answers: what it raises is a mistake in it, and is seen as such.
        await self._application(scope, receive, send)
        head = next(each for each in told if each["type"] == "http.response.start")
        parts = [each.get("body", b"") for each in told if each["type"] == "http.response.body"]
        return Answer(head["status"], head.get("headers", []), b"" if method == "HEAD" else b"".join(parts))


@contextlib.contextmanager
def inside(application: Application, url: str = "http://127.0.0.1") -> Generator[Inside, None, None]:
    """Give a way to ask an application in this process, and end it afterwards."""
    found = Inside(application, url)
    try:
        yield found
    finally:
        found.close()
