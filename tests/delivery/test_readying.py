"""A release whose features are not there yet does not go to production unnoticed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdtrue import delivery, pipelines
from holdtrue.core.clock import microseconds
from holdtrue.delivery.model import TriggerState
from holdtrue.delivery.readying import FeaturesNotReady, accept, readiness
from holdtrue.features import FeatureSet, Latest, OnlineStore, numeric
from tests.delivery.test_loop import RETRAIN, alarm, run
from tests.delivery.worlds import GOOD, WORKER, World, catalog_id, delivery_load, open_world

HOUR = 3_600_000_000
VIEW = Latest("weather", "readings", "tail", "at", ("temp",), "6h", freshness="2h")
OTHER = Latest("wind", "readings", "tail", "at", ("wind",), "6h", freshness="2h")
FREE = Latest("free", "readings", "tail", "at", ("rain",), "6h")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = open_world(tmp_path)
    made.declare(retrain=RETRAIN)
    yield made
    made.stores.close()


def body_of(world: World, name: str, *views: Latest, **more: Any) -> dict[str, Any]:
    body = {**world.submission(name, evidence=GOOD), **more}
    content = FeatureSet(views, (numeric("hour"),), {}).to_json()
    body["versions"][1]["content"] = content
    body["release"]["versions"]["features"] = catalog_id("feature_view", content)
    return body


def make(world: World, name: str, *views: Latest) -> str:
    body = body_of(world, name, *views)
    release = world.write(lambda tx: delivery.submit(tx, delivery_load(body)), WORKER).release
    world.approve(release)
    return release


def send(world: World, view: Latest, age: int) -> None:
    folder = world.stores.home / "online" / world.project
    folder.mkdir(parents=True, exist_ok=True)
    store = OnlineStore(folder)
    rows = {"tail": ["N1"], "at": [microseconds(world.clock.now()) - age], view.columns[0]: [1.0]}
    store.ingest([view], "readings", rows)
    store.close()


def test_only_views_that_a_release_brings_have_to_be_ready(world: World) -> None:
    first = make(world, "one", VIEW, FREE)
    found = readiness(world.stores, world.project, "delay", first)
    assert found.sentence == "weather has no rows; its newest may be 2 hours old."
    assert [each.view for each in found.empty] == ["free"]
    send(world, VIEW, 3 * HOUR)
    assert "is 3 hours old" in readiness(world.stores, world.project, "delay", first).sentence
    send(world, VIEW, HOUR)
    send(world, FREE, 100 * HOUR)
    found = readiness(world.stores, world.project, "delay", first)
    assert found.sentence == ""
    assert [note.partition(" that")[0] for note in found.notes] == ["Events for weather, free"]
    world.promote(first)
    # What is deployed is watched, and asking for it again changes nothing; a second release brings one view more.
    world.clock.advance(10 * 3600)
    assert readiness(world.stores, world.project, "delay", first).sentence == ""
    assert readiness(world.stores, world.project, "delay", make(world, "two", VIEW)).sentence == ""
    third = readiness(world.stores, world.project, "delay", make(world, "three", VIEW, OTHER))
    assert [each.view for each in third.missed] == ["wind"]


def test_it_is_refused_in_production_unless_there_is_a_reason(world: World) -> None:
    release = make(world, "one", VIEW)
    found = readiness(world.stores, world.project, "delay", release)
    for reason in ("", "  "):
        with pytest.raises(FeaturesNotReady, match="not ready for production") as refused:
            world.write(lambda tx, reason=reason: accept(tx, "delay", release, "production", found, reason))
        assert "holdtrue features materialize" in refused.value.mend
    world.write(lambda tx: accept(tx, "delay", release, "staging", found, ""))
    assert "features.accepted" not in world.actions()
    world.write(lambda tx: accept(tx, "delay", release, "production", found, "events begin on Monday"))
    assert world.actions()[-1] == "features.accepted"


def test_a_store_that_cannot_be_asked_is_not_ready(world: World) -> None:
    away = replace(world.stores, online="redis://127.0.0.1:1/0")
    assert "cannot be read" in readiness(away, world.project, "delay", make(world, "one", VIEW)).sentence
    assert readiness(away, world.project, "delay", make(world, "two", FREE)).sentence == ""


def test_a_retrained_challenger_waits_for_its_features(world: World) -> None:
    world.live("zero")
    alarm(world)
    (queued,) = run(world)

    body = body_of(world, "next", VIEW, trigger=queued["id"])

    def train(tx: Any) -> str:
        job = pipelines.lease(tx, "w")
        assert job is not None
        made = delivery.submit(tx, delivery_load({**body, "run": job.id}))
        pipelines.complete(tx, job.id, job.fence, {"release": made.release})
        return made.release

    world.approve(world.write(train, WORKER))
    run(world)
    (trigger,) = world.triggers()
    assert trigger.state is TriggerState.DONE
    assert "waits for its features. weather has no rows" in trigger.why
    count = len(world.actions())
    assert run(world) == []
    assert len(world.actions()) == count
    send(world, VIEW, HOUR)
    assert [each["state"] for each in run(world)] == ["rolled_out"]
