"""Experiment tracking over MLflow's protocol, against a real MLflow server with one worker, its fastest setting.

Both are real processes on SQLite files of the same disk and get the same requests over HTTP from the same program,
turn by turn. The large tables (10⁵ runs) are laid into both before they start, each by its own fastest way. MLflow is
installed into `.bench/mlflow` on demand (BENCH_PEERS=0 leaves it out). Not comparable: MLflow asks for no token,
commits with `synchronous=NORMAL` or less and writes no event log. Its database is analysed before it is measured, as a
search ordered by a metric takes minutes there otherwise; the last row shows that, given up after a minute.
"""

import http.client
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from bench.load import Line, request_bytes
from bench.rows import own_row
from holdtrue import tracking
from holdtrue.core.actor import SYSTEM
from holdtrue.core.clock import SystemClock
from holdtrue.server.home import read_token
from holdtrue.server.ports import free_ports
from holdtrue.server.table import room_routes
from holdtrue.storage import open_stores
from holdtrue.storage.ledger import Transaction, WriteContext
from holdtrue.tracking import Batch, Metric, NewRun, Pair

VERSION = "3.17.2"
PEER = Path(__file__).parents[1] / ".bench" / "mlflow"
PROJECT = "default"
API = "/api/2.0/mlflow"
RUNS, SMALL, METRICS, POINTS = 100_000, 10_000, 5, 100_000
FLAT = int(os.environ.get("BENCH_POINTS", "10000000"))
GIVE_UP = 60.0
MOMENT = 1_700_000_000_000

NOTES = """
Both sides are asked by the same small program: raw HTTP on connections that are kept open, bytes read to the last one,
nothing parsed while the clock runs. A batch of 100 metrics or more is answered once it is durable as it came, and
brought into its tables a little later: within the forty in a row, but not within single ones. A run is created in 0.7
ms where nothing else goes on: 0.12 are statements, 0.2 to 0.3 the commit of eight pages and its wait for the disk, 0.1
the checks of the request, and the rest the turns between the threads that run Python and write. It took 0.2 ms longer
while other threads read the socket, and came to 7.4 to 9.95 times MLflow then.
"""


