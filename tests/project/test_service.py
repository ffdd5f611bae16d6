"""Plan and apply, on a real ledger."""

import dataclasses

import holdtrue as ht
from holdtrue.core.actor import Actor
from holdtrue.project import PlannedChange, ProjectSpec, applied, apply, plan
from holdtrue.storage import Stores
from holdtrue.storage.ledger import WriteContext

ADA = WriteContext(Actor("usr_ada", "human", "Ada"), "toy")


def _apply(stores: Stores, spec: ProjectSpec) -> tuple[PlannedChange, ...]:
    return stores.ledger.write(ADA, lambda tx: apply(tx, spec))


def test_apply_makes_what_plan_showed(stores: Stores, toy: ht.Project) -> None:
    """The plan is not a guess: apply changes exactly what it listed."""
    spec = toy.spec()
    shown = stores.ledger.read(lambda connection: plan(connection, "toy", spec))
    assert {(each.kind, each.name) for each in shown} >= {("dataset", "rows"), ("model", "happens")}
    assert _apply(stores, spec) == shown
    assert stores.ledger.read(lambda connection: applied(connection, "toy")) == spec


def test_applying_again_changes_nothing(stores: Stores, toy: ht.Project) -> None:
    """No change, no event: the log tells only what happened."""
    _apply(stores, toy.spec())
    before = len(stores.ledger.events("toy", limit=500))
    assert _apply(stores, toy.spec()) == ()
    assert len(stores.ledger.events("toy", limit=500)) == before


def test_a_change_is_shown_with_both_sides(stores: Stores, toy: ht.Project) -> None:
    """What was and what will be are both there to be read."""
    spec = toy.spec()
    _apply(stores, spec)
    stricter = dataclasses.replace(spec.policies[0], approvals=2)
    (change,) = stores.ledger.read(
        lambda connection: plan(connection, "toy", dataclasses.replace(spec, policies=(stricter,)))
    )
    assert (change.kind, change.name, change.action) == ("policy", "production", "change")
    assert (change.before["approvals"], change.after["approvals"]) == (1, 2)
