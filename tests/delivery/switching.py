"""A process that promotes and rolls back until somebody kills it; run by the crash test."""

import sys
from pathlib import Path

import orjson

from holdtrue import delivery
from holdtrue.delivery import store
from holdtrue.delivery.changing import end_rollout
from holdtrue.storage.ledger import Transaction
from tests.delivery.worlds import OPS, World, open_world


def switch(world: World, first: str, second: str) -> None:
    """Go on from whatever state the folder is in: roll out and promote, or go back; tell after each."""
    while True:
        running = world.read(lambda conn: delivery.rollouts(conn, world.project, state=delivery.RolloutState.RUNNING))
        if running:
            name = running[0].id

            def finish(tx: Transaction, name: str = name) -> None:
                rollout = store.rollout(tx.connection, tx.project, name)
                end_rollout(tx, rollout, delivery.RolloutState.PROMOTED, "proven", {})

            world.write(finish, OPS)
            said = f"promoted {world.deployment().release}"
        elif world.deployment().release == first:
            world.promote(second)
            said = f"started {second}"
        else:
            world.rollback("back")
            said = f"back {world.deployment().release}"
        world.reconcile()
        sys.stdout.write(f"{said} {world.snapshot()['sequence']}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    opened = open_world(Path(sys.argv[1]))
    releases = orjson.loads(sys.argv[2])
    switch(opened, *releases)
