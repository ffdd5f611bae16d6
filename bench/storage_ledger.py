"""Ledger commits, each with its event, against the floor: a plain sqlite3 commit of one row.

Both sides are durable (WAL, `synchronous=FULL`) on the same disk and run interleaved; medians of the rounds are
compared. Not comparable: our side also writes a hash-linked event, its payload and two index entries with each row,
and signs every 256th; the floor writes the row alone. With 16 threads the floor commits each row by itself behind a
lock, as SQLite allows one writer; the ledger commits once for all who wait, which pays the more the slower the disk.
"""

import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench.rows import own_row
from holdtrue.core.actor import SYSTEM
from holdtrue.core.clock import SystemClock
from holdtrue.storage.ledger import Ledger, Transaction, WriteContext
from holdtrue.storage.ledger.verify import verify

ROUNDS = 5
COMMITS = {1: 400, 16: 1_600}
GOALS = {1: 0.5, 16: 1.0}
CONTEXT = WriteContext(SYSTEM, "bench")
INSERT = sa.insert(sa.table("rows", sa.column("key", sa.Text), sa.column("value", sa.Text)))


def run() -> list[dict[str, Any]]:
    """Measure and return one row per number of threads, and the speed of the verifier."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="holdtrue-bench-") as folder:
        home = Path(folder)
        ledger = Ledger.open(home / "ledger.db", clock=SystemClock(), keys=home / "keys", anchors=home / "anchors")
        ledger.write(CONTEXT, lambda tx: tx.connection.exec_driver_sql("CREATE TABLE rows (key, value)") and None)
        floor = _Floor(home / "floor.db")
        for threads, commits in COMMITS.items():
            ours, theirs = _compare(threads, commits // threads, _write_to(ledger), floor.write)
            rows.append(_row(threads, ours, theirs))
        floor.close()
        ledger.close()
        rows.append(_verification(home))
    return rows


class _Floor:
    """One connection with plain commits."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode=WAL").fetchall()
        self._database.execute("PRAGMA synchronous=FULL").fetchall()
        self._database.execute("CREATE TABLE rows (key, value)")

    def write(self, key: str) -> None:
        with self._lock:
            self._database.execute("INSERT INTO rows VALUES (?, ?)", (key, "value"))

    def close(self) -> None:
        self._database.close()


def _write_to(ledger: Ledger) -> Callable[[str], None]:
    def write(key: str) -> None:
        def work(tx: Transaction) -> None:
            tx.execute(INSERT, {"key": key, "value": "value"})
            tx.emit("row.put", key)

        ledger.write(CONTEXT, work)

    return write


def _compare(
    threads: int, each: int, ours: Callable[[str], None], theirs: Callable[[str], None]
) -> tuple[float, float]:
    """Return the median commits per second of both sides over interleaved rounds."""
    speeds: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for side, write in zip(speeds, (ours, theirs), strict=True):
            side.append(_speed(threads, each, write))
    return statistics.median(speeds[0]), statistics.median(speeds[1])


def _speed(threads: int, each: int, write: Callable[[str], None]) -> float:
    def work(number: int) -> None:
        for count in range(each):
            write(f"{number}-{count}")

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return threads * each / (time.perf_counter() - start)


def _row(threads: int, ours: float, theirs: float) -> dict[str, Any]:
    return {
        "topic": "storage_ledger",
        "work": f"durable commit of a row and its event, {threads} thread{'s' if threads > 1 else ''}",
        "unit": "commits/s",
        "ours": round(ours),
        "peer": "plain sqlite3 commit of the row (floor)",
        "peer_version": sqlite3.sqlite_version,
        "theirs": round(theirs),
        "ratio": round(ours / theirs, 2),
        "goal": f"≥ {GOALS[threads]:g}×",
        "met": ours / theirs >= GOALS[threads],
    }


def _verification(home: Path) -> dict[str, Any]:
    public = (home / "keys" / "ledger.pub").read_text()
    speeds: list[float] = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        found = verify(home / "ledger.db", public, anchors=home / "anchors")
        speeds.append(found.entries / (time.perf_counter() - start))
        assert found.ok
    speed = round(statistics.median(speeds))
    return own_row("storage_ledger", "verify hashes, chain, tree and signatures", "entries/s", speed)
