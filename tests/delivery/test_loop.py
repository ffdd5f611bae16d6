"""Reasons to retrain become jobs, jobs become releases, allowed releases become rollouts."""

from dataclasses import replace
from typing import Any

import pytest

from holdtrue import delivery, monitoring, pipelines
from holdtrue.core.actor import SYSTEM
from holdtrue.delivery import RolloutState, TriggerState
from holdtrue.governance import NotSeparate
from tests.delivery.worlds import ADA, GOOD, OPS, POOR, RETRAIN, WORKER, World, delivery_load


def run(world: World) -> list[dict[str, Any]]:
    return delivery.run_due(world.stores, world.project)


def alarm(world: World, name: str = "alm_1", service: str = "delay") -> None:
    world.write(
        lambda tx: tx.emit("trigger.raised", name, {"service": service, "reason": "quality", "alarm": name}),
        SYSTEM,
    )


def train(world: World, trigger: str, name: str, evidence: Any = None) -> str:
    """Do as a worker does: lease the job, submit a release, report."""
    job = world.write(lambda tx: pipelines.lease(tx, "w"), WORKER)
    assert job is not None
    assert job.payload["trigger"] == trigger
    body = {**world.submission(name, evidence=evidence or GOOD), "trigger": trigger, "run": job.id}
    made = world.write(lambda tx: delivery.submit(tx, delivery_load(body)), WORKER)
    world.write(lambda tx: pipelines.complete(tx, job.id, job.fence, {"release": made.release}), WORKER)
    return made.release


def test_nothing_is_due_without_a_reason(world: World) -> None:
    world.declare(retrain=RETRAIN)
    world.live("one")
    count = len(world.actions())
    assert run(world) == []
    assert len(world.actions()) == count


def test_an_alarm_becomes_a_job_a_release_and_a_rollout(world: World) -> None:
    world.declare(retrain=RETRAIN)
    first = world.live("one")
    alarm(world)
    queued = run(world)
    assert [(each["reason"], each["state"]) for each in queued] == [("quality", "queued")]
    assert run(world) == []
    jobs = world.read(lambda conn: pipelines.jobs(conn, world.project))
    assert [each.kind for each in jobs] == ["retrain"]
    assert jobs[0].payload["champion"] == first
    release = train(world, queued[0]["id"], "two")
    assert world.triggers()[0].state is TriggerState.DONE
    assert run(world) == []
    world.approve(release)
    assert [each["state"] for each in run(world)] == ["rolled_out"]
    rollouts = world.read(lambda conn: delivery.rollouts(conn, world.project))
    assert [(each.challenger, each.state) for each in rollouts] == [(release, RolloutState.RUNNING)]
    assert run(world) == []


def test_a_challenger_that_its_gate_refuses_is_never_rolled_out(world: World) -> None:
    world.declare(retrain=RETRAIN)
    world.live("one")
    alarm(world)
    train(world, run(world)[0]["id"], "two", POOR)
    assert run(world) == []
    assert world.read(lambda conn: delivery.rollouts(conn, world.project)) == []


def test_promotion_by_hand_can_be_asked_for(world: World) -> None:
    world.declare(retrain=replace(RETRAIN, promote=False))
    world.live("one")
    alarm(world)
    world.approve(train(world, run(world)[0]["id"], "two"))
    assert run(world) == []
    assert world.read(lambda conn: delivery.rollouts(conn, world.project)) == []


def test_limits_refuse_with_a_reason_that_is_recorded(world: World) -> None:
    world.declare(retrain=RETRAIN)
    world.live("one")
    alarm(world, "alm_1")
    queued = run(world)[0]["id"]
    alarm(world, "alm_2")
    assert "under way already" in run(world)[0]["why"]
    train(world, queued, "two")
    alarm(world, "alm_3")
    assert "cooldown" in run(world)[0]["why"]
    for number, name in enumerate(("three", "four")):
        world.clock.advance(11 * 86_400)
        alarm(world, f"alm_later_{number}")
        train(world, run(world)[0]["id"], name)
    world.clock.advance(11 * 86_400)
    alarm(world, "alm_last")
    assert "budget of 3" in run(world)[0]["why"]
    states = [each.state for each in world.triggers()]
    assert states.count(TriggerState.REFUSED) == 3
    assert world.actions("retrain.refused") == ["retrain.refused"] * 3
    assert len(world.read(lambda conn: pipelines.jobs(conn, world.project))) == 3


