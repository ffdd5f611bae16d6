"""The gateway's HTTP client: what it reads of an answer however it comes, and what it takes for broken."""

import asyncio
import ssl
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from holdtrue.core.errors import HoldtrueError, MissingExtra
from holdtrue.llm.gateway import Provider, ProviderFailed
from holdtrue.llm.gateway.connection import Connection
from holdtrue.llm.gateway.upstream import Place, Unreachable, Upstream, place_of
from tests.server.certificates import self_signed

JSON = b"content-type: application/json\r\n"
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def place(url: str) -> Place:
    return place_of(Provider("p", "openai", base_url=url, private=True))


async def asked(reader: asyncio.StreamReader) -> bytes:
    """Return the next request of a client: its head and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head + await reader.readexactly(length)


@asynccontextmanager
async def serving(script: Script, context: ssl.SSLContext | None = None) -> AsyncGenerator[int]:
    """Serve each connection by a script, and see all of them end."""
    tasks: list[asyncio.Task[Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        try:
            await script(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.wait_for(asyncio.gather(*tasks), 20)


class Server:
    """Answer each request of a connection with the next of some bytes; None closes it."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0

    def open(self, context: ssl.SSLContext | None = None) -> AbstractAsyncContextManager[int]:
        return serving(self._serve, context)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError, IndexError):
            while True:
                self.requests.append(await asked(reader))
                answer = self.answers.pop(0)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()


async def ask(upstream: Upstream, port: int, path: str = "/x", **headers: str) -> tuple[int, Any]:
    response = await upstream.post(place(f"http://127.0.0.1:{port}/v1"), path, headers, b"{}")
    return response.status, await response.json()


def answers_of(server: Server, count: int = 1) -> list[Any]:
    """Return what comes of some requests, one after the other: a status and body, or an error."""

    async def work() -> list[Any]:
        found: list[Any] = []
        async with server.open() as port:
            upstream = Upstream()
            try:
                for _ in range(count):
                    try:
                        found.append(await asyncio.wait_for(ask(upstream, port), 20))
                    except HoldtrueError as error:
                        found.append(error)
            finally:
                await upstream.close()
        return found

    return asyncio.run(work())


def sized(body: bytes, head: bytes = b"HTTP/1.1 200 OK\r\n" + JSON) -> bytes:
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


CHUNKED = (
    b"HTTP/1.1 200 OK\r\n"
    + JSON
    + b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\n[1,\r\n2\r\n2]\r\n0\r\nTrailer: x\r\n\r\n"
)


@pytest.mark.parametrize(
    "answer",
    [
        sized(b"[1,2]"),
        CHUNKED,
        b"HTTP/1.1 100 Continue\r\n\r\n" + sized(b"[1,2]"),
        b"HTTP/1.1 103 Early Hints\r\ncontent-type: text/html\r\nlink: </x>\r\n\r\n" + CHUNKED,
        sized(b"[1,2]", b"HTTP/1.1 200 \r\nContent-Type: application/json\r\ncontent-type: text/html\r\n"),
    ],
    ids=["length", "chunks", "continue", "hints", "twice"],
)
def test_an_answer_is_read_and_its_connection_used_again(answer: bytes) -> None:
    server = Server(answer, answer, answer)
    assert answers_of(server, 3) == [(200, [1, 2])] * 3
    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        sized(b"[1,2]", b"HTTP/1.1 200 OK\r\nconnection: close\r\n" + JSON),
        sized(b"[1,2]", b"HTTP/1.0 200 OK\r\n" + JSON),
        sized(b"[1,2]") + b"HTTP/1.1 200 OK\r\n",
        sized(b"[1,2]") + sized(b"[3]"),
    ],
    ids=["close", "old", "more", "another"],
)
def test_a_connection_that_may_not_be_used_again_is_closed(answer: bytes) -> None:
    server = Server(answer, answer)
    assert answers_of(server, 2) == [(200, [1, 2])] * 2
    assert server.connections == 2


