"""Score requests together: those that come at about the same time in one batch, slow models in lanes of their own.

Requests that reach the event loop together share one feature matrix, one run of each model and one append to the
journal. A request that comes alone waits for nobody, and the last of those that have tasks for no further turn: at half
of the most load each turn is as long as a batch takes, and a request went through four of them. Models that take long,
or run in a process of their own, are asked on another thread, in a lane of their service.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from holdtrue.core.errors import HoldtrueError, Unavailable
from holdtrue.serving.assembly import Columns, Lookup
from holdtrue.serving.lanes import MOST_ROWS, Lane
from holdtrue.serving.plan import ANSWER, Plan, Scored
from holdtrue.serving.records import PredictionIds, abstentions, record_columns
from holdtrue.serving.snapshot import Route
from holdtrue.storage import Writer
from holdtrue.wire import Turn

# Lanes that are under way at the same time; each has one batch.
_LANES: Final = 32
# Where a batch fails, its requests are tried alone for so many seconds; a model that hangs would take all there are.
_ALONE_SECONDS: Final = 2.0
# Appends under way at a time in strict mode: the next batch fills while the disk is busy with one, which
# costs fewer turns between threads than to append the moment a few rows are there.
_COMMITS: Final = 1
_LOOKS: Final = 4


@dataclass(slots=True)
class Answer:
    """Hold the answers to one request, one entry a row.

    `fallback` is None if the model itself answered every row; `abstained` is None if the service always decides.
    `contributions` and `sets` are there if they were asked for: of each row that its release's own model answered.
    Of a model of several classes a score is the number of one, and `chances` are the probabilities of all.
    """

    ids: list[str]
    scores: list[float]
    releases: list[str]
    arms: list[str]
    fallback: list[bool] | None
    abstained: list[bool] | None = None
    contributions: list[dict[str, Any] | None] | None = None
    sets: list[list[Any] | None] | None = None
    chances: list[list[float] | None] | None = None


class Awaited(Protocol):
    """Be told of an answer once, unless it is `done` with already; a future is one."""

    def done(self) -> bool:
        """Tell whether nobody waits any more."""
        ...

    def set_result(self, result: Answer, /) -> None:
        """Take the answer."""
        ...

    def set_exception(self, exception: HoldtrueError, /) -> None:
        """Take the reason why there is none."""
        ...


@dataclass(slots=True)
class Waiting:
    """Hold one request that waits for its answer."""

    columns: Columns
    rows: int
    times: list[int] | None
    request_id: str | None
    started: float
    future: Awaited
    ids: list[str] | None = None
    results: list[Scored] | None = None


@dataclass(slots=True)
class _Batch:
    plan: Plan
    waiting: list[Waiting] = field(default_factory=list[Waiting])
    rows: int = 0
    begun: bool = False
    seen: int = 0
    looks: int = 0


class Batches:
    """Collect waiting requests, score them and give each its answer once it is recorded as the mode asks for."""

    def __init__(
        self,
        records: Writer,
        lookup: Callable[[str], Lookup],
        now_us: Callable[[], int],
        stopwatch: Callable[[], float],
        turn: Turn,
        *,
        strict: bool,
    ) -> None:
        self.ids = PredictionIds()
        self.dropped = 0
        # The worker's: to ask which loop runs costs Python 3.11 a system call each time.
        self.running: asyncio.AbstractEventLoop | None = None
        self.stopwatch = stopwatch
        self.now_us = now_us
        self._records = records
        self._lookup = lookup
        self._strict = strict
        self._turn = turn
        self._batches: dict[int, _Batch] = {}
        self._settling: set[asyncio.Future[None]] = set()
        self._held: deque[_Batch] = deque()
        self._aside: set[asyncio.Task[None]] = set()
        self._threads: ThreadPoolExecutor | None = None
        self._log = logging.getLogger("holdtrue.dataplane")

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop that runs."""
        return self.running or asyncio.get_running_loop()

    def join(self, plan: Plan, waiting: Waiting) -> None:
        """Let a request be scored with those that came in the same turn, or that wait in its lane."""
        if plan.aside:
            plan.lane.waiting.append(waiting)
            self.loop().call_soon(self._run_aside, plan)
            return
        batch = self._batches.get(id(plan))
        if batch is None or batch.rows + waiting.rows > MOST_ROWS:
            batch = self._batches[id(plan)] = _Batch(plan)
            self.loop().call_soon(self._end_turn, batch)
        batch.waiting.append(waiting)
        batch.rows += waiting.rows
        turn = self._turn
        if (
            turn.last is not None
            and not turn.starting
            and not batch.begun
            and turn.last is asyncio.current_task(self.running)
        ):
            # Whoever came in this turn has joined.
            self._run(batch)

    def alone(self, plan: Plan, waiting: Waiting) -> None:
        """Let a request be scored by itself."""
        if plan.aside:
            self._go(self._try_aside(plan, [waiting], self.stopwatch() + _ALONE_SECONDS))
            return
        asyncio.get_running_loop().call_soon(self._run, _Batch(plan, [waiting], waiting.rows))

    def _end_turn(self, batch: _Batch) -> None:
        """Begin a batch that its last request has not begun; called by the event loop once the turn is over.

        While requests were read, more may have come: they are looked for until none has, and a few times at most. To
        look costs a twentieth of a batch, and at half of the most load it made p99 a third shorter.
        """
        if batch.begun:
            return
        if batch.rows > batch.seen and batch.looks < _LOOKS:
            batch.seen = batch.rows
            batch.looks += 1
            self.loop().call_soon(self._end_turn, batch)
            return
        self._run(batch)

    def _run(self, batch: _Batch) -> None:
        """Score and record one batch, or keep it until the disk is free."""
        batch.begun = True
        if len(self._settling) >= _COMMITS:
            # Requests go on joining the batch while the disk is busy.
            self._held.append(batch)
            return
        if self._batches.get(id(batch.plan)) is batch:
            del self._batches[id(batch.plan)]
        # Nobody waits any more for a request that went over its deadline, or whose client went away.
        batch.waiting = [each for each in batch.waiting if not each.future.done()]
        if not batch.waiting:
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

    def _run_aside(self, plan: Plan) -> None:
        """Score who waits in a lane on another thread, unless those before them are still under way."""
        if plan.lane.busy:
            return
        taken = _taken(plan.lane)
        if taken:
            plan.lane.busy = True
            self._go(self._leave_lane(plan, taken))

    def _go(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    async def _leave_lane(self, plan: Plan, taken: list[Waiting]) -> None:
        try:
            await self._try_aside(plan, taken, self.stopwatch() + _ALONE_SECONDS)
        finally:
            plan.lane.busy = False
            self._run_aside(plan)

    async def _try_aside(self, plan: Plan, waiting: list[Waiting], until: float) -> None:
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

    async def _score_aside(self, plan: Plan, waiting: list[Waiting]) -> None:
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

    def _score(self, plan: Plan, waiting: list[Waiting]) -> None:
        now_us = self.now_us()
        columns, times, rows = _together(waiting, now_us)
        results = plan.score(columns, rows, times, self._lookup(plan.route.project))
        self._record(plan, waiting, columns, times, results, now_us)

    def _record(
        self,
        plan: Plan,
        waiting: list[Waiting],
        columns: Columns,
        times: list[int],
        results: list[Scored],
        now_us: int,
    ) -> None:
        """Record what was scored and give each request its answer, in the order that the mode asks for."""
        rows = len(times)
        if waiting[0].results is not None:
            waiting[0].results += results
        ids = _ids_of(waiting, self.ids.take(rows, now_us))
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
            self._append_then_settle(route, record, count, waiting, answer)
            return
        try:
            self._records.append("prediction", route.project, route.name, record, count)
        except (HoldtrueError, OSError):
            # In fast mode answers go on without their records, and the ack file tells how many were lost.
            self.dropped += count
        _settle(waiting, answer)

    def _append_then_settle(
        self, route: Route, record: Mapping[str, Any], count: int, waiting: list[Waiting], answer: Answer
    ) -> None:
        try:
            future = self._records.appending("prediction", route.project, route.name, record, count, gathered=True)
        except (HoldtrueError, OSError) as error:
            _fail(waiting, _of_disk(error))
            return
        if future.done():
            _settle(waiting, answer)
            return
        self._settling.add(future)
        # No task: it would take two turns more until the answers are sent and the next batch begins.
        future.add_done_callback(partial(self._settled, waiting, answer))

    def _settled(self, waiting: list[Waiting], answer: Answer, future: "asyncio.Future[None]") -> None:
        """Answer once the records are durable, and begin with the batch that was kept meanwhile."""
        self._settling.discard(future)
        try:
            future.result()
        except (HoldtrueError, OSError) as error:
            _fail(waiting, _of_disk(error))
        else:
            _settle(waiting, answer)
        while self._held and len(self._settling) < _COMMITS:
            self._run(self._held.popleft())


def _of_disk(error: HoldtrueError | OSError) -> HoldtrueError:
    return error if isinstance(error, HoldtrueError) else Unavailable("The disk failed.")


def _taken(lane: Lane[Waiting]) -> list[Waiting]:
    """Take as many of those who wait in a lane as may be scored together, in their order."""
    taken: list[Waiting] = []
    rows, most_rows, most = 0, lane.pace.rows, lane.pace.requests
    while lane.waiting and len(taken) < most:
        first = lane.waiting[0]
        if taken and rows + first.rows > most_rows:
            break
        lane.waiting.popleft()
        # Nobody waits any more for a request that went over its deadline, or whose client went away.
        if not first.future.done():
            taken.append(first)
            rows += first.rows
    return taken


def _together(waiting: list[Waiting], now_us: int) -> tuple[Columns, list[int], int]:
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


def _ids_of(waiting: list[Waiting], fresh: list[str]) -> list[str]:
    """Return the ids of all rows: fresh ones, but for requests that bring their own."""
    if any(each.ids is not None for each in waiting):
        start = 0
        for each in waiting:
            if each.ids is not None:
                fresh[start : start + each.rows] = each.ids
            start += each.rows
    return fresh


def _request_ids(waiting: list[Waiting], ids: list[str]) -> list[str]:
    """Return, per row, the id that the request came with, or else that of its first prediction."""
    found: list[str] = []
    for each in waiting:
        found += [each.request_id or ids[len(found)]] * each.rows
    return found


def _answer(route: Route, results: list[Scored], ids: list[str], rows: int) -> Answer:
    first = results[0]
    if first.rows is None:
        abstained = None if route.abstain is None else abstentions(route, first)
        answer = Answer(ids, first.scores, [first.release] * rows, [first.arm] * rows, first.failed, abstained)
        answer.chances = first.chances
        return answer
    scores, releases, arms = [0.0] * rows, [""] * rows, [""] * rows
    failed, undecided = [False] * rows, [False] * rows
    chances: list[list[float] | None] = [None] * rows
    for each in results:
        if each.role != ANSWER or each.rows is None:
            continue
        open_ = [False] * len(each.rows) if route.abstain is None else abstentions(route, each)
        for position, row in enumerate(each.rows):
            scores[row], releases[row], arms[row] = each.scores[position], each.release, each.arm
            failed[row] = each.failed is not None and each.failed[position]
            undecided[row] = open_[position]
            if each.chances is not None:
                chances[row] = each.chances[position]
    abstained = None if route.abstain is None else undecided
    answer = Answer(ids, scores, releases, arms, failed if any(failed) else None, abstained)
    if any(each.chances is not None for each in results):
        answer.chances = chances
    return answer


def _settle(waiting: list[Waiting], answer: Answer) -> None:
    """Give each request its part of the answer."""
    start = 0
    for each in waiting:
        end = start + each.rows
        # Done already: the request went over its deadline, or its client went away.
        if not each.future.done():
            each.future.set_result(_part(answer, start, end))
        start = end


def _part(answer: Answer, start: int, end: int) -> Answer:
    part = Answer(
        answer.ids[start:end], answer.scores[start:end], answer.releases[start:end], answer.arms[start:end], None
    )
    if answer.fallback is not None:
        failed = answer.fallback[start:end]
        part.fallback = failed if any(failed) else None
    if answer.abstained is not None:
        part.abstained = answer.abstained[start:end]
    if answer.chances is not None:
        part.chances = answer.chances[start:end]
    return part


def _fail(waiting: list[Waiting], error: HoldtrueError) -> None:
    for each in waiting:
        if not each.future.done():
            each.future.set_exception(error)
