"""Swap the model under load, again and again: no request may fail, and none may be served by a mixed manifest.

Two releases with models, features and contracts of their own take each other's place four times a second while
requests come at half of the maximum load. Afterwards every record is computed again: the features of its release from
the inputs, the score of its release's model from the features. How long a swap takes is counted from the snapshot that
asks for it to the last answer of the release before. Then a data plane is killed under full load, in both modes of
records: what it has answered and the journal does not hold is lost, counted against the requests of a second. Answers
are compared with records by number, so that the requests under way, at most one a connection, may hide as many; the
soak of tests/crash compares them one by one.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.inference import (
    CONTRACT,
    HEADERS,
    NAMES,
    _answers,  # pyright: ignore[reportPrivateUsage]
    _home,  # pyright: ignore[reportPrivateUsage]
    _model,  # pyright: ignore[reportPrivateUsage]
    _plane,  # pyright: ignore[reportPrivateUsage]
    _served,  # pyright: ignore[reportPrivateUsage]
    _tensor,  # pyright: ignore[reportPrivateUsage]
)
from bench.rows import own_row
from holdtrue.core.canonical import bytes_hash
from holdtrue.core.clock import SystemClock
from holdtrue.features import FeatureSet, numeric
from holdtrue.serving import (
    Arm,
    Bundle,
    Input,
    ModelFile,
    Route,
    Snapshot,
    load_model,
    read_snapshot,
    write_snapshot,
)
from holdtrue.serving.driving import Driver, Order, request_bytes, write_requests
from holdtrue.storage import BlobStore, make_folder
from holdtrue.storage.journal import Journal

SECONDS, EVERY, CONNECTIONS = 20.0, 0.25, 32
KILLS, KILL_AFTER = 5, 2.0


def run() -> list[dict[str, Any]]:
    """Measure and return the rows of the table of benchmarks."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        models = {f"rel_{each}": _model(8, seed=number) for number, each in enumerate(("one", "two"), 11)}
        home = _home(root / "home", _model(8, seed=1))
        releases = _releases(home, models)
        random = np.random.default_rng(4)
        bodies = [
            json.dumps({"inputs": [_tensor(name, "FP64", [value]) for name, value in zip(NAMES, row, strict=True)]})
            for row in random.normal(size=(500, 8)).round(3).tolist()
        ]
        requests = write_requests(
            root / "requests.json",
            [request_bytes("POST", "/v2/models/small/infer", each.encode(), HEADERS) for each in bodies],
        )
        _publish(home, releases, "rel_one")
        with _served(_plane(home, "strict")) as port, Driver() as driver:
            most = driver.drive(Order(port, str(requests), CONNECTIONS, 3.0)).rate
            began = SystemClock().now()
            swaps, stop = list[tuple[datetime, str]](), threading.Event()
            swapping = threading.Thread(target=_swap, args=(home, releases, swaps, stop))
            swapping.start()
            found = driver.drive(Order(port, str(requests), CONNECTIONS, SECONDS, rate=most / 2.0))
            stop.set()
            swapping.join()
        mixed, taken, records = _checked(home, models, swaps, began)
        killed = [_killed(root / mode, home, requests, mode) for mode in ("strict", "fast")]
    what = f"{len(swaps)} swaps of the model at {most / 2.0:,.0f} requests/s, records strict"
    return [
        own_row("swapping", f"{what}: failed requests of {found.answered:,}", "n", float(found.failed), 1.0),
        own_row("swapping", f"{what}: records of a mixed manifest of {records:,}", "n", float(mixed), 1.0),
        own_row("swapping", f"{what}: answered and not recorded", "n", float(max(found.answered - records, 0)), 1.0),
        own_row("swapping", "from snapshot to last answer of the release before, middle", "s", median(taken)),
        own_row("swapping", "from snapshot to last answer of the release before, longest", "s", max(taken), 5.0),
        own_row("swapping", "p99 meanwhile", "ms", found.p99_ms),
        *(row for rows in killed for row in rows),
    ]


