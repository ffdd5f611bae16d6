"""The kill switch: who may throw it, what the snapshot says then, what is left in the log, and how it ends."""

from dataclasses import replace

import pytest

from holdtrue import delivery, monitoring
from holdtrue.core.actor import Actor
from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.delivery import Deployment, Stop
from holdtrue.monitoring import IncidentState
from holdtrue.serving import Route, read_snapshot
from holdtrue.web import urls
from tests.delivery.test_api import BASE, Crew, crew
from tests.delivery.worlds import ADA, OPS, SERVICE, World
from tests.server.conftest import opener, whole

FIXTURES = (crew, opener, whole)


def stop(world: World, reason: str = "it harms", answer: str | None = None, actor: Actor = ADA) -> Stop:
    return world.write(lambda tx: delivery.stop(tx, "delay", reason, answer=answer), actor)


def resume(world: World, reason: str = "") -> Deployment:
    return world.write(lambda tx: delivery.resume(tx, "delay", reason), OPS)


def route(world: World) -> Route:
    world.reconcile()
    return read_snapshot(world.stores.home / "routing" / "current.json").services["flights/delay"]


def test_a_service_is_switched_off_until_it_is_resumed_and_all_of_it_is_recorded(world: World) -> None:
    world.declare()
    release = world.live("one")
    done = stop(world)
    assert (done.reason, done.answer, done.actor, done.actor_name) == ("it harms", None, ADA.id, ADA.name)
    off = route(world)
    assert (off.stopped, off.fallback, [arm.release for arm in off.arms]) == ("it harms", 0.2, [release])
    (incident,) = world.read(lambda conn: monitoring.incidents(conn, world.project, unresolved=True))
    assert (incident.kind, incident.release) == ("stop", release)
    assert resume(world, "mended").release == release
    assert route(world).stopped is None
    ended = world.read(lambda conn: monitoring.incident(conn, world.project, incident.id))
    assert ended.state is IncidentState.RESOLVED
    events = world.stores.ledger.events(None, limit=100_000)
    told = [(each.action, each.actor, each.reason) for each in events if each.action.startswith("service.")]
    assert told[-2:] == [("service.stopped", ADA.id, "it harms"), ("service.resumed", OPS.id, "mended")]


def test_the_same_again_changes_nothing_and_another_reason_takes_its_place(world: World) -> None:
    world.declare()
    world.live("one")
    first = stop(world)
    world.clock.advance(60)
    assert stop(world) == first
    again = stop(world, "it harms more", "0.9")
    assert (again.reason, again.answer) == ("it harms more", "0.9")
    assert (route(world).stopped, route(world).fallback) == ("it harms more", 0.9)
    assert world.actions("service.stopped") == ["service.stopped"] * 2
    assert world.read(lambda conn: delivery.stops(conn, world.project)) == [again]


def test_it_stays_off_while_a_release_goes_and_another_comes(world: World) -> None:
    world.declare()
    running = world.rolling()
    stop(world)
    world.rollback()
    off = route(world)
    assert (off.stopped, off.arms[0].release) == ("it harms", running.champion)


def test_what_could_not_be_answered_or_does_not_exist_is_refused(world: World) -> None:
    world.declare()
    with pytest.raises(NotFound):
        stop(world)
    world.live("one")
    for answer in ("high", "", "nan", "inf"):
        with pytest.raises(InvalidInput, match="no number"):
            stop(world, answer=answer)
    for reason in ("", "  ", "a\nb", "x" * 501):
        with pytest.raises(InvalidInput, match="one line"):
            stop(world, reason)
    with pytest.raises(NotFound, match="not switched off"):
        resume(world)
    with pytest.raises(InvalidInput):
        world.write(lambda tx: delivery.stop(tx, "delay", "x", "../x"), ADA)
    assert world.actions("service.stopped") == []


def test_it_is_thrown_by_whoever_develops_and_taken_back_by_who_operates(crew: Crew) -> None:
    release = crew.submit("one")
    crew.approve(release)
    crew.promote(release)
    body = {"reason": "it harms", "answer": "0.5"}
    for client in (crew.viewer, crew.reviewer):
        assert client.post(f"{BASE}/services/delay/stop", json=body).status_code == 403
    done = crew.developer.post(f"{BASE}/services/delay/stop", json=body)
    assert (done.status_code, done.json()["environment"]) == (200, "production")
    shown = crew.viewer.get(f"{BASE}/status").json()
    assert [each["reason"] for each in shown["services"][0]["stops"]] == ["it harms"]
    assert shown["gateway"] == {"stopped": None, "providers": {}}
    assert crew.viewer.get(f"{BASE}/services/delay").json()["stops"][0]["answer"] == "0.5"
    page = crew.viewer.get(urls.service("flights", "delay")).text
    assert "Switched off in production" in page
    assert "it harms" in page
    assert "switched off" in crew.viewer.get(urls.overview("flights")).text
    assert crew.developer.post(f"{BASE}/services/delay/resume", json={}).status_code == 403
    assert crew.operator.post(f"{BASE}/services/delay/resume", json={"reason": "mended"}).status_code == 200
    assert crew.viewer.get(f"{BASE}/services/delay").json()["stops"] == []


def test_what_is_switched_off_of_the_gateway_stands_in_the_same_place(crew: Crew) -> None:
    owner = crew.world.stores
    assert owner.home.is_dir()
    crew.world.write(lambda tx: _switch(tx), OPS)
    assert crew.viewer.get(f"{BASE}/status").json()["gateway"]["stopped"] == "too dear"


def _switch(tx: object) -> None:
    from holdtrue.llm.service import switch_gateway

    switch_gateway(tx, "too dear")  # pyright: ignore[reportArgumentType]  # the world's transaction


def test_a_service_without_a_constant_is_refused_rather_than_answered(world: World) -> None:
    world.declare(service=replace(SERVICE, fallback=None))
    release = world.allowed("one", fallback=None)
    world.promote(release)
    stop(world)
    off = route(world)
    assert (off.stopped, off.fallback) == ("it harms", None)
