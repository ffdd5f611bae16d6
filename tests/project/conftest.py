"""A small project on made-up data, and stores to apply it to."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression

import holdtrue as ht
from holdtrue.core.clock import SimulatedClock
from holdtrue.server.table import room_routes
from holdtrue.storage import Stores
from holdtrue.storage.stores import open_stores

START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = {"2024-01": 31, "2024-02": 29}


def month(window: str, *, rows_a_day: int = 40, seed: int = 0) -> pa.Table:
    """Return rows of a month whose outcome depends on `amount`, and on nothing else."""
    start = datetime.fromisoformat(f"{window}-01T00:00:00+00:00")
    n = DAYS[window] * rows_a_day
    numbers = np.random.default_rng([seed, int(window[-2:])])
    amount = numbers.normal(size=n)
    happened = numbers.random(n) < 1.0 / (1.0 + np.exp(-2.0 * amount))
    times = [start + timedelta(minutes=int(24 * 60 * place / rows_a_day)) for place in range(n)]
    return pa.table(
        {
            "id": [f"{window}-{place:05d}" for place in range(n)],
            "asked_at": pa.array(times, pa.timestamp("us", "UTC")),
            "amount": amount,
            "kind": numbers.choice(["a", "b"], n),
            "happened": happened,
        }
    )


CONTRACT = ht.Contract(
    columns=(
        ht.column("id", "string", unique=True),
        ht.column("asked_at", "timestamp"),
        ht.column("amount", "float64"),
        ht.column("kind", "string", isin=["a", "b"]),
        ht.column("happened", "bool", nullable=True),
    )
)


def make_project(**model: Any) -> ht.Project:
    """Return a project with one dataset, one model and one service."""
    project = ht.Project("toy", owner="me")

    @project.dataset(
        key="id",
        time="asked_at",
        contract=CONTRACT,
    )
    def rows(window: str) -> pa.Table:
        return month(window)

    settings: dict[str, Any] = {
        "label": "happens",
        "outcome": "happened",
        "time": "asked_at",
        "features": [ht.numeric("amount"), ht.category("kind")],
        **model,
    }

    @project.model(dataset=rows, **settings)
    def happens(train: ht.Training, params: Any) -> LogisticRegression:
        return LogisticRegression(**params).fit(train.X, train.y)

    project.evaluation(happens, slices=["kind"], holdout_days=7)
    project.gate("production", require={"good enough": "metric.roc_auc.lower >= 0.6"})
    project.service(
        happens,
        key="id",
        entity="id",
        inputs={"id": "BYTES", "asked_at": "INT64", "amount": "FP64", "kind": "BYTES"},
        rollout=ht.Canary(),
    )
    project.monitor(happens)
    project.retrain(happens)
    return project


@pytest.fixture
def toy() -> ht.Project:
    """A fresh project."""
    return make_project()


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    """Open stores with every room's tables."""
    room_routes()
    opened = open_stores(tmp_path / "home", SimulatedClock(START))
    yield opened
    opened.close()
