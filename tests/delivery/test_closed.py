"""Environments that are closed to changes: nothing comes in or goes on, and going back stays possible."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import holdtrue as ht
from holdtrue import delivery, governance
from holdtrue.core.errors import ConfigurationError
from holdtrue.delivery import RolloutState
from holdtrue.governance import Freeze, Policy, Rule
from holdtrue.governance.model import ChangeFrozen
from tests.delivery.worlds import OPS, POLICY, START, World, open_world

DAY = timedelta(days=1)


def frozen(first: float, last: float) -> Policy:
    return replace(POLICY, freezes=(Freeze(START + first * DAY, START + last * DAY, "the holidays"),))


def test_nothing_is_promoted_in_a_freeze_and_after_it_is(tmp_path: Path) -> None:
    world = open_world(tmp_path)
    world.declare(frozen(1, 3))
    world.live("one")
    second = world.allowed("two")
    world.clock.advance(86_400)
    with pytest.raises(ChangeFrozen, match="Nothing may be changed in production now"):
        world.promote(second)
    assert world.read(lambda conn: delivery.rollouts(conn, world.project)) == []
    world.clock.advance(2 * 86_400)
    assert world.promote(second).rollout is not None


def six_days(world: World, *policies: Policy) -> tuple[str, list[dict[str, Any]]]:
    """Play a rollout of an equal release for six days; return its id and the last judgements."""
    world.declare(*policies)
    running = world.rolling()
    verdicts: list[dict[str, Any]] = []
    for _ in range(6):
        world.day(world.rollout(running.id), 400)
        verdicts = world.judge() or verdicts
        world.reconcile()
    return running.id, verdicts


def test_a_rollout_waits_in_a_freeze_and_can_go_back(tmp_path: Path) -> None:
    free = open_world(tmp_path / "free")
    name, _ = six_days(free)
    assert free.rollout(name).state is RolloutState.PROMOTED

    world = open_world(tmp_path / "frozen")
    name, (said,) = six_days(world, frozen(1.5, 30))
    assert world.rollout(name).state is RolloutState.RUNNING
    assert said["verdict"] == "wait"
    assert "Nothing may be changed in production now. It is frozen: the holidays." in said["why"]
    assert world.rollback().rollout is not None
    assert world.rollout(name).state is RolloutState.ROLLED_BACK


def test_a_worse_release_is_rolled_back_in_a_freeze_too(tmp_path: Path) -> None:
    world = open_world(tmp_path)
    world.declare(frozen(0.5, 30))
    running = world.rolling()
    for _ in range(4):
        world.day(world.rollout(running.id), 300, harm=0.3)
        world.judge()
    assert world.rollout(running.id).state is RolloutState.ROLLED_BACK


def test_the_same_release_goes_from_staging_to_production_and_a_rule_may_ask_for_it(tmp_path: Path) -> None:
    world: World = open_world(tmp_path)
    staging = Policy("staging", (Rule("quality", "metric.roc_auc.lower >= 0.6"),), approvals=0)
    production = Policy("production", (Rule("tried in staging", '"staging" in release.deployed_in'),), approvals=0)
    world.declare(staging, production)
    release = world.submit("one").release
    with pytest.raises(governance.NotAllowed, match="may not enter production"):
        world.promote(release)
    world.write(lambda tx: delivery.promote(tx, "delay", release, "staging"), OPS)
    assert world.promote(release).deployment.release == release
    where = world.read(lambda conn: delivery.deployments(conn, world.project))
    assert {(each.environment, each.release) for each in where} == {("staging", release), ("production", release)}


def test_a_project_file_declares_freezes_and_windows_below_the_gate() -> None:
    project = ht.Project("toy", owner="ada")
    with pytest.raises(ConfigurationError, match="has no gate yet"):
        project.freeze("production", "2026-12-20", "2027-01-02", "holidays")
    project.gate("production", require={"any": "true"})
    project.freeze("production", "2026-12-20", "2027-01-02T06:00+01:00", "holidays")
    project.window("production", ["mon", "tue"], 9, 16, "Europe/Vienna")
    (policy,) = project.spec().policies
    assert policy.freezes[0].end.isoformat() == "2027-01-02T05:00:00+00:00"
    assert policy.windows[0].days == ("mon", "tue")
    with pytest.raises(ConfigurationError, match="is not a day or a moment"):
        project.freeze("production", "christmas", "2027-01-02", "holidays")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        project.window("production", ["someday"], 9, 16)
