"""Requests that need no task: of a head that was let in before, they are answered as any other, and held to as much."""

import asyncio
import hashlib
import socket
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from holdtrue.core.access import Permission
from holdtrue.serving import AccessTable, Direct, Endpoint, Engine, Grant, Limits, Plane, Reply, Request
from tests.serving.plane_home import SERVICE, TOKEN, Home, Process, flight, infer_body

Answers = list[tuple[int, bytes, dict[str, Any]]]


def message(body: bytes) -> bytes:
    """Return a request; of bodies of one length all heads are the same bytes."""
    head = f"POST /v2/models/{SERVICE}/infer HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def row(number: int, **changes: Any) -> bytes:
    """Return the body of a request of 1,000 bytes."""
    return orjson.dumps(infer_body([flight(number, **changes)])).ljust(1000)


def talk(plane: Process, sent: bytes, count: int, connection: socket.socket) -> Answers:
    """Send bytes and return so many answers: status, name and content."""
    connection.sendall(sent)
    found: Answers = []
    with connection.makefile("rb") as file:
        while len(found) < count:
            status = int(file.readline().split()[1])
            headers = dict(line.rstrip().split(b": ", 1) for line in iter(file.readline, b"\r\n"))
            body = file.read(int(headers[b"content-length"]))
            found.append((status, headers[b"x-request-id"], orjson.loads(body)))
    return found


@pytest.mark.parametrize("mode", ["fast", "strict"])
def test_what_comes_again_by_a_connection_is_answered_as_at_first(home: Home, mode: str) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start("--records", mode)
    with socket.create_connection(("127.0.0.1", plane.port), 20) as connection:
        first, *rest = [talk(plane, message(row(7)), 1, connection)[0] for _ in range(4)]
        assert first[0] == 200
        for each in rest:
            assert each[0] == 200
            assert each[2]["outputs"] == first[2]["outputs"]
            assert each[2].keys() == first[2].keys()
        assert len({each[1] for each in (first, *rest)}) == 4
        with socket.create_connection(("127.0.0.1", plane.port), 20) as other:
            for bad in (b"{".ljust(1000), row(7, origin="SFO"), row(7, distance="far")):
                told = talk(plane, message(bad), 1, connection)[0]
                assert told[0] in (400, 422)
                assert told[2] == talk(plane, message(bad), 1, other)[0][2]
        assert talk(plane, message(row(8)), 1, connection)[0][0] == 200
    plane.stop()
    assert len(home.records("prediction")) == 5


def test_requests_that_come_one_behind_the_other_are_answered_in_their_order(home: Home) -> None:
    """Many that are refused at once among them: none is answered within the answer to another."""
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start("--records", "fast")
    bodies = [row(number) if number % 3 == 0 else b"{".ljust(1000) for number in range(2000)]
    with socket.create_connection(("127.0.0.1", plane.port), 20) as connection:
        found: Answers = []
        for start in range(0, len(bodies), 200):
            part = bodies[start : start + 200]
            found += talk(plane, b"".join(map(message, part)), len(part), connection)
    assert [each[0] for each in found] == [200 if number % 3 == 0 else 400 for number in range(2000)]
    plane.stop()
    assert len(home.records("prediction")) == sum(number % 3 == 0 for number in range(2000))


def test_a_token_that_is_taken_back_ends_for_what_comes_again_too(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start("--records", "fast")
    with socket.create_connection(("127.0.0.1", plane.port), 20) as connection:
        assert [talk(plane, message(row(1)), 1, connection)[0][0] for _ in range(3)] == [200] * 3
        home.grant({})
        plane.until(lambda: talk(plane, message(row(1)), 1, connection)[0][0] == 401)


def test_one_that_takes_too_long_is_told_so_and_too_many_are_refused() -> None:
    """The table of who may what, the limit and the deadline are those of all requests."""
    now, begun, sent = [0.0], list[Direct](), list[tuple[int, Any]]()

    def begin(request: Request, direct: Direct) -> bool:
        direct.shape(lambda answer: Reply(200, orjson.dumps(answer)))
        begun.append(direct)
        return request.body != b"later"

    async def handle(_request: Request) -> Reply:
        raise AssertionError("asked for by nobody")

    engine = SimpleNamespace(stopwatch=lambda: now[0], table=SimpleNamespace(projects=frozenset({"flights"})))
    endpoint = Endpoint("POST", "/ask", Permission.PREDICT, handle, begin=begin)
    plane = plane_of(cast(Engine, engine), endpoint, Limits(requests=2, deadline=5.0))
    scope = scope_of()
    plane.set_access(AccessTable(1, {GRANT.digest: GRANT}))
    assert not plane.begin(scope, b"{}", lambda *_: None), "its head is not known yet"
    noted(plane, scope)

    def ask(body: bytes) -> bool:
        return plane.begin(scope, body, lambda status, _headers, text: sent.append((status, orjson.loads(text))))

    assert not ask(b"later")
    begun.clear()
    assert ask(b"1")
    assert ask(b"2")
    assert ask(b"3")
    assert [status for status, _ in sent] == [503]
    now[0] = 4.0
    begun[0].set_result({"score": 1})
    assert ask(b"4")
    now[0] = 6.0
    plane.expire()
    assert [each[0] for each in sent] == [503, 200, 408]
    assert [each.done() for each in begun] == [True, True, False]
    begun[2].set_exception(KeyError("a bug"))  # type: ignore[arg-type]
    assert (sent[-1][0], sent[-1][1]["error"]["what"]) == (500, "The request failed.")
    plane.set_access(AccessTable(2, {}))
    assert not ask(b"5"), "the token has ended"


TOKEN_BYTES = b"ht_test"
GRANT = Grant("tok_1", "alice", "flights", frozenset({Permission.PREDICT}), None, hashlib.sha256(TOKEN_BYTES).digest())


def plane_of(engine: Engine, endpoint: Endpoint, limits: Limits) -> Plane:
    """Return a plane of one endpoint."""

    return Plane(engine, [endpoint], hosts=["localhost"], errors={}, lifespan=lambda _: nullcontext(), limits=limits)


def scope_of() -> dict[str, Any]:
    """Return a request's scope as the server makes it."""
    headers = [(b"host", b"localhost"), (b"authorization", b"Bearer " + TOKEN_BYTES)]
    return {"type": "http", "method": "POST", "path": "/ask", "raw_path": b"/ask", "headers": headers, "notes": {}}


def noted(plane: Plane, scope: dict[str, Any]) -> None:
    """Let a request in once, so that its head is known; it asks for what is refused before anybody is asked."""

    async def main() -> None:
        async def send(_message: Any) -> None:
            pass

        async def receive() -> Any:
            return {"type": "http.disconnect"}

        async with plane.living():
            await plane(scope, receive, send)

    asyncio.run(main())
    assert scope["notes"]
