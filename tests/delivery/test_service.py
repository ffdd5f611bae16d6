"""Submit, promote, roll back."""

from dataclasses import replace

import pytest
from sqlalchemy.exc import IntegrityError

from holdtrue import catalog, delivery, governance
from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.delivery import DeploymentState, NotDeployable, NothingEarlier, RolloutRunning, RolloutState
from holdtrue.delivery import store as tables
from holdtrue.delivery.changing import end_rollout, start_rollout
from holdtrue.governance import NotAllowed, NotSeparate, Outcome
from holdtrue.storage.ledger import Transaction
from tests.delivery.worlds import ADA, OPS, POLICY, POOR, SERVICE, WORKER, World, delivery_load


def test_a_submission_is_taken_in_whole_and_once(world: World) -> None:
    world.declare()
    body = delivery_load(world.submission("one"))
    first = world.write(lambda tx: delivery.submit(tx, body), WORKER)
    assert first.decision is not None
    assert first.decision.outcome is Outcome.WAITING
    assert first.decision.evidence == first.evidence
    count = len(world.actions())
    again = world.write(lambda tx: delivery.submit(tx, body), WORKER)
    assert again == first
    assert len(world.actions()) == count


def test_a_submission_without_a_policy_has_no_decision(world: World) -> None:
    world.write(lambda tx: delivery.declare(tx, [SERVICE]))
    assert world.submit("one").decision is None


def test_a_submission_that_fails_leaves_nothing(world: World) -> None:
    world.declare()
    body = world.submission("one")
    body["evidence"].append({"kind": "hearsay", "content": {}})
    before = len(world.actions())
    with pytest.raises(governance.BadEvidence):
        world.write(lambda tx: delivery.submit(tx, delivery_load(body)), WORKER)
    assert world.read(lambda conn: catalog.releases(conn, world.project)) == []
    assert len(world.actions()) == before


def test_the_maker_of_the_workers_token_may_not_approve(world: World) -> None:
    world.declare()
    release = world.submit("one", replace(WORKER, created_by="usr_ben")).release
    with pytest.raises(NotSeparate):
        world.approve(release)


def test_the_first_release_is_deployed_at_once(world: World) -> None:
    world.declare()
    release = world.allowed("one")
    found = world.promote(release)
    assert found.rollout is None
    assert (found.deployment.release, found.deployment.state) == (release, DeploymentState.PENDING)
    assert [(each.action, each.release) for each in world.changes()] == [("deployed", release)]
    assert world.actions("deployment.") == ["deployment.changed"]


@pytest.mark.parametrize("step", ["submitted", "refused"])
def test_nothing_is_promoted_that_is_not_allowed(world: World, step: str) -> None:
    world.declare()
    release = world.submit("one", evidence=POOR if step == "refused" else None).release
    with pytest.raises(NotAllowed):
        world.promote(release)
    assert world.changes() == []


def test_an_allowance_that_has_lapsed_does_not_promote(world: World) -> None:
    world.declare()
    release = world.allowed("one")
    world.clock.advance(8 * 86_400)
    with pytest.raises(NotAllowed):
        world.promote(release)
    assert world.changes() == []


def test_a_stricter_policy_takes_an_allowance_back(world: World) -> None:
    world.declare()
    release = world.allowed("one")
    world.declare(replace(POLICY, approvals=2))
    with pytest.raises(NotAllowed):
        world.promote(release)


def test_an_allowance_is_for_one_environment(world: World) -> None:
    world.declare(POLICY, replace(POLICY, environment="staging"))
    release = world.allowed("one")
    with pytest.raises(NotAllowed):
        world.write(lambda tx: delivery.promote(tx, "delay", release, "staging"), OPS)


def test_a_later_release_comes_through_a_rollout(world: World) -> None:
    world.declare()
    first = world.live("one")
    second = world.allowed("two")
    found = world.promote(second)
    assert found.rollout is not None
    assert (found.rollout.champion, found.rollout.challenger) == (first, second)
    assert (found.rollout.state, found.rollout.percent) == (RolloutState.RUNNING, 5)
    assert found.deployment.release == first
    assert world.promote(second).rollout == found.rollout
    with pytest.raises(RolloutRunning):
        world.promote(world.allowed("three"))


def test_promoting_what_is_deployed_changes_nothing(world: World) -> None:
    world.declare()
    release = world.live("one")
    count = len(world.actions())
    assert world.promote(release).deployment.release == release
    assert len(world.actions()) == count


