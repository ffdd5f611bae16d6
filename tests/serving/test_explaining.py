"""Contributions over real sockets: by a parameter or a header, beside the same answer, and refused where none are."""

from typing import Any

import numpy as np
import pytest

from holdtrue.serving import Arm
from holdtrue.serving.contributions import background_of
from holdtrue.stats.conformal import Sets
from tests.serving.plane_home import FEATURES, SERVICE, Home, Process, flight, infer_body

PATH = f"/v2/models/{SERVICE}/infer"
ASKED = {"x-holdtrue-contributions": "true"}


@pytest.fixture
def plane(home: Home) -> Process:
    rows = np.random.default_rng(3).normal(size=(200, 6)).astype(np.float32)
    kept = home.blobs.put(background_of(rows))
    home.publish(
        home.bundle("rel_a", "champion", background=kept),
        home.bundle("rel_b", "challenger", background=kept),
        home.bundle("rel_c", "challenger", service="other"),
        others=("rel_c",),
        arms=(Arm("champion", "rel_a", 50.0), Arm("canary", "rel_b", 50.0)),
    )
    process = home.start()
    process.until_acked()
    return process


def sound(told: Any, score: float) -> None:
    assert told["scale"] == "score"
    assert set(told["values"]) == set(told["error"]) == set(FEATURES.names)
    assert told["base"] + sum(told["values"].values()) == pytest.approx(score, abs=1e-5)
    assert told["gap"] < 1e-5


def test_each_form_of_a_request_gets_contributions_beside_its_answer(plane: Process) -> None:
    body = infer_body([flight(number) for number in range(12)])
    plain = plane.client.post(PATH, json=body).json()
    asked = plane.client.post(PATH, json={**body, "parameters": {"contributions": True}}).json()
    assert asked["outputs"] == plain["outputs"]
    assert "contributions" not in plain["parameters"]
    assert len(set(asked["parameters"]["releases"])) == 2
    for told, score in zip(asked["parameters"]["contributions"], asked["outputs"][0]["data"], strict=True):
        sound(told, score)
    one = plane.client.post(f"/predict/{SERVICE}", json=flight(1), headers=ASKED).json()
    sound(one["contributions"], one["outputs"]["late"])
    rows = {"dataframe_records": [flight(1), flight(2)]}
    invoked = plane.client.post(f"/invocations/{SERVICE}", json=rows, headers=ASKED).json()
    sound(invoked["contributions"][1], invoked["predictions"][1])
    assert "contributions" not in plane.client.post(f"/predict/{SERVICE}", json=flight(1)).json()


def test_what_cannot_be_explained_is_refused_before_it_is_predicted(plane: Process) -> None:
    before = len(plane.home.records("prediction")) + len(plane.home.records("prediction", "other"))
    refused = plane.client.post("/predict/other", json=flight(1), headers=ASKED)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "not_explained")
    many = infer_body([flight(number) for number in range(65)])
    assert plane.client.post(PATH, json=many, headers=ASKED).status_code == 413
    for wrong in ("yes", "1", "TRUE", ""):
        answer = plane.client.post(PATH, json=infer_body([flight(1)]), headers={"x-holdtrue-contributions": wrong})
        assert answer.status_code == 400, wrong
    assert plane.client.post(PATH, json={**infer_body([flight(1)]), "parameters": {"contributions": 1}}).is_error
    assert len(plane.home.records("prediction")) + len(plane.home.records("prediction", "other")) == before


def test_what_no_model_answered_has_no_contributions(home: Home) -> None:
    rows = np.zeros((4, 6), np.float32)
    home.publish(home.bundle("rel_a", "champion", background=home.blobs.put(background_of(rows))), stopped="off")
    process = home.start()
    process.until_acked()
    told = process.client.post("/predict", json=flight(1), headers=ASKED).json()
    assert (told["arm"], told["contributions"]) == ("stopped", None)


def test_prediction_sets_say_which_outcomes_an_answer_leaves_possible(home: Home) -> None:
    sets = Sets(0.9, 0.6, 0.4)
    home.publish(
        home.bundle("rel_a", "champion", sets=sets), home.bundle("rel_b", "champion"), apart={"staging": "rel_b"}
    )
    process = home.start()
    process.until_acked()
    client, asked = process.client, {"x-holdtrue-sets": "true"}
    body = infer_body([flight(number) for number in range(8)])
    answer = client.post(PATH, json={**body, "parameters": {"sets": True}}).json()
    assert answer["parameters"]["sets"] == [sets.of(each) for each in answer["outputs"][0]["data"]]
    assert client.post("/predict", json=flight(1), headers=asked).json()["set"] == answer["parameters"]["sets"][1]
    invoked = client.post("/invocations", json={"dataframe_records": [flight(1)]}, headers=asked).json()
    assert invoked["sets"] == [answer["parameters"]["sets"][1]]
    assert "set" not in client.post("/predict", json=flight(1)).json()
    refused = client.post("/predict", json=flight(1), headers={**asked, "x-holdtrue-environment": "staging"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "no_prediction_sets")
    assert client.post("/predict", json=flight(1), headers={"x-holdtrue-sets": "1"}).status_code == 400
