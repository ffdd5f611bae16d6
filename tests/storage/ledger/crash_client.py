"""What the killed processes of the ledger's crash test do: commit from several threads until they are killed."""

import random
import tempfile
import threading
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from holdtrue.core.clock import SystemClock
from holdtrue.storage.ledger import Ledger, Transaction, WriteContext
from tests.crash.harness import History
from tests.storage.ledger.toys import ANN, make_table, put

THREADS = 4


def open_ledger(folder: Path) -> Ledger:
    """Open the ledger of a crash folder, whatever state it is in."""
    return Ledger.open(
        folder / "ledger.db", clock=SystemClock(), keys=folder / "keys", anchors=folder / "out" / "anchors"
    )


def commit(ledger: Ledger, notes: Any, key: str, events: int) -> None:
    """Insert one row and tell of it `events` times, under an idempotency key of its own."""

    def work(tx: Transaction) -> int:
        for _ in range(events - 1):
            tx.emit("toy.touched", key, {"padding": "x" * 200})
        return put(key, str(events))(tx)

    notes.intend(key, events=events)
    seq = ledger.write(WriteContext(ANN, "flights", idempotency_key=key, request_digest=key), work)
    notes.done(key, seq=seq)


def commit_for_ever(folder: Path, notes: Any, seed: int) -> None:
    """Send again what an earlier life left unanswered, then commit new work from several threads."""
    ledger = open_ledger(folder)
    make_table(ledger)
    history = History.read(folder / "notes")
    for key in history.intended.keys() - history.acknowledged.keys():
        commit(ledger, notes, key, history.intended[key]["events"])

    def run(number: int) -> None:
        rng = random.Random(seed * THREADS + number)
        while True:
            if rng.random() < 0.05:
                ledger.checkpoint()
            elif rng.random() < 0.1:
                fail(ledger)
            else:
                commit(ledger, notes, f"{seed:08x}-{rng.getrandbits(64):016x}", rng.choice([1, 1, 2, 5, 40]))

    for number in range(1, THREADS):
        threading.Thread(target=run, args=(number,)).start()
    run(0)


def fail(ledger: Ledger) -> None:
    """Begin work that is undone; nothing of it may ever be seen."""

    def work(tx: Transaction) -> None:
        tx.execute(sa.text("INSERT INTO toys VALUES ('undone', '')"))
        tx.emit("toy.put", "undone")
        raise KeyError("undone")

    try:
        ledger.write(WriteContext(ANN, "flights"), work)
    except KeyError:
        return
    raise AssertionError("work that failed was accepted")


def warm_up() -> None:
    """Import, compile and cache in the nursery what every client would spend its short life on."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = open_ledger(Path(folder))
        make_table(ledger)
        fail(ledger)
        ledger.close()


warm_up()
