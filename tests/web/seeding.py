"""A project with a year behind it, written through the rooms' own doors into real stores."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

from holdtrue import catalog, delivery, governance, monitoring
from holdtrue.core.access import Role
from holdtrue.core.actor import Actor
from holdtrue.core.clock import SimulatedClock, microseconds
from holdtrue.delivery import RolloutState, changing
from holdtrue.delivery.judging import Judging
from holdtrue.monitoring import Alarm, MonitorSpec, Window
from holdtrue.monitoring import store as monitoring_store
from holdtrue.monitoring.model import Judgement, Outcome
from holdtrue.server.build import open_app
from holdtrue.server.settings import load_settings
from holdtrue.stats import Interval
from holdtrue.storage import Stores, open_stores
from holdtrue.storage.ledger import Transaction, WriteContext

T = TypeVar("T")
Ended = Literal[RolloutState.PROMOTED, RolloutState.ROLLED_BACK]
PROJECT = "flight-delays"
SERVICE = "delays"
NOW = datetime(2013, 12, 30, 9, tzinfo=UTC)
AUTHOR = Actor("usr_ada", "human", "Ada", frozenset({Role.DEVELOPER, Role.OPERATOR}))
REVIEWER = Actor("usr_rosa", "human", "Rosa", frozenset({Role.REVIEWER}))
RULES = (
    governance.Rule("good enough", "metric.roc_auc.lower >= 0.65"),
    governance.Rule("no slice left behind", "slices.all(s, s.roc_auc >= 0.6)"),
    governance.Rule("better than the champion", "release.first || comparison.p_better >= 0.95"),
)


@dataclass
class Seeder:
    """Write into one project as somebody, at a time of one's choice."""

    stores: Stores
    clock: SimulatedClock
    project: str = PROJECT

    def at(self, moment: datetime) -> "Seeder":
        """Move to a moment."""
        self.clock.set(moment)
        return self

    def write(self, work: Callable[[Transaction], T], actor: Actor = AUTHOR) -> T:
        """Run `work` in a transaction of `actor`."""
        return self.stores.ledger.write(WriteContext(actor=actor, project=self.project), work)


def open_seeder(home: Path, project: str = PROJECT) -> Seeder:
    """Open the stores of `home` with every room's tables, on a simulated clock."""
    home.mkdir(mode=0o700, exist_ok=True)
    open_app(load_settings(home, environ={})).close()
    clock = SimulatedClock(datetime(2013, 1, 1, tzinfo=UTC))
    return Seeder(open_stores(home, clock), clock, project)


def seed_year(seeder: Seeder, text: str = "") -> dict[str, str]:
    """Write a year of one service; return the ids of its releases and incidents.

    `text` stands in for every free text a user could write, for tests of escaping.
    """
    seeder.at(_day(3, 1)).write(lambda tx: _declare(tx))
    first = _release(seeder, 1, auc=0.754, months=("2013-01", "2013-02"), text=text)
    _allow(seeder, first, text)
    seeder.write(lambda tx: delivery.promote(tx, SERVICE, first))
    second = _release(seeder.at(_day(3, 31)), 2, auc=0.784, months=("2013-01", "2013-02", "2013-03"), text=text)
    _allow(seeder, second, text)
    _roll_out(seeder, second, steps=3, end=RolloutState.PROMOTED, why=text or "It is at most 0.01 worse: shown.")
    third = _release(seeder.at(_day(9, 15)), 3, auc=0.748, months=("2013-07", "2013-08"), text=text)
    alarm = _alarm(seeder.at(_day(9, 14)), second, text)
    _allow(seeder.at(_day(9, 16)), third, text)
    _roll_out(seeder, third, steps=1, end=RolloutState.ROLLED_BACK, why=text or "It is worse than the champion.")
    worse = _release(seeder.at(_day(12, 28)), 4, auc=0.721, months=("2013-10", "2013-11"), text=text, p_better=0.12)
    seeder.write(lambda tx: governance.gate(tx, worse, "production"))
    last = _release(seeder.at(_day(12, 29)), 5, auc=0.765, months=("2013-01", "2013-11"), text=text)
    _allow(seeder, last, text)
    seeder.write(lambda tx: delivery.promote(tx, SERVICE, last))
    waiting = _release(seeder.at(_day(12, 30)), 6, auc=0.77, months=("2013-02", "2013-11"), text=text)
    seeder.write(lambda tx: governance.gate(tx, waiting, "production"))
    seeder.write(lambda tx: monitoring_store.put_windows(tx, [*_months(first, second, third), *_days(second, third)]))
    _predict(seeder, second)
    return {
        "first": first,
        "second": second,
        "third": third,
        "worse": worse,
        "last": last,
        "waiting": waiting,
        "incident": alarm,
    }


