"""Large batches are kept as they came; nobody can tell it by what is there, also after a crash."""

import shutil
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from holdtrue import tracking
from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import StorageFull
from holdtrue.storage.ledger import Joint, Ledger, Transaction, owing
from holdtrue.storage.ledger.transaction import Owed
from holdtrue.tracking import Batch, NewRun, NoRun, NotActive, rules
from holdtrue.tracking.kept.store import metric_batches
from tests.tracking.conftest import CONTEXT

KEYS = ("loss", "acc/top 1", "β", "x" * 250)
VALUES = (0.1, -2.5e-308, 1e308, 3, 7.0, "NaN", "Infinity", "-Infinity", 1 / 3)


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be settled only because a moment has passed."""
    monkeypatch.setattr(owing, "IDLE_SECONDS", 60.0)


@pytest.fixture(params=["what came", "what was kept"])
def settled_from(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is owed be settled from memory, or from its rows as after a crash."""
    if request.param == "what was kept":
        settle = owing.settle
        monkeypatch.setattr(owing, "settle", lambda tx, owed: settle(tx, [each._replace(item=None) for each in owed]))


def begin(ledger: Ledger, name: str = "r") -> str:
    """Begin a run and return its id."""
    return ledger.write(CONTEXT, lambda tx: tracking.create_run(tx, NewRun(0, name=name))).info.id


def batch(run: str, number: int, size: int = 120) -> Batch:
    """Return a batch in which keys, steps and moments come more than once, out of order."""
    items = [
        {"key": KEYS[place % 4], "value": VALUES[(place * number) % 9], "timestamp": place % 7, "step": -place % 50}
        for place in range(number, number + size)
    ]
    return Batch(run, rules.metrics(items))


def everything(ledger: Ledger, run: str) -> tuple[Any, list[Any]]:
    """Return the newest values and all histories of a run."""

    def work(connection: sa.Connection) -> tuple[Any, list[Any]]:
        found = tracking.find_run(connection, CONTEXT.project, run)
        histories = [tracking.history(connection, CONTEXT.project, run, key).points for key in KEYS]
        return found.metrics, histories

    return ledger.read(work)


@pytest.mark.usefixtures("settled_from")
def test_what_was_kept_is_what_would_have_been_written(ledger: Ledger) -> None:
    kept, plain = begin(ledger), begin(ledger)
    for number in (1, 2, 1, 5):
        work = tracking.logging(batch(kept, number))
        assert isinstance(work, Joint)
        assert work.owes
        ledger.write(CONTEXT, work)
    for number in (1, 2, 1, 5):
        same = batch(plain, number)
        ledger.write(CONTEXT, lambda tx, same=same: tracking.log(tx, same))
    assert everything(ledger, kept) == everything(ledger, plain)
    assert all(everything(ledger, kept)[1])


def test_what_comes_after_is_newer(ledger: Ledger) -> None:
    run = begin(ledger)
    ledger.write(CONTEXT, tracking.logging(Batch(run, rules.metrics([_point(step % 3, step) for step in range(100)]))))
    ledger.write(CONTEXT, tracking.logging(Batch(run, rules.metrics([_point(2, 500.0)]))))
    assert [each.value for each in everything(ledger, run)[0]] == [500.0]


def _point(step: int, value: float) -> dict[str, Any]:
    return {"key": "loss", "value": value, "timestamp": 5, "step": step}


def test_a_batch_for_a_run_that_is_not_there_is_refused_and_others_are_kept(ledger: Ledger) -> None:
    run, gone = begin(ledger), begin(ledger)
    ledger.write(CONTEXT, tracking.logging(batch(gone, 1)))
    ledger.write(CONTEXT, lambda tx: tracking.change_run_lifecycle(tx, gone, "deleted"))
    with pytest.raises(NotActive):
        ledger.write(CONTEXT, tracking.logging(batch(gone, 2)))
    with pytest.raises(NoRun):
        ledger.write(CONTEXT, tracking.logging(batch("0" * 32, 2)))
    ledger.write(CONTEXT, tracking.logging(batch(run, 1)))
    assert everything(ledger, run)[1] == everything(ledger, gone)[1]


@pytest.fixture
def settling(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Tell when something was settled."""
    done = threading.Event()
    settle = owing.settle

    def told(tx: Transaction, owed: Sequence[Owed]) -> None:
        settle(tx, owed)
        done.set()

    monkeypatch.setattr(owing, "settle", told)
    return done


def test_it_is_settled_when_it_has_grown(
    ledger: Ledger, settling: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(ledger)
    monkeypatch.setattr(owing, "MOST", 300)
    for number in range(2):
        ledger.write(CONTEXT, tracking.logging(batch(run, number)))
    assert not settling.is_set()
    ledger.write(CONTEXT, tracking.logging(batch(run, 2)))
    assert settling.wait(20)


def test_it_is_settled_once_nobody_writes(
    ledger: Ledger, settling: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(ledger)
    monkeypatch.setattr(owing, "IDLE_SECONDS", 0.01)
    ledger.write(CONTEXT, tracking.logging(batch(run, 1)))
    assert settling.wait(20)


def _open(folder: Path) -> Ledger:
    return Ledger.open(folder / "ledger.db", clock=SystemClock(), keys=folder / "keys")


def test_what_was_acknowledged_outlives_a_crash_before_it_was_settled(tmp_path: Path) -> None:
    ledger = _open(tmp_path / "a")
    run = begin(ledger)
    ledger.write(CONTEXT, tracking.logging(batch(run, 1)))
    # The folder as a process that is killed at this moment leaves it.
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    expected = everything(ledger, run)
    ledger.close()
    with sqlite3.connect(tmp_path / "b" / "ledger.db") as database:
        assert database.execute("SELECT count(*) FROM metric_batches").fetchone() == (1,)
        assert database.execute("SELECT count(*) FROM metric_points").fetchone() == (0,)
    database.close()
    again = _open(tmp_path / "b")
    assert everything(again, run) == expected
    assert again.read(lambda c: c.execute(sa.select(sa.func.count()).select_from(metric_batches)).scalar()) == 0
    again.close()


def test_a_full_disk_leaves_it_kept_and_everything_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = _open(tmp_path)
    run = begin(ledger)
    settle = owing.settle

    def full(tx: Transaction, owed: Sequence[Owed]) -> None:
        settle(tx, owed)
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    monkeypatch.setattr(owing, "settle", full)
    ledger.write(CONTEXT, tracking.logging(batch(run, 1)))
    assert everything(ledger, run)[0] == ()
    with pytest.raises(StorageFull):
        ledger.write(CONTEXT, lambda tx: None)
    monkeypatch.setattr(owing, "settle", settle)
    ledger.write(CONTEXT, tracking.logging(batch(run, 2)))
    assert len(everything(ledger, run)[0]) == 4
    assert ledger.failure is None
    ledger.close()
