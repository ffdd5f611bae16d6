"""Kill the server under 32 writers: every metric that was acknowledged is there afterwards, each once."""

import http.client
import json
import signal
import threading
from pathlib import Path

import pytest

from holdtrue.server.home import read_token
from holdtrue.storage.ledger.verify import verify
from tests.clusters import Cluster
from tests.protocols.mlflow.conftest import start

WRITERS = 32
ENOUGH = 800


@pytest.mark.parametrize("place", ["sqlite", "postgresql"])
def test_sigkill_under_32_writers_loses_no_acknowledged_metric(
    request: pytest.FixtureRequest, tmp_path: Path, place: str
) -> None:
    home = tmp_path / "home"
    where: Path | str = home / "ledger.db"
    environ: dict[str, str] = {}
    if place == "postgresql":
        cluster: Cluster = request.getfixturevalue("cluster")
        where = environ["HOLDTRUE_DATABASE"] = cluster.database()
    process, url = start(home, **environ)
    token = read_token(home)
    assert token is not None
    host = url.removeprefix("http://")
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}

    def call(connection: http.client.HTTPConnection, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        connection.request(method, f"/api/2.0/mlflow/{path}", json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    enough = threading.Event()
    acknowledged: dict[str, list[int]] = {}
    refused: list[bytes] = []
    total = 0
    lock = threading.Lock()

    def write() -> None:
        nonlocal total
        connection = http.client.HTTPConnection(host, timeout=60)
        status, body = call(connection, "POST", "runs/create", {"experiment_id": "0"})
        assert status == 200, body
        run = json.loads(body)["run"]["info"]["run_id"]
        mine = acknowledged.setdefault(run, [])
        for step in range(1_000_000):
            try:
                point = {"run_id": run, "key": "m", "value": step / 3, "timestamp": step, "step": step}
                status, body = call(connection, "POST", "runs/log-metric", point)
            except (OSError, http.client.HTTPException):
                return
            if status != 200:
                refused.append(body)
            mine.append(step)
            with lock:
                total += 1
                if total >= ENOUGH:
                    enough.set()

    writers = [threading.Thread(target=write) for _ in range(WRITERS)]
    for writer in writers:
        writer.start()
    assert enough.wait(120)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    for writer in writers:
        writer.join(60)
    assert refused == []
    assert len(acknowledged) == WRITERS

    process, url = start(home, **environ)
    host = url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=60)
    for run, steps in acknowledged.items():
        status, body = call(connection, "GET", f"metrics/get-history?run_id={run}&metric_key=m")
        assert status == 200, body
        found = [(each["step"], each["value"]) for each in json.loads(body).get("metrics", [])]
        # At most the one request that was under way is there beside what was acknowledged.
        assert [step for step, _ in found][: len(steps)] == steps
        assert len(found) - len(steps) in (0, 1)
        assert all(value == step / 3 for step, value in found)
    connection.close()
    process.terminate()
    assert process.wait(60) == 0
    assert verify(where, (home / "keys" / "ledger.pub").read_text("ascii")).ok
