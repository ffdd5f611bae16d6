"""Features in production are watched: views that are out of date, and answers that history does not give."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from holdtrue import governance, monitoring, pipelines
from holdtrue.core.clock import microseconds
from holdtrue.core.errors import ConfigurationError
from holdtrue.delivery import watch_features
from holdtrue.delivery.rules import check_service
from holdtrue.features import FeatureSet, Latest, OnlineStore, numeric
from holdtrue.pipelines import Job, JobFilter
from holdtrue.storage.ledger import WriteContext
from tests.delivery.worlds import SERVICE, WORKER, World, catalog_id, delivery_load, open_world

HOUR = 3_600_000_000
VIEW = Latest("weather", "readings", "tail", "at", ("temp",), "6h", freshness="2h")
UNEQUAL = {"rate": 0.25, "rows": 40, "mismatched": 10, "features": {"weather_temp": {"rate": 0.25}}}
EQUAL = {"rate": 0.0, "rows": 40, "mismatched": 0, "features": {}}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world with a release in production that looks one view up."""
    made = open_world(tmp_path)
    made.declare(service=replace(SERVICE, replay_days=1.0, replay_most=0.1))
    _come(made, FeatureSet((VIEW,), (numeric("hour"),), {}))
    yield made
    made.stores.close()


def _come(world: World, features: FeatureSet) -> str:
    body: dict[str, Any] = world.submission("one")
    content = features.to_json()
    body["versions"][1]["content"] = content
    body["release"]["versions"]["features"] = catalog_id("feature_view", content)
    from holdtrue import delivery

    release = world.write(lambda tx: delivery.submit(tx, delivery_load(body)), WORKER).release
    world.approve(release)
    world.promote(release)
    return release


def _send(world: World, age: int) -> None:
    folder = world.stores.home / "online" / world.project
    folder.mkdir(parents=True, exist_ok=True)
    store = OnlineStore(folder)
    moment = microseconds(world.clock.now()) - age
    store.ingest([VIEW], "readings", {"tail": ["N1"], "at": [moment], "temp": [1.0]})
    store.close()


def _incidents(world: World, kind: str) -> list[monitoring.Incident]:
    return world.read(lambda conn: monitoring.incidents(conn, world.project, kind=kind, unresolved=True))


def _text(world: World, incident: monitoring.Incident) -> str:
    return world.read(lambda conn: monitoring.incident(conn, world.project, incident.id)).timeline[0].text


def _jobs(world: World) -> list[Job]:
    return world.read(lambda conn: pipelines.jobs(conn, world.project, JobFilter(kind="replay")))


def _answer(world: World, *reports: dict[str, Any]) -> Job:
    """Do the job that is waiting, as a worker does."""

    def work(tx: Any) -> Job:
        job = pipelines.lease(tx, "worker-1")
        assert job is not None
        return pipelines.complete(tx, job.id, job.fence, {"reports": list(reports)})

    return world.stores.ledger.write(WriteContext(WORKER, world.project), work)


def test_a_view_out_of_date_is_an_incident_until_rows_come_again(world: World) -> None:
    assert watch_features(world.stores, world.project) == ["delay"]
    (incident,) = _incidents(world, "freshness")
    assert "weather has no rows" in _text(world, incident)
    # Once: an incident that is open is not opened again, and an idle pass writes nothing.
    assert watch_features(world.stores, world.project) == []
    _send(world, HOUR)
    assert watch_features(world.stores, world.project) == ["delay"]
    assert _incidents(world, "freshness") == []
    world.clock.advance(3 * 3600)
    assert watch_features(world.stores, world.project) == ["delay"]
    (again,) = _incidents(world, "freshness")
    assert again.id != incident.id
    assert "4 hours old" in _text(world, again)


def test_an_online_store_that_cannot_be_read_is_out_of_date(world: World) -> None:
    watch_features(world.stores, world.project, "redis://127.0.0.1:1/0")
    (incident,) = _incidents(world, "freshness")
    assert "cannot be read" in _text(world, incident)


def test_answers_are_replayed_on_schedule_and_what_differs_is_an_incident(world: World) -> None:
    _send(world, HOUR)
    assert watch_features(world.stores, world.project) == ["delay"]
    (job,) = _jobs(world)
    assert job.payload == {"service": "delay"}
    assert watch_features(world.stores, world.project) == []
    (release,) = {each.release for each in world.read(lambda c: _deployments(c, world))}
    _answer(world, {"release": release, **UNEQUAL}, {"release": "rel_other", **EQUAL})
    assert watch_features(world.stores, world.project) == ["delay"]
    (incident,) = _incidents(world, "parity")
    text = _text(world, incident)
    assert "25.00% of 40 answers" in text
    assert "weather_temp" in text
    evidence = world.read(lambda c: governance.evidence_of(c, world.project, release))
    assert [each.content for each in evidence if each.kind == "replay"] == [{**UNEQUAL, "job": job.id}]
    assert watch_features(world.stores, world.project) == []


def test_an_incident_ends_when_answers_are_those_of_history_again(world: World) -> None:
    (release,) = {each.release for each in world.read(lambda c: _deployments(c, world))}
    for report in (UNEQUAL, EQUAL):
        _send(world, HOUR)
        watch_features(world.stores, world.project)
        _answer(world, {"release": release, **report})
        watch_features(world.stores, world.project)
        world.clock.advance(timedelta(days=1).total_seconds())
    assert _incidents(world, "parity") == []
    assert len(_jobs(world)) == 2
    _send(world, HOUR)
    watch_features(world.stores, world.project)
    assert len(_jobs(world)) == 3


def test_a_replay_that_found_nothing_and_one_that_died_are_asked_for_again_a_day_later(world: World) -> None:
    _send(world, HOUR)
    watch_features(world.stores, world.project)
    _answer(world)
    assert watch_features(world.stores, world.project) == []
    assert _incidents(world, "parity") == []
    world.clock.advance(timedelta(days=1).total_seconds())
    _send(world, HOUR)
    assert watch_features(world.stores, world.project) == ["delay"]
    assert len(_jobs(world)) == 2


def test_a_service_that_declares_nothing_is_left_alone(tmp_path: Path) -> None:
    made = open_world(tmp_path)
    made.declare()
    _come(made, FeatureSet((replace(VIEW, freshness=None),), (numeric("hour"),), {}))
    assert watch_features(made.stores, made.project) == []
    assert _jobs(made) == []
    made.stores.close()


@pytest.mark.parametrize("wrong", [{"replay_days": -1.0}, {"replay_days": 400.0}, {"replay_most": 1.5}])
def test_a_schedule_that_cannot_be_meant_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="replay"):
        check_service(replace(SERVICE, **wrong))  # type: ignore[arg-type]


def _deployments(connection: Any, world: World) -> Any:
    from holdtrue import delivery

    return delivery.deployments(connection, world.project)
