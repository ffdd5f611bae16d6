"""Drive streamed answers from a process of its own, and print one JSON object.

`first` asks over one connection, again and again, and measures when the first event comes (ms). `hold` opens
many at once, prints a line when each has had its first event, and waits for their ends.
"""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

import uvloop


async def first(port: int, request: bytes, count: int) -> dict[str, float]:
    """Return the median and 99th percentile of the time to the first event, over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    times: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        writer.write(request)
        seen = b""
        while b"data:" not in seen:
            seen += await reader.read(65536)
        times.append(time.perf_counter() - began)
        while not seen.endswith(b"0\r\n\r\n"):
            seen = seen[-8:] + await reader.read(65536)
    writer.close()
    ordered = sorted(times)
    return {"p50_ms": 1000 * ordered[count // 2], "p99_ms": 1000 * ordered[count * 99 // 100]}


async def hold(port: int, request: bytes, count: int) -> dict[str, float]:
    """Hold `count` streams at once to their ends."""
    open_now = 0
    all_open = asyncio.Event()

    async def one() -> int:
        nonlocal open_now
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        seen = await reader.readuntil(b"data:")
        open_now += 1
        if open_now == count:
            print(json.dumps({"open": count}), flush=True)
            all_open.set()
        events = 1
        while not seen.endswith(b"0\r\n\r\n"):
            data = await reader.read(65536)
            if not data:
                break
            events += data.count(b"data:")
            seen = seen[-8:] + data
        writer.close()
        return events

    began = time.perf_counter()
    found = await asyncio.gather(*(one() for _ in range(count)))
    return {"seconds": time.perf_counter() - began, "events": sum(found), "least": min(found)}


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["first", "hold"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--request", type=Path, required=True, help="a request as it goes over the wire")
    parser.add_argument("--count", type=int, required=True)
    given = parser.parse_args()
    work = first if given.mode == "first" else hold
    print(json.dumps(uvloop.run(work(given.port, given.request.read_bytes(), given.count))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
