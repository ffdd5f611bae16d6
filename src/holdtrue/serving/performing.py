"""Measure how a release performs on its real runtime, beside the release that answers now, in one run.

Each gets a data plane of its own: the process that serves in production, with tokens, contract, features and records.
They are started in turn, loaded in turn as fast as they answer, and then at the same rate, half of what the slower one
can do; so what else the machine does meets both alike. Rounds are paired: a ratio is the geometric mean over rounds,
with Student's limits on the logarithms.
"""

import hashlib
import http.client
import os
import platform
import secrets
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import orjson

from holdtrue.core.clock import Clock, SystemClock
from holdtrue.core.errors import ConfigurationError, Unavailable
from holdtrue.serving.driving import Driven, Driver, Order, request_bytes, write_requests
from holdtrue.serving.snapshot import Arm, Bundle, Route, Snapshot, write_snapshot
from holdtrue.stats import typical_ratio
from holdtrue.storage import BlobStore, make_folder

MEASURES: Final[Mapping[str, str]] = {
    "throughput": "requests a second",
    "p50_ms": "the middle time of an answer",
    "p99_ms": "the slowest of a hundred answers",
    "memory_mib": "memory",
    "start_seconds": "the time until it answers",
}
_ALPHA: Final = 0.05
_WARM: Final = 0.2
_START_SECONDS: Final = 60.0
_POLL: Final = 0.01
_NICE: Final = 5


@dataclass(frozen=True, slots=True)
class LoadTest:
    """Say how a release is put to the test: `rounds` of `seconds` each, `connections` at a time, `rows` a request.

    A measure may be `margin` worse than that of the release that answers now (0.25: a quarter) before it counts as a
    regression; each release is started `starts` times.
    """

    seconds: float = 0.3
    rounds: int = 6
    connections: int = 8
    rows: int = 1
    starts: int = 3
    margin: float = 0.25


@dataclass(frozen=True, slots=True)
class Candidate:
    """Hold a release to be measured: its bundle, its model's bytes, and the bodies of requests that it answers."""

    bundle: Bundle
    model: bytes
    bodies: Sequence[bytes]


def check_load_test(plan: LoadTest) -> None:
    """Raise ConfigurationError for a load test that could not be run."""
    checks: tuple[tuple[str, float, bool, str], ...] = (
        ("seconds", plan.seconds, 0.05 <= plan.seconds <= 600, "from 0.05 to 600"),
        ("rounds", plan.rounds, 2 <= plan.rounds <= 1000, "from 2 (an interval needs two) to 1,000"),
        ("connections", plan.connections, 1 <= plan.connections <= 256, "from 1 to 256"),
        ("rows", plan.rows, 1 <= plan.rows <= 10_000, "from 1 to 10,000"),
        ("starts", plan.starts, 2 <= plan.starts <= 20, "from 2 to 20"),
        ("margin", plan.margin, 0 <= plan.margin <= 10, "from 0 to 10"),
    )
    for name, value, good, wanted in checks:
        if not good:
            raise ConfigurationError(
                f"A load test cannot have {name} {value:g}.",
                why=f"It must be {wanted}.",
                mend="Give a value in this range.",
            )


def measure(
    plan: LoadTest,
    mine: Candidate,
    live: Candidate | None,
    folder: Path,
    command: Sequence[str],
    online: Path | None = None,
) -> dict[str, Any]:
    """Run the load test in an empty `folder` and return its evidence.

    `command` starts a data plane and takes `--home` and `--port`; `online` is a copy of the online features. Raises
    Unavailable if a release cannot be brought to answer.
    """
    given = [mine] if live is None else [mine, live]
    trials = [_Trial(each, folder / f"trial-{number}", command, online) for number, each in enumerate(given)]
    try:
        found = _measured(plan, trials)
    finally:
        for each in trials:
            each.stop()
    return evidence_of(plan, found[0], None if live is None else (live.bundle.release, found[1]))


