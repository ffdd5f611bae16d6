"""Drift of the deployed state: what is found, and that nothing is found where nothing is wrong."""

from dataclasses import replace
from pathlib import Path

import orjson

from holdtrue import delivery
from holdtrue.delivery import Drift
from holdtrue.governance import Rule
from tests.delivery.test_measuring import finish
from tests.delivery.worlds import POLICY, SERVICE, World, open_world


def found(world: World) -> list[Drift]:
    return delivery.drift(world.stores, world.project)


def live(tmp_path: Path) -> World:
    world = open_world(tmp_path)
    world.declare()
    assert found(world) == []
    world.live("one")
    return world


def test_a_deployment_as_declared_has_no_drift_also_during_a_rollout(tmp_path: Path) -> None:
    world = open_world(tmp_path)
    world.declare()
    world.rolling()
    assert found(world) == []


def test_a_changed_policy_and_changed_settings_are_told(tmp_path: Path) -> None:
    world = live(tmp_path)
    world.declare(
        replace(POLICY, rules=(Rule("quality", "metric.roc_auc.lower >= 0.9"),)), service=replace(SERVICE, fallback=0.5)
    )
    policy, setting = found(world)
    assert "was let in under another policy" in policy.what
    assert policy.mend.startswith("See whether it would be let in today: holdtrue gate rel_")
    assert setting.what == "The fallback of the service is not the one that is deployed."
    assert "0.5 is declared" in setting.why
    assert "pins 0.2" in setting.why


def test_a_band_of_no_decision_that_no_deployed_release_pins_is_told(tmp_path: Path) -> None:
    world = live(tmp_path)
    world.declare(service=replace(SERVICE, abstain=(0.4, 0.6)))
    (band,) = found(world)
    assert band.what == "The abstain of the service is not the one that is deployed."
    assert "[0.4, 0.6] is declared" in band.why
    world.clock.advance(10)
    world.promote(world.allowed("two", abstain=[0.4, 0.6]))
    rollout = next(iter(world.read(lambda conn: delivery.rollouts(conn, world.project))))
    finish(world, rollout.id)
    world.reconcile()
    world.ack()
    assert found(world) == []


def test_a_routing_file_of_another_hand_is_told_until_it_is_written_anew(tmp_path: Path) -> None:
    world = live(tmp_path)
    path = world.stores.home / "routing" / "current.json"
    data = orjson.loads(path.read_bytes())
    data["services"]["flights/delay"]["fallback"] = 0.9
    path.write_bytes(orjson.dumps(data))
    assert [each.subject for each in found(world)] == ["routing"]
    assert "changed by another hand" in found(world)[0].what
    path.write_bytes(b"{")
    assert "cannot be read" in found(world)[0].what
    world.reconcile()
    assert found(world) == []


def test_a_deployment_that_could_not_be_loaded_is_told_with_its_reason_once(tmp_path: Path) -> None:
    world = open_world(tmp_path)
    world.declare()
    release = world.allowed("one")
    world.promote(release)
    world.reconcile()
    world.ack(failed={release: "Its bytes are damaged."})
    world.reconcile()
    told = next(each for each in found(world) if each.subject == "delay in production")
    assert told.what == f"The release {release} could not be loaded; {release} is wished for."
    assert told.why == "Its bytes are damaged."


def test_planes_that_are_behind_or_cannot_load_are_told(tmp_path: Path) -> None:
    world = live(tmp_path)
    release = world.deployment().release
    world.ack("w1", failed={release: "bytes are missing"}, sequence=0)
    behind, broken = found(world)
    assert (behind.subject, broken.subject) == ("data plane w1", "data plane w1")
    assert "It serves snapshot 0" in behind.what
    assert broken.why == "bytes are missing"
