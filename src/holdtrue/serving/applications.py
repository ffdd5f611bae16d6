"""Applications at request time: which release answers whom, what it said, and the record that is left.

What an application does inside (prompt, retrieval, guardrails, provider) is not known here: a loaded one has
`answer`. Arms, canaries, records and acknowledgements are those of every other service.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, TypeVar

import orjson

from holdtrue.core.clock import Clock, SystemClock, microseconds
from holdtrue.core.errors import HoldtrueError, NotFound, Unavailable
from holdtrue.serving.plan import STOPPED, Stopped
from holdtrue.serving.rates import unlimited
from holdtrue.serving.records import PredictionIds
from holdtrue.serving.rules import chooser
from holdtrue.serving.snapshot import Application, Route, Snapshot, first_environments, planned_name
from holdtrue.storage import Writer

T = TypeVar("T")
LEFT: Final = "left"
TOO_SLOW: Final = "too_slow"
# Of what a provider says against a request, these are a release's own matter, whatever their status; what it refuses
# may be the request's or the release's, and another release tells which.
_OWN: Final = frozenset({"provider_busy", "model_not_found"})
_REFUSED: Final = frozenset({"provider_refused"})


@dataclass(frozen=True, slots=True)
class Question:
    """Hold what an application is asked: the body of the request, for whom, and with which key.

    `user` keeps its arm in a rollout; `traceparent` is the W3C header of the client's own trace; `prediction` is the
    id under which the answer is recorded.
    """

    body: Mapping[str, Any]
    project: str
    service: str
    user: str
    key: str
    request_id: str
    traceparent: str = ""
    prediction: str = ""
    release: str = ""
    arm: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """Hold what an application said, and what was checked of it at once.

    `checks` are scores in [0, 1], 1 good; `documents` what it rests on; `facts` plain values for the record.
    """

    body: dict[str, Any]
    checks: Mapping[str, float] = field(default_factory=dict[str, float])
    documents: Sequence[Mapping[str, Any]] = ()
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def score(self) -> float:
        """Return the worst of the checks, 1 without any: an answer is as good as the check that it fails."""
        return min(self.checks.values(), default=1.0)


class AnswerStream(Protocol):
    """An answer under way: take its pieces, then what was answered; close it whatever happens."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """Return the facts for the record, as far as they are known."""
        ...

    @property
    def answered(self) -> Answered:
        """Return what was answered; before the end that is what has left of it, without checks."""
        ...

    def deltas(self) -> AsyncGenerator[Mapping[str, Any]]:
        """Return the pieces, once; an answer that breaks raises HoldtrueError."""
        ...

    async def aclose(self) -> None:
        """End the work for it if it has not ended; a second time does nothing."""
        ...


class Answering(Protocol):
    """Answer questions with one release."""

    async def answer(self, question: Question) -> Answered:
        """Return the answer; a failure to answer is a HoldtrueError."""
        ...

    async def stream(self, question: Question) -> AnswerStream:
        """Begin to answer in pieces, and return once the first is there; raise as `answer` does."""
        ...

    def say(self, question: Question, words: str) -> AnswerStream:
        """Return an answer of just these words, for which nobody is asked."""
        ...


@dataclass(frozen=True, slots=True)
class LoadedApplication:
    """Hold one release of an application ready to answer."""

    application: Application
    answering: Answering


@dataclass(frozen=True, slots=True)
class ApplicationPlan:
    """Hold one application compiled: its route, what is loaded, and which arm a user gets."""

    route: Route
    loaded: Mapping[str, LoadedApplication]
    choose: Callable[[Sequence[Any]], list[int]] | None

    def arm_of(self, user: str) -> int:
        """Return the position of the arm that answers `user`."""
        return 0 if self.choose is None else self.choose([user])[0]


@dataclass(frozen=True, slots=True)
class Plans:
    """Hold the plans of applications by (project, service), and all loaded releases."""

    plans: Mapping[tuple[str, str], ApplicationPlan] = field(default_factory=dict[tuple[str, str], ApplicationPlan])
    loaded: Mapping[str, LoadedApplication] = field(default_factory=dict[str, LoadedApplication])
    unserved: frozenset[tuple[str, str]] = frozenset()
    first: Mapping[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])

    def find(self, project: str, name: str) -> ApplicationPlan | None:
        """Return the plan of an application, or of `application@environment`."""
        return self.plans.get((project, planned_name(self.first, project, name)))


def plan_applications(snapshot: Snapshot, ready: Mapping[str, LoadedApplication], previous: Plans) -> Plans:
    """Compile the routes of applications; one with an arm that cannot be loaded keeps its plan of before."""
    plans: dict[tuple[str, str], ApplicationPlan] = {}
    unserved: set[tuple[str, str]] = set()
    for route in snapshot.services.values():
        if route.arms[0].release not in snapshot.applications:
            continue
        name = (route.project, route.name)
        arms = tuple(arm for arm in route.arms if arm.percent > 0)
        if all(arm.release in ready for arm in arms):
            loaded = {arm.release: ready[arm.release] for arm in arms}
            choose = chooser(arms, route.seed) if len(arms) > 1 else None
            plans[name] = ApplicationPlan(replace(route, arms=arms), loaded, choose)
        elif name in previous.plans:
            # It is switched off at once, also while its new release does not load.
            before = previous.plans[name]
            kept = replace(before.route, stopped=route.stopped, words=route.words)
            plans[name] = replace(before, route=kept)
        else:
            unserved.add(name)
    kept = {each: one for plan in plans.values() for each, one in plan.loaded.items()}
    return Plans(plans, {**kept, **ready}, frozenset(unserved), first_environments(snapshot))


class Applications:
    """Answer for applications, and leave a record of each answer.

    `plans` gives the plans of the moment. In strict mode an answer is given out when its record is durable.
    """

    def __init__(
        self,
        plans: Callable[[], Plans],
        clock: Clock,
        records: Writer,
        *,
        strict: bool,
        rate: Callable[[str, float, str], None] = unlimited,
    ) -> None:
        self.dropped = 0
        self._rate = rate
        self._plans = plans
        self._clock = clock
        self._records = records
        self._strict = strict
        self._ids = PredictionIds()
        self._stopwatch = SystemClock().monotonic
        self._log = logging.getLogger("holdtrue.dataplane")

    def names(self, project: str) -> list[str]:
        """Return the names of a project's applications."""
        return sorted(service for owner, service in self._plans().plans if owner == project)

    async def answer(self, question: Question) -> tuple[Answered, str]:
        """Return the answer of the application that is asked, and the id of its record.

        If the challenger of a rollout fails, the champion answers, and the failure counts against the
        challenger. Raises NotFound, Unavailable, and what the application raises for a request that is wrong.
        """
        turn = self._begin(question)
        if turn.words is not None:
            answered = turn.said(turn.words).answered
        else:
            answered = await self._ask(turn, _whole)
            self._check_on(turn)
        await self._record(turn, answered)
        if turn.left == STOPPED and turn.words is None:
            raise _stopped(turn.plan.route.service, turn.stop)
        return answered, turn.asked.prediction

    async def stream(self, question: Question) -> "RecordedStream":
        """Begin to answer in pieces, as `answer` does; a challenger that fails before its first piece is stood in for.

        The record is written when the answer has ended, however it did.
        """
        turn = self._begin(question)
        stream = turn.said(turn.words) if turn.words is not None else await self._ask(turn, _begun)
        return RecordedStream(stream, turn, self._record, self._check_on)

    def _check_on(self, turn: "Turn") -> None:
        """Note on an answer under way that its application has been switched off meanwhile."""
        present = self._plans().find(turn.asked.project, turn.plan.route.name)
        if present is not None and present.route.stopped is not None and turn.words is None:
            turn.left, turn.stop = STOPPED, present.route.stopped

    def _begin(self, question: Question) -> "Turn":
        plans = self._plans()
        plan = plans.find(question.project, question.service)
        if plan is None:
            raise _missing(plans, question.project, question.service)
        route = plan.route
        if route.rate:
            self._rate(f"service/{route.project}/{route.name}", route.rate, f"The application {route.service}")
        if route.stopped is not None and route.words is None:
            raise _stopped(route.service, route.stopped)
        moment = microseconds(self._clock.now())
        (prediction,) = self._ids.take(1, moment)
        position = plan.arm_of(question.user)
        arm = route.arms[position]
        name = arm.name if route.stopped is None else STOPPED
        asked = replace(question, service=route.service, prediction=prediction, release=arm.release, arm=name)
        turn = Turn(plan, position, asked, moment, self._stopwatch, self._stopwatch())
        if route.stopped is not None:
            turn.words, turn.left = route.words, STOPPED
        return turn

    async def _ask(self, turn: "Turn", ask: Callable[[Answering, Question], Awaitable[T]]) -> T:
        """Return what the arm's release says, or the champion's in its place; a failure leaves its record."""
        plan, asked = turn.plan, turn.asked
        try:
            return await ask(plan.loaded[asked.release].answering, asked)
        except asyncio.CancelledError as ended:
            await self._record(turn.ended(ended), Answered({}))
            raise
        except HoldtrueError as error:
            refused = error.code in _REFUSED
            if error.status < 500 and error.code not in _OWN and not (refused and turn.position):
                raise
            turn.failure = error.code
            self._log.warning("release %s of %s failed: %s", asked.release, plan.route.service, error.code)
            if turn.position:
                with contextlib.suppress(HoldtrueError):
                    return await ask(plan.loaded[plan.route.arms[0].release].answering, asked)
            if refused:
                # Both releases' providers refuse it: that is the request's fault.
                raise
            await self._record(turn, Answered({}))
            raise

    async def _record(self, turn: "Turn", answered: Answered) -> None:
        route, asked = turn.plan.route, turn.asked
        if turn.failure is not None:
            # The words may be the champion's; what is counted is the failure of the arm that was asked.
            answered = replace(answered, checks={"answered": 0.0})
        record: dict[str, Any] = {
            "id": [asked.prediction],
            "prediction_id": asked.prediction,
            "time": [turn.moment],
            "recorded_at": turn.moment,
            "request_id": asked.request_id or asked.prediction,
            "key": None,
            "entity": asked.user,
            "arm": asked.arm,
            "role": "answer",
            "release": asked.release,
            # What is said while it is switched off tells nothing of either arm.
            "rollout": None if turn.left == STOPPED else route.rollout,
            "score": None if turn.left else answered.score,
            "latency_us": turn.passed(),
            "first_us": turn.first,
            "fallback": turn.failure is not None,
            "error": turn.left or turn.failure,
            "checks": orjson.dumps(dict(answered.checks)).decode(),
            "documents": orjson.dumps([dict(each) for each in answered.documents]).decode(),
            **answered.facts,
        }
        try:
            if self._strict:
                await self._records.append_async("prediction", route.project, route.name, record, 1)
            else:
                self._records.append("prediction", route.project, route.name, record, 1)
        except (HoldtrueError, OSError) as error:
            if self._strict:
                raise error if isinstance(error, HoldtrueError) else Unavailable("The disk failed.") from None
            self.dropped += 1


