"""Several environments of one service: each answers on its own, with its own policy, records and rollouts."""

from dataclasses import replace

import pytest

from holdtrue import delivery, governance
from holdtrue.core.actor import Actor
from holdtrue.core.errors import ConfigurationError, InvalidInput
from holdtrue.delivery import Canary, Promotion, RolloutState
from holdtrue.delivery.model import RolloutRunning
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


def test_each_environment_tells_of_its_own_rollout(world: World) -> None:
    world.declare(POLICY, STAGING)
    running = world.rolling()
    promote(world, running.champion, "staging")
    third = world.submit("three").release
    tried = promote(world, third, "staging").rollout
    assert tried is not None
    found = world.read(lambda conn: delivery.status(conn, world.project))["services"][0]
    assert {each["environment"]: each["id"] for each in found["rollouts"]} == {
        "staging": tried.id,
        "production": running.id,
    }
    with pytest.raises(RolloutRunning) as refused:
        promote(world, world.submit("four").release, "staging")
    assert "holdtrue rollback delay -e staging" in refused.value.mend


def test_where_no_rollout_is_asked_for_an_allowed_release_takes_the_place_at_once(world: World) -> None:
    seen = Policy("production", (Rule("tried", '"staging" in release.deployed_in'),), approvals=0)
    world.declare(seen, STAGING, service=replace(SERVICE, at_once=("staging",)))
    first, second = world.submit("one").release, world.submit("two").release
    for each in (first, second):
        assert promote(world, each, "staging").rollout is None
    routes(world)
    world.ack()
    world.reconcile()
    states = world.read(lambda conn: delivery.deployments(conn, world.project))
    assert [(each.environment, each.release, each.state.value) for each in states] == [("staging", second, "live")]
    # It was tried there, so that production takes it: there by a rollout.
    assert promote(world, first, "production").rollout is None
    assert promote(world, second, "production").rollout is not None
    back = world.write(lambda tx: delivery.rollback(tx, "delay", "worse", "staging"))
    assert back.deployment.release == first


def test_production_is_changed_by_rollouts_only(world: World) -> None:
    with pytest.raises(ConfigurationError, match="at_once names production"):
        world.declare(POLICY, service=replace(SERVICE, at_once=("staging", "production")))
    with pytest.raises(InvalidInput, match="environment name"):
        world.declare(POLICY, service=replace(SERVICE, at_once=("no/where",)))
