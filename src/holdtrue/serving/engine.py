"""Answer requests: collect those of one moment, score them together, record them, answer each.

Requests that reach the event loop in the same turn share one feature matrix, one run of each model and one
append to the journal. A request that comes alone waits for nobody. Models that take long, or run in a process of
their own, are asked on another thread, in a lane of their service.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from holdtrue.core.clock import Clock, SystemClock, microseconds
from holdtrue.core.errors import HoldtrueError, InvalidInput, NotFound, Unavailable
from holdtrue.serving.applications import Applications
from holdtrue.serving.assembly import Check, Columns, Lookup
from holdtrue.serving.explaining import Explaining
from holdtrue.serving.lanes import MOST_ROWS
from holdtrue.serving.plan import ANSWER, Plan, Scored
from holdtrue.serving.rates import unlimited
from holdtrue.serving.records import PredictionIds, abstentions, record_columns, repeated_ids
from holdtrue.serving.refusing import REFUSAL, refusal_columns, refuses
from holdtrue.serving.residence import Key, Residence
from holdtrue.serving.snapshot import Route
from holdtrue.serving.table import Table
from holdtrue.serving.times import read_times
from holdtrue.storage import Writer

# Lanes that are under way at the same time; each has one batch.
_LANES: Final = 32
# Where a batch fails, its requests are tried alone for so many seconds; a model that hangs would take all there are.
_ALONE_SECONDS: Final = 2.0
# Appends under way at a time in strict mode: the next batch fills while the disk is busy with one, which
# costs fewer turns between threads than to append the moment a few rows are there.
_COMMITS: Final = 1


class NotServed(Unavailable):
    """A service exists, and no release of it could be loaded here."""

    code = "not_served"


class ContractBroken(InvalidInput):
    """A request does not keep the contract of its service."""

    code = "contract_broken"


@dataclass(slots=True)
class Answer:
    """Hold the answers to one request, one entry a row.

    `fallback` is None if the model itself answered every row; `abstained` is None if the service always decides.
    `contributions` and `sets` are there if they were asked for: of each row that its release's own model answered.
    """

    ids: list[str]
    scores: list[float]
    releases: list[str]
    arms: list[str]
    fallback: list[bool] | None
    abstained: list[bool] | None = None
    contributions: list[dict[str, Any] | None] | None = None
    sets: list[list[int] | None] | None = None


@dataclass(slots=True)
class _Waiting:
    columns: Columns
    rows: int
    times: list[int] | None
    request_id: str | None
    started: float
    future: asyncio.Future[Answer]
    ids: list[str] | None = None
    results: list[Scored] | None = None


@dataclass(slots=True)
class _Batch:
    plan: Plan
    waiting: list[_Waiting] = field(default_factory=list[_Waiting])
    rows: int = 0
    most_rows: int = MOST_ROWS
    most_requests: int = MOST_ROWS


class Engine:
    """Hold what is served now, and append what was answered to the journal."""

    def __init__(
        self,
        clock: Clock,
        records: Writer,
        lookup: Callable[[str], Lookup],
        *,
        strict: bool,
        rate: Callable[[str, float, str], None] = unlimited,
    ) -> None:
        """`rate` counts a request of a name against its rate a second; see `Rates.take`."""
        self.table = Table()
        self.rate = rate
        self.applications = Applications(lambda: self.table.applications, clock, records, strict=strict, rate=rate)
        self.dropped = 0
        self.residence: Residence | None = None
        self._clock = clock
        self._records = records
        self._lookup = lookup
        self._strict = strict
        self._ids = PredictionIds()
        self._batches: dict[int, _Batch] = {}
        self._settling: set[asyncio.Task[None]] = set()
        self._held: deque[_Batch] = deque()
        self._aside: set[asyncio.Task[None]] = set()
        self._threads: ThreadPoolExecutor | None = None
        self._explaining = Explaining()
        self._log = logging.getLogger("holdtrue.dataplane")
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
        service = table.name(project, service)
        plan = table.plans.get((project, service))
        if release is not None:
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

    async def find(self, project: str, service: str, release: str | None = None) -> Plan:
        """Return a plan as `plan` does, of a release that stands by too, which is loaded if need be."""
        table = self.table
        name = table.name(project, service)
        if release is None or (project, name, release) in table.pinned:
            return self.plan(project, service, release)
        key = (project, name.partition("@")[0], release)
        bundle, route = table.standby.get(key), table.routes.get((project, name))
        if bundle is None or route is None or self.residence is None:
            return self.plan(project, service, release)
        return await self.residence.plan(key, bundle, route, table.size)

    def listing(self, project: str) -> list[dict[str, str]]:
        """Return the releases of a project's models, one entry each, with state and reason."""
        table = self.table
        found = [
            {"name": service, "version": release, "state": "READY", "reason": ""}
            for owner, service, release in sorted(table.pinned)
            if owner == project
        ]
        missing = table.unserved.difference(table.applications.unserved)
        here = frozenset[Key]() if self.residence is None else self.residence.releases
        found += [
            {"name": service, "version": release, "state": "READY", "reason": ""}
            if (owner, service, release) in here
            else {"name": service, "version": release, "state": "UNAVAILABLE", "reason": "loaded when asked for"}
            for owner, service, release in sorted(table.standby)
            if owner == project
        ]
        return found + [
            {"name": service, "version": "", "state": "UNAVAILABLE", "reason": "no release could be loaded"}
            for owner, service in sorted(missing)
            if owner == project
        ]

    def only(self, project: str) -> str:
        """Return the name of the one model that a project serves; raise InvalidInput if it is not one."""
        table = self.table
        names = sorted(
            service
            for owner, service in table.unserved.union(table.plans).difference(table.applications.unserved)
            if owner == project and "@" not in service
        )
        if len(names) == 1:
            return names[0]
        if not names:
            raise NotFound("This project serves no model.", mend="Look at the deployment with `holdtrue status`.")
        raise InvalidInput(
            "Which service is meant?",
            why=f"The project serves {len(names)} models: {', '.join(names[:10])}.",
            mend="Name it at the end of the path, or in the header “X-Holdtrue-Service: NAME”.",
        )

    async def predict(
        self,
        plan: Plan,
        columns: Columns,
        rows: int,
        request_id: str | None,
        started: float,
        *,
        explain: bool = False,
        key: bytes | None = None,
    ) -> Answer:
        """Answer `rows` rows and record the answers; `started` is the stopwatch at the request's arrival.

        Under the same `key` the same rows are the same predictions, so that a retry leaves no second record.
        With `explain`, the answer says what each feature contributed, or NotExplained is raised. Raises
        ContractBroken, NoAnswer if the model fails without a fallback, and in strict mode the journal's errors.
        """
        route = plan.route
        if route.rate:
            self.rate(f"service/{route.project}/{route.name}", route.rate, f"The service {route.service}")
        if plan.moments:
            columns = {**columns, **{name: read_times(name, columns[name]) for name in plan.moments}}
        if plan.rival is None:
            check_contract(plan, columns)
        else:
            plan = await self._admitted(plan, plan.rival, columns, rows, request_id)
        name = plan.bundle.prediction_time
        times = None if name is None else read_times(name, columns[name])
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        ids = None if key is None else repeated_ids(f"{route.project}/{route.name}", key, columns, rows)
        waiting = _Waiting(columns, rows, times, request_id, started, future, ids)
        if explain:
            return await self._explained(plan, waiting)
        batch = self._batches.get(id(plan))
        if batch is None or batch.rows + rows > batch.most_rows or len(batch.waiting) >= batch.most_requests:
            batch = self._batches[id(plan)] = self._begin(plan, loop)
        batch.waiting.append(waiting)
        batch.rows += rows
        return await future

    async def _admitted(self, plan: Plan, rival: Check, columns: Columns, rows: int, request_id: str | None) -> Plan:
        """Hold a request to both contracts of a rollout, and record what one of them refuses.

        Returns the plan that answers: without the challenger if its contract refuses the request. Raises
        ContractBroken if the champion's does.
        """
        broken: ContractBroken | None = None
        try:
            check_contract(plan, columns)
        except ContractBroken as error:
            broken = error
        refused = refuses(rival, columns)
        if broken is None and not refused:
            return plan
        route, now_us = plan.route, self.now_us()
        (name,) = self._ids.take(1, now_us)
        record = refusal_columns(route, now_us, name, request_id, rows, champion=broken is not None, challenger=refused)
        if self._strict:
            await self._records.append_async(REFUSAL, route.project, route.name, record, 1)
        else:
            try:
                self._records.append(REFUSAL, route.project, route.name, record, 1)
            except (HoldtrueError, OSError):
                self.dropped += 1
        if broken is not None:
            raise broken
        return plan.alone or plan

    def _begin(self, plan: Plan, loop: asyncio.AbstractEventLoop) -> _Batch:
        """Return a new batch that is scored once the present turn of the event loop is over."""
        if not plan.aside:
            batch = _Batch(plan)
            loop.call_soon(self._run, batch)
            return batch
        pace = plan.lane.pace
        batch = _Batch(plan, most_rows=pace.rows, most_requests=pace.requests)
        loop.call_soon(self._run_aside, batch)
        return batch

    def _close(self, batch: _Batch) -> bool:
        """Let no request join a batch any more; tell whether anybody waits for it."""
        if self._batches.get(id(batch.plan)) is batch:
            del self._batches[id(batch.plan)]
        # Nobody waits any more for a request that went over its deadline, or whose client went away.
        batch.waiting = [each for each in batch.waiting if not each.future.done()]
        return bool(batch.waiting)

    async def _explained(self, plan: Plan, waiting: _Waiting) -> Answer:
        """Answer one request by itself, and say what made its scores what they are."""
        self._explaining.check(plan, waiting.rows)
        waiting.results = []
        run = self._run_aside if plan.aside else self._run
        asyncio.get_running_loop().call_soon(run, _Batch(plan, [waiting], waiting.rows))
        answer = await waiting.future
        answer.contributions = await self._explaining.explain(plan, waiting.results, waiting.rows)
        return answer

    def _run(self, batch: _Batch) -> None:
        """Score and record one batch; called by the event loop once the turn that filled it is over."""
        if len(self._settling) >= _COMMITS:
            # Requests go on joining the batch while the disk is busy.
            self._held.append(batch)
            return
        if not self._close(batch):
            return
        try:
            self._score(batch.plan, batch.waiting)
        except Exception as error:  # noqa: BLE001  # whatever went wrong, somebody waits for an answer
            if len(batch.waiting) > 1:
                # One request may have spoilt it for all: each is tried alone.
                for waiting in batch.waiting:
                    self._run(_Batch(batch.plan, [waiting], waiting.rows))
                return
            _fail(batch.waiting, self._told(batch.plan, error))

    def _run_aside(self, batch: _Batch) -> None:
        """Score one batch on another thread, after the one before it in its lane."""
        lane = batch.plan.lane
        if lane.busy:
            # Requests go on joining the batch while the model is busy.
            lane.held.append(batch)
            return
        lane.busy = self._close(batch)
        if lane.busy:
            task = asyncio.ensure_future(self._leave_lane(batch))
            self._aside.add(task)
            task.add_done_callback(self._aside.discard)

    async def _leave_lane(self, batch: _Batch) -> None:
        lane = batch.plan.lane
        try:
            await self._try_aside(batch.plan, batch.waiting, self.stopwatch() + _ALONE_SECONDS)
        finally:
            lane.busy = False
            while lane.held and not lane.busy:
                self._run_aside(lane.held.popleft())

    async def _try_aside(self, plan: Plan, waiting: list[_Waiting], until: float) -> None:
        """Score requests together; where that fails, each alone for as long as there is time."""
        try:
            await self._score_aside(plan, waiting)
        except Exception as error:  # noqa: BLE001  # as above: somebody waits for an answer
            if len(waiting) == 1:
                _fail(waiting, self._told(plan, error))
                return
            for each in waiting:
                if each.future.done():
                    continue
                if self.stopwatch() < until:
                    await self._try_aside(plan, [each], until)
                else:
                    _fail([each], self._told(plan, error))

    async def _score_aside(self, plan: Plan, waiting: list[_Waiting]) -> None:
        now_us = self.now_us()
        columns, times, rows = _together(waiting, now_us)
        work = plan.prepare(columns, rows, times, self._lookup(plan.route.project))
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_LANES, thread_name_prefix="model")
        began = self.stopwatch()
        results = await asyncio.get_running_loop().run_in_executor(self._threads, work)
        plan.lane.pace.note(len(waiting), rows, self.stopwatch() - began)
        self._record(plan, waiting, columns, times, results, now_us)

    def _told(self, plan: Plan, error: Exception) -> HoldtrueError:
        """Return what a client is told of an error; the log learns what only we should know."""
        if isinstance(error, HoldtrueError):
            return error
        self._log.error("A request to %s failed.", plan.route.service, exc_info=error)
        return Unavailable("The service cannot answer this request.", mend="Try again.")

    def _score(self, plan: Plan, waiting: list[_Waiting]) -> None:
        now_us = self.now_us()
        columns, times, rows = _together(waiting, now_us)
        results = plan.score(columns, rows, times, self._lookup(plan.route.project))
        self._record(plan, waiting, columns, times, results, now_us)

    def _record(
        self,
        plan: Plan,
        waiting: list[_Waiting],
        columns: Columns,
        times: list[int],
        results: list[Scored],
        now_us: int,
    ) -> None:
        """Record what was scored and give each request its answer, in the order that the mode asks for."""
        rows = len(times)
        if waiting[0].results is not None:
            waiting[0].results += results
        ids = _ids_of(waiting, self._ids.take(rows, now_us))
        ended = self.stopwatch()
        record, count = record_columns(
            plan.route,
            columns,
            results,
            ids=ids,
            times=times,
            now_us=now_us,
            request_ids=_request_ids(waiting, ids),
            latencies=[int((ended - each.started) * 1e6) for each in waiting for _ in range(each.rows)],
        )
        answer = _answer(plan.route, results, ids, rows)
        route = plan.route
        if self._strict:
            task = asyncio.ensure_future(self._append_then_settle(plan, record, count, waiting, answer))
            self._settling.add(task)
            task.add_done_callback(self._settled)
            return
        try:
            self._records.append("prediction", route.project, route.name, record, count)
        except (HoldtrueError, OSError):
            # In fast mode answers go on without their records, and the ack file tells how many were lost.
            self.dropped += count
        _settle(waiting, answer)

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._settling.discard(task)
        while self._held and len(self._settling) < _COMMITS:
            self._run(self._held.popleft())

    async def _append_then_settle(
        self, plan: Plan, record: Mapping[str, Any], count: int, waiting: list[_Waiting], answer: Answer
    ) -> None:
        try:
            await self._records.append_async("prediction", plan.route.project, plan.route.name, record, count)
        except (HoldtrueError, OSError) as error:
            _fail(waiting, error if isinstance(error, HoldtrueError) else Unavailable("The disk failed."))
        else:
            _settle(waiting, answer)


