"""The routing snapshot follows the ledger, and the ledger follows what data planes say."""

from dataclasses import replace

from holdtrue import delivery, monitoring
from holdtrue.core.clock import SimulatedClock
from holdtrue.delivery import Canary, DeploymentState, RolloutState, store
from holdtrue.delivery.changing import end_rollout
from holdtrue.serving import read_snapshot
from holdtrue.storage import open_stores
from holdtrue.storage.ledger import Transaction
from tests.delivery.worlds import SERVICE, World


def finish(tx: Transaction, name: str) -> None:
    end_rollout(tx, store.rollout(tx.connection, tx.project, name), RolloutState.PROMOTED, "proven", {})


def test_without_deployments_there_is_no_snapshot(world: World) -> None:
    world.declare()
    assert world.reconcile() == []
    assert not (world.stores.home / "routing" / "current.json").exists()


def test_a_first_deployment_is_issued_and_comes_alive(world: World) -> None:
    world.declare()
    release = world.allowed("one")
    world.promote(release)
    assert world.reconcile() == ["snapshot 1: issued", "snapshot 1: written"]
    snapshot = read_snapshot(world.stores.home / "routing" / "current.json")
    assert snapshot.sequence == 1
    route = snapshot.services["flights/delay"]
    assert [(arm.release, arm.percent) for arm in route.arms] == [(release, 100.0)]
    assert (route.key, route.entity, route.fallback, route.paired) == ("flight", "tail", 0.2, False)
    assert snapshot.releases[release].output == "late"
    assert world.reconcile() == []
    assert world.deployment().state is DeploymentState.PENDING
    world.ack()
    assert world.reconcile() == [f"delay in production: {release} is live"]
    live = world.deployment()
    assert (live.state, live.good, live.sequence) == (DeploymentState.LIVE, release, 1)
    assert world.reconcile() == []
    assert world.actions("deployment.") == ["deployment.changed", "deployment.live"]


def test_every_worker_of_the_present_snapshot_must_have_loaded_it(world: World) -> None:
    world.declare()
    release = world.allowed("one")
    world.promote(release)
    world.reconcile()
    world.ack("w0", sequence=0)
    world.reconcile()
    assert world.deployment().state is DeploymentState.PENDING
    world.ack("w1")
    world.ack("w2", failed={})
    world.reconcile()
    assert world.deployment().state is DeploymentState.LIVE


def test_a_rollout_gives_the_challenger_its_share_and_both_releases_every_row(world: World) -> None:
    world.declare()
    running = world.rolling()
    assert running.cursor is not None
    route = read_snapshot(world.stores.home / "routing" / "current.json").services["flights/delay"]
    assert [(arm.name, arm.release, arm.percent) for arm in route.arms] == [
        ("champion", running.champion, 95.0),
        ("challenger", running.challenger, 5.0),
    ]
    assert (route.rollout, route.seed, route.paired) == (running.id, running.id, True)
    assert route.shadows == (running.challenger,)


def test_a_step_of_nothing_is_a_shadow(world: World) -> None:
    world.declare(service=replace(SERVICE, rollout=Canary(steps=(0, 10), shadow=False)))
    running = world.rolling()
    route = read_snapshot(world.stores.home / "routing" / "current.json").services["flights/delay"]
    assert [(arm.release, arm.percent) for arm in route.arms] == [(running.champion, 100.0)]
    assert route.shadows == (running.challenger,)


def test_declared_shadows_are_served_and_unknown_ones_left_out(world: World) -> None:
    world.declare()
    first = world.live("one")
    second = world.submit("two").release
    world.declare(service=replace(SERVICE, shadows=(second, "rel_0000000000000000", first)))
    world.reconcile()
    assert world.snapshot()["services"]["flights/delay"]["shadows"] == [second]


def test_the_sequence_grows_and_the_snapshot_is_that_of_the_ledger(world: World) -> None:
    world.declare()
    seen: list[int] = []
    running = world.rolling()
    seen.append(world.snapshot()["sequence"])
    world.rollback()
    world.reconcile()
    seen.append(world.snapshot()["sequence"])
    assert running.challenger not in world.snapshot()["releases"]
    assert seen == sorted(set(seen))
    assert world.actions("snapshot.") == ["snapshot.issued"] * seen[-1]


def test_releases_that_answered_before_stand_by(world: World) -> None:
    world.declare()
    releases = [world.allowed(f"model {number}") for number in range(6)]
    for release in releases:
        running = world.promote(release).rollout
        if running is not None:
            world.write(lambda tx, name=running.id: finish(tx, name))
    world.reconcile()
    snapshot = read_snapshot(world.stores.home / "routing" / "current.json")
    assert snapshot.services["flights/delay"].releases == (releases[-1],)
    assert set(snapshot.releases) == set(releases[1:])


