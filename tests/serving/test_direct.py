"""The direct port: one application over connections as clients use and misuse them, and the data plane behind it."""

import asyncio
import os
import signal
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from holdtrue.serving.direct import Direct, direct_listener, listening_socket
from tests.crash.soak import children
from tests.server.certificates import self_signed
from tests.serving.plane_home import SERVICE, TOKEN, Home, flight, free_port, infer_body

HEAD = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%b\r\n"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Direct], Awaitable[None]]


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
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
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
        if path == "/wait":
            assert (await receive())["type"] == "http.disconnect"
            self.left.set()
            return
        await self.reply(send, 200, body)

    async def reply(self, send: Any, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        told = [(b"content-length", b"%d" % len(body)), *headers]
        await send({"type": "http.response.start", "status": status, "headers": told})
        await send({"type": "http.response.body", "body": body})


def talk(conversation: Callable[[asyncio.StreamReader, asyncio.StreamWriter, Direct, App], Awaitable[None]]) -> None:
    """Hold a conversation over a real connection."""

    async def main() -> None:
        app = App()
        direct = Direct(app, lambda: 1_362_139_200_000_000)
        server = await asyncio.get_running_loop().create_server(direct.connection, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
        async with asyncio.timeout(20):
            await conversation(reader, writer, direct, app)
        writer.close()
        server.close()
        await direct.close()
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
    async def conversation(reader: Any, writer: Any, direct: Direct, app: App) -> None:
        bodies = [b"", b"a", b"x" * 5000, b"POST / HTTP/1.1\r\n\r\n"]
        data = b"".join(map(request, bodies))
        for start in range(0, len(data), piece):
            writer.write(data[start : start + piece])
            await asyncio.sleep(0)
        for body in bodies:
            assert await answer(reader) == (b"HTTP/1.1 200 OK", body)
        assert [body for _, body in app.seen] == bodies

    talk(conversation)


def test_a_large_body_comes_whole_and_one_that_waits_is_asked_for() -> None:
    async def conversation(reader: Any, writer: Any, direct: Direct, app: App) -> None:
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
    async def conversation(reader: Any, writer: Any, direct: Direct, app: App) -> None:
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
        (b"GET / HTTP/1.0\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"411"),
        (b"GET / HTTP/1.1\r\na: " + b"b" * 20_000, b"431"),
        (request(b"ok") + b"nonsense\r\n\r\n" + request(b"never"), b"400"),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_ends(data: bytes, status: bytes) -> None:
    async def conversation(reader: Any, writer: Any, direct: Direct, app: App) -> None:
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
    async def conversation(reader: Any, writer: Any, direct: Direct, app: App) -> None:
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


def test_an_application_that_fails_cuts_its_client_off() -> None:
    async def conversation(reader: Any, writer: Any, direct: Direct, app: App) -> None:
        writer.write(request(b"", path=b"/fail"))
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)

    talk(conversation)


def test_a_client_that_does_not_read_is_not_answered_further() -> None:
    async def conversation(reader: Any, writer: Any, direct: Direct, app: App) -> None:
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
        (connection,) = direct.connections
        assert connection.held() < 1 << 20
        reader._limit = 1 << 24
        reading.set()
        await tasks
        assert len(app.seen) == count

    talk(conversation)


def test_a_client_that_leaves_is_noticed() -> None:
    async def conversation(reader: Any, writer: Any, direct: Direct, app: App) -> None:
        writer.write(request(b"", path=b"/wait"))
        while not app.seen:
            await asyncio.sleep(0)
        writer.transport.abort()
        await app.left.wait()

    talk(conversation)


def test_a_head_has_no_body_and_a_last_request_ends_the_connection() -> None:
    async def conversation(reader: Any, writer: Any, direct: Direct, app: App) -> None:
        writer.write(request(b"abc").replace(b"POST", b"HEAD") + request(b"", b"Connection: close\r\n"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"content-length: 3\r\n" in head
        assert (await answer(reader))[0] == b"HTTP/1.1 200 OK"
        assert await reader.read() == b""

    talk(conversation)


@pytest.mark.parametrize(("sent", "seconds"), [(b"", 75.0), (b"POST / HT", 10.0)])
def test_connections_that_come_to_nothing_are_ended(sent: bytes, seconds: float) -> None:
    async def conversation(reader: Any, writer: Any, direct: Direct, app: App) -> None:
        writer.write(request(b"a") + sent)
        assert (await answer(reader))[1] == b"a"
        (connection,) = direct.connections
        now = direct.loop.time()
        connection.look(now + seconds - 5)
        writer.write(b"")
        assert connection in direct.connections
        connection.look(now + seconds + 5)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        assert not direct.connections

    talk(conversation)


def test_the_data_plane_answers_there_as_at_its_main_port(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    port = free_port()
    plane = home.start("--direct-port", str(port))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as direct:
        for path, body, token in (
            (f"/features/{SERVICE}", {"entities": {"origin": ["EWR"]}}, TOKEN),
            (f"/features/{SERVICE}", {"entities": {"carrier": ["EWR"]}}, TOKEN),
            ("/features/none", {"entities": {"origin": ["EWR"]}}, TOKEN),
            (f"/features/{SERVICE}", {}, "ht_unknown"),
            ("/v2/models/none/infer", infer_body([flight(0)]), TOKEN),
        ):
            headers = {"authorization": f"Bearer {token}", "x-request-id": "same"}
            here = direct.post(path, json=body, headers=headers)
            there = plane.client.post(path, json=body, headers=headers)
            assert (here.status_code, here.content) == (there.status_code, there.content)
            assert here.headers["x-request-id"] == "same"
        assert direct.get("/health/ready").status_code == 200
        assert direct.get("/health/ready", headers={"host": "evil.example"}).status_code == 421
        found = direct.post(
            f"/v2/models/{SERVICE}/infer",
            json=infer_body([flight(1)]),
            headers={"authorization": f"Bearer {TOKEN}"},
        )
        assert found.status_code == 200
    worker = next(pid for pid, line in children(plane.popen.pid).items() if "resource_tracker" not in line)
    os.kill(worker, signal.SIGKILL)
    # A worker that is killed takes its connections along; a new one waits for the next worker.
    assert httpx.get(f"http://127.0.0.1:{port}/health/live", timeout=30).status_code == 200
    assert plane.stop() == 0
    assert [each["key"] for each in home.records("prediction")] == ["flight-1"]


def test_it_speaks_tls_where_there_is_a_certificate(tmp_path: Path) -> None:
    self_signed(tmp_path, "localhost")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    trust = ssl.create_default_context(cafile=str(certificate))

    async def main() -> None:
        app: Any = App()
        engine: Any = SimpleNamespace(now_us=lambda: 1_362_139_200_000_000)
        listening = listening_socket("127.0.0.1", 0)
        port = listening.getsockname()[1]
        async with direct_listener(listening, certificate, key)(app, engine):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="localhost")
            writer.write(request(b"secret"))
            assert await answer(reader) == (b"HTTP/1.1 200 OK", b"secret")
        # The connection ends with the worker; what it was answering was answered.
        assert await reader.read() == b""
        writer.close()

    asyncio.run(main())
