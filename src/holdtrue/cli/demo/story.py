"""Replay 2013: what people and processes do, day by day. What comes of it is computed, not told."""

import dataclasses
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from holdtrue.cli.demo import assistant, ending
from holdtrue.cli.demo.company import BASE, PROJECT, SERVICE, Company, company
from holdtrue.cli.demo.deliveries import REGISTERS, prepare
from holdtrue.cli.demo.plane import Plane
from holdtrue.cli.demo.replay import Hour, Year
from holdtrue.cli.demo.screen import Screen
from holdtrue.core.codec import dump
from holdtrue.core.errors import NotFound
from holdtrue.core.jobs import JobKind

START = datetime(2013, 3, 1, 5, tzinfo=UTC)
_WARM_UP = timedelta(hours=12)
_NIGHTLY = 9
_BROKEN_MONTH, _BROKEN_DAY, _MENDED_DAY = "2013-04", 1, 4
_BANK_PROPOSED = (2013, 8, 10)
_SHORT_SIGHTED = (2013, 12, 3)


@dataclass(slots=True)
class Cast:
    """Hold what the replay needs on its way, and what the ending will tell."""

    firm: Company
    screen: Screen
    files: Path
    source: Path
    inbox: Path
    seen: int = 0
    trainings: dict[str, int] = field(default_factory=dict[str, int])
    last_prediction: str = ""
    predictions: int = 0


def run_demo(folder: Path, months: int, *, with_assistant: bool = True) -> int:
    """Replay the year in `folder` and print what came of it; return the exit status."""
    begun = time.monotonic()
    folder = folder.absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = example_folder()
    source, inbox = folder / "source", folder / "inbox"
    end = datetime(2014, 1, 1, 5, tzinfo=UTC) if months == 12 else datetime(2013, months + 1, 1, 5, tzinfo=UTC)
    with Screen(START, end) as screen:
        screen.say(START, "data", "Preparing 336,776 flights of 2013 and hourly weather.")
        shutil.rmtree(inbox, ignore_errors=True)
        inbox.mkdir()
        os.environ["FLIGHTS_DELIVERIES"] = str(inbox)
        with ThreadPoolExecutor(1) as helper, ThreadPoolExecutor(1) as aside:
            # The processes start meanwhile.
            prepared = helper.submit(prepare, source)
            with company(folder, files / "flights.py", inbox, START) as firm:
                prepared.result()
                cast = Cast(firm, screen, files, source, inbox)
                documents = example_folder("docs_assistant")
                embedded = aside.submit(assistant.embed, firm.home, documents) if with_assistant else None
                year = helper.submit(Year, source)
                _first_release(cast)
                _replay(cast, year.result(), end)
                told = ending.collect(cast.firm, cast.last_prediction, cast.predictions)
                second = None
                if embedded is not None:
                    embedded.result()
                    second = assistant.tell(firm.owner, firm.clock, screen, firm.home, documents)
        screen.finish()
    report = ending.finish(folder, told, time.monotonic() - begun)
    ending.print_summary(report, folder, time.monotonic() - begun)
    if second is not None:
        assistant.print_summary(second, folder)
    return 0


def example_folder(name: str = "flights") -> Path:
    """Return where an example lies: in the source tree, or inside the installed package."""
    here = Path(__file__).resolve()
    for each in (here.parents[4] / "examples" / name, here.parents[2] / "_examples" / name):
        if (each / f"{name}.py").is_file():
            return each
    raise NotFound("The example is not installed.", mend="Install Holdtrue again from its wheel or source tree.")


def _first_release(cast: Cast) -> None:
    firm, screen = cast.firm, cast.screen
    from holdtrue.project import load_project

    project = load_project(cast.files / "flights.py")
    firm.ada.post(f"{BASE}/apply", dump(project.spec()))
    for name in REGISTERS:
        shutil.copy(cast.source / f"{name}.csv", cast.inbox)
    _ingest(cast, "2013-01", *REGISTERS)
    for month in ("2013-01", "2013-02"):
        _deliver(cast, month)
        _ingest(cast, month)
    firm.wait_for_jobs()
    screen.say(START, "data", "Registers, January and February were taken in by their contracts.")
    _train(cast, {"model": "delay", "windows": "all", "reason": "first release"}, START)
    firm.run_due()
    # A worker fills the feature views from what was taken in: what is empty or old may not go to production.
    firm.wait_for_jobs()
    _approve(cast, START)
    decided = firm.ada.get(f"{BASE}/releases")["items"][0]["id"]
    firm.otto.post(f"{BASE}/services/{SERVICE}/promote", {"release": decided, "environment": "production"})
    firm.run_due()
    firm.wait_until(lambda: _is_live(cast, decided), "the data plane loads the first release")
    # The first release goes on scoring every row unseen: the frozen model that the loop is compared with.
    service = dataclasses.replace(project.services[SERVICE].spec, shadows=(decided,))
    spec = project.spec()
    firm.ada.post(f"{BASE}/apply", dump(dataclasses.replace(spec, services=(service,))))
    firm.run_due()
    firm.wait_for_jobs()
    _tell(cast, START)


def _replay(cast: Cast, year: Year, end: datetime) -> None:
    for hour in year.hours(START, end, warm_up=_WARM_UP, nightly=_NIGHTLY):
        cast.firm.clock.set(hour.moment)
        _feed(cast, hour)
        if hour.moment >= START and hour.moment.hour == _NIGHTLY:
            _nightly(cast, hour.moment)
            cast.screen.at(hour.moment, cast.predictions)


