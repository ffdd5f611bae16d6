"""A stream of Redis is answered by a real data plane: whatever dies, none is lost, told twice, or recorded twice."""

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdtrue.core.clock import SimulatedClock
from holdtrue.core.errors import InvalidInput, NotFound, Unavailable
from holdtrue.server.consuming import Counts, Message, Told, asking, check_served, consume, renewing
from holdtrue.server.redisstream import Place, RedisStream
from tests.serving.conftest import home, models
from tests.serving.plane_home import PROJECT, SERVICE, TOKEN, Home, Process, flight, free_port

FIXTURES = (home, models)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a real redis-server of this run's own."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--appendonly", "yes"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < until
    yield f"redis://127.0.0.1:{port}/0"
    process.terminate()
    process.wait(20)


@pytest.fixture
def store(redis_url: str) -> Iterator[Any]:
    import redis

    client = redis.Redis.from_url(redis_url, protocol=2)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def plane(home: Home) -> Process:
    home.publish(home.bundle("rel_a", "champion"))
    process = home.start()
    process.until_acked()
    return process


def place(consumer: str = "one", **changes: Any) -> Place:
    return replace(Place("asked", "told", "g", consumer), **changes)


def put(store: Any, count: int, start: int = 0) -> list[str]:
    return [store.xadd("asked", {"row": json.dumps(flight(number))}).decode() for number in range(start, start + count)]


def answered(store: Any) -> list[dict[str, str]]:
    return [{key.decode(): value.decode() for key, value in fields.items()} for _, fields in store.xrange("told")]


def run(url: str, plane: Process, where: Place, **options: Any) -> Counts:
    stream = RedisStream(url, where)
    try:
        ask = asking(plane.client, PROJECT, SERVICE)
        return consume(stream, ask, threading.Event(), until_empty=True, **options)
    finally:
        stream.close()


def test_each_message_is_answered_once_recorded_once_and_done_with(redis_url: str, store: Any, plane: Process) -> None:
    names = put(store, 50)
    done = run(redis_url, plane, place(), most=20)
    assert (done.answered, done.refused, done.repeated) == (50, 0, 0)
    told = answered(store)
    assert sorted(each["message"] for each in told) == sorted(names)
    kept = plane.home.records("prediction")
    assert {each["prediction_id"] for each in told} == {each["id"] for each in kept}
    assert {json.loads(each["answer"])["release"] for each in told} == {"rel_a"}
    assert store.xpending("asked", "g")["pending"] == 0
    assert sorted(each["request_id"] for each in kept) == sorted(names)


def test_what_is_wrong_is_told_its_error_and_holds_nobody_up(redis_url: str, store: Any, plane: Process) -> None:
    put(store, 2)
    bad = [
        store.xadd("asked", {"row": json.dumps(flight(9, origin="SFO"))}).decode(),
        store.xadd("asked", {"row": "{broken"}).decode(),
        store.xadd("asked", {"another": "field"}).decode(),
        store.xadd("asked", {"row": b"\xff\xfe"}).decode(),
    ]
    put(store, 2, 2)
    done = run(redis_url, plane, place())
    assert (done.answered, done.refused) == (4, 4)
    errors = {each["message"]: json.loads(each["error"]) for each in answered(store) if "error" in each}
    assert set(errors) == set(bad)
    assert errors[bad[0]]["error"]["code"] == "contract_broken"
    assert errors[bad[2]]["error"]["why"] == "It has no field “row”; it has another."
    assert store.xpending("asked", "g")["pending"] == 0


def test_what_a_consumer_took_and_died_of_is_answered_by_itself_or_another(
    redis_url: str, store: Any, plane: Process
) -> None:
    put(store, 12)
    first = RedisStream(redis_url, place("one"))
    taken = first.take(5, 0.1)
    # It has asked, and dies before it tells: the predictions are recorded.
    asked = [asking(plane.client, PROJECT, SERVICE)(each) for each in taken]
    first.close()
    second = RedisStream(redis_url, place("two"))
    assert len(second.take(3, 0.1)) == 3
    second.close()
    # Its own name takes up what it left; what another one holds is taken over when that has been idle for long.
    assert run(redis_url, plane, place("one")).answered == 9
    assert run(redis_url, plane, place("one", idle_seconds=0.001)).answered == 3
    told = answered(store)
    assert len(told) == len({each["message"] for each in told}) == 12
    kept = plane.home.records("prediction")
    assert len(kept) == len({each["key"] for each in kept}) == 12
    assert {each.prediction for each in asked} <= {each["prediction_id"] for each in told}


def test_a_message_that_two_have_taken_is_told_once(redis_url: str, store: Any, plane: Process) -> None:
    put(store, 4)
    slow, fast = RedisStream(redis_url, place("slow")), RedisStream(redis_url, place("fast", idle_seconds=0.001))
    ask = asking(plane.client, PROJECT, SERVICE)
    held = [ask(each) for each in slow.take(4, 0.1)]
    time.sleep(0.01)
    again = [ask(each) for each in fast.take(4, 0.1)]
    assert [each.prediction for each in held] == [each.prediction for each in again]
    with ThreadPoolExecutor(2) as pool:
        counts = list(pool.map(lambda pair: pair[0].settle(pair[1]), [(slow, held), (fast, again)]))
    assert sum(counts) == 4
    assert len(answered(store)) == 4
    slow.close()
    fast.close()


