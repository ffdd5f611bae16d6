"""Applications at request time: which release answers whom, what it said, and the record that is left.

What an application does inside (prompt, retrieval, guardrails, provider) is not known here: a loaded one has
`answer`. Arms, canaries, records and acknowledgements are those of every other service.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import orjson

from holdtrue.core.clock import Clock, SystemClock, microseconds
from holdtrue.core.errors import HoldtrueError, InvalidInput, NotFound, Unavailable
from holdtrue.serving.records import PredictionIds
from holdtrue.serving.rules import chooser
from holdtrue.serving.snapshot import Application, Route, Snapshot
from holdtrue.storage import Writer


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


class Answering(Protocol):
    """Answer questions with one release."""

    async def answer(self, question: Question) -> Answered:
        """Return the answer; a failure to answer is a HoldtrueError."""
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


class BadQuestion(InvalidInput):
    """A request does not have what an application needs to answer it."""

    code = "bad_question"


def plan_applications(snapshot: Snapshot, ready: Mapping[str, LoadedApplication], previous: Plans) -> Plans:
    """Compile the routes of applications; one with an arm that cannot be loaded keeps its plan of before."""
    plans: dict[tuple[str, str], ApplicationPlan] = {}
    unserved: set[tuple[str, str]] = set()
    for route in snapshot.services.values():
        if route.arms[0].release not in snapshot.applications:
            continue
        name = (route.project, route.service)
        arms = tuple(arm for arm in route.arms if arm.percent > 0)
        if all(arm.release in ready for arm in arms):
            loaded = {arm.release: ready[arm.release] for arm in arms}
            choose = chooser(arms, route.seed) if len(arms) > 1 else None
            plans[name] = ApplicationPlan(replace(route, arms=arms), loaded, choose)
        elif name in previous.plans:
            plans[name] = previous.plans[name]
        else:
            unserved.add(name)
    kept = {each: one for plan in plans.values() for each, one in plan.loaded.items()}
    return Plans(plans, {**kept, **ready}, frozenset(unserved))


class Applications:
    """Answer for applications, and leave a record of each answer.

    `plans` gives the plans of the moment. In strict mode an answer is given out when its record is durable.
    """

    def __init__(self, plans: Callable[[], Plans], clock: Clock, records: Writer, *, strict: bool) -> None:
        self.dropped = 0
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
        plans = self._plans()
        plan = plans.plans.get((question.project, question.service))
        if plan is None:
            raise _missing(plans, question.project, question.service)
        started = self._stopwatch()
        moment = microseconds(self._clock.now())
        (prediction,) = self._ids.take(1, moment)
        position = plan.arm_of(question.user)
        arm = plan.route.arms[position]
        asked = replace(question, prediction=prediction, release=arm.release, arm=arm.name)
        failure: HoldtrueError | None = None
        try:
            answered = await plan.loaded[arm.release].answering.answer(asked)
        except HoldtrueError as error:
            if error.status < 500:
                raise
            failure = error
            answered = await self._rescue(plan, position, asked, error)
        latency = int((self._stopwatch() - started) * 1e6)
        await self._record(plan.route, asked, answered, moment, latency, failure)
        if failure is not None and not answered.body:
            raise failure
        return answered, prediction

    async def _rescue(self, plan: ApplicationPlan, position: int, asked: Question, error: HoldtrueError) -> Answered:
        """Let the champion answer where the challenger failed; an empty answer if there is none to ask."""
        self._log.warning("release %s of %s failed: %s", asked.release, plan.route.service, error.code)
        if position == 0:
            return Answered({}, {"answered": 0.0})
        champion = plan.loaded[plan.route.arms[0].release]
        try:
            answered = await champion.answering.answer(asked)
        except HoldtrueError:
            return Answered({}, {"answered": 0.0})
        # The words are the champion's; what is counted is the challenger's failure.
        return replace(answered, checks={"answered": 0.0})

    async def _record(
        self,
        route: Route,
        asked: Question,
        answered: Answered,
        moment: int,
        latency: int,
        failure: HoldtrueError | None,
    ) -> None:
        record: dict[str, Any] = {
            "id": [asked.prediction],
            "prediction_id": asked.prediction,
            "time": [moment],
            "recorded_at": moment,
            "request_id": asked.request_id or asked.prediction,
            "key": None,
            "entity": asked.user,
            "arm": asked.arm,
            "role": "answer",
            "release": asked.release,
            "rollout": route.rollout,
            "score": answered.score,
            "latency_us": latency,
            "fallback": failure is not None,
            "error": None if failure is None else failure.code,
            "checks": orjson.dumps(dict(answered.checks)).decode(),
            "documents": orjson.dumps([dict(each) for each in answered.documents]).decode(),
            **answered.facts,
        }
        try:
            if self._strict:
                await self._records.append_async("prediction", route.project, route.service, record, 1)
            else:
                self._records.append("prediction", route.project, route.service, record, 1)
        except (HoldtrueError, OSError) as error:
            if self._strict:
                raise error if isinstance(error, HoldtrueError) else Unavailable("The disk failed.") from None
            self.dropped += 1


def _missing(plans: Plans, project: str, service: str) -> HoldtrueError:
    if (project, service) in plans.unserved:
        return Unavailable(
            f"The application {service} cannot answer now.",
            why="None of its releases could be loaded.",
            mend="Look at the deployment with `holdtrue status`.",
        )
    return NotFound.of("application", service[:80])
