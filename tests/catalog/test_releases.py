"""Releases, what they pin, what they came from, and how two of them differ."""

from typing import Any

import pytest

import holdtrue.catalog.service as service
from holdtrue.catalog import (
    Change,
    Edge,
    Manifest,
    Relation,
    Release,
    Version,
    create_release,
    diff,
    lineage,
    link,
    register,
    release,
    releases,
)
from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.storage.ledger import Transaction
from tests.catalog.conftest import Desk

CONTRACT = {"columns": [{"name": "distance", "dtype": "int64", "ge": 0}, {"name": "origin", "dtype": "string"}]}


def put(desk: Desk, kind: str, content: Any, **options: Any) -> Version:
    return desk.write(lambda tx: register(tx, kind, "delay", content, **options))


def make(desk: Desk, versions: dict[str, Version], **options: Any) -> Release:
    pinned = {role: version.id for role, version in versions.items()}
    manifest = Manifest("delay", versions=pinned, **options)
    return desk.write(lambda tx: create_release(tx, manifest, author="usr_ann", run="run_7"))


def changes(desk: Desk, before: Release, after: Release) -> dict[str, Change]:
    found = desk.ledger.read(lambda c: diff(c, "flights", before.id, after.id))
    return {change.role: change for change in found}


def test_the_same_manifest_is_the_same_release(desk: Desk) -> None:
    model = put(desk, "model", {"x": 1})
    first = make(desk, {"model": model}, config={"a": 1, "b": 2})
    again = make(desk, {"model": model}, config={"b": 2, "a": 1})
    assert again == first
    assert first.id.startswith("rel_")
    assert desk.ledger.read(lambda c: release(c, "flights", first.id)) == first
    assert desk.actions().count("release.created") == 1
    event = desk.ledger.events("flights", action="release.created")[0]
    assert event.payload["versions"] == {"model": model.id}
    assert event.payload["author"] == "usr_ann"


def test_anything_pinned_changes_the_id(desk: Desk) -> None:
    one, two = put(desk, "model", {"x": 1}), put(desk, "model", {"x": 2})
    made = [
        make(desk, {"model": one}),
        make(desk, {"model": two}),
        make(desk, {"challenger": one}),
        make(desk, {"model": one}, commit="abc"),
        make(desk, {"model": one}, environment_lock="abc"),
        make(desk, {"model": one}, config={"key": 1}),
    ]
    assert len({each.id for each in made}) == len(made)
    listed = desk.ledger.read(lambda c: releases(c, "flights"))
    assert listed == made[::-1]
    assert desk.ledger.read(lambda c: releases(c, "flights", limit=2, after=made[3].id)) == [made[2], made[1]]
    assert desk.ledger.read(lambda c: releases(c, "flights", "another")) == []


def test_a_release_pins_only_what_exists_in_its_project(desk: Desk, other: Desk) -> None:
    theirs = put(other, "model", {"x": 1})
    with pytest.raises(NotFound):
        make(desk, {"model": theirs})
    mine = put(desk, "model", {"x": 1})
    made = make(desk, {"model": mine})
    with pytest.raises(NotFound):
        other.ledger.read(lambda c: release(c, "other", made.id))
    with pytest.raises(NotFound):
        other.ledger.read(lambda c: diff(c, "other", made.id, made.id))
    with pytest.raises(NotFound):
        other.ledger.read(lambda c: lineage(c, "other", made.id))
    assert other.ledger.read(lambda c: releases(c, "other")) == []


@pytest.mark.parametrize("role", ["", "a b", "../model"])
def test_a_role_is_a_name(desk: Desk, role: str) -> None:
    model = put(desk, "model", {"x": 1})
    with pytest.raises(InvalidInput):
        make(desk, {role: model})
    assert desk.ledger.read(lambda c: releases(c, "flights")) == []


