"""Rollouts played before they begin: with production's own decisions, and held to the numbers that are promised."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from holdtrue.core.clock import microseconds
from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.delivery.history import history
from holdtrue.delivery.model import Canary
from holdtrue.delivery.simulating import Played, Scenario, play, simulate, traffic
from holdtrue.delivery.strategies import strategy_of
from tests.delivery.test_arms import START, rollout
from tests.delivery.worlds import World, open_world

PAIRS = Canary()
ANSWERS = Canary(metric="answers", margin=0.05)


def through_the_journal(canary: Canary, scenario: Scenario, seed: int) -> Played:
    """Play as production does: records as a data plane writes them, read by the judge each hour."""
    requests = traffic(scenario, seed)
    strategy, at = strategy_of(canary), rollout(canary)
    judging: Any = strategy.start("")
    seen = 0
    answered: list[int] = []
    for hour in range(1, int(np.ceil(requests.day[-1] * 24)) + 1):
        upto = int(np.searchsorted(requests.day, hour / 24, side="right"))
        rows = range(seen, upto)
        mine = [row for row in rows if requests.place[row] < at.percent / 100]
        answered += mine
        tables = _records(canary, requests, rows, set(mine))
        now = START + timedelta(hours=hour)
        judging = strategy.absorb(judging, at, *tables, now)
        seen = upto
        found, _ = strategy.judge(canary, judging, at, now)
        if found.verdict == "advance":
            judging, at = judging.next_step(), replace(at, step=at.step + 1, step_started_at=now)
        elif found.verdict != "wait":
            ends: Any = {"promote": "promoted", "roll_back": "rolled_back", "stop": "stopped"}[found.verdict]
            return Played(ends, at.step, hour / 24, seen, len(answered), len(set(requests.user[answered].tolist())))
    days = float(requests.day[-1])
    return Played("undecided", at.step, days, seen, len(answered), len(set(requests.user[answered].tolist())))


def _records(canary: Canary, requests: Any, rows: range, mine: set[int]) -> tuple[pa.Table, pa.Table]:
    """Return the predictions and labels of some requests; a score of 1 on the label 0 is a loss of 1."""
    names = ("rel_a", "rel_b")
    losses = {"rel_a": requests.champion, "rel_b": requests.challenger}
    records: list[dict[str, Any]] = []
    for row in rows:
        answering = names[row in mine]
        for name in names if canary.metric == "brier" else (answering,):
            loss = float(losses[name][row])
            records.append(
                {
                    "id": f"{row}" if name == answering else f"{row}~{name}",
                    "prediction_id": f"{row}",
                    "key": None,
                    "rollout": "rol_1",
                    "release": name,
                    "role": "answer" if name == answering else "shadow",
                    "score": loss if canary.metric == "brier" else 1.0 - loss,
                    "fallback": False,
                    "cost_micros": None,
                    "time": microseconds(START) + row,
                    "recorded_at": microseconds(START) + row,
                }
            )
    labels = [{"prediction_id": f"{row}", "key": None, "value": 0.0, "known_at": 0, "time": 0} for row in rows]
    kept = labels if canary.metric == "brier" else [{**each, "value": None} for each in labels]
    kinds = pa.schema([(name, pa.string()) for name in ("id", "prediction_id", "key", "rollout", "release", "role")])
    kinds = kinds.append(pa.field("score", pa.float64())).append(pa.field("fallback", pa.bool_()))
    for name in ("cost_micros", "time", "recorded_at"):
        kinds = kinds.append(pa.field(name, pa.int64()))
    return pa.Table.from_pylist(records, kinds), pa.Table.from_pylist(kept) if kept else pa.table({"value": []})


@pytest.mark.parametrize(
    ("canary", "scenario"),
    [
        (replace(PAIRS, margin=0.1), Scenario(requests=4000, per_day=8000)),
        (replace(PAIRS, margin=0.1, shadow=False, steps=(50.0,)), Scenario(requests=4000, per_day=8000, effect=0.3)),
        (replace(PAIRS, margin=0.1), Scenario(requests=4000, per_day=8000, effect=0.1, swing=0.1)),
        (replace(ANSWERS, margin=0.3), Scenario(requests=4000, per_day=8000)),
        (ANSWERS, Scenario(requests=4000, per_day=8000, effect=0.4)),
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_simulated_rollout_ends_as_one_over_the_journal_does(canary: Canary, scenario: Scenario, seed: int) -> None:
    simulated = play(canary, scenario, seed)
    real = through_the_journal(canary, scenario, seed)
    assert replace(simulated, days=real.days) == real
    assert simulated.days == pytest.approx(real.days)


def test_the_endings_differ_between_these_plays() -> None:
    """Hold the comparison above to plays that do not all end alike."""
    ends = {
        play(replace(PAIRS, margin=0.1), Scenario(requests=4000, per_day=8000, effect=effect), 1).ending
        for effect in (0.0, 0.1)
    }
    assert ends == {"promoted", "rolled_back"}


def test_the_seed_decides_and_neither_workers_nor_the_number_of_runs_do() -> None:
    scenario = Scenario(requests=2000, per_day=2000, effect=0.05, spread=0.1, shared=0.5, label_delay_hours=3)
    alone = simulate(PAIRS, scenario, 60, 3)
    assert simulate(PAIRS, scenario, 60, 3, workers=2) == alone
    assert simulate(PAIRS, scenario, 60, 4) != alone
    assert sum(alone.endings.values()) == alone.runs == 60


def test_late_labels_make_a_rollout_longer_by_the_delay() -> None:
    soon = play(PAIRS, Scenario(effect=0.1), 1)
    late = play(PAIRS, Scenario(effect=0.1, label_delay_hours=24.0), 1)
    assert soon.ending == late.ending == "rolled_back"
    assert late.days == pytest.approx(soon.days + 1.0)
    assert late.answered > soon.answered


def test_patience_ends_a_play_too() -> None:
    assert play(replace(PAIRS, patience_days=0.5), Scenario(), 1).ending == "stopped"


@pytest.mark.parametrize("swing", [0.0, 0.1])
def test_the_promised_numbers_on_a_sample(swing: float) -> None:
    equal = simulate(PAIRS, Scenario(swing=swing), 16, 11)
    worse = simulate(PAIRS, Scenario(swing=swing, effect=0.02), 16, 12)
    bad = simulate(PAIRS, Scenario(swing=swing, effect=0.05), 16, 13)
    assert equal.endings["rolled_back"] <= 1
    assert worse.endings["rolled_back"] == bad.endings["rolled_back"] == 16
    assert worse.early is not None
    assert worse.early > 0.5
    assert bad.early == 1.0


def test_each_arm_by_its_own_answers_does_not_mistake_the_hour_for_the_release() -> None:
    equal = simulate(ANSWERS, Scenario(swing=0.15, requests=12_000), 8, 14)
    bad = simulate(ANSWERS, Scenario(swing=0.15, effect=0.2, requests=12_000), 6, 15)
    assert equal.endings["rolled_back"] <= 1
    assert bad.endings["rolled_back"] == 6


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("canary", [PAIRS, ANSWERS], ids=["pairs", "answers"])
@pytest.mark.parametrize("swing", [0.0, 0.1])
def test_at_most_two_of_a_hundred_equal_releases_are_rolled_back(canary: Canary, swing: float) -> None:
    found = simulate(canary, Scenario(swing=swing), 1000, 21, workers=2)
    assert found.shares["false_rollback"]["value"] <= 0.02  # type: ignore[operator]


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("swing", [0.0, 0.1])
@pytest.mark.parametrize(("effect", "allowed"), [(0.02, 0.02), (0.05, 0.0)])
def test_worse_releases_are_found_before_the_last_step(swing: float, effect: float, allowed: float) -> None:
    found = simulate(PAIRS, Scenario(swing=swing, effect=effect), 1000, 22, workers=2)
    assert found.shares["missed"]["value"] <= allowed  # type: ignore[operator]
    assert found.early is not None
    assert found.early > 0.5


@pytest.mark.parametrize(
    "bad",
    [
        {"requests": 0},
        {"per_day": 0.0},
        {"per_day": float("nan")},
        {"base": 0.99, "effect": 0.02},
        {"base": 0.05, "swing": 0.1},
        {"shared": 1.1},
        {"look_hours": 0.0},
        {"label_delay_hours": -1.0},
        {"effect": 2.0, "losses": ((0.1, 0.2),)},
    ],
)
def test_a_scenario_that_cannot_be_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="cannot be played"):
        simulate(PAIRS, replace(Scenario(), **bad), 1)


def test_recorded_losses_are_played_with_their_mean_moved_to_the_effect(tmp_path: Path) -> None:
    world: World = open_world(tmp_path)
    with pytest.raises(NotFound, match="no rollout"):
        history(world.stores, world.project, "delay")
    world.declare()
    running = world.rolling()
    for _ in range(3):
        world.day(running, 400, harm=0.1)
    found = history(world.stores, world.project, "delay")

    assert (found.rollout, found.rows, len(found.days)) == (running.id, 1200, 3)
    assert found.label_delay_hours == pytest.approx(24.0)
    world.judge()
    judged = world.rollout(running.id).verdict["facts"]
    recorded = np.concatenate([np.array(day) for day in found.days.values()])
    assert recorded.mean() == pytest.approx(judged["mean"], abs=1e-5)

    losses = tuple(found.days.values())
    scenario = Scenario(requests=5000, per_day=500, losses=losses)
    assert simulate(PAIRS, scenario, 10, 1).endings["rolled_back"] == 0
    assert simulate(PAIRS, replace(scenario, effect=0.05), 10, 1).endings["rolled_back"] == 10
    with pytest.raises(NotFound, match="no rollout"):
        history(world.stores, world.project, "other", running.id)
