"""How long a rollout would take: against the rollouts that are simulated, and from what was recorded."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import holdtrue as ht
from holdtrue.core.errors import NotFound
from holdtrue.delivery import Canary
from holdtrue.delivery.estimating import Estimate, estimate
from holdtrue.delivery.simulating import Scenario, simulate
from tests.delivery.worlds import SERVICE, World, open_world


def asked(world: World, service: str = "delay") -> Estimate:
    now = world.clock.now()
    return world.read(lambda conn: estimate(conn, world.project, service, now))


def test_what_is_not_known_is_assumed_and_said(tmp_path: Path) -> None:
    world = open_world(tmp_path)
    with pytest.raises(NotFound):
        asked(world)
    world.declare()
    found = asked(world)
    assert (found.days, found.per_day) == (None, None)
    assert found.rows is not None
    assert "losses are assumed to differ by 0.1 a row" in found.why
    assert "no whole day with traffic is known" in found.why


def test_the_last_rollout_and_the_traffic_say_it(tmp_path: Path) -> None:
    from holdtrue import monitoring

    world = open_world(tmp_path)
    world.declare(service=replace(SERVICE, rollout=Canary(margin=0.02, min_rows_per_step=100)))
    running = world.rolling()
    for _ in range(3):
        world.day(world.rollout(running.id), 400)
    world.judge()
    monitoring.run_due(world.stores, world.project)
    found = asked(world)
    sd = world.rollout(running.id).verdict["facts"]["sd"]
    assert f"losses differed by {sd:.3f} a row in {running.id}" in found.why
    assert found.per_day == pytest.approx(400.0)
    assert found.rows is not None
    assert found.days == pytest.approx(found.rows / 400.0)


def test_patience_that_ends_before_is_said(tmp_path: Path) -> None:
    from holdtrue import monitoring

    world = open_world(tmp_path)
    world.declare(service=replace(SERVICE, rollout=Canary(margin=0.0005, patience_days=3)))
    running = world.rolling()
    for _ in range(2):
        world.day(running, 400)
    world.judge()
    monitoring.run_due(world.stores, world.project)
    assert "Its patience of 3 days ends before" in asked(world).why


@pytest.mark.parametrize(
    "canary",
    [
        Canary(metric="answers", margin=0.06, steps=(20.0, 50.0)),
        ht.ABTest("bought", worth=0.06),
    ],
)
def test_the_estimate_of_arms_is_about_what_simulated_rollouts_take(tmp_path: Path, canary: Canary) -> None:
    world = open_world(tmp_path)
    kind = "application" if canary.metric == "answers" else "model"
    world.declare(service=replace(SERVICE, rollout=canary, kind=kind))
    found = asked(world)
    assert found.rows is not None
    played = simulate(canary, Scenario(requests=8 * found.rows, per_day=found.rows, look_hours=1.0), 16, 3)
    assert played.requests is not None
    assert sum(played.endings.values()) - played.endings["undecided"] >= 14
    assert 0.4 < played.requests.middle / found.rows < 2.5


def test_the_estimate_of_pairs_is_about_what_simulated_rollouts_take(tmp_path: Path) -> None:
    world = open_world(tmp_path)
    world.declare(service=replace(SERVICE, rollout=Canary(margin=0.02, min_rows_per_step=50)))
    found = asked(world)
    assert found.rows is not None
    random = np.random.default_rng(1)
    days = tuple(tuple(np.clip(random.normal(0, 0.1, 500), -1, 1).tolist()) for _ in range(8))
    scenario = Scenario(requests=8 * found.rows, per_day=found.rows, look_hours=1.0, losses=days)
    played = simulate(Canary(margin=0.02, min_rows_per_step=50), scenario, 16, 3)
    assert played.requests is not None
    assert played.endings["promoted"] >= 14
    assert 0.4 < played.requests.middle / found.rows < 2.5