def check_contract(plan: Plan, columns: Columns) -> None:
    """Raise ContractBroken if the columns of a request break a rule of its service that does more than warn."""
    if plan.check is None:
        return
    for finding in plan.check(columns):
        # A row that training would have set aside is outside of what the model knows.
        if finding.severity != "warn":
            raise ContractBroken(
                finding.what, mend=finding.mend, facts={"column": finding.column, "rule": finding.rule}
            )


def _together(waiting: list[_Waiting], now_us: int) -> tuple[Columns, list[int], int]:
    """Return the columns, times and number of rows of all requests, one after the other."""
    first = waiting[0]
    if len(waiting) == 1:
        return first.columns, first.times or [now_us] * first.rows, first.rows
    columns: dict[str, list[Any]] = {name: [*values] for name, values in first.columns.items()}
    times = [*(first.times or [now_us] * first.rows)]
    for each in waiting[1:]:
        for name, values in each.columns.items():
            columns[name] += values
        times += each.times or [now_us] * each.rows
    return columns, times, len(times)


def _ids_of(waiting: list[_Waiting], fresh: list[str]) -> list[str]:
    """Return the ids of all rows: fresh ones, but for requests that bring their own."""
    if any(each.ids is not None for each in waiting):
        start = 0
        for each in waiting:
            if each.ids is not None:
                fresh[start : start + each.rows] = each.ids
            start += each.rows
    return fresh


