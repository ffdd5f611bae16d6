"""A data folder as a control plane leaves it, and the real data plane process over it."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from holdtrue.core.clock import SystemClock
from holdtrue.features import FeatureSet, Latest, Trailing, category, numeric
from holdtrue.serving import Arm, Bundle, Input, ModelFile, Route, Snapshot, write_snapshot
from holdtrue.storage import BlobStore, FileClock, Journal

TOKEN = "ht_svc_test_0000000000000000000000000000000000000000000_000000"
OTHER = "ht_svc_other_000000000000000000000000000000000000000000_000000"
ROOT = "ht_usr_root_0000000000000000000000000000000000000000000_000000"
PROJECT, SERVICE = "flights", "delay"
START = datetime(2013, 3, 1, 12, tzinfo=UTC)
WEATHER = Latest("weather", "weather", "origin", "observed_at", ("temp", "wind"), ttl="6h")
TRAILING = Trailing("route", "arrivals", "origin", "known_at", "delay", ("mean", "count"))
FEATURES = FeatureSet(
    views=(WEATHER, TRAILING),
    expressions=(numeric("distance"), category("carrier")),
    vocabularies={"carrier": ("AA", "UA")},
)
INPUTS = (
    Input("flight_id", "BYTES"),
    Input("origin", "BYTES"),
    Input("carrier", "BYTES"),
    Input("distance", "FP64"),
    Input("scheduled", "BYTES"),
)
CONTRACT = {
    "columns": [
        {"name": "flight_id", "dtype": "string"},
        {"name": "origin", "dtype": "string", "isin": ["EWR", "JFK", "LGA"]},
        {"name": "distance", "dtype": "float64", "nullable": True, "ge": 0},
        {"name": "scheduled", "dtype": "timestamp"},
        {"name": "late", "dtype": "bool"},
    ]
}


def free_port() -> int:
    """Return a port that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Home:
    """A data folder, and the moves of the control plane that a data plane notices."""

    path: Path
    models: Mapping[str, bytes]
    blobs: BlobStore
    clock: FileClock
    sequence: int = 0
    processes: list["Process"] = field(default_factory=list["Process"])

    def bundle(self, release: str, model: str, **changes: Any) -> Bundle:
        """Return the bundle of a release whose model is in the blob store."""
        bundle = Bundle(
            release=release,
            project=PROJECT,
            service=SERVICE,
            inputs=INPUTS,
            contract=CONTRACT,
            features=FEATURES.to_json(),
            model=ModelFile("onnx", self.blobs.put(self.models[model])),
            output="late",
            prediction_time="scheduled",
        )
        return replace(bundle, **changes)

    def publish(
        self, *bundles: Bundle, others: Sequence[str] = (), apart: Mapping[str, str] | None = None, **changes: Any
    ) -> Snapshot:
        """Write the next snapshot: one service, the first bundle answering unless `changes` say otherwise.

        Each release in `others` answers for a service of its own, each in `apart` in the environment that it stands by.
        """
        self.sequence += 1
        route = Route(
            project=PROJECT,
            service=SERVICE,
            key="flight_id",
            entity="flight_id",
            arms=(Arm("champion", bundles[0].release, 100.0),),
            seed="rollout-1",
            fallback=0.25,
        )
        services = {f"{PROJECT}/{SERVICE}": replace(route, **changes)}
        for bundle in bundles:
            if bundle.release in others:
                own = replace(route, service=bundle.service, arms=(Arm("champion", bundle.release, 100.0),))
                services[f"{PROJECT}/{bundle.service}"] = own
        for environment, release in (apart or {}).items():
            own = replace(route, environment=environment, named=True, arms=(Arm("champion", release, 100.0),))
            services[f"{PROJECT}/{own.name}"] = own
        snapshot = Snapshot(
            sequence=self.sequence,
            issued_at=self.clock.now(),
            services=services,
            releases={bundle.release: bundle for bundle in bundles},
        )
        write_snapshot(self.path / "routing" / "current.json", snapshot)
        return snapshot

    def publish_more(self, bundles: Sequence[Bundle], **changes: Any) -> Snapshot:
        """Write the next snapshot: each release answers for the service of its bundle, without key or entity."""
        self.sequence += 1
        services: dict[str, Route] = {}
        for each in bundles:
            route = Route(each.project, each.service, None, None, (Arm("champion", each.release, 100.0),))
            services[f"{each.project}/{each.service}"] = replace(route, **changes)
        releases = {each.release: each for each in bundles}
        snapshot = Snapshot(self.sequence, self.clock.now(), services, releases)
        write_snapshot(self.path / "routing" / "current.json", snapshot)
        return snapshot

    def grant(self, tokens: Mapping[str, Mapping[str, Any]]) -> None:
        """Write the access file for these credentials."""
        entries = {
            f"token-{number}": {
                "sha256": hashlib.sha256(secret.encode()).hexdigest(),
                "actor": "svc_test",
                "project": PROJECT,
                "permissions": ["predict", "labels.write", "events.write"],
                "expires_at": None,
                **changes,
            }
            for number, (secret, changes) in enumerate(tokens.items())
        }
        path = self.path / "routing" / "access.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"policy_version": 1, "tokens": entries}))
        temporary.replace(path)

    def records(self, kind: str, service: str = SERVICE) -> list[dict[str, Any]]:
        """Return the records of a kind, as the control plane reads them."""
        journal = Journal(self.path / "journal", SystemClock())
        try:
            return journal.table(kind, PROJECT, service=service).to_pylist()
        finally:
            journal.close()

    def acks(self) -> dict[str, Any]:
        """Return the ack of the first worker, or nothing yet."""
        path = self.path / "routing" / "acks" / "dataplane-0.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def start(self, *arguments: str, **variables: str) -> "Process":
        """Start the real data plane and wait until it answers."""
        process = Process.start(self, arguments, variables)
        self.processes.append(process)
        return process


