"""Workers over one socket: whoever comes while they are killed waits for the next one, and none is given up."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.crash.soak import children
from tests.serving.plane_home import TOKEN, Home, flight, free_port


@pytest.mark.parametrize("workers", [1, 2])
def test_with_every_worker_killed_again_and_again_a_request_waits_and_is_answered(home: Home, workers: int) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start("--workers", str(workers))

    def running() -> list[int]:
        return list(children(plane.popen.pid))

    for number in range(2):
        plane.until(lambda: len(running()) == workers)
        for pid in running():
            os.kill(pid, signal.SIGKILL)
        # Connections that a killed worker had are gone; a new one is not refused.
        with httpx.Client(headers={"authorization": f"Bearer {TOKEN}"}, timeout=60) as client:
            answer = client.post(f"http://127.0.0.1:{plane.port}/predict/delay", json=flight(number))
        assert answer.status_code == 200
    assert plane.stop() == 0
    assert {each["key"] for each in home.records("prediction")} == {"flight-0", "flight-1"}


def test_a_data_plane_whose_worker_cannot_start_ends_with_its_reason(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    # A file where a folder of the workers' is to be.
    shutil.rmtree(home.path / "routing")
    (home.path / "routing").write_bytes(b"")
    command = [sys.executable, "-m", "holdtrue.server.dataplane", "--home", str(home.path), "--port", str(free_port())]
    done = subprocess.run(command, capture_output=True, timeout=60, text=True)
    assert done.returncode == 1
    assert "routing" in done.stderr


def test_a_port_that_somebody_has_is_told(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        command = [sys.executable, "-m", "holdtrue.server.dataplane", "--home", str(home.path), "--port", str(port)]
        done = subprocess.run(command, capture_output=True, timeout=60, text=True)
    assert done.returncode != 0
    assert f"Port {port} on 127.0.0.1 is in use" in done.stderr


def test_workers_end_with_the_process_that_holds_their_socket(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start("--workers", "2")
    workers = list(children(plane.popen.pid))
    assert len(workers) == 2
    os.kill(plane.popen.pid, signal.SIGKILL)
    plane.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    plane.client.close()
    # Their port is free again.
    socket.create_server(("127.0.0.1", plane.port)).close()
