"""What came of the year: tables and the report, computed from records, labels and the event log."""

import platform
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from holdtrue import monitoring
from holdtrue._version import __version__
from holdtrue.cli.context import wide_console
from holdtrue.cli.demo.company import BASE, PROJECT, SERVICE, Company
from holdtrue.cli.why import explained
from holdtrue.core.jobs import JobKind
from holdtrue.evaluation import days, score_of
from holdtrue.server.settings import load_settings
from holdtrue.storage import FileClock
from holdtrue.storage.stores import open_stores

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """Hold what was read over HTTP before the processes ended."""

    events: list[Event]
    decisions: list[Any]
    rollouts: list[Any]
    quarantines: list[Any]
    changes: list[Any]
    why: Any
    prediction: str
    predictions: int
    requests: int


def collect(firm: Company, prediction: str, predictions: int) -> Told:
    """Read everything that the ending tells, through the same API that anybody uses."""
    rollouts = firm.owner.get(f"{BASE}/rollouts")["items"]
    return Told(
        events=list(_all_events(firm)),
        decisions=[_with_approvals(firm, each) for each in firm.owner.get(f"{BASE}/decisions", limit=500)["items"]],
        rollouts=[firm.owner.get(f"{BASE}/rollouts/{each['id']}") for each in rollouts],
        quarantines=firm.owner.get(f"{BASE}/quarantines")["items"],
        changes=firm.owner.get(f"{BASE}/services/{SERVICE}")["changes"],
        why=firm.owner.get(f"{BASE}/why/{prediction}"),
        prediction=prediction,
        predictions=predictions,
        requests=firm.requests,
    )


def _with_approvals(firm: Company, decision: Any) -> Any:
    """Return a decision with who approved it, and why, beside the ids of the approvals."""
    given = firm.owner.get(f"{BASE}/releases/{decision['release']}/approvals")["items"] if decision["approvals"] else []
    return {**decision, "approved": [each for each in given if each["id"] in decision["approvals"]]}


def line_of(event: Event) -> tuple[str, str] | None:
    """Return the kind and the sentence with which the screen tells an event; None for what it leaves out."""
    action, payload = event["action"], event["payload"] or {}
    subject = str(event["object"]).split(":")[-1]
    why = payload.get("why") or event.get("reason") or ""
    if action == "quarantine.opened":
        what = "; ".join(finding["what"] for finding in payload["findings"])
        return "data", f"[bold]{payload['dataset']} {payload['window']} is quarantined[/]: {what}"
    if action == "quarantine.mended":
        return "data", f"The delivery of {payload['window']} was mended and taken in."
    if action == "fragment.accepted" and str(event["object"]).endswith("flights"):
        return "data", f"{payload['window']} was taken in: {payload['rows']:,} flights."
    if action == "incident.opened":
        return "alarm", f"[bold]Incident[/]: {payload.get('title', subject)}"
    if action in ("retrain.queued", "retrain.refused"):
        verb = "starts" if action.endswith("queued") else "is not started"
        return "model", f"Training {verb} ({payload.get('reason')}). {why}"
    if action.startswith("decision."):
        failed = ", ".join(payload.get("failed") or [])
        verb = {"refused": "[bold red]refuses[/]", "waiting_approval": "finds good, and asks for approval of,"}
        outcome = action.removeprefix("decision.")
        return "decision", f"The gate {verb.get(outcome, 'allows')} {subject}{': ' + failed if failed else ''}."
    if action == "approval.given":
        return "people", f"Grace approves {subject}."
    if action == "rollout.started":
        return "rollout", f"{payload.get('challenger')} begins its canary."
    if action in ("rollout.advanced", "rollout.promoted", "rollout.rolled_back", "rollout.stopped"):
        verb = action.split(".")[1].replace("_", " ")
        mark = "[bold red]" if verb == "rolled back" else "[bold green]" if verb == "promoted" else ""
        end = "[/]" if mark else ""
        return "rollout", f"{payload.get('challenger', subject)} {mark}{verb}{end}. {why}"
    return None


def finish(folder: Path, told: Told, seconds: float) -> dict[str, Any]:
    """Compute the months from the journal, write the HTML report, and return what the summary prints."""
    home = folder / "home"
    stores = open_stores(home, FileClock(folder / "clock"), database=load_settings(home).database)
    try:
        # The writers have ended: what they left is read faster, by this and by whoever looks around, as Parquet.
        stores.journal.seal(roll=False)
        frozen = _first_release(told)
        months = _months(stores, told, frozen)
    finally:
        stores.close()
    report = _report(told, months, frozen, seconds)
    from holdtrue.web.report import render_report

    (folder / "report.html").write_text(render_report(report), encoding="utf-8")
    return {"months": months, "told": told, "frozen": frozen, "report": folder / "report.html"}