@dataclass(slots=True)
class Measured:
    """Hold what was measured of one release: a value a round for each measure, and requests that failed."""

    values: dict[str, list[float]] = field(default_factory=lambda: {name: list[float]() for name in MEASURES})
    rate: float = 0.0
    sent: int = 0
    failed: int = 0

    def add(self, driven: Driven, **values: float | None) -> None:
        """Take the values of one round in; one that is not known is left out."""
        self.sent += driven.answered + driven.failed
        self.failed += driven.failed
        for name, value in values.items():
            if value is not None:
                self.values[name].append(value)


def _measured(plan: LoadTest, trials: Sequence["_Trial"]) -> list[Measured]:
    found = [Measured() for _ in trials]
    # The first start of all reads files that later ones find in memory.
    trials[0].start()
    for number in range(plan.starts):
        for at in _turn(trials, number):
            trials[at].stop()
            found[at].values["start_seconds"].append(trials[at].start())
    with Driver() as driver:
        for each in trials:
            driver.drive(each.order(plan, seconds=_WARM))
        for number in range(plan.rounds):
            for at in _turn(trials, number):
                driven = driver.drive(trials[at].order(plan, seconds=plan.seconds))
                found[at].add(driven, throughput=driven.rate, memory_mib=trials[at].memory())
        rate = max(min(median(each.values["throughput"]) for each in found) / 2.0, 1.0)
        for number in range(plan.rounds):
            for at in _turn(trials, number):
                driven = driver.drive(trials[at].order(plan, seconds=plan.seconds, rate=rate, seed=number))
                known = driven.answered > 0
                found[at].rate = rate
                found[at].add(driven, p50_ms=driven.p50_ms if known else None, p99_ms=driven.p99_ms if known else None)
    return found


def _turn(trials: Sequence[Any], number: int) -> list[int]:
    """Return the order of a round: who was first before is last now, so that no one always finds the caches warm."""
    order = list(range(len(trials)))
    return order if number % 2 == 0 else order[::-1]


def evidence_of(plan: LoadTest, mine: Measured, live: tuple[str, Measured] | None) -> dict[str, Any]:
    """Return what was measured as evidence; `times` says how many times worse than the live release each measure is.

    A regression is a measure that is surely (all five together at the 5 % level) more than the margin worse.
    """
    failures: list[dict[str, str]] = []
    if mine.failed:
        why = f"{mine.failed} of {mine.sent} requests were not answered with 200."
        failures.append({"what": "requests that fail", "why": why})
    found: dict[str, Any] = {
        **_told(mine),
        "failed": mine.failed,
        "n": plan.rounds,
        "load": {
            "connections": plan.connections,
            "rows": plan.rows,
            "seconds": plan.seconds,
            "rate": mine.rate,
            "requests": mine.sent,
        },
        "machine": {"cores": os.cpu_count() or 1, "system": platform.system(), "python": platform.python_version()},
        "margin": plan.margin,
    }
    if live is not None:
        times = _times(mine, live[1])
        failures += [_regression(name, times[name], plan, live[0]) for name in times if _worse(times[name], plan)]
        found |= {"against": live[0], "live": _told(live[1]), "times": times}
    return {**found, "regressions": len(failures), "failures": failures, "failures_title": "Regressions"}


def _told(found: Measured) -> dict[str, Any]:
    """Return each measure with its 95 % limits; one that the machine does not tell is left out."""
    return {
        name: typical_ratio(np.ones(len(values)), values, _ALPHA).to_json()
        for name, values in found.values.items()
        if values
    }


def _times(mine: Measured, live: Measured) -> dict[str, Any]:
    """Return how many times worse each measure is, with limits of which the lower ones hold together at 5 %."""
    found: dict[str, Any] = {}
    alpha = 2.0 * _ALPHA / len(MEASURES)
    for name, values in mine.values.items():
        rounds = min(len(values), len(live.values[name]))
        if rounds:
            ours, theirs = values[:rounds], live.values[name][:rounds]
            pair = (ours, theirs) if name == "throughput" else (theirs, ours)
            found[name] = typical_ratio(*pair, alpha).to_json()
    return found


def _worse(times: Mapping[str, Any], plan: LoadTest) -> bool:
    return times["lower"] is not None and times["lower"] > 1.0 + plan.margin


