"""A fake provider: a real HTTP server that speaks OpenAI's and Anthropic's dialects and fails as it is told.

`with FakeProvider() as fake:` runs it in a thread; `python -m holdtrue.testing.provider --port 0` in a process
of its own. A fault is asked for by script (`fake.script(Fault(status=500))`), by the header `x-fake-fault`, or in
the model's name after an exclamation mark (`small!status=429;retry_after=1`).
"""

import argparse
import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from holdtrue.core.errors import InvalidInput
from holdtrue.testing import answers
from holdtrue.testing.faults import NONE, Fault

_REASONS = {
    200: "OK",
    302: "Found",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    429: "Too Many Requests",
}
_WAIT = 20.0


@dataclass(slots=True)
class Received:
    """Hold one request that came, and what became of it.

    `outcome` is `open` while it is answered, then `answered`, `left` (the client went away before the end) or
    `cut` (by a fault).
    """

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    outcome: str = "open"
    connection: int = 0


class _Gone(Exception):
    """The client closed the connection."""


class _Cut(Exception):
    """A fault says that the connection is closed here."""


@dataclass
class FakeProvider:
    """Answer like a provider; `key`, if it is given, is asked of every request.

    `models` are listed by `/v1/models`; any model is answered for. `delay` waits before each piece of a
    stream.
    """

    port: int = 0
    key: str | None = None
    models: tuple[str, ...] = ("small", "large")
    delay: float = 0.0
    received: list[Received] = field(default_factory=list[Received])

    def __post_init__(self) -> None:
        self._faults: deque[Fault] = deque()
        self._always = NONE
        self._changed = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None
        self._connections = 0

    @property
    def url(self) -> str:
        """Return the address; OpenAI's clients are given it with `/v1` after it."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self.serve(ready.set)), daemon=True)
        self._thread.start()
        assert ready.wait(_WAIT), "the fake provider does not start"
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._stop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_WAIT)

    def script(self, *faults: Fault) -> None:
        """Let the next requests fail so, one after the other; those after them are answered."""
        self._faults.extend(faults)

    def always(self, fault: Fault) -> None:
        """Let every request fail so for which nothing else is asked."""
        self._always = fault

    def clear(self) -> None:
        """Forget what was received and what was scripted."""
        self._faults.clear()
        self._always = NONE
        self.received.clear()

    def wait(self, condition: Callable[[list[Received]], bool]) -> None:
        """Wait until what was received meets a condition; raise TimeoutError if it does not within 20 seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self.received), _WAIT):
                raise TimeoutError(f"it did not happen; received: {[each.outcome for each in self.received]}")

    async def serve(self, ready: Callable[[], None]) -> None:
        """Listen until told to stop; `ready` is called once the port is known."""
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", self.port, limit=1 << 20, backlog=2048)
        self.port = server.sockets[0].getsockname()[1]
        ready()
        tasks = asyncio.all_tasks()
        try:
            await self._stop.wait()
        finally:
            server.close()
            for task in asyncio.all_tasks() - tasks:
                task.cancel()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        number = self._connections
        try:
            while (request := await _read_request(reader)) is not None:
                request.connection = number
                with self._changed:
                    self.received.append(request)
                    self._changed.notify_all()
                await self._answered(request, reader, writer)
        except (_Gone, _Cut, ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answered(self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        outcome = "left"
        try:
            await self._answer(request, _Wire(reader, writer))
            outcome = "answered"
        except _Cut:
            outcome = "cut"
            raise
        finally:
            with self._changed:
                request.outcome = outcome
                self._changed.notify_all()

    def _fault(self, request: Received) -> Fault:
        named = request.headers.get("x-fake-fault", "")
        _, _, asked = str(request.body.get("model", "")).partition("!")
        if named or asked:
            return Fault.read(named or asked)
        return self._faults.popleft() if self._faults else self._always

    async def _answer(self, request: Received, wire: "_Wire") -> None:
        if request.path == "/v1/models":
            data = [
                {"id": name, "object": "model", "created": answers.CREATED, "owned_by": "fake"} for name in self.models
            ]
            await wire.whole(200, {"object": "list", "data": data}, NONE)
            return
        if self.key is not None and not self._authenticated(request):
            given = request.headers.get("authorization") or request.headers.get("x-api-key")
            await wire.whole(401, _error(f"Incorrect API key provided: {given}"), NONE)
            return
        try:
            fault = self._fault(request)
        except InvalidInput as error:
            await wire.whole(400, _error(error.what), NONE)
            return
        if fault.hang:
            await wire.until_gone()
        if fault.reset:
            raise _Cut
        if fault.redirect:
            await wire.whole(302, {}, NONE, location=fault.redirect)
            return
        if fault.status:
            await wire.whole(fault.status, _error(f"The fake provider was told to answer {fault.status}."), fault)
            return
        await self._succeed(request, fault, wire)

    async def _succeed(self, request: Received, fault: Fault, wire: "_Wire") -> None:
        body = request.body
        text, tool = answers.reply_to(body)
        if fault.size:
            text = "word " * (fault.size // 5)
            body = {name: value for name, value in body.items() if not name.startswith("max_")}
        if fault.slow and not body.get("stream"):
            await wire.sleep(fault.slow)
        usage = answers.usage_of(body, text, fault.usage)
        if request.path == "/v1/embeddings":
            await wire.whole(200, answers.embeddings(body, usage), fault)
        elif request.path not in ("/v1/chat/completions", "/v1/completions", "/v1/messages"):
            await wire.whole(404, _error(f"Invalid URL ({request.path})"), NONE)
        elif body.get("stream") is True:
            await self._stream(request, fault, wire, text, tool, usage)
        elif request.path == "/v1/messages":
            await wire.whole(200, answers.anthropic_answer(body, text, tool, usage), fault)
        else:
            await wire.whole(200, answers.openai_answer(request.path, body, text, tool, usage), fault)

    async def _stream(self, request: Received, fault: Fault, wire: "_Wire", text: str, tool: Any, usage: Any) -> None:
        body = request.body
        native = request.path == "/v1/messages"
        pieces: Iterator[dict[str, Any]] = (
            answers.anthropic_events(body, text, tool, usage)
            if native
            else answers.openai_chunks(request.path, body, text, tool, usage)
        )
        await wire.begin(fault.content_type or "text/event-stream")
        for place, piece in enumerate(pieces):
            if fault.slow or self.delay:
                await wire.sleep(fault.slow or self.delay)
            if place == fault.stall:
                await wire.until_gone()
            if place == fault.drop:
                await wire.end()
                return
            if place == 2 and (fault.half or fault.bad_json or fault.error_event):
                await _spoil(fault, wire, native, piece)
                return
            if fault.unfinished and _finishes(piece):
                continue
            await wire.event(piece.get("type") if native else None, orjson.dumps(piece))
        if not native and not fault.no_done:
            await wire.event(None, b"[DONE]")
        await wire.end()

    def _authenticated(self, request: Received) -> bool:
        headers = request.headers
        return headers.get("authorization") == f"Bearer {self.key}" or headers.get("x-api-key") == self.key


class _Wire:
    """Write answers onto one connection, and notice when nobody reads them any more."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def whole(self, status: int, body: dict[str, Any], fault: Fault, **headers: str) -> None:
        data = orjson.dumps(body)
        if fault.bad_json:
            data = data[: len(data) // 2]
        if fault.retry_after:
            headers["retry-after"] = fault.retry_after
        kind = fault.content_type or "application/json"
        await self._write(_head(status, kind, {**headers, "content-length": str(len(data))}))
        if fault.half:
            await self._write(data[: len(data) // 2])
            raise _Cut
        await self._write(data)

    async def begin(self, kind: str) -> None:
        await self._write(_head(200, kind, {"transfer-encoding": "chunked"}))

    async def event(self, name: str | None, data: bytes) -> None:
        head = b"" if name is None else b"event: " + name.encode() + b"\n"
        await self.raw(head + b"data: " + data + b"\n\n")

    async def raw(self, data: bytes) -> None:
        await self._write(b"%x\r\n%s\r\n" % (len(data), data))

    async def half(self, data: bytes) -> None:
        """Announce a chunk and send half of it."""
        await self._write(b"%x\r\n%s" % (len(data), data[: len(data) // 2]))

    async def end(self) -> None:
        await self._write(b"0\r\n\r\n")

    async def sleep(self, seconds: float) -> None:
        """Wait, unless the client goes away meanwhile."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.until_gone()

    async def until_gone(self) -> None:
        """Wait for the client to go away."""
        while await self._reader.read(1):
            pass
        raise _Gone

    async def _write(self, data: bytes) -> None:
        if self._reader.at_eof():
            raise _Gone
        self._writer.write(data)
        await self._writer.drain()


async def _spoil(fault: Fault, wire: _Wire, native: bool, piece: dict[str, Any]) -> None:
    """Spoil a stream at this piece."""
    name = piece.get("type") if native else None
    data = orjson.dumps(piece)
    if fault.half:
        await wire.half(b"data: " + data + b"\n\n")
        raise _Cut
    if fault.bad_json:
        await wire.event(name, data[: len(data) // 2])
        await wire.end()
        return
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    await wire.event("error" if native else None, orjson.dumps(error))
    await wire.end()


async def _read_request(reader: asyncio.StreamReader) -> Received | None:
    """Return the next request of a connection, None at its end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    data = await reader.readexactly(int(headers.get("content-length", 0)))
    body = orjson.loads(data) if data else {}
    return Received(first.split(" ")[1], headers, body)


def _finishes(piece: dict[str, Any]) -> bool:
    """Tell whether a piece says that the answer is finished."""
    if piece.get("type") in ("message_delta", "message_stop"):
        return True
    return any(choice.get("finish_reason") for choice in piece.get("choices", ()))


def _head(status: int, kind: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}", f"content-type: {kind}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def _error(message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"message": message, "type": "fake_error", "param": None, "code": None}}


def main() -> None:
    """Run from the command line until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each piece of a stream")
    given = parser.parse_args()
    fake = FakeProvider(given.port, given.key, delay=given.delay)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(fake.serve(lambda: print(f"ready {fake.url}", flush=True)))


if __name__ == "__main__":
    main()
