"""Kill a real process while it promotes and rolls back: what is deployed is old or new, never mixed."""

import os
import random
import secrets
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import orjson

from holdtrue import delivery, governance
from holdtrue.delivery import RolloutState
from holdtrue.serving import read_snapshot
from holdtrue.storage.ledger.verify import verify
from tests.crash.harness import History, nursery
from tests.delivery.switching import prepare
from tests.delivery.worlds import World, open_world

KILLS = 8
CLIENT = "tests.delivery.switching:switch"


def test_a_killed_process_leaves_the_old_state_or_the_new_one(tmp_path: Path) -> None:
    seed = int(os.environ.get("CRASH_SEED", secrets.randbits(32)))
    print(f"CRASH_SEED={seed}")
    rng = random.Random(seed)
    folder = next(prepare(tmp_path))
    with nursery("tests.delivery.switching") as home:
        for _ in range(KILLS):
            pid = home.start(CLIENT, folder, rng.getrandbits(32))
            # A process that has just begun is killed too: it may be opening the ledger.
            wait_for(folder / "notes", rng.randrange(0, 8))
            time.sleep(rng.uniform(0, 0.02))
            home.kill(pid)
            check(folder, History.read(folder / "notes"))
    assert len(History.read(folder / "notes").acknowledged) >= KILLS // 4, "hardly anything was promised"


def wait_for(notes: Path, lines: int) -> None:
    """Wait until that many notes more were written."""

    def written() -> int:
        return notes.read_bytes().count(b"\n") if notes.exists() else 0

    wanted, deadline = written() + lines, time.monotonic() + 60
    while written() < wanted:
        assert time.monotonic() < deadline, "the client does nothing"
        time.sleep(0.001)


def check(folder: Path, history: History) -> None:
    """Hold the ledger, its events, the snapshot and what was acknowledged against one another."""
    world = open_world(folder / "home")
    try:
        changes = world.changes()
        check_ledger(world, changes, orjson.loads((folder / "releases").read_bytes()))
        check_promises(changes, history)
        check_snapshot(world)
        key = (world.stores.home / "keys" / "ledger.pub").read_text()
        assert verify(world.stores.home / "ledger.db", key).ok
    finally:
        world.stores.close()


def check_ledger(world: World, changes: list[delivery.Change], releases: list[str]) -> None:
    """Rows agree with each other and with the events that tell of them."""
    deployment = world.deployment()
    assert deployment.release in releases
    assert deployment.release == changes[-1].release
    assert [each.number for each in changes] == list(range(1, len(changes) + 1))
    assert all(before.release == after.before for before, after in pairwise(changes))
    rollouts = world.read(lambda conn: delivery.rollouts(conn, world.project, limit=10_000))
    states = Counter(each.state for each in rollouts)
    assert states[RolloutState.RUNNING] <= 1
    assert sum(each.rollout is not None for each in changes) == states[RolloutState.PROMOTED]
    told = Counter(world.actions())
    assert told["deployment.changed"] == len(changes)
    assert told["rollout.started"] == len(rollouts)
    assert told["rollout.promoted"] == states[RolloutState.PROMOTED]
    for each in changes:
        decision = world.read(lambda conn, name=each.decision: governance.decision(conn, world.project, name))
        assert (decision.release, decision.outcome) == (each.release, governance.Outcome.ALLOWED)


def check_promises(changes: list[delivery.Change], history: History) -> None:
    """Every change that was acknowledged stands there, in order; at most one a kill was made and not told."""
    promised = [
        (facts["action"], facts["release"]) for facts in history.acknowledged.values() if facts["action"] != "started"
    ]
    there = iter((each.action, each.release) for each in changes[1:])
    assert all(any(found == wanted for found in there) for wanted in promised)
    untold = len(changes) - 1 - len(promised)
    assert 0 <= untold <= len(history.intended) - len(history.acknowledged)


def check_snapshot(world: World) -> None:
    """The file is a whole snapshot, and the next pass brings it to what the ledger wishes."""
    path = world.stores.home / "routing" / "current.json"
    before = read_snapshot(path)
    world.reconcile()
    after = read_snapshot(path)
    assert after.sequence >= before.sequence
    assert after.sequence == world.actions().count("snapshot.issued")
    assert after.services["flights/delay"].arms[0].release == world.deployment().release
