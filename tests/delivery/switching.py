"""What the killed process of the promotion crash test does until it is killed."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import orjson

from holdtrue import delivery
from holdtrue.delivery import RolloutState, store
from holdtrue.delivery.changing import end_rollout
from holdtrue.storage.ledger import Transaction
from tests.crash.harness import Notes
from tests.delivery.worlds import OPS, World, open_world


def prepare(base: Path) -> Iterator[Path]:
    """Yield folders with a release that is live and another that is allowed."""
    for number in count():
        folder = base / f"run-{number}"
        folder.mkdir(mode=0o700)
        world = open_world(folder / "home")
        world.declare()
        releases = [world.live("one"), world.allowed("two")]
        world.stores.close()
        (folder / "releases").write_bytes(orjson.dumps(releases))
        yield folder


def switch(folder: Path, notes: Notes, seed: int) -> None:
    """Go on from whatever state the folder is in, for ever: roll out, promote, go back, reconcile."""
    world = open_world(folder / "home")
    first, second = orjson.loads((folder / "releases").read_bytes())
    for number in count():
        key = f"{seed:08x}-{number:06d}"
        notes.intend(key)
        notes.done(key, action=step(world, first, second), release=world.deployment().release)
        world.reconcile()


def step(world: World, first: str, second: str) -> str:
    """Take the one step that comes next and name it."""
    running = world.read(lambda conn: delivery.rollouts(conn, world.project, state=RolloutState.RUNNING))
    if running:
        world.write(lambda tx: finish(tx, running[0].id), OPS)
        return "deployed"
    if world.deployment().release == first:
        world.promote(second)
        return "started"
    world.rollback("back")
    return "rolled_back"


def finish(tx: Transaction, name: str) -> None:
    """End a rollout as proven."""
    end_rollout(tx, store.rollout(tx.connection, tx.project, name), RolloutState.PROMOTED, "proven", {})