def test_what_kills_whoever_takes_it_is_given_up(redis_url: str, store: Any, plane: Process) -> None:
    (name,) = put(store, 1)
    for number in range(3):
        dying = RedisStream(redis_url, place(f"c{number}", idle_seconds=0.001, deliveries=2))
        assert [each.id for each in dying.take(9, 0.05)] == [name]
        dying.close()
        time.sleep(0.01)
    done = run(redis_url, plane, place("last", idle_seconds=0.001, deliveries=2))
    assert (done.answered, done.refused) == (0, 1)
    (told,) = answered(store)
    assert "never answered" in json.loads(told["error"])["error"]["why"]


def test_while_the_data_plane_is_down_messages_wait_and_are_answered_after(
    redis_url: str, store: Any, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, 10)
    home.publish(home.bundle("rel_a", "champion"))
    port = free_port()
    monkeypatch.setattr("tests.serving.plane_home.free_port", lambda: port)
    http = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {TOKEN}"})
    stream, stop = RedisStream(redis_url, place()), threading.Event()
    counts: list[Counts] = []
    thread = threading.Thread(
        target=lambda: counts.append(consume(stream, asking(http, PROJECT, SERVICE), stop, until_empty=True))
    )
    thread.start()
    home.start()
    thread.join(60)
    assert not thread.is_alive()
    assert (counts[0].answered, len(answered(store))) == (10, 10)
    stream.close()
    http.close()


def test_whoever_is_stopped_leaves_what_is_not_answered(redis_url: str, store: Any, plane: Process) -> None:
    put(store, 3)
    stop = threading.Event()

    def ask(message: Message) -> Told:
        stop.set()
        raise Unavailable("Not now.")

    stream = RedisStream(redis_url, place())
    assert consume(stream, ask, stop).answered == 0
    stream.close()
    assert store.xpending("asked", "g")["pending"] == 3
    assert run(redis_url, plane, place()).answered == 3


def test_another_kind_of_stream_needs_three_methods(plane: Process) -> None:
    class Topic:
        """A topic as Kafka has it: messages by offset, answers sent before the offset moves."""

        def __init__(self) -> None:
            self.offset = 0
            self.sent: list[Told] = []
            self.log = [Message(f"p0-{number}", json.dumps(flight(number)).encode()) for number in range(7)]

        def take(self, most: int, seconds: float) -> Sequence[Message]:
            return self.log[self.offset : self.offset + most]

        def settle(self, told: Sequence[Told]) -> int:
            self.sent += told
            self.offset += len(told)
            return len(told)

        def close(self) -> None: ...

    topic = Topic()
    assert (
        consume(topic, asking(plane.client, PROJECT, SERVICE), threading.Event(), most=3, until_empty=True).answered
        == 7
    )
    assert len(plane.home.records("prediction")) == 7
    topic.offset = 0
    consume(topic, asking(plane.client, PROJECT, SERVICE), threading.Event(), until_empty=True)
    assert len({each.prediction for each in topic.sent}) == len(plane.home.records("prediction")) == 7


def test_what_cannot_work_is_said_at_once(redis_url: str, store: Any, plane: Process, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="serves no model"):
        check_served(plane.client, PROJECT, "unknown")
    with pytest.raises(NotFound):
        check_served(plane.client, PROJECT, SERVICE, "staging")
    check_served(plane.client, PROJECT, SERVICE, "production")
    with pytest.raises(InvalidInput) as address:
        RedisStream("nothing://x", place())
    assert "redis://127.0.0.1:6379/0" in address.value.mend
    with pytest.raises(Unavailable) as away:
        RedisStream(f"redis://127.0.0.1:{free_port()}/0", place())
    assert "refused" in away.value.why
    assert "REDIS_URL" in away.value.mend
    store.set("text", "no stream")
    with pytest.raises(InvalidInput, match="refuses"):
        RedisStream(redis_url, place(requests="text"))


def test_a_programs_token_is_renewed_now_and_then_and_a_refusal_ends_nothing() -> None:
    class Owner:
        def __init__(self) -> None:
            self.asked: list[str] = []

        def post(self, path: str) -> None:
            self.asked.append(path)
            raise Unavailable("Not now.")

    owner, clock = Owner(), SimulatedClock(datetime(2026, 1, 1, tzinfo=UTC))
    renew = renewing(owner, clock, 60.0)  # pyright: ignore[reportArgumentType]  # all that is used of a client
    renew()
    assert owner.asked == []
    clock.advance(61)
    renew()
    renew()
    assert owner.asked == ["/api/tokens/renew"]
