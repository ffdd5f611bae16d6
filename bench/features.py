"""Features: the point-in-time join of a million rows, and looking features up, in process and over HTTP.

Peers: Feast, in an environment of its own under `.bench/feast` made on demand (BENCH_PEERS=0 leaves it out), with its
offline store for DuckDB and its default online store (SQLite); and plain DuckDB's ASOF join. Each is asked in turn with
our side. The rows are ordered by time, as they are logged, the queries are not; both are in memory for us and for
DuckDB, and for Feast the queries are a frame and the rows a Parquet file, as its interface has it.

Not comparable: of rows with one moment DuckDB takes any and knows no age limit; Feast's online store keeps the last row
of an entity only, while ours keeps the last 1,024 and answers for any moment; our HTTP answers go through the checks of
tokens and limits, one worker process on each side.
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.load import free_port, request_bytes
from bench.rows import own_row
from holdtrue.features import FeatureSet, Latest, OnlineStore, Trailing, View, open_online, point_in_time
from holdtrue.serving import Arm, Bundle, Input, ModelFile, Route, Snapshot, compile_model, write_snapshot
from holdtrue.storage import BlobStore, make_folder

NOTES = """
Over HTTP token, limits and project are checked on our side; both are asked by the same client. At one connection twenty
times Feast's speed is less than what a server takes that only answers the same bytes each time, which is measured
beside. Of what ours takes more a third looks the features up, a quarter is the system call that answers. On Granian's
threads ours took 0.21 ms.
"""
PEER = Path(__file__).parents[1] / ".bench" / "feast"
ROWS, ENTITIES, KEPT, ROUNDS, LOOKUPS = 1_000_000, 10_000, 2_000, 3, 4_000
REQUESTS = 16_000
START = 1_704_067_200_000_000
DAY = 86_400_000_000
NAMES = tuple(f"f{place}" for place in range(10))
TOKEN = "ht_svc_bench_000000000000000000000000000000000000000000_000000"  # noqa: S105
JOINED = Latest("stats", "rows", "driver", "at", NAMES[:5], "30d")
TEN = Latest("ten", "rows", "driver", "at", NAMES, "90d")
SEVERAL: tuple[View, ...] = (
    Latest("weather", "rows", "driver", "at", NAMES[:6], "6h"),
    Trailing("two", "rows", "driver", "at", "f6", ("mean", "count"), "2h"),
    Trailing("three", "rows", "driver", "at", "f7", ("mean", "count"), "3h"),
    Trailing("six", "rows", "driver", "at", "f8", ("mean",), "6h"),
)
_SCRIPT = """
import os, sys, time, warnings
from datetime import datetime, timedelta, timezone
warnings.simplefilter("ignore")
os.environ["FEAST_USAGE"] = "False"
import feast, pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Float64
folder = sys.argv[1]
text = f'''project: bench
provider: local
registry: {folder}/registry.db
offline_store:
    type: duckdb
online_store:
    type: sqlite
    path: {folder}/online.db
entity_key_serialization_version: 3
'''
with open(f"{folder}/feature_store.yaml", "w") as file:
    file.write(text)
store = FeatureStore(folder)
driver = Entity(name="driver", join_keys=["driver"], value_type=feast.ValueType.INT64)
def view(name, path, count):
    return FeatureView(name=name, entities=[driver], ttl=timedelta(days=90), source=FileSource(
        path=f"{folder}/{path}.parquet", timestamp_field="at"),
        schema=[Field(name=f"f{place}", dtype=Float64) for place in range(count)])
stats, ten = view("stats", "rows", 5), view("ten", "kept", 10)
store.apply([driver, stats, ten])
end = datetime(2024, 3, 1, tzinfo=timezone.utc)
store.materialize(datetime(2023, 12, 1, tzinfo=timezone.utc), end, ["ten"])
queries = pd.read_parquet(f"{folder}/queries.parquet").rename(columns={"t": "event_timestamp"})
wanted = [f"ten:f{place}" for place in range(10)]
def join():
    found = store.get_historical_features(queries, [f"stats:f{place}" for place in range(5)]).to_arrow()
    assert found.num_rows == len(queries)
def get():
    times = []
    for number in range(500):
        start = time.perf_counter()
        found = store.get_online_features(wanted, [{"driver": number * 3 % int(sys.argv[2])}]).to_dict()
        times.append(time.perf_counter() - start)
    assert found["f0"][0] is not None
    return sorted(times)[250]
print("answer", feast.__version__, flush=True)
for line in sys.stdin:
    if line.strip() == "get":
        print("answer", get(), flush=True)
        continue
    start = time.perf_counter()
    join()
    print("answer", time.perf_counter() - start, flush=True)
