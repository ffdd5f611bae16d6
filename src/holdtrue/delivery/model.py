"""Nouns of delivery: services, deployments, rollouts, triggers; and which state may follow which."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar

from holdtrue.core.errors import Conflict, StateError

PRODUCTION: Final = "production"
DRILLED: Final = "deployment.drilled"
ENVIRONMENTS: Final = (PRODUCTION, "staging", "dev")
"""Known environments; a request that names none is answered from the first of these that has its service."""

PREVIOUS: Final = "previous"
"""The backup that is the release deployed before the present one."""

State = TypeVar("State", bound=StrEnum)


class DeploymentState(StrEnum):
    """Say how far production is with what is wished."""

    PENDING = "pending"
    LIVE = "live"
    FAILED = "failed"


class RolloutState(StrEnum):
    """Say where a rollout stands."""

    RUNNING = "running"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    STOPPED = "stopped"


class TriggerState(StrEnum):
    """Say what became of a reason to retrain."""

    REFUSED = "refused"
    QUEUED = "queued"
    DONE = "done"
    FAILED = "failed"
    ROLLED_OUT = "rolled_out"


DEPLOYMENT_MOVES: Mapping[DeploymentState, frozenset[DeploymentState]] = MappingProxyType(
    {
        DeploymentState.PENDING: frozenset(DeploymentState),
        DeploymentState.LIVE: frozenset({DeploymentState.PENDING, DeploymentState.FAILED}),
        # A data plane tries again by itself, so what failed may come alive.
        DeploymentState.FAILED: frozenset({DeploymentState.PENDING, DeploymentState.LIVE}),
    }
)

ROLLOUT_MOVES: Mapping[RolloutState, frozenset[RolloutState]] = MappingProxyType(
    {
        RolloutState.RUNNING: frozenset(RolloutState),
        RolloutState.PROMOTED: frozenset(),
        RolloutState.ROLLED_BACK: frozenset(),
        RolloutState.STOPPED: frozenset(),
    }
)

TRIGGER_MOVES: Mapping[TriggerState, frozenset[TriggerState]] = MappingProxyType(
    {
        TriggerState.REFUSED: frozenset(),
        TriggerState.QUEUED: frozenset({TriggerState.DONE, TriggerState.FAILED}),
        TriggerState.DONE: frozenset({TriggerState.ROLLED_OUT}),
        TriggerState.FAILED: frozenset(),
        TriggerState.ROLLED_OUT: frozenset(),
    }
)


def move(machine: str, moves: Mapping[State, frozenset[State]], current: State, wanted: State) -> State:
    """Return `wanted` if `moves` allows it after `current`, else raise StateError: all machines' one door."""
    if wanted not in moves[current]:
        raise StateError.of(machine, current.value, wanted.value)
    return wanted


@dataclass(frozen=True, slots=True)
class Canary:
    """Say how a release takes over: by which shares, and on which proof it goes on or back.

    `steps` are percents of rows; `margin` is how much worse (mean Brier score) a release may be at most;
    `alpha` the chance, over the whole rollout, that an equal release is rolled back. With `shadow`, the
    challenger also scores the rows it does not answer, so that proof comes at the speed of all traffic.

    `drift_margin` is how far a model's mean score may lie from the champion's on the same rows, either way, which is
    known long before labels come (0: not judged).

    The `loss` of an answer is its squared error as a probability (“brier”), whether it is the “wrong” class, or its
    “distance” from the true number as a share of `scale`, at most 1; it follows from what the model answers with.

    `groups` are inputs by whose values fairness is judged: in each group the challenger's share of errors (or, by the
    `group_measure` “positive”, of decisions that are yes), against all other rows and compared with the champion's, may
    be `group_margin` larger; with `groups_needed` that must be shown before it is promoted. A score of `decision_at` or
    more is a yes. Its contract may refuse `contract_margin` more of the rows (0: not judged), it may take longer than
    `latency_limit_seconds` for `latency_margin` more of them, and the Brier score that its probabilities let expect
    may be `estimate_margin` worse (0: not judged), which is known before labels come.

    With the metric “answers”, for applications, arms are compared by their own answers: `margin` is how much
    larger the share of answers that fail a check may be, `fallback_margin` that of failed answers, `feedback_margin`
    that of bad feedback (waited for if `feedback_needed`), `cost_margin` the cost as a share of `cost_limit_micros`
    (millionths of a currency unit an answer; 0: cost is not judged), and `latency_margin` the share of answers that
    took longer than `latency_limit_seconds`, to their last piece (0: latency is not judged).

    With the metric “feedback”, arms are compared by what POST /feedback says under `feedback_name`, more is better:
    `margin` may then be 0 (it must be better), and a difference below `worth` on both sides ends the rollout. The
    `strategy` is that of Canary, Shadow, BlueGreen, ABTest or Bandit; a bandit's share moves every `move_hours`, and
    neither arm gets less than `floor` percent.
    """

    steps: tuple[float, ...] = (5.0, 25.0, 50.0)
    margin: float = 0.01
    metric: Literal["brier", "answers", "feedback"] = "brier"
    alpha: float = 0.05
    min_rows_per_step: int = 200
    patience_days: float = 28.0
    fallback_margin: float = 0.02
    shadow: bool = True
    feedback_margin: float = 0.1
    feedback_needed: bool = False
    cost_limit_micros: int = 0
    cost_margin: float = 0.1
    latency_limit_seconds: float = 0.0
    latency_margin: float = 0.1
    strategy: Literal["canary", "shadow", "blue_green", "ab", "bandit"] = "canary"
    feedback_name: str = ""
    worth: float = 0.01
    floor: float = 10.0
    move_hours: float = 24.0
    drift_margin: float = 0.0
    groups: tuple[str, ...] = ()
    group_measure: Literal["error", "positive"] = "error"
    group_margin: float = 0.05
    groups_needed: bool = False
    decision_at: float = 0.5
    contract_margin: float = 0.02
    estimate_margin: float = 0.0
    loss: Literal["brier", "wrong", "distance"] = "brier"
    scale: float = 0.0


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """Declare a service: the model behind it, the inputs that name a row, and how releases are rolled out.

    `key` names the input that labels come back with, `entity` the one that keeps its arm; if a model fails, `backup`
    answers (“previous”, the id of a release, or another service, whose deployed release it is), then the constant
    `fallback`; `shadows` are releases that score every row unanswered. A service of the kind “application” is answered
    by prompt, retrieval and provider; `model` is then its own name. Every `drill_days` it is tried whether production
    could go back (0: only by hand), every `replay_days` the features of recorded answers are computed again, of which
    the share `replay_most` may differ. It takes `rate` requests a second (0: any number). Scores between the two of
    `abstain` are no decision. In the environments `at_once`, never production, an allowed release takes its place with
    no rollout.
    """

    name: str
    model: str
    key: str | None = None
    entity: str | None = None
    prediction_time: str | None = None
    rollout: Canary = Canary()
    fallback: float | None = None
    shadows: tuple[str, ...] = ()
    kind: Literal["model", "application"] = "model"
    drill_days: float = 0.0
    backup: str | None = None
    rate: float = 0.0
    replay_days: float = 0.0
    replay_most: float = 0.01
    abstain: tuple[float, float] | None = None
    at_once: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RetrainSpec:
    """Declare when a challenger of a model is trained, and how often at most.

    With `promote`, an allowed challenger's rollout starts by itself; who may allow it is the policy's
    matter. `dataset` names the data whose new months count (None: that of the deployed release).
    """

    model: str
    service: str
    on: tuple[Literal["quality", "monthly"], ...] = ("quality", "monthly")
    budget_per_year: int = 8
    cooldown_days: float = 14.0
    dataset: str | None = None
    promote: bool = True


