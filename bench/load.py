"""A small HTTP load generator: a bounded number of equal requests over some connections that are kept open.

It runs in a process of its own (`python bench/load.py --port N --requests FILE`), so that it does not share
an interpreter with what it measures, and prints one JSON object. With `--rate` requests come at random moments, so
many a second on average, and their waiting for a free connection counts.
"""

import argparse
import json
import sys
from pathlib import Path

import uvloop

from holdtrue.serving.driving import Order, drive, read_requests, request_bytes

__all__ = ["request_bytes"]


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