def test_alarms_of_other_services_and_before_the_declaration_do_not_count(world: World) -> None:
    world.declare()
    world.live("one")
    alarm(world, "alm_old")
    world.declare(retrain=RETRAIN)
    alarm(world, "alm_other", "another")
    assert run(world) == []
    assert world.triggers() == []


def test_a_new_month_trains_once(world: World) -> None:
    world.declare(retrain=RETRAIN)
    world.live("one")
    world.months("2013-03")
    found = run(world)
    assert [(each["reason"], each["source"]) for each in found] == [("monthly", "flights:2013-03")]
    assert run(world) == []
    train(world, found[0]["id"], "two")
    world.clock.advance(31 * 86_400)
    assert run(world) == []
    world.months("2013-04")
    assert [each["source"] for each in run(world)] == ["flights:2013-04"]


def test_months_count_only_where_they_are_asked_for(world: World) -> None:
    world.declare(retrain=replace(RETRAIN, on=("quality",)))
    world.live("one")
    world.months("2013-03")
    assert run(world) == []
    world.declare(retrain=replace(RETRAIN, on=("monthly",)))
    alarm(world)
    assert [each["reason"] for each in run(world)] == ["monthly"]


def test_a_job_that_dies_frees_the_way_and_costs_its_budget(world: World) -> None:
    world.declare(retrain=replace(RETRAIN, cooldown_days=0, budget_per_year=2))
    world.live("one")
    alarm(world, "alm_1")
    trigger = run(world)[0]["id"]
    job = world.write(lambda tx: pipelines.lease(tx, "w"), WORKER)
    assert job is not None
    world.write(lambda tx: pipelines.fail(tx, job.id, job.fence, "out of memory", final=True), WORKER)
    ended = run(world)
    assert [(each["id"], each["state"], each["why"]) for each in ended] == [(trigger, "failed", "out of memory")]
    alarm(world, "alm_2")
    assert [each["state"] for each in run(world)] == ["queued"]


def test_a_result_that_was_only_reported_is_taken_in(world: World) -> None:
    world.declare(retrain=RETRAIN)
    world.live("one")
    alarm(world)
    run(world)
    job = world.write(lambda tx: pipelines.lease(tx, "w"), WORKER)
    assert job is not None
    result = world.submission("two")
    world.write(lambda tx: pipelines.complete(tx, job.id, job.fence, result), WORKER)
    assert [each["state"] for each in run(world)] == ["done"]
    assert world.triggers()[0].release is not None


def test_a_job_without_a_release_failed(world: World) -> None:
    world.declare(retrain=RETRAIN)
    world.live("one")
    alarm(world)
    run(world)
    job = world.write(lambda tx: pipelines.lease(tx, "w"), WORKER)
    assert job is not None
    world.write(lambda tx: pipelines.complete(tx, job.id, job.fence, {"rows": 3}), WORKER)
    assert [each["state"] for each in run(world)] == ["failed"]


def test_asking_by_hand_keeps_the_asker_from_approving(world: World) -> None:
    world.declare(retrain=RETRAIN)
    world.live("one")
    trigger = world.write(lambda tx: delivery.request_retrain(tx, "delay", "new airline"), replace(OPS, id="usr_ben"))
    assert trigger.state is TriggerState.QUEUED
    release = train(world, trigger.id, "two")
    with pytest.raises(NotSeparate):
        world.approve(release)


def test_a_trigger_is_told_in_its_incidents_timeline(world: World) -> None:
    world.declare(retrain=RETRAIN)
    world.live("one")
    incident = world.write(
        lambda tx: monitoring.open_incident(tx, service="delay", kind="quality", title="Falling", text="It fell."), ADA
    )
    world.write(lambda tx: tx.emit("trigger.raised", "alm_1", {"service": "delay", "incident": incident.id}), SYSTEM)
    run(world)
    told = world.read(lambda conn: monitoring.incident(conn, world.project, incident.id))
    assert "A retrain of delay was queued." in [entry.text for entry in told.timeline]
