"""One-row inference over HTTP, records on, against a bare handler that runs the same compiled model.

Both sides are one worker of our server, driven by 32 connections from a process of its own, turn by turn.
Not comparable: the bare handler has no tokens, no checks, no features and no records; that is the point.
"""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.load import request_bytes
from holdtrue.features import FeatureSet, Latest, Trailing, category, hour_of_day, numeric
from holdtrue.features.online import OnlineStore
from holdtrue.serving import Arm, Bundle, Input, ModelFile, Route, Snapshot, compile_model, write_snapshot
from holdtrue.storage import BlobStore, make_folder

CONNECTIONS, REQUESTS, ROUNDS = 32, 4000, 7
NOTES = """
Both are read by the same event loop. On Granian's threads the bare handler gave 18,700 to 22,600 a second, as one more
core worked for it, and ours 0.46 to 0.58 of that with strict records and 0.58 to 0.65 with fast ones. Ours scores the
requests of a turn together, which the bare handler does not. A commit at a time is best: with two or three under way
strict records gave less.
"""
CONTRACT = {
    "columns": [{"name": f"x{number}", "dtype": "float64", "nullable": True, "ge": -1e6, "le": 1e6}
                for number in range(8)]
}  # fmt: skip
TOKEN = "ht_svc_bench_000000000000000000000000000000000000000000_000000"  # noqa: S105
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
NAMES = [f"x{number}" for number in range(8)]
MOMENT = 1_362_139_200_000_000
HOUR = 3_600_000_000
VIEWS = (
    Latest("weather", "weather", "origin", "at", ("temp", "wind", "precip", "visib"), "6h"),
    Trailing("of_carrier", "arrivals", "carrier", "at", "delay", window="3h"),
    Trailing("of_origin", "arrivals", "origin", "at", "delay", window="3h"),
    Trailing("of_route", "arrivals", "dest", "at", "delay", window="24h"),
)
ORIGINS, CARRIERS = ("EWR", "JFK", "LGA"), tuple("ABCDEFGH")
DESTINATIONS = tuple(f"D{number:02d}" for number in range(60))
FLIGHT = FeatureSet(
    views=VIEWS,
    expressions=(
        numeric("distance"),
        category("carrier"),
        category("origin"),
        category("dest"),
        hour_of_day("scheduled"),
    ),
    vocabularies={"carrier": CARRIERS, "origin": ORIGINS, "dest": DESTINATIONS},
)
FLIGHT_INPUTS = (
    Input("flight", "BYTES"),
    Input("distance", "FP64"),
    Input("carrier", "BYTES"),
    Input("origin", "BYTES"),
    Input("dest", "BYTES"),
    Input("scheduled", "INT64"),
    Input("seats", "INT64"),
    Input("tail", "BYTES"),
)


