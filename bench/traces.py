"""Spans: stored a second, lost when killed, and found among a million; against Phoenix and MLflow's server.

All three servers get export requests of 512 spans (bench/spans.py) over the same four connections, in turn, in one
run. A span counts as stored when its server's disk has it: ours and MLflow's answer says so; Phoenix answers before
that, so its database is asked. Not comparable: Phoenix and MLflow keep SQLite rows that SQL can ask at once; ours are
a journal that is sealed and indexed in the background, which is done before the searches here begin.

`HOLDTRUE_BENCH_SPANS` sets how many spans are searched (1,000,000), `HOLDTRUE_BENCH_PEERS=none` leaves the peers out.
"""

import asyncio
import hashlib
import http.client
import json
import os
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import httpx

from bench.spans import RARE, SPANS_PER_TRACE, Talk, export_request, traces
from holdtrue.core.clock import SystemClock
from holdtrue.storage import Journal, make_folder
from holdtrue.traces import Origin, Span, SpanSink

ROOT = Path(__file__).parents[1]
TOKEN = "ht_svc_bench_000000000000000000000000000000000000000000_000000"  # noqa: S105
BATCH, CONNECTIONS, ROUNDS = 512, 4, 3
OURS, MLFLOW, PHOENIX = 16, 4, 2  # batches a round: each side is busy for some seconds
KILLED = 20_480
SEARCHES = 20
SECONDS = 180.0
PEERS = {"phoenix": "arize-phoenix==20.26.1", "mlflow": "mlflow==3.17.2"}
KINDS = ("unspecified", "internal", "server", "client")


def run() -> list[dict[str, Any]]:
    """Measure and return the rows of the table."""
    with tempfile.TemporaryDirectory(prefix="holdtrue-bench-") as folder:
        root = Path(folder)
        return [*_storing(root), *_searching(root)]