@dataclass
class Process:
    """A running data plane."""

    home: Home
    popen: "subprocess.Popen[bytes]"
    client: httpx.Client
    port: int

    @classmethod
    def start(
        cls, home: Home, arguments: tuple[str, ...], variables: Mapping[str, str], stderr: Any = None
    ) -> "Process":
        port = free_port()
        command = [sys.executable, "-m", "holdtrue.server.dataplane", "--home", str(home.path)]
        command += ["--port", str(port), "--clock", str(home.path / "clock"), *arguments]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HOLDTRUE_")}
        popen = subprocess.Popen(command, env={**environment, **variables}, stderr=stderr, start_new_session=True)
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {TOKEN}"}, timeout=20
        )
        process = cls(home, popen, client, port)
        process.until(process.alive)
        return process

    def alive(self) -> bool:
        assert self.popen.poll() is None, "the data plane ended"
        try:
            return self.client.get("/health/live").status_code == 200
        except httpx.TransportError:
            return False

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition that another process brings about."""
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.02)

    def until_acked(self) -> dict[str, Any]:
        """Wait until the worker has taken over the newest snapshot, and return its ack."""
        self.until(lambda: self.home.acks().get("sequence") == self.home.sequence)
        return self.home.acks()

    def infer(self, rows: list[dict[str, Any]], path: str = f"/v2/models/{SERVICE}/infer", **extra: Any) -> Any:
        """Send an inference request and return its response."""
        return self.client.post(path, json={**infer_body(rows), **extra})

    def stop(self) -> int:
        """Stop in order and return the exit code."""
        self.client.close()
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(20)

    def kill(self) -> None:
        """Kill the whole process group at once."""
        self.client.close()
        os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(20)


def infer_body(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the body of an inference request: one tensor per input."""
    return {
        "inputs": [
            {
                "name": each.name,
                "shape": [len(rows)],
                "datatype": each.datatype,
                "data": [row[each.name] for row in rows],
            }
            for each in INPUTS
        ]
    }


def flight(number: int, **changes: Any) -> dict[str, Any]:
    """Return one row of a request."""
    row = {
        "flight_id": f"flight-{number}",
        "origin": ("EWR", "JFK", "LGA")[number % 3],
        "carrier": ("AA", "UA", "ZZ")[number % 3],
        "distance": 100.0 + number,
        "scheduled": "2013-03-01T12:00:00Z",
    }
    return {**row, **changes}
