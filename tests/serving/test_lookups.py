"""Features over HTTP from a real data plane, with each online store, and its answers beside those of predictions."""

from typing import Any

import pytest

from holdtrue.core.clock import microseconds
from tests.serving.plane_home import OTHER, SERVICE, START, TOKEN, Home, Process, flight

NOON = microseconds(START)
MINUTE = 60_000_000
PATH = f"/features/{SERVICE}"


@pytest.fixture(params=["lmdb", "redis"])
def plane(home: Home, request: pytest.FixtureRequest) -> Process:
    """A data plane that has taken some events in."""
    address = request.getfixturevalue("redis_address") if request.param == "redis" else ""
    home.publish(home.bundle("rel_a", "champion"))
    started = home.start(HOLDTRUE_ONLINE_STORE=address)
    weather = {"origin": ["EWR", "JFK"], "observed_at": [NOON - MINUTE, NOON - 9 * 3600 * 1_000_000]}
    weather |= {"temp": [30.0, 20.0], "wind": [None, 1], "id": ["w1", "w2"]}
    arrivals = {"origin": ["EWR"] * 2, "known_at": [NOON - 5 * MINUTE, NOON - 2 * MINUTE], "delay": [10.0, 20.0]}
    body = {"sources": {"weather": weather, "arrivals": {**arrivals, "id": ["a1", "a2"]}}}
    assert started.client.post("/events", json=body).status_code == 200
    return started


def test_entities_are_looked_up_with_the_moments_of_their_rows(plane: Process, home: Home) -> None:
    found = plane.client.post(PATH, json={"entities": {"origin": ["EWR"]}}).json()
    assert found == {
        "release": "rel_a",
        "features": {"weather_temp": [30.0], "weather_wind": [None], "route_mean": [15.0], "route_count": [2.0]},
        "moments": {"weather": [NOON - MINUTE], "route": [NOON - 2 * MINUTE]},
    }
    asked = {"entities": {"origin": ["JFK", None, "EWR"]}, "time": "2013-03-01T11:56:00Z"}
    found = plane.client.post(PATH, json=asked).json()
    assert found["features"]["route_mean"] == [None, None, 10.0]
    assert found["moments"] == {"weather": [None, None, None], "route": [None, None, NOON - 5 * MINUTE]}
    assert plane.infer([flight(0)]).status_code == 200
    (record,) = home.records("prediction")
    assert (record["f_weather_temp"], record["f_route_mean"]) == (30.0, 15.0)


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"entities": {"carrier": ["UA"]}}, 400, "carrier"),
        ({"entities": {"origin": []}}, 400, "origin"),
        ({"entities": {"origin": [1.5]}}, 400, "origin"),
        ({"entities": {}}, 400, "entities"),
        ({"entities": {"origin": ["EWR"]}, "time": ["2013-03-01T12:00:00Z"] * 2}, 400, "time"),
        ({"entities": {"origin": ["EWR"]}, "time": "noon"}, 400, "time"),
        ({"entities": {"origin": ["EWR"]}, "when": 1}, 400, "fields"),
        ({"entities": {"origin": ["EWR"] * 1001}}, 413, "1000"),
        ([], 400, "object"),
    ],
)
def test_what_cannot_be_looked_up_is_said(home: Home, body: Any, status: int, word: str) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()
    answer = plane.client.post(PATH, json=body)
    assert (answer.status_code, word in answer.text) == (status, True), answer.text
    assert plane.client.post(PATH, content=b"{").status_code == 400


def test_a_token_of_another_project_or_permission_finds_nothing(home: Home) -> None:
    home.publish(home.bundle("rel_a", "champion"))
    plane = home.start()
    body = {"entities": {"origin": ["EWR"]}}
    other = {"authorization": f"Bearer {OTHER}"}
    assert plane.client.post(PATH, json=body, headers=other).status_code == 404
    assert plane.client.post("/features/missing", json=body).status_code == 404
    home.grant({TOKEN: {"permissions": ["labels.write"]}})
    plane.until(lambda: plane.client.post(PATH, json=body).status_code == 403)
