"""Request ids, deadlines, load and the end of a process: a real data plane under stress."""

import json
import select
import signal
import socket
from typing import Any

import pytest

from tests.serving.plane_home import SERVICE, TOKEN, Home, Process, flight, infer_body

PATH = f"/v2/models/{SERVICE}/infer"


def head(path: str, length: int, *lines: str) -> bytes:
    given = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {TOKEN}", f"Content-Length: {length}"]
    return "\r\n".join([*given, *lines, "", ""]).encode()


def open_request(plane: Process, path: str, body: bytes, *lines: str) -> socket.socket:
    """Send a request all but its last byte, so that it stays under way."""
    connection = socket.create_connection(("127.0.0.1", plane.port), timeout=20)
    connection.sendall(head(path, len(body), *lines) + body[:-1])
    return connection


def received(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of the next response."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        assert part, "the connection was closed without an answer"
        data += part
    top, _, body = data.partition(b"\r\n\r\n")
    first, *lines = top.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65536)
    return int(first.split()[1]), headers, body


def test_a_request_keeps_the_id_it_came_with_and_gets_one_otherwise(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()
    named = plane.client.post("/predict", json=flight(1), headers={"x-request-id": "till-3/17"})
    assert named.headers["x-request-id"] == "till-3/17"
    both = plane.client.post(PATH, json={**infer_body([flight(2)]), "id": "own"}, headers={"x-request-id": "outer"})
    assert (both.json()["id"], both.headers["x-request-id"]) == ("own", "outer")
    plain = [plane.infer([flight(3)]) for _ in range(2)]
    assert len({each.headers["x-request-id"] for each in plain}) == 2
    kept = {each["key"]: each["request_id"] for each in home.records("prediction")}
    assert (kept["flight-1"], kept["flight-2"]) == ("till-3/17", "own")
    refused = plane.client.post("/predict", content=b"x", headers={"x-request-id": "r", "authorization": ""})
    assert (refused.status_code, refused.headers["x-request-id"]) == (401, "r")
    for wrong in (b"", b"a b", b"x" * 129, b"\xe9"):
        assert plane.client.post("/predict", json=flight(1), headers={b"x-request-id": wrong}).status_code == 400


def test_a_request_ends_when_its_client_waits_no_longer(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()
    body = json.dumps(infer_body([flight(1)])).encode()
    for path, field in ((PATH, "error"), ("/predict", "error"), ("/invocations", "error_code")):
        late = open_request(plane, path, body, "X-Request-Timeout-Ms: 60")
        status, headers, text = received(late)
        assert (status, headers["connection"]) == (504, "close")
        assert field in json.loads(text)
        late.close()
    assert plane.client.post(PATH, content=body, headers={"x-request-timeout-ms": "60000"}).status_code == 200
    for wrong in ("0", "-1", "1.5", "1e3", "", "9" * 12):
        refused = plane.client.post(PATH, content=body, headers={"x-request-timeout-ms": wrong})
        assert refused.status_code == 400, wrong
    assert len(home.records("prediction")) == 1


def test_beyond_its_limit_a_worker_sheds_load_and_says_when_to_come_back(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start(HOLDTRUE_DATA_REQUESTS="3")
    body = json.dumps(infer_body([flight(1)])).encode()
    under_way = [open_request(plane, PATH, body) for _ in range(4)]

    # Whichever came last is one too many.
    ready, _, _ = select.select(under_way, [], [], 20)
    (shed,) = ready
    status, headers, text = received(shed)
    assert (status, headers["retry-after"], list(json.loads(text))) == (503, "1", ["error"])
    under_way.remove(shed)
    shed.close()
    other = plane.client.post("/invocations", json={"instances": [flight(2)]})
    assert (other.status_code, other.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    assert plane.client.get("/health/ready").status_code == 200

    for connection in under_way:
        connection.sendall(body[-1:])
        assert received(connection)[0] == 200
        connection.close()
    assert plane.infer([flight(2)]).status_code == 200


@pytest.mark.parametrize("mode", ["strict", "fast"])
def test_a_request_under_way_at_sigterm_is_answered_and_recorded(home: Home, mode: str) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start("--records", mode)
    body = json.dumps(infer_body([flight(1)])).encode()
    idle = socket.create_connection(("127.0.0.1", plane.port), timeout=20)
    under_way = open_request(plane, PATH, body)
    assert plane.infer([flight(2)]).status_code == 200, "what came before has been read by now"
    plane.popen.send_signal(signal.SIGTERM)
    plane.until(lambda: refuses(plane))

    under_way.sendall(body[-1:])
    status, _, text = received(under_way)

    assert status == 200
    answered: dict[str, Any] = json.loads(text)
    # A second signal would end it at once, with the status of a signal.
    assert plane.popen.wait(60) == 0
    plane.client.close()
    kept = {each["id"] for each in home.records("prediction")}
    assert set(answered["parameters"]["prediction_ids"]) <= kept
    for each in (idle, under_way):
        each.close()


def refuses(plane: Process) -> bool:
    """Tell whether no new connection is taken any more."""
    try:
        with socket.create_connection(("127.0.0.1", plane.port), timeout=5):
            return False
    except OSError:
        return True


def test_a_service_is_switched_off_and_on_by_a_snapshot(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()
    before = plane.client.post("/predict", json=flight(1)).json()
    home.publish(home.bundle("rel_a", "champion"), stopped="The prices are wrong.")
    plane.until_acked()
    off = plane.client.post("/predict", json=flight(1)).json()
    assert (off["outputs"], off["fallback"], off["arm"]) == ({"late": 0.25}, True, "stopped")
    home.publish(home.bundle("rel_a", "champion"), stopped="The prices are wrong.", fallback=None)
    plane.until_acked()
    refused = plane.infer([flight(1)])
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "60")
    assert "prices" in refused.json()["error"]
    assert plane.client.get("/health/ready").status_code == 200
    home.publish(home.bundle("rel_a", "champion"))
    plane.until_acked()
    assert plane.client.post("/predict", json=flight(1)).json()["outputs"] == before["outputs"]