def _feed(cast: Cast, hour: Hour) -> None:
    """Send what became known, all at once, and then ask for predictions that may use it."""
    firm = cast.firm
    rows = {"readings": hour.readings, "departures": hour.departures, "arrivals": hour.arrivals}
    known = {source: columns for source, columns in rows.items() if columns["id"]}
    begun: list[Plane] = []
    if known:
        begun.append(firm.planes["events"])
        firm.planes["events"].begin_events(known)
    # Before the first release nobody asked, so there is no prediction whose truth could be known.
    if hour.moment > START and hour.labels["key"]:
        begun.append(firm.planes["labels"])
        firm.planes["labels"].begin_labels(SERVICE, hour.labels)
    for plane in begun:
        plane.end()
    if hour.moment > START and hour.requests["flight_id"]:
        answer = firm.planes["predictions"].predict(SERVICE, hour.requests)
        cast.predictions += len(hour.requests["flight_id"])
        cast.last_prediction = answer["parameters"]["prediction_ids"][-1]


def _nightly(cast: Cast, moment: datetime) -> None:
    firm = cast.firm
    _deliveries_of(cast, moment)
    firm.run_due()
    day = (moment.year, moment.month, moment.day)
    if day == _BANK_PROPOSED:
        _propose_bank(cast, moment)
    if day == _SHORT_SIGHTED:
        wish = {"model": "delay", "windows": "last:2", "reason": "only the last two months should count"}
        _train(cast, wish, moment)
    # Whatever happened stands in the event log: on most nights nothing did, and nobody needs to look further.
    if cast.firm.owner.get(f"{BASE}/events", after=cast.seen, limit=1)["items"]:
        _finish_jobs(cast, moment)
        _approve(cast, moment)
        _tell(cast, moment)


def _deliveries_of(cast: Cast, moment: datetime) -> None:
    before = (moment.replace(day=1) - timedelta(days=1)).strftime("%Y-%m")
    if before < "2013-03":
        return
    if moment.day == _BROKEN_DAY:
        _deliver(cast, before, broken=before == _BROKEN_MONTH)
        _ingest(cast, before)
        cast.firm.wait_for_jobs()
    elif moment.day == _MENDED_DAY and before == _BROKEN_MONTH:
        _deliver(cast, before)
        _ingest(cast, before)
        cast.firm.wait_for_jobs()


def _deliver(cast: Cast, month: str, *, broken: bool = False) -> None:
    """Put a month into the inbox; a broken one has its distances as text, as a new export wrote them."""
    for name in ("flights", "weather"):
        table = pq.read_table(cast.source / f"{name}-{month}.parquet")
        if broken and name == "flights":
            place = table.column_names.index("distance")
            text = pa.array([f"{miles} mi" for miles in table["distance"].to_pylist()])
            table = table.set_column(place, "distance", text)
        pq.write_table(table, cast.inbox / f"{name}-{month}.parquet", compression="zstd")


def _ingest(cast: Cast, month: str, *datasets: str) -> None:
    for name in datasets or ("weather", "flights"):
        body = {"kind": JobKind.INGEST, "payload": {"dataset": name, "window": month}}
        cast.firm.ada.post(f"{BASE}/jobs", body)


def _train(cast: Cast, wish: dict[str, Any], moment: datetime) -> None:
    cast.firm.ada.post(f"{BASE}/jobs", {"kind": JobKind.TRAIN, "payload": wish})
    cast.firm.wait_for_jobs()


def _propose_bank(cast: Cast, moment: datetime) -> None:
    """Let Ada train the project with one more feature, in her own process, as `holdtrue run --file` does."""
    from holdtrue.project import Workshop, load_project

    cast.screen.say(moment, "people", "Ada proposes a new feature: the delay of the whole bank of departures.")
    project = load_project(cast.files / "bank.py")
    workshop = Workshop(project, cast.firm.home, cast.firm.ada)
    who = cast.firm.ada.get("/api/whoami")["id"]
    made = workshop.train({"model": "delay", "windows": "all", "reason": "a new feature"}, who)
    _approve(cast, moment)
    release = made["release"]
    cast.firm.otto.post(f"{BASE}/services/{SERVICE}/promote", {"release": release, "environment": "production"})
    cast.firm.run_due()


def _finish_jobs(cast: Cast, moment: datetime) -> None:
    if any(job["state"] in ("queued", "leased") for job in cast.firm.ada.get(f"{BASE}/jobs")["items"]):
        cast.firm.wait_for_jobs()
        cast.firm.run_due()


def _approve(cast: Cast, moment: datetime) -> None:
    """Let Grace approve what the gate found good and only a second person may allow."""
    firm = cast.firm
    newest = {each["release"]: each for each in reversed(firm.grace.get(f"{BASE}/decisions")["items"])}
    waiting = [each for each in newest.values() if each["outcome"] == "waiting_approval"]
    for each in waiting:
        body = {"environment": each["environment"], "reason": "the evidence holds"}
        firm.grace.post(f"{BASE}/releases/{each['release']}/approve", body)
    if waiting:
        firm.run_due()


def _is_live(cast: Cast, release: str) -> bool:
    cast.firm.run_due()
    deployed = cast.firm.otto.get(f"{BASE}/services/{SERVICE}")["deployments"]
    return any(each["release"] == release and each["state"] == "live" for each in deployed)


def _tell(cast: Cast, moment: datetime) -> None:
    """Show on the screen what the event log has that was not shown yet."""
    for event in cast.firm.owner.get(f"{BASE}/events", after=cast.seen, limit=500)["items"]:
        cast.seen = event["seq"]
        line = ending.line_of(event)
        if line is not None:
            cast.screen.say(moment, *line)


__all__ = ["PROJECT", "run_demo"]