def seed_texts(seeder: Seeder, text: str) -> dict[str, str]:
    """Write one release and one incident with `text` in everything that users write; return their ids."""
    seeder.write(lambda tx: _declare(tx))
    made = _release(seeder, 1, auc=0.754, months=("2013-01",), text=text)
    reviewer = replace(REVIEWER, name=text)
    seeder.write(lambda tx: governance.approve(tx, made, "production", text), reviewer)
    seeder.write(lambda tx: delivery.promote(tx, SERVICE, made))
    seeder.write(lambda tx: delivery.request_retrain(tx, "delay", text))
    incident = _alarm(seeder, made, text)
    seeder.write(lambda tx: tx.emit("incident.noted", text, {"text": text, text: text}, reason=text))
    seeder.write(lambda tx: monitoring_store.put_windows(tx, _months(made, made, made)))
    return {"release": made, "incident": incident}


def _predict(seeder: Seeder, release: str) -> None:
    """Record one prediction and the label that came two hours later."""
    when = microseconds(_day(9, 3))
    record = {
        "id": "prd_1",
        "prediction_id": "prd_1",
        "time": when,
        "request_id": "req_1",
        "key": "UA1545-2013-09-03",
        "entity": "N14228",
        "arm": "champion",
        "role": "answer",
        "release": release,
        "score": 0.4137,
        "latency_us": 210,
        "fallback": False,
        "x_origin": "EWR",
        "f_origin_weather_temp": 71.6,
    }
    label = {"id": "lab_1", "time": when, "key": record["key"], "value": 0.0, "known_at": when + 7_200_000_000}
    writer = seeder.stores.journal.writer("seed")
    writer.append("prediction", PROJECT, SERVICE, {name: [value] for name, value in record.items()}, 1)
    writer.append("label", PROJECT, SERVICE, {name: [value] for name, value in label.items()}, 1)


def _declare(tx: Transaction) -> None:
    governance.declare(tx, [governance.Policy("production", RULES, approvals=1)])
    delivery.declare(
        tx,
        [delivery.ServiceSpec(SERVICE, "delay", key="flight", entity="tail", fallback=0.2)],
        [delivery.RetrainSpec("delay", SERVICE)],
    )
    monitoring.declare(tx, [MonitorSpec("delay-quality", SERVICE)])


