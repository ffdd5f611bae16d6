"""Pure decisions of delivery: what a rollout's evidence says, and whether a trigger trains."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final, Literal

from holdtrue.core.errors import ConfigurationError
from holdtrue.core.ids import check_name
from holdtrue.delivery.model import (
    ENVIRONMENTS,
    PREVIOUS,
    PRODUCTION,
    Canary,
    Change,
    Deployment,
    RetrainSpec,
    ServiceSpec,
    Trigger,
    TriggerState,
)
from holdtrue.stats.sequences import rows_needed

Verdict = Literal["wait", "advance", "promote", "roll_back", "stop"]
_YEAR: Final = timedelta(days=365)
_SPENT: Final = frozenset({TriggerState.QUEUED, TriggerState.DONE, TriggerState.ROLLED_OUT, TriggerState.FAILED})


LOSSES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "brier": "the Brier score",
        "wrong": "the share of wrong answers",
        "distance": "the distance from the truth, as a share of the scale,",
    }
)
"""How the loss by which releases are compared is told."""


@dataclass(frozen=True, slots=True)
class Concern:
    """Hold what is known of something beside the loss: challenger minus champion (above 0: more), with limits.

    `breached` says that it is surely more than the margin, `shown` that it is surely not; `group` is the value of an
    input if it is about the rows that have it.
    """

    name: str
    told: str
    n: int
    value: float
    lower: float
    upper: float
    margin: float
    breached: bool
    shown: bool = True
    group: str | None = None

    @property
    def words(self) -> str:
        """Return it in words."""
        return (
            f"{self.told} differs from the champion's by {self.value:+.4f} (between {self.lower:+.4f} and "
            f"{self.upper:+.4f}) on {self.n} rows; {self.margin:g} is allowed"
        )


@dataclass(frozen=True, slots=True)
class Facts:
    """Hold what is known of a running rollout.

    `mean`, `lower`, `upper` describe the challenger's mean loss minus the champion's on `pairs` labelled
    rows (above 0: the challenger is worse). `fallback_lower` is a lower limit of the challenger's share of
    fallback answers out of `answers`; `champion_fallback` the champion's share. `score_mean`, `score_lower` and
    `score_upper` describe the challenger's score minus the champion's on `scored` rows, if their drift is judged.
    `concerns` are all else that is judged: groups, refused requests, slow answers, estimated quality.
    """

    step: int
    pairs: int
    step_pairs: int
    mean: float | None
    sd: float | None
    lower: float
    upper: float
    answers: int
    fallback: float
    fallback_lower: float
    champion_fallback: float
    days: float
    step_days: float
    scored: int = 0
    score_mean: float | None = None
    score_lower: float = -1.0
    score_upper: float = 1.0
    concerns: tuple[Concern, ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """Say what to do with a rollout and why; while waiting, about how much more is needed."""

    verdict: Verdict
    why: str
    more_rows: int | None = None
    more_days: float | None = None


def judge(canary: Canary, facts: Facts) -> Judgement:
    """Decide the next move of a rollout.

    The limits hold at all times at once, so it may be asked as often as one likes: an equal release is
    ever rolled back with probability at most alpha, and one that is worse by the margin or more is ever
    promoted with probability at most alpha / 2.
    """
    allowed = facts.champion_fallback + canary.fallback_margin
    if facts.fallback_lower > allowed:
        return Judgement(
            "roll_back",
            f"It answers {facts.fallback:.1%} of {facts.answers} rows with the fallback, surely more than "
            f"{facts.fallback_lower:.1%}; the champion does so on {facts.champion_fallback:.1%}.",
        )
    if canary.drift_margin and (facts.score_lower > canary.drift_margin or facts.score_upper < -canary.drift_margin):
        return Judgement(
            "roll_back",
            f"Its scores have drifted from the champion's by {facts.score_mean:+.4f} (between {facts.score_lower:+.4f} "
            f"and {facts.score_upper:+.4f}) on {facts.scored} rows, more than {canary.drift_margin:g}.",
        )
    breached = next((each for each in facts.concerns if each.breached), None)
    if breached is not None:
        return Judgement("roll_back", f"{breached.words[0].upper()}{breached.words[1:]}.")
    seen = _seen(canary, facts)
    if facts.lower > 0.0:
        return Judgement("roll_back", f"It is worse than the champion: {seen}.")
    proven = facts.upper < canary.margin
    enough = facts.step_pairs >= canary.min_rows_per_step
    last = facts.step + 1 >= len(canary.steps)
    unshown = _unshown(canary, facts) if last and proven and enough else ""
    if proven and enough and not unshown:
        return Judgement(
            "promote" if last else "advance",
            f"It is at most {canary.margin:g} worse than the champion: {seen}.",
        )
    if facts.days >= canary.patience_days:
        wanted = unshown or f"at most {canary.margin:g} worse"
        return Judgement("stop", f"After {facts.days:.0f} days it is not shown to be {wanted}: {seen}.")
    if unshown:
        return Judgement("wait", f"It is not shown yet to be {unshown}; {seen}.")
    return _wait(canary, facts, seen, proven=proven)


def _unshown(canary: Canary, facts: Facts) -> str:
    """Return what is still to be shown of the groups, if that is asked for."""
    if not canary.groups_needed:
        return ""
    groups = [each for each in facts.concerns if each.group is not None]
    if not groups:
        return f"fair: no group of {', '.join(canary.groups)} has enough labelled rows"
    open_one = next((each for each in groups if not each.shown), None)
    return "" if open_one is None else f"fair: {open_one.words}"


def shadowed(found: Judgement) -> Judgement:
    """Return the judgement of a shadow: whatever is shown ends it, and nothing is changed by it."""
    if found.verdict in ("advance", "promote", "roll_back"):
        return Judgement("stop", f"The shadow has shown enough. {found.why}")
    return found


def _wait(canary: Canary, facts: Facts, seen: str, *, proven: bool) -> Judgement:
    rows = float(max(canary.min_rows_per_step - facts.step_pairs, 0))
    if not proven and facts.mean is not None and facts.sd is not None:
        # Whichever limit is reached first ends the waiting.
        tail = canary.alpha / 2.0
        better = rows_needed(max(canary.margin - facts.mean, 0.0), facts.sd, tail)
        worse = rows_needed(max(facts.mean, 0.0), facts.sd, tail / 2.0)
        rows = max(rows, min(better, worse) - facts.pairs, 1.0)
    if facts.pairs == 0 or not math.isfinite(rows):
        return Judgement("wait", f"{seen[0].upper()}{seen[1:]}; how long it takes cannot be said yet.")
    per_day = facts.pairs / facts.days if facts.days > 0 else math.inf
    days = rows / per_day
    return Judgement(
        "wait",
        f"{seen[0].upper()}{seen[1:]}; about {rows:,.0f} more labelled rows are needed, "
        f"{days:.1f} days at the present traffic.",
        int(rows),
        round(days, 2),
    )


def _seen(canary: Canary, facts: Facts) -> str:
    if facts.mean is None:
        return "no labelled row was scored by both releases yet"
    return (
        f"{LOSSES[canary.loss]} differs by {facts.mean:+.4f} "
        f"(between {facts.lower:+.4f} and {facts.upper:+.4f}) on {facts.pairs} rows"
    )


def check_retrain(spec: RetrainSpec, past: Iterable[Trigger], now: datetime) -> str:
    """Return why a trigger may not train now, or "" if it may.

    At most one retrain of a model is open; a cooldown lies between two; a year has a budget. What failed
    has cost a training too.
    """
    spent = [each for each in past if each.model == spec.model and each.state in _SPENT]
    running = [each for each in spent if each.state is TriggerState.QUEUED]
    if running:
        return f"A retrain of {spec.model} is under way already ({running[0].id})."
    newest = max((each.raised_at for each in spent), default=None)
    if newest is not None and now - newest < timedelta(days=spec.cooldown_days):
        passed = (now - newest) / timedelta(days=1)
        return f"The last retrain was {passed:.1f} days ago, and the cooldown is {spec.cooldown_days:g} days."
    year = [each for each in spent if now - each.raised_at < _YEAR]
    if len(year) >= spec.budget_per_year:
        return f"{len(year)} retrains in the last 365 days use up the budget of {spec.budget_per_year} a year."
    return ""


def new_windows(known: Sequence[str], after: str | None) -> list[str]:
    """Return the windows of a dataset that come after `after` (None: all), oldest first."""
    return sorted(name for name in known if after is None or name > after)


def ranked(deployments: Iterable[Deployment]) -> list[Deployment]:
    """Return a service's deployments, first the one that answers requests which name no environment."""

    def rank(deployment: Deployment) -> tuple[int, str]:
        name = deployment.environment
        return (ENVIRONMENTS.index(name) if name in ENVIRONMENTS else len(ENVIRONMENTS), name)

    return sorted(deployments, key=rank)


