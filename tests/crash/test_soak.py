"""Kill workers and the control plane under load: only what a killed worker held fails, and no record is lost."""

import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from holdtrue.core.clock import SystemClock
from holdtrue.server.home import read_token
from holdtrue.server.ports import free_ports
from holdtrue.storage.journal import Journal
from tests.cli.toys import succeed, toy_folder
from tests.crash.soak import CONTROL, PLANE, Soak, processes, soak

SEED = int(os.environ.get("CRASH_SEED", secrets.randbits(32)))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, "subprocess.Popen[str]", int]]:
    """A released model that answers behind `holdtrue up` with two data plane workers, records in strict mode."""
    folder = toy_folder(tmp_path)
    made = json.loads(succeed("run", "happens", "--window", "2030-02", "--window", "2030-03", "--json", cwd=folder))
    succeed("promote", "happens", made["release"], cwd=folder)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HOLDTRUE_")}
    port = free_ports("127.0.0.1")
    process = subprocess.Popen(
        [sys.executable, "-m", "holdtrue", "up", "--port", str(port)],
        cwd=folder,
        env={**clean, "HOLDTRUE_DATA_WORKERS": "2", "HOLDTRUE_RECORDS": "strict"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert any(line.startswith("ready ") for line in process.stdout)
    _until(lambda: _served_by_both(folder))
    yield folder, process, port
    if process.poll() is None:
        process.terminate()
    process.wait(60)
    process.stdout.close()


def run(folder: Path, process: "subprocess.Popen[str]", port: int, seconds: float) -> Soak:
    """Soak, stop everything in order, and hold what was answered against the journal."""
    token = read_token(folder / ".holdtrue")
    assert token is not None
    load = Soak(port + 1, token, "toy", "happens")
    print(f"CRASH_SEED={SEED}")
    asyncio.run(soak(load, process.pid, seconds=seconds, clients=8, seed=SEED))

    assert load.unexplained() == []
    # After the last kill everything comes back by itself.
    _until(lambda: _whole(process.pid, port))
    process.terminate()
    assert process.wait(60) == 0
    journal = Journal(folder / ".holdtrue" / "journal", SystemClock())
    kept = set(journal.table("prediction", "toy", service="happens")["id"].to_pylist())
    journal.close()
    assert load.answered() - kept == set()
    succeed("audit", "verify", cwd=folder)
    return load


def _until(condition: Callable[[], bool]) -> None:
    """Wait for what other processes bring about."""
    clock = SystemClock().monotonic
    until = clock() + 60
    while not condition():
        assert clock() < until, "it did not happen"
        time.sleep(0.05)


def _served_by_both(folder: Path) -> bool:
    """Tell whether both workers have taken the release over."""
    acks = [json.loads(path.read_bytes()) for path in (folder / ".holdtrue" / "routing" / "acks").glob("*.json")]
    return len(acks) == 2 and all(each["releases"] for each in acks)


def _whole(up: int, port: int) -> bool:
    """Tell whether control plane and data plane answer, and both workers are there."""
    present = processes(up)
    try:
        ready = all(
            httpx.get(f"http://127.0.0.1:{port + each}/health/ready", timeout=2).status_code == 200 for each in (0, 1)
        )
    except httpx.TransportError:
        return False
    return ready and len(present[CONTROL]) == 1 and len(present[PLANE]) == 2


def test_a_few_kills_under_load_lose_nothing(served: tuple[Path, "subprocess.Popen[str]", int]) -> None:
    load = run(*served, seconds=5.0)
    assert load.kills[PLANE] > 0
    assert len(load.answered()) > 100


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_ten_minutes_of_kills_under_load_lose_nothing(served: tuple[Path, "subprocess.Popen[str]", int]) -> None:
    """SOAK_SECONDS shortens it; what it found is printed."""
    seconds = float(os.environ.get("SOAK_SECONDS", "600"))
    load = run(*served, seconds=seconds)
    failed = sum(bool(each.failure) for each in load.attempts)
    print(f"{len(load.answered())} answered, {failed} in flight in a killed worker failed, kills: {dict(load.kills)}")
    assert load.kills[PLANE] > seconds / 4
    assert load.kills[CONTROL] > seconds / 20