@dataclass(slots=True)
class Turn:
    """Hold one question under way: which arm it fell to, when it began, and what became of it.

    `failure` is the code of the arm's own failure; `left` says that somebody else ended it: its client, or its token.
    `first` is how long its first piece took, in microseconds, None if it was not answered in pieces. `words` are said
    in place of an answer, and `stop` is why it was cut off, if its application is, or was meanwhile, switched off.
    """

    plan: ApplicationPlan
    position: int
    asked: Question
    moment: int
    stopwatch: Callable[[], float]
    started: float
    failure: str | None = None
    left: str | None = None
    first: int | None = None
    words: str | None = None
    stop: str = ""

    def said(self, words: str) -> AnswerStream:
        """Return what is said in place of an answer, as the arm's release puts it."""
        return self.plan.loaded[self.asked.release].answering.say(self.asked, words)

    def passed(self) -> int:
        """Return the microseconds since it began."""
        return int((self.stopwatch() - self.started) * 1e6)

    def ended(self, by: asyncio.CancelledError) -> "Turn":
        """Note that it was cancelled: an answer that came too late is the arm's failure, all else is not."""
        code = str(by.args[0]) if by.args else LEFT
        if code == TOO_SLOW:
            self.failure = code
        else:
            self.left = code
        return self


class RecordedStream:
    """Give an answer in pieces, and leave its record when it has ended."""

    def __init__(
        self,
        stream: AnswerStream,
        turn: Turn,
        record: Callable[[Turn, Answered], Awaitable[None]],
        check: Callable[[Turn], None],
    ) -> None:
        """`check` is called before each piece, and notes on the turn that its application was switched off."""
        self._stream = stream
        self._turn = turn
        self._record = record
        self._check = check
        self._over = False

    @property
    def prediction(self) -> str:
        """Return the id of the record."""
        return self._turn.asked.prediction

    @property
    def facts(self) -> Mapping[str, Any]:
        """Return what is known of the answer so far."""
        return self._stream.facts

    @property
    def answered(self) -> Answered:
        """Return what was answered."""
        return self._stream.answered

    async def deltas(self) -> AsyncGenerator[Mapping[str, Any]]:
        """Yield the pieces; the record is written before this ends, or raises what broke the answer."""
        turn = self._turn
        try:
            async with contextlib.aclosing(self._stream.deltas()) as deltas:
                async for delta in deltas:
                    self._check(turn)
                    if turn.left == STOPPED and turn.words is None:
                        break
                    if turn.first is None:
                        turn.first = turn.passed()
                    yield delta
        except asyncio.CancelledError as ended:
            turn.ended(ended)
            await self._end()
            raise
        except HoldtrueError as error:
            turn.failure = turn.failure or error.code
            await self._end()
            raise
        await self._end()
        if turn.left == STOPPED and turn.words is None:
            raise _stopped(turn.plan.route.service, turn.stop)

    async def aclose(self) -> None:
        """End the answer; one that was not over is recorded as left. A second time does nothing."""
        if not self._over:
            self._turn.left = self._turn.left or LEFT
            await self._end()

    async def _end(self) -> None:
        if self._over:
            return
        self._over = True
        await self._stream.aclose()
        await self._record(self._turn, self._stream.answered)


async def _whole(answering: Answering, question: Question) -> Answered:
    return await answering.answer(question)


async def _begun(answering: Answering, question: Question) -> AnswerStream:
    return await answering.stream(question)


def _stopped(service: str, reason: str) -> Stopped:
    return Stopped(
        f"The application {service} is switched off.",
        why=reason,
        mend="Wait until it is switched on again.",
        facts={"retry_after": 60},
    )


def _missing(plans: Plans, project: str, service: str) -> HoldtrueError:
    if (project, planned_name(plans.first, project, service)) in plans.unserved:
        return Unavailable(
            f"The application {service} cannot answer now.",
            why="None of its releases could be loaded.",
            mend="Look at the deployment with `holdtrue status`.",
        )
    return NotFound.of("application", service[:80])