def earlier(changes: Sequence[Change]) -> Change | None:
    """Return the change that brought the release before the present one, or None."""
    found = standing(changes)
    return found[-2] if len(found) > 1 else None


def standing(changes: Sequence[Change]) -> list[Change]:
    """Return the changes whose releases were not gone back from, oldest first.

    Going back undoes one deployment; going back again undoes the one before it.
    """
    kept: list[Change] = []
    for change in changes:
        if change.action == "deployed":
            kept.append(change)
        elif kept:
            kept.pop()
    return kept


def check_service(spec: ServiceSpec) -> None:
    """Raise ConfigurationError for a service that could not be rolled out as it is declared."""
    check_name(spec.name, "service name")
    canary = spec.rollout
    steps = canary.steps
    if not 0.0 <= spec.drill_days <= 366.0:
        raise _bad(spec, f"drill_days is {spec.drill_days:g}", "Give days from 0 (only by hand) to 366.")
    if not (spec.rate == 0 or 0.01 <= spec.rate <= 1e6):
        raise _bad(
            spec, f"rate is {spec.rate:g}", "Give requests a second from 0.01 to a million, or 0 for any number."
        )
    _check_backup(spec)
    _check_places(spec)
    if not 0.0 <= spec.replay_days <= 366.0:
        raise _bad(spec, f"replay_days is {spec.replay_days:g}", "Give days from 0 (only by hand) to 366.")
    if not 0.0 <= spec.replay_most <= 1.0:
        raise _bad(spec, f"replay_most is {spec.replay_most:g}", "Give the share of answers that may differ, 0 to 1.")
    in_order = all(first < second for first, second in pairwise(steps))
    if not steps or not in_order or steps[0] < 0 or steps[-1] >= 100:
        raise _bad(spec, f"steps are {list(steps)}", "Name growing percents below 100, such as 5, 25, 50.")
    if canary.metric == ("brier" if spec.kind == "application" else "answers"):
        raise _bad(
            spec,
            f"metric is “{canary.metric}” and it is a service of the kind “{spec.kind}”",
            "Judge applications by “answers” and models by “brier”, or either by “feedback” (ABTest, Bandit).",
        )
    _check_business(spec)
    _check_groups(spec)
    # A model file that is served as it is has no inputs but its features, and no rollouts.
    if spec.kind == "model" and spec.model and spec.entity is None and spec.key is None:
        raise _bad(spec, "neither entity nor key is named", "Name the input that tells rows apart.")
    for name, value, good, wanted in _ranges(canary):
        if not good:
            raise _bad(spec, f"{name} is {value}", f"Give {wanted}.")


