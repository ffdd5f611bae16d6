"""Work that is due: monitors, retraining, rollouts, reconciliation; and sealing. One room's failure stops no other."""

import logging
import threading
from collections.abc import Callable, Sized
from dataclasses import dataclass
from functools import partial
from typing import Any

from holdtrue.core.actor import SYSTEM
from holdtrue.core.clock import Clock, SystemClock
from holdtrue.core.errors import HoldtrueError
from holdtrue.server import store
from holdtrue.storage import Stores
from holdtrue.storage.ledger import WriteContext

_log = logging.getLogger("holdtrue.server")

RECONCILE = "reconcile"


@dataclass(frozen=True, slots=True)
class Duty:
    """Name one room's due work for a project: a function that does it once and says what it did."""

    name: str
    work: Callable[[Stores, str], Any]


def duties(online: str = "") -> tuple[Duty, ...]:
    """Return what is done for each project, in order: watch, decide, judge, act.

    `online` is the address of the server that keeps online features, if it is not a file.
    """
    # Imported late: numerics are loaded when there is something to compute, not when the server starts.
    from holdtrue import delivery, monitoring
    from holdtrue.tracking import retention

    return (
        Duty("monitors", monitoring.run_due),
        Duty("filling", delivery.fill_features),
        Duty("features", partial(delivery.watch_features, online=online)),
        Duty("retraining", delivery.run_due),
        Duty("rollouts", delivery.judge),
        Duty("abandoned uploads", retention.forget_abandoned),
        Duty(RECONCILE, delivery.reconcile),
        Duty("drills", delivery.run_drills),
    )


class DueWork:
    """Run what is due, one round at a time whoever asks."""

    def __init__(self, stores: Stores, timer: Clock, chosen: Callable[[], tuple[Duty, ...]] = duties) -> None:
        """`timer` measures durations; the moment for which work is due is the stores' clock's."""
        self._stores = stores
        self._timer = timer
        self._duties = chosen
        self._lock = threading.Lock()

    def run(self, project: str | None = None) -> dict[str, Any]:
        """Do everything that is due in `project` (None: in every one) and report counts and seconds.

        A failed duty is recorded as an event `operation.failed` and reported with its error's code.
        """
        with self._lock:
            started = self._timer.monotonic()
            names = self._projects(project)
            report = {name: [self._do(duty, name) for duty in self._duties()] for name in names}
            if not names:
                report[""] = [self._do(duty, "") for duty in self._duties() if duty.name == RECONCILE]
            return {
                "now": self._stores.clock.now(),
                "projects": report,
                "seconds": round(self._timer.monotonic() - started, 4),
            }

    def seal(self) -> dict[str, Any]:
        """Seal the closed segments of the journal and index their spans; it changes nothing that is read."""
        sealed = self._do(Duty("sealing", lambda stores, _: stores.journal.seal(roll=False)), "")
        return {"sealing": sealed, "trace_index": self._do(Duty("trace index", self._index), "")}

    def reconcile(self) -> None:
        """Bring deployments to what is wished, in every project, and do nothing else."""
        with self._lock:
            for duty in self._duties():
                if duty.name == RECONCILE:
                    # What holds for the whole house is published before there is any project, too.
                    for name in self._projects(None) or [""]:
                        self._do(duty, name)

    def _index(self, stores: Stores, project: str) -> int:
        # Imported late, as the duties are.
        from holdtrue.traces import service as traces

        return traces.refresh(stores, self._timer.monotonic)

    def _projects(self, project: str | None) -> list[str]:
        return [project] if project else self._stores.ledger.read(store.projects)

    def _do(self, duty: Duty, project: str) -> dict[str, Any]:
        started = self._timer.monotonic()
        error: dict[str, Any] | None = None
        done = 0
        try:
            done = _count(duty.work(self._stores, project))
        except Exception as failure:  # noqa: BLE001  # one room's failure must not stop the others
            _log.error("%s failed in project %r", duty.name, project, exc_info=failure)
            error = _described(failure)
            self._record(duty, project, error)
        seconds = round(self._timer.monotonic() - started, 4)
        return {"work": duty.name, "done": done, "seconds": seconds, "error": error}

    def _record(self, duty: Duty, project: str, error: dict[str, Any]) -> None:
        try:
            self._stores.ledger.write(
                WriteContext(actor=SYSTEM, project=project),
                lambda tx: tx.emit("operation.failed", f"operation:{duty.name}", error),
            )
        except HoldtrueError as failure:
            # A ledger that takes no writes is why the duty failed, as likely as not; the log has both.
            _log.error("the failure of %s could not be recorded: %s", duty.name, failure.what)


class Background:
    """Do due work every few seconds, and reconcile soon after each change, until stopped.

    Where time is simulated nothing is due by itself: whoever moves the clock asks for it. `housekeep` runs and the
    journal is sealed in either case, by the machine's own clock.
    """

    def __init__(
        self,
        work: DueWork,
        *,
        wake: threading.Event,
        seconds: float,
        simulated: bool,
        housekeep: Callable[[], None],
    ) -> None:
        self._work = work
        self._wake = wake
        self._seconds = seconds
        self._simulated = simulated
        self._housekeep = housekeep
        self._stopped = threading.Event()
        self._timer = SystemClock()
        self._thread = threading.Thread(target=self._run, name="background", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the round under way, then end."""
        self._stopped.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        # The first round waits until the other processes have started, too: they share the processors.
        due = self._timer.monotonic() + min(1.0, self._seconds)
        while not self._stopped.is_set():
            woken = self._wake.wait(max(0.0, due - self._timer.monotonic()))
            # Changes come in groups; one pass serves all that came within a tenth of a second.
            if woken and self._stopped.wait(0.1):
                return
            self._wake.clear()
            now = self._timer.monotonic()
            if now >= due:
                self._guarded(self._housekeep)
                due = now + self._seconds
                if not self._simulated:
                    self._guarded(self._work.run)
                self._guarded(self._work.seal)
            elif not self._simulated:
                self._guarded(self._work.reconcile)

    def _guarded(self, work: Callable[[], Any]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  # background work goes on; the log and health tell of it
            _log.error("background work failed", exc_info=error)


def _described(failure: Exception) -> dict[str, Any]:
    if isinstance(failure, HoldtrueError):
        return {"code": failure.code, "what": failure.what}
    return {"code": "internal", "what": type(failure).__name__}


def _count(result: Any) -> int:
    """Return how much a duty did: the number it gives, or the length of what it gives."""
    if isinstance(result, bool | int):
        return int(result)
    return len(result) if isinstance(result, Sized) else int(result is not None)
