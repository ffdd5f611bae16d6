"""The release behind a service's own: the one before, or another service's, and only one that fits."""

from dataclasses import replace

import pytest

from holdtrue import delivery
from holdtrue.core.errors import ConfigurationError, InvalidInput
from holdtrue.delivery import check_service
from holdtrue.serving import read_snapshot
from tests.delivery.worlds import OPS, SERVICE, World

BASE = replace(SERVICE, name="base", model="base")


def backup(world: World) -> str | None:
    world.reconcile()
    return read_snapshot(world.stores.home / "routing" / "current.json").services["flights/delay"].backup


def reasons(world: World) -> list[str]:
    return [each.why for each in delivery.drift(world.stores, world.project) if "backup" in each.what]


def second(world: World) -> str:
    """Deploy a second release by ending the rollout it comes through."""
    running = world.rolling()
    for _ in range(8):
        world.day(world.rollout(running.id), 400)
        world.judge()
    assert world.deployment().release == running.challenger
    return running.champion


def test_the_release_before_stands_behind_the_present_one(world: World) -> None:
    world.declare(service=replace(SERVICE, backup="previous"))
    world.live("zero")
    assert backup(world) is None
    assert reasons(world) == [f"There is no release before {world.deployment().release} in production."]


def test_after_a_promotion_the_former_champion_is_the_backup(world: World) -> None:
    world.declare(service=replace(SERVICE, backup="previous"))
    before = second(world)
    assert backup(world) == before
    assert before in world.snapshot()["releases"]
    assert reasons(world) == []
    world.rollback()
    assert backup(world) is None


def test_a_release_or_another_service_may_be_named(world: World) -> None:
    world.declare()
    first = world.live("one")
    other = world.submit("two").release
    world.declare(service=replace(SERVICE, backup=other))
    assert backup(world) == other
    world.declare(service=replace(SERVICE, backup=first))
    assert backup(world) is None
    assert reasons(world) == [f"{first} is the deployed release itself."]
    world.declare(service=replace(SERVICE, backup="base"))
    assert backup(world) is None
    assert reasons(world) == ["Nothing of the service base is deployed in production."]
    world.declare(service=BASE)
    simple = world.allowed("simple", service="base")
    world.write(lambda tx: delivery.promote(tx, "base", simple), OPS)
    assert backup(world) == simple


def test_what_reads_other_inputs_or_is_not_there_is_left_out_and_told(world: World) -> None:
    world.declare()
    world.live("one")
    wide = world.submit("wide", inputs=[{"name": name, "datatype": "BYTES"} for name in ("flight", "tail", "gate")])
    world.declare(service=replace(SERVICE, backup=wide.release))
    assert backup(world) is None
    assert "reads the input gate (BYTES)" in reasons(world)[0]
    world.declare(service=replace(SERVICE, backup="rel_0000000000000000"))
    assert backup(world) is None
    assert "rel_0000000000000000" in reasons(world)[0]


def test_a_backup_that_cannot_be_meant_is_refused_when_it_is_declared() -> None:
    with pytest.raises(ConfigurationError, match="cannot be used"):
        check_service(replace(SERVICE, backup="delay"))
    with pytest.raises(InvalidInput):
        check_service(replace(SERVICE, backup="../x"))
    check_service(replace(SERVICE, backup="previous"))
