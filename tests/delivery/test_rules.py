"""What a rollout's evidence asks for, when a trigger may train, and what is earlier."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from holdtrue.core.errors import ConfigurationError
from holdtrue.delivery import Canary, Change, Trigger, TriggerState
from holdtrue.delivery.rules import (
    Facts,
    check_retrain,
    check_retrain_spec,
    check_service,
    earlier,
    judge,
    new_windows,
)
from tests.delivery.worlds import RETRAIN, SERVICE, START

CANARY = Canary(steps=(5, 25), margin=0.01, min_rows_per_step=100, patience_days=20)
FACTS = Facts(
    step=0,
    pairs=1000,
    step_pairs=500,
    mean=-0.001,
    sd=0.08,
    lower=-0.012,
    upper=0.009,
    answers=400,
    fallback=0.0,
    fallback_lower=0.0,
    champion_fallback=0.0,
    days=4.0,
    step_days=2.0,
)


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, "advance"),
        ({"step": 1}, "promote"),
        ({"step_pairs": 99}, "wait"),
        ({"upper": 0.01}, "wait"),
        ({"upper": 0.011, "days": 20.0}, "stop"),
        ({"step_pairs": 99, "days": 25.0}, "stop"),
        ({"lower": 0.0001, "mean": 0.004}, "roll_back"),
        ({"lower": 0.02, "upper": 0.04, "mean": 0.03, "days": 99.0}, "roll_back"),
        ({"fallback_lower": 0.021}, "roll_back"),
        ({"fallback_lower": 0.021, "champion_fallback": 0.01}, "advance"),
        ({"pairs": 0, "step_pairs": 0, "mean": None, "sd": None, "lower": -1.0, "upper": 1.0}, "wait"),
        ({"pairs": 1, "step_pairs": 1, "sd": None, "lower": -1.0, "upper": 1.0}, "wait"),
    ],
)
def test_a_rollout_goes_where_its_evidence_points(changed: dict[str, Any], verdict: str) -> None:
    found = judge(CANARY, replace(FACTS, **changed))
    assert found.verdict == verdict
    assert found.why


def test_waiting_says_how_much_longer() -> None:
    found = judge(CANARY, replace(FACTS, upper=0.02))
    assert found.more_rows is not None
    assert found.more_days == pytest.approx(found.more_rows / 250, abs=0.01)
    assert "more labelled rows are needed" in found.why
    few = judge(CANARY, replace(FACTS, step_pairs=40))
    assert (few.more_rows, few.more_days) == (60, 0.24)
    nothing = judge(CANARY, replace(FACTS, pairs=0, step_pairs=0, mean=None, sd=None, lower=-1.0, upper=1.0))
    assert nothing.more_rows is None
    assert "cannot be said yet" in nothing.why


def trigger(days_ago: float, state: TriggerState, model: str = "delay") -> Trigger:
    return Trigger(
        id=f"trg_{days_ago}",
        service="delay",
        model=model,
        reason="quality",
        source=f"alm_{days_ago}",
        detail={},
        state=state,
        why="",
        job=None,
        release=None,
        requester="system",
        raised_at=START - timedelta(days=days_ago),
        ended_at=None,
    )


@pytest.mark.parametrize(
    ("past", "word"),
    [
        ([], ""),
        ([(3, TriggerState.REFUSED)], ""),
        ([(30, TriggerState.DONE)], ""),
        ([(30, TriggerState.QUEUED)], "under way"),
        ([(9.5, TriggerState.DONE)], "9.5 days ago"),
        ([(9.5, TriggerState.FAILED)], "cooldown is 10"),
        ([(10, TriggerState.ROLLED_OUT)], ""),
        ([(20, TriggerState.DONE), (60, TriggerState.FAILED), (200, TriggerState.ROLLED_OUT)], "budget of 3"),
        ([(20, TriggerState.DONE), (60, TriggerState.DONE), (366, TriggerState.DONE)], ""),
    ],
)
def test_a_trigger_trains_within_its_limits(past: list[tuple[float, TriggerState]], word: str) -> None:
    found = check_retrain(RETRAIN, [trigger(days, state) for days, state in past], START)
    assert word in found
    assert bool(found) == bool(word)


def test_another_models_triggers_do_not_count() -> None:
    assert check_retrain(RETRAIN, [trigger(1, TriggerState.QUEUED, "other")], START) == ""


def test_new_windows_are_those_after_the_last() -> None:
    known = ["2013-04", "2013-02", "2013-03"]
    assert new_windows(known, "2013-02") == ["2013-03", "2013-04"]
    assert new_windows(known, "2013-04") == []
    assert new_windows(known, None) == ["2013-02", "2013-03", "2013-04"]


def change(number: int, action: Any, release: str) -> Change:
    return Change("delay", "production", number, action, release, None, f"dec_{release}", None, "", START, "usr_ops")


@pytest.mark.parametrize(
    ("history", "wanted"),
    [
        ([], None),
        (["a"], None),
        (["a", "b"], "a"),
        (["a", "b", "<a"], None),
        (["a", "b", "c", "<b"], "a"),
        (["a", "b", "c", "<b", "<a"], None),
        (["a", "b", "<a", "c"], "a"),
        (["a", "b", "<a", "b"], "a"),
    ],
)
def test_going_back_undoes_one_deployment_at_a_time(history: list[str], wanted: str | None) -> None:
    changes = [
        change(number, "rolled_back" if name.startswith("<") else "deployed", name.removeprefix("<"))
        for number, name in enumerate(history)
    ]
    found = earlier(changes)
    assert (None if found is None else found.release) == wanted


@pytest.mark.parametrize(
    "canary",
    [
        Canary(steps=()),
        Canary(steps=(25, 5)),
        Canary(steps=(5, 100)),
        Canary(steps=(-1, 5)),
        Canary(margin=0),
        Canary(alpha=0.5),
        Canary(min_rows_per_step=0),
        Canary(patience_days=0),
        Canary(fallback_margin=-0.1),
    ],
)
def test_a_canary_that_could_not_work_is_refused(canary: Canary) -> None:
    with pytest.raises(ConfigurationError):
        check_service(replace(SERVICE, rollout=canary))


def test_a_service_needs_something_to_tell_rows_apart() -> None:
    check_service(SERVICE)
    with pytest.raises(ConfigurationError):
        check_service(replace(SERVICE, key=None, entity=None))
    with pytest.raises(ConfigurationError):
        check_retrain_spec(replace(RETRAIN, budget_per_year=-1))
