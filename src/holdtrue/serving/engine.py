"""Answer requests: plan, score, record. One engine per worker process."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdtrue.core.clock import Clock, SystemClock, microseconds
from holdtrue.core.errors import HoldtrueError, InvalidInput, NotFound, Unavailable
from holdtrue.serving.plan import ANSWER, Columns, Plan, Scored
from holdtrue.serving.records import PredictionIds, record_columns
from holdtrue.serving.table import Table
from holdtrue.storage import Writer

_MAX_TIME = 2**53  # microseconds; the year 2255


class NotServed(Unavailable):
    """A service exists, and no release of it could be loaded here."""

    code = "not_served"


class ContractBroken(InvalidInput):
    """A request does not keep the contract of its service."""

    code = "contract_broken"


@dataclass(slots=True)
class Answer:
    """Hold the answers to one request, one entry a row; `fallback` is None if no row got the constant."""

    ids: list[str]
    scores: list[float]
    releases: list[str]
    arms: list[str]
    fallback: list[bool] | None


class Engine:
    """Hold what is served now, and append what was answered to the journal."""

    def __init__(
        self,
        clock: Clock,
        records: Writer,
        lookup: Callable[[str], Callable[..., Mapping[str, NDArray[np.float64]]]],
        *,
        strict: bool,
    ) -> None:
        self.table = Table()
        self.dropped = 0
        self._clock = clock
        self._records = records
        self._lookup = lookup
        self._strict = strict
        self._ids = PredictionIds()
        # Durations are of the machine, also where the time of day is simulated.
        self.stopwatch = SystemClock().monotonic

    @property
    def ready(self) -> bool:
        """Tell whether every service of the snapshot is served."""
        return not self.table.unserved

    def now_us(self) -> int:
        """Return the present microseconds since the epoch."""
        return microseconds(self._clock.now())

    def plan(self, project: str, service: str, release: str | None = None) -> Plan:
        """Return the plan of a service, or of one of its releases; raise NotFound or NotServed."""
        table = self.table
        if release is None:
            plan = table.plans.get((project, service))
        else:
            plan = table.pinned.get((project, service, release))
        if plan is not None:
            return plan
        if (project, service) in table.unserved:
            raise NotServed(
                f"The service {service} cannot answer now.",
                why="None of its releases could be loaded.",
                mend="Look at the deployment with `holdtrue status`.",
            )
        raise NotFound.of("model", service if release is None else f"{service}, version {release}")

    async def predict(
        self, plan: Plan, columns: Columns, rows: int, request_id: str | None, started: float
    ) -> Answer:
        """Answer `rows` rows and record the answers; `started` is the stopwatch at the request's arrival."""
        self._check(plan, columns)
        now_us = self.now_us()
        times = _times(plan, columns, rows, now_us)
        results = plan.score(columns, rows, times, self._lookup(plan.route.project))
        ids = self._ids.take(rows, now_us)
        record, count = record_columns(
            plan.route,
            columns,
            results,
            ids=ids,
            times=times,
            now_us=now_us,
            request_id=request_id or ids[0],
            latency_us=int((self.stopwatch() - started) * 1e6),
        )
        await self._append(plan, record, count)
        return _answer(results, ids, rows)

    async def _append(self, plan: Plan, record: Mapping[str, Any], count: int) -> None:
        route = plan.route
        if self._strict:
            await self._records.append_async("prediction", route.project, route.service, record, count)
            return
        try:
            self._records.append("prediction", route.project, route.service, record, count)
        except (HoldtrueError, OSError):
            # In fast mode answers go on without their records, and the ack file tells how many were lost.
            self.dropped += count

    def _check(self, plan: Plan, columns: Columns) -> None:
        if plan.check is None:
            return
        findings = [each for each in plan.check(columns) if each.severity != "warn"]
        if findings:
            first = findings[0]
            raise ContractBroken(first.what, mend=first.mend, facts={"column": first.column, "rule": first.rule})


def _times(plan: Plan, columns: Columns, rows: int, now_us: int) -> list[int]:
    name = plan.bundle.prediction_time
    if name is None:
        return [now_us] * rows
    values = columns[name]
    try:
        times = [value if type(value) is int else _parse_time(value) for value in values]
    except (TypeError, ValueError):
        times = [-1]
    if min(times) < 0 or max(times) > _MAX_TIME:
        raise InvalidInput(
            f"The input {name} is not a moment.",
            why="It takes microseconds since the epoch, or text such as 2013-01-31T15:00:00Z.",
            mend=f"Send {name} in one of these forms.",
        )
    return times


def _parse_time(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return microseconds(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))


def _answer(results: list[Scored], ids: list[str], rows: int) -> Answer:
    first = results[0]
    if first.rows is None:
        return Answer(ids, first.scores, [first.release] * rows, [first.arm] * rows, first.failed)
    scores, releases, arms = [0.0] * rows, [""] * rows, [""] * rows
    failed = [False] * rows
    for each in results:
        if each.role != ANSWER or each.rows is None:
            continue
        for position, row in enumerate(each.rows):
            scores[row], releases[row], arms[row] = each.scores[position], each.release, each.arm
            failed[row] = each.failed is not None and each.failed[position]
    return Answer(ids, scores, releases, arms, failed if any(failed) else None)
