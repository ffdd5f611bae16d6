"""What answers where a deployed model raises, hangs, dies or is corrupted: the release before, or another service."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdtrue.core.clock import SystemClock
from holdtrue.server.ports import free_ports
from holdtrue.storage import Journal
from tests.cli.toys import TEXT, succeed, toy_folder

SCORER = """
import os
import time

import numpy as np


class Scorer:
    def __init__(self, files):
        self.slope, self.bias = np.frombuffer(files["line"], np.float32)

    def predict(self, X):
        worst = float(X[:, 0].max())
        if worst > 70:
            os._exit(3)
        if worst > 60:
            time.sleep(60)
        if worst > 50:
            raise ValueError("spoilt")
        return 1 / (1 + np.exp(-(self.slope * X[:, 0] + self.bias)))
"""
FIT = '    return LogisticRegression(C=params.get("C", 1.0)).fit(train.X, train.y)\n'
CODE = """    import numpy
    import scorer

    line = LogisticRegression().fit(train.X, train.y)
    files = {"line": numpy.array([line.coef_[0, 0], line.intercept_[0]], "float32").tobytes()}
    return ht.PythonModel(scorer.Scorer, files=files, seconds=0.5)
"""
SIMPLE = """

@project.model(dataset=rows, label="simply", outcome="happened", time="asked_at", features=[ht.numeric("amount")])
def simple(train, params):
    return LogisticRegression(C=0.01).fit(train.X, train.y)


project.service(
    simple,
    key="id",
    entity="id",
    inputs={"id": "BYTES", "asked_at": "INT64", "amount": "FP64"},
    rollout=ht.Canary(),
)
"""


def text(backup: str, *, code: bool) -> str:
    """Return the project file with a service whose model is code or not, and what stands behind it."""
    plain = TEXT.replace(
        "    rollout=ht.Canary(),\n", f"    rollout=ht.BlueGreen(margin=0.9, min_rows=5),\n    {backup}", 1
    )
    assert FIT in plain
    return (plain.replace(FIT, CODE) if code else plain) + SIMPLE


@contextmanager
def up(folder: Path) -> Generator[int]:
    """Run `holdtrue up` in a folder until the block ends; give its first port."""
    port = free_ports("127.0.0.1")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HOLDTRUE_")}
    with (folder / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "holdtrue", "up", "--port", str(port)],
            cwd=folder,
            env={**clean, "HOLDTRUE_MODEL_CODE": "isolated"},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    try:
        assert any(line.startswith("ready ") for line in process.stdout), (folder / "errors").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def until(condition: Callable[[], Any]) -> Any:
    """Wait for what other processes bring about."""
    deadline = time.monotonic() + 90
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)
    return found


def ask(client: httpx.Client, amount: float, id: str = "x") -> Any:
    """Return the answer to one row."""
    row = {"id": id, "asked_at": 1_900_000_000_000_000, "amount": amount}
    return client.post("/predict/happens", json=row)


def record(folder: Path, answer: Any) -> dict[str, Any]:
    """Return what was recorded of an answer."""
    journal = Journal(folder / ".holdtrue" / "journal", SystemClock())
    try:
        rows = journal.table("prediction", "toy", service="happens").to_pylist()
    finally:
        journal.close()
    return next(each for each in rows if each["id"] == answer["prediction_id"])


def deployed(folder: Path, service: str) -> str:
    """Return the release that is deployed of a service."""
    status = json.loads(succeed("status", "--json", cwd=folder))
    found = next(each for each in status["services"] if each["name"] == service)
    return found["deployments"][0]["release"]


@pytest.mark.long
def test_the_release_before_or_another_service_answers_and_the_record_says_so(tmp_path: Path) -> None:
    folder = toy_folder(tmp_path, text('fallback="previous",\n', code=False))
    (folder / "scorer.py").write_text(SCORER, encoding="utf-8")
    allowed = {"HOLDTRUE_MODEL_CODE": "isolated"}
    with up(folder) as port:
        succeed("apply", cwd=folder)
        succeed("run", "--ingest", "rows", "--window", "2031-02", cwd=folder)
        first = {
            name: json.loads(succeed("run", name, "--json", cwd=folder))["release"] for name in ("happens", "simple")
        }
        for name, release in first.items():
            succeed("promote", name, release, cwd=folder)
        made = succeed("token", "create", "--role", "service", "--project", "toy", "--json", cwd=folder)
        headers = {"authorization": f"Bearer {json.loads(made)['token']}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port + 1}", headers=headers, timeout=30) as client:
            until(lambda: ask(client, 0.0).status_code == 200)
            (folder / "project.py").write_text(text('fallback="previous",\n', code=True), encoding="utf-8")
            second = json.loads(succeed("run", "happens", "--json", cwd=folder, **allowed))["release"]
            succeed("promote", "happens", second, cwd=folder)
            _carry(client, folder, second)
            _misbehave(client, folder, second, first["happens"])
            (folder / "project.py").write_text(text('fallback="simple",\n', code=True), encoding="utf-8")
            succeed("apply", cwd=folder)
            until(lambda: record(folder, ask(client, 55.0).json())["fallback_release"] == first["simple"])
            _misbehave(client, folder, second, first["simple"])
    digest = _spoil(folder)
    with (
        up(folder) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port + 1}", headers=headers, timeout=30) as client,
    ):
        answer = until(lambda: (found := ask(client, 0.5)).status_code == 200 and found.json())
        assert answer["release"] in (first["happens"], second), digest
        kept = record(folder, answer)
        if answer["release"] == second:
            assert (kept["fallback"], kept["fallback_release"]) == (True, first["simple"])


def _carry(client: httpx.Client, folder: Path, release: str) -> None:
    """Send rows and their labels until the release has taken over."""
    count = iter(range(100_000))

    def step() -> bool:
        rows = [{"id": f"k{next(count)}", "asked_at": 1_900_000_000_000_000, "amount": 1.0} for _ in range(20)]
        assert client.post("/predict/happens", json=rows).status_code == 200
        labels = {"service": "happens", "labels": [{"key": each["id"], "value": True} for each in rows]}
        assert client.post("/labels", json=labels).status_code == 200
        return deployed(folder, "happens") == release

    until(step)
    until(lambda: ask(client, 0.0).json()["release"] == release)


def _misbehave(client: httpx.Client, folder: Path, release: str, rescuer: str) -> None:
    """Let the model raise, hang and die, and see that the other release answers each time."""
    for amount in (55.0, 65.0, 75.0):
        response = ask(client, amount)
        assert response.status_code == 200, response.text
        answer = response.json()
        assert (answer["release"], answer["fallback"]) == (release, True)
        assert answer["outputs"]["happens"] > 0.9
        kept = record(folder, answer)
        assert (kept["release"], kept["fallback"], kept["fallback_release"]) == (release, True, rescuer)
        # What comes after it is the model's own again.
        assert until(lambda: "fallback" not in (after := ask(client, 0.5).json()) and after)["release"] == release


def _spoil(folder: Path) -> str:
    """Overwrite the file of the deployed model of `happens`; return its digest."""
    routing = json.loads((folder / ".holdtrue" / "routing" / "current.json").read_text())
    release = routing["services"]["toy/happens"]["arms"][0]["release"]
    digest: str = routing["releases"][release]["model"]["digest"]
    (found,) = [
        path
        for path in (folder / ".holdtrue" / "blobs").rglob("*")
        if path.is_file() and path.name.endswith(digest[-20:])
    ]
    found.chmod(0o600)
    found.write_bytes(b"spoilt")
    return digest
