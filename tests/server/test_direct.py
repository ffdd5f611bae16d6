"""Requests by the standard library alone: what a server may answer, and what is no answer."""

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from holdtrue.core.errors import Unauthenticated, Unavailable
from holdtrue.server.client import Client
from holdtrue.server.direct import Answer, Plain, Unreachable, is_plain, target_of


@dataclass(slots=True)
class Said:
    """A server that answers each request with the next of these bytes; None ends the connection instead."""

    answers: list[bytes | None]
    heads: list[bytes] = field(default_factory=list[bytes])
    connections: int = 0
    port: int = 0

    def serve(self, listening: socket.socket) -> None:
        while self.answers:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            self.connections += 1
            with connection, connection.makefile("rb") as reading:
                self._converse(connection, reading.readline)

    def _converse(self, connection: socket.socket, line: Callable[[], bytes]) -> None:
        while self.answers:
            head = b""
            while (more := line()) not in (b"", b"\r\n"):
                head += more
            if not head:
                return
            self.heads.append(head)
            answer = self.answers.pop(0)
            if answer is None:
                return
            connection.sendall(answer)
            if b"connection: close" in answer or answer.startswith(b"HTTP/1.0"):
                return


Server = Callable[..., Said]


@pytest.fixture
def server() -> Iterator[Server]:
    """Start servers that say what they are told; all end with the test."""
    open_ones: list[tuple[socket.socket, threading.Thread]] = []

    def start(*answers: bytes | None) -> Said:
        said = Said(list(answers))
        listening = socket.create_server(("127.0.0.1", 0))
        said.port = listening.getsockname()[1]
        thread = threading.Thread(target=said.serve, args=(listening,))
        thread.start()
        open_ones.append((listening, thread))
        return said

    yield start
    for listening, thread in open_ones:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(10)


def _ok(body: bytes = b"{}", more: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), more, body)


_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def _ask(said: Said, method: str = "GET", body: bytes = b"") -> Answer:
    plain = Plain(f"http://127.0.0.1:{said.port}", 10.0)
    try:
        return plain.send(method, "/a?b=c", {"authorization": "Bearer t"}, body)
    finally:
        plain.close()


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (_ok(b'{"a": 1}'), b'{"a": 1}'),
        (_ok(b""), b""),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nend: y\r\n\r\n",
            b"abcde",
        ),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", b"old"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + _ok(b"later"), b"later"),
    ],
)
def test_a_whole_answer_is_read_in_each_form(server: Server, answer: bytes, body: bytes) -> None:
    said = server(answer)
    found = _ask(said)
    assert (found.status, found.body) == (200, body)
    assert said.heads[0].startswith(b"GET /a?b=c HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % said.port)
    assert b"authorization: Bearer t\r\n" in said.heads[0]


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nconnection: close\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\nconnection: close\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\nconnection: close\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nconnection: close\r\n\r\nzz\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nconnection: close",
        b"SSH-2.0-x connection: close\r\n",
        b"HTTP/1.1 2000 OK\r\nconnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n" + b"a: b\r\n" * 300 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\na: " + b"b" * 70_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_whole_answer_is_none(server: Server, answer: bytes | None) -> None:
    with pytest.raises(Unreachable) as raised:
        _ask(server(answer))
    assert not raised.value.late


def test_one_connection_is_kept_and_another_one_opened_when_it_ended(server: Server) -> None:
    said = server(_ok(b"1"), _ok(b"2"), _ok(b"3", b"connection: close\r\n"), _ok(b"4"))
    plain = Plain(f"http://127.0.0.1:{said.port}", 10.0)
    bodies = [plain.send("GET", "/", {}, b"").body for _ in range(4)]
    plain.close()
    assert bodies == [b"1", b"2", b"3", b"4"]
    assert said.connections == 2


def test_an_answer_that_does_not_come_is_late(server: Server) -> None:
    said = server(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", None)
    plain = Plain(f"http://127.0.0.1:{said.port}", 0.05)
    with pytest.raises(Unreachable) as raised:
        plain.send("POST", "/", {}, b"")
    assert raised.value.late
    plain.close()


def test_a_header_cannot_become_two(server: Server) -> None:
    said = server(_ok())
    plain = Plain(f"http://127.0.0.1:{said.port}", 10.0)
    with pytest.raises(Unreachable, match="control signs"):
        plain.send("GET", "/", {"authorization": "Bearer t\r\nx: y"}, b"")
    assert said.heads == []


def test_the_client_says_when_nobody_answers_and_asks_again_with_a_new_token(server: Server) -> None:
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    with Client.at(f"http://127.0.0.1:{port}", "t") as client, pytest.raises(Unavailable, match="No server answers"):
        client.get("/api/projects")
    said = server(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\n{}", _ok(b'{"items": []}'))
    tokens = ["old", "new", "new"]
    with Client.at(f"http://127.0.0.1:{said.port}", lambda: tokens.pop(0)) as client:
        assert client.get("/api/projects", state=None, name="a b") == {"items": []}
    assert [b"Bearer old" in head for head in said.heads] == [True, False]
    assert said.heads[1].startswith(b"GET /api/projects?name=a%20b HTTP/1.1\r\n")
    assert b"Bearer new" in said.heads[1]
    with Client.at("http://127.0.0.1:1", "") as client, pytest.raises(Unauthenticated, match="no token"):
        client.get("/api/projects")


def test_only_plain_paths_are_sent_as_they_are() -> None:
    assert is_plain("/api/projects/p/datasets/a@3")
    assert not any(map(is_plain, ("", "api", "/a b", "/a?b", "/a#b", "/ä", "/a%20b", "/a\n")))
    assert target_of("/a", {}) == "/a"
    assert target_of("/a", {"b": "c d", "e": "ä&"}) == "/a?b=c%20d&e=%C3%A4%26"
