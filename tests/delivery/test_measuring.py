"""DORA's measures: against hand-counted deployments, and from what a real project recorded."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from holdtrue import delivery, monitoring
from holdtrue.core.errors import NotFound
from holdtrue.delivery import changing
from holdtrue.delivery.measuring import Attempt, Measures, attempts, measures
from tests.delivery.worlds import OPS, START, WORKER, World, catalog_id, delivery_load, open_world

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def attempt(
    day: float, *kinds: str, deployed: bool = True, failed: float | None = None, rework: bool = False
) -> Attempt:
    began = START + day * DAY
    made = began + 2 * HOUR if deployed else None
    return Attempt(
        service="delay",
        release=f"rel_{day}",
        kinds=frozenset(kinds),
        began_at=began,
        deployed_at=made,
        failed_at=None if failed is None else (made or began) + failed * HOUR,
        lead={kind: 3600.0 * 10 * (number + 1) for number, kind in enumerate(kinds)} if deployed else {},
        rework=rework,
    )


def test_the_measures_are_those_counted_by_hand() -> None:
    found = [
        attempt(1, "model", "data"),
        attempt(2, "model", failed=4),
        attempt(3, "model", deployed=False, failed=2),
        attempt(4, "code", rework=True),
        attempt(40, "model"),
    ]
    by = {each.kind: each for each in measures(found, START, START + 28 * DAY)}

    assert (by["all"].deployments, by["all"].attempts, by["all"].failed, by["all"].rework) == (3, 4, 2, 1)
    assert by["all"].per_week == pytest.approx(0.75)
    assert by["all"].lead_hours == pytest.approx(10.0)
    assert by["all"].fail_rate["value"] == pytest.approx(0.5)
    assert by["all"].recovery_hours == pytest.approx(3.0)
    assert by["all"].rework_rate["value"] == pytest.approx(1 / 3)
    assert (by["model"].deployments, by["model"].failed, by["model"].rework) == (2, 2, 0)
    assert (by["data"].deployments, by["data"].lead_hours) == (1, pytest.approx(20.0))
    assert (by["code"].rework, by["code"].recovery_hours) == (1, None)
    assert (by["prompt"].attempts, by["prompt"].lead_hours, by["prompt"].fail_rate["value"]) == (0, None, None)


def told(world: World) -> dict[str, Measures]:
    now = world.clock.now()
    found = world.read(lambda conn: delivery.dora(conn, world.project, now - 90 * DAY, now + HOUR))
    return {each.kind: each for each in found}


def test_a_project_is_measured_by_what_it_recorded(tmp_path: Path) -> None:
    world = open_world(tmp_path)
    world.declare()
    assert told(world)["all"].attempts == 0

    world.live("one")
    world.clock.advance(3 * 86_400)
    bad = world.allowed("two")
    world.clock.advance(7_200)
    started = world.promote(bad).rollout
    assert started is not None
    world.reconcile()
    world.clock.advance(3_600)
    world.rollback("complaints")

    found = told(world)
    assert (found["all"].deployments, found["all"].attempts, found["all"].failed) == (1, 2, 1)
    assert found["model"].failed == 1
    # Only the model is new in the second release; data and features were the same.
    assert (found["data"].attempts, found["features"].attempts, found["code"].attempts) == (1, 1, 1)
    assert found["all"].recovery_hours == pytest.approx(1.0)
    # Its failed rollout left an incident open, so that the next one mends it.
    world.clock.advance(3_600)
    good = world.allowed("three")
    again = world.promote(good).rollout
    assert again is not None
    world.clock.advance(86_400)
    finish(world, again.id)
    found = told(world)
    assert (found["all"].deployments, found["all"].rework, found["model"].rework) == (2, 1, 1)
    made = world.read(lambda conn: attempts(conn, world.project, "delay"))
    assert [(each.release == good, each.rework) for each in made] == [(False, False), (False, False), (True, True)]
    assert made[-1].lead["model"] == pytest.approx(86_400.0)

    # What is undone after it was deployed has failed too.
    world.clock.advance(1_800)
    world.rollback("worse than we thought")
    assert told(world)["all"].failed == 2
    assert told(world)["all"].recovery_hours == pytest.approx(0.75)
    open_ones = world.read(lambda conn: monitoring.incidents(conn, world.project, unresolved=True))
    assert open_ones == []


def finish(world: World, name: str) -> None:
    from holdtrue.delivery import RolloutState, changing, store

    def work(tx: Any) -> None:
        changing.end_rollout(
            tx, store.rollout(tx.connection, tx.project, name), RolloutState.PROMOTED, "It is good.", {}
        )

    world.write(work)


def test_a_shadow_meets_nobody_and_is_no_change(tmp_path: Path) -> None:
    from dataclasses import replace

    import holdtrue as ht
    from tests.delivery.worlds import SERVICE

    world = open_world(tmp_path)
    world.declare(service=replace(SERVICE, rollout=ht.Shadow()))
    world.rolling()
    world.rollback()
    assert told(world)["all"].attempts == 1


def test_a_service_that_is_not_there_is_said(tmp_path: Path) -> None:
    world = open_world(tmp_path)
    with pytest.raises(NotFound, match="nothing"):
        world.read(lambda conn: delivery.dora(conn, world.project, START, START + DAY, service="nothing"))


def deploy(world: World, body: dict[str, Any]) -> str:
    """Submit a release, and deploy it an hour later."""
    made = world.write(lambda tx: delivery.submit(tx, delivery_load(body)), WORKER)
    assert made.decision is not None
    decision = world.approve(made.release).id
    world.clock.advance(3_600)

    def work(tx: Any) -> None:
        changing.set_release(
            tx,
            service="delay",
            environment="production",
            release=made.release,
            decision=decision,
            action="deployed",
        )

    world.write(work, OPS)
    return made.release


@pytest.mark.parametrize("kind", ["code", "data", "features", "model", "prompt", "settings"])
def test_each_kind_of_change_is_measured_by_itself(tmp_path: Path, kind: str) -> None:
    """A release in which one thing is new counts under that kind and no other, and so does its failure."""
    world = open_world(tmp_path)
    world.declare()
    first = {**world.submission("one"), "release": {**world.submission("one")["release"]}}
    prompt = {"kind": "prompt", "name": "ask", "content": {"text": "Late?"}}
    first["versions"] = [*first["versions"], prompt]
    pins = first["release"]["versions"]
    first["release"]["versions"] = {**pins, "prompt": catalog_id("prompt", prompt["content"])}
    deploy(world, first)
    before = told(world)
    world.clock.advance(7_200)

    second = changed(world, first, kind)
    deploy(world, second)
    found = told(world)
    for name in ("code", "data", "features", "model", "prompt", "settings"):
        new = int(name == kind)
        assert found[name].deployments - before[name].deployments == new, name
    one = world.read(lambda conn: attempts(conn, world.project, "delay"))[-1]
    assert one.kinds == {kind}
    assert one.lead[kind] == pytest.approx(3_600.0)
    assert found[kind].failed == 0

    world.clock.advance(1_800)
    world.rollback("it was worse")
    found = told(world)
    assert found[kind].failed == 1
    assert found[kind].recovery_hours == pytest.approx(0.5)
    assert sum(found[name].failed for name in found if name not in ("all", kind)) == 0


def test_limits_that_are_measured_with_a_model_are_no_change_of_settings(tmp_path: Path) -> None:
    world = open_world(tmp_path)
    world.declare()
    deploy(world, limited(world.submission("one"), 0.7))
    world.clock.advance(7_200)
    deploy(world, limited(world.submission("two"), 0.6))
    world.clock.advance(7_200)
    deploy(world, limited(world.submission("two"), 0.5))
    _, retrained, loosened = world.read(lambda conn: attempts(conn, world.project, "delay"))
    assert retrained.kinds == {"model"}
    assert loosened.kinds == {"settings"}


def limited(body: dict[str, Any], zero_up_to: float) -> dict[str, Any]:
    """Return a submission that pins a limit of its prediction sets."""
    sets = {"confidence": 0.9, "zero_up_to": zero_up_to, "one_from": 0.2}
    return {**body, "release": {**body["release"], "config": {**body["release"]["config"], "sets": sets}}}


def changed(world: World, first: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return a submission in which one thing differs from `first`."""
    release, versions = dict(first["release"]), [dict(each) for each in first["versions"]]
    pins = dict(release["versions"])
    if kind == "code":
        release["commit"] = "0a1b2c3"
    elif kind == "settings":
        release["config"] = {**release["config"], "fallback": 0.3}
    elif kind == "data":
        pins["dataset"] = world.months("2013-02", "2013-03")
    else:
        place, role, name = {"model": (0, "model", "model"), "features": (1, "features", "feature_view")}.get(
            kind, (2, "prompt", "prompt")
        )
        versions[place]["content"] = {**versions[place]["content"], "more": [1]}
        pins[role] = catalog_id(name, versions[place]["content"])
    return {**first, "release": {**release, "versions": pins}, "versions": versions}
