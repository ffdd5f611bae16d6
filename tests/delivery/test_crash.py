"""Kill a real process while it promotes and rolls back: what is deployed is old or new, never mixed."""

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import orjson
from tests.delivery.worlds import World, open_world

from holdtrue import delivery, governance
from holdtrue.delivery import RolloutState
from holdtrue.serving import read_snapshot
from holdtrue.storage.ledger.verify import verify

KILLS = 20
ROOT = Path(__file__).parents[2]


def test_a_killed_process_leaves_the_old_state_or_the_new_one(tmp_path: Path) -> None:
    home = tmp_path / "home"
    world = open_world(home)
    world.declare()
    first = world.live("one")
    second = world.allowed("two")
    world.stores.close()
    dice = random.Random(20130101)
    acknowledged = 0
    for _ in range(KILLS):
        said = kill_after(home, first, second, dice.randint(1, 6), dice.random() * 0.01)
        acknowledged += len(said)
        world = open_world(home)
        check(world, first, second, said)
        world.stores.close()
    assert acknowledged >= KILLS


def kill_after(home: Path, first: str, second: str, lines: int, more: float) -> list[str]:
    """Let the process go until it has told `lines` steps and a moment more; return what it told."""
    releases = orjson.dumps([first, second]).decode()
    command = [sys.executable, "-m", "tests.delivery.switching", str(home), releases]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(lines)]
        try:
            process.wait(more)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        said += process.stdout.readlines()
        assert process.wait() == -signal.SIGKILL, said
    return [line for line in said if line.endswith("\n")]


def check(world: World, first: str, second: str, said: list[str]) -> None:
    """Hold the ledger, its events, the snapshot and what was acknowledged against one another."""
    changes = world.changes()
    deployment = world.deployment()
    assert deployment.release in (first, second)
    assert deployment.release == changes[-1].release
    assert [each.number for each in changes] == list(range(1, len(changes) + 1))
    assert all(before.release == after.before for before, after in zip(changes, changes[1:], strict=False))
    rollouts = world.read(lambda conn: delivery.rollouts(conn, world.project, limit=10_000))
    states = Counter(each.state for each in rollouts)
    assert states[RolloutState.RUNNING] <= 1
    deployed = [each for each in changes if each.rollout is not None]
    assert len(deployed) == states[RolloutState.PROMOTED]
    # Events tell exactly the changes, no more and no less.
    told = Counter(world.actions())
    assert told["deployment.changed"] == len(changes)
    assert told["rollout.started"] == len(rollouts)
    assert told["rollout.promoted"] == states[RolloutState.PROMOTED]
    for each in changes:
        decision = world.read(lambda conn, name=each.decision: governance.decision(conn, world.project, name))
        assert (decision.release, decision.outcome) == (each.release, governance.Outcome.ALLOWED)
    acknowledged(world, changes, said)
    snapshot = read_snapshot(world.stores.home / "routing" / "current.json")
    assert snapshot.sequence <= told["snapshot.issued"]
    world.reconcile()
    now = read_snapshot(world.stores.home / "routing" / "current.json")
    assert now.services["flights/delay"].arms[0].release == deployment.release
    assert now.sequence == world.actions().count("snapshot.issued")
    assert verify_log(world)


def acknowledged(world: World, changes: list[delivery.Change], said: list[str]) -> None:
    """What the process told before it died stands in the ledger, in that order."""
    wanted = [
        ("deployed" if line.startswith("promoted") else "rolled_back", line.split()[1])
        for line in said
        if not line.startswith("started")
    ]
    there = [(each.action, each.release) for each in changes]
    # At most one change was made and not told.
    assert wanted in (there[len(there) - len(wanted) :], there[len(there) - len(wanted) - 1 : -1])


def verify_log(world: World) -> bool:
    key = world.stores.home / "keys" / "ledger.pub"
    return verify(world.stores.home / "ledger.db", key.read_text()).ok
