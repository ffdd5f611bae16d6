"""Answer requests: plan, score, record. One engine per worker process."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from holdtrue.core.clock import Clock, SystemClock, microseconds
from holdtrue.core.errors import HoldtrueError, InvalidInput, NotFound, Unavailable
from holdtrue.serving.assembly import Columns, Lookup
from holdtrue.serving.plan import ANSWER, Plan, Scored
from holdtrue.serving.records import PredictionIds, record_columns
from holdtrue.serving.table import Table
from holdtrue.serving.times import read_times
from holdtrue.storage import Writer


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
        lookup: Callable[[str], Lookup],
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
        if plan.moments:
            columns = {**columns, **{name: read_times(name, columns[name]) for name in plan.moments}}
        _check(plan, columns)
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


def _check(plan: Plan, columns: Columns) -> None:
    if plan.check is None:
        return
    for finding in plan.check(columns):
        # A row that training would have set aside is outside of what the model knows.
        if finding.severity != "warn":
            raise ContractBroken(
                finding.what, mend=finding.mend, facts={"column": finding.column, "rule": finding.rule}
            )


def _times(plan: Plan, columns: Columns, rows: int, now_us: int) -> list[int]:
    name = plan.bundle.prediction_time
    return [now_us] * rows if name is None else read_times(name, columns[name])


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