"""


def run() -> list[dict[str, Any]]:
    """Measure and return the rows of the table of benchmarks."""
    with tempfile.TemporaryDirectory(prefix="holdtrue-bench-") as folder:
        root = Path(folder)
        queries, rows = _tables()
        pq.write_table(rows, root / "rows.parquet")
        pq.write_table(queries, root / "queries.parquet")
        kept = _last_of_each(rows)
        pq.write_table(kept, root / "kept.parquet")
        peer = _start(root) if _ready() else None
        try:
            return [*_joins(queries, rows, peer), *_lookups(root, kept, rows, peer), *_over_http(root, kept, peer)]
        finally:
            if peer is not None:
                peer[1].kill()
                peer[1].communicate()


Peer = tuple[str, "subprocess.Popen[str]"]


def _tables() -> tuple[pa.Table, pa.Table]:
    numbers = np.random.default_rng(0)
    moments = pa.timestamp("us", "UTC")
    at = START + np.sort(numbers.integers(0, 30 * DAY // 1000, ROWS)) * 1000
    columns = {name: numbers.normal(size=ROWS) for name in NAMES}
    rows = pa.table({"driver": numbers.integers(0, ENTITIES, ROWS), "at": pa.array(at, moments), **columns})
    asked = START + numbers.integers(0, 30 * DAY // 1000, ROWS) * 1000
    return pa.table({"driver": numbers.integers(0, ENTITIES, ROWS), "t": pa.array(asked, moments)}), rows


def _last_of_each(rows: pa.Table) -> pa.Table:
    """Return the last row of the first entities."""
    mine = rows.filter(pa.array(rows["driver"].to_numpy() < KEPT))
    _, places = np.unique(mine["driver"].to_numpy()[::-1], return_index=True)
    return mine.take(pa.array(mine.num_rows - 1 - places))


def _joins(queries: pa.Table, rows: pa.Table, peer: "Peer | None") -> list[dict[str, Any]]:
    connection = duckdb.connect(config={"threads": 2})
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("q", queries)
    connection.register("s", rows)
    names = ", ".join(f"s.{name}" for name in JOINED.columns)
    text = f"SELECT q.*, {names} FROM q ASOF LEFT JOIN s ON q.driver = s.driver AND q.t >= s.at"  # noqa: S608
    sides: dict[str, Callable[[], Any]] = {
        "ours": lambda: point_in_time(queries, [JOINED], {"rows": rows}, time="t"),
        "duckdb": lambda: connection.sql(text).to_arrow_table(),
    }
    if peer is not None:
        sides["feast"] = lambda: _ask(peer[1], "join")
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(ROUNDS + 1):
        for name, work in sides.items():
            # The first turn warms up; Feast, which takes longest, needs that least, and tells its own seconds.
            if name == "feast" and not turn:
                continue
            start = time.perf_counter()
            found = work()
            if turn:
                seconds[name].append(found if name == "feast" else time.perf_counter() - start)
    work = "point-in-time join, 1M rows × 5 features"
    version = f"DuckDB {duckdb.__version__}"
    ours, plain = median(seconds["ours"]), median(seconds["duckdb"])
    found = [_row(work, "s", ours, "plain ASOF join", version, plain, 1 / 1.5)]
    if peer is not None:
        found.append(_row(work, "s", ours, "Feast, duckdb store", peer[0], median(seconds["feast"]), 10.0))
    return found


def _lookups(root: Path, kept: pa.Table, rows: pa.Table, peer: "Peer | None") -> list[dict[str, Any]]:
    store = open_online(_folder(root), "bench")
    _fill(store, (TEN,), kept)
    recent = rows.filter(pa.array(rows["driver"].to_numpy() < 40))
    _fill(store, SEVERAL, recent)
    moment = START + 30 * DAY
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(ROUNDS):
        ours.append(_p50(lambda number: store.lookup((TEN,), {"driver": [number % KEPT]}, [moment])))
        if peer is not None:
            theirs.append(_ask(peer[1], "get") * 1e6)
    several = _p50(lambda number: store.lookup(SEVERAL, {"driver": [number % 40]}, [moment - number * 1_000_000]))
    store.close()
    work = "10 features of one entity, in process, p50"
    found = [own_row("features", work, "µs", median(ours), 20.0)]
    if peer is not None:
        found.append(_row(work, "µs", median(ours), "Feast SDK, sqlite store", peer[0], median(theirs), None))
    found.append(own_row("features", "11 features of 4 views, 3 of them windows, in process, p50", "µs", several))
    return [*found, *_in_redis(kept, moment)]


def _in_redis(kept: pa.Table, moment: int) -> list[dict[str, Any]]:
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "--port", "{port}", "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
        with _served(command, b"PING\r\n") as port:
            store = open_online(Path(folder), "bench", f"redis://127.0.0.1:{port}/0")
            _fill(store, (TEN,), kept)
            found = _p50(lambda number: store.lookup((TEN,), {"driver": [number % KEPT]}, [moment]))
            store.close()
    return [own_row("features", "10 features of one entity, from Redis on this machine, p50", "µs", found)]


def _over_http(root: Path, kept: pa.Table, peer: "Peer | None") -> list[dict[str, Any]]:
    home = _home(root / "home", kept)
    mine, theirs = root / "ours.json", root / "theirs.json"
    places = [number * 7 % KEPT for number in range(200)]
    moment = START + 30 * DAY
    bodies = [json.dumps({"entities": {"driver": [place]}, "time": moment}).encode() for place in places]
    headers = {"Authorization": f"Bearer {TOKEN}"}
    mine.write_text(json.dumps([request_bytes("POST", "/features/ten", body, headers).decode() for body in bodies]))
    wanted = [f"ten:{name}" for name in NAMES]
    bodies = [json.dumps({"features": wanted, "entities": {"driver": [place]}}).encode() for place in places]
    kind = {"Content-Type": "application/json"}
    texts = [request_bytes("POST", "/get-online-features", body, kind).decode() for body in bodies]
    theirs.write_text(json.dumps(texts))
    plane = [sys.executable, "-m", "holdtrue.server.dataplane", "--home", str(home), "--port", "{port}"]
    feast = [str(PEER / "bin" / "feast"), "-c", str(root), "serve", "-p", "{port}", "--no-access-log"]
    with _served(plane, _GET) as port:
        if peer is None:
            return [
                own_row("features", f"{_HTTP}, 1 connection, p50", "ms", _drive(port, mine, REQUESTS, 1)["p50_ms"]),
                own_row("features", f"{_HTTP}, 32 connections", "requests/s", _drive(port, mine, REQUESTS, 32)["rate"]),
            ]
        with _served([*feast, "--max-requests", "10000000"], _GET, seconds=90) as other:
            return [
                *(
                    _beside(f"{_HTTP}, {connections} connection{'s' * (connections > 1)}{note}", peer[0], measure, unit)
                    for connections, unit, measured, note in _SHAPES
                    for measure in [_sides(port, mine, other, theirs, connections, measured)]
                ),
                _least(mine, other, theirs, peer[0]),
            ]


def _least(mine: Path, other: int, theirs: Path, version: str) -> dict[str, Any]:
    """Measure what the peer's time is to that of a server which does nothing: more no server of this kind can be."""
    nothing = [sys.executable, str(Path(__file__).with_name("nothing.py")), "{port}"]
    with _served(nothing, _GET) as port:
        least, peer = _sides(port, mine, other, theirs, 1, "p50_ms")
    row = _row(f"{_LEAST}, 1 connection, p50", "ms", least, "Feast, its HTTP server", version, peer, None)
    return {**row, "met": None}


