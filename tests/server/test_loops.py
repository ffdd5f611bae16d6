"""Due work: in order, once at a time, and one failure stops nothing else."""

import threading
import time
from typing import Any

from holdtrue.core.actor import SYSTEM
from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import Conflict
from holdtrue.server.loops import RECONCILE, Background, DueWork, Duty
from holdtrue.storage.ledger import WriteContext
from tests.server.conftest import Door

SECONDS = 30.0


def mention(door: Door, *projects: str) -> None:
    """Let something happen in these projects."""
    for project in projects:
        door.built.app.stores.ledger.write(
            WriteContext(SYSTEM, project), lambda tx: tx.emit("project.applied", "project") and None
        )


def test_all_duties_run_for_each_project_in_order(door: Door) -> None:
    mention(door, "b", "a")
    seen: list[tuple[str, str]] = []

    def duty(name: str, result: Any) -> Duty:
        def work(stores: Any, project: str) -> Any:
            seen.append((project, name))
            return result

        return Duty(name, work)

    work = DueWork(door.built.app.stores, SystemClock(), lambda: (duty("x", [1, 2]), duty("y", 3), duty("z", None)))
    report = work.run()
    assert seen == [("a", "x"), ("a", "y"), ("a", "z"), ("b", "x"), ("b", "y"), ("b", "z")]
    assert [entry["done"] for entry in report["projects"]["a"]] == [2, 3, 0]
    assert all(entry["error"] is None and entry["seconds"] >= 0 for entry in report["projects"]["b"])
    assert report["now"] == door.clock.now()
    seen.clear()
    assert list(work.run("b")["projects"]) == ["b"]
    assert {project for project, _ in seen} == {"b"}


def test_a_failure_is_recorded_and_stops_nothing_else(door: Door) -> None:
    mention(door, "a")

    def refuse(stores: Any, project: str) -> None:
        raise Conflict("Not now.")

    def fall(stores: Any, project: str) -> None:
        raise ZeroDivisionError("secret detail")

    duties = (Duty("first", refuse), Duty("second", fall), Duty("third", lambda stores, project: 1))
    report = DueWork(door.built.app.stores, SystemClock(), lambda: duties).run()
    errors = [entry["error"] for entry in report["projects"]["a"]]
    assert errors == [
        {"code": "conflict", "what": "Not now."},
        {"code": "internal", "what": "ZeroDivisionError"},
        None,
    ]
    events = door.built.app.stores.ledger.events("a", action="operation.failed")
    assert [(event.object, event.payload, event.actor) for event in events] == [
        ("operation:first", errors[0], "system"),
        ("operation:second", errors[1], "system"),
    ]


def test_run_due_over_http_needs_its_permission_and_reports(whole: Door) -> None:
    from holdtrue.core.access import Role

    assert whole.client(whole.token(Role.DEVELOPER)).post("/api/operations/run-due").status_code == 403
    assert whole.client(whole.token(Role.ADMIN)).post("/api/operations/run-due").status_code == 403
    answer = whole.client(whole.token(Role.OPERATOR, project="empty")).post("/api/operations/run-due")
    assert answer.status_code == 200
    assert list(answer.json()["projects"]) == ["empty"]


def background(door: Door, *, simulated: bool, seconds: float) -> tuple[Background, dict[str, threading.Event]]:
    """Run background work over duties that tell when they were done."""
    mention(door, "a")
    done = {name: threading.Event() for name in ("monitors", RECONCILE, "housekeeping")}

    def duty(name: str) -> Duty:
        return Duty(name, lambda stores, project: done[name].set())

    app = door.built.app
    work = DueWork(app.stores, SystemClock(), lambda: (duty("monitors"), duty(RECONCILE)))
    loop = Background(work, wake=app.wake, seconds=seconds, simulated=simulated, housekeep=done["housekeeping"].set)
    return loop, done


def test_a_change_is_reconciled_without_waiting_for_the_next_round(door: Door) -> None:
    loop, done = background(door, simulated=False, seconds=3600)
    loop.start()
    assert all(event.wait(SECONDS) for event in done.values())
    for event in done.values():
        event.clear()
    door.owner().post("/api/tokens", json={"roles": ["viewer"], "project": "a"})
    assert done[RECONCILE].wait(SECONDS)
    assert not done["monitors"].is_set()
    loop.stop()


def test_all_due_work_comes_again_by_itself(door: Door) -> None:
    loop, done = background(door, simulated=False, seconds=0.05)
    loop.start()
    for _ in range(3):
        assert all(event.wait(SECONDS) for event in done.values())
        for event in done.values():
            event.clear()
    loop.stop()


def test_on_a_simulated_clock_only_housekeeping_and_sealing_are_done(door: Door) -> None:
    loop, done = background(door, simulated=True, seconds=0.05)
    journal = door.built.app.stores.journal
    writer = journal.writer("w", "fast")
    writer.append("label", "a", "s", {"id": ["l"], "time": 0}, 1)
    writer.close()
    loop.start()
    until = time.monotonic() + SECONDS
    while (door.built.app.stores.home / "journal" / "live" / "w-000001.seg").exists():
        assert time.monotonic() < until, "the segment was not sealed"
        time.sleep(0.01)
    assert journal.table("label", "a")["id"].to_pylist() == ["l"]
    for _ in range(3):
        assert done["housekeeping"].wait(SECONDS)
        done["housekeeping"].clear()
        door.built.app.wake.set()
    loop.stop()
    assert not done["monitors"].is_set()
    assert not done[RECONCILE].is_set()
