"""Why a prediction came out so: from its record down to the data."""

import pytest

from holdtrue import delivery
from holdtrue.core.errors import NotFound
from tests.delivery.worlds import RETRAIN, World


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