def test_the_database_holds_one_running_rollout(world: World) -> None:
    world.declare()
    running = world.rolling()
    other = world.read(lambda conn: catalog.release(conn, world.project, running.champion))
    with pytest.raises(IntegrityError):
        world.write(
            lambda tx: start_rollout(tx, other, running.challenger, "production", running.decision, running.canary)
        )


def test_rolling_back_ends_the_rollout_and_keeps_the_champion(world: World) -> None:
    world.declare()
    running = world.rolling()
    found = world.rollback("it smells")
    assert found.rollout is not None
    assert found.rollout.state is RolloutState.ROLLED_BACK
    assert "ops ended it: it smells" in found.rollout.reason
    assert world.deployment().release == running.champion
    steps = world.read(lambda conn: delivery.rollout_steps(conn, world.project, running.id))
    assert [(each.action, each.percent) for each in steps] == [("started", 5.0), ("rolled_back", 0.0)]


def test_rolling_back_a_deployment_goes_to_the_one_before(world: World) -> None:
    world.declare()
    first = world.live("one")
    second = world.promote(world.allowed("two")).rollout
    assert second is not None
    world.write(lambda tx: _finish(tx, second.id))
    assert world.deployment().release == second.challenger
    world.rollback()
    assert world.deployment().release == first
    assert [each.action for each in world.changes()] == ["deployed", "deployed", "rolled_back"]
    with pytest.raises(NothingEarlier):
        world.rollback()


def _finish(tx: Transaction, name: str) -> None:
    end_rollout(tx, tables.rollout(tx.connection, tx.project, name), RolloutState.PROMOTED, "proven", {})


def test_a_finished_rollout_is_deployed_on_the_decision_it_began_with(world: World) -> None:
    world.declare()
    running = world.rolling()
    world.clock.advance(30 * 86_400)
    world.write(lambda tx: _finish(tx, running.id))
    changes = world.changes()
    assert changes[-1].release == running.challenger
    assert (changes[-1].decision, changes[-1].rollout) == (running.decision, running.id)
    model = world.read(lambda conn: catalog.find(conn, world.project, "model", "delay", alias="production"))
    pinned = world.read(lambda conn: catalog.release(conn, world.project, running.challenger)).manifest
    assert model.id == pinned.versions["model"]


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"output": None}, "no “output”"),
        ({"inputs": []}, "no “inputs”"),
        ({"key": "flihgt"}, "“flihgt”"),
        ({"prediction_time": "when"}, "“when”"),
    ],
)
def test_a_release_that_cannot_be_served_is_not_promoted(world: World, config: dict[str, object], word: str) -> None:
    world.declare()
    release = world.allowed("one", **config)
    with pytest.raises(NotDeployable) as caught:
        world.promote(release)
    assert word in caught.value.why


def test_a_challenger_must_answer_todays_requests(world: World) -> None:
    world.declare()
    world.live("one")
    inputs = [{"name": name, "datatype": "BYTES"} for name in ("flight", "tail", "gate")]
    with pytest.raises(NotDeployable) as caught:
        world.promote(world.allowed("two", inputs=inputs))
    assert "gate" in caught.value.why


def test_a_release_goes_to_its_own_service(world: World) -> None:
    world.declare()
    release = world.allowed("one")
    world.write(lambda tx: delivery.declare(tx, [replace(SERVICE, name="other")]), ADA)
    with pytest.raises(InvalidInput):
        world.write(lambda tx: delivery.promote(tx, "other", release), OPS)
    for name in ("nowhere", "delay"):
        with pytest.raises(NotFound):
            world.write(lambda tx, name=name: delivery.rollback(tx, name, ""), OPS)
    with pytest.raises(NotFound):
        world.write(lambda tx: delivery.promote(tx, "delay", "rel_0000000000000000"), OPS)


def test_another_project_sees_nothing(world: World) -> None:
    world.declare()
    release = world.live("one")
    world.project = "other"
    world.declare()
    with pytest.raises(NotFound):
        world.promote(release)
    assert world.read(lambda conn: delivery.deployments(conn, "other")) == []


def test_declaring_again_changes_nothing(world: World) -> None:
    world.declare()
    count = len(world.actions())
    world.declare()
    assert len(world.actions()) == count
    changed = replace(SERVICE, fallback=0.3)
    assert world.write(lambda tx: delivery.declare(tx, [changed])) == ["delay"]
