"""A service in production, simulated: predictions and labels written to a real journal, day by day."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from holdtrue import monitoring
from holdtrue.core.actor import SYSTEM
from holdtrue.core.clock import SimulatedClock, microseconds
from holdtrue.monitoring import Alarm, MonitorSpec
from holdtrue.storage import Stores, Writer
from holdtrue.storage.ledger import WriteContext

PROJECT, SERVICE = "flights", "delay"
START = datetime(2013, 3, 1, tzinfo=UTC)
CONTEXT = WriteContext(SYSTEM, PROJECT)
SPEC = MonitorSpec("delay-quality", SERVICE, min_rows=100)


@dataclass(slots=True)
class Production:
    """Write records as the data plane does, and let simulated days pass."""

    stores: Stores
    writer: Writer
    clock: SimulatedClock
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    count: int = 0

    def declare(self, *specs: MonitorSpec) -> None:
        self.stores.ledger.write(CONTEXT, lambda tx: monitoring.declare(tx, specs))

    def predict(
        self, scores: Sequence[float], *, release: str = "rel_a", shadow: str | None = None, **columns: Any
    ) -> list[str]:
        """Write one request's answers (and a shadow's scores) at the present time; return the keys."""
        n = len(scores)
        numbers = range(self.count, self.count + n)
        self.count += n
        ids, keys = [f"prd_{each}" for each in numbers], [f"key-{each}" for each in numbers]
        shared = {"prediction_id": ids, "time": microseconds(self.clock.now()), "key": keys, "fallback": False}
        answer = {**shared, "id": ids, "release": release, "role": "answer", "arm": "champion", "score": list(scores)}
        self.writer.append("prediction", PROJECT, SERVICE, {**answer, **columns}, n)
        if shadow is not None:
            other = {"id": [f"{each}~{shadow}" for each in ids], "release": shadow, "role": "shadow"}
            self.writer.append("prediction", PROJECT, SERVICE, {**answer, **other, **columns}, n)
        return keys

    def label(self, keys: Sequence[str], values: Sequence[Any], *, known_at: datetime | None = None, **columns: Any):
        """Write labels for keys at the present time."""
        now = microseconds(self.clock.now())
        record = {
            "id": [f"lbl-{key}-{value}-{now}" for key, value in zip(keys, values, strict=True)],
            "time": now,
            "key": list(keys),
            "value": list(values),
            "known_at": microseconds(known_at) if known_at else now,
        }
        self.writer.append("label", PROJECT, SERVICE, {**record, **columns}, len(keys))

    def run(self) -> list[Alarm]:
        return monitoring.run_due(self.stores, PROJECT)

    def live(
        self, days: int, signal: float, *, n: int = 120, release: str = "rel_a", labelled: float = 1.0, **more: Any
    ):
        """Live through days whose scores tell the outcome as well as `signal` says; return the alarms."""
        alarms: list[Alarm] = []
        for _ in range(days):
            y = self.rng.random(n) < 0.3
            logit = signal * y + self.rng.normal(size=n) - 1.0
            keys = self.predict(list(1 / (1 + np.exp(-logit))), release=release, **more)
            self.clock.advance(seconds=86_400)
            take = int(labelled * n)
            if take:
                self.label(keys[:take], [float(each) for each in y[:take]])
            alarms += self.run()
        return alarms

    def windows(self, **wanted: Any) -> list[monitoring.Window]:
        return self.stores.ledger.read(lambda conn: monitoring.windows(conn, PROJECT, SERVICE, **wanted))

    def judgements(self) -> list[monitoring.Judgement]:
        found = self.stores.ledger.read(lambda conn: monitoring.judgements(conn, PROJECT))
        return list(reversed(found))


def day(number: int) -> datetime:
    """Return the start of a simulated day."""
    return START + timedelta(days=number)