def run() -> list[dict[str, Any]]:
    """Measure and return the rows of the table of benchmarks."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        small = _model(8, seed=1)
        (root / "model.onnx").write_bytes(small)
        home = _home(root / "home", small)
        rows = _one_row(root, home)
        rows.append(_many_rows(root, home))
        return rows


def _one_row(root: Path, home: Path) -> list[dict[str, Any]]:
    body = json.dumps({"inputs": [_tensor(name, "FP64", [0.25]) for name in NAMES]}).encode()
    requests = root / "requests.json"
    requests.write_text(json.dumps([request_bytes("POST", "/v2/models/small/infer", body, HEADERS).decode()]))
    bare = [sys.executable, str(Path(__file__).with_name("bare.py")), str(root / "model.onnx")]
    rates: dict[str, list[float]] = {"bare": [], "fast": [], "strict": []}
    with (
        _served([*bare, "{port}"]) as floor,
        _served(_plane(home, "fast")) as fast,
        _served(_plane(home, "strict")) as strict,
    ):
        ports = {"bare": floor, "fast": fast, "strict": strict}
        for turn in range(ROUNDS + 1):
            for name, port in ports.items():
                measured = _drive(port, requests, REQUESTS)
                if turn:  # the first turn warms up
                    rates[name].append(measured["rate"])
    theirs = median(rates["bare"])
    return [
        {
            "topic": "inference",
            "work": f"one row, {CONNECTIONS} connections, records {mode}",
            "unit": "requests/s",
            "ours": median(rates[mode]),
            "peer": "bare handler on our server, same model",
            "peer_version": f"uvloop {version('uvloop')}",
            "theirs": theirs,
            "ratio": median(rates[mode]) / theirs,
            "goal": 0.5,
            "met": median(rates[mode]) / theirs >= 0.5,
        }
        for mode in ("fast", "strict")
    ]


def _many_rows(root: Path, home: Path) -> dict[str, Any]:
    random = np.random.default_rng(3)
    count = 60
    columns = {
        "flight": [f"flight-{number}" for number in range(count)],
        "distance": random.uniform(100, 3000, count).round().tolist(),
        "carrier": random.choice(CARRIERS, count).tolist(),
        "origin": random.choice(ORIGINS, count).tolist(),
        "dest": random.choice(DESTINATIONS, count).tolist(),
        "scheduled": (MOMENT + random.integers(0, 60, count) * 60_000_000).tolist(),
        "seats": random.integers(50, 300, count).tolist(),
        "tail": [f"N{number}" for number in range(count)],
    }
    tensors = [_tensor(each.name, each.datatype, columns[each.name]) for each in FLIGHT_INPUTS]
    body = json.dumps({"inputs": tensors}).encode()
    requests = root / "many.json"
    requests.write_text(json.dumps([request_bytes("POST", "/v2/models/flight/infer", body, HEADERS).decode()]))
    with _served(_plane(home, "fast")) as port:
        _drive(port, requests, 50, connections=1)
        times = [_drive(port, requests, 100, connections=1)["p50_ms"] for _ in range(ROUNDS)]
    return {
        "topic": "inference",
        "work": "60 rows, 4 feature views, answer and shadow model, one connection",
        "unit": "ms",
        "ours": median(times),
        "peer": "goal",
        "peer_version": "",
        "theirs": 5.0,
        "ratio": 5.0 / median(times),
        "goal": 1.0,
        "met": median(times) <= 5.0,
    }


def _model(width: int, seed: int) -> bytes:
    from sklearn.ensemble import HistGradientBoostingClassifier

    random = np.random.default_rng(seed)
    matrix = random.normal(size=(4000, width)).astype(np.float32)
    label = (matrix[:, 0] + random.normal(size=4000) > 0).astype(int)
    fitted = HistGradientBoostingClassifier(random_state=seed).fit(matrix, label)
    return compile_model(fitted, [str(place) for place in range(width)], matrix).onnx


def _home(home: Path, small: bytes) -> Path:
    """Make a data folder that serves a small model of eight numbers and one of flights with a shadow."""
    for name in ("blobs", "journal", "online/bench", "routing/acks"):
        make_folder(home / name)
    blobs = BlobStore(home / "blobs")
    width = len(FLIGHT.names)
    numbers = FeatureSet(views=(), expressions=tuple(numeric(name) for name in NAMES), vocabularies={})
    bundles = [
        Bundle(
            release=release,
            project="bench",
            service=service,
            inputs=inputs,
            contract=CONTRACT if service == "small" else None,
            features=features.to_json(),
            model=ModelFile("onnx", blobs.put(model)),
            output="score",
            prediction_time="scheduled" if service == "flight" else None,
        )
        for release, service, inputs, features, model in (
            ("rel_small", "small", tuple(Input(name, "FP64") for name in NAMES), numbers, small),
            ("rel_flight", "flight", FLIGHT_INPUTS, FLIGHT, _model(width, seed=2)),
            ("rel_shadow", "flight", FLIGHT_INPUTS, FLIGHT, _model(width, seed=3)),
        )
    ]
    arm = {name: (Arm("champion", f"rel_{name}", 100.0),) for name in ("small", "flight")}
    routes = (
        Route("bench", "small", None, None, arm["small"], fallback=0.5),
        Route("bench", "flight", "flight", "flight", arm["flight"], shadows=("rel_shadow",), fallback=0.5),
    )
    snapshot = Snapshot(
        sequence=1,
        issued_at=datetime.now(UTC),
        services={f"bench/{route.service}": route for route in routes},
        releases={bundle.release: bundle for bundle in bundles},
    )
    write_snapshot(home / "routing" / "current.json", snapshot)
    grant = {
        "sha256": hashlib.sha256(TOKEN.encode()).hexdigest(),
        "actor": "svc_bench",
        "project": "bench",
        "permissions": ["predict"],
        "expires_at": None,
    }
    access = {"policy_version": 1, "tokens": {"bench": grant}}
    (home / "routing" / "access.json").write_text(json.dumps(access))
    _fill(home)
    return home


def _fill(home: Path) -> None:
    """Put two days of arrivals and weather into the online store."""
    random = np.random.default_rng(5)
    count = 2000
    store = OnlineStore(home / "online" / "bench")
    store.ingest(
        VIEWS,
        "arrivals",
        {
            "origin": random.choice(ORIGINS, count).tolist(),
            "carrier": random.choice(CARRIERS, count).tolist(),
            "dest": random.choice(DESTINATIONS, count).tolist(),
            "at": (MOMENT - random.integers(0, 48 * HOUR, count)).tolist(),
            "delay": random.normal(5, 20, count).tolist(),
        },
    )
    hours = [(origin, MOMENT - hour * HOUR) for hour in range(48) for origin in ORIGINS]
    weather = {name: random.normal(size=len(hours)).tolist() for name in ("temp", "wind", "precip", "visib")}
    store.ingest(
        VIEWS,
        "weather",
        {"origin": [origin for origin, _ in hours], "at": [moment for _, moment in hours], **weather},
    )
    store.close()


def _tensor(name: str, datatype: str, data: list[Any]) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": datatype, "data": data}


def _plane(home: Path, records: str) -> list[str]:
    module = [sys.executable, "-m", "holdtrue.server.dataplane"]
    return [*module, "--home", str(home), "--records", records, "--port", "{port}"]


@contextmanager
def _served(command: Sequence[str], seconds: float = 30, path: str = "/health/live") -> Generator[int]:
    """Start a server, wait until its port answers, and stop it at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOLDTRUE_")}
    # Some servers write a line for each request; what they have to complain of goes to standard error.
    arguments = [part.replace("{port}", str(port)) for part in command]
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + seconds
        while not _answers(port, path):
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.05)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _answers(port: int, path: str) -> bool:
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(request)
            return bool(connection.recv(64))
    except OSError:
        return False


def _drive(port: int, requests: Path, count: int, connections: int = CONNECTIONS) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name("load.py"))]
    command += ["--port", str(port), "--requests", str(requests)]
    command += ["--count", str(count), "--connections", str(connections)]
    measured = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=120).stdout)
    assert measured["statuses"] == {"200": count}, measured
    return measured


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