@dataclass
class Side:
    """A running server: where it is, how to ask it, which experiments it holds."""

    port: int
    process: int
    headers: dict[str, str] = field(default_factory=dict[str, str])
    large: str = "1"
    small: str = "2"

    def call(self, method: str, path: str, body: Any = None, timeout: float = 180) -> Any:
        """Send one request on a connection of its own and return the JSON of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            headers = {"Content-Type": "application/json", **self.headers}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        assert answer.status == 200, (path, answer.status, data[:300])
        return json.loads(data)

    def new_run(self, experiment: str = "0") -> str:
        """Begin a run and return its id."""
        sent = {"experiment_id": experiment, "start_time": MOMENT, "user_id": "bench", "run_name": "r", "tags": []}
        return self.call("POST", f"{API}/runs/create", sent)["run"]["info"]["run_id"]


def run() -> list[dict[str, Any]]:
    """Measure and return the rows of the table of benchmarks."""
    room_routes()
    with tempfile.TemporaryDirectory(prefix="holdtrue-bench-") as folder:
        root = Path(folder)
        lay_ours(root / "home")
        wanted = peer()
        if wanted:
            _lay_theirs(root / "mlflow.db")
        rows: list[dict[str, Any]] = []
        with served_ours(root / "home") as (ours, started):
            if not wanted:
                return [*compare(root, ours, None), *_alone(root, ours)]
            with served_theirs(root) as (theirs, theirs_started):
                rows.append(_row("start of the server", "s", started, theirs_started, 5, lower=True))
                idle = (_memory(ours.process), _memory(theirs.process))
                rows.append(_row("memory of the idle server", "MiB", *idle, 1, lower=True))
                rows += compare(root, ours, theirs)
            rows.append(_unanalysed(root, ours))
            rows += _alone(root, ours)
        return rows


def _unanalysed(root: Path, ours: Side) -> dict[str, Any]:
    """Compare the search with a peer whose database nobody analysed, as it comes; given up after a minute."""
    with sqlite3.connect(root / "mlflow.db") as database:
        database.execute("DROP TABLE sqlite_stat1")
    database.close()
    with served_theirs(root) as (theirs, _):
        try:
            taken = _search(theirs, timeout=GIVE_UP)
        except TimeoutError:
            taken = 1000 * GIVE_UP
    mine = median(_search(ours) for _ in range(5))
    return _row("the same, peer as it comes (at least)", "ms", mine, taken, 50, lower=True)


def compare(
    root: Path, ours: Side, theirs: Side | None, topic: str = "tracking", large: str = "10⁵"
) -> list[dict[str, Any]]:
    """Measure what both do; `large` says how many runs the experiment of the search has."""
    sides = [ours] if theirs is None else [ours, theirs]

    def turns(measure: Callable[[Side], float], rounds: int) -> list[float]:
        found: list[list[float]] = [[] for _ in sides]
        for _ in range(rounds):
            for place, side in enumerate(sides):
                found[place].append(measure(side))
        return [median(each) for each in found]

    def row(work: str, unit: str, values: list[float], goal: float, *, lower: bool) -> dict[str, Any]:
        their_value = values[1] if len(values) > 1 else None
        return {**_row(work, unit, values[0], their_value, goal, lower=lower), "topic": topic}

    rows = [
        row("log_metric, 16 clients", "/s", turns(lambda side: _single(root, side, 16), 3), 25, lower=False),
        row("log_metric, 32 clients", "/s", turns(lambda side: _single(root, side, 32), 1), 25, lower=False),
        row("log-batch, 1,000 steps of one metric", "ms", turns(lambda side: _batch(side, 1), 9), 25, lower=True),
        row("log-batch, 100 steps of 10 metrics", "ms", turns(lambda side: _batch(side, 10), 9), 25, lower=True),
        row("log-batch, 1,000 metrics", "ms", turns(lambda side: _batch(side, 1000), 9), 25, lower=True),
        row("log-batch, 1,000 metrics, of 40 in a row", "ms", turns(_in_a_row, 2), 25, lower=True),
        row("create run", "ms", turns(_create, 9), 10, lower=True),
        row("history of 10⁵ points", "ms", _histories(sides), 20, lower=True),
        row("one page through 10⁴ runs", "s", turns(_pages, 1), 10, lower=True),
    ]
    searches = sorted(_search(ours) for _ in range(40))
    mine, p95 = median(searches), searches[37]
    if theirs is not None:
        after = median(_search(theirs) for _ in range(3))
        rows.append(row(f"search by a metric, {large} runs", "ms", [mine, after], 50, lower=True))
    rows.append(own_row(topic, f"search by a metric, {large} runs, p95", "ms", p95, 100))
    return rows


def _alone(root: Path, side: Side) -> list[dict[str, Any]]:
    """Store 10⁷ points and see whether the last ones cost what the first did; then how large the server is."""
    batches = FLAT // 1000
    part = max(1, batches // 20)
    rates: list[float] = []
    run_id = side.new_run()
    for start in range(0, batches, part):
        requests = [_batch_request(side, run_id, step, 10) for step in range(start, start + part)]
        rates.append(1000 * _drive(root, side, requests, part, 4)["rate"])
    cost = (rates[1] / rates[-1]) if len(rates) > 1 else 1.0
    return [
        own_row("tracking", f"{FLAT:,} points stored through log-batch", "points/s", median(rates)),
        own_row("tracking", "cost of the last twentieth, against the second", "×", cost, 1.3),
        own_row("tracking", "memory of the server after all that", "MiB", _memory(side.process), 250),
    ]


def _single(root: Path, side: Side, clients: int) -> float:
    """Return acknowledged single metrics a second; any error ends the benchmark."""
    count = 4_000 if side.headers else 400
    runs = [side.new_run() for _ in range(clients)]
    requests: list[bytes] = []
    for step in range(count):
        sent = {
            "run_id": runs[step % clients],
            "key": "loss",
            "value": step / 7,
            "timestamp": MOMENT + step,
            "step": step,
        }
        requests.append(_request(side, "POST", f"{API}/runs/log-metric", sent))
    return _drive(root, side, requests, count, clients)["rate"]


def _batch_request(side: Side, run_id: str, number: int, keys: int) -> bytes:
    each = 1000 // keys
    generator = random.Random(number)
    metrics = [
        {
            "key": f"metric_{key}",
            "value": generator.random(),
            "timestamp": MOMENT + number,
            "step": number * each + step,
        }
        for key in range(keys)
        for step in range(each)
    ]
    return _request(side, "POST", f"{API}/runs/log-batch", {"run_id": run_id, "metrics": metrics})


def _request(side: Side, method: str, path: str, body: Any = None) -> bytes:
    raw = b"" if body is None else json.dumps(body).encode()
    sent = request_bytes(method, path, raw, {"Content-Type": "application/json", **side.headers})
    return sent.replace(b"Host: 127.0.0.1", f"Host: 127.0.0.1:{side.port}".encode(), 1)


def _batch(side: Side, keys: int) -> float:
    """Return the median of five batches, in milliseconds."""
    run_id = side.new_run()
    requests = [_batch_request(side, run_id, number, keys) for number in range(6)]
    with closing(Line(side.port)) as line:
        return 1000 * median([line.ask(request)[0] for request in requests][1:])


def _in_a_row(side: Side) -> float:
    """Return the mean of forty batches of one client, in milliseconds: what is settled later is within."""
    run_id = side.new_run()
    requests = [_batch_request(side, run_id, number, 1000) for number in range(41)]
    with closing(Line(side.port)) as line:
        return 1000 * sum([line.ask(request)[0] for request in requests][1:]) / 40


def _create(side: Side) -> float:
    """Return the median of ten, in milliseconds."""
    sent = {"experiment_id": "0", "start_time": MOMENT, "user_id": "bench", "run_name": "r", "tags": []}
    request = _request(side, "POST", f"{API}/runs/create", sent)
    with closing(Line(side.port)) as line:
        return 1000 * median([line.ask(request)[0] for _ in range(11)][1:])


def _histories(sides: list[Side]) -> list[float]:
    """Return how long the history of one metric takes, of as many points in each."""
    taken: list[float] = []
    for side in sides:
        run_id = side.new_run()
        with closing(Line(side.port)) as line:
            for number in range(POINTS // 1000):
                line.ask(_batch_request(side, run_id, number, 1))
            path = f"{API}/metrics/get-history?run_id={run_id}&metric_key=metric_0"
            found = [line.ask(_request(side, "GET", path)) for _ in range(4)]
        assert len(orjson.loads(found[-1][1])["metrics"]) == POINTS
        taken.append(1000 * median(seconds for seconds, _ in found[1:]))
    return taken


def _pages(side: Side) -> float:
    """Return how long it takes to see every run of an experiment, page by page; reading the tokens is not counted."""
    taken = 0.0
    seen, token = 0, ""
    with closing(Line(side.port)) as line:
        while True:
            sent = {"experiment_ids": [side.small], "max_results": 1000, "page_token": token}
            wish = {key: value for key, value in sent.items() if value}
            seconds, body = line.ask(_request(side, "POST", f"{API}/runs/search", wish))
            taken += seconds
            page = orjson.loads(body)
            seen += len(page["runs"])
            token = page.get("next_page_token", "")
            if not token:
                assert seen == SMALL, seen
                return taken


def _search(side: Side, timeout: float = 600) -> float:
    """Return how long a search in the order of a metric takes, in milliseconds."""
    sent = {"experiment_ids": [side.large], "order_by": ["metrics.m1 DESC"], "max_results": 100}
    with closing(Line(side.port, timeout)) as line:
        seconds, body = line.ask(_request(side, "POST", f"{API}/runs/search", sent))
    assert len(orjson.loads(body)["runs"]) == 100
    return 1000 * seconds


def _drive(root: Path, side: Side, requests: list[bytes], count: int, connections: int) -> dict[str, Any]:
    """Send requests from a process of its own; every answer of ours must be 200, of the peer's those that are count."""
    file = root / "requests.json"
    file.write_text(json.dumps([each.decode() for each in requests]))
    command = [
        sys.executable,
        str(Path(__file__).with_name("load.py")),
        "--port",
        str(side.port),
        "--requests",
        str(file),
    ]
    command += ["--count", str(count), "--connections", str(connections)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    # On a slow disk MLflow answers some with 503: its database was locked too long.
    found["rate"] *= found["statuses"].get("200", 0) / found["requests"]
    assert not side.headers or found["statuses"].keys() == {"200"}, found
    return found


@contextmanager
def served_ours(home: Path, **environ: str) -> Generator[tuple[Side, float]]:
    """Serve a data folder with all three processes; the side's process is the control plane."""
    port = free_ports("127.0.0.1")
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "holdtrue.server.up", "--home", str(home), "--port", str(port)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    )
    try:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("ready "):
            assert process.poll() is None
        started = time.perf_counter() - began
        token = read_token(home)
        yield Side(port, _control(process.pid), {"Authorization": f"Bearer {token}"}), started
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)


