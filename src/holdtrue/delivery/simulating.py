"""Play a planned rollout many times before it begins, with the code that decides in production.

Requests come hour by hour, users keep their arm, and the base rate may move with the hour. What a judgement sees is
what production's counts would hold; the judgement itself, its limits and its steps are the strategy's own.
"""

import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from multiprocessing import get_context
from typing import Any, Final, Literal, Self

import numpy as np

from holdtrue.core.codec import dump
from holdtrue.core.errors import InvalidInput
from holdtrue.delivery.arms import CHECKS, FAILED, FEEDBACK, ArmsJudging
from holdtrue.delivery.judging import Judging
from holdtrue.delivery.model import Canary, Rollout, RolloutState
from holdtrue.delivery.strategies import strategy_of
from holdtrue.stats import clopper_pearson
from holdtrue.stats.arrays import Bools, Floats, Ints

_START: Final = datetime(2026, 1, 1, tzinfo=UTC)
_ENDS: Final = {"promote": "promoted", "roll_back": "rolled_back", "stop": "stopped"}
Ending = Literal["promoted", "rolled_back", "stopped", "undecided"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Say what production is like while a rollout is played.

    A row's loss is 0 or 1 (an error, or a check that failed), the most variable that a loss with this mean can be:
    the champion's mean is `base`, the challenger's `base + effect`; both move by `swing` with the hour of the day.
    `shared` is the share of rows on which both releases err or hit for the same reason; 0, where they are independent,
    is the hardest for a paired comparison. `spread` is the standard deviation of the base rate between users.
    `losses`, if there are any, are recorded differences of paired losses by day, which are played in blocks of a day
    instead, their mean moved to `effect`.
    """

    base: float = 0.2
    effect: float = 0.0
    swing: float = 0.0
    requests: int = 50_000
    per_day: float = 10_000.0
    label_delay_hours: float = 0.0
    shared: float = 0.0
    requests_per_user: float = 5.0
    spread: float = 0.0
    look_hours: float = 1.0
    losses: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Played:
    """Tell how one played rollout ended, after how long, and how many met the challenger meanwhile."""

    ending: Ending
    step: int
    days: float
    requests: int
    answered: int
    users: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """Hold the requests of one played rollout, in the order of `day`; the losses of both releases on each."""

    day: Floats
    user: Ints
    place: Floats
    champion: Floats
    challenger: Floats


def check_scenario(scenario: Scenario) -> None:
    """Raise InvalidInput for a scenario that cannot be played."""
    top = scenario.base + scenario.swing + max(scenario.effect, 0.0)
    bottom = scenario.base - scenario.swing + min(scenario.effect, 0.0)
    checks: tuple[tuple[str, Any, bool, str], ...] = (
        ("--requests", scenario.requests, 1 <= scenario.requests <= 5_000_000, "from 1 to 5,000,000"),
        ("--per-day", scenario.per_day, 1.0 <= scenario.per_day < math.inf, "at least 1"),
        (
            "--label-delay",
            scenario.label_delay_hours,
            0.0 <= scenario.label_delay_hours <= 1e5,
            "from 0 to 100,000",
        ),
        ("--shared", scenario.shared, 0.0 <= scenario.shared <= 1.0, "from 0 to 1"),
        ("--swing", scenario.swing, 0.0 <= scenario.swing < 1.0, "from 0 to below 1"),
        ("--spread", scenario.spread, 0.0 <= scenario.spread <= 0.5, "from 0 to 0.5"),
        (
            "--per-user",
            scenario.requests_per_user,
            1.0 <= scenario.requests_per_user <= 1e6,
            "from 1 to 1,000,000",
        ),
        ("--look-hours", scenario.look_hours, 0.05 <= scenario.look_hours <= 1e4, "from 0.05 to 10,000"),
        (
            "--base, with --swing and --effect,",
            (bottom, top),
            bool(scenario.losses) or 0.0 <= bottom <= top <= 1.0,
            "from 0 to 1",
        ),
        ("--effect", scenario.effect, -1.0 <= scenario.effect <= 1.0, "from -1 to 1"),
    )
    for name, value, good, wanted in checks:
        if not good:
            raise InvalidInput(
                f"A rollout cannot be played with {name} {value}.",
                why=f"It must be {wanted}.",
                mend="Give a value in this range.",
            )


def traffic(scenario: Scenario, seed: int | Sequence[int]) -> Traffic:
    """Return the requests of one rollout; the same seed gives the same ones."""
    random = np.random.default_rng(seed)
    n = scenario.requests
    day = np.sort(random.random(n)) * (n / scenario.per_day)
    users = max(int(n / scenario.requests_per_user), 1)
    user = random.integers(0, users, n)
    place = random.random(users)[user]
    if scenario.losses:
        difference = _recorded(scenario, day, random)
        return Traffic(day, user, place, np.maximum(-difference, 0.0), np.maximum(difference, 0.0))
    phase = random.random()
    rate = scenario.base + scenario.swing * np.sin(2.0 * np.pi * (day + phase))
    if scenario.spread:
        rate = np.clip(rate + scenario.spread * random.standard_normal(users)[user], 0.0, 1.0)
    first, second = random.random(n), random.random(n)
    if scenario.shared:
        second = np.where(random.random(n) < scenario.shared, first, second)
    return Traffic(
        day, user, place, (first < rate).astype(np.float64), (second < rate + scenario.effect).astype(np.float64)
    )


def _recorded(scenario: Scenario, day: Floats, random: np.random.Generator) -> Floats:
    """Return differences of losses drawn day by day from recorded days, with the mean moved to the effect.

    Whole days are drawn, since rows of one day have much in common (block bootstrap, Künsch 1989).
    """
    recorded = [np.asarray(each, dtype=np.float64) for each in scenario.losses]
    mean = float(np.concatenate(recorded).mean())
    found = np.empty(day.size)
    starts = np.searchsorted(day, np.arange(math.floor(float(day[-1])) + 2))
    for first, last in pairwise(starts):
        rows = recorded[int(random.integers(len(recorded)))]
        found[first:last] = rows[random.integers(0, rows.size, last - first)]
    return np.clip(found - mean + scenario.effect, -1.0, 1.0)


class _Play:
    """Guard one played rollout: which requests were seen, which are answered by whom, what waits for labels."""

    def __init__(self, canary: Canary, scenario: Scenario, requests: Traffic) -> None:
        self.canary, self.scenario, self.requests = canary, scenario, requests
        self.strategy = strategy_of(canary)
        self.judging: Any = self.strategy.start("")
        self.rollout = _rollout(canary)
        self.by_challenger: Bools = np.zeros(requests.day.size, np.bool_)
        self.seen = self.labelled = 0

    def run(self) -> Played:
        """Play until it ends or all requests are through and their labels in."""
        last = float(self.requests.day[-1]) + self.scenario.label_delay_hours / 24.0
        look = self.scenario.look_hours / 24.0
        for number in range(1, math.ceil(last / look) + 1):
            now = number * look
            self._take(now)
            found, _ = self.strategy.judge(self.canary, self.judging, self.rollout, _START + timedelta(days=now))
            if found.verdict == "advance":
                self.judging = self.judging.next_step()
                self.rollout = replace(
                    self.rollout, step=self.rollout.step + 1, step_started_at=_START + timedelta(days=now)
                )
            elif found.verdict == "wait":
                at = _START + timedelta(days=now)
                self.judging = self.strategy.move(self.canary, self.judging, self.rollout, at)
                self.rollout = replace(self.rollout, judging={"share": getattr(self.judging, "share", None)})
            else:
                return self._ended(_ENDS[found.verdict], now)
        return self._ended("undecided", last)

    def _ended(self, ending: Any, days: float) -> Played:
        mine = self.by_challenger[: self.seen]
        users = np.unique(self.requests.user[: self.seen][mine]).size
        return Played(ending, self.rollout.step, days, self.seen, int(mine.sum()), int(users))

    def _take(self, now: float) -> None:
        """Let the requests until `now` be answered, and count those whose labels came."""
        upto = int(np.searchsorted(self.requests.day, now, side="right"))
        known_at = now - self.scenario.label_delay_hours / 24.0
        labelled = int(np.searchsorted(self.requests.day, known_at, side="right"))
        fresh, known = slice(self.seen, upto), slice(self.labelled, labelled)
        # A user keeps the arm as the share grows: the same order of places as in production.
        self.by_challenger[fresh] = self.requests.place[fresh] < self.rollout.percent / 100.0
        self.seen, self.labelled = upto, labelled
        if isinstance(self.judging, Judging):
            self._count_pairs(fresh, known)
        else:
            self._count_arms(fresh, known)

    def _count_pairs(self, fresh: slice, known: slice) -> None:
        challenger, champion = self.requests.challenger[known], self.requests.champion[known]
        differences = challenger - champion
        if not self.canary.shadow:
            differences = differences[self.by_challenger[known]]
        mine = int(self.by_challenger[fresh].sum())
        others = self.by_challenger[fresh].size - mine
        self.judging = self.judging.counted(differences, np.zeros(mine), others, 0)

    def _count_arms(self, fresh: slice, known: slice) -> None:
        arms = self.by_challenger[known]
        values = np.where(arms, self.requests.challenger[known], self.requests.champion[known])
        answered = self.by_challenger[fresh]
        assert isinstance(self.judging, ArmsJudging)
        measure = FEEDBACK if self.canary.metric == "feedback" else CHECKS
        self.judging = self.judging.counted({FAILED: (answered, np.zeros(answered.size)), measure: (arms, values)})


def _rollout(canary: Canary) -> Rollout:
    return Rollout(
        id="rol_simulated",
        service="simulated",
        environment="simulated",
        champion="champion",
        challenger="challenger",
        decision="",
        canary=canary,
        state=RolloutState.RUNNING,
        step=0,
        started_at=_START,
        step_started_at=_START,
        ended_at=None,
        cursor="",
        judging=None,
        verdict=None,
        reason="",
    )


def play(canary: Canary, scenario: Scenario, seed: int | Sequence[int] = 0) -> Played:
    """Play one rollout; the same seed gives the same ending."""
    return _Play(canary, scenario, traffic(scenario, seed)).run()


@dataclass(frozen=True, slots=True)
class Range:
    """Hold what is seen in the middle and at both ends of many runs: the median and the 10th and 90th percentile."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self | None:
        """Return the range of values; None if there are none."""
        if not values:
            return None
        low, middle, high = (float(each) for each in np.percentile(np.asarray(values, dtype=np.float64), (10, 50, 90)))
        return cls(middle, low, high)


@dataclass(frozen=True, slots=True)
class Simulation:
    """Tell how many rollouts of one scenario ended in which way, and what that took.

    Each share has the exact interval of Clopper and Pearson. `missed` are rollouts of a worse release that were not
    rolled back; `early` is the share of the rolled back ones that ended before the last step.
    """

    effect: float
    runs: int
    endings: dict[str, int]
    shares: dict[str, dict[str, float | int | None]]
    early: float | None
    days: Range | None
    requests: Range | None
    answered: Range | None
    users: Range | None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        found: dict[str, Any] = dump(self)
        return found


def simulate(canary: Canary, scenario: Scenario, runs: int = 1000, seed: int = 0, *, workers: int = 1) -> Simulation:
    """Play a rollout `runs` times and count its endings; what comes out does not depend on `workers`."""
    check_scenario(scenario)
    if runs < 1:
        raise InvalidInput("No rollout was asked for.", mend="Give a number of runs from 1.")
    return summarise(scenario.effect, _played(canary, scenario, runs, seed, workers), len(canary.steps))


def _played(canary: Canary, scenario: Scenario, runs: int, seed: int, workers: int) -> list[Played]:
    if workers <= 1 or runs < 50:
        return _some(canary, scenario, seed, 0, runs)
    parts = 4 * workers
    limits = [runs * part // parts for part in range(parts + 1)]
    # Spawned, since a fork of a process with threads may hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_some, canary, scenario, seed, first, last) for first, last in pairwise(limits)]
        return [each for job in jobs for each in job.result()]


def _some(canary: Canary, scenario: Scenario, seed: int, first: int, last: int) -> list[Played]:
    return [play(canary, scenario, (seed, number)) for number in range(first, last)]


def summarise(effect: float, played: Sequence[Played], steps: int) -> Simulation:
    """Return what many played rollouts have in common."""
    runs = len(played)
    endings = Counter(each.ending for each in played)
    back = endings["rolled_back"]
    counts = {
        "rolled_back": back,
        "promoted": endings["promoted"],
        **({"missed": runs - back} if effect > 0 else {"false_rollback": back}),
    }
    found = [each for each in played if each.ending == "rolled_back"]
    ended = [each for each in played if each.ending != "undecided"]
    return Simulation(
        effect=effect,
        runs=runs,
        endings={name: endings[name] for name in ("promoted", "rolled_back", "stopped", "undecided")},
        shares={name: clopper_pearson(count, runs).to_json() for name, count in counts.items()},
        early=sum(each.step + 1 < steps for each in found) / len(found) if found else None,
        days=Range.of([each.days for each in ended]),
        requests=Range.of([each.requests for each in ended]),
        answered=Range.of([each.answered for each in played]),
        users=Range.of([each.users for each in played]),
    )
