"""Judge a rollout on a business metric: what POST /feedback says of each arm's answers under one name, more is better.

The arms are compared as those of applications are, in blocks of neighbours in time, so that one may look as often as
one likes, the hour is not mistaken for the release, and a bandit may move the shares.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import pyarrow as pa

from holdtrue.core.clock import microseconds
from holdtrue.delivery.arms import FAILED, FEEDBACK, GROUP, LATENCY, ArmsJudging, Difference, absorb_arms, difference_of
from holdtrue.delivery.model import Canary, Rollout
from holdtrue.delivery.rules import Judgement
from holdtrue.stats.intervals import normal_below

_GRAIN: Final = 5.0
_LEAST_ROWS: Final = 50


def absorb_business(
    judging: ArmsJudging, rollout: Rollout, predictions: pa.Table, labels: pa.Table, now: datetime
) -> ArmsJudging:
    """Return `judging` with new answers counted, and the first feedback under the metric's name on each."""
    # A model's scores are no checks.
    said = _named(labels, rollout.canary.feedback_name)
    return absorb_arms(judging, rollout, _answers(predictions), said, now, checked=False)


def _answers(predictions: pa.Table) -> pa.Table:
    """Return only what was answered."""
    if "role" not in predictions.column_names:
        return predictions
    answered = [role != "shadow" for role in predictions.column("role").to_pylist()]
    return predictions.filter(pa.array(answered, pa.bool_()))


def _named(labels: pa.Table, name: str) -> pa.Table:
    if "name" not in labels.column_names:
        return labels.slice(0, 0)
    return labels.filter(pa.array([each == name for each in labels.column("name").to_pylist()], pa.bool_()))


def judge_business(canary: Canary, judging: ArmsJudging, rollout: Rollout, now: datetime) -> tuple[Judgement, Any]:
    """Decide the next move of an A/B test or a bandit; return the judgement and the facts it rests on.

    Half of alpha goes to “worse”, shared with failed and late answers and with groups, and half to “better”.
    """
    margins = {FAILED: canary.fallback_margin, FEEDBACK: canary.margin}
    if canary.latency_limit_seconds:
        margins[LATENCY] = canary.latency_margin
    worse = canary.alpha / (2.0 * (len(margins) + bool(canary.groups)))
    known = (difference_of(judging, name, margin, worse, canary.alpha / 2.0) for name, margin in margins.items())
    found = [each for each in known if each is not None]
    groups = list(_groups(canary, judging, worse)) if canary.groups else []
    days = (now - rollout.started_at) / timedelta(days=1)
    answers = min(judging.rated("champion"), judging.rated("challenger"))
    facts = {
        "answers": {arm: judging.answers(arm) for arm in ("champion", "challenger")},
        "rated": {arm: judging.rated(arm) for arm in ("champion", "challenger")},
        "days": days,
        "share": rollout.percent,
        "measures": [each.facts() for each in (*found, *groups)],
    }
    harmed = next((each for each in groups if each.lower > each.margin), None)
    if harmed is not None:
        why = f"A group is worse off by more than {harmed.margin:g}: {harmed.told}."
        return Judgement("roll_back", why), facts
    return _decide(canary, judging, rollout, found, answers, days), facts


def _groups(canary: Canary, judging: ArmsJudging, alpha: float) -> Iterator[Difference]:
    """Yield what is known of the feedback in each group that has enough of it in both arms.

    Within a group, both arms' answers are compared as on the whole: in blocks of neighbours in time. The k-th value of
    an input gets 1/(k·(k + 1)) of the error of that input: however many come, together they get all of it.
    """
    numbers = Counter[str]()
    for measure in judging.matched:
        if not measure.startswith(GROUP):
            continue
        place, _, value = measure.removeprefix(GROUP).partition("|")
        numbers[place] += 1
        each = alpha / (len(canary.groups) * numbers[place] * (numbers[place] + 1))
        known = difference_of(judging, measure, canary.group_margin, each, canary.alpha / 2.0)
        if known is not None and min(known.n_champion, known.n_challenger) >= _LEAST_ROWS:
            words = f"the share of bad feedback where {canary.groups[int(place)]} is “{value}”"
            yield replace(known, words=words)


def _decide(
    canary: Canary, judging: ArmsJudging, rollout: Rollout, found: list[Difference], answers: int, days: float
) -> Judgement:
    known = {each.measure: each for each in found}
    worse = [each for each in found if each.lower > 0.0]
    if worse:
        return Judgement("roll_back", f"It is worse than the champion: {worse[0].told}.")
    metric = known.get(FEEDBACK)
    if metric is None:
        if days >= canary.patience_days:
            return Judgement("stop", f"After {days:.0f} days no “{canary.feedback_name}” came for both arms.")
        return Judgement("wait", f"No “{canary.feedback_name}” came for both arms yet.")
    told = f"{metric.told} (“{canary.feedback_name}”)"
    if answers >= canary.min_rows_per_step:
        beside = [FAILED, *([LATENCY] if canary.latency_limit_seconds else [])]
        open_yet = [name for name in beside if name not in known or known[name].upper >= known[name].margin]
        if metric.upper < canary.margin:
            words = "better than" if canary.margin == 0.0 else f"at most {canary.margin:g} worse than"
            if not open_yet:
                return Judgement("promote", f"It is {words} the champion: {told}.")
            late = days >= canary.patience_days
            before = f"After {days:.0f} days it is" if late else "It is"
            why = f"{before} {words} the champion: {told}. {_unshown(known.get(open_yet[0]))}"
            return Judgement("stop" if late else "wait", why)
        if metric.lower > -canary.worth and metric.upper < canary.worth:
            return Judgement("stop", f"No difference of {canary.worth:g} or more is left: {told}.")
    if days >= canary.patience_days:
        return Judgement("stop", f"After {days:.0f} days neither is shown to be better: {told}.")
    more = max(canary.min_rows_per_step - answers, 0)
    return Judgement("wait", f"Neither is shown to be better yet: {told}.", more or None)


def _unshown(beside: Difference | None) -> str:
    """Say what a release that is good enough by its metric still waits for."""
    if beside is None:
        return "How often its answers fail or are late is not known yet."
    return f"That this too is less than {beside.margin:g} worse is not shown yet: {beside.told}."


def moved(canary: Canary, judging: ArmsJudging, rollout: Rollout, now: datetime) -> ArmsJudging:
    """Return `judging` with the bandit's present share, moved if it is time.

    The share is the probability that the challenger is the better one, by the normal approximation of the mean of block
    differences, in steps of 5 percent, and at least the floor for either.
    """
    if canary.strategy != "bandit":
        return judging
    at = judging.share_at or microseconds(rollout.started_at)
    if judging.share is not None and microseconds(now) - at < canary.move_hours * 3_600_000_000:
        return judging
    blocks = judging.matched[FEEDBACK].blocks if FEEDBACK in judging.matched else None
    if blocks is None or blocks.n < 10 or not blocks.sd > 0.0:
        share = 50.0
    else:
        share = 100.0 * normal_below(-blocks.mean / (blocks.sd / math.sqrt(blocks.n)))
    share = min(max(_GRAIN * round(share / _GRAIN), canary.floor), 100.0 - canary.floor)
    return replace(judging, share=share, share_at=microseconds(now))
