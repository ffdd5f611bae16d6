"""A small HTTP load generator: a bounded number of equal requests over some connections that are kept open.

It runs in a process of its own (`python bench/load.py --port N --requests FILE`), so that it does not share
an interpreter with what it measures, and prints one JSON object. With `--rate` requests come at random moments, so
many a second on average, and their waiting for a free connection counts.
"""

import argparse
import json
import socket
import sys
import time
from pathlib import Path

import uvloop

from holdtrue.serving.driving import Order, drive, read_requests, request_bytes

__all__ = ["free_port", "request_bytes"]


async def measured(order: Order) -> dict[str, object]:
    """Carry out an order; return rate, percentiles (ms) and statuses."""
    found = await drive(order, read_requests(Path(order.file)))
    return {
        "requests": found.answered,
        "rate": found.rate,
        "p50_ms": found.p50_ms,
        "p99_ms": found.p99_ms,
        "longest_ms": found.longest_ms,
        "statuses": dict(found.statuses),
        "broken": found.broken,
    }


def free_port() -> int:
    """Return a port of this machine that nothing uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--requests", type=str, required=True, help="JSON list of requests as text")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rate", type=float, default=0.0)
    given = parser.parse_args()
    order = Order(given.port, given.requests, given.connections, count=given.count, rate=given.rate)
    print(json.dumps(uvloop.run(measured(order))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
