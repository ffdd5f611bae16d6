"""Blobs and the journal against hand-written floors: the same durability, and nothing else done.

The floors know no checksums of what they read back, no group commit, no streams and no deduplication; what they show is
the cost that no store can avoid on this disk. Both sides run turn by turn in one process and one folder.
"""

import asyncio
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

from holdtrue.core.clock import SimulatedClock
from holdtrue.storage import BlobStore, Journal

START = 1_356_998_400_000_000
DAY = 86_400_000_000
ROUNDS = 5


def run() -> list[dict[str, Any]]:
    """Measure and return the rows of the table."""
    folder = Path(tempfile.mkdtemp(prefix="holdtrue-bench-"))
    try:
        return [*_blobs(folder), *_appends(folder), *_reads(folder)]
    finally:
        shutil.rmtree(folder)


def _row(work: str, unit: str, ours: float, theirs: float | None, floor: str, goal: float | None) -> dict[str, Any]:
    faster = unit.endswith("/s")
    ratio = None if theirs is None else (ours / theirs if faster else theirs / ours)
    return {
        "topic": "storage",
        "work": work,
        "unit": unit,
        "ours": round(ours, 3),
        "peer": floor or None,
        "peer_version": "" if theirs is None else "hand-written",
        "theirs": None if theirs is None else round(theirs, 3),
        "ratio": None if ratio is None else round(ratio, 2),
        "goal": goal,
        "met": None if goal is None or ratio is None else ratio >= goal,
    }


def _interleaved(*sides: Callable[[], float]) -> list[float]:
    """Return each side's median over rounds in which the sides take turns."""
    found: list[list[float]] = [[] for _ in sides]
    for _ in range(ROUNDS):
        for values, side in zip(found, sides, strict=True):
            values.append(side())
    return [statistics.median(values) for values in found]


def _per_call(count: int, call: Callable[[int], object]) -> float:
    start = time.perf_counter()
    for number in range(count):
        call(number)
    return (time.perf_counter() - start) / count


