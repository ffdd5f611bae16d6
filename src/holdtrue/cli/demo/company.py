"""The people and processes of the demo: a real server, and a client for each of those who use it."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from holdtrue.cli.demo.plane import Plane
from holdtrue.core.errors import HoldtrueError, Unavailable
from holdtrue.server.client import Client
from holdtrue.storage import FileClock

PROJECT = "flight-delays"
SERVICE = "delay"
BASE = f"/api/projects/{PROJECT}"
_KEPT = ("blobs", "actions")
_CONNECTIONS = ("events", "labels", "predictions")
_WAIT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Company:
    """Hold the clock and one client each: who owns the machine, who trains, who reviews, who operates."""

    home: Path
    clock: FileClock
    owner: Client
    ada: Client
    grace: Client
    otto: Client
    planes: Mapping[str, Plane]

    @property
    def requests(self) -> int:
        """Return how many requests the data plane answered."""
        return sum(each.requests for each in self.planes.values())

    def run_due(self) -> None:
        """Let the control plane do all work that is due, until data planes serve what it wishes for.

        An hour of simulated time is a few milliseconds here, so whoever moves the clock waits for them.
        """
        before = self._sequence("current.json")
        self._due()
        while self._sequence("current.json") != before:
            before = self._sequence("current.json")
            self._wait_for_planes(before)
            self._due()

    def _sequence(self, name: str) -> int:
        path = self.home / "routing" / name
        return int(orjson.loads(path.read_bytes())["sequence"]) if path.exists() else 0

    def _wait_for_planes(self, sequence: int) -> None:
        self.wait_until(lambda: self._acknowledged() >= sequence, "the data plane loads a snapshot")

    def _acknowledged(self) -> int:
        acks = [each.name for each in (self.home / "routing" / "acks").glob("*.json")]
        return min((self._sequence(f"acks/{name}") for name in acks), default=0)

    def _due(self) -> dict[str, Any]:
        report = self.otto.post("/api/operations/run-due")
        for duty in report["projects"].get(PROJECT, []):
            if duty["error"]:
                raise Unavailable(
                    f"The work “{duty['work']}” failed: {duty['error']['what']}",
                    mend="Look at up.log in the demo's folder.",
                )
        return report

    def wait_for_jobs(self) -> None:
        """Wait until the worker has ended every open job; a job that was put aside is an error."""
        until, pause = time.monotonic() + _WAIT_SECONDS, 0.03
        while time.monotonic() < until:
            jobs = self.ada.get(f"{BASE}/jobs")["items"]
            dead = [job for job in jobs if job["state"] == "dead"]
            if dead:
                raise Unavailable(f"The job {dead[0]['kind']} could not be done.", why=dead[0]["reason"])
            if all(job["state"] == "done" for job in jobs):
                return
            # Who asks all the time takes time from the training that is waited for.
            time.sleep(pause)
            pause = min(1.5 * pause, 0.3)
        raise Unavailable("The worker has not ended its jobs in time.", mend="Look at up.log in the demo's folder.")

    def wait_until(self, ready: Callable[[], bool], what: str) -> None:
        """Wait for something that another process is about to do."""
        until = time.monotonic() + _WAIT_SECONDS
        while not ready():
            if time.monotonic() > until:
                raise Unavailable(f"Waited in vain: {what}.", mend="Look at up.log in the demo's folder.")
            time.sleep(0.02)


def fresh_home(folder: Path) -> Path:
    """Return the demo's data folder as on the first day, but with the results of steps run before."""
    home = folder / "home"
    if home.is_dir():
        for each in home.iterdir():
            if each.name not in _KEPT:
                shutil.rmtree(each) if each.is_dir() else each.unlink()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return home


@contextlib.contextmanager
def company(folder: Path, file: Path, inbox: Path, start: datetime) -> Generator[Company]:
    """Start real processes on a simulated clock and give a client to each person; stop them at the end."""
    home = fresh_home(folder)
    clock = FileClock(folder / "clock", start)
    clock.set(start)
    environ = {**os.environ, "FLIGHTS_DELIVERIES": str(inbox), "HOLDTRUE_RECORDS": "fast"}
    command = [sys.executable, "-m", "holdtrue.server.up", "--home", str(home), "--port", "0"]
    command += ["--file", str(file), "--clock", str(folder / "clock")]
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environ, text=True)  # noqa: S603
        try:
            url = _ready(process, folder)
            yield from _staff(home, clock, url)
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()


def _ready(process: subprocess.Popen[str], folder: Path) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("ready "):
            return line.split()[1]
    raise Unavailable(
        "The demo's server did not start.",
        why=(folder / "up.log").read_text(errors="replace")[-600:],
        mend="Mend what the log says, then run the demo again.",
    )


def _staff(home: Path, clock: FileClock, url: str) -> Iterator[Company]:
    with contextlib.ExitStack() as stack:
        owner = stack.enter_context(Client.open(home))

        def person(name: str, *roles: str) -> Client:
            made = owner.post("/api/tokens", {"name": name, "roles": roles, "project": PROJECT})
            return stack.enter_context(Client.at(url, made["token"]))

        airport = owner.post("/api/tokens", {"name": "airport", "roles": ["service"], "project": PROJECT})
        port = int(url.rsplit(":", 1)[1]) + 1
        yield Company(
            home,
            clock,
            owner,
            ada=person("ada", "developer"),
            grace=person("grace", "reviewer"),
            otto=person("otto", "operator"),
            # One kept connection for each kind of message: what becomes known in an hour is sent at once.
            planes={name: stack.enter_context(Plane(port, airport["token"])) for name in _CONNECTIONS},
        )


def quiet(work: Callable[[], Any]) -> Any:
    """Return what `work` returns, or None if it is refused: for what may not be there yet."""
    try:
        return work()
    except HoldtrueError:
        return None
