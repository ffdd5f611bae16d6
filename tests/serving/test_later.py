"""Requests that are answered later: kept before they are acknowledged, answered whatever dies, recorded once."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdtrue.core.errors import HoldtrueError, IdempotencyMismatch, NotFound, Unavailable
from holdtrue.serving.queueing import Entry, Queue, digest_of, key_of
from tests.serving.plane_home import OTHER, SERVICE, START, TOKEN, Home, Process, flight, infer_body

PATH = f"/v2/models/{SERVICE}/infer"
LATER = {"prefer": "respond-async"}
STAGING = "ht_svc_staging_0000000000000000000000000000000000000000_000000"


def served(home: Home, *arguments: str, **changes: Any) -> Process:
    home.publish(home.bundle("rel_a", "champion"), **changes)
    plane = home.start(*arguments)
    plane.until_acked()
    return plane


def fetched(plane: Process, name: str) -> httpx.Response:
    """Return the result of a request once it is there."""
    answers: list[httpx.Response] = []

    def there() -> bool:
        answers.append(plane.client.get(f"/requests/{name}"))
        return answers[-1].headers.get("x-holdtrue-request-state") == "done"

    plane.until(there)
    return answers[-1]


def test_a_request_is_acknowledged_and_its_result_is_that_of_the_same_request_at_once(home: Home) -> None:
    plane = served(home)
    body = infer_body([flight(1), flight(2)])
    at_once = plane.client.post(PATH, json=body).json()
    taken = plane.client.post(PATH, json={**body, "id": "own"}, headers={**LATER, "x-request-id": "nightly-1"})
    assert (taken.status_code, taken.json()["id"], taken.headers["location"]) == (
        202,
        "nightly-1",
        "/requests/nightly-1",
    )
    assert taken.headers["preference-applied"] == "respond-async"
    done = fetched(plane, "nightly-1")
    assert (done.status_code, done.headers["content-type"]) == (200, "application/json")
    assert done.headers["x-holdtrue-result-until"].startswith("2013-03-02T12:00")
    assert (done.json()["outputs"], done.json()["id"]) == (at_once["outputs"], "own")
    for path, asked in (("/predict", flight(3)), ("/invocations", {"dataframe_records": [flight(4)]})):
        name = plane.client.post(path, json=asked, headers=LATER).json()["id"]
        assert fetched(plane, name).json().keys() == plane.client.post(path, json=asked).json().keys()
    binary = {**infer_body([flight(5)]), "parameters": {"binary_data_output": True}}
    name = plane.client.post(PATH, json=binary, headers=LATER).json()["id"]
    kept = fetched(plane, name)
    assert kept.headers["content-type"] == "application/octet-stream"
    assert int(kept.headers["inference-header-content-length"]) == len(kept.content) - 4


def test_the_same_request_again_is_the_same_and_another_one_under_its_name_is_refused(home: Home) -> None:
    plane = served(home)
    headers = {**LATER, "x-request-id": "one"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: plane.client.post("/predict", json=flight(1), headers=headers), range(24)))
    assert {each.status_code for each in answers} == {202}
    first = fetched(plane, "one")
    assert plane.client.post("/predict", json=flight(1), headers=headers).json()["state"] == "done"
    assert fetched(plane, "one").json() == first.json()
    other = plane.client.post("/predict", json=flight(2), headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_mismatch")
    assert [each["id"] for each in home.records("prediction")] == [first.json()["prediction_id"]]


def test_what_is_wrong_with_a_request_is_its_result_and_strangers_learn_nothing(home: Home) -> None:
    home.grant({TOKEN: {}, OTHER: {"project": "another"}, STAGING: {"environment": "staging"}})
    plane = served(home)
    name = plane.client.post(PATH, json=infer_body([flight(1, origin="SFO")]), headers=LATER).json()["id"]
    refused = fetched(plane, name)
    assert refused.status_code == 400
    assert "error" in refused.json()
    missing = plane.client.get("/requests/unknown")
    for secret in (OTHER, STAGING):
        answer = plane.client.get(f"/requests/{name}", headers={"authorization": f"Bearer {secret}"})
        assert answer.status_code == missing.status_code == 404
    for wrong in ("a/b", "till-3/17", "x" * 64):
        answer = plane.client.post("/predict", json=flight(1), headers={**LATER, "x-request-id": wrong})
        assert answer.status_code == 400, wrong
    assert plane.client.post("/predict", json=flight(1), headers={"prefer": "return=minimal"}).status_code == 200


def test_a_result_is_forgotten_when_its_time_is_over(home: Home) -> None:
    plane = _kept_a_minute(home)
    name = plane.client.post("/predict", json=flight(1), headers=LATER).json()["id"]
    assert fetched(plane, name).status_code == 200
    home.clock.set(START.replace(second=59))
    assert plane.client.get(f"/requests/{name}").status_code == 200
    home.clock.set(START.replace(minute=1, second=1))
    plane.until(lambda: plane.client.get(f"/requests/{name}").status_code == 404)


def _kept_a_minute(home: Home) -> Process:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start(HOLDTRUE_RESULT_SECONDS="60")
    plane.until_acked()
    return plane


def test_what_was_acknowledged_is_answered_after_a_kill_and_recorded_once(home: Home) -> None:
    plane = served(home)
    acknowledged: list[int] = []

    def send(number: int) -> None:
        try:
            headers = {**LATER, "x-request-id": f"r{number}"}
            answer = plane.client.post("/predict", json=flight(number), headers=headers)
        except httpx.TransportError:
            return
        if answer.status_code == 202:
            acknowledged.append(number)
        if len(acknowledged) == 60:
            os.killpg(plane.popen.pid, signal.SIGKILL)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(400)))
    plane.kill()
    assert 60 <= len(acknowledged) < 400
    again = home.start()
    again.until_acked()
    answers = {number: fetched(again, f"r{number}").json() for number in acknowledged}
    kept = home.records("prediction")
    assert len({each["id"] for each in kept}) == len(kept)
    recorded = {each["key"]: each["id"] for each in kept}
    assert len(recorded) == len(kept)
    assert {recorded[f"flight-{number}"] for number in acknowledged} == {
        each["prediction_id"] for each in answers.values()
    }


def test_a_worker_that_is_killed_loses_nothing_that_was_acknowledged(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start("--workers", "2")
    acks = home.path / "routing" / "acks"
    plane.until(lambda: len(list(acks.glob("*.json"))) == 2)
    workers = [json.loads(path.read_text())["pid"] for path in sorted(acks.glob("*.json"))]
    acknowledged: list[str] = []

    def send(number: int) -> None:
        if number == 40:
            os.kill(workers[0], signal.SIGKILL)
        with httpx.Client(base_url=plane.client.base_url, headers=plane.client.headers, timeout=20) as client:
            try:
                headers = {**LATER, "x-request-id": f"r{number}"}
                answer = client.post("/predict", json=flight(number), headers=headers)
            except httpx.TransportError:
                return
        if answer.status_code == 202:
            acknowledged.append(f"r{number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(120)))
    assert len(acknowledged) > 80
    for name in acknowledged:
        assert _patient(plane, name).status_code == 200
    kept = home.records("prediction")
    assert len({each["key"] for each in kept}) == len({each["id"] for each in kept}) == len(kept)
    assert {f"r{each['key'].removeprefix('flight-')}" for each in kept} >= set(acknowledged)


def _patient(plane: Process, name: str) -> httpx.Response:
    """Fetch a result over connections of its own: those of a worker that was killed are broken."""
    answers: list[httpx.Response] = []

    def there() -> bool:
        with httpx.Client(base_url=plane.client.base_url, headers=plane.client.headers, timeout=20) as client:
            try:
                answers.append(client.get(f"/requests/{name}"))
            except httpx.TransportError:
                return False
        return answers[-1].headers.get("x-holdtrue-request-state") == "done"

    plane.until(there)
    return answers[-1]


def test_a_retry_under_its_key_is_the_same_prediction_and_other_rows_are_others(home: Home) -> None:
    plane = served(home)

    def ids(number: int, key: str) -> list[str]:
        body = infer_body([flight(number), flight(number + 1)])
        answer = plane.client.post(PATH, json=body, headers={"idempotency-key": key})
        return answer.json()["parameters"]["prediction_ids"]

    first = ids(1, "order-1")
    assert ids(1, "order-1") == first
    assert len({*first, *ids(3, "order-1"), *ids(1, "order-2")}) == 6
    assert len({each["id"] for each in home.records("prediction")}) == len(home.records("prediction")) == 6
    for wrong in (b"", b"x" * 201, b"\xe9"):
        answer = plane.client.post("/predict", json=flight(1), headers={b"idempotency-key": wrong})
        assert answer.status_code == 400, wrong


def test_what_cannot_be_answered_yet_waits_through_a_restart(home: Home) -> None:
    bad = home.bundle("rel_bad", "narrow")
    home.publish(bad, fallback=None)
    plane = home.start()
    plane.until_acked()
    taken = plane.client.post("/predict", json=flight(1), headers={**LATER, "x-request-id": "r1"})
    assert taken.status_code == 202
    assert plane.client.post("/predict", json=flight(1)).status_code == 503
    assert plane.client.get("/requests/r1").status_code == 202
    plane.kill()
    home.publish(home.bundle("rel_a", "champion"))
    again = home.start()
    assert fetched(again, "r1").json()["release"] == "rel_a"


def test_the_requests_of_a_worker_that_died_are_taken_over_by_another(tmp_path: Path) -> None:
    one = Queue(tmp_path / "requests", "w0")
    entries = [_entry(f"r{number}", owner="w0", accepted=number + 1) for number in range(3)]
    assert one.accept([(each, b"body") for each in entries]) == entries
    # Another worker is another process; while the first one lives, nothing is its own.
    code = "import sys; from pathlib import Path; from holdtrue.serving.queueing import Queue; "
    code += "queue = Queue(Path(sys.argv[1]), 'w1'); print(len(queue.mine())); queue.close()"
    command = [sys.executable, "-c", code, str(tmp_path / "requests")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "0\n"
    one.close()
    two = Queue(tmp_path / "requests", "w1")
    assert two.mine() == [each.key for each in entries]
    assert [each.tries for each, _ in two.begin(two.mine())] == [1, 1, 1]
    two.close()


def test_a_queue_is_bounded_keeps_its_order_and_tells_same_from_other(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("holdtrue.serving.queueing._MOST_WAITING", 2)
    queue = Queue(tmp_path / "requests", "w0")
    first, second, third = (_entry(f"r{number}", accepted=number + 1) for number in range(3))
    kept = queue.accept([(second, b"2"), (first, b"1"), (third, b"3")])
    assert kept[:2] == [second, first]
    assert isinstance(kept[2], Unavailable)
    assert queue.mine() == [first.key, second.key]
    (begun,) = queue.begin([first.key])
    assert (begun[0].tries, begun[1]) == (1, b"1")
    done = replace(begun[0], status=200, ends=50)
    queue.answer([(done, b"said")])
    assert queue.begin([first.key]) == []
    assert queue.find("flights", "r0", 49)[1] == b"said"
    with pytest.raises(NotFound):
        queue.find("flights", "r0", 50)
    (again,) = queue.accept([(first, b"1")])
    assert isinstance(again, Entry)
    assert again.state == "done"
    (other,) = queue.accept([(_entry("r0", digest="x"), b"9")])
    assert isinstance(other, IdempotencyMismatch)
    assert (queue.forget(49), queue.forget(50), queue.forget(50)) == (0, 1, 0)
    with pytest.raises(HoldtrueError):
        queue.find("flights", "r0", 0)
    queue.close()


def _entry(name: str, **changes: Any) -> Entry:
    known: dict[str, Any] = {
        "id": name,
        "project": "flights",
        "route": "/predict",
        "path": (),
        "headers": {},
        "token": "t",
        "actor": "a",
        "environment": None,
        "digest": digest_of("/predict", (), {}, name.encode()),
        "accepted": 1,
        "owner": "w0",
    }
    made = Entry(**{**known, **changes})
    assert made.key == key_of("flights", name)
    return made
