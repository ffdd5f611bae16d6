"""The ways in which a rollout is judged: on rows that both releases scored, or on each arm's own answers."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from holdtrue.core.codec import dump
from holdtrue.delivery import rules
from holdtrue.delivery.arms import ArmsJudging, absorb_arms, judge_arms
from holdtrue.delivery.business import absorb_business, judge_business, moved
from holdtrue.delivery.judging import Judging, absorb, absorb_refusals, facts_of
from holdtrue.delivery.model import Canary, Rollout
from holdtrue.delivery.rules import Judgement


@dataclass(frozen=True, slots=True)
class Strategy:
    """Hold one way of judging.

    `truth` is the kind of record that says afterwards how good an answer was, read for the service or, with
    `everywhere`, for all of the project. `move` sets the share of a rollout that waits, where that is not its step's.
    `refusals` counts requests that a contract refused, where they are judged.
    """

    truth: str
    everywhere: bool
    start: Callable[[str], Any]
    load: Callable[[dict[str, Any]], Any]
    absorb: Callable[[Any, Rollout, pa.Table, pa.Table, datetime], Any]
    judge: Callable[[Canary, Any, Rollout, datetime], tuple[Judgement, Any]]
    move: Callable[[Canary, Any, Rollout, datetime], Any] = lambda canary, judging, rollout, now: judging
    refusals: Callable[[Any, Rollout, pa.Table], Any] | None = None


def strategy_of(canary: Canary) -> Strategy:
    """Return how rollouts with this canary are judged."""
    if canary.metric == "feedback":
        return Strategy(
            truth="feedback",
            everywhere=True,
            start=lambda cursor: ArmsJudging(cursor, cursor),
            load=ArmsJudging.from_json,
            absorb=absorb_business,
            judge=judge_business,
            move=moved,
        )
    if canary.metric == "answers":
        return Strategy(
            truth="feedback",
            everywhere=True,
            start=lambda cursor: ArmsJudging(cursor, cursor),
            load=ArmsJudging.from_json,
            absorb=absorb_arms,
            judge=judge_arms,
        )
    return Strategy(
        truth="label",
        everywhere=False,
        start=lambda cursor: Judging(cursor, cursor),
        load=Judging.from_json,
        absorb=absorb,
        judge=_judge_pairs,
        refusals=absorb_refusals,
    )


def _judge_pairs(canary: Canary, judging: Judging, rollout: Rollout, now: datetime) -> tuple[Judgement, Any]:
    facts = facts_of(judging, rollout, now)
    found = rules.judge(canary, facts)
    return rules.shadowed(found) if canary.strategy == "shadow" else found, dump(facts)