@dataclass
class Side:
    """A server that takes spans: where, how many batches a round, and how its stored spans are counted."""

    name: str
    port: int
    headers: dict[str, str]
    batches: int
    stored: Callable[[], int] | None
    process: "subprocess.Popen[bytes]"

    def send(self, bodies: Sequence[bytes]) -> int:
        """Send export requests over four connections; return how many spans were acknowledged."""
        acknowledged = [0] * CONNECTIONS

        def sender(place: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
            for body in bodies[place::CONNECTIONS]:
                try:
                    connection.request("POST", "/v1/traces", body, self.headers)
                    answer = connection.getresponse()
                    answer.read()
                except (OSError, http.client.HTTPException):
                    return
                acknowledged[place] += BATCH if answer.status == 200 else 0
            connection.close()

        threads = [threading.Thread(target=sender, args=(place,)) for place in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(acknowledged)

    def rate(self, bodies: Sequence[bytes]) -> float:
        """Send, wait until all is stored, and return spans a second."""
        before = self.stored() if self.stored else 0
        start = time.perf_counter()
        sent = self.send(bodies)
        assert sent == BATCH * len(bodies), f"{self.name} took {sent} spans"
        done = sent
        while self.stored and (done := self.stored() - before) < sent and time.perf_counter() - start < SECONDS:
            time.sleep(0.05)
        return done / (time.perf_counter() - start)

    def kill(self) -> None:
        """Kill the server and all its processes at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)


def _row(
    work: str, unit: str, ours: float, theirs: float | None, peer: str | None, version: str, goal: float | None
) -> dict[str, Any]:
    """Return a row of the table; fewer is better unless the unit is a rate."""
    ratio = None
    if theirs is not None and ours:
        ratio = ours / theirs if unit.endswith("/s") else theirs / ours
    return {
        "topic": "traces",
        "work": work,
        "unit": unit,
        "ours": round(ours, 2),
        "peer": peer,
        "peer_version": version,
        "theirs": None if theirs is None else round(theirs, 2),
        "ratio": None if ratio is None else round(ratio, 2),
        "goal": goal,
        "met": None if goal is None or ratio is None else ratio >= goal,
    }


# Storing ----------------------------------------------------------------------------------------------------------


def _bodies(seed: int, batches: int) -> list[bytes]:
    made = traces(seed, batches * BATCH // SPANS_PER_TRACE, time.time_ns() - 3_600_000_000_000, 1_000_000)
    return [
        export_request([span for trace in islice(made, BATCH // SPANS_PER_TRACE) for span in trace])
        for _ in range(batches)
    ]


def _storing(root: Path) -> list[dict[str, Any]]:
    rates: dict[str, list[float]] = {}
    with _ours(root / "home") as ours, _peer("mlflow", root) as mlflow, _peer("phoenix", root) as phoenix:
        sides = [side for side in (ours, mlflow, phoenix) if side is not None]
        for turn in range(ROUNDS + 1):
            for number, side in enumerate(sides):
                measured = side.rate(_bodies(1000 * turn + number, side.batches))
                if turn:  # the first turn warms up
                    rates.setdefault(side.name, []).append(measured)
    median = {name: statistics.median(values) for name, values in rates.items()}
    work = f"spans stored, {CONNECTIONS} connections, {BATCH} a request"
    rows = [
        _row(work, "spans/s", median["ours"], median.get(peer), peer if peer in median else None, _version(peer), goal)
        for peer, goal in (("phoenix", 100.0), ("mlflow", 10.0))
    ]
    return [*rows, *_losses(root)]


def _losses(root: Path) -> list[dict[str, Any]]:
    """Kill each server while it is being sent 20,480 spans; count what it acknowledged and does not have."""
    bodies = _bodies(7, KILLED // BATCH)
    found: dict[str, int] = {}
    for name in ("ours", "phoenix"):
        with _ours(root / "killed") if name == "ours" else _peer("phoenix", root / "killed") as side:
            if side is None:
                continue
            assert side.stored is not None or name == "ours"
            before = side.stored() if side.stored else 0
            acknowledged = side.send(bodies)
            side.kill()
            stored = _journal_count(root / "killed") if name == "ours" else side.stored() - before  # type: ignore[misc]
            found[name] = acknowledged - stored
    theirs = found.get("phoenix")
    row = _row(f"acknowledged spans lost by SIGKILL, of {KILLED:,}", "spans", found["ours"], theirs, None, "", None)
    row["peer"], row["peer_version"] = ("phoenix", _version("phoenix")) if theirs is not None else (None, "")
    return [{**row, "goal": 0.0, "met": found["ours"] <= 0}]


def _journal_count(home: Path) -> int:
    journal = Journal(home / "journal", SystemClock())
    try:
        return journal.table("span", "bench", columns=["id"]).num_rows
    finally:
        journal.close()


@contextmanager
def _ours(home: Path) -> Generator[Side]:
    for name in ("blobs", "journal", "online", "routing/acks", "routing/good"):
        make_folder(home / name)
    grant = {
        "sha256": hashlib.sha256(TOKEN.encode()).hexdigest(),
        "actor": "svc_bench",
        "project": "bench",
        "permissions": ["traces.write"],
        "expires_at": None,
    }
    access = {"policy_version": 1, "tokens": {"bench": grant}}
    (home / "routing" / "access.json").write_text(json.dumps(access))
    command = [sys.executable, "-m", "holdtrue.server.dataplane", "--home", str(home), "--port", "{port}"]
    headers = {"content-type": "application/x-protobuf", "authorization": f"Bearer {TOKEN}"}
    with _served(command, "/health/live", {}) as (process, port):
        yield Side("ours", port, headers, OURS, None, process)


@contextmanager
def _peer(name: str, root: Path) -> Generator[Side | None]:
    """Serve a peer from an environment of its own, or give None where there is none."""
    binary = _environment(name)
    if binary is None:
        yield None
        return
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    headers = {"content-type": "application/x-protobuf"}
    if name == "mlflow":
        command = [str(binary), "server", "--host", "127.0.0.1", "--port", "{port}", "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
        command += ["--default-artifact-root", str(folder / "artifacts")]
        with _served(command, "/health", {"MLFLOW_DISABLE_TELEMETRY": "true"}) as (process, port):
            yield Side(name, port, {**headers, "x-mlflow-experiment-id": "0"}, MLFLOW, None, process)
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        grpc = probe.getsockname()[1]
    variables = {
        "PHOENIX_PORT": "{port}",
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_GRPC_PORT": str(grpc),
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    with _served([str(binary), "serve"], "/healthz", variables) as (process, port):
        yield Side(name, port, headers, PHOENIX, lambda: _sqlite_count(folder / "phoenix.db"), process)


def _sqlite_count(path: Path) -> int:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30) as database:
        count = int(database.execute("SELECT count(*) FROM spans").fetchone()[0])
    database.close()
    return count


def _environment(name: str) -> Path | None:
    """Return the command of a peer, installing it under .bench when it is not there yet."""
    if os.environ.get("HOLDTRUE_BENCH_PEERS") == "none":
        return None
    folder = ROOT / ".bench" / name
    binary = folder / "bin" / name
    if not binary.exists():
        print(f"Installing {PEERS[name]} into .bench/{name} …", file=sys.stderr)
        made = subprocess.run([sys.executable, "-m", "venv", str(folder)], check=False)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", PEERS[name]]
        if made.returncode or subprocess.run(pip, check=False).returncode or not binary.exists():
            print(f"{name} could not be installed; only our side is measured.", file=sys.stderr)
            return None
    return binary


def _version(name: str) -> str:
    return PEERS[name].replace("==", " ") if _environment(name) else ""


@contextmanager
def _served(
    command: Sequence[str], health: str, variables: dict[str, str]
) -> "Generator[tuple[subprocess.Popen[bytes], int]]":
    """Start a server in a process group of its own, wait until it answers, and end it after."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOLDTRUE_")}
    environment |= {name: value.replace("{port}", str(port)) for name, value in variables.items()}
    process = subprocess.Popen(
        [part.replace("{port}", str(port)) for part in command],
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + SECONDS
        while not _answers(port, health):
            assert process.poll() is None, f"{command[0]} ended"
            assert time.monotonic() < deadline, f"{command[0]} does not answer"
            time.sleep(0.2)
        yield process, port
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(20)


def _answers(port: int, path: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5).status_code < 500
    except httpx.TransportError:
        return False


# Searching --------------------------------------------------------------------------------------------------------


def _searching(root: Path) -> list[dict[str, Any]]:
    """Measure searches over HTTP, from the request to its whole answer, at the control plane of a filled folder."""
    count = int(os.environ.get("HOLDTRUE_BENCH_SPANS", "1000000"))
    home = root / "searched"
    known = fill(home, count)
    command = [sys.executable, "-m", "holdtrue.server.control", "--home", str(home), "--port", "{port}"]
    rows: list[dict[str, Any]] = []
    with _served(command, "/health/ready", {}) as (_, port):
        token = (home / "keys" / "local-token").read_text().strip()
        headers = {"authorization": f"Bearer {token}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=120) as client:
            _until_indexed(home)
            for name, queries in _queries(known).items():
                rows += _measured(client, f"{name}, {count:,} spans", "/api/projects/bench/traces", queries, 300.0)
            ids = [{"project": "bench", "": trace_id} for trace_id in known.traces]
            rows += _measured(client, f"one trace by its id, {count:,} spans", "/api/traces/", ids, 100.0)
    return rows


@dataclass(frozen=True)
class Known:
    """What a filled folder is known to hold."""

    traces: list[str]
    users: list[str]
    responses: list[str]
    words: list[str]
    start: int
    end: int


def fill(home: Path, count: int) -> Known:
    """Store `count` spans of three days as a data plane does, and seal them."""
    now = time.time_ns() // 1000
    start = now - 3 * 86_400_000_000
    origin = Origin("support-agent", {"service.name": "support-agent", "service.version": "1.4.2"}, "bench")
    make_folder(home / "journal")
    journal = Journal(home / "journal", SystemClock())
    sink = SpanSink(journal.writer("fill", "fast", segment_bytes=16 << 20), SystemClock())
    number = count // SPANS_PER_TRACE
    seen: list[dict[str, Any]] = []
    made = traces(1, number, start * 1000, (now - start) * 1000 // number)

    async def store() -> None:
        while batch := [span for trace in islice(made, 64) for span in trace]:
            await sink.write("bench", [_span(each, origin) for each in batch])
            seen.append(batch[-2])

    asyncio.run(store())
    journal.seal()
    journal.close()
    picked = seen[:: max(1, len(seen) // SEARCHES)][:SEARCHES]
    return Known(
        [each["trace_id"] for each in picked],
        [each["attributes"]["user.id"] for each in picked],
        [each["attributes"]["gen_ai.response.id"] for each in picked],
        Talk(1).words,
        start,
        now,
    )


def _span(span: dict[str, Any], origin: Origin) -> Span:
    return Span(
        span["trace_id"],
        span["span_id"],
        span["parent_id"] or None,
        span["name"],
        KINDS[span["kind"]],
        span["start"] // 1000,
        span["end"] // 1000,
        "error" if span["error"] else "ok",
        "",
        span["attributes"],
        [],
        [],
        origin,
    )


def _until_indexed(home: Path) -> None:
    """Wait until the control plane has made every index."""
    deadline = time.monotonic() + 1200
    journal = Journal(home / "journal", SystemClock())
    files = len(journal.sealed("span"))
    journal.close()
    while len(list((home / "traces" / "index").glob("*.idx"))) < files:
        assert time.monotonic() < deadline, "the indexes are not made"
        time.sleep(0.5)


def _queries(known: Known) -> dict[str, list[dict[str, Any]]]:
    """Return for each kind of search twenty queries, none the same where that can be."""
    words, third = known.words, (known.end - known.start) // SEARCHES
    turns = range(SEARCHES)
    return {
        "no condition": [{}] * SEARCHES,
        "a day": [{"since": known.start + third * turn, "until": known.start + third * (turn + 1)} for turn in turns],
        "service and release": [{"service": "support-agent", "release": "1.4.2"}] * SEARCHES,
        "a release that no span has": [{"release": f"9.{turn}"} for turn in turns],
        "errors": [{"status": "error"}] * SEARCHES,
        "slower than 1.9999 s": [{"min_duration": 1999.9}] * SEARCHES,
        "one user": [{"user": user} for user in known.users],
        "a common attribute": [{"attribute": "gen_ai.request.model=gpt-4o-mini"}] * SEARCHES,
        "an attribute that one span has": [{"attribute": f"gen_ai.response.id={each}"} for each in known.responses],
        "a common word": [{"text": words[turn]} for turn in turns],
        "a word of one span": [{"text": f"{RARE}{17 + 31 * turn}"} for turn in turns],
        "a rare word of scattered spans": [{"text": words[-1 - turn]} for turn in turns],
        "three words that hardly meet": [{"text": " ".join(words[900 + turn : 903 + turn])} for turn in turns],
        "a word that no span has": [{"text": f"absent{turn}"} for turn in turns],
        "words, attribute, status, time": [
            {
                "text": words[40 + turn],
                "attribute": "gen_ai.request.model=gpt-4o-mini",
                "status": "error",
                "since": known.start,
            }
            for turn in turns
        ],
    }


def _measured(
    client: httpx.Client, work: str, path: str, queries: Sequence[dict[str, Any]], goal: float
) -> list[dict[str, Any]]:
    """Return the median and the 95th percentile of some requests, in milliseconds."""
    times: list[float] = []
    for query in queries:
        given = {name: value for name, value in query.items() if name}
        start = time.perf_counter()
        answer = client.get(path + query.get("", ""), params=given)
        times.append((time.perf_counter() - start) * 1000)
        assert answer.status_code == 200, answer.text
    ordered = sorted(times)
    p50, p95 = statistics.median(ordered), ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)]
    return [
        {**_row(f"{work}: {name}", "ms", value, goal, "goal", "", None), "goal": 1.0, "met": value <= goal}
        for name, value in (("p50", p50), ("p95", p95))
    ]


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