def _sides(port: int, mine: Path, other: int, theirs: Path, connections: int, what: str) -> tuple[float, float]:
    """Return the medians of both servers, asked in turn by the same client."""
    ours: list[float] = []
    peers: list[float] = []
    for turn in range(ROUNDS + 1):
        found = (
            _drive(port, mine, REQUESTS, connections)[what],
            _drive(other, theirs, REQUESTS // 16, connections)[what],
        )
        if turn:
            ours.append(found[0])
            peers.append(found[1])
    return median(ours), median(peers)


def _beside(work: str, version: str, measured: tuple[float, float], unit: str) -> dict[str, Any]:
    row = _row(work, unit, measured[0], "Feast, its HTTP server", version, measured[1], 20.0)
    ratio = row["ratio"] if unit == "ms" else 1 / row["ratio"]
    return {**row, "ratio": ratio, "met": ratio >= 20.0}


_HTTP = "10 features of one entity over HTTP"
_LEAST = "a server that looks nothing up, over HTTP"
_SHAPES = ((1, "ms", "p50_ms", ", p50"), (32, "requests/s", "rate", ""))
_GET = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def _home(home: Path, kept: pa.Table) -> Path:
    """Make a data folder that serves one release with the view of ten features."""
    from sklearn.linear_model import LogisticRegression

    for name in ("blobs", "journal", "online/bench", "routing/acks"):
        make_folder(home / name)
    store = OnlineStore(home / "online" / "bench")
    _fill(store, (TEN,), kept)
    store.close()
    matrix = np.random.default_rng(1).normal(size=(500, len(NAMES))).astype(np.float32)
    fitted = LogisticRegression().fit(matrix, (matrix[:, 0] > 0).astype(int))
    model = compile_model(fitted, list(TEN.features), matrix).onnx
    bundle = Bundle(
        release="rel_ten",
        project="bench",
        service="ten",
        inputs=(Input("driver", "INT64"),),
        contract=None,
        features=FeatureSet((TEN,), (), {}).to_json(),
        model=ModelFile("onnx", BlobStore(home / "blobs").put(model)),
        output="score",
        prediction_time=None,
    )
    route = Route("bench", "ten", None, None, (Arm("champion", "rel_ten", 100.0),), fallback=0.5)
    snapshot = Snapshot(1, datetime.now(UTC), {"bench/ten": route}, {"rel_ten": bundle})
    write_snapshot(home / "routing" / "current.json", snapshot)
    grant = {"sha256": hashlib.sha256(TOKEN.encode()).hexdigest(), "actor": "svc_bench", "project": "bench"}
    grant |= {"permissions": ["predict"], "expires_at": None}
    access = json.dumps({"policy_version": 1, "tokens": {"bench": grant}})
    (home / "routing" / "access.json").write_text(access)
    return home


def _fill(store: OnlineStore, views: Sequence[View], rows: pa.Table) -> None:
    columns = {name: rows[name].to_pylist() for name in ("driver", *NAMES)}
    store.ingest(views, "rows", {**columns, "at": rows["at"].cast(pa.int64()).to_pylist()})


def _p50(work: Callable[[int], Any]) -> float:
    """Return the median microseconds of one call of many."""
    times: list[int] = []
    for number in range(LOOKUPS):
        start = time.perf_counter_ns()
        work(number)
        times.append(time.perf_counter_ns() - start)
    return sorted(times)[len(times) // 2] / 1000


def _row(
    work: str, unit: str, ours: float, peer: str, version: str, theirs: float, goal: float | None
) -> dict[str, Any]:
    return {
        "topic": "features",
        "work": work,
        "unit": unit,
        "ours": ours,
        "peer": peer,
        "peer_version": version,
        "theirs": theirs,
        "ratio": theirs / ours,
        "goal": None if goal is None else f"≥ {goal:.2g}×",
        "met": None if goal is None else theirs / ours >= goal,
    }


def _ready() -> bool:
    """Make Feast's environment if it is not there; without it, or with BENCH_PEERS=0, only our side runs."""
    if os.environ.get("BENCH_PEERS", "1") == "0":
        return False
    python = PEER / "bin" / "python"
    probe = [str(python), "-c", "import feast, ibis, duckdb"]
    if python.exists() and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return True
    subprocess.run([sys.executable, "-m", "venv", PEER], check=True)
    return subprocess.run([python, "-m", "pip", "install", "-q", "feast[duckdb]"], check=False).returncode == 0


def _start(root: Path) -> Peer:
    """Start Feast on the tables in a folder; return its version and the process that takes turns."""
    process = subprocess.Popen(
        [PEER / "bin" / "python", "-c", _SCRIPT, str(root), str(KEPT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return _line(process), process


def _ask(process: "subprocess.Popen[str]", what: str) -> float:
    assert process.stdin is not None
    process.stdin.write(f"{what}\n")
    process.stdin.flush()
    return float(_line(process))


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    # Feast prints in between how far it is.
    for line in process.stdout:
        if line.startswith("answer "):
            return line.removeprefix("answer ").strip()
    raise AssertionError(f"The peer ended: {process.args}")


def _folder(root: Path) -> Path:
    make_folder(root / "online" / "bench")
    return root / "online"


@contextmanager
def _served(command: Sequence[str], hello: bytes, seconds: float = 30) -> Generator[int]:
    """Start a server, wait until its port answers, and stop it at the end."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOLDTRUE_")}
    arguments = [part.replace("{port}", str(port)) for part in command]
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + seconds
        while not _answers(port, hello):
            assert process.poll() is None, f"the server ended: {arguments}"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int, hello: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(hello)
            return bool(connection.recv(64))
    except OSError:
        return False


def _drive(port: int, requests: Path, count: int, connections: int) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name("load.py")), "--port", str(port)]
    command += ["--requests", str(requests), "--count", str(count), "--connections", str(connections)]
    measured = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=240).stdout)
    assert measured["statuses"] == {"200": count}, measured
    return measured


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
