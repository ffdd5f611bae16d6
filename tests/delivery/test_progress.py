"""Rollouts judged on records: promoted, rolled back, stopped, and looked at again and again."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from holdtrue import delivery, monitoring
from holdtrue.delivery import RolloutState, store
from holdtrue.delivery.judging import Judging
from holdtrue.stats import sequences
from holdtrue.storage.ledger import Transaction
from tests.delivery.worlds import SERVICE, World


def follow(world: World, name: str, days: int, **traffic: Any) -> list[str]:
    """Let days pass until the rollout ends; return the verdict of each."""
    verdicts: list[str] = []
    for _ in range(days):
        rollout = world.rollout(name)
        if rollout.state is not RolloutState.RUNNING:
            break
        world.day(rollout, **traffic)
        verdicts += [each["verdict"] for each in world.judge()]
        world.reconcile()
        world.ack()
    return verdicts


def test_an_equal_challenger_goes_through_every_step_to_the_end(world: World) -> None:
    world.declare()
    running = world.rolling()
    verdicts = follow(world, running.id, 28)
    assert Counter(verdicts)["advance"] == 2
    assert verdicts[-1] == "promote"
    ended = world.rollout(running.id)
    assert ended.state is RolloutState.PROMOTED
    assert world.deployment().release == running.challenger
    steps = world.read(lambda conn: delivery.rollout_steps(conn, world.project, running.id))
    assert [each.action for each in steps] == ["started", "advanced", "advanced", "promoted"]
    assert [each.percent for each in steps] == [5.0, 25.0, 50.0, 100.0]
    assert steps[-1].facts["upper"] < SERVICE.rollout.margin
    assert world.actions("rollout.") == [f"rollout.{each.action}" for each in steps]
    assert len(world.snapshot()["services"]["flights/delay"]["arms"]) == 1


def test_a_harmful_challenger_is_rolled_back_and_tells_an_incident(world: World) -> None:
    world.declare()
    running = world.rolling()
    verdicts = follow(world, running.id, 28, harm=0.15)
    assert verdicts[-1] == "roll_back"
    assert world.rollout(running.id).state is RolloutState.ROLLED_BACK
    assert "worse than the champion" in world.rollout(running.id).reason
    assert world.deployment().release == running.champion
    found = world.read(lambda conn: monitoring.incidents(conn, world.project, kind="rollout"))
    assert [each.release for each in found] == [running.challenger]
    arms = world.snapshot()["services"]["flights/delay"]["arms"]
    assert [(arm["release"], arm["percent"]) for arm in arms] == [(running.champion, 100.0)]


def test_a_challenger_that_answers_with_the_fallback_is_rolled_back_without_labels(world: World) -> None:
    world.declare()
    running = world.rolling()
    verdicts: list[str] = []
    for _ in range(20):
        if world.rollout(running.id).state is not RolloutState.RUNNING:
            break
        world.day(running, rows=600, fallback=0.6, labels=False)
        verdicts += [each["verdict"] for each in world.judge()]
    assert verdicts[-1] == "roll_back"
    assert "with the fallback" in world.rollout(running.id).reason


def test_without_proof_it_is_stopped_when_patience_ends(world: World) -> None:
    world.declare()
    running = world.rolling()
    verdicts = follow(world, running.id, 40, rows=6)
    assert verdicts[-1] == "stop"
    assert len(verdicts) == 28
    assert world.rollout(running.id).state is RolloutState.STOPPED
    assert world.deployment().release == running.champion
    assert world.read(lambda conn: monitoring.incidents(conn, world.project, kind="rollout")) == []


def test_only_new_records_are_counted_and_the_sum_is_that_of_all_rows(world: World) -> None:
    world.declare()
    running = world.rolling()
    for _ in range(3):
        world.day(running, rows=60)
        world.judge()
        world.judge()
        world.stores.journal.seal()
    state = Judging.from_json(world.rollout(running.id).judging)
    assert state.difference.n == 180
    assert state.waiting == {}
    table = monitoring.joined(world.stores, world.project, "delay")
    pairs = monitoring.paired(table, running.champion, running.challenger)
    differences = (pairs.second - pairs.labels) ** 2 - (pairs.first - pairs.labels) ** 2
    whole = sequences.update(sequences.start(-1.0, 1.0), differences)
    assert np.isclose(state.difference.total, whole.total)
    assert np.isclose(sequences.upper_bound(state.difference), sequences.upper_bound(whole))
    answers = Counter(table.filter(pc.field("role") == "answer")["release"].to_pylist())
    assert state.fallbacks.n == answers[running.challenger]
    assert state.champion_answers == answers[running.champion]


def test_labels_that_come_late_find_their_rows(world: World) -> None:
    world.declare()
    running = world.rolling()
    world.day(running, rows=50, labels=False)
    world.judge()
    waiting = Judging.from_json(world.rollout(running.id).judging).waiting
    assert len(waiting) == 50
    keys = [str(row.key) for row in waiting.values()]
    world.clock.advance(timedelta(days=5).total_seconds())
    world.label([*keys[:20], "F-unknown"], [1] * 21)
    world.judge()
    # A corrected label does not count a row twice.
    world.label(keys[:20], [0] * 20)
    world.judge()
    state = Judging.from_json(world.rollout(running.id).judging)
    assert (state.difference.n, len(state.waiting)) == (20, 30)
    world.clock.advance(timedelta(days=61).total_seconds())
    world.label(["F-other"], [1])
    world.judge()
    ended = Judging.from_json(world.rollout(running.id).judging)
    assert ended.forgotten == 30


def test_records_of_another_rollout_or_before_it_do_not_count(world: World) -> None:
    world.declare()
    first = world.rolling()
    world.day(first, rows=40)
    world.rollback()
    world.reconcile()
    second = world.promote(world.allowed("three")).rollout
    assert second is not None
    world.reconcile()
    world.day(world.rollout(second.id), rows=30)
    world.judge()
    assert Judging.from_json(world.rollout(second.id).judging).difference.n == 30


def test_a_rollout_that_nobody_serves_yet_is_not_judged(world: World) -> None:
    world.declare()
    world.live("one")
    world.promote(world.allowed("two"))
    assert world.judge() == []


def test_an_idle_look_writes_nothing(world: World) -> None:
    world.declare()
    running = world.rolling()
    world.day(running, rows=20)
    world.judge()
    before = world.rollout(running.id)
    world.clock.advance(60)
    found = world.judge()
    assert found[0]["verdict"] == "wait"
    assert "more labelled rows are needed" in found[0]["why"]
    assert world.rollout(running.id) == before
    world.clock.advance(3600)
    world.judge()
    assert world.rollout(running.id) != before


def test_judging_twice_gives_the_same_bytes(world: World) -> None:
    world.declare()
    running = world.rolling()
    world.day(running, rows=100)
    first = world.judge()[0]
    state = world.rollout(running.id).judging
    world.write(lambda tx: _forget(tx, running.id))
    assert world.judge()[0] == first
    assert world.rollout(running.id).judging == state


def _forget(tx: Transaction, name: str) -> None:
    row = store.rollout(tx.connection, tx.project, name)
    store.put_rollout(tx, replace(row, judging=None, verdict=None))


@pytest.mark.parametrize("seed", range(6))
def test_an_equal_challenger_is_seldom_rolled_back_although_looked_at_daily(world: World, seed: int) -> None:
    world.declare()
    world.random = np.random.default_rng(seed)
    running = world.rolling()
    assert "roll_back" not in follow(world, running.id, 15, rows=150, noise=0.15)


@pytest.mark.parametrize(("margin", "harm", "state"), [(0.05, 0.3, "rolled_back"), (0.05, 0.0, "running")])
def test_scores_that_drift_are_rolled_back_before_any_label_comes(
    world: World, margin: float, harm: float, state: str
) -> None:
    world.declare(service=replace(SERVICE, rollout=replace(SERVICE.rollout, drift_margin=margin)))
    running = world.rolling()
    follow(world, running.id, 3, harm=harm, labels=False)
    ended = world.rollout(running.id)
    assert ended.state.value == state
    assert ("Its scores have drifted from the champion's by +0.1" in ended.reason) == (state == "rolled_back")
    assert ended.judging["scores"]["n"] > 0


def test_scores_are_not_counted_where_their_drift_is_not_judged(world: World) -> None:
    world.declare()
    running = world.rolling()
    follow(world, running.id, 1, harm=0.3, labels=False)
    assert "scores" not in world.rollout(running.id).judging
    assert world.rollout(running.id).state is RolloutState.RUNNING
