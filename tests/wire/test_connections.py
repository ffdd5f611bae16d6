"""The server on the event loop: one application over connections as clients use and misuse them."""

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest

from holdtrue.wire import Connections, answering, listening_socket
from holdtrue.wire.heads import BadHttp, chunk
from tests.server.certificates import self_signed

HEAD = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%b\r\n"
MOMENT = 1_362_139_200_000_000
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Connections], Awaitable[None]]


def request(body: bytes, more: bytes = b"", path: bytes = b"/echo") -> bytes:
    return HEAD.replace(b"/echo", path) % (len(body), more) + body


class App:
    """Echo bodies; stream, fail, answer early or wait for the client to go, by the path."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes]] = []
        self.left = asyncio.Event()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        path = scope["path"]
        if path == "/early":
            await self.reply(send, 401, b"no", (b"connection", b"close"))
            return
        try:
            body = await self.read(receive)
        except BadHttp as error:
            await self.reply(send, 400, str(error).encode())
            return
        self.seen.append((scope["method"], body))
        if path == "/fail":
            raise RuntimeError("broken")
        if path in ("/stream", "/cut"):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for part in (b"one", b"", b"three" * 100_000):
                await send({"type": "http.response.body", "body": part, "more_body": True})
            if path == "/stream":
                await send({"type": "http.response.body", "body": b""})
            return
        if path in ("/sized", "/short", "/long"):
            said = {"/sized": 9, "/short": 10, "/long": 8}[path]
            headers = [(b"content-length", b"%d" % said)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            for part in (b"one", b"two"):
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"six"})
            return
        if path == "/wait":
            assert (await receive())["type"] == "http.disconnect"
            self.left.set()
            return
        await self.reply(send, 200, body)

    async def read(self, receive: Any) -> bytes:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                return body

    async def reply(self, send: Any, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        told = [(b"content-length", b"%d" % len(body)), *headers]
        await send({"type": "http.response.start", "status": status, "headers": told})
        await send({"type": "http.response.body", "body": body})


def talk(
    conversation: Callable[[asyncio.StreamReader, asyncio.StreamWriter, Connections, App], Awaitable[None]],
) -> None:
    """Hold a conversation over a real connection."""

    async def main() -> None:
        app = App()
        server = Connections(app, lambda: MOMENT)
        listening = await asyncio.get_running_loop().create_server(server.connection, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
        async with asyncio.timeout(20):
            await conversation(reader, writer, server, app)
        writer.close()
        listening.close()
        await server.close()
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and not task.done()]

    asyncio.run(main())


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return the status line and the body of an answer that says how long it is."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"date: Fri, 01 Mar 2013 12:00:00 GMT\r\n" in head
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head.partition(b"\r\n")[0], await reader.readexactly(length)


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_requests_are_answered_in_turn_however_their_bytes_come(piece: int) -> None:
    async def conversation(reader: Any, writer: Any, server: Connections, app: App) -> None:
        bodies = [b"", b"a", b"x" * 5000, b"POST / HTTP/1.1\r\n\r\n"]
        data = b"\r\n".join(map(request, bodies))
        for start in range(0, len(data), piece):
            writer.write(data[start : start + piece])
            await asyncio.sleep(0)
        for body in bodies:
            assert await answer(reader) == (b"HTTP/1.1 200 OK", body)
        assert [body for _, body in app.seen] == bodies

    talk(conversation)


def test_a_large_body_comes_whole_and_one_that_waits_is_asked_for() -> None:
    async def conversation(reader: Any, writer: Any, server: Connections, app: App) -> None:
        body = os.urandom(3 << 20)
        writer.write(request(body) + request(b"after"))
        assert await answer(reader) == (b"HTTP/1.1 200 OK", body)
        assert (await answer(reader))[1] == b"after"
        writer.write(HEAD % (4, b"Expect: 100-continue\r\n"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"body")
        assert (await answer(reader))[1] == b"body"

    talk(conversation)


def test_an_answer_before_the_body_ends_the_connection() -> None:
    async def conversation(reader: Any, writer: Any, server: Connections, app: App) -> None:
        writer.write((HEAD % (100, b"Expect: 100-continue\r\n")).replace(b"/echo", b"/early"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
        assert head.count(b"connection: close") == 1
        assert await reader.read() == b"no"

    talk(conversation)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/2.0\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\na: " + b"b" * 40_000, b"431"),
        (request(b"ok") + b"nonsense\r\n\r\n" + request(b"never"), b"400"),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_ends(data: bytes, status: bytes) -> None:
    async def conversation(reader: Any, writer: Any, server: Connections, app: App) -> None:
        writer.write(data)
        if data.startswith(b"POST /echo"):
            assert (await answer(reader))[1] == b"ok"
        head, body = await answer(reader)
        assert head.split()[1] == status
        assert b'"error"' in body
        assert await reader.read() == b""
        assert len(app.seen) == data.count(b"ok")

    talk(conversation)


def test_streams_come_in_chunks_and_one_that_breaks_has_no_end() -> None:
    async def conversation(reader: Any, writer: Any, server: Connections, app: App) -> None:
        writer.write(request(b"", path=b"/stream") + request(b"", path=b"/cut"))
        whole = b"3\r\none\r\n" + b"%x\r\n" % 500_000 + b"three" * 100_000 + b"\r\n"
        assert b"transfer-encoding: chunked" in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(len(whole) + 5) == whole + b"0\r\n\r\n"
        await reader.readuntil(b"\r\n\r\n")
        rest = b""
        try:
            while more := await reader.read(1 << 16):
                rest += more
        except ConnectionResetError:
            pass
        assert whole.startswith(rest)

    talk(conversation)


@pytest.mark.parametrize("piece", [1, 11, 10_000_000])
def test_bodies_in_chunks_are_bodies(piece: int) -> None:
    async def conversation(reader: Any, writer: Any, server: Connections, app: App) -> None:
        head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        body = os.urandom(1 << 20) if piece > 1000 else b"some more"
        parts = (body[:5], body[5:])
        data = head + b"".join(map(chunk, parts)) + b"0\r\n\r\n" + head + b"0\r\n\r\n" + request(b"after")
        for start in range(0, len(data), piece):
            writer.write(data[start : start + piece])
            await asyncio.sleep(0)
        for expected in (body, b"", b"after"):
            assert await answer(reader) == (b"HTTP/1.1 200 OK", expected)

    talk(conversation)


def test_a_body_whose_chunks_break_is_cut_short() -> None:
    async def conversation(reader: Any, writer: Any, server: Connections, app: App) -> None:
        head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head + chunk(b"good") + b"nonsense\r\n" + request(b"never"))
        status, told = await answer(reader)
        assert status == b"HTTP/1.1 400 Bad Request"
        assert b"size of a chunk" in told
        assert await reader.read() == b""
        assert not app.seen

    talk(conversation)


def test_a_client_that_still_sends_gets_an_early_answer_all_the_same() -> None:
    async def conversation(reader: Any, writer: Any, server: Connections, app: App) -> None:
        writer.write((HEAD % (64 << 20, b"")).replace(b"/echo", b"/early"))
        for _ in range(64):
            writer.write(bytes(1 << 16))
            await writer.drain()
        assert await answer(reader) == (b"HTTP/1.1 401 Unauthorized", b"no")
        assert await reader.read() == b""
        (connection,) = server.connections
        connection.look(server.loop.time() + 1)
        assert connection in server.connections
        connection.look(server.loop.time() + 3)
        assert await reader.read() == b""
        while server.connections:
            await asyncio.sleep(0)

    talk(conversation)


def test_old_http_is_answered_without_chunks_and_ended() -> None:
    async def conversation(reader: Any, writer: Any, server: Connections, app: App) -> None:
        writer.write(b"GET /stream HTTP/1.0\r\nHost: localhost\r\n\r\n" + request(b"never"))
        assert b"transfer-encoding" not in await reader.readuntil(b"\r\n\r\n")
        assert await reader.read() == b"one" + b"three" * 100_000
        assert len(app.seen) == 1

    talk(conversation)


def test_a_stream_of_known_length_is_as_long_as_it_says() -> None:
    async def conversation(reader: Any, writer: Any, server: Connections, app: App) -> None:
        writer.write(request(b"", path=b"/sized") + request(b"", path=b"/sized").replace(b"POST", b"HEAD"))
        assert await answer(reader) == (b"HTTP/1.1 200 OK", b"onetwosix")
        assert b"transfer-encoding" not in await reader.readuntil(b"\r\n\r\n")
        writer.write(request(b"", path=b"/sized"))
        assert (await answer(reader))[1] == b"onetwosix"

    talk(conversation)


@pytest.mark.parametrize("path", [b"/short", b"/long"])
def test_a_stream_of_another_length_than_it_says_has_no_end(path: bytes) -> None:
    async def conversation(reader: Any, writer: Any, server: Connections, app: App) -> None:
        writer.write(request(b"", path=path))
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await answer(reader)

    talk(conversation)


def test_an_application_that_fails_cuts_its_client_off() -> None:
    async def conversation(reader: Any, writer: Any, server: Connections, app: App) -> None:
        writer.write(request(b"", path=b"/fail"))
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)

    talk(conversation)


def test_a_client_that_does_not_read_is_not_answered_further() -> None:
    async def conversation(reader: Any, writer: Any, server: Connections, app: App) -> None:
        body, count = b"x" * 200_000, 200
        reading = asyncio.Event()

        async def ask() -> None:
            for _ in range(count):
                writer.write(request(body))
                await writer.drain()

        async def read() -> None:
            await reading.wait()
            for _ in range(count):
                assert (await answer(reader))[1] == body

        reader._limit = 1  # what comes is not taken from the socket until somebody reads
        tasks = asyncio.gather(ask(), read())
        before = -1
        while before < len(app.seen):
            before = len(app.seen)
            for _ in range(200):
                await asyncio.sleep(0)
        assert len(app.seen) < count
        (connection,) = server.connections
        assert connection.held() < 1 << 20
        reader._limit = 1 << 24
        reading.set()
        await tasks
        assert len(app.seen) == count

    talk(conversation)


def test_a_client_that_reads_nothing_of_a_stream_is_cut_off() -> None:
    async def conversation(reader: Any, writer: Any, server: Connections, app: App) -> None:
        reader._limit = 1  # what comes is not taken from the socket
        for _ in range(60):
            writer.write(request(b"", path=b"/stream"))
        (connection,) = server.connections
        before = -1
        while before < len(app.seen):
            before = len(app.seen)
            for _ in range(200):
                await asyncio.sleep(0)
        assert connection.task is not None
        connection.look(server.loop.time() + 50)
        assert connection in server.connections
        connection.look(server.loop.time() + 61)
        while server.connections or [task for task in asyncio.all_tasks() if "_Connection" in repr(task)]:
            await asyncio.sleep(0)

    talk(conversation)


def test_a_client_that_leaves_is_noticed() -> None:
    async def conversation(reader: Any, writer: Any, server: Connections, app: App) -> None:
        writer.write(request(b"", path=b"/wait"))
        while not app.seen:
            await asyncio.sleep(0)
        writer.transport.abort()
        await app.left.wait()

    talk(conversation)


def test_a_head_has_no_body_and_a_last_request_ends_the_connection() -> None:
    async def conversation(reader: Any, writer: Any, server: Connections, app: App) -> None:
        writer.write(request(b"abc").replace(b"POST", b"HEAD") + request(b"", b"Connection: close\r\n"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"content-length: 3\r\n" in head
        assert (await answer(reader))[0] == b"HTTP/1.1 200 OK"
        assert await reader.read() == b""

    talk(conversation)


@pytest.mark.parametrize(("sent", "seconds"), [(b"", 75.0), (b"POST / HT", 10.0)])
def test_connections_that_come_to_nothing_are_ended(sent: bytes, seconds: float) -> None:
    async def conversation(reader: Any, writer: Any, server: Connections, app: App) -> None:
        writer.write(request(b"a") + sent)
        assert (await answer(reader))[1] == b"a"
        (connection,) = server.connections
        now = server.loop.time()
        connection.look(now + seconds - 5)
        writer.write(b"")
        assert connection in server.connections
        connection.look(now + seconds + 5)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        assert not server.connections

    talk(conversation)


def test_it_speaks_tls_where_there_is_a_certificate(tmp_path: Path) -> None:
    self_signed(tmp_path, "localhost")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    trust = ssl.create_default_context(cafile=str(certificate))

    async def main() -> None:
        app: Any = App()
        listening = listening_socket("127.0.0.1", 0)
        port = listening.getsockname()[1]
        async with answering(app, listening, lambda: MOMENT, certificate, key):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="localhost")
            writer.write(request(b"secret"))
            assert await answer(reader) == (b"HTTP/1.1 200 OK", b"secret")
        # The connection ends with the worker; what it was answering was answered.
        assert await reader.read() == b""
        writer.close()

    asyncio.run(main())


def test_a_request_may_be_taken_without_a_task_once_its_head_was_noted() -> None:
    """And is answered when the application likes: no further one begins before, and an end waits for it."""
    taken: list[tuple[bytes, Any]] = []

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        scope["notes"]["seen"] = True
        await App()(scope, receive, send)

    def begin(_scope: MutableMapping[str, Any], body: bytes, send: Any) -> bool:
        if body == b"task":
            return False
        taken.append((body, send))
        return True

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = Connections(app, lambda: MOMENT, begin=begin)
        listening = await loop.create_server(server.connection, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname()[:2])

        async def ask(*bodies: bytes) -> None:
            writer.write(b"".join(map(request, bodies)))
            await writer.drain()

        async with asyncio.timeout(20):
            await ask(b"good")
            assert (await answer(reader))[1] == b"good"
            assert taken == []
            await ask(b"one1", b"two2", b"task")
            while not taken:
                await asyncio.sleep(0)
            await asyncio.sleep(0.05)
            assert [body for body, _ in taken] == [b"one1"]
            taken[0][1](200, [(b"content-length", b"3")], b"ONE")
            assert (await answer(reader))[1] == b"ONE"
            while len(taken) < 2:
                await asyncio.sleep(0)
            taken[1][1](200, [(b"content-length", b"3")], b"TWO")
            assert [(await answer(reader))[1] for _ in range(2)] == [b"TWO", b"task"]
            await ask(b"last")
            while len(taken) < 3:
                await asyncio.sleep(0)
            ending = asyncio.ensure_future(server.close())
            await asyncio.sleep(0.05)
            assert not ending.done()
            taken[2][1](200, [(b"content-length", b"4")], b"LAST")
            assert (await answer(reader))[1] == b"LAST"
            await ending
            assert await reader.read() == b""
        writer.close()
        listening.close()

    asyncio.run(main())
