"""Workers that are killed: whoever comes meanwhile waits for the next one, and none is given up."""

import os
import signal

import httpx
import pytest

from tests.crash.soak import children
from tests.serving.plane_home import TOKEN, Home, flight


@pytest.mark.parametrize("workers", [1, 2])
def test_with_every_worker_killed_again_and_again_a_request_waits_and_is_answered(home: Home, workers: int) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start("--workers", str(workers))

    def running() -> list[int]:
        return [pid for pid, line in children(plane.popen.pid).items() if "resource_tracker" not in line]

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