def _ranges(canary: Canary) -> tuple[tuple[str, float, bool, str], ...]:
    """Return of each number of a plan its name, itself, whether it is in its range, and the range in words."""
    above, below = "a number above 0 and below 1", "a number from 0 to below 1"
    by_feedback = canary.metric == "feedback"
    scaled = canary.scale > 0 if canary.loss == "distance" else canary.scale >= 0
    margin = 0 < canary.margin < 1 or (canary.margin == 0 and by_feedback)
    return (
        ("margin", canary.margin, margin, below if by_feedback else above),
        ("alpha", canary.alpha, 0 < canary.alpha < 0.5, "a chance above 0 and below 0.5, such as 0.05"),
        ("min_rows_per_step", canary.min_rows_per_step, canary.min_rows_per_step >= 1, "rows from 1 on"),
        ("patience_days", canary.patience_days, canary.patience_days > 0, "days, more than 0"),
        ("fallback_margin", canary.fallback_margin, 0 <= canary.fallback_margin < 1, below),
        ("drift_margin", canary.drift_margin, 0 <= canary.drift_margin < 1, below),
        ("feedback_margin", canary.feedback_margin, 0 < canary.feedback_margin < 1, above),
        ("cost_margin", canary.cost_margin, 0 < canary.cost_margin < 1, above),
        ("cost_limit_micros", canary.cost_limit_micros, canary.cost_limit_micros >= 0, "0 or more"),
        ("group_margin", canary.group_margin, 0 < canary.group_margin < 1, above),
        ("decision_at", canary.decision_at, 0 < canary.decision_at < 1, above),
        ("contract_margin", canary.contract_margin, 0 <= canary.contract_margin < 1, below),
        (
            "estimate_margin",
            canary.estimate_margin,
            0 <= canary.estimate_margin < 0.25,
            "a number from 0 to below 0.25",
        ),
        ("scale", canary.scale, scaled and math.isfinite(canary.scale), "how far off is as bad as can be, above 0"),
        ("latency_margin", canary.latency_margin, 0 < canary.latency_margin < 1, above),
        (
            "latency_limit_seconds",
            canary.latency_limit_seconds,
            0 <= canary.latency_limit_seconds < 3600,
            "seconds from 0 (not judged) to below 3600",
        ),
    )


