"""The same rows through every form of a request: real processes, and MLflow's own client."""

import warnings
from typing import Any

import pandas as pd
import pytest
import requests
from jsonschema import Draft202012Validator

from holdtrue.serving import Arm
from tests.serving.plane_home import PROJECT, ROOT, SERVICE, TOKEN, Home, flight

ROWS = [flight(number) for number in range(3)]


def mlflow_client(port: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return MLflow's client of a scoring server; it knows no tokens, so its requests go over a session that does."""
    with warnings.catch_warnings():
        # MLflow warns about type hints of its own as it is imported.
        warnings.simplefilter("ignore")
        from mlflow.pyfunc.scoring_server import client

    session = requests.Session()
    session.headers["authorization"] = f"Bearer {TOKEN}"
    monkeypatch.setattr(client, "requests", session)
    return client.ScoringServerClient("127.0.0.1", port)


def test_every_form_gets_the_same_answer_and_leaves_the_same_record(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = (Arm("champion", "rel_a", 50.0), Arm("canary", "rel_b", 50.0))
    home.publish(home.bundle("rel_a", "champion"), home.bundle("rel_b", "challenger"), arms=arms)
    plane = home.start()
    frame = pd.DataFrame(ROWS)

    expected = plane.infer(ROWS).json()
    scores, arms_of = expected["outputs"][0]["data"], expected["parameters"]["arms"]
    mlflow = mlflow_client(plane.port, monkeypatch)
    mlflow.ping()
    answered = mlflow.invoke(frame)
    csv = plane.client.post(
        "/invocations", content=frame.to_csv(index=False), headers={"content-type": "text/csv"}
    ).json()
    named = plane.client.post("/predict", json=ROWS).json()
    single = plane.client.post(f"/predict/{SERVICE}", json=ROWS[0]).json()

    assert answered.get_predictions("ndarray").ravel().tolist() == scores
    assert (csv["predictions"], csv["arms"]) == (scores, arms_of)
    assert [each["outputs"] for each in named] == [{"late": score} for score in scores]
    assert [each["arm"] for each in named] == arms_of
    assert single["outputs"] == {"late": scores[0]}
    assert single.keys() == {"outputs", "prediction_id", "release", "arm"}
    kept = home.records("prediction")
    own = {"id", "prediction_id", "request_id", "latency_us", "model_us", "recorded_at", "recorded_day", "key", "seq"}
    by_key: dict[str, list[dict[str, Any]]] = {}
    for record in kept:
        # Missing features are NaN, which is equal to nothing.
        by_key.setdefault(record["key"], []).append({k: repr(v) for k, v in record.items() if k not in own})
    assert {key: len(records) for key, records in by_key.items()} == {"flight-0": 5, "flight-1": 4, "flight-2": 4}
    for records in by_key.values():
        assert all(record == records[0] for record in records)


def test_a_release_is_asked_for_by_its_version(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"), home.bundle("rel_b", "challenger"), shadows=("rel_b",))
    plane = home.start()
    named = plane.client.post(f"/predict/{SERVICE}/versions/rel_b", json=ROWS[0]).json()
    assert (named["release"], named["arm"]) == ("rel_b", "pinned")
    path = f"/invocations/{SERVICE}/versions/rel_b"
    assert plane.client.post(path, json={"instances": ROWS}).json()["releases"] == ["rel_b"] * 3
    assert plane.client.post(f"/predict/{SERVICE}/versions/rel_c", json=ROWS[0]).status_code == 404


def test_the_document_of_a_service_describes_what_it_takes(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()
    found = plane.client.get(f"/predict/{SERVICE}/openapi.json").json()
    assert found == plane.client.get("/predict/openapi.json").json()
    assert found["info"]["version"] == "rel_a"
    row = Draft202012Validator(found["components"]["schemas"]["Row"])
    answer = Draft202012Validator(found["components"]["schemas"]["Answer"])
    answer.validate(plane.client.post("/predict", json=ROWS[0]).json())
    for change in ({}, {"distance": None}, {"distance": -1}, {"origin": "SFO"}, {"origin": None}, {"scheduled": 7}):
        asked = {**ROWS[0], **change}
        status = plane.client.post("/predict", json=asked).status_code
        assert row.is_valid(asked) == (status == 200), change
    assert plane.client.get("/predict/unknown/openapi.json").status_code == 404


def test_errors_have_the_form_of_the_address(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()
    wrong = {"dataframe_records": [flight(1, distance=-4.0)]}
    refused = plane.client.post("/invocations", json=wrong)
    assert refused.status_code == 400
    assert refused.json()["error_code"] == "BAD_REQUEST"
    assert "distance" in refused.json()["message"]
    media = plane.client.post("/invocations", content=b"x", headers={"content-type": "text/plain"})
    assert (media.status_code, media.json()["error_code"]) == (415, "BAD_REQUEST")
    anonymous = plane.client.post("/invocations", json=wrong, headers={"authorization": ""})
    assert (anonymous.status_code, anonymous.json()["error_code"]) == (401, "UNAUTHENTICATED")
    for body in (b"", b"[", b"7", b"[]", b"[[]]", b"{}", b'[{"flight_id": "x"}, {}]'):
        refused = plane.client.post("/predict", content=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_inference_request"), body
    assert home.records("prediction") == []


def test_a_service_is_named_by_path_or_header_or_is_the_only_one(home: Home) -> None:
    one, two = home.bundle("rel_a", "champion"), home.bundle("rel_b", "challenger", service="tardiness")
    home.publish(one)
    plane = home.start()
    root = {"authorization": f"Bearer {ROOT}"}
    assert plane.client.post("/predict", json=ROWS[0], headers=root).json()["release"] == "rel_a"
    home.publish(one, two, others=("rel_b",))
    plane.until_acked()

    unclear = plane.client.post("/predict", json=ROWS[0])
    assert unclear.status_code == 400
    assert "delay, tardiness" in unclear.json()["error"]["why"]
    for path, header, release in (
        ("/predict/tardiness", SERVICE, "rel_b"),
        ("/predict", "tardiness", "rel_b"),
        ("/predict", SERVICE, "rel_a"),
    ):
        answer = plane.client.post(path, json=ROWS[0], headers={"x-holdtrue-service": header})
        assert answer.json()["release"] == release
    for name in ("unknown", "../../etc", "x" * 300):
        refused = plane.client.post("/invocations", json={}, headers={"x-holdtrue-service": name})
        assert (refused.status_code, refused.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    empty = plane.client.post("/predict", json=ROWS[0], headers={**root, "x-holdtrue-project": "another"})
    assert empty.status_code == 404
    assert PROJECT not in empty.text
