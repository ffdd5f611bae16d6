"""A small HTTP load generator: a bounded number of equal requests over some connections that are kept open.

It runs in a process of its own (`python bench/load.py --port N --requests FILE`), so that it does not share
an interpreter with what it measures, and prints one JSON object.
"""

import argparse
import asyncio
import json
import socket
import sys
import time
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import cast

import uvloop


@dataclass(slots=True)
class Run:
    """Hold one run: what is left to send, and how long each answer took (seconds)."""

    requests: "cycle[bytes]"
    left: int
    durations: list[float] = field(default_factory=list[float])
    statuses: dict[int, int] = field(default_factory=dict[int, int])


class Connection(asyncio.Protocol):
    """Send the next request as soon as the answer to the last one is complete."""

    def __init__(self, run: Run, done: "asyncio.Future[None]") -> None:
        self._run = run
        self._done = done
        self._buffer = b""
        self._sent = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

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
        self._run.durations.append(time.perf_counter() - self._sent)
        status = int(head[9:12])
        self._run.statuses[status] = self._run.statuses.get(status, 0) + 1
        self._buffer = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(exc or ConnectionError("the server closed the connection"))

    def _send(self) -> None:
        assert self._transport is not None
        if self._run.left <= 0:
            if not self._done.done():
                self._done.set_result(None)
            self._transport.close()
            return
        self._run.left -= 1
        self._sent = time.perf_counter()
        self._transport.write(next(self._run.requests))


async def drive(port: int, requests: list[bytes], count: int, connections: int) -> dict[str, object]:
    """Send `count` requests over `connections` connections; return rate, percentiles (ms) and statuses."""
    loop = asyncio.get_running_loop()
    run = Run(cycle(requests), count)
    ends = [loop.create_future() for _ in range(connections)]
    began = time.perf_counter()
    for end in ends:
        await loop.create_connection(lambda end=end: Connection(run, end), "127.0.0.1", port)
    await asyncio.gather(*ends)
    seconds = time.perf_counter() - began
    ordered = sorted(run.durations)
    return {
        "requests": len(ordered),
        "rate": len(ordered) / seconds,
        "p50_ms": 1000 * ordered[len(ordered) // 2],
        "p99_ms": 1000 * ordered[len(ordered) * 99 // 100],
        "statuses": {str(status): number for status, number in run.statuses.items()},
    }


class Line:
    """One connection that is kept open: send a request's bytes, read the answer's to their end, parse nothing.

    For what is measured one request at a time: a client library would take longer than the server that answers.
    """

    def __init__(self, port: int, timeout: float = 180) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> tuple[float, bytes]:
        """Return how long the answer took to its last byte (seconds), and its body; it must be a 200."""
        began = time.perf_counter()
        self._socket.sendall(request)
        data = bytearray()
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._more()
        head = bytes(data[:end]).lower()
        start = head.find(b"content-length:")
        assert head[9:12] == b"200", bytes(data[:2000])
        assert start >= 0, head
        length = int(head[start + 15 :].partition(b"\r\n")[0])
        left = length - (len(data) - end - 4)
        parts = [bytes(data[end + 4 :])]
        while left > 0:
            parts.append(self._more())
            left -= len(parts[-1])
        taken = time.perf_counter() - began
        return taken, b"".join(parts)

    def _more(self) -> bytes:
        chunk = self._socket.recv(1 << 18)
        assert chunk, "the server closed the connection"
        return chunk

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def request_bytes(method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """Return one HTTP/1.1 request as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--requests", type=Path, required=True, help="JSON list of requests as text")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--connections", type=int, default=32)
    given = parser.parse_args()
    requests = [text.encode() for text in json.loads(given.requests.read_text())]
    print(json.dumps(uvloop.run(drive(given.port, requests, given.count, given.connections))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