def _release(
    seeder: Seeder, number: int, *, auc: float, months: tuple[str, ...], text: str, p_better: float = 0.99
) -> str:
    digest = seeder.stores.blobs.put(f"model {number}".encode())
    fragments = {month: {"digest": seeder.stores.blobs.put(month.encode()), "rows": 27_000} for month in months}

    def work(tx: Transaction) -> str:
        data = catalog.register(tx, "dataset", "flights", {"fragments": fragments, "note": text})
        view = catalog.register(tx, "feature_view", "delay-features", {"order": ["distance", "hour", text or "temp"]})
        contract = catalog.register(tx, "contract", "flights-request", {"columns": [{"name": "distance", "ge": 0}]})
        content = {
            "format": "onnx",
            "digest": digest,
            "features": ["distance", "hour"],
            "output": "late",
            "training": {"learning_rate": round(0.05 + number / 100, 2), "iterations": 100 * number},
        }
        model = catalog.register(tx, "model", "delay", content, blobs=[digest], derived_from=[data.id, view.id])
        manifest = catalog.Manifest(
            service=SERVICE,
            commit=f"4f1c9a7be0d2135{number}",
            environment_lock="b7" * 32,
            versions={"model": model.id, "features": view.id, "dataset": data.id, "contract": contract.id},
            config={
                "inputs": [{"name": name, "datatype": "BYTES"} for name in ("flight", "tail", "origin")],
                "key": "flight",
                "entity": "tail",
                "output": "late",
                "fallback": 0.2,
                "note": text,
            },
        )
        made = catalog.create_release(tx, manifest, author=AUTHOR.id, run=None)
        for kind, found in _evidence(auc, p_better, text):
            governance.record_evidence(tx, kind, made.id, found)
        return made.id

    return seeder.write(work)


def _evidence(auc: float, p_better: float, text: str) -> list[tuple[str, dict[str, Any]]]:
    def around(value: float, half: float) -> dict[str, Any]:
        return {"value": value, "lower": round(value - half, 4), "upper": round(value + half, 4), "n": 27_574}

    slices = [
        {
            "slice": "origin",
            "value": text or airport,
            "n": 9_000,
            "roc_auc": auc + shift,
            "lower": auc + shift - 0.014,
            "upper": auc + shift + 0.014,
        }
        for airport, shift in (("EWR", 0.01), ("JFK", -0.02), ("LGA", 0.004))
    ]
    return [
        (
            "evaluation",
            {
                "metric": {
                    "roc_auc": around(auc, 0.008),
                    "brier": around(0.151, 0.003),
                    "log_loss": around(0.466, 0.006),
                },
                "baseline": {
                    "roc_auc": around(0.5, 0.0),
                    "brier": around(0.176, 0.003),
                    "log_loss": around(0.54, 0.005),
                },
                "slices": slices,
            },
        ),
        (
            "comparison",
            {
                "metric": "roc_auc",
                "difference": 0.031,
                "lower": 0.012,
                "upper": 0.049,
                "p_better": p_better,
                "n": 27_574,
                "method": text or "paired block bootstrap over days",
            },
        ),
        (
            "parity",
            {"max_difference": 3.1e-7, "changed_decisions": 0, "n": 2_000, "runtime": text or "onnxruntime 1.32"},
        ),
    ]


def _allow(seeder: Seeder, release: str, text: str) -> None:
    reason = text or "Checked the slices and the comparison."
    seeder.write(lambda tx: governance.approve(tx, release, "production", reason), REVIEWER)


def _roll_out(seeder: Seeder, release: str, *, steps: int, end: Ended, why: str) -> None:
    rollout = seeder.write(lambda tx: delivery.promote(tx, SERVICE, release)).rollout
    assert rollout is not None
    facts = {"mean": -0.0021, "lower": -0.006, "upper": 0.0018, "pairs": 2_700}
    for number in range(steps - 1):
        seeder.clock.advance(3 * 86_400)
        current = seeder.stores.ledger.read(lambda c: delivery.rollout(c, PROJECT, rollout.id))
        counted = _judged(current, facts)
        seeder.write(lambda tx, row=counted, n=number: changing.advance_rollout(tx, row, f"{why} ({n + 1})", facts))
    seeder.clock.advance(3 * 86_400)
    current = seeder.stores.ledger.read(lambda c: delivery.rollout(c, PROJECT, rollout.id))
    seeder.write(lambda tx: changing.end_rollout(tx, _judged(current, facts), end, why, facts))