def test_a_lost_or_foreign_file_is_written_again_with_the_same_sequence(world: World) -> None:
    world.declare()
    world.live("one")
    path = world.stores.home / "routing" / "current.json"
    before = path.read_bytes()
    path.unlink()
    assert world.reconcile() == ["snapshot 1: written"]
    assert path.read_bytes() == before
    path.write_bytes(b"{torn")
    world.reconcile()
    assert path.read_bytes() == before


def test_another_process_computes_the_same_snapshot(world: World) -> None:
    world.declare()
    world.rolling()
    path = world.stores.home / "routing" / "current.json"
    before = path.read_bytes()
    world.stores.close()
    path.unlink()
    later = SimulatedClock(world.clock.now())
    later.advance(86_400)
    again = open_stores(world.stores.home, later)
    try:
        delivery.reconcile(again, "flights")
        assert path.read_bytes() == before
    finally:
        again.close()


def test_a_release_that_does_not_load_goes_back_to_the_last_good_one(world: World) -> None:
    world.declare()
    running = world.rolling()
    for _ in range(6):
        world.day(world.rollout(running.id), rows=400)
        world.judge()
    assert world.rollout(running.id).state is RolloutState.PROMOTED
    world.reconcile()
    world.ack(failed={running.challenger: "the digest does not match"})
    world.reconcile()
    kept = world.deployment()
    assert (kept.release, kept.state, kept.failed) == (running.champion, DeploymentState.FAILED, running.challenger)
    assert "the digest does not match" in kept.why
    incidents = world.read(lambda conn: monitoring.incidents(conn, world.project, kind="deployment"))
    assert [each.release for each in incidents] == [running.challenger]
    world.reconcile()
    assert list(world.snapshot()["releases"]) == [running.champion]
    world.ack()
    assert world.reconcile() == []
    assert world.deployment().state is DeploymentState.FAILED
    # The last good release answers, and what was wished for does not: somebody has to look at that.
    assert world.read(lambda conn: monitoring.incidents(conn, world.project, kind="deployment", unresolved=True))
    assert world.actions("deployment.")[-2:] == ["deployment.changed", "deployment.failed"]


def test_a_first_release_that_does_not_load_is_marked_and_may_come_alive(world: World) -> None:
    world.declare()
    release = world.allowed("one")
    world.promote(release)
    world.reconcile()
    world.ack(failed={release: "no such file"})
    world.reconcile()
    assert world.deployment().state is DeploymentState.FAILED
    assert world.reconcile() == []
    (opened,) = world.read(lambda conn: monitoring.incidents(conn, world.project, kind="deployment", unresolved=True))
    world.ack()
    world.reconcile()
    assert world.deployment().state is DeploymentState.LIVE
    ended = world.read(lambda conn: monitoring.incident(conn, world.project, opened.id))
    assert ended.state is monitoring.IncidentState.RESOLVED
    last = ended.timeline[-1]
    assert (last.kind, last.text) == ("resolved", f"The release {release} answers again in production.")
    assert world.reconcile() == []


def test_a_challenger_that_does_not_load_is_rolled_back(world: World) -> None:
    world.declare()
    first = world.live("one")
    started = world.promote(world.allowed("two")).rollout
    assert started is not None
    world.reconcile()
    world.ack(failed={started.challenger: "unknown operator"})
    world.reconcile()
    ended = world.rollout(started.id)
    assert ended.state is RolloutState.ROLLED_BACK
    assert "unknown operator" in ended.reason
    assert (world.deployment().release, world.deployment().state) == (first, DeploymentState.LIVE)
    world.reconcile()
    assert list(world.snapshot()["releases"]) == [first]


def test_one_snapshot_serves_all_projects(world: World) -> None:
    world.declare()
    world.live("one")
    world.project = "trains"
    world.declare()
    world.promote(world.allowed("one"))
    world.reconcile()
    assert sorted(world.snapshot()["services"]) == ["flights/delay", "trains/delay"]


def test_acks_that_cannot_be_read_say_nothing(world: World) -> None:
    world.declare()
    release = world.allowed("one")
    world.promote(release)
    world.reconcile()
    folder = world.stores.home / "routing" / "acks"
    (folder / "torn.json").write_bytes(b'{"sequence": 1, "rel')
    (folder / "odd.json").write_bytes(b"[]")
    assert world.reconcile() == []
    world.ack()
    world.reconcile()
    assert world.deployment().release == release
    assert world.deployment().state is DeploymentState.LIVE
