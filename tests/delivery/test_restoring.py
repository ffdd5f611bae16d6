"""A rollback brings back the whole manifest, and how long that took is recorded."""

from pathlib import Path
from typing import Any

import pytest

from tests.delivery.test_measuring import finish
from tests.delivery.worlds import WORKER, World, catalog_id, delivery_load, open_world


def submitted(world: World, name: str, **parts: Any) -> str:
    """Submit and approve a release whose features, contract and settings are `parts`."""
    from holdtrue import delivery

    body = world.submission(name, **parts.get("config", {}))
    features = {"order": ["hour"], "note": parts["note"]}
    contract = {"columns": [{"name": "flight", "dtype": "string", "pattern": parts["pattern"]}]}
    body["versions"][1]["content"] = features
    body["versions"].append({"kind": "contract", "name": "delay-request", "content": contract})
    pins = {**body["release"]["versions"], "features": catalog_id("feature_view", features)}
    body["release"]["versions"] = {**pins, "contract": catalog_id("contract", contract)}
    made = world.write(lambda tx: delivery.submit(tx, delivery_load(body)), WORKER)
    world.approve(made.release)
    return made.release


def served(world: World) -> Any:
    world.reconcile()
    world.ack()
    world.reconcile()
    snapshot = world.snapshot()
    return snapshot["services"], snapshot["releases"]


def test_a_rollback_restores_model_features_contract_and_settings_together(tmp_path: Path) -> None:
    world = open_world(tmp_path)
    world.declare()
    first = submitted(world, "one", note="a", pattern="A.*")
    world.promote(first)
    before = served(world)
    second = submitted(world, "two", note="b", pattern="B.*", config={"fallback": 0.7})
    rollout = world.promote(second).rollout
    assert rollout is not None
    served(world)
    finish(world, rollout.id)
    services, releases = served(world)
    assert services["flights/delay"]["arms"][0]["release"] == second
    assert services["flights/delay"]["fallback"] == 0.7
    assert releases[second]["contract"] != before[1][first]["contract"]

    world.rollback()
    world.clock.advance(2.5)
    # Data planes may know more releases than one; what answers is the first one, and all that it pins is as it was.
    again = served(world)
    assert again[0]["flights/delay"]["arms"] == before[0]["flights/delay"]["arms"]
    assert again[0]["flights/delay"]["fallback"] == before[0]["flights/delay"]["fallback"] == 0.2
    assert again[1][first] == before[1][first]
    live = [each for each in world.stores.ledger.events(None, limit=1000) if each.action == "deployment.live"]
    assert live[-1].payload["release"] == first
    assert live[-1].payload["seconds"] == pytest.approx(2.5)