def test_an_answer_may_end_with_its_connection() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + JSON + b"\r\n[1,")
        await writer.drain()
        writer.write(b"2]")

    async def work() -> Any:
        async with serving(serve) as port:
            upstream = Upstream()
            try:
                return await ask(upstream, port)
            finally:
                await upstream.close()

    assert asyncio.run(work()) == (200, [1, 2])


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 200 OK\r\n" + JSON + b"content-length: 9\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + JSON + b"content-length: 1\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + JSON + b"content-length: -1\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + JSON + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * (80 << 10),
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: y\r\n" % number for number in range(300)) + b"\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        None,
    ],
    ids=["ssh", "both", "lengths", "negative", "chunk", "long", "many", "upgrade", "closed"],
)
def test_what_is_no_answer_is_told_and_its_connection_closed(answer: bytes | None) -> None:
    server = Server(answer, sized(b"[]"))
    broken, good = answers_of(server, 2)
    assert type(broken) is ProviderFailed
    assert good == (200, [])
    assert server.connections == 2


def test_what_comes_unasked_closes_the_connection() -> None:
    """A server that says something between two requests would have it taken for the answer to the second."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(sized(b"[1]"))
        await writer.drain()
        writer.write(sized(b'["of somebody else"]'))
        await writer.drain()
        # The client closes the connection at once, so this one is answered on another.
        assert await reader.read() == b""
        closed.set()

    async def work() -> list[Any]:
        async with serving(serve) as port:
            upstream = Upstream()
            found = [await ask(upstream, port)]
            await asyncio.wait_for(closed.wait(), 20)
            found.append(await ask(upstream, port))
            await upstream.close()
        return found

    closed = asyncio.Event()
    assert asyncio.run(work()) == [(200, [1])] * 2


class Held:
    """Stand for a transport, and note whether it is held back."""

    def __init__(self) -> None:
        self.paused: list[bool] = []
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.sent = data

    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None:
        self.paused.append(True)

    def resume_reading(self) -> None:
        self.paused.append(False)

    def abort(self) -> None:
        self.aborted = True


def test_a_provider_that_sends_more_than_is_read_is_held_back() -> None:
    async def work() -> None:
        free: list[Connection] = []
        connection = Connection(asyncio.get_running_loop(), free.append, free.append)
        transport: Any = Held()
        connection.connection_made(transport)
        exchange = connection.send(b"POST / HTTP/1.1\r\n\r\n", b"")
        size = 64 << 10
        connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (8 * size))
        for _ in range(3):
            connection.data_received(b"x" * size)
        assert transport.paused == []
        connection.data_received(b"x" * size)
        assert transport.paused == [True]
        assert len(await exchange.read()) == 4 * size
        assert transport.paused == [True, False]
        for _ in range(4):
            connection.data_received(b"x" * size)
        # It is whole: what was not read yet keeps nobody waiting, and the connection serves others.
        assert transport.paused == [True, False, True, False]
        assert free == [connection]
        assert len(await exchange.read()) == 4 * size
        assert await exchange.read() == b""
        exchange.drop()
        assert not transport.aborted

    asyncio.run(work())


def test_a_header_that_would_be_two_is_not_sent() -> None:
    server = Server(sized(b"[]"))

    async def work() -> None:
        async with server.open() as port:
            upstream = Upstream()
            for value in ("a\r\nx-evil: 1", "a\nb", "a\0b", "schlüssel€"):
                with pytest.raises(ProviderFailed):
                    await ask(upstream, port, authorization=value)
            assert await ask(upstream, port, authorization="Bearer good") == (200, [])
            await upstream.close()

    asyncio.run(work())
    assert len(server.requests) == 1
    head = server.requests[0].partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert head[0] == b"POST /v1/x HTTP/1.1"
    assert b"authorization: Bearer good" in head
    assert b"accept-encoding: identity" in head


def test_every_address_of_a_name_is_tried_and_the_good_one_first_the_next_time() -> None:
    server = Server(sized(b"[]"), None, sized(b"[]"))
    looked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        looked.append(host)
        return ["127.0.0.2", "127.0.0.1"]

    async def work() -> None:
        async with server.open() as port:
            target = place(f"http://model.internal:{port}")
            upstream = Upstream(resolve)
            upstream.allow([target])
            assert (await upstream.post(target, "/v1", {}, b"{}")).status == 200
            with pytest.raises(ProviderFailed):
                await upstream.post(target, "/v1", {}, b"{}")
            assert (await upstream.post(target, "/v1", {}, b"{}")).status == 200
            await upstream.close()

    asyncio.run(work())
    assert looked == ["model.internal"]
    assert server.connections == 2


def test_a_connection_that_was_idle_for_long_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdtrue.llm.gateway.pool._KEEP_SECONDS", 0.0)
    server = Server(sized(b"[]"), sized(b"[]"))
    assert answers_of(server, 2) == [(200, [])] * 2
    assert server.connections == 2


def test_tls_is_checked_against_the_name_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    self_signed(tmp_path, "api.example.com")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server = Server(sized(b"[]"), sized(b"[]"))

    async def work(name: str) -> int:
        async with server.open(context) as port:
            target = place(f"https://{name}:{port}")
            upstream = Upstream(lambda host, port: ["127.0.0.1"])
            upstream.allow([target])
            try:
                return (await upstream.post(target, "/v1", {}, b"{}")).status
            finally:
                await upstream.close()

    with pytest.raises(Unreachable) as error:
        asyncio.run(work("api.example.com"))
    assert error.value.why == "SSLCertVerificationError"
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    assert asyncio.run(work("api.example.com")) == 200
    with pytest.raises(Unreachable):
        asyncio.run(work("other.example.com"))
    assert len(server.requests) == 1
    assert b"host: api.example.com:" in server.requests[0]


def test_a_call_that_ends_while_it_waits_closes_its_connection() -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        came.set()
        with suppress(ConnectionError):
            await reader.read()
        gone.set()

    async def work() -> None:
        async with serving(serve) as port:
            upstream = Upstream()
            asking = asyncio.ensure_future(ask(upstream, port))
            await asyncio.wait_for(came.wait(), 20)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await asyncio.wait_for(gone.wait(), 20)
            await upstream.close()

    came = asyncio.Event()
    asyncio.run(work())


def test_idle_connections_are_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdtrue.llm.gateway.pool._KEEP_SECONDS", 0.02)
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(sized(b"[]"))
        await writer.drain()
        with suppress(ConnectionError):
            assert await reader.read() == b""
        gone.set()

    async def work() -> None:
        async with serving(serve) as port:
            upstream = Upstream()
            assert await ask(upstream, port) == (200, [])
            await asyncio.wait_for(gone.wait(), 20)
            await upstream.close()

    asyncio.run(work())


def test_no_more_connections_are_open_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdtrue.llm.gateway.pool._CONNECTIONS", 1)
    one, other = Server(sized(b"[]"), sized(b"[]")), Server(sized(b"[]"))

    async def work() -> None:
        async with one.open() as first, other.open() as second:
            upstream = Upstream()
            assert await ask(upstream, first) == (200, [])
            # The idle one makes room.
            response = await upstream.post(place(f"http://127.0.0.1:{second}"), "/x", {}, b"{}")
            while await response.raw.read():
                pass
            held = await upstream.post(place(f"http://127.0.0.1:{first}"), "/x", {}, b"{}")
            assert held.status == 200
            await upstream.close()

    asyncio.run(work())
    assert (one.connections, other.connections) == (2, 1)


def test_too_many_calls_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdtrue.llm.gateway.pool._CONNECTIONS", 1)
    came = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        came.set()
        with suppress(ConnectionError):
            await reader.read()

    async def work() -> None:
        async with serving(serve) as port:
            upstream = Upstream()
            waiting = asyncio.ensure_future(ask(upstream, port))
            await asyncio.wait_for(came.wait(), 20)
            with pytest.raises(Unreachable, match="Too many"):
                await ask(upstream, port)
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting
            await upstream.close()

    asyncio.run(work())


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httptools", None)
    server = Server()

    async def work() -> None:
        async with server.open() as port:
            upstream = Upstream()
            with pytest.raises(MissingExtra) as error:
                await ask(upstream, port)
            assert error.value.mend == "pip install 'holdtrue[llm]'"
            await upstream.close()

    asyncio.run(work())