def test_diff_says_which_asset_changed_and_how(desk: Desk) -> None:
    model, other_model = put(desk, "model", {"depth": 3, "seed": 1}), put(desk, "model", {"depth": 4, "seed": 1})
    contract = put(desk, "contract", CONTRACT)
    columns = [{"name": "carrier", "dtype": "string"}, {"name": "distance", "dtype": "int64", "ge": 1}]
    changed = put(desk, "contract", {"columns": columns})
    policy = put(desk, "policy", {"rules": []})
    dataset = put(desk, "dataset", {"fragments": {"2013-01": {"digest": "a", "rows": 9}}})
    before = make(desk, {"model": model, "contract": contract, "dataset": dataset}, config={"key": "id"}, commit="c1")
    after = make(desk, {"model": other_model, "contract": changed, "policy": policy, "dataset": dataset}, commit="c2")
    found = changes(desk, before, after)
    assert {role: change.kind for role, change in found.items()} == {
        "model": "changed",
        "contract": "changed",
        "policy": "added",
        "dataset": "same",
        "commit": "changed",
        "environment_lock": "same",
        "config": "changed",
    }
    assert found["model"].detail["differences"] == [
        {"path": "depth", "kind": "changed", "before": 3, "after": 4},
    ]
    assert found["model"].detail["before"]["number"] == 1
    assert found["model"].detail["after"]["number"] == 2
    assert found["contract"].detail["differences"] == [
        {"path": "columns[name=distance].ge", "kind": "changed", "before": 0, "after": 1},
        {
            "path": "columns[name=origin]",
            "kind": "removed",
            "before": {"name": "origin", "dtype": "string"},
            "after": None,
        },
        {
            "path": "columns[name=carrier]",
            "kind": "added",
            "before": None,
            "after": {"name": "carrier", "dtype": "string"},
        },
    ]
    assert (found["commit"].before, found["commit"].after) == ("c1", "c2")
    assert found["config"].detail["differences"][0]["path"] == "key"
    backwards = changes(desk, after, before)
    assert backwards["policy"].kind == "removed"
    assert backwards["policy"].detail["after"] is None
    assert {change.kind for change in changes(desk, before, before).values()} == {"same"}


def test_lineage_leads_up_to_the_data_and_down_to_the_release(desk: Desk) -> None:
    dataset = put(desk, "dataset", {"x": 1})
    contract = put(desk, "contract", {"x": 1})
    model = put(desk, "model", {"x": 1}, derived_from=(dataset.id,))
    made = make(desk, {"model": model, "contract": contract})
    desk.write(lambda tx: link(tx, made.id, "inc_1", Relation.TRIGGERED))
    up = desk.ledger.read(lambda c: lineage(c, "flights", made.id, direction="upstream"))
    assert set(up.edges) == {
        Edge(dataset.id, model.id, "derived"),
        Edge(model.id, made.id, "pinned"),
        Edge(contract.id, made.id, "pinned"),
        Edge("run_7", made.id, "produced"),
    }
    kinds = {node.id: (node.kind, node.name, node.number) for node in up.nodes}
    assert kinds[dataset.id] == ("dataset", "delay", 1)
    assert kinds[made.id] == ("release", "delay", 1)
    assert kinds["run_7"] == ("run", "run_7", None)
    down = desk.ledger.read(lambda c: lineage(c, "flights", dataset.id, direction="downstream"))
    assert {node.id for node in down.nodes} == {dataset.id, model.id, made.id, "inc_1"}
    both = desk.ledger.read(lambda c: lineage(c, "flights", model.id))
    assert {node.id for node in both.nodes} == {dataset.id, model.id, made.id, "inc_1"}
    assert not both.truncated


def test_linking_again_changes_nothing(desk: Desk) -> None:
    first = put(desk, "model", {"x": 1})
    for _ in range(2):
        desk.write(lambda tx: link(tx, "run_1", first.id, Relation.PRODUCED))
    assert desk.actions() == ["version.registered", "lineage.linked"]
    with pytest.raises(InvalidInput):
        desk.write(lambda tx: link(tx, first.id, first.id, Relation.DERIVED))


def test_lineage_that_goes_in_a_circle_ends(desk: Desk) -> None:
    names = [f"run_{number}" for number in range(5)]
    for source, target in zip(names, names[1:] + names[:1], strict=True):
        desk.write(lambda tx, source=source, target=target: link(tx, source, target, Relation.TRIGGERED))
    graph = desk.ledger.read(lambda c: lineage(c, "flights", "run_0", direction="upstream"))
    assert len(graph.nodes) == len(graph.edges) == 5


def test_a_very_wide_lineage_says_that_it_was_cut(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MOST_NODES", 20)

    def several(tx: Transaction) -> None:
        for number in range(30):
            link(tx, "run_0", f"prd_{number}", Relation.PRODUCED)

    desk.write(several)
    graph = desk.ledger.read(lambda c: lineage(c, "flights", "run_0"))
    assert graph.truncated
    assert len(graph.nodes) == 21


def test_unknown_ids_are_not_found(desk: Desk) -> None:
    for work in (
        lambda c: release(c, "flights", "rel_0"),
        lambda c: diff(c, "flights", "rel_0", "rel_1"),
        lambda c: lineage(c, "flights", "rel_0"),
    ):
        with pytest.raises(NotFound):
            desk.ledger.read(work)
