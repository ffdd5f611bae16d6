"""Kill the server under 32 writers: every metric that was acknowledged is there afterwards, each once.

Half of them log one at a time, half so many at once that the batch is kept as it came.
"""

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

WRITERS, BATCH = 32, 100
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
    widths: dict[str, int] = {}
    refused: list[bytes] = []
    total = 0
    lock = threading.Lock()

    def write(width: int) -> None:
        nonlocal total
        connection = http.client.HTTPConnection(host, timeout=60)
        status, body = call(connection, "POST", "runs/create", {"experiment_id": "0"})
        assert status == 200, body
        run = json.loads(body)["run"]["info"]["run_id"]
        mine = acknowledged.setdefault(run, [])
        widths[run] = width
        for first in range(0, 1_000_000, width):
            steps = range(first, first + width)
            points = [{"key": "m", "value": step / 3, "timestamp": step, "step": step} for step in steps]
            try:
                if width == 1:
                    status, body = call(connection, "POST", "runs/log-metric", {"run_id": run, **points[0]})
                else:
                    status, body = call(connection, "POST", "runs/log-batch", {"run_id": run, "metrics": points})
            except (OSError, http.client.HTTPException):
                return
            if status != 200:
                refused.append(body)
            mine += steps
            with lock:
                total += 1
                if total >= ENOUGH:
                    enough.set()

    writers = [threading.Thread(target=write, args=((1, BATCH)[each % 2],)) for each in range(WRITERS)]
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
        assert len(found) - len(steps) in (0, widths[run])
        assert all(value == step / 3 for step, value in found)
    connection.close()
    process.terminate()
    assert process.wait(60) == 0
    assert verify(where, (home / "keys" / "ledger.pub").read_text("ascii")).ok
