"""Views of releases that answer, or soon may, are kept filled by jobs; what keeps them from it is an incident."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdtrue import delivery, monitoring, pipelines
from holdtrue.core.clock import microseconds
from holdtrue.delivery import fill_features
from holdtrue.features import FeatureSet, Latest, numeric
from holdtrue.pipelines import Job, JobFilter
from holdtrue.storage.ledger import WriteContext
from tests.delivery.worlds import WORKER, World, catalog_id, delivery_load, open_world

VIEW = Latest("weather", "readings", "tail", "at", ("temp",), "6h", freshness="2h")
OTHER = replace(VIEW, name="wind", columns=("wind",), freshness="8m")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world with a service and no release."""
    made = open_world(tmp_path)
    made.declare()
    yield made
    made.stores.close()


def _submit(world: World, name: str, *views: Latest, evidence: Any = None) -> str:
    body: dict[str, Any] = world.submission(name, evidence=evidence)
    content = FeatureSet(views, (numeric("hour"),), {}).to_json()
    body["versions"][1]["content"] = content
    body["release"]["versions"]["features"] = catalog_id("feature_view", content)
    return world.write(lambda tx: delivery.submit(tx, delivery_load(body)), WORKER).release


def _go_live(world: World, release: str) -> None:
    world.approve(release)
    world.promote(release)
    world.reconcile()
    world.ack()
    world.reconcile()


def _due(world: World) -> list[str]:
    return fill_features(world.stores, world.project)


def _jobs(world: World) -> list[Job]:
    return world.read(lambda conn: pipelines.jobs(conn, world.project, JobFilter(kind="materialize")))


def _lease(world: World) -> Job:
    def work(tx: Any) -> Job:
        job = pipelines.lease(tx, "worker-1")
        assert job is not None
        return job

    return world.stores.ledger.write(WriteContext(WORKER, world.project), work)


def _fill(world: World, *sources: str) -> Job:
    """Do the job that waits, as a worker does: it has looked at the events that there are."""
    job = _lease(world)
    cursors = {each: world.stores.journal.tail("event", world.project, each, None)[1] for each in sources}
    taken = [{"source": source, "events_until": cursor} for source, cursor in cursors.items()]
    context = WriteContext(WORKER, world.project)
    return world.stores.ledger.write(
        context, lambda tx: pipelines.complete(tx, job.id, job.fence, {"taken": taken, "left_out": []})
    )


def _event(world: World, source: str) -> None:
    if world.writer is None:
        world.writer = world.stores.journal.writer("plane")
    now = microseconds(world.clock.now())
    world.writer.append("event", world.project, source, {"id": [f"e{now}"], "time": [now]}, 1)


def _incidents(world: World) -> list[monitoring.Incident]:
    return world.read(lambda conn: monitoring.incidents(conn, world.project, kind="filling", unresolved=True))


def _text(world: World) -> str:
    (incident,) = _incidents(world)
    return world.read(lambda conn: monitoring.incident(conn, world.project, incident.id)).timeline[0].text


def test_views_are_filled_before_a_release_is_live_while_it_waits_and_once_when_it_is(world: World) -> None:
    release = _submit(world, "one", VIEW)
    assert _due(world) == ["delay"]
    (job,) = _jobs(world)
    assert len(job.payload["features"]) == len(job.payload["views"]) == 1
    assert job.payload["waiting"] == job.payload["views"]
    assert job.payload["now"] == microseconds(world.clock.now())
    assert _due(world) == []
    _fill(world, "readings")
    # While it waits, rows that come are taken four times in the span by which they may be old, and 15 minutes at most.
    world.clock.advance(14 * 60)
    _event(world, "readings")
    assert _due(world) == []
    world.clock.advance(60)
    assert _due(world) == ["delay"]
    _fill(world, "readings")
    world.clock.advance(3600)
    assert _due(world) == []
    _event(world, "others")
    assert _due(world) == []
    # Data planes that have it take events themselves: what came until then is taken once more, and no more after that.
    _go_live(world, release)
    assert _due(world) == ["delay"]
    assert _fill(world, "readings").payload["waiting"] == []
    _event(world, "readings")
    world.clock.advance(24 * 3600)
    assert _due(world) == []
    assert len(_jobs(world)) == 3
    world.months("2013-03")
    assert _due(world) == ["delay"]
    assert "flights" in _fill(world).payload["data"]
    assert _due(world) == []


def test_a_release_whose_views_are_all_served_needs_no_fill(world: World) -> None:
    first = _submit(world, "one", VIEW)
    _go_live(world, first)
    _due(world)
    _fill(world, "readings")
    body = world.submission("two")
    content = FeatureSet((VIEW,), (numeric("hour"), numeric("day")), {}).to_json()
    body["versions"][1]["content"] = content
    body["release"]["versions"]["features"] = catalog_id("feature_view", content)
    assert world.write(lambda tx: delivery.submit(tx, delivery_load(body)), WORKER).release != first
    assert _due(world) == []


def test_a_view_is_filled_as_often_as_it_has_to_be_fresh(world: World) -> None:
    _submit(world, "one", VIEW, OTHER)
    _due(world)
    _fill(world, "readings")
    _event(world, "readings")
    world.clock.advance(2 * 60 - 1)
    assert _due(world) == []
    world.clock.advance(1)
    assert _due(world) == ["delay"]


def test_only_releases_that_answer_or_may_yet_are_filled(world: World) -> None:
    poor = {"metric": {"roc_auc": {"lower": 0.1}}}
    _submit(world, "none")
    assert _due(world) == []
    _submit(world, "refused", VIEW, evidence=poor)
    assert _due(world) == []
    old = _submit(world, "old", OTHER)
    first = _submit(world, "one", VIEW)
    _go_live(world, first)
    _due(world)
    features = _fill(world).payload["features"]
    assert len(features) == 1
    assert old != first
    _submit(world, "two", VIEW, OTHER)
    assert _due(world) == ["delay"]
    assert len(_fill(world).payload["features"]) == 2


def test_a_fill_that_nobody_does_in_time_is_an_incident_until_it_is_done(world: World) -> None:
    _submit(world, "one", VIEW)
    _due(world)
    world.clock.advance(2 * 3600)
    assert _due(world) == []
    world.clock.advance(1)
    assert _due(world) == ["delay"]
    assert "no worker has taken it for 7,201 seconds" in _text(world)
    assert _due(world) == []
    _lease(world)
    world.clock.advance(3600)
    assert _due(world) == []
    _fill_again = _jobs(world)[0]
    world.stores.ledger.write(
        WriteContext(WORKER, world.project),
        lambda tx: pipelines.complete(tx, _fill_again.id, _fill_again.fence, {"taken": []}),
    )
    assert _due(world) == ["delay"]
    assert _incidents(world) == []


def test_a_fill_that_fails_is_an_incident_and_is_tried_again(world: World) -> None:
    _submit(world, "one", VIEW)
    _due(world)
    job = _lease(world)
    context = WriteContext(WORKER, world.project)
    world.stores.ledger.write(context, lambda tx: pipelines.fail(tx, job.id, job.fence, "No column temp.", final=True))
    assert _due(world) == ["delay"]
    assert "cannot be filled. No column temp." in _text(world)
    assert _due(world) == []
    # The incident stays open while the next one is under way.
    world.clock.advance(15 * 60)
    assert _due(world) == ["delay"]
    assert len(_jobs(world)) == 2
    assert len(_incidents(world)) == 1
    _fill(world, "readings")
    assert _due(world) == ["delay"]
    assert _incidents(world) == []
