"""A ledger with a model, a release and people around it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from holdtrue import catalog, governance
from holdtrue.catalog import Manifest, Release
from holdtrue.catalog import store as catalog_tables
from holdtrue.core.access import Role
from holdtrue.core.actor import Actor
from holdtrue.core.clock import SimulatedClock
from holdtrue.governance import Policy, Rule
from holdtrue.governance import store as governance_tables
from holdtrue.storage.ledger import Ledger, Transaction, WriteContext

T = TypeVar("T")
# A ledger makes the tables it knows of when it is opened.
TABLES = (catalog_tables, governance_tables)
START = datetime(2013, 3, 1, tzinfo=UTC)

ADA = Actor("usr_ada", "human", "ada", frozenset({Role.DEVELOPER}))
BEN = Actor("usr_ben", "human", "ben", frozenset({Role.REVIEWER}))
CAT = Actor("usr_cat", "human", "cat", frozenset({Role.REVIEWER, Role.DEVELOPER}))
WORKER = Actor("svc_ada", "service", "worker", frozenset({Role.SERVICE, Role.DEVELOPER}), created_by="usr_ada")

EVALUATION: dict[str, Any] = {
    "metric": {"roc_auc": {"value": 0.754, "lower": 0.741, "upper": 0.767, "n": 5000}},
    "baseline": {"roc_auc": {"value": 0.5, "lower": 0.5, "upper": 0.5, "n": 5000}},
    "slices": [
        {"slice": "origin", "value": "EWR", "n": 2000, "roc_auc": 0.76, "lower": 0.74, "upper": 0.78},
        {"slice": "origin", "value": "LGA", "n": 1500, "roc_auc": 0.58, "lower": 0.55, "upper": 0.61},
    ],
}
GOOD = Policy("production", (Rule("quality", "metric.roc_auc.lower >= 0.65"),), approvals=1)


@dataclass
class World:
    """Hold a ledger and a clock, and act in them as somebody."""

    ledger: Ledger
    clock: SimulatedClock
    project: str = "flights"

    def write(self, work: Callable[[Transaction], T], actor: Actor = ADA) -> T:
        return self.ledger.write(WriteContext(actor, self.project), work)

    def read(self, work: Callable[[Any], T]) -> T:
        return self.ledger.read(work)

    def release(self, name: str = "one", actor: Actor = ADA, author: str = "usr_ada") -> Release:
        def work(tx: Transaction) -> Release:
            model = catalog.register(tx, "model", "delay", {"weights": name})
            return catalog.create_release(tx, Manifest("delay", versions={"model": model.id}), author=author)

        return self.write(work, actor)

    def evidence(self, release: Release, kind: str = "evaluation", content: Any = None) -> Any:
        given = EVALUATION if content is None else content
        return self.write(lambda tx: governance.record_evidence(tx, kind, release.id, given))

    def declare(self, *policies: Policy) -> list[str]:
        return self.write(lambda tx: governance.declare(tx, policies))

    def gate(self, release: Release, environment: str = "production") -> governance.Decision:
        return self.write(lambda tx: governance.gate(tx, release.id, environment))

    def approve(self, release: Release, actor: Actor, environment: str = "production") -> governance.Decision:
        return self.write(lambda tx: governance.approve(tx, release.id, environment, "looked at it"), actor)


def slices(lowest: float) -> dict[str, Any]:
    """Return an evaluation whose worst slice has the area `lowest`."""
    worst = replace_last(EVALUATION["slices"], lowest)
    return {**EVALUATION, "slices": worst}


def replace_last(entries: list[dict[str, Any]], value: float) -> list[dict[str, Any]]:
    return [*entries[:-1], {**entries[-1], "roc_auc": value}]