def _request_ids(waiting: list[_Waiting], ids: list[str]) -> list[str]:
    """Return, per row, the id that the request came with, or else that of its first prediction."""
    found: list[str] = []
    for each in waiting:
        found += [each.request_id or ids[len(found)]] * each.rows
    return found


def _answer(route: Route, results: list[Scored], ids: list[str], rows: int) -> Answer:
    first = results[0]
    if first.rows is None:
        abstained = None if route.abstain is None else abstentions(route, first)
        return Answer(ids, first.scores, [first.release] * rows, [first.arm] * rows, first.failed, abstained)
    scores, releases, arms = [0.0] * rows, [""] * rows, [""] * rows
    failed, undecided = [False] * rows, [False] * rows
    for each in results:
        if each.role != ANSWER or each.rows is None:
            continue
        open_ = [False] * len(each.rows) if route.abstain is None else abstentions(route, each)
        for position, row in enumerate(each.rows):
            scores[row], releases[row], arms[row] = each.scores[position], each.release, each.arm
            failed[row] = each.failed is not None and each.failed[position]
            undecided[row] = open_[position]
    abstained = None if route.abstain is None else undecided
    return Answer(ids, scores, releases, arms, failed if any(failed) else None, abstained)


def _settle(waiting: list[_Waiting], answer: Answer) -> None:
    """Give each request its part of the answer."""
    start = 0
    for each in waiting:
        end = start + each.rows
        # Done already: the request went over its deadline, or its client went away.
        if not each.future.done():
            each.future.set_result(_part(answer, start, end))
        start = end


def _part(answer: Answer, start: int, end: int) -> Answer:
    failed = answer.fallback[start:end] if answer.fallback is not None else None
    return Answer(
        answer.ids[start:end],
        answer.scores[start:end],
        answer.releases[start:end],
        answer.arms[start:end],
        failed if failed is not None and any(failed) else None,
        answer.abstained[start:end] if answer.abstained is not None else None,
    )


def _fail(waiting: list[_Waiting], error: HoldtrueError) -> None:
    for each in waiting:
        if not each.future.done():
            each.future.set_exception(error)
