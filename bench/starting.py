"""What a user waits for before anything happens: import, and a server that answers."""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.rows import own_row


def run() -> list[dict[str, Any]]:
    """Measure in fresh processes; the import is the difference to an interpreter that imports nothing."""
    bare = _median([_process(["-c", "pass"]) for _ in range(9)])
    imported = _median([_process(["-c", "import holdtrue"]) for _ in range(9)])
    ready = _median([_ready() for _ in range(5)])
    return [
        own_row("starting", "import holdtrue", "ms", (imported - bare) * 1000, 100.0),
        own_row("starting", "up until it answers", "s", ready, 2.0),
    ]


def _median(values: list[float]) -> float:
    return statistics.median(values)


def _process(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True)
    return time.perf_counter() - start


def _ready() -> float:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "holdtrue", "up", "--home", str(home), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "HOLDTRUE_HOME": str(home)},
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("ready "):
                break
        seconds = time.perf_counter() - start
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        return seconds