def print_summary(found: dict[str, Any], folder: Path, seconds: float) -> None:
    """Print the monthly table, the decisions, one explained prediction, and how to look around."""
    console = wide_console()
    told: Told = found["told"]
    console.print()
    table = Table(
        title="2013, month by month: area under the ROC curve with 95 % intervals", title_justify="left", box=None
    )
    for name, side in (
        ("month", "left"),
        ("flights", "right"),
        ("frozen model", "right"),
        ("the loop", "right"),
        ("trainings", "right"),
        ("alarms", "right"),
        ("decisions", "left"),
    ):
        table.add_column(name, justify=side, no_wrap=name != "decisions")  # type: ignore[arg-type]  # rich's literal
    for month in found["months"]:
        table.add_row(
            month["month"],
            f"{month['flights']:,}",
            _interval_text(month["frozen"]),
            _interval_text(month["loop"]),
            str(month["trainings"] or "·"),
            str(month["alarms"] or "·"),
            ", ".join(month["decisions"]) or "·",
        )
    console.print(table)
    refused = [each for each in told.decisions if each["outcome"] == "refused"]
    for each in refused:
        failed = "; ".join(f"{rule['rule']}: {rule['why']}" for rule in each["findings"] if not rule["passed"])
        console.print(f"[red]Refused[/] {each['release']} ({str(each['created_at'])[:10]}): {failed}", soft_wrap=True)
    console.print(f"\nWhy did prediction {told.prediction} come out as it did?", style="bold")
    for line in _why_lines(told.why):
        console.print(f"  {line}", soft_wrap=True)
    console.print(
        f"\n{told.predictions:,} predictions in {told.requests:,} requests over HTTP; "
        f"{sum(1 for each in told.events if each['action'] == 'job.done')} jobs, {len(told.events):,} events in the "
        f"ledger; {seconds:.0f} s.\n"
    )
    for name, text in (
        ("Report", str(found["report"])),
        ("Look around", f"make up   (or: holdtrue up --home {folder / 'home'} --clock {folder / 'clock'})"),
        ("Explain", f"holdtrue why {told.prediction} --project {PROJECT} --home {folder / 'home'}"),
        ("Audit", f"holdtrue audit verify --home {folder / 'home'}"),
    ):
        console.print(f"{name + ':':13} {text}", soft_wrap=True)


def _all_events(firm: Company) -> Iterable[Event]:
    after = 0
    while True:
        page = firm.owner.get(f"{BASE}/events", after=after, limit=500)["items"]
        yield from page
        if len(page) < 500:
            return
        after = page[-1]["seq"]


def _first_release(told: Told) -> str:
    return min(told.changes, key=lambda each: each["number"])["release"]


def _months(stores: Any, told: Told, frozen: str) -> list[dict[str, Any]]:
    rows = monitoring.joined(stores, PROJECT, SERVICE)
    known = rows.filter(pc.field("label").is_valid())
    month = known["time"].to_numpy().astype("datetime64[us]").astype("datetime64[M]")
    found: list[dict[str, Any]] = []
    for each in np.unique(month):
        name, part = str(each), known.filter(pa.array(month == each))
        answered = part.filter(pc.field("role") == "answer")
        # Where the first release answered, its answers count; elsewhere it scored the row unseen.
        still = part.filter(pc.field("release") == frozen)
        if answered.num_rows < 1000:
            continue
        found.append(
            {
                "month": name,
                "flights": answered.num_rows,
                "frozen": _area(still),
                "loop": _area(answered),
                **_counts(told, name),
            }
        )
    return found


def _area(rows: pa.Table) -> dict[str, float] | None:
    codes = rows["key"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    _, first = np.unique(codes, return_index=True)
    label, score = rows["label"].to_numpy()[first], rows["score"].to_numpy()[first]
    if len(np.unique(label)) < 2:
        return None
    times = rows["time"].cast(pa.int64()).to_numpy()[first]
    area = score_of(label.astype(bool), score.astype(np.float64), blocks=days(times)).roc_auc
    return {"value": area.value, "lower": area.lower, "upper": area.upper, "n": len(label)}


def _counts(told: Told, month: str) -> dict[str, Any]:
    events = [each for each in told.events if str(each["time"]).startswith(month)]
    trained = [
        each
        for each in events
        if (each["action"] == "job.done" and (each["payload"] or {}).get("kind") in (JobKind.TRAIN, JobKind.RETRAIN))
        # What a person trains in a process of their own belongs to no job.
        or (each["action"] == "release.created" and (each["payload"] or {}).get("run") is None)
    ]
    said: list[str] = []
    for each in events:
        payload = each["payload"] or {}
        if each["action"] in ("rollout.promoted", "rollout.rolled_back"):
            said.append(f"{each['action'].split('.')[1].replace('_', ' ')} {str(payload.get('challenger'))[:12]}")
        if each["action"] == "decision.refused":
            said.append(f"refused {str(each['object'])[:12]}")
    alarms = sum(1 for each in events if each["action"] == "alarm.raised")
    return {"trainings": len(trained), "alarms": alarms, "decisions": said}


def _interval_text(found: dict[str, float] | None) -> str:
    return "–" if found is None else f".{found['value'] * 1000:03.0f} ({found['lower']:.3f}–{found['upper']:.3f})"


def _why_lines(why: Any) -> list[str]:
    return explained(why)


def _report(told: Told, months: list[dict[str, Any]], frozen: str, seconds: float) -> dict[str, Any]:
    from holdtrue.cli.demo import telling

    return telling.report(told, months, frozen, f"Holdtrue {__version__}, Python {platform.python_version()}", seconds)


def moment(text: str) -> datetime:
    """Return the moment of an ISO text."""
    return datetime.fromisoformat(text)
