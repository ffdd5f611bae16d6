"""`holdtrue stop` and `resume` beside the real processes: seconds until they hold, and with the control plane down."""

import json
import os
import select
import signal
import time
from pathlib import Path

import httpx
import pytest

from holdtrue.server.home import read_address
from tests.cli.test_serving import X, served, write
from tests.cli.toys import succeed

ROW = dict(zip(("X_0", "X_1", "X_2"), map(float, X[0]), strict=True))
STOP = ("stop", "credit", "--environment", "dev", "--home", "home")


def until(client: httpx.Client, arm: str) -> tuple[httpx.Response, float]:
    """Ask until an answer is of this arm; return it, and how long that took."""
    began = time.monotonic()
    while True:
        answer = client.post("/predict", json=ROW)
        if answer.status_code == 200 and answer.json()["arm"] == arm:
            return answer, time.monotonic() - began
        assert time.monotonic() < began + 30, answer.text


def token(folder: Path) -> dict[str, str]:
    made = succeed(
        "token", "create", "--role", "service", "--project", "credit", "--json", "--home", "home", cwd=folder
    )
    return {"authorization": f"Bearer {json.loads(made)['token']}"}


def test_a_service_is_switched_off_and_on_again_within_seconds(tmp_path: Path) -> None:
    write(tmp_path / "model.onnx", 1.0)
    with served(tmp_path, "model.onnx", "--name", "credit", "--home", "home") as port:
        with httpx.Client(base_url=f"http://127.0.0.1:{port + 1}", headers=token(tmp_path), timeout=30) as client:
            before, _ = until(client, "champion")
            succeed(*STOP, "--reason", "it harms", "--answer", "0.25", cwd=tmp_path)
            off, took = until(client, "stopped")
            print(f"switched off {took:.2f} s after the command ended")
            assert off.json()["outputs"] == {"probabilities": 0.25}
            assert off.json()["fallback"] is True
            told = succeed("status", "--home", "home", cwd=tmp_path)
            assert "SWITCHED OFF" in told
            assert "it harms" in told
            succeed("resume", "credit", "-e", "dev", "--reason", "mended", "--home", "home", cwd=tmp_path)
            after, took = until(client, "champion")
            print(f"answering again {took:.2f} s after the command ended")
            assert after.json()["outputs"] == before.json()["outputs"]
            # Without a constant it says so, and when to come back.
            succeed(*STOP, "--reason", "it harms again", cwd=tmp_path)
            while (refused := client.post("/predict", json=ROW)).status_code == 200:
                pass
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "60")
            assert refused.json()["error"]["code"] == "service_stopped"
            assert "it harms again" in refused.json()["error"]["why"]
        page = httpx.get(f"http://127.0.0.1:{port}/projects/credit", timeout=30)
        assert page.status_code == 401


def test_it_holds_while_only_the_data_plane_runs(tmp_path: Path) -> None:
    write(tmp_path / "model.onnx", 1.0)
    with (
        served(tmp_path, "model.onnx", "--name", "credit", "--home", "home") as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port + 1}", headers=token(tmp_path), timeout=30) as client,
    ):
        until(client, "champion")
        address = read_address(tmp_path / "home")
        assert address is not None
        parent = int(Path(f"/proc/{address.pid}/stat").read_text().rpartition(")")[2].split()[1])
        # Whoever would start the control plane again is held, too.
        os.kill(parent, signal.SIGSTOP)
        try:
            os.kill(address.pid, signal.SIGKILL)
            # Until its memory is given back, which takes a moment, its socket still takes connections.
            with open(os.pidfd_open(address.pid)) as ending:
                assert select.select([ending], [], [], 30)[0]
            succeed(*STOP, "--reason", "it harms", "--answer", "0.25", cwd=tmp_path)
            with pytest.raises(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}/health/live", timeout=5)
            until(client, "stopped")
        finally:
            os.kill(parent, signal.SIGCONT)


def test_what_is_no_service_or_no_reason_is_refused(tmp_path: Path) -> None:
    from tests.cli.test_commands import holdtrue

    (tmp_path / "home").mkdir(mode=0o700)
    done = holdtrue("stop", "credit", "--home", "home", "--project", "credit", cwd=tmp_path)
    assert done.returncode != 0
    assert "reason" in done.stderr
    done = holdtrue("stop", "credit", "--reason", "x", "--home", "home", "--project", "credit", cwd=tmp_path)
    assert done.returncode == 1
    assert "credit" in done.stderr
