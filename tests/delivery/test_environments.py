"""Several environments of one service: each answers on its own, with its own policy, records and rollouts."""

from dataclasses import replace

import pytest

from holdtrue import delivery, governance
from holdtrue.core.actor import Actor
from holdtrue.delivery import Canary, Promotion, RolloutState
from holdtrue.governance import NotAllowed, Policy, Rule
from holdtrue.serving import Route, read_snapshot
from holdtrue.web import urls
from tests.delivery.test_api import BASE, Crew, crew
from tests.delivery.worlds import OPS, POLICY, SERVICE, World
from tests.server.conftest import opener, whole

FIXTURES = (crew, opener, whole)

STAGING = Policy("staging", (Rule("measured", "metric.roc_auc.lower >= 0.5"),), approvals=0)
FAST = replace(SERVICE, rollout=Canary(steps=(50,), margin=0.02, min_rows_per_step=100))


def promote(world: World, release: str, environment: str, actor: Actor = OPS) -> Promotion:
    world.write(lambda tx: governance.gate(tx, release, environment))
    return world.write(lambda tx: delivery.promote(tx, "delay", release, environment), actor)


def routes(world: World) -> dict[str, Route]:
    world.reconcile()
    return read_snapshot(world.stores.home / "routing" / "current.json").services


def test_each_environment_has_a_route_of_its_own_and_production_answers_by_itself(world: World) -> None:
    world.declare(POLICY, STAGING)
    first = world.live("one")
    second = world.submit("two").release
    promote(world, second, "staging")
    found = routes(world)
    assert {name: (each.environment, each.named, each.arms[0].release) for name, each in found.items()} == {
        "flights/delay": ("production", False, first),
        "flights/delay@staging": ("staging", True, second),
    }
    assert set(world.snapshot()["releases"]) == {first, second}
    world.ack()
    world.reconcile()
    states = world.read(lambda conn: delivery.deployments(conn, world.project))
    assert [(each.environment, each.state.value) for each in states] == [("production", "live"), ("staging", "live")]


def test_the_page_of_a_service_names_what_answers_elsewhere(crew: Crew) -> None:
    world = crew.world
    world.declare(POLICY, STAGING)
    first, second = crew.submit("one"), crew.submit("two")
    crew.approve(first)
    crew.promote(first)
    body = {"environment": "staging"}
    crew.developer.post(f"{BASE}/releases/{second}/gate", json=body)
    promoted = crew.operator.post(f"{BASE}/services/delay/promote", json={**body, "release": second})
    assert promoted.status_code == 200, promoted.text
    page = crew.viewer.get(urls.service("flights", "delay")).text
    assert "Requests that name staging are answered by" in page
    assert urls.release("flights", second) in page


def test_without_production_the_next_one_answers_by_itself(world: World) -> None:
    world.declare(POLICY, STAGING)
    release = world.submit("one").release
    promote(world, release, "staging")
    assert list(routes(world)) == ["flights/delay"]
    assert world.read(lambda conn: delivery.stream(conn, world.project, "delay", "staging")) == "delay"
    world.approve(release)
    world.promote(release)
    assert [(name, each.environment) for name, each in routes(world).items()] == [
        ("flights/delay", "production"),
        ("flights/delay@staging", "staging"),
    ]
    assert world.read(lambda conn: delivery.stream(conn, world.project, "delay", "staging")) == "delay@staging"


def test_promotion_moves_the_same_release_and_each_environment_asks_its_own_policy(world: World) -> None:
    world.declare(POLICY, STAGING)
    poor = world.submit("poor", evidence={"metric": {"roc_auc": {"lower": 0.6}}}).release
    assert promote(world, poor, "staging").deployment.release == poor
    with pytest.raises(NotAllowed):
        world.promote(poor)
    good = world.submit("good").release
    world.approve(good)
    world.promote(good)
    found = routes(world)
    assert (found["flights/delay"].arms[0].release, found["flights/delay@staging"].arms[0].release) == (good, poor)


def test_a_service_is_switched_off_in_one_environment_only(world: World) -> None:
    world.declare(POLICY, STAGING)
    world.live("one")
    promote(world, world.submit("two").release, "staging")
    world.write(lambda tx: delivery.stop(tx, "delay", "trying", "staging"), OPS)
    found = routes(world)
    assert (found["flights/delay"].stopped, found["flights/delay@staging"].stopped) == (None, "trying")


def test_a_rollout_outside_production_is_judged_on_the_records_of_its_environment(world: World) -> None:
    world.declare(POLICY, STAGING, service=FAST)
    world.live("one")
    promote(world, world.submit("two").release, "staging")
    started = promote(world, world.submit("three").release, "staging").rollout
    assert started is not None
    world.reconcile()
    running = world.rollout(started.id)
    for _ in range(3):
        world.day(running, 400, service="delay@staging")
        world.judge()
    assert world.rollout(started.id).state is RolloutState.PROMOTED
    assert world.deployment().release != running.challenger
