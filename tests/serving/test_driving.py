"""The load that is driven at a server: what is counted, and that lateness of the server counts for the client."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from holdtrue.core.errors import Unavailable
from holdtrue.serving.driving import Driver, Order, drive, read_requests, request_bytes, write_requests

REQUEST = request_bytes("POST", "/", b"\xff\x00body", {"A": "b"})


@asynccontextmanager
async def served(
    status: Callable[[int], int], hold: asyncio.Event | None = None
) -> AsyncGenerator[tuple[int, list[bytes]]]:
    """Serve HTTP: the n-th request gets the status of n (0: no answer), the fifth after `hold`."""
    seen: list[bytes] = []
    open_ones: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task: Any = asyncio.current_task()
        open_ones.add(task)
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                seen.append(await reader.readexactly(len(REQUEST)))
                if hold is not None and len(seen) == 5:
                    await hold.wait()
                code = status(len(seen))
                if not code:
                    break
                # An answer in two pieces is one answer.
                writer.write(f"HTTP/1.1 {code} X\r\ncontent-type: text/plain\r\nContent-Length: 5\r\n\r\nhe".encode())
                await writer.drain()
                writer.write(b"llo")
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.gather(*open_ones)


@pytest.mark.parametrize("rate", [0.0, 2000.0])
def test_as_many_requests_are_sent_as_asked_for_and_each_is_counted_by_what_became_of_it(rate: float) -> None:
    async def run() -> None:
        async with served(lambda number: 503 if number % 10 == 0 else 200) as (port, seen):
            order = Order(port, "", connections=4, count=100, rate=rate)
            found = await drive(order, [REQUEST])
            assert seen == [REQUEST] * 100
            assert (found.answered, found.statuses, found.broken, found.failed) == (90, {"200": 90, "503": 10}, 0, 10)
            assert 0.0 < found.p50_ms <= found.p99_ms <= found.longest_ms
            assert found.rate > 0.0

    asyncio.run(run())


def test_an_ended_connection_is_a_failed_request_and_the_others_go_on() -> None:
    async def run() -> None:
        async with served(lambda number: 0 if number == 3 else 200) as (port, seen):
            found = await drive(Order(port, "", connections=2, count=20), [REQUEST])
            assert (found.answered, found.broken, found.failed, len(seen)) == (19, 1, 1, 20)

    asyncio.run(run())


def test_when_every_connection_has_ended_the_rest_is_not_waited_for() -> None:
    async def run() -> None:
        async with served(lambda _: 0) as (port, _):
            found = await drive(Order(port, "", connections=2, count=50), [REQUEST])
            assert (found.answered, found.broken) == (0, 2)

    asyncio.run(run())


def test_what_cannot_be_sent_for_want_of_a_connection_waits_and_its_waiting_counts() -> None:
    """A server that is closed for a while makes those late who came meanwhile, not only the one it held up."""

    async def run() -> None:
        hold = asyncio.Event()
        async with served(lambda _: 200, hold) as (port, _):
            asyncio.get_running_loop().call_later(0.2, hold.set)
            # One connection, and 100 requests that come within a tenth of a second.
            found = await drive(Order(port, "", connections=1, count=100, rate=1000.0, seed=1), [REQUEST])
            assert found.answered == 100
            assert found.p50_ms > 50.0

    asyncio.run(run())


def test_orders_are_carried_out_in_another_process_and_its_end_is_told(tmp_path: Path) -> None:
    async def run() -> None:
        async with served(lambda _: 200) as (port, seen):
            file = write_requests(tmp_path / "requests.json", [REQUEST])
            assert read_requests(file) == [REQUEST]
            with Driver() as driver:
                for count in (5, 7):
                    order = Order(port, str(file), connections=2, count=count)
                    assert (await asyncio.to_thread(driver.drive, order)).answered == count
                with pytest.raises(Unavailable, match="No load could be driven"):
                    await asyncio.to_thread(driver.drive, Order(port, str(tmp_path / "nothing"), count=1))
            assert len(seen) == 12

    asyncio.run(run())