def _blobs(folder: Path) -> list[dict[str, Any]]:
    store = BlobStore(folder / "blobs")
    plain = folder / "plain"
    plain.mkdir()
    rng = random.Random(1)

    def floor(number: int) -> None:
        path = plain / f"{rng.getrandbits(64):x}"
        descriptor = os.open(plain / "temporary", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(descriptor, rng.randbytes(65_536))
        os.fsync(descriptor)
        os.close(descriptor)
        os.rename(plain / "temporary", path)
        parent = os.open(plain, os.O_RDONLY)
        os.fsync(parent)
        os.close(parent)

    put, bare = _interleaved(
        lambda: _per_call(20, lambda _: store.put(rng.randbytes(65_536))), lambda: _per_call(20, floor)
    )
    data = rng.randbytes(1 << 20)
    digest, path = store.put(data), plain / "data"
    path.write_bytes(data)
    get, read = _interleaved(
        lambda: _per_call(50, lambda _: store.get(digest)), lambda: _per_call(50, lambda _: path.read_bytes())
    )
    again = _per_call(20, lambda _: store.put(data))
    return [
        _row("blob put, 64 KiB, durable", "ms", put * 1e3, bare * 1e3, "write, fsync, rename, fsync", 0.5),
        _row("blob get, 1 MiB, hash checked", "ms", get * 1e3, read * 1e3, "read, unchecked", None),
        _row("blob put of equal bytes, 1 MiB", "ms", again * 1e3, None, "", None),
    ]


def _record(number: int, rows: int = 1) -> dict[str, Any]:
    ids = [f"prd_{number:020d}{row:06d}" for row in range(rows)]
    columns: dict[str, Any] = {
        "id": ids,
        "prediction_id": ids,
        "time": [START + number * 1_000_000 + row for row in range(rows)],
        "request_id": f"req_{number:020d}",
        "key": [f"flight-{number}-{row}" for row in range(rows)],
        "entity": ["N14228"] * rows,
        "arm": "champion",
        "role": "answer",
        "release": "rel_0123456789abcdef",
        "rollout": None,
        "score": [number % 997 / 997] * rows,
        "latency_us": 812,
        "fallback": False,
    }
    for feature in range(12):
        columns[f"f_{feature}"] = [(number * 31 + feature) % 1009 / 1009] * rows
    return columns


def _appends(folder: Path) -> list[dict[str, Any]]:
    journal = Journal(folder / "appends", SimulatedClock(datetime(2013, 1, 1, tzinfo=UTC)))
    fast, strict = journal.writer("fast", "fast"), journal.writer("strict", "strict")
    records = [_record(number) for number in range(5_000)]
    descriptor = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(number: int) -> None:
        os.write(descriptor, orjson.dumps(records[number]))

    def write_durably(number: int) -> None:
        write(number)
        os.fdatasync(descriptor)

    async def together(callers: int, each: int) -> None:
        async def caller() -> None:
            for number in range(each):
                await strict.append_async("prediction", "p", "s", records[number], 1)

        await asyncio.gather(*[caller() for _ in range(callers)])

    def coroutines() -> float:
        start = time.perf_counter()
        asyncio.run(together(32, 50))
        return (time.perf_counter() - start) / 1600

    mine, bare = _interleaved(
        lambda: _per_call(5_000, lambda number: fast.append("prediction", "p", "s", records[number], 1)),
        lambda: _per_call(5_000, write),
    )
    alone, grouped, synced = _interleaved(
        lambda: _per_call(50, lambda number: strict.append("prediction", "p", "s", records[number], 1)),
        coroutines,
        lambda: _per_call(50, write_durably),
    )
    os.close(descriptor)
    journal.close()
    floor = "orjson, write, fdatasync"
    return [
        _row("journal append, fast, 25 columns", "us", mine * 1e6, bare * 1e6, "orjson, write", 0.3),
        _row("journal append, strict, one caller", "/s", 1 / alone, 1 / synced, floor, 0.8),
        _row("journal append, strict, 32 coroutines", "/s", 1 / grouped, 1 / synced, floor, 5.0),
    ]


def _reads(folder: Path) -> list[dict[str, Any]]:
    journal = Journal(folder / "reads", SimulatedClock(datetime(2013, 1, 1, tzinfo=UTC)))
    writer = journal.writer("w", "fast")
    cursor: str | None = None
    tails: list[float] = []
    per_day, days = 50, 100
    for day in range(days):
        for frame in range(per_day):
            writer.append("prediction", "p", "s", _record(day * 86_400 + frame, 18), 18)
        start = time.perf_counter()
        table, cursor = journal.tail("prediction", "p", "s", cursor)
        tails.append(time.perf_counter() - start)
        assert table.num_rows == per_day * 18
        if day % 10 == 9:
            journal.seal()
    files = sorted((folder / "reads" / "sealed").rglob("*.parquet"))
    rows = per_day * 18 * days

    def ours() -> float:
        start = time.perf_counter()
        # A fresh journal, so that no table read before is at hand.
        fresh = Journal(folder / "reads", SimulatedClock(datetime(2013, 1, 1, tzinfo=UTC)))
        assert fresh.table("prediction", "p", service="s").num_rows == rows
        return time.perf_counter() - start

    def floor() -> float:
        start = time.perf_counter()
        assert sum(pq.read_table(path).num_rows for path in files) == rows
        return time.perf_counter() - start

    table, plain = _interleaved(ours, floor)
    start = time.perf_counter()
    journal.tail("prediction", "p", "s", cursor)
    idle = time.perf_counter() - start
    journal.close()
    name = "pyarrow, file by file"
    return [
        _row("journal tail, 50 new frames of 18 rows", "ms", statistics.median(tails) * 1e3, None, "", None),
        _row("journal tail, nothing new", "ms", idle * 1e3, None, "", None),
        _row(f"journal table, {rows:,} rows of {len(files)} days", "ms", table * 1e3, plain * 1e3, name, 0.7),
    ]
