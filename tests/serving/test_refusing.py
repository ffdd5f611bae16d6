"""A challenger whose contract refuses more: nobody is refused because of it, and each such request is recorded."""

import copy
from typing import Any

import pytest

from holdtrue.serving import Arm
from tests.serving.plane_home import CONTRACT, Home, Process, flight


def contract(**columns: Any) -> Any:
    """Return the contract with some columns' rules changed."""
    made: Any = copy.deepcopy(CONTRACT)
    for column in made["columns"]:
        column.update(columns.get(column["name"], {}))
    return made


def rolling(home: Home, *, percent: float = 50.0, mode: str = "strict", theirs: Any = None) -> Process:
    """Serve a rollout whose challenger takes no flights from LGA, and any distance."""
    strict = contract(origin={"isin": ["EWR", "JFK"]}, distance={"ge": None}) if theirs is None else theirs
    arms = (Arm("champion", "rel_a", 100.0 - percent), Arm("challenger", "rel_b", percent))
    home.publish(
        home.bundle("rel_a", "champion"),
        home.bundle("rel_b", "challenger", contract=strict),
        arms=arms if percent else (Arm("champion", "rel_a", 100.0),),
        shadows=("rel_b",),
        rollout="rol_1",
        paired=True,
    )
    return home.start("--records", mode)


@pytest.mark.parametrize(("percent", "mode"), [(50.0, "strict"), (50.0, "fast"), (0.0, "strict")])
def test_what_only_the_challenger_refuses_is_answered_by_the_champion_and_recorded(
    home: Home, percent: float, mode: str
) -> None:
    plane = rolling(home, percent=percent, mode=mode)
    for number in range(12):
        answer = plane.infer([flight(number)])
        assert answer.status_code == 200
        if number % 3 == 2:  # from LGA
            assert answer.json()["parameters"]["arms"] == ["champion"]
    plane.stop()
    refused = home.records("refusal")
    assert [(each["champion"], each["challenger"], each["rows"], each["rollout"]) for each in refused] == [
        (False, True, 1, "rol_1")
    ] * 4
    assert len({each["id"] for each in refused}) == 4
    scored = home.records("prediction")
    mine = [each for each in scored if each["release"] == "rel_b"]
    assert len(mine) == 8
    assert {each["x_origin"] for each in mine} == {"EWR", "JFK"}
    assert all(each["rollout"] == "rol_1" and each["model_us"] > 0 for each in scored)


def test_what_the_champion_refuses_is_refused_and_whether_the_challenger_would_is_recorded(home: Home) -> None:
    plane = rolling(home)
    for row in (flight(0, distance=-1.0), flight(0, distance=-1.0, origin="LGA"), flight(0, origin="XXX")):
        assert plane.infer([row, flight(1)]).status_code == 400
    plane.stop()
    found = [(each["champion"], each["challenger"], each["rows"]) for each in home.records("refusal")]
    assert found == [(True, False, 2), (True, True, 2), (True, True, 2)]
    assert home.records("prediction") == []


def test_where_both_contracts_are_the_same_nothing_is_recorded_of_refusals(home: Home) -> None:
    plane = rolling(home, theirs=CONTRACT)
    assert plane.infer([flight(0, distance=-1.0)]).status_code == 400
    assert plane.infer([flight(2)]).status_code == 200
    plane.stop()
    assert home.records("refusal") == []


def test_while_the_service_is_switched_off_no_challenger_refuses_anybody(home: Home) -> None:
    strict = contract(origin={"isin": ["EWR", "JFK"]})
    home.publish(
        home.bundle("rel_a", "champion"),
        home.bundle("rel_b", "challenger", contract=strict),
        arms=(Arm("champion", "rel_a", 50.0), Arm("challenger", "rel_b", 50.0)),
        rollout="rol_1",
        paired=True,
        stopped="It harms.",
    )
    plane = home.start()
    answers = [plane.infer([flight(number)]).json()["parameters"]["arms"] for number in range(6)]
    assert answers == [["stopped"]] * 6
    plane.stop()
    assert home.records("refusal") == []
    assert {each["rollout"] for each in home.records("prediction")} == {None}
