"""What the killed process of the erasure crash test does until it is killed, and the folder it does it in."""

import importlib
import time
from pathlib import Path

from holdtrue.core.clock import SystemClock
from holdtrue.features import OnlineStore, Trailing
from holdtrue.server.client import Client
from holdtrue.storage import Journal
from tests.cli.toys import succeed
from tests.crash.harness import Notes
from tests.delivery.tails import busiest, tail_folder

# Loaded in the nursery, so that no client spends its short life on importing them.
for _name in (
    "holdtrue.server.build",
    "holdtrue.server.table",
    "holdtrue.data.erasure.rewriting",
    "holdtrue.delivery.privacy.api",
    "holdtrue.storage.journal.erasing",
    "holdtrue.web.pages",
):
    importlib.import_module(_name)

OTHER = "N14228"
RECORDS = 30
VIEW = Trailing("tail", "arrivals", "tailnum", "arrived_at", "late_by", ("mean", "count"), "24h")


def prepare(folder: Path) -> str:
    """Fill a data folder: two months, a model, and records of two aircraft; return the one to be erased."""
    tail_folder(folder)
    tail = busiest(folder)
    succeed("run", "-w", "2013-01", "-w", "2013-02", cwd=folder)
    home = folder / ".holdtrue"
    journal = Journal(home / "journal", SystemClock())
    writer = journal.writer("plane", "strict")
    now = time.time_ns() // 1000
    for number in range(RECORDS):
        of = tail if number % 2 else OTHER
        record = {"id": [f"p{number}"], "prediction_id": [f"p{number}"], "time": [now], "key": [f"f{number}"]}
        writer.append("prediction", "tails", "delay", {**record, "entity": of, "x_tailnum": of}, 1)
        label = {"id": [f"l{number}"], "time": [now], "key": [f"f{number}"], "prediction_id": None, "value": [1.0]}
        writer.append("label", "tails", "delay", label, 1)
        event = {"id": [f"e{number}"], "time": [now], "tailnum": [of], "arrived_at": [now], "late_by": [5.0]}
        writer.append("event", "tails", "arrivals", event, 1)
        if number % 8 == 0:
            journal.seal()
    journal.close()
    (home / "online" / "tails").mkdir(mode=0o700)
    store = OnlineStore(home / "online" / "tails")
    for of in (tail, OTHER):
        store.ingest([VIEW], "arrivals", {"tailnum": [of], "arrived_at": [now], "late_by": [5.0]})
    store.close()
    (folder / "tail").write_text(tail)
    return tail


def erase(folder: Path, notes: Notes, seed: int) -> None:
    """Erase the aircraft, and once more, for ever."""
    tail = (folder / "tail").read_text()
    asked = {"column": "tailnum", "value": tail, "reason": "request 17"}
    for number in range(1_000_000):
        with Client.open(folder / ".holdtrue") as client:
            notes.intend(str(number))
            found = client.post("/api/projects/tails/erasures", {**asked, "again": number > 0})
            notes.done(str(number), state=found["state"])
