"""What asking costs: a service switched off under load, requests for later, explanations, messages of a stream."""

import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from bench.rows import own_row
from holdtrue.server.ports import free_ports

NOTES = """
One LightGBM model of twenty features behind the real processes, records strict. Seconds until a switch holds are
counted from the answer of the API to the last answer of the old kind, as eight connections see it.
"""
_ROUNDS = 15
_CONNECTIONS = 8
_FEATURES = 20
_LATER = 2000
_MESSAGES = 2000
_EXPLAINED = 100


def run() -> list[dict[str, Any]]:
    """Measure against `holdtrue serve`; the stream only where redis-server is installed."""
    with tempfile.TemporaryDirectory() as folder, _served(Path(folder)) as (home, plane):
        off, on = _switching(home, plane)
        rows = [
            own_row("asking", "switched off under load, median", "s", statistics.median(off), 1.0),
            own_row("asking", "switched off under load, slowest of 15", "s", max(off), 2.0),
            own_row("asking", "answering again under load, median", "s", statistics.median(on), 1.0),
            own_row("asking", "requests for later accepted, 8 connections", "/s", _accepted(plane)),
            own_row("asking", "one row explained, 20 features (LightGBM)", "ms", _explained(plane)),
        ]
        if shutil.which("redis-server"):
            rows.append(own_row("asking", "messages of a Redis stream answered", "/s", _consumed(plane)))
        return rows


@contextmanager
def _served(folder: Path) -> "Generator[tuple[Path, httpx.Client]]":
    import lightgbm

    random = np.random.default_rng(0)
    rows = random.normal(size=(2000, _FEATURES)).astype(np.float32)
    fitted = lightgbm.LGBMClassifier(n_estimators=100, verbosity=-1).fit(
        rows, (rows[:, 0] + rows[:, 1] > 0).astype(int)
    )
    fitted.booster_.save_model(folder / "model.lgb")
    home = folder / "home"
    command = [sys.executable, "-m", "holdtrue", "serve", str(folder / "model.lgb"), "--name", "m", "--home", str(home)]
    port = free_ports("127.0.0.1")
    process = subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.PIPE, stderr=sys.stderr, text=True, cwd=folder
    )
    assert process.stdout is not None
    try:
        if not any(line.startswith("ready ") for line in process.stdout):
            raise RuntimeError("The server did not start.")
        made = _command(home, "token", "create", "--role", "service", "--project", "m", "--json")
        headers = {"authorization": f"Bearer {json.loads(made)['token']}"}
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port + 1}", headers=headers, timeout=60, limits=limits
        ) as client:
            while client.get("/v2/models/m").status_code == 401:
                pass
            yield home, client
    finally:
        process.terminate()
        process.wait(60)


def _command(home: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "holdtrue", *arguments, "--home", str(home)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _row(number: int) -> dict[str, float]:
    return {f"Column_{place}": (number * 7 + place * 13) % 17 / 8.5 - 1.0 for place in range(_FEATURES)}


def _switching(home: Path, plane: httpx.Client) -> tuple[list[float], list[float]]:
    """Switch off and on under load; return the seconds until each held."""
    from holdtrue.server.client import Client

    said: list[tuple[float, str]] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            answer = plane.post("/predict/m", json=_row(len(said)))
            said.append((time.perf_counter(), str(answer.json().get("arm", "refused"))))

    def held(wanted: str, ask: Callable[[], Any]) -> float:
        ask()
        began, seen = time.perf_counter(), len(said)
        # Each connection has had two answers of the new kind in a row: none is of the old kind any more.
        while [arm for _, arm in said[-2 * _CONNECTIONS :]] != [wanted] * 2 * _CONNECTIONS:
            time.sleep(0.005)
        last = [moment for moment, arm in said[seen:] if arm != wanted]
        return max(0.0, max(last, default=began) - began)

    off: list[float] = []
    on: list[float] = []
    threads = [threading.Thread(target=load) for _ in range(_CONNECTIONS)]
    with Client.open(home) as owner:
        path, where = "/api/projects/m/services/m", {"environment": "dev"}
        for thread in threads:
            thread.start()
        try:
            for number in range(_ROUNDS):
                body = {**where, "reason": f"round {number}", "answer": "0.5"}
                off.append(held("stopped", lambda body=body: owner.post(f"{path}/stop", body)))
                on.append(held("champion", lambda: owner.post(f"{path}/resume", where)))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    return off, on


def _accepted(plane: httpx.Client) -> float:
    """Return how many requests a second are acknowledged, that is, on the disk, and wait until all are answered."""

    def send(number: int) -> str:
        return str(plane.post("/predict/m", json=_row(number), headers={"prefer": "respond-async"}).json()["id"])

    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        began = time.perf_counter()
        names = list(pool.map(send, range(_LATER)))
        seconds = time.perf_counter() - began
    for name in names:
        while plane.get(f"/requests/{name}").status_code == 202:
            time.sleep(0.01)
    return _LATER / seconds


def _explained(plane: httpx.Client) -> float:
    headers = {"x-holdtrue-contributions": "true"}
    times: list[float] = []
    for number in range(_EXPLAINED):
        began = time.perf_counter()
        plane.post("/predict/m", json=_row(number), headers=headers).raise_for_status()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def _consumed(plane: httpx.Client) -> float:
    import redis

    from holdtrue.server.consuming import asking, consume
    from holdtrue.server.redisstream import Place, RedisStream

    with tempfile.TemporaryDirectory() as folder:
        port = _free()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.01)
            url = f"redis://127.0.0.1:{port}/0"
            client: Any = redis.Redis.from_url(url)
            for number in range(_MESSAGES):
                client.xadd("asked", {"row": json.dumps(_row(number))})
            stream = RedisStream(url, Place("asked", "told", "g", "c"))
            began = time.perf_counter()
            done = consume(stream, asking(plane, "m", "m"), threading.Event(), most=256, until_empty=True)
            # The last look finds nothing and waits a second for it.
            seconds = time.perf_counter() - began - 1.0
            assert done.answered == _MESSAGES
            stream.close()
            client.close()
            return _MESSAGES / seconds
        finally:
            process.terminate()
            process.wait(20)


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
