"""A project with real stores, people, releases, and traffic written as a data plane writes it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson

from holdtrue import data, delivery, governance
from holdtrue.catalog import store as catalog_tables
from holdtrue.core.access import Role
from holdtrue.core.actor import Actor
from holdtrue.core.canonical import content_hash
from holdtrue.core.clock import SimulatedClock, microseconds
from holdtrue.core.codec import dump, load
from holdtrue.core.ids import version_id
from holdtrue.data import Contract, DatasetSpec, Ingest, column
from holdtrue.data import store as data_tables
from holdtrue.delivery import Canary, RetrainSpec, Rollout, ServiceSpec
from holdtrue.delivery import store as delivery_tables
from holdtrue.governance import Policy, Rule
from holdtrue.governance import store as governance_tables
from holdtrue.monitoring import store as monitoring_tables
from holdtrue.pipelines import store as pipelines_tables
from holdtrue.storage import Stores, Writer, open_stores
from holdtrue.storage.ledger import Transaction, WriteContext

# A ledger makes the tables it knows of when it is opened.
TABLES = (
    catalog_tables,
    data_tables,
    delivery_tables,
    governance_tables,
    monitoring_tables,
    pipelines_tables,
)
T = TypeVar("T")
START = datetime(2013, 3, 1, 6, tzinfo=UTC)
ADA = Actor("usr_ada", "human", "ada", frozenset({Role.DEVELOPER}))
BEN = Actor("usr_ben", "human", "ben", frozenset({Role.REVIEWER}))
OPS = Actor("usr_ops", "human", "ops", frozenset({Role.OPERATOR}))
WORKER = Actor("svc_w", "service", "worker", frozenset({Role.SERVICE, Role.DEVELOPER}), created_by="usr_ada")
GOOD = {"metric": {"roc_auc": {"lower": 0.7}}}
POOR = {"metric": {"roc_auc": {"lower": 0.6}}}
POLICY = Policy("production", (Rule("quality", "metric.roc_auc.lower >= 0.65"),), approvals=1)
SERVICE = ServiceSpec(
    "delay",
    "delay",
    key="flight",
    entity="tail",
    rollout=Canary(steps=(5, 25, 50), margin=0.02, min_rows_per_step=100),
    fallback=0.2,
)
RETRAIN = RetrainSpec("delay", "delay", budget_per_year=3, cooldown_days=10)
INPUTS = [{"name": name, "datatype": "BYTES"} for name in ("flight", "tail")]


@dataclass
class World:
    """Hold stores and a clock, and act in them as somebody."""

    stores: Stores
    clock: SimulatedClock
    project: str = "flights"
    writer: Writer | None = None
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))
    count: int = 0

    def write(self, work: Callable[[Transaction], T], actor: Actor = ADA) -> T:
        return self.stores.ledger.write(WriteContext(actor, self.project), work)

    def read(self, work: Callable[[Any], T]) -> T:
        return self.stores.ledger.read(work)

    def declare(self, *policies: Policy, service: ServiceSpec = SERVICE, retrain: RetrainSpec | None = None) -> None:
        def work(tx: Transaction) -> None:
            governance.declare(tx, policies or (POLICY,))
            delivery.declare(tx, [service], [] if retrain is None else [retrain])

        self.write(work)

    def submission(
        self,
        name: str,
        *,
        evidence: Any = None,
        months: Sequence[str] = ("2013-02",),
        service: str = "delay",
        **config: Any,
    ) -> dict[str, Any]:
        digest = self.stores.blobs.put(f"model {name}".encode())
        dataset = self.months(*months)
        model = {"format": "onnx", "digest": digest, "features": ["hour"], "output": "late"}
        features = {"order": ["hour"]}
        return {
            "release": {
                "service": service,
                "commit": "4f1c9a7",
                "versions": {
                    "model": catalog_id("model", model),
                    "features": catalog_id("feature_view", features),
                    "dataset": dataset,
                },
                "config": {
                    "inputs": INPUTS,
                    "key": "flight",
                    "entity": "tail",
                    "output": "late",
                    "fallback": 0.2,
                    **config,
                },
            },
            "versions": [
                {"kind": "model", "name": "delay", "content": model, "blobs": [digest]},
                {"kind": "feature_view", "name": "delay-features", "content": features},
            ],
            "evidence": [{"kind": "evaluation", "content": GOOD if evidence is None else evidence}],
            "author": "usr_ada",
        }

    def months(self, *months: str) -> str:
        """Accept months of the dataset; return the id of its newest version."""

        def work(tx: Transaction) -> str:
            if data.dataset(tx.connection, tx.project, "flights") is None:
                contract = Contract((column("flight", "string"), column("time", "timestamp")))
                data.declare(tx, (DatasetSpec("flights", "flight", "time", contract),))
            for month in months:
                if month not in data.fragments(tx.connection, tx.project, "flights"):
                    digest = self.stores.blobs.put(month.encode())
                    spec = data.dataset(tx.connection, tx.project, "flights")
                    assert spec is not None
                    contract = content_hash(dump(spec.contract))
                    data.accept(tx, Ingest("flights", month, contract, 10, (), digest, 10, 10, None, 0))
            newest = data.latest(tx.connection, tx.project, "flights")
            assert newest is not None
            return newest.id

        return self.write(work)

    def submit(self, name: str, actor: Actor = WORKER, **given: Any) -> delivery.Submitted:
        body = delivery_load(self.submission(name, **given))
        return self.write(lambda tx: delivery.submit(tx, body), actor)

    def approve(self, release: str) -> governance.Decision:
        return self.write(lambda tx: governance.approve(tx, release, "production", "looked"), BEN)

    def allowed(self, name: str, **given: Any) -> str:
        release = self.submit(name, **given).release
        assert self.approve(release).outcome is governance.Outcome.ALLOWED
        return release

    def promote(self, release: str) -> delivery.Promotion:
        return self.write(lambda tx: delivery.promote(tx, "delay", release), OPS)

    def rollback(self, reason: str = "it smells") -> delivery.Promotion:
        return self.write(lambda tx: delivery.rollback(tx, "delay", reason), OPS)

    def live(self, name: str = "one") -> str:
        """Deploy a first release and let data planes load it."""
        release = self.allowed(name)
        self.promote(release)
        self.reconcile()
        self.ack()
        self.reconcile()
        return release

    def rolling(self, champion: str = "one", challenger: str = "two") -> Rollout:
        """Let a second release begin to take over from a live first one."""
        self.live(champion)
        started = self.promote(self.allowed(challenger)).rollout
        assert started is not None
        self.reconcile()
        self.ack()
        self.reconcile()
        return self.rollout(started.id)

    def reconcile(self) -> list[str]:
        return delivery.reconcile(self.stores, self.project)

    def snapshot(self) -> dict[str, Any]:
        return orjson.loads((self.stores.home / "routing" / "current.json").read_bytes())

    def ack(self, worker: str = "w0", failed: dict[str, str] | None = None, sequence: int | None = None) -> None:
        """Answer the present snapshot as a data plane worker does."""
        present = self.snapshot()
        bad = failed or {}
        said = {
            "sequence": present["sequence"] if sequence is None else sequence,
            "releases": sorted(set(present["releases"]) - set(bad)),
            "failed": bad,
            "pid": 1,
        }
        (self.stores.home / "routing" / "acks" / f"{worker}.json").write_bytes(orjson.dumps(said))

    def deployment(self) -> delivery.Deployment:
        found = self.read(lambda conn: delivery.deployment(conn, self.project, "delay"))
        assert found is not None
        return found

    def rollout(self, name: str) -> Rollout:
        return self.read(lambda conn: delivery.rollout(conn, self.project, name))

    def changes(self) -> list[delivery.Change]:
        return self.read(lambda conn: delivery.changes(conn, self.project, "delay"))

    def triggers(self) -> list[delivery.Trigger]:
        return self.read(lambda conn: delivery.triggers(conn, self.project))

    def actions(self, prefix: str = "") -> list[str]:
        events = self.stores.ledger.events(None, limit=100_000)
        return [event.action for event in events if event.action.startswith(prefix)]

    def day(
        self,
        rollout: Rollout,
        rows: int = 300,
        *,
        harm: float = 0.0,
        fallback: float = 0.0,
        noise: float = 0.08,
        labels: bool = True,
        service: str = "delay",
    ) -> None:
        """Let a day pass: predictions of both releases on the same rows, then their labels.

        `harm` moves the challenger's scores away from the truth; `fallback` is the share of its answers that
        are the constant.
        """
        if self.writer is None:
            self.writer = self.stores.journal.writer("plane")
        truth = self.random.random(rows) < 0.25
        base = np.where(truth, 0.45, 0.2) + self.random.normal(0, 0.1, rows)
        away = harm * np.where(truth, -1, 1)
        chance = np.clip(base + self.random.normal(0, noise, rows), 0.01, 0.99)
        other = np.clip(base + self.random.normal(0, noise, rows) + away, 0.01, 0.99)
        ids = [f"prd_{self.count + row:06d}" for row in range(rows)]
        keys = [f"F{self.count + row}" for row in range(rows)]
        self.count += rows
        answers = self.random.random(rows) < rollout.percent / 100
        fell = answers & (self.random.random(rows) < fallback)
        now = microseconds(self.clock.now())
        for release, scores, role in (
            (rollout.champion, chance, np.where(answers, "shadow", "answer")),
            (rollout.challenger, np.where(fell, 0.2, other), np.where(answers, "answer", "shadow")),
        ):
            record = {
                "id": [name if part == "answer" else f"{name}~{release}" for name, part in zip(ids, role, strict=True)],
                "prediction_id": ids,
                "time": [now] * rows,
                "recorded_at": now,
                "key": keys,
                "entity": keys,
                "arm": role.tolist(),
                "role": role.tolist(),
                "release": release,
                "rollout": rollout.id,
                "score": scores.tolist(),
                "fallback": fell.tolist() if release == rollout.challenger else False,
                "x_flight": keys,
                "f_hour": 6.0,
            }
            self.writer.append("prediction", self.project, service, record, rows)
        self.clock.advance(timedelta(days=1).total_seconds())
        if labels:
            self.label(keys, truth.tolist(), service)

    def label(self, keys: list[str], values: list[Any], service: str = "delay") -> None:
        assert self.writer is not None
        now = microseconds(self.clock.now())
        record = {
            "id": [f"lbl_{key}_{now}" for key in keys],
            "time": now,
            "key": keys,
            "prediction_id": None,
            "value": [float(value) for value in values],
            "known_at": now,
        }
        self.writer.append("label", self.project, service, record, len(keys))

    def judge(self) -> list[dict[str, Any]]:
        return delivery.judge(self.stores, self.project)


def catalog_id(kind: str, content: Any) -> str:
    """Return the id that the catalog will give."""
    return version_id(kind, content)


def delivery_load(body: dict[str, Any]) -> delivery.Submission:
    """Return a submission as the API reads it."""
    return load(delivery.Submission, body)


def open_world(home: Path) -> World:
    """Open a world over the folder `home`."""
    clock = SimulatedClock(START)
    return World(open_stores(home, clock), clock)
