"""The data plane as a process: real HTTP, real files, real signals."""

import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.clock import microseconds
from holdtrue.serving import Arm, load_model
from tests.serving.plane_home import (
    FEATURES,
    OTHER,
    PROJECT,
    ROOT,
    SERVICE,
    START,
    TOKEN,
    Home,
    flight,
    infer_body,
)


def expected(home: Home, model: str, rows: list[list[float]]) -> list[float]:
    data = home.models[model]
    return load_model(data, bytes_hash(data)).score(np.array(rows, np.float32)).tolist()


def test_one_model_answers_from_a_snapshot_and_records_it(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()

    response = plane.infer([flight(1)], id="request-1")

    nan = float("nan")
    assert response.status_code == 200
    answer = response.json()
    prediction = answer["parameters"]["prediction_ids"][0]
    assert answer["id"] == "request-1"
    assert answer["outputs"] == [
        {
            "name": "late",
            "datatype": "FP32",
            "shape": [1],
            "data": pytest.approx(expected(home, "champion", [[101.0, 1.0, nan, nan, nan, 0.0]])),
        }
    ]
    assert answer["parameters"]["releases"] == ["rel_a"]
    (record,) = home.records("prediction")
    assert record["id"] == record["prediction_id"] == prediction
    assert record["time"] == microseconds(START)
    assert (record["request_id"], record["key"], record["entity"]) == ("request-1", "flight-1", "flight-1")
    assert (record["arm"], record["role"], record["release"]) == ("champion", "answer", "rel_a")
    assert record["score"] == pytest.approx(answer["outputs"][0]["data"][0])
    assert record["fallback"] is False
    assert record["x_origin"] == "JFK"
    assert record["f_distance"] == 101.0
    assert record["f_weather_temp"] is None
    assert plane.stop() == 0


def test_events_become_features_at_once_and_only_once(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()
    weather = {
        "id": ["w1", "w2"],
        "origin": ["EWR", "EWR"],
        "observed_at": ["2013-03-01T10:00:00Z", "2013-03-01T11:00:00Z"],
        "temp": [30.0, 31.5],
        "wind": [5, None],
    }
    arrivals = {
        "id": ["a1", "a2"],
        "origin": ["EWR", "EWR"],
        "known_at": [microseconds(START) - 3_600_000_000, microseconds(START) - 60_000_000],
        "delay": [10.0, 20.0],
    }
    for _ in range(2):
        assert plane.client.post("/events/weather", json={"columns": weather}).json() == {"accepted": 2}
        assert plane.client.post("/events/arrivals", json={"columns": arrivals}).json() == {"accepted": 2}

    plane.infer([flight(0)])

    (record,) = home.records("prediction")
    assert (record["f_weather_temp"], record["f_weather_wind"]) == (31.5, None)
    assert (record["f_route_mean"], record["f_route_count"]) == (15.0, 2.0)
    assert [each["id"] for each in home.records("event", "weather")] == ["w1", "w2"]
    assert home.records("event", "arrivals")[0]["time"] == arrivals["known_at"][0]


def test_the_first_events_of_two_sources_may_come_at_once(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()
    moment = microseconds(START)
    weather = {"id": ["w1"], "origin": ["EWR"], "observed_at": [moment], "temp": [1.0], "wind": [5]}
    arrivals = {"id": ["a1"], "origin": ["EWR"], "known_at": [moment], "delay": [10.0]}
    with ThreadPoolExecutor(8) as senders:
        sent = [
            senders.submit(plane.client.post, f"/events/{source}", json={"columns": columns})
            for source, columns in (("weather", weather), ("arrivals", arrivals)) * 4
        ]
        assert [each.result().status_code for each in sent] == [200] * 8


def test_events_of_several_sources_are_taken_in_together_or_not_at_all(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()
    moment = microseconds(START)
    weather = {"id": ["w1"], "origin": ["EWR"], "observed_at": [moment], "temp": [1.5], "wind": [5]}
    arrivals = {"id": ["a1", "a2"], "origin": ["EWR", "EWR"], "known_at": [moment, moment], "delay": [10.0, 20.0]}

    sources = {"weather": weather, "arrivals": {**arrivals, "delay": ["soon", 1.0]}}
    refused = plane.client.post("/events", json={"sources": sources})
    assert refused.status_code == 400
    assert "soon" in refused.text
    assert home.records("event", "weather") == []
    for _ in range(2):
        answer = plane.client.post("/events", json={"sources": {"weather": weather, "arrivals": arrivals}})
        assert answer.json() == {"accepted": {"weather": 1, "arrivals": 2}}

    plane.infer([flight(0)])
    (record,) = home.records("prediction")
    assert (record["f_weather_temp"], record["f_route_mean"], record["f_route_count"]) == (1.5, 15.0, 2.0)
    assert [each["id"] for each in home.records("event", "weather")] == ["w1"]
    assert [each["id"] for each in home.records("event", "arrivals")] == ["a1", "a2"]
    for wrong in ({}, {"sources": {}}, {"sources": []}, {"sources": {"../x": weather}}, {"sources": {"weather": {}}}):
        assert plane.client.post("/events", json=wrong).status_code == 400


def test_many_events_at_once_become_features(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()
    n, moment = 2_000, microseconds(START)
    arrivals = {"origin": ["EWR"] * n, "known_at": [moment] * n, "delay": [float(each) for each in range(n)]}
    assert plane.client.post("/events/arrivals", json={"columns": arrivals}).json() == {"accepted": n}
    plane.infer([flight(0)])
    assert home.records("prediction")[0]["f_route_count"] == n


def test_rows_stick_to_their_arm_and_canary_rows_are_scored_by_the_champion_too(home: Home) -> None:
    arms = (Arm("champion", "rel_a", 70.0), Arm("canary", "rel_b", 30.0))
    bundles = (home.bundle("rel_a", "champion"), home.bundle("rel_b", "challenger"))
    home.publish(*bundles, arms=arms, paired=True, rollout="rollout-1")
    plane = home.start()
    rows = [flight(number) for number in range(60)]

    first = plane.infer(rows).json()
    again = [plane.infer([row]).json()["parameters"]["arms"][0] for row in rows]

    assert first["parameters"]["arms"] == again
    canary = [row for row, arm in zip(rows, again, strict=True) if arm == "canary"]
    assert 5 < len(canary) < 35
    of_batch = [
        each for each in home.records("prediction") if each["request_id"] == first["parameters"]["prediction_ids"][0]
    ]
    assert len(of_batch) == 60 + len(canary)
    shadows = [each for each in of_batch if each["role"] == "shadow"]
    assert {each["key"] for each in shadows} == {row["flight_id"] for row in canary}
    assert {each["release"] for each in shadows} == {"rel_a"}
    assert all(each["id"] == f"{each['prediction_id']}~rel_a" for each in shadows)
    assert {each["rollout"] for each in of_batch} == {"rollout-1"}
    by_release = {"rel_a": "champion", "rel_b": "challenger"}
    for each in of_batch:
        features = [each[f"f_{name}"] for name in FEATURES.names]
        row = [float("nan") if value is None else value for value in features]
        assert each["score"] == pytest.approx(expected(home, by_release[each["release"]], [row])[0])

    wider = (Arm("champion", "rel_a", 40.0), Arm("canary", "rel_b", 60.0))
    home.publish(*bundles, arms=wider, paired=True, rollout="rollout-1")
    plane.until_acked()
    later = plane.infer(rows).json()["parameters"]["arms"]
    assert all(new == "canary" for old, new in zip(again, later, strict=True) if old == "canary")
    assert later.count("canary") > len(canary)


def test_a_shadow_is_recorded_and_never_answers(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"), home.bundle("rel_b", "challenger"), shadows=("rel_b",))
    plane = home.start()

    answer = plane.infer([flight(1), flight(2)]).json()

    assert answer["parameters"]["releases"] == ["rel_a", "rel_a"]
    roles = [(each["release"], each["role"], each["arm"]) for each in home.records("prediction")]
    assert sorted(roles) == [("rel_a", "answer", "champion")] * 2 + [("rel_b", "shadow", "shadow")] * 2


def test_a_release_can_be_asked_for_by_its_version(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"), home.bundle("rel_b", "challenger"), shadows=("rel_b",))
    plane = home.start()

    answer = plane.infer([flight(1)], path=f"/v2/models/{SERVICE}/versions/rel_b/infer").json()

    assert answer["model_version"] == "rel_b"
    assert answer["parameters"]["arms"] == ["pinned"]
    assert home.records("prediction")[0]["release"] == "rel_b"
    assert plane.infer([flight(1)], path=f"/v2/models/{SERVICE}/versions/rel_c/infer").status_code == 404


def test_metadata_describes_inputs_and_output(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()

    assert plane.client.get("/v2").json()["name"] == "holdtrue"
    model = plane.client.get(f"/v2/models/{SERVICE}").json()
    assert model["versions"] == ["rel_a"]
    assert model["inputs"][3] == {"name": "distance", "datatype": "FP64", "shape": [-1]}
    assert model["outputs"] == [{"name": "late", "datatype": "FP32", "shape": [-1]}]
    assert plane.client.get(f"/v2/models/{SERVICE}/ready").json()["ready"] is True
    assert plane.client.get("/v2/health/ready").json() == {"ready": True}
    assert plane.client.get("/v2/models/unknown").status_code == 404


def test_a_broken_contract_is_refused_and_not_recorded(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()

    wrong = plane.infer([flight(1, distance=-4.0)])
    missing = plane.infer([flight(1, origin=None)])
    allowed = plane.infer([flight(1, distance=None)])

    assert wrong.status_code == missing.status_code == 400
    assert wrong.json()["error"].startswith("“distance” is below 0 in 1 row. Among them: -4.0. Correct the values")
    assert "origin" in missing.json()["error"]
    assert allowed.status_code == 200
    assert len(home.records("prediction")) == 1


def test_a_model_that_cannot_be_loaded_gives_the_fallback(home: Home) -> None:
    home.publish(home.bundle("rel_a", "narrow"))
    plane = home.start()

    answer = plane.infer([flight(1)]).json()

    assert answer["outputs"][0]["data"] == [0.25]
    assert answer["parameters"]["fallback"] == [True]
    assert home.records("prediction")[0]["fallback"] is True
    assert "features" in home.acks()["failed"]["rel_a"]
    assert home.acks()["releases"] == []


def test_without_a_fallback_a_service_that_cannot_be_loaded_is_not_ready(home: Home) -> None:
    home.publish(home.bundle("rel_a", "narrow"), fallback=None)
    plane = home.start()

    refused = plane.infer([flight(1)])

    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    told = plane.client.get("/health/ready")
    assert told.status_code == plane.client.get("/ping").status_code == 503
    assert told.json()["status"] == "not ready"
    assert plane.client.get("/health/live").status_code == 200
    # Whoever may not ask the service learns no more than a load balancer has to.
    for other in ("", f"Bearer {OTHER}"):
        assert plane.client.get("/health/ready", headers={"authorization": other}).json() == {"status": "not ready"}


def test_one_service_that_cannot_be_answered_does_not_take_the_others_from_a_load_balancer(home: Home) -> None:
    bad = home.bundle("rel_b", "narrow", service="broken")
    home.publish_more([home.bundle("rel_a", "champion"), bad])
    plane = home.start()

    told = plane.client.get("/health/ready")

    assert told.status_code == plane.client.get("/ping").status_code == 200
    (unserved,) = told.json().pop("unserved")
    assert told.json()["status"] == "degraded"
    assert (unserved["project"], unserved["service"]) == (PROJECT, "broken")
    assert unserved["why"].startswith("rel_b: ")
    assert "features" in unserved["why"]
    assert plane.infer([flight(1)]).status_code == 200
    assert plane.client.get(f"/v2/models/{SERVICE}/ready").status_code == 200
    assert plane.client.get("/v2/models/broken/ready").status_code == 503
    # The protocol's server is ready once all of its models are.
    assert plane.client.get("/v2/health/ready").status_code == 503
    anybody = plane.client.get("/health/ready", headers={"authorization": "Bearer none"})
    assert (anybody.status_code, anybody.json()) == (200, {"status": "degraded"})

    home.publish_more([home.bundle("rel_a", "champion")])
    plane.until_acked()
    assert plane.client.get("/health/ready").json() == {"status": "ok"}


def test_a_data_plane_is_ready_without_services_and_not_with_a_snapshot_that_it_cannot_read(home: Home) -> None:
    current = home.path / "routing" / "current.json"
    plane = home.start()
    assert plane.client.get("/health/ready").json() == {"status": "ok"}

    current.write_text("{")
    plane.until(lambda: plane.client.get("/health/ready").status_code == 503)
    assert plane.client.get("/v2/health/ready").status_code == 503
    assert "snapshot" in plane.client.get("/health/ready").json()["why"]

    home.publish(home.bundle("rel_a", "champion"))
    plane.until_acked()
    assert plane.client.get("/health/ready").json() == {"status": "ok"}
    current.write_text("{")
    plane.until(lambda: "snapshot" in home.acks()["failed"])
    assert plane.client.get("/health/ready").status_code == 200


def test_a_bad_release_leaves_the_last_good_one_in_service(home: Home) -> None:
    good = home.bundle("rel_a", "champion")
    home.publish(good)
    plane = home.start()
    before = plane.infer([flight(1)]).json()["outputs"][0]["data"]

    corrupt = home.bundle("rel_b", "challenger")
    blob = home.blobs.path(corrupt.model.digest)
    os.chmod(blob, 0o600)
    blob.write_bytes(blob.read_bytes()[:-7] + b"changed")
    home.publish(corrupt, fallback=None)

    ack = plane.until_acked()
    assert "rel_b" in ack["failed"]
    assert ack["releases"] == ["rel_a"]
    answer = plane.infer([flight(1)]).json()
    assert answer["parameters"]["releases"] == ["rel_a"]
    assert answer["outputs"][0]["data"] == before

    # Also after a restart, when the snapshot that cannot be served is all the control plane left.
    plane.kill()
    again = home.start()
    assert again.infer([flight(1)]).json()["parameters"]["releases"] == ["rel_a"]


def test_an_unreadable_snapshot_is_told_and_changes_nothing(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()
    (home.path / "routing" / "current.json").write_text('{"sequence": 2, "issued')

    plane.until(lambda: "snapshot" in home.acks()["failed"])

    assert home.acks()["sequence"] == 1
    assert plane.infer([flight(1)]).status_code == 200


@pytest.mark.parametrize("mode", ["strict", "fast"])
def test_what_was_answered_is_in_the_journal_after_a_kill(home: Home, mode: str) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start("--records", mode)
    acknowledged: list[str] = []
    for number in range(20):
        acknowledged += plane.infer([flight(number), flight(number + 1)]).json()["parameters"]["prediction_ids"]
    plane.kill()

    assert sorted(each["id"] for each in home.records("prediction")) == sorted(acknowledged)
    # Nothing but files is needed to go on.
    again = home.start("--records", mode)
    assert again.infer([flight(1)]).status_code == 200


def test_revoked_and_expired_tokens_stop_working(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    home.grant({TOKEN: {"expires_at": microseconds(START) + 60_000_000}, ROOT: {"project": None}})
    plane = home.start()
    root = {"authorization": f"Bearer {ROOT}"}
    assert plane.client.get("/v2").status_code == 200

    home.clock.set(START.replace(minute=2))
    plane.until(lambda: plane.client.get("/v2").status_code == 401)
    assert plane.client.get("/v2", headers=root).status_code == 200

    home.grant({})
    plane.until(lambda: plane.client.get("/v2", headers=root).status_code == 401)


def test_every_route_but_the_public_two_is_closed(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()
    paths = ["/", "/v2", "/v2/health/live", f"/v2/models/{SERVICE}/infer", "/labels", "/events/weather"]
    paths += [
        "/health",
        "/health/live/",
        "/health/livex",
        "/nothing",
        "/metrics",
        "/health/%6cive",
        "//health/live",
    ]
    for path in paths:
        for method in ("GET", "POST", "HEAD", "OPTIONS", "PUT"):
            for token in ("", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}"):
                headers = {"authorization": token}
                assert plane.client.request(method, path, headers=headers).status_code == 401, (method, path)
    assert plane.client.post("/health/live", headers={"authorization": ""}).status_code == 401
    assert plane.client.get("/health/ready", headers={"authorization": ""}).status_code == 200
    assert plane.client.get("/nothing").status_code == 404
    assert plane.client.get("/labels").status_code == 405


def raw(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        return connection.recv(4096)


def test_spellings_of_a_protected_path_reach_nothing(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()
    spellings = [
        "//v2", "/./v2", "/v2/", "/V2", "/%76%32", "/v2;x", "/x/../v2", "/%2e/v2", "/%252e/v2", "/v2%00",
        "/v2%2f", "\\v2", "/v2/models/../../v2", "/v2/models/%64elay", "/v2/models/delay;v=1",
        "/v2/models/DELAY", "/v2/models//delay", "/v2/models/delay%20", "http://127.0.0.1/v2//",
    ]  # fmt: skip
    for spelling in spellings:
        for credential, allowed in ((f"Bearer {TOKEN}", {b"400", b"404"}), ("", {b"400", b"401"})):
            answer = raw(
                plane.port,
                f"GET {spelling} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {credential}\r\n\r\n".encode(),
            )
            assert answer[9:12] in allowed, (spelling, answer[:60])


def test_hosts_that_are_not_ours_are_refused(home: Home) -> None:
    plane = home.start()
    start = b"GET /health/live HTTP/1.1\r\n"
    assert raw(plane.port, start + b"Host: localhost:1\r\n\r\n")[9:12] == b"200"
    assert raw(plane.port, start + b"Host: [::1]\r\n\r\n")[9:12] == b"200"
    for host in (b"evil.example", b"127.0.0.1.evil", b"127.0.0.1:x", b"", b"a@127.0.0.1", b"127.0.0.1:1:2"):
        assert raw(plane.port, start + b"Host: " + host + b"\r\n\r\n")[9:12] in (b"400", b"421"), host
    twice = raw(plane.port, start + b"Host: 127.0.0.1\r\nHost: evil.example\r\n\r\n")
    assert twice[9:12] == b"400"


def test_projects_do_not_see_each_other(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()
    other = {"authorization": f"Bearer {OTHER}"}
    path = f"/v2/models/{SERVICE}"
    assert plane.client.get(path, headers=other).status_code == 404
    missing = plane.client.get("/v2/models/missing", headers=other).json()
    assert plane.client.get(path, headers=other).json() == json.loads(json.dumps(missing).replace("missing", SERVICE))
    assert plane.client.get(path, headers={**other, "x-holdtrue-project": PROJECT}).status_code == 404
    label = {"service": SERVICE, "labels": [{"key": "flight-1", "value": 1}]}
    assert plane.client.post("/labels", json=label, headers=other).status_code == 404
    root = {"authorization": f"Bearer {ROOT}", "x-holdtrue-project": PROJECT}
    assert plane.client.get(path, headers=root).status_code == 200
    root["x-holdtrue-project"] = "../../etc"
    assert plane.client.get(path, headers=root).status_code == 404


def test_a_token_needs_the_permission_of_the_route(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    home.grant({TOKEN: {"permissions": ["labels.write"]}})
    plane = home.start()
    assert plane.infer([flight(1)]).status_code == 403
    assert plane.client.post("/events/weather", json={}).status_code == 403
    label = {"service": SERVICE, "labels": [{"key": "flight-1", "value": 1}]}
    assert plane.client.post("/labels", json=label).status_code == 200


def test_a_label_of_an_event_that_neither_came_nor_did_not_is_refused(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion", event=True))
    plane = home.start()
    labels = [{"key": f"flight-{at}", "value": value} for at, value in enumerate((0, 1, 1.0, True, False))]
    assert plane.client.post("/labels", json={"service": SERVICE, "labels": labels}).json() == {"accepted": 5}
    for value in (2, 0.5, -1, 1e300):
        answer = plane.client.post("/labels", json={"service": SERVICE, "columns": {"key": ["a"], "value": [value]}})
        assert answer.status_code == 400
        assert answer.json()["error"]["what"] == f"A label's value is {value:g}, neither 0 nor 1."


def test_labels_are_durable_and_a_label_sent_twice_counts_once(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()
    body: dict[str, Any] = {
        "service": SERVICE,
        "labels": [
            {"key": "flight-1", "value": 1, "time": "2013-03-01T14:00:00Z"},
            {"prediction_id": f"prd_{1:031x}", "value": False, "time": "2013-03-01T14:00:00Z"},
        ],
    }
    assert plane.client.post("/labels", json=body).json() == {"accepted": 2}
    assert plane.client.post("/labels", json=body).json() == {"accepted": 2}
    body["labels"][0]["value"] = 0
    plane.client.post("/labels", json=body)
    cut = {"service": SERVICE, "labels": [*body["labels"], {**body["labels"][1], "prediction_id": "prd_1"}]}
    refused = plane.client.post("/labels", json=cut)
    assert (refused.status_code, refused.json()["error"]["facts"]) == (400, {"position": 3})
    columns = {"key": ["flight-2"], "value": [0.5], "time": [microseconds(START)]}
    assert plane.client.post("/labels", json={"service": SERVICE, "columns": columns}).json() == {"accepted": 1}
    plane.kill()

    labels = home.records("label")
    assert [(each["key"], each["value"]) for each in labels if each["key"]] == [
        ("flight-1", 1.0),
        ("flight-1", 0.0),
        ("flight-2", 0.5),
    ]
    assert len(labels) == 4
    assert all(each["known_at"] == microseconds(START) for each in labels)


def test_a_body_over_the_limit_is_refused_without_reading_it(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()
    head = f"POST /v2/models/{SERVICE}/infer HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
    declared = raw(plane.port, f"{head}Content-Length: {(16 << 20) + 1}\r\n\r\n".encode())
    assert declared[9:12] == b"413"
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", plane.port), timeout=20) as connection:
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        try:
            for _ in range(18):
                connection.sendall(chunk)
        except ConnectionError:
            pass
        else:
            assert connection.recv(4096)[9:12] == b"413"
    assert plane.infer([flight(1)]).status_code == 200


def test_a_slow_request_does_not_hold_the_others(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start(HOLDTRUE_REQUEST_SECONDS="0.5")
    head = f"POST /v2/models/{SERVICE}/infer HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
    with socket.create_connection(("127.0.0.1", plane.port), timeout=20) as slow:
        slow.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert plane.infer([flight(1)]).status_code == 200
        assert slow.recv(4096)[9:12] == b"408"
    assert plane.infer([flight(1)]).status_code == 200


def test_two_processes_share_one_folder(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    first, second = home.start(), home.start()
    ids = [plane.infer([flight(1)]).json()["parameters"]["prediction_ids"][0] for plane in (first, second)]
    assert sorted(each["id"] for each in home.records("prediction")) == sorted(ids)
    acks = sorted(path.name for path in (home.path / "routing" / "acks").iterdir())
    assert acks == ["dataplane-0.json", "dataplane-1.json"]
    assert second.stop() == 0
    assert [path.name for path in (home.path / "routing" / "acks").iterdir()] == ["dataplane-0.json"]


def test_a_killed_worker_is_replaced(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()
    worker = home.acks()["pid"]
    os.kill(worker, signal.SIGKILL)
    plane.until(lambda: home.acks()["pid"] != worker)
    plane.until(plane.alive)
    assert plane.infer([flight(1)]).status_code == 200


def test_the_process_loads_no_database_and_no_web_framework(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    script = """
import asyncio, json, sys
from holdtrue.server.dataplane import build_app, read_settings
app = build_app(read_settings(["--home", sys.argv[1], "--clock", sys.argv[1] + "/clock"]))
body = sys.stdin.buffer.read()
async def main():
    sent = []
    async def send(message): sent.append(message)
    async def receive(): return {"type": "http.request", "body": body}
    headers = [(b"host", b"127.0.0.1"), (b"authorization", b"Bearer " + sys.argv[2].encode())]
    scope = {"type": "http", "method": "POST", "path": "/v2/models/delay/infer", "headers": headers}
    async with app.living():
        await app(scope, receive, send)
    print(json.dumps({"status": sent[0]["status"], "modules": sorted(sys.modules)}))
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(home.path), TOKEN],
        input=json.dumps(infer_body([flight(1)])).encode(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    told = json.loads(done.stdout)
    assert told["status"] == 200
    packages = {name.split(".")[0] for name in told["modules"]}
    banned = {
        "sqlalchemy",
        "alembic",
        "fastapi",
        "starlette",
        "duckdb",
        "pyarrow",
        "sklearn",
        "onnx",
        "pickle5",
    }
    assert packages & banned == set()
    assert "onnxruntime" in packages