def _regression(name: str, times: Mapping[str, Any], plan: LoadTest, live: str) -> dict[str, str]:
    return {
        "what": name,
        "why": f"In {MEASURES[name]} it is {times['value']:.2f} times worse than {live} (surely more than "
        f"{times['lower']:.2f} times), and {1.0 + plan.margin:.2f} times is allowed.",
    }


class _Trial:
    """Guard the data plane of one release: a folder as a control plane leaves it, and the process over it."""

    def __init__(self, candidate: Candidate, home: Path, command: Sequence[str], online: Path | None) -> None:
        self._candidate, self._home = candidate, home
        self._command = command
        self._clock: Clock = SystemClock()
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        bundle = candidate.bundle
        for name in ("blobs", "journal", "routing/acks", "online"):
            make_folder(home / name)
        if online is not None:
            (home / "online" / bundle.project).symlink_to(online, target_is_directory=True)
        self._token = secrets.token_urlsafe(32)
        headers = {"Authorization": f"Bearer {self._token}"}
        path = f"/v2/models/{bundle.service}/infer"
        self._file = write_requests(
            home / "requests.json", [request_bytes("POST", path, body, headers) for body in candidate.bodies]
        )
        self._publish()

    def _publish(self) -> None:
        """Write what a control plane would: the model, who may ask, and the routing snapshot."""
        bundle = self._candidate.bundle
        BlobStore(self._home / "blobs").put(self._candidate.model)
        grant = {
            "sha256": hashlib.sha256(self._token.encode()).hexdigest(),
            "actor": "svc_load",
            "project": bundle.project,
            "permissions": ["predict"],
            "expires_at": None,
        }
        access = {"policy_version": 1, "tokens": {"load": grant}}
        (self._home / "routing" / "access.json").write_bytes(orjson.dumps(access))
        route = Route(bundle.project, bundle.service, None, None, (Arm("champion", bundle.release, 100.0),))
        services = {f"{bundle.project}/{bundle.service}": route}
        snapshot = Snapshot(1, datetime.now(UTC), services, {bundle.release: bundle})
        write_snapshot(self._home / "routing" / "current.json", snapshot)

    def start(self) -> float:
        """Start the process and return the seconds until it is ready to answer; raise Unavailable if it is not."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        # Settings of this process's own home and addresses are not those of the trial.
        environ = {name: value for name, value in os.environ.items() if not name.startswith("HOLDTRUE_")}
        said = self._home / "said"
        began = self._clock.monotonic()
        with said.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and module, no shell
                [*self._command, "--home", str(self._home), "--port", str(self._port)],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        # What answers people on this machine goes first.
        os.setpriority(os.PRIO_PROCESS, self._process.pid, _NICE)
        while not self._ready():
            seconds = self._clock.monotonic() - began
            if self._ended() or seconds > _START_SECONDS:
                words = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise Unavailable(
                    f"The release {self._candidate.bundle.release} could not be brought to answer, so nothing was "
                    "measured.",
                    why=words[-1][:500] if words else f"It was not ready after {seconds:.0f} seconds.",
                    mend="Serve it alone to see why: holdtrue up",
                )
        return self._clock.monotonic() - began

    def _ended(self) -> bool:
        """Wait a moment; tell whether the process has ended meanwhile."""
        assert self._process is not None
        try:
            self._process.wait(_POLL)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=2.0)
        headers = {"authorization": f"Bearer {self._token}"}
        try:
            connection.request("GET", f"/v2/models/{self._candidate.bundle.service}/ready", headers=headers)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def order(self, plan: LoadTest, *, seconds: float, rate: float = 0.0, seed: int = 0) -> Order:
        """Return the order that loads this release."""
        return Order(self._port, str(self._file), plan.connections, seconds, rate=rate, seed=seed)

    def memory(self) -> float | None:
        """Return the resident memory of all its processes in MiB, None where the machine does not tell."""
        assert self._process is not None
        pages = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                # The name in parentheses may hold anything; the fields after it are numbers (proc(5)).
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == self._process.pid:
                pages += int(fields[21])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20 if pages else None

    def stop(self) -> None:
        """End the process; one that does not end is killed."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None
