"""Rollback drills with models that are really loaded, by hand and on schedule."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from holdtrue import delivery, monitoring
from holdtrue.cli.look import told_drill
from holdtrue.delivery import NothingEarlier, RolloutState, changing, run_drills, store
from holdtrue.delivery.drilling import drill
from holdtrue.features import numeric
from holdtrue.features.vector import FeatureSet
from holdtrue.serving import compile_model
from holdtrue.storage.ledger import EventFilter, select_events
from tests.delivery.worlds import INPUTS, SERVICE, WORKER, World, catalog_id, delivery_load, open_world


def onnx(seed: int) -> bytes:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(50, 1)).astype(np.float32)
    return compile_model(LogisticRegression().fit(rows, rows[:, 0] > 0), ["hour"], rows).onnx


def come(world: World, name: str, data: bytes) -> str:
    """Bring a release with a model that can be loaded to its deployment; return the model's digest."""
    body: dict[str, Any] = world.submission(name, inputs=[*INPUTS, {"name": "hour", "datatype": "FP64"}])
    digest = world.stores.blobs.put(data)
    model = {"format": "onnx", "digest": digest, "features": ["hour"], "output": "late"}
    features = FeatureSet(views=(), expressions=(numeric("hour"),), vocabularies={}).to_json()
    body["versions"] = [
        {"kind": "model", "name": "delay", "content": model, "blobs": [digest]},
        {"kind": "feature_view", "name": "delay-features", "content": features},
    ]
    body["release"]["versions"] |= {
        "model": catalog_id("model", model),
        "features": catalog_id("feature_view", features),
    }
    release = world.write(lambda tx: delivery.submit(tx, delivery_load(body)), WORKER).release
    world.approve(release)
    started = world.promote(release).rollout
    world.reconcile()
    world.ack()
    world.reconcile()
    if started is not None:
        promote(world, started.id)
    return digest


def promote(world: World, name: str) -> None:
    def work(tx: Any) -> None:
        rollout = store.rollout(tx.connection, tx.project, name)
        changing.end_rollout(tx, rollout, RolloutState.PROMOTED, "It is good.", {})

    world.write(work)


def drilled(world: World) -> list[Any]:
    chosen = EventFilter(world.project, action="deployment.drilled", limit=100)
    return world.read(lambda conn: select_events(conn, chosen))


def test_a_drill_loads_the_earlier_model_and_records_how_long_it_took(tmp_path: Path) -> None:
    world = open_world(tmp_path)
    world.declare()
    come(world, "one", onnx(1))
    with pytest.raises(NothingEarlier):
        drill(world.stores, world.project, "delay")
    first = world.deployment().release
    come(world, "two", onnx(2))
    world.reconcile()
    before = world.snapshot()

    found = drill(world.stores, world.project, "delay")

    assert (found.release, found.ready, found.why) == (first, True, "")
    assert found.seconds > 0.0
    (event,) = drilled(world)
    assert event.payload["seconds"] == found.seconds
    assert event.payload["ready"] is True
    status = world.read(lambda conn: delivery.status(conn, world.project))
    told = told_drill(status["services"][0]["drill"])
    assert f"production could go back to {first}, ready after {found.seconds:.3f} s" in told
    world.reconcile()
    assert world.snapshot() == before


@pytest.mark.parametrize("broken", ["gone", "bad"])
def test_what_could_not_come_back_opens_an_incident(tmp_path: Path, broken: str) -> None:
    world = open_world(tmp_path)
    world.declare()
    digest = come(world, "one", onnx(1) if broken == "gone" else b"no model at all")
    come(world, "two", onnx(2))
    if broken == "gone":
        (path,) = [each for each in tmp_path.rglob(f"*{digest[4:]}*") if each.is_file()]
        path.unlink()

    found = drill(world.stores, world.project, "delay")

    assert not found.ready
    assert found.why
    last = world.read(lambda conn: delivery.last_drill(conn, world.project, "delay"))
    assert last is not None
    assert (last.ready, last.why) == (False, found.why)
    (incident,) = world.read(lambda conn: monitoring.incidents(conn, world.project, unresolved=True))
    assert (incident.kind, incident.title) == ("drill", "delay could not go back to its earlier release")


def test_drills_are_made_on_schedule_where_that_is_declared(tmp_path: Path) -> None:
    world = open_world(tmp_path)
    world.declare()
    come(world, "one", onnx(1))
    come(world, "two", onnx(2))
    assert run_drills(world.stores, world.project) == []
    world.declare(service=replace(SERVICE, drill_days=7.0))
    assert [each.ready for each in run_drills(world.stores, world.project)] == [True]
    world.clock.advance(6 * 86_400)
    assert run_drills(world.stores, world.project) == []
    world.clock.advance(86_400)
    assert len(run_drills(world.stores, world.project)) == 1
    assert len(drilled(world)) == 2