def _killed(root: Path, home: Path, requests: Path, mode: str) -> list[dict[str, Any]]:
    """Kill a data plane under load, again and again; return what it had answered and did not record."""
    lost, answered, seconds = 0, 0, 0.0
    for number in range(KILLS):
        copy = root / str(number)
        shutil.copytree(home, copy, ignore=shutil.ignore_patterns("journal"))
        make_folder(copy / "journal")
        with Driver() as driver, _killable(_plane(copy, mode)) as (port, process):
            # As fast as it answers, until nobody answers any more.
            timer = threading.Timer(KILL_AFTER, lambda: os.killpg(process.pid, signal.SIGKILL))
            timer.start()
            found = driver.drive(Order(port, str(requests), CONNECTIONS, 3.0 * KILL_AFTER))
            timer.join()
        journal = Journal(copy / "journal", SystemClock())
        kept = journal.table("prediction", "bench", service="small").num_rows
        journal.close()
        missing = max(found.answered - kept, 0)
        lost, answered = lost + missing, answered + found.answered
        seconds = max(seconds, missing / (found.answered / KILL_AFTER))
    what = f"data plane killed {KILLS} times under full load, records {mode}"
    rows = [
        own_row(
            "swapping",
            f"{what}: answered and lost of {answered:,}",
            "n",
            float(lost),
            1.0 if mode == "strict" else None,
        )
    ]
    if mode == "fast":
        rows.append(own_row("swapping", f"{what}: most that one kill lost, in seconds of its load", "s", seconds, 1.0))
    return rows


@contextmanager
def _killable(command: Sequence[str]) -> Generator[tuple[int, "subprocess.Popen[bytes]"]]:
    """Start a server in a process group of its own, and wait until it answers; whoever is left is killed at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOLDTRUE_")}
    arguments = [part.replace("{port}", str(port)) for part in command]
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 30
        while not _answers(port, "/health/live"):
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.05)
        yield port, process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


def _releases(home: Path, models: dict[str, bytes]) -> dict[str, Bundle]:
    """Return two releases that differ in all that a manifest pins: model, order of features, contract."""
    blobs = BlobStore(home / "blobs")
    found: dict[str, Bundle] = {}
    for number, (release, data) in enumerate(models.items()):
        names = NAMES if number == 0 else NAMES[::-1]
        features = FeatureSet(views=(), expressions=tuple(numeric(name) for name in names), vocabularies={})
        columns = [{**each, "le": 1e6 + number} for each in CONTRACT["columns"]]
        found[release] = Bundle(
            release=release,
            project="bench",
            service="small",
            inputs=tuple(Input(name, "FP64") for name in NAMES),
            contract={"columns": columns},
            features=features.to_json(),
            model=ModelFile("onnx", blobs.put(data)),
            output="score",
        )
    return found


def _publish(home: Path, releases: dict[str, Bundle], release: str) -> datetime:
    """Write the next snapshot as a control plane does, with one release answering; return when."""
    path = home / "routing" / "current.json"
    before = read_snapshot(path)
    route = Route("bench", "small", None, None, (Arm("champion", release, 100.0),))
    now = datetime.now(UTC)
    made: Snapshot = replace(
        before,
        sequence=before.sequence + 1,
        issued_at=now,
        services={"bench/small": route},
        releases={release: releases[release]},
    )
    write_snapshot(path, made)
    return now


def _swap(home: Path, releases: dict[str, Bundle], swaps: list[tuple[datetime, str]], stop: threading.Event) -> None:
    names = list(releases)
    while not stop.wait(EVERY):
        name = names[(len(swaps) + 1) % 2]
        swaps.append((_publish(home, releases, name), name))


def _checked(
    home: Path, models: dict[str, bytes], swaps: list[tuple[datetime, str]], began: datetime
) -> tuple[int, list[float], int]:
    """Return how many records are not what their release makes of their inputs, swap times, and records since."""
    journal = Journal(home / "journal", SystemClock())
    table = journal.table("prediction", "bench", service="small")
    journal.close()
    recorded = np.asarray(table["recorded_at"].to_pylist(), np.int64) / 1e6
    releases = np.asarray(table["release"].to_pylist())
    inputs = np.stack([np.asarray(table[f"x_{name}"].to_pylist(), np.float64) for name in NAMES], axis=1)
    scores = np.asarray(table["score"].to_pylist(), np.float64)
    features = np.stack([np.asarray(table[f"f_{name}"].to_pylist(), np.float32) for name in NAMES], axis=1)
    wrong = np.any(np.abs(features - inputs.astype(np.float32)) > 0, axis=1) | ~np.isin(releases, list(models))
    for number, (release, data) in enumerate(models.items()):
        mine = releases == release
        matrix = inputs[mine].astype(np.float32)
        made = load_model(data, bytes_hash(data), "onnx").score(matrix if number == 0 else matrix[:, ::-1].copy())
        wrong[mine] |= np.abs(np.asarray(made, np.float64) - scores[mine]) > 1e-6
    taken: list[float] = []
    for number, (asked, release) in enumerate(swaps[:-1]):
        window = (recorded >= asked.timestamp()) & (recorded < swaps[number + 1][0].timestamp())
        late = recorded[window & (releases != release)]
        taken.append(float(late.max() - asked.timestamp()) if late.size else 0.0)
    return int(wrong.sum()), taken, int((recorded >= began.timestamp()).sum())


if __name__ == "__main__":
    started = time.monotonic()
    print(json.dumps(run(), indent=2))
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
