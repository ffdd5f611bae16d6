"""Decisions, approvals and who may give them."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError

from holdtrue import catalog, governance
from holdtrue.catalog import Manifest
from holdtrue.core.access import Role
from holdtrue.core.actor import SYSTEM, Actor
from holdtrue.core.errors import Forbidden, NotFound
from holdtrue.governance import (
    BadEvidence,
    BadRule,
    NoPolicy,
    NotAllowed,
    NotApprovable,
    NotSeparate,
    Outcome,
    Policy,
    Rule,
)
from holdtrue.governance import store as tables
from holdtrue.storage.ledger import Transaction
from tests.governance.worlds import ADA, BEN, CAT, EVALUATION, GOOD, WORKER, World, slices


def actions(world: World) -> list[str]:
    return [event.action for event in world.ledger.events(world.project, limit=1000)]


def test_without_a_policy_nothing_is_decided(world: World) -> None:
    release = world.release()
    with pytest.raises(NoPolicy) as caught:
        world.gate(release)
    assert "holdtrue apply" in caught.value.mend


def test_declaring_binds_a_version_and_again_changes_nothing(world: World) -> None:
    first = world.declare(GOOD)
    count = len(actions(world))
    assert world.declare(GOOD) == first
    assert len(actions(world)) == count
    other = world.declare(replace(GOOD, approvals=2))
    assert other != first
    bound = world.read(lambda conn: governance.policy_of(conn, world.project, "production"))
    assert bound == (other[0], replace(GOOD, approvals=2))


def test_a_bad_policy_binds_nothing(world: World) -> None:
    world.declare(GOOD)
    with pytest.raises(BadRule):
        world.declare(Policy("staging", (Rule("a", "true"),)), Policy("production", (Rule("b", "metric.("),)))
    assert world.read(lambda conn: set(governance.policies(conn, world.project))) == {"production"}


def test_a_gate_waits_then_allows_after_an_approval(world: World) -> None:
    world.declare(GOOD)
    release = world.release()
    evidence = world.evidence(release)
    waiting = world.gate(release)
    assert waiting.outcome is Outcome.WAITING
    assert waiting.evidence == (evidence.id,)
    assert waiting.policy.startswith("pol_")
    allowed = world.approve(release, BEN)
    assert allowed.outcome is Outcome.ALLOWED
    assert len(allowed.approvals) == 1
    assert allowed.number == waiting.number + 1
    assert [each for each in actions(world) if each.split(".")[0] in ("decision", "approval")] == [
        "decision.waiting_approval",
        "approval.given",
        "decision.allowed",
    ]


def test_the_same_facts_give_the_same_decision_row(world: World) -> None:
    world.declare(GOOD)
    release = world.release()
    world.evidence(release)
    first = world.gate(release)
    count = len(actions(world))
    assert world.gate(release) == first
    assert len(actions(world)) == count


def test_newer_evidence_decides_anew(world: World) -> None:
    world.declare(Policy("production", (Rule("slices", "slices.all(s, s.roc_auc >= 0.6)"),), approvals=0))
    release = world.release()
    world.evidence(release)
    refused = world.gate(release)
    assert refused.outcome is Outcome.REFUSED
    world.evidence(release, content=slices(0.7))
    allowed = world.gate(release)
    assert allowed.outcome is Outcome.ALLOWED
    assert allowed.evidence != refused.evidence
    history = world.read(lambda conn: governance.decisions(conn, world.project, release=release.id))
    assert [each.outcome for each in history] == [Outcome.ALLOWED, Outcome.REFUSED]


def test_evidence_about_a_pinned_version_counts_and_the_releases_own_comes_first(world: World) -> None:
    world.declare(replace(GOOD, approvals=0))
    release = world.release()
    model = release.manifest.versions["model"]
    low: dict[str, Any] = {"metric": {"roc_auc": {"lower": 0.5}}}
    world.write(lambda tx: governance.record_evidence(tx, "evaluation", model, EVALUATION))
    assert world.gate(release).outcome is Outcome.ALLOWED
    world.evidence(release, content=low)
    assert world.gate(release).outcome is Outcome.REFUSED
    world.write(lambda tx: governance.record_evidence(tx, "evaluation", model, {**EVALUATION, "again": 1}))
    assert world.gate(release).outcome is Outcome.REFUSED


def test_evidence_is_recorded_once_and_refused_when_odd(world: World) -> None:
    release = world.release()
    first = world.evidence(release)
    assert world.evidence(release) == first
    assert actions(world).count("evidence.recorded") == 1
    with pytest.raises(BadEvidence):
        world.evidence(release, kind="hearsay")
    with pytest.raises(BadEvidence):
        world.evidence(release, content={"rows": ["x" * 100] * 3000})
    with pytest.raises(NotFound):
        world.write(lambda tx: governance.record_evidence(tx, "parity", "rel_0000000000000000", {}))


def test_an_approval_expires(world: World) -> None:
    world.declare(GOOD)
    release = world.release()
    world.evidence(release)
    world.approve(release, BEN)
    world.clock.advance(timedelta(days=6, hours=23).total_seconds())
    assert world.gate(release).outcome is Outcome.ALLOWED
    world.clock.advance(timedelta(hours=2).total_seconds())
    assert world.gate(release).outcome is Outcome.WAITING
    assert world.approve(release, BEN).outcome is Outcome.ALLOWED


def test_an_approval_is_for_one_environment_and_one_release(world: World) -> None:
    world.declare(GOOD, replace(GOOD, environment="staging"))
    one, two = world.release("one"), world.release("two")
    for release in (one, two):
        world.evidence(release)
    world.approve(one, BEN, "staging")
    assert world.gate(one).outcome is Outcome.WAITING
    assert world.gate(two, "staging").outcome is Outcome.WAITING


def test_a_quorum_counts_people(world: World) -> None:
    world.declare(replace(GOOD, approvals=2))
    release = world.release()
    world.evidence(release)
    assert world.approve(release, BEN).outcome is Outcome.WAITING
    with pytest.raises(NotApprovable):
        world.approve(release, BEN)
    assert world.approve(release, CAT).outcome is Outcome.ALLOWED


def test_an_approval_does_not_stand_in_for_evidence(world: World) -> None:
    world.declare(GOOD)
    release = world.release()
    with pytest.raises(NotApprovable) as caught:
        world.approve(release, BEN)
    assert "No metric evidence exists" in caught.value.why


ada_reviews = replace(ADA, roles=frozenset({Role.REVIEWER}))
ada_elsewhere = Actor("usr_other", "human", "ada", frozenset({Role.REVIEWER}))


@pytest.mark.parametrize(
    ("approver", "error"),
    [
        (ada_reviews, NotSeparate),
        (ada_elsewhere, None),
        (replace(WORKER, kind="service", roles=frozenset({Role.REVIEWER})), Forbidden),
        (replace(BEN, roles=frozenset({Role.DEVELOPER, Role.OPERATOR, Role.ADMIN})), Forbidden),
        (replace(BEN, project="other"), Forbidden),
        (replace(BEN, created_by="usr_ada"), NotSeparate),
        (SYSTEM, Forbidden),
        (BEN, None),
    ],
)
def test_nobody_approves_their_own_work(world: World, approver: Actor, error: type[Exception] | None) -> None:
    world.declare(GOOD)
    release = world.release(actor=ADA)
    world.evidence(release)
    if error is None:
        assert world.approve(release, approver).outcome is Outcome.ALLOWED
        return
    with pytest.raises(error):
        world.approve(release, approver)
    assert world.gate(release).outcome is Outcome.WAITING


def test_the_owner_of_the_token_that_trained_may_not_approve(world: World) -> None:
    world.declare(GOOD)
    release = world.release(actor=replace(WORKER, created_by="usr_cat"), author="usr_ada")
    world.evidence(release)
    with pytest.raises(NotSeparate):
        world.approve(release, CAT)
    assert world.approve(release, BEN).outcome is Outcome.ALLOWED


def test_the_maker_of_a_pinned_version_may_not_approve(world: World) -> None:
    world.declare(GOOD)
    model = world.write(lambda tx: catalog.register(tx, "model", "delay", {"weights": "cats"}), CAT)
    release = world.write(
        lambda tx: catalog.create_release(tx, Manifest("delay", versions={"model": model.id}), author="usr_ada")
    )
    world.evidence(release)
    with pytest.raises(NotSeparate):
        world.approve(release, CAT)


def test_whoever_asked_for_it_may_not_approve_even_if_noted_after_the_approval(world: World) -> None:
    world.declare(GOOD)
    release = world.release()
    world.evidence(release)
    assert world.approve(release, BEN).outcome is Outcome.ALLOWED
    world.write(lambda tx: governance.note_contributors(tx, release.id, ["usr_ben"], "requester"))
    assert world.gate(release).outcome is Outcome.WAITING
    with pytest.raises(NotSeparate):
        world.approve(release, BEN)


def test_need_allowed_decides_again_in_the_same_transaction(world: World) -> None:
    world.declare(GOOD)
    release = world.release()
    world.evidence(release)
    with pytest.raises(NotAllowed) as waiting:
        world.write(lambda tx: governance.need_allowed(tx, release.id, "production"))
    assert "0 of the 1 approvals" in waiting.value.why
    assert f"holdtrue approve {release.id}" in waiting.value.mend
    world.approve(release, BEN)
    world.write(lambda tx: governance.need_allowed(tx, release.id, "production"))
    world.declare(replace(GOOD, rules=(Rule("quality", "metric.roc_auc.lower >= 0.9"),)))
    with pytest.raises(NotAllowed) as refused:
        world.write(lambda tx: governance.need_allowed(tx, release.id, "production"))
    assert "metric.roc_auc.lower is 0.741" in refused.value.why


def test_the_first_release_knows_that_it_is_the_first(world: World) -> None:
    world.declare(Policy("production", (Rule("better", "release.first || comparison.p_better >= 0.95"),), 0))
    one, two = world.release("one"), world.release("two")
    for release in (one, two):
        world.evidence(release)
    decision = world.gate(one)
    assert decision.outcome is Outcome.ALLOWED
    world.write(lambda tx: governance.record_effect(tx, decision, "deployed"))
    assert world.gate(one).outcome is Outcome.ALLOWED
    refused = world.gate(two)
    assert refused.outcome is Outcome.REFUSED
    assert "No comparison evidence exists" in refused.findings[0].why
    world.evidence(two, "comparison", {"p_better": 0.99})
    assert world.gate(two).outcome is Outcome.ALLOWED


@pytest.mark.parametrize("name", ["evidence", "decisions", "approvals", "decision_effects"])
def test_rows_a_decision_rests_on_cannot_change(world: World, name: str) -> None:
    world.declare(GOOD)
    release = world.release()
    world.evidence(release)
    allowed = world.approve(release, BEN)
    world.write(lambda tx: governance.record_effect(tx, allowed, "deployed"))
    table = tables.evidence.metadata.tables[name]

    def change(tx: Transaction) -> None:
        tx.execute(sa.update(table).values(project="other"))

    def remove(tx: Transaction) -> None:
        tx.execute(sa.delete(table))

    for work in (change, remove):
        with pytest.raises(DatabaseError, match="never change"):
            world.write(work)


def test_another_projects_release_does_not_exist(world: World) -> None:
    world.declare(GOOD)
    release = world.release()
    world.project = "other"
    world.declare(GOOD)
    for work in (
        lambda tx: governance.gate(tx, release.id, "production"),
        lambda tx: governance.record_evidence(tx, "parity", release.id, {}),
    ):
        with pytest.raises(NotFound):
            world.write(work)
    with pytest.raises(NotFound):
        world.approve(release, BEN)
