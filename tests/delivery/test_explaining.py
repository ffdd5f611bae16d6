"""Why a prediction came out so: from its record down to the data."""

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from holdtrue import delivery
from holdtrue.cli.why import explained
from holdtrue.core.clock import microseconds
from holdtrue.core.errors import NotFound
from holdtrue.features import FeatureSet, numeric
from holdtrue.serving import compile_model
from holdtrue.serving.contributions import NotExplained, background_of
from tests.delivery.worlds import INPUTS, RETRAIN, WORKER, World, catalog_id, delivery_load


def test_a_champions_prediction_is_explained_to_the_bottom(world: World) -> None:
    world.declare()
    running = world.rolling()
    world.day(running, rows=40)
    rows = world.stores.journal.table("prediction", world.project, service="delay").to_pylist()
    answer = next(row for row in rows if row["role"] == "answer" and row["release"] == running.champion)
    found = delivery.why(world.stores, world.project, answer["id"])
    assert found["prediction"]["score"] == answer["score"]
    assert found["inputs"] == {"flight": answer["key"]}
    assert found["features"] == {"hour": 6.0}
    assert found["label"]["value"] in (0.0, 1.0)
    assert found["release"]["id"] == running.champion
    assert set(found["versions"]) == {"model", "features", "dataset"}
    assert found["versions"]["model"]["name"] == "delay@1"
    assert list(found["dataset"]["fragments"]) == ["2013-02"]
    assert found["decision"]["outcome"] == "allowed"
    assert found["decision"]["release"] == running.champion
    assert [each["id"] for each in found["evidence"]] == list(found["decision"]["evidence"])
    assert [each["name"] for each in found["approvals"]] == ["ben"]
    assert (found["rollout"]["id"], found["rollout"]["why"]) == (running.id, "")
    world.judge()
    judged = delivery.why(world.stores, world.project, answer["id"])["rollout"]["why"]
    assert judged == world.rollout(running.id).verdict["why"] != ""


def test_a_challengers_score_in_the_shadow_is_explained_by_its_own_release(world: World) -> None:
    world.declare()
    running = world.rolling()
    world.day(running, rows=40, labels=False)
    rows = world.stores.journal.table("prediction", world.project, service="delay").to_pylist()
    shadow = next(row for row in rows if row["role"] == "shadow" and row["release"] == running.challenger)
    found = delivery.why(world.stores, world.project, shadow["id"])
    assert found["release"]["id"] == running.challenger
    assert found["decision"]["id"] == running.decision
    assert found["label"] is None


def test_the_decision_is_that_of_the_time_of_the_prediction(world: World) -> None:
    world.declare()
    running = world.rolling()
    world.day(running, rows=5)
    before = world.stores.journal.table("prediction", world.project, service="delay").to_pylist()[0]
    first = delivery.why(world.stores, world.project, before["id"])["decision"]
    world.clock.advance(30 * 86_400)
    world.approve(running.champion)
    assert delivery.why(world.stores, world.project, before["id"])["decision"] == first


def test_an_unknown_prediction_is_not_found(world: World) -> None:
    world.declare()
    world.rolling()
    for project in (world.project, "other"):
        with pytest.raises(NotFound):
            delivery.why(world.stores, project, "prd_nothing")


def test_status_tells_what_waits_for_whom(world: World) -> None:
    world.declare(retrain=RETRAIN)
    running = world.rolling()
    waiting = world.submit("three").release
    world.write(lambda tx: delivery.request_retrain(tx, "delay", "because"))
    found = world.read(lambda conn: delivery.status(conn, world.project))
    service = found["services"][0]
    assert (service["name"], service["rollout"]["id"], service["rollout"]["percent"]) == ("delay", running.id, 5.0)
    assert [each["release"] for each in service["deployments"]] == [running.champion]
    assert len(service["retraining"]) == 1
    assert [each["release"] for each in found["waiting_approval"]] == [waiting]
    assert found["incidents"] == []
    assert found["quarantines"] == []
    world.rollback()
    later = world.read(lambda conn: delivery.status(conn, world.project))
    assert [each["kind"] for each in later["incidents"]] == ["rollout"]


def test_contributions_are_those_of_the_recorded_features_and_the_releases_own_model(world: World) -> None:
    world.declare()
    random = np.random.default_rng(1)
    matrix = random.normal(size=(300, 2)).astype(np.float32)
    fitted = LogisticRegression().fit(matrix, (matrix[:, 0] > 0).astype(int))
    body = world.submission("one")
    digest = world.stores.blobs.put(compile_model(fitted, ["hour", "distance"], matrix).onnx)
    background = world.stores.blobs.put(background_of(matrix))
    features = FeatureSet((), (numeric("hour"), numeric("distance")), {}).to_json()
    model = {"format": "onnx", "digest": digest, "features": ["hour", "distance"], "background": background}
    inputs = [*INPUTS, {"name": "hour", "datatype": "FP64"}, {"name": "distance", "datatype": "FP64"}]
    body["versions"] = [
        {"kind": "model", "name": "delay", "content": model, "blobs": [digest, background]},
        {"kind": "feature_view", "name": "delay-features", "content": features},
    ]
    pinned = {"model": catalog_id("model", model), "features": catalog_id("feature_view", features)}
    body["release"]["versions"] |= pinned
    body["release"]["config"]["inputs"] = inputs
    release = world.write(lambda tx: delivery.submit(tx, delivery_load(body)), WORKER).release
    score = float(fitted.predict_proba(np.array([[1.5, -0.5]]))[0, 1])
    writer = world.stores.journal.writer("plane")
    now = microseconds(world.clock.now())
    record: dict[str, Any] = {"time": now, "recorded_at": now, "release": release, "arm": "champion", "role": "answer"}
    record |= {"f_hour": 1.5, "f_distance": -0.5, "x_flight": "F1", "key": "F1", "rollout": None}
    for name, fell in (("prd_1", False), ("prd_2", True)):
        given = {**record, "id": [name], "prediction_id": name, "score": score, "fallback": fell}
        writer.append("prediction", world.project, "delay", given, 1)
    told = delivery.why(world.stores, world.project, "prd_1", contributions=True)["contributions"]
    assert told["total"] == pytest.approx(score, abs=1e-5)
    assert told["base"] + sum(told["values"].values()) == pytest.approx(score, abs=1e-5)
    assert list(told["values"]) == ["hour", "distance"]
    lines = "\n".join(explained(delivery.why(world.stores, world.project, "prd_1", contributions=True)))
    assert "because     base" in lines
    assert "contributions" not in delivery.why(world.stores, world.project, "prd_1")
    with pytest.raises(NotExplained, match="no contributions"):
        delivery.why(world.stores, world.project, "prd_2", contributions=True)
