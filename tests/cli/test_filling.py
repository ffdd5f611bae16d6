"""`holdtrue up` keeps feature views filled: before a release is live, up to that moment, and after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdtrue.core.clock import microseconds
from holdtrue.features import FeatureSet, open_online
from holdtrue.server.client import Client
from holdtrue.server.home import read_token
from holdtrue.storage import FileClock
from tests.cli.test_features import CHANGES
from tests.cli.toys import edited, succeed, toy_folder

BASE = "/api/projects/toy"
START = datetime(2024, 1, 26, tzinfo=UTC)
_SLOW = (
    'def sales(given):\n    return "SELECT',
    """def sales(given):
    import pathlib, time
    if pathlib.Path("hold").exists():
        pathlib.Path("held").touch()
        while pathlib.Path("hold").exists():
            time.sleep(0.01)
    return "SELECT""",
)


@dataclass
class _Up:
    """A running `holdtrue up` on a clock of its own."""

    folder: Path
    process: subprocess.Popen[str]
    client: Client
    clock: FileClock
    data_url: str
    online: str

    def due(self) -> None:
        self.client.post("/api/operations/run-due")

    def jobs(self) -> list[dict[str, Any]]:
        return self.client.get(f"{BASE}/jobs", kind="materialize")["items"]

    def filled(self, jobs: int) -> list[dict[str, Any]]:
        """Wait until so many fills are done, and return them, newest first."""
        until(lambda: [each["state"] for each in self.jobs()] == ["done"] * jobs)
        return self.jobs()

    def send(self, id: str, at: str, amount: float) -> None:
        columns = {"id": [id], "shop": ["a"], "asked_at": [at], "amount": [amount], "happened": [True]}
        headers = {"authorization": f"Bearer {read_token(self.folder / '.holdtrue')}"}
        answer = httpx.post(
            f"{self.data_url}/events/sales",
            json={"columns": columns},
            headers={**headers, "x-holdtrue-project": "toy"},
        )
        assert answer.status_code == 200, answer.text

    def known(self, release: str, at: datetime) -> dict[str, float]:
        pinned = self.client.get(f"{BASE}/releases/{release}")["manifest"]["versions"]["features"]
        features = FeatureSet.from_json(self.client.get(f"{BASE}/versions/{pinned}")["content"])
        with closing(open_online(self.folder / ".holdtrue" / "online", "toy", self.online)) as store:
            found = store.lookup(features.views, {"shop": ["a"]}, [microseconds(at)])
        return {name: float(values[0]) for name, values in found.items()}

    def worker(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        named = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
        return next(pid for pid, line in named.items() if b"holdtrue.server.worker" in line)


def until(true: Callable[[], bool]) -> None:
    """Look again and again until something outside of this process is so."""
    end = time.monotonic() + 60.0
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture(params=["lmdb", "redis"])
def online(request: pytest.FixtureRequest) -> str:
    """The address of the server that keeps online features; none for a file."""
    return "" if request.param == "lmdb" else request.getfixturevalue("redis_address")


@pytest.fixture
def running(tmp_path: Path, online: str) -> Iterator[_Up]:
    """A service whose second release brings views and has just been made, under a server that has no row online."""
    folder = toy_folder(tmp_path)
    without = [each for each in CHANGES if not each[0].startswith("features=")]
    edited(folder, *without)
    succeed("run", "-w", "2024-01", cwd=folder)
    (release,) = json.loads(succeed("releases", "--json", cwd=folder))
    succeed("promote", "happens", release["id"], cwd=folder)
    edited(folder, *CHANGES, _SLOW)
    succeed("run", "-w", "2024-01", cwd=folder)
    clock = FileClock(folder / "clock", START)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HOLDTRUE_")}
    arguments = ["--home", str(folder / ".holdtrue"), "--port", "0", "--file", "project.py", "--clock", "clock"]
    process = subprocess.Popen(
        [sys.executable, "-m", "holdtrue.server.up", *arguments],
        cwd=folder,
        env={**clean, "HOLDTRUE_ONLINE_STORE": online},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = next((line.split()[1] for line in process.stdout if line.startswith("ready ")), "")
        assert url
        port = int(url.rsplit(":", 1)[1])
        with Client.open(folder / ".holdtrue") as client:
            yield _Up(folder, process, client, clock, f"http://127.0.0.1:{port + 1}", online)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()
        clock.close()


@pytest.mark.long
def test_what_comes_before_a_release_is_live_is_online_when_it_is_also_after_a_kill(running: _Up) -> None:
    # The windows that were accepted are taken without being asked; killed in the middle, it goes on in the next worker.
    (running.folder / "hold").touch()
    running.due()
    until((running.folder / "held").exists)
    os.kill(running.worker(), signal.SIGKILL)
    (running.folder / "hold").unlink()
    running.clock.set(START + timedelta(minutes=6))
    (first,) = running.filled(1)
    assert first["attempts"] == 2
    assert [each["new"] for each in first["result"]["taken"]] == [242, 217]
    # No data plane knows the view yet: events are recorded as they are sent, and taken in within the view's span.
    running.send("e1", "2024-01-26T00:05:00Z", 5.0)
    running.send("e1", "2024-01-26T00:05:00Z", 5.0)
    running.clock.set(START + timedelta(minutes=30))
    running.due()
    second = running.filled(2)[0]
    assert [each["events"] for each in second["result"]["taken"]] == [1, 1]
    # Between the last fill and the moment at which it is live something comes, too.
    running.send("e2", "2024-01-26T00:31:00Z", 7.0)
    newest = running.client.get(f"{BASE}/releases")["items"][0]["id"]
    running.client.post(f"{BASE}/services/happens/promote", {"release": newest, "environment": "production"})
    until(lambda: running.due() or len(running.jobs()) == 3)
    assert running.filled(3)[0]["payload"]["waiting"] == []
    running.send("e3", "2024-01-26T00:32:00Z", 9.0)
    known = running.known(newest, START + timedelta(minutes=33))
    assert known["last_amount"] == 9.0
    # 48 hours before the hour began have 24 rows of the shop, and three came since.
    assert known["past_count"] == known["past_distinct"] == 27.0
    running.due()
    assert len(running.jobs()) == 3
    assert running.client.get(f"{BASE}/incidents")["items"] == []