def _check_groups(spec: ServiceSpec) -> None:
    canary = spec.rollout
    if canary.groups_needed and not canary.groups:
        raise _bad(spec, "groups are needed and none is named", 'Name inputs: groups=("origin",).')
    if len(set(canary.groups)) != len(canary.groups) or len(canary.groups) > 5:
        raise _bad(spec, f"groups are {list(canary.groups)}", "Name up to five inputs, each once.")
    if canary.groups and (canary.metric == "answers" or spec.kind == "application"):
        raise _bad(
            spec,
            "groups are named, and it is an application",
            "What people ask an application has no inputs to tell groups by: leave groups out.",
        )
    if canary.groups and canary.metric == "feedback" and (canary.groups_needed or canary.group_measure != "error"):
        raise _bad(
            spec,
            "groups are needed, or compared by decisions, in a test on feedback",
            "An A/B test and a bandit roll back where the feedback of a group is surely worse; name groups alone.",
        )


def _check_backup(spec: ServiceSpec) -> None:
    if spec.backup in (None, PREVIOUS):
        return
    if spec.kind == "application":
        raise _bad(
            spec, f"backup is “{spec.backup}”", "An application falls back by its route: ht.route(model, other)."
        )
    if spec.backup == spec.name:
        raise _bad(spec, "backup is the service itself", f"Name another one, a release, or “{PREVIOUS}”.")
    check_name(spec.backup or "", "backup")


def _check_places(spec: ServiceSpec) -> None:
    for environment in spec.at_once:
        check_name(environment, "environment name")
    if PRODUCTION in spec.at_once:
        mend = "Name environments before it: production is changed by rollouts only."
        raise _bad(spec, "at_once names production", mend)


def _check_business(spec: ServiceSpec) -> None:
    canary = spec.rollout
    if canary.metric != "feedback":
        if canary.strategy in ("ab", "bandit"):
            raise _bad(spec, f"strategy is “{canary.strategy}” without feedback", "Use ABTest or Bandit.")
        return
    if not canary.feedback_name:
        raise _bad(spec, "metric is “feedback” and no name of it is given", "Name it: ht.ABTest('bought').")
    if len(canary.steps) != 1 or canary.steps[0] <= 0:
        raise _bad(spec, f"steps are {list(canary.steps)}", "Give both arms a share, such as 50, from the start.")
    checks: tuple[tuple[str, Any, bool, str], ...] = (
        ("worth", canary.worth, 0 < canary.worth < 1, "a difference between 0 and 1"),
        ("floor", canary.floor, 1 <= canary.floor <= 50, "percents from 1 to 50"),
        ("move_hours", canary.move_hours, canary.move_hours >= 1, "hours from 1 on"),
    )
    for name, value, good, wanted in checks:
        if not good:
            raise _bad(spec, f"{name} is {value}", f"Give {wanted}.")


def check_retrain_spec(spec: RetrainSpec) -> None:
    """Raise ConfigurationError for a retrain declaration that makes no sense."""
    check_name(spec.model, "model name")
    if spec.budget_per_year < 0 or spec.cooldown_days < 0:
        raise ConfigurationError(
            f"The retraining of “{spec.model}” cannot be used.",
            why=f"Its budget is {spec.budget_per_year} a year and its cooldown {spec.cooldown_days:g} days.",
            mend="Use numbers from 0 upwards.",
        )


def _bad(spec: ServiceSpec, why: str, mend: str) -> ConfigurationError:
    return ConfigurationError(f"The rollout of the service “{spec.name}” cannot be used.", why=f"Its {why}.", mend=mend)
