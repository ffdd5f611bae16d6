"""Drive load at a server on this machine, in a process of its own: as fast as it answers, or at a steady rate.

`python -m holdtrue.serving.driving` reads one JSON order a line and prints one JSON result a line, so that it shares no
interpreter with what it measures and starts once for many measurements. At a rate, requests come at random moments
(a Poisson process) and wait for a free connection if there is none; that waiting counts, since a client would wait too.
"""

import asyncio
import ctypes
import json
import math
import os
import random
import subprocess
import sys
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Self, cast

import uvloop

from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import Unavailable

_PATIENCE = 30.0
# timerfd_create(2), timerfd_settime(2)
_CLOCK_MONOTONIC, _TFD_TIMER_ABSTIME = 1, 1


@dataclass(frozen=True, slots=True)
class Order:
    """Say what to send: the requests in `file`, in turn, for `seconds` or until `count` were sent (0: no such end).

    With `rate` (requests a second; 0: as fast as they are answered) their moments are drawn from `seed`.
    """

    port: int
    file: str
    connections: int = 32
    seconds: float = 0.0
    count: int = 0
    rate: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Driven:
    """Tell how many requests were answered with 200, how fast, how long that took, and what went wrong.

    `broken` counts requests whose connection ended before their answer was there; times are NaN without answers.
    """

    answered: int
    rate: float
    p50_ms: float
    p99_ms: float
    longest_ms: float
    statuses: Mapping[str, int]
    broken: int

    @property
    def failed(self) -> int:
        """Return how many requests were not answered with 200."""
        return self.broken + sum(count for status, count in self.statuses.items() if status != "200")