@dataclass(frozen=True, slots=True)
class Service:
    """Hold a declared service."""

    name: str
    spec: ServiceSpec
    declared_at: datetime


@dataclass(frozen=True, slots=True)
class Deployment:
    """Hold which release is wished for in an environment, and how far it is.

    `good` is the last release that all data planes had loaded; `failed` the last one they could not load.
    `sequence` is the routing snapshot that first carried the wish (0: none yet).
    """

    service: str
    environment: str
    release: str
    decision: str
    state: DeploymentState
    good: str | None
    failed: str | None
    why: str
    sequence: int
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Stop:
    """Say that a service is switched off in an environment: why, since when, by whom.

    `answer` is the safe default meanwhile, None for the one that is declared.
    """

    service: str
    environment: str
    reason: str
    answer: str | None
    actor: str
    actor_name: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Drilled:
    """Hold what the event of a drill tells: whether an environment could go back, to what, after how many seconds."""

    time: datetime
    environment: str
    release: str
    ready: bool
    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class Change:
    """Tell one change of what is deployed; changes are never altered."""

    service: str
    environment: str
    number: int
    action: Literal["deployed", "rolled_back"]
    release: str
    before: str | None
    decision: str
    rollout: str | None
    reason: str
    time: datetime
    actor: str


@dataclass(frozen=True, slots=True)
class Rollout:
    """Hold a challenger on its way to a service's environment.

    `step` counts from 0; `cursor` is where in the journal its records begin (None: not served yet);
    `judging` is what has been counted so far, `verdict` the last judgement.
    """

    id: str
    service: str
    environment: str
    champion: str
    challenger: str
    decision: str
    canary: Canary
    state: RolloutState
    step: int
    started_at: datetime
    step_started_at: datetime
    ended_at: datetime | None
    cursor: str | None
    judging: Any
    verdict: Any
    reason: str

    @property
    def percent(self) -> float:
        """Return the share of rows that the challenger answers now; a bandit's stands with what it has counted."""
        if self.state is not RolloutState.RUNNING:
            return 0.0
        share = self.judging.get("share") if self.judging is not None else None
        return self.canary.steps[self.step] if share is None else float(share)


@dataclass(frozen=True, slots=True)
class RolloutStep:
    """Tell one recorded step of a rollout, with what was known then."""

    rollout: str
    number: int
    action: Literal["started", "advanced", "promoted", "rolled_back", "stopped"]
    percent: float
    why: str
    facts: Any
    time: datetime


@dataclass(frozen=True, slots=True)
class Trigger:
    """Hold a reason to retrain, and what became of it."""

    id: str
    service: str
    model: str
    reason: Literal["quality", "monthly", "manual"]
    source: str
    detail: Any
    state: TriggerState
    why: str
    job: str | None
    release: str | None
    requester: str
    raised_at: datetime
    ended_at: datetime | None


class NotDeployable(Conflict):
    """A release lacks what a data plane needs to serve it."""

    code = "not_deployable"


class RolloutRunning(Conflict):
    """A service has a rollout already."""

    code = "rollout_running"


class NothingEarlier(Conflict):
    """There is no earlier release to go back to."""

    code = "nothing_earlier"