def _control(pid: int) -> int:
    """Return the id of the child that is the control plane."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return next(
        int(each) for each in children if b"holdtrue.server.control" in Path(f"/proc/{each}/cmdline").read_bytes()
    )


@contextmanager
def served_theirs(root: Path, uri: str = "") -> Generator[tuple[Side, float]]:
    """Serve MLflow with one worker, on the file of SQLite in `root` or the database at `uri`."""
    port = free_ports("127.0.0.1")
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(PEER / "bin" / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--backend-store-uri", uri or f"sqlite:///{root / 'mlflow.db'}",
         "--artifacts-destination", str(root / "artifacts")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PATH": f"{PEER / 'bin'}:{os.environ['PATH']}"},
        start_new_session=True,
    )  # fmt: skip
    side = Side(port, process.pid)
    try:
        while True:
            try:
                side.call("POST", f"{API}/experiments/search", {"max_results": 1}, 5)
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.02)
        yield side, time.perf_counter() - began
    finally:
        # Killed: it may be busy with a query that somebody gave up waiting for.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)


def _memory(pid: int) -> float:
    """Return the resident MiB of a process and all below it, memory that they share counted once."""
    total = 0.0
    waiting = [pid]
    while waiting:
        each = waiting.pop()
        waiting += [int(child) for child in Path(f"/proc/{each}/task/{each}/children").read_text().split()]
        for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) / 1024
    return total


def peer(*more: str) -> bool:
    """Install MLflow (and `more` packages) into a virtual environment of its own, unless it is there or not wanted."""
    if os.environ.get("BENCH_PEERS") == "0":
        return False
    if not (PEER / "bin" / "mlflow").exists():
        PEER.parent.mkdir(exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", str(PEER)], check=True)
        subprocess.run([str(PEER / "bin" / "pip"), "install", "--quiet", f"mlflow=={VERSION}"], check=True)
    if more:
        subprocess.run([str(PEER / "bin" / "pip"), "install", "--quiet", *more], check=True)
    return True


def _values(number: int) -> list[float]:
    generator = random.Random(number)
    return [generator.random() for _ in range(METRICS)]


def lay_ours(home: Path, database: str = "", large: int = RUNS) -> None:
    """Write the runs through the ledger, as requests would, a thousand to a transaction."""
    stores = open_stores(home, SystemClock(), database=database)
    context = WriteContext(SYSTEM, PROJECT)
    for name, count in (("large", large), ("small", SMALL)):
        made = stores.ledger.write(context, lambda tx, name=name: tracking.create_experiment(tx, name).id)
        for start in range(0, count, 1000):

            def work(tx: Transaction, start: int = start, made: int = made) -> None:
                for number in range(start, start + 1000):
                    info = tracking.create_run(tx, NewRun(made, name="r", start_ms=MOMENT + number)).info
                    metrics = tuple(Metric(f"m{key}", 0, 1, value, 0) for key, value in enumerate(_values(number)))
                    tracking.log(tx, Batch(info.id, metrics, (Pair("rate", "0.1"), Pair("depth", str(number % 7)))))

            stores.ledger.write(context, work)
    stores.close()


def _lay_theirs(path: Path) -> None:
    """Let MLflow make its schema, then insert the same runs into its tables."""
    subprocess.run(
        [str(PEER / "bin" / "mlflow"), "db", "upgrade", f"sqlite:///{path}"], check=True, capture_output=True
    )
    with sqlite3.connect(path) as database:
        database.execute(
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, creation_time, "
            "last_update_time) VALUES (0, 'Default', 'mlflow-artifacts:/0', 'active', 0, 0), "
            "(1, 'large', 'mlflow-artifacts:/1', 'active', 0, 0), (2, 'small', 'mlflow-artifacts:/2', 'active', 0, 0)"
        )
        for experiment, count in ((1, RUNS), (2, SMALL)):
            runs, metrics, params = their_rows(experiment, count)
            database.executemany(
                "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, "
                "start_time, lifecycle_stage, artifact_uri, experiment_id, source_version) "
                "VALUES (?, 'r', 'UNKNOWN', '', '', 'bench', 'RUNNING', ?, 'active', ?, ?, '')",
                runs,
            )
            for table in ("latest_metrics", "metrics"):
                statement = {
                    "latest_metrics": "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) "
                    "VALUES (?, ?, 1, 0, 0, ?)",
                    "metrics": "INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid) "
                    "VALUES (?, ?, 1, 0, 0, ?)",
                }[table]
                database.executemany(statement, metrics)
            database.executemany("INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)", params)
            database.executemany(
                "INSERT INTO tags (key, value, run_uuid) VALUES ('mlflow.runName', 'r', ?)", [(row[0],) for row in runs]
            )
        database.execute("ANALYZE")
    database.close()


def their_rows(experiment: int, count: int) -> tuple[list[Any], list[Any], list[Any]]:
    runs: list[Any] = []
    metrics: list[Any] = []
    params: list[Any] = []
    for number in range(count):
        own = f"{experiment:08x}{number:024x}"
        runs.append((own, MOMENT + number, f"mlflow-artifacts:/{experiment}/{own}/artifacts", experiment))
        metrics += [(f"m{key}", value, own) for key, value in enumerate(_values(number))]
        params += [("rate", "0.1", own), ("depth", str(number % 7), own)]
    return runs, metrics, params


def _row(work: str, unit: str, ours: float, theirs: float | None, goal: float, *, lower: bool) -> dict[str, Any]:
    ratio = None if theirs is None else (theirs / ours if lower else ours / theirs)
    print(f"tracking: {work}: {ours:.4g} {unit}, peer {theirs if theirs is None else f'{theirs:.4g}'}", file=sys.stderr)
    return {
        "topic": "tracking",
        "work": work,
        "unit": unit,
        "ours": ours,
        "peer": "MLflow server, one worker",
        "peer_version": VERSION,
        "theirs": theirs,
        "ratio": ratio,
        "goal": f"≥ {goal:g}×",
        "met": None if ratio is None else ratio >= goal,
    }