def request_bytes(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """Return one HTTP/1.1 request as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def write_requests(path: Path, requests: Sequence[bytes]) -> Path:
    """Write requests to the file that an order names; any bytes may be in them."""
    path.write_text(json.dumps([each.decode("latin-1") for each in requests]), encoding="utf-8")
    return path


def read_requests(path: Path) -> list[bytes]:
    """Return what `write_requests` has written."""
    return [each.encode("latin-1") for each in json.loads(path.read_text(encoding="utf-8"))]


class _Run:
    """Guard one measurement: what is still to be sent, by which connections, and what came back."""

    def __init__(self, order: Order, requests: Iterator[bytes], clock: Callable[[], float]) -> None:
        self.now = clock
        self._order, self._requests = order, requests
        self._began = clock()
        self._until = self._began + order.seconds if order.seconds else math.inf
        self._left = float(order.count or math.inf)
        self._free: list[_Connection] = []
        self._waiting: deque[float] = deque()
        self._open = 0
        self._ended = False
        self._moments = random.Random(order.seed)
        self._due = self._began
        self._alarm: _Alarm | None = None
        self.done = asyncio.Event()
        self.durations = array("d")
        self.statuses: Counter[str] = Counter()
        self.broken = 0
        self.last = self._began

    def begin(self, connections: "Sequence[_Connection]") -> None:
        """Start the measurement over connections that are open already."""
        self._open = len(connections)
        for each in connections:
            each.run = self
            self.free(each)
        if self._order.rate:
            self._alarm = _Alarm(self._tick)
            self._tick()

    def end(self) -> None:
        """Send nothing more."""
        if self._alarm is not None:
            self._alarm.close()

    def free(self, connection: "_Connection") -> None:
        """Send the next request over a connection that has nothing to do."""
        now = self.now()
        if self._order.rate:
            if self._waiting:
                connection.send(next(self._requests), self._waiting.popleft())
                return
        elif now < self._until and self._left > 0:
            self._left -= 1
            connection.send(next(self._requests), now)
            return
        self._free.append(connection)
        self._look()

    def _tick(self) -> None:
        """Send what has become due at the rate; called over and over until the time is up."""
        assert self._alarm is not None
        now = self.now()
        while self._due <= now and self._due < self._until and self._left > 0:
            self._left -= 1
            # The timer's own lateness is not the server's.
            if self._free:
                self._free.pop().send(next(self._requests), now)
            else:
                self._waiting.append(now)
            self._due += self._moments.expovariate(self._order.rate)
        if self._due >= self._until or self._left <= 0:
            self._ended = True
            self._look()
        elif self._open:
            self._alarm.set(self._due)

    def answered(self, status: str, since: float) -> None:
        self.last = self.now()
        self.statuses[status] += 1
        if status == "200":
            self.durations.append(self.last - since)

    def lost(self, connection: "_Connection", *, pending: bool) -> None:
        self._open -= 1
        self.broken += pending
        if connection in self._free:
            self._free.remove(connection)
        self._look()

    def _look(self) -> None:
        ended = self._ended or not self._order.rate
        if self._open == 0 or (ended and not self._waiting and len(self._free) == self._open):
            self.done.set()

    def result(self) -> Driven:
        ordered = sorted(self.durations)
        n = len(ordered)
        seconds = max(self.last - self._began, 1e-9)
        p50, p99, longest = (
            (1000.0 * ordered[place] for place in (n // 2, n * 99 // 100, n - 1)) if n else (math.nan,) * 3
        )
        broken = self.broken + len(self._waiting)
        return Driven(n, n / seconds, p50, p99, longest, dict(self.statuses), broken)


class _Alarm:
    """Call at moments that are microseconds apart: an event loop's own timers know whole milliseconds alone.

    By these, what should come one by one came in bursts of ten, and what a burst waits for itself counted as the
    server's time.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._ring)

    def set(self, moment: float) -> None:
        """Call at a moment of the monotonic clock (seconds), at once if it has passed."""
        seconds, part = divmod(max(moment, 1e-9), 1.0)
        times = (ctypes.c_long * 4)(0, 0, int(seconds), int(part * 1e9) + (seconds == 0.0))
        self._libc.timerfd_settime(self._descriptor, _TFD_TIMER_ABSTIME, times, None)

    def close(self) -> None:
        """Call no more."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _ring(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._descriptor, 8)
        self._call()


class _Connection(asyncio.Protocol):
    """Send one request at a time, and read its answer."""

    def __init__(self) -> None:
        self.run: _Run | None = None
        self._buffer = b""
        self._since = 0.0
        self._pending = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, since: float) -> None:
        """Send a request that a client wanted to send at `since`."""
        assert self._transport is not None
        self._pending, self._since = True, since
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        start = head.find(b"content-length:") + 15
        stop = head.find(b"\r\n", start)
        length = int(head[start : stop if stop >= 0 else end])
        if len(self._buffer) < end + 4 + length:
            return
        self._buffer = b""
        self._pending = False
        if self.run is not None:
            self.run.answered(head[9:12].decode("ascii"), self._since)
            self.run.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        pending, self._pending = self._pending, False
        if self.run is not None:
            self.run.lost(self, pending=pending)

    def close(self) -> bool:
        """End the connection; tell whether an answer was still waited for."""
        if self._transport is not None:
            self._transport.abort()
        self.run = None
        return self._pending


async def _finished(run: _Run) -> None:
    """Wait until a measurement is over, or nothing has been answered for a while."""
    while True:
        before = run.last
        with suppress(TimeoutError):
            await asyncio.wait_for(run.done.wait(), _PATIENCE)
            return
        if run.last == before:
            return


async def drive(order: Order, requests: Sequence[bytes]) -> Driven:
    """Carry out an order; raise OSError if nothing listens at the port."""
    loop = asyncio.get_running_loop()
    connections: list[_Connection] = []
    unanswered = 0
    try:
        # Connections are open before the first request is sent.
        for _ in range(order.connections):
            connections.append((await loop.create_connection(_Connection, "127.0.0.1", order.port))[1])
        run = _Run(order, cycle(requests), SystemClock().monotonic)
        run.begin(connections)
        try:
            await _finished(run)
        finally:
            run.end()
        result = run.result()
    finally:
        unanswered = sum([each.close() for each in connections])
    return replace(result, broken=result.broken + unanswered)


def main() -> int:
    """Carry out orders from standard input until it ends."""
    for line in sys.stdin:
        order = Order(**json.loads(line))
        print(json.dumps(asdict(uvloop.run(drive(order, read_requests(Path(order.file)))))), flush=True)
    return 0


class Driver:
    """Keep a process that drives load; use it as a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # our own interpreter and module, no shell
            [sys.executable, "-m", "holdtrue.serving.driving"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(_PATIENCE)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def drive(self, order: Order) -> Driven:
        """Carry out an order in the other process; raise Unavailable if it fell over."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(asdict(order)) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise Unavailable(
                f"No load could be driven at the port {order.port}.",
                why="The process that drives it has ended; its reason stands on the error stream above.",
                mend="See that the server runs, then try again.",
            )
        return Driven(**json.loads(line))


if __name__ == "__main__":
    sys.exit(main())