def _judged(rollout: delivery.Rollout, facts: dict[str, Any]) -> delivery.Rollout:
    verdict = {"verdict": "wait", "why": "Enough pairs are not in yet.", "facts": facts}
    return replace(rollout, judging=Judging("{}", "{}").to_json(), verdict=verdict)


def _alarm(seeder: Seeder, release: str, text: str) -> str:
    def work(tx: Transaction) -> str:
        title = text or f"Quality of {SERVICE} fell below its limit"
        told = text or "The area under the ROC curve fell to 0.697 over two weeks; the limit is 0.712."
        incident = monitoring.open_incident(
            tx, service=SERVICE, kind="quality", title=title, text=told, release=release
        )
        monitoring_store.put_alarm(
            tx,
            Alarm(
                id="alm_01",
                monitor="delay-quality",
                service=SERVICE,
                metric="roc_auc",
                release=release,
                start=date(2013, 8, 31),
                end=date(2013, 9, 14),
                value=0.697,
                limit=0.712,
                reference=0.741,
                raised_at=tx.now,
                incident=incident.id,
                text=told,
            ),
        )
        judged = Judgement(
            monitor="delay-quality",
            service=SERVICE,
            metric="roc_auc",
            release=release,
            start=date(2013, 12, 15),
            end=date(2013, 12, 29),
            n=12_400,
            labelled=12_310,
            maturity=0.99,
            value=0.728,
            limit=0.712,
            reference=0.741,
            detectable=0.02,
            outcome=Outcome.OK,
            reason="",
        )
        monitoring_store.put_judgements(tx, [judged])
        monitoring.note(tx, incident.id, text or "Storms over the whole coast this week, says dispatch.")
        return incident.id

    return seeder.write(work)


def _months(first: str, second: str, third: str) -> list[Window]:
    quality = {3: 0.754, 4: 0.784, 5: 0.771, 6: 0.751, 7: 0.748, 8: 0.742, 9: 0.716, 10: 0.711, 11: 0.728, 12: 0.738}
    found: list[Window] = []
    for month, auc in quality.items():
        release = first if month == 3 else second
        labelled = 27_900 if month < 12 else 21_000
        found.append(_window(release, "month", date(2013, month, 1), 28_000, labelled, auc, 0.009))
        found.append(_window("all", "month", date(2013, month, 1), 28_000, labelled, auc, 0.009))
    for month, auc in {4: 0.751, 5: 0.739, 6: 0.746, 7: 0.731, 8: 0.722, 9: 0.697, 10: 0.679, 11: 0.703}.items():
        found.append(_window(first, "month", date(2013, month, 1), 28_000, 27_900, auc, 0.009, role="shadow"))
    found.append(_window(first, "month", date(2013, 4, 1), 6_500, 6_470, 0.751, 0.018))
    found.append(_window(third, "month", date(2013, 9, 1), 180, 179, 0.64, 0.06))
    return found


def _days(second: str, third: str) -> list[Window]:
    days = [date(2013, 9, 1) + timedelta(days=number) for number in range(121)]
    found = [_window(each, "day", day, 900, 890, 0.72, 0.04) for day in days for each in (second, "all")]
    canary = [day for day in days if date(2013, 9, 16) <= day < date(2013, 9, 20)]
    return found + [_window(third, "day", day, 45, 44, 0.63, 0.12) for day in canary]


def _window(
    release: str, grain: str, start: date, n: int, labelled: int, auc: float, half: float, *, role: str = "answer"
) -> Window:
    return Window(
        service=SERVICE,
        release=release,
        role=role,
        grain=grain,
        start=start,
        n=n,
        labelled=labelled,
        due=n,
        labelled_due=labelled,
        positives=labelled // 4,
        corrected=3,
        fallbacks=0,
        roc_auc=Interval(auc, auc - half, auc + half, labelled),
        brier=0.152,
        reason="",
    )


def _day(month: int, day: int) -> datetime:
    return datetime(2013, month, day, 6, tzinfo=UTC)
