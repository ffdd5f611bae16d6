"""About how long a rollout of an equal release would take at the present traffic, before it begins."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from holdtrue import monitoring
from holdtrue.delivery import store
from holdtrue.delivery.arms import CHECKS, FEEDBACK, ArmsJudging
from holdtrue.delivery.judging import Judging
from holdtrue.delivery.model import PRODUCTION, Canary, Rollout
from holdtrue.delivery.reading import stream
from holdtrue.delivery.service import need_service
from holdtrue.stats.sequences import rows_needed

_DAYS: Final = 14
_LEAST: Final = 100
_PAIR_SD: Final = 0.1
_RATE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Estimate:
    """Say about how many rows and days an equal release would need; None where the traffic is not known.

    `per_day` is how many rows a day count towards it (labelled ones, or answers); `why` tells what that rests on.
    """

    service: str
    rows: int | None
    days: float | None
    per_day: float | None
    why: str


def estimate(
    connection: sa.Connection, project: str, service: str, now: datetime, environment: str = PRODUCTION
) -> Estimate:
    """Return the estimate for the declared rollout of a service in an environment; raise NotFound.

    It uses the traffic of the last 14 days, and how much losses differed in the newest rollout that has enough rows.
    """
    canary = need_service(connection, project, service).spec.rollout
    answered, share = _traffic(connection, project, stream(connection, project, service, environment), now)
    past = store.list_rollouts(connection, project, service=service, limit=10)
    if canary.metric == "brier":
        needed, words = _pairs(canary, past)
        per_day = answered * share
    else:
        needed, words = _arms(canary, past)
        per_day = answered
    whole = math.isfinite(needed)
    rows = int(needed) if whole else None
    days = needed / per_day if per_day and whole else None
    patience = (
        ""
        if days is None or days < canary.patience_days
        else (f" Its patience of {canary.patience_days:g} days ends before: it would be stopped undecided.")
    )
    traffic = (
        f"{per_day:,.0f} {'labelled rows' if canary.metric == 'brier' else 'answers'} a day came lately"
        if per_day
        else f"no whole day with traffic is known of the last {_DAYS}"
    )
    return Estimate(service, rows, days, per_day or None, f"{words}; {traffic}.{patience}")


def _traffic(connection: sa.Connection, project: str, service: str, now: datetime) -> tuple[float, float]:
    """Return answers a day of the last full days that have any, and the share of due labels that came."""
    windows = monitoring.windows(
        connection,
        project,
        service,
        grain="day",
        release="all",
        since=(now - timedelta(days=_DAYS)).date(),
        until=now.date(),
    )
    known = [each for each in windows if each.n]
    due = sum(each.due for each in known)
    labelled = sum(each.labelled_due for each in known) / due if due else 0.0
    return (sum(each.n for each in known) / len(known) if known else 0.0), labelled


def _pairs(canary: Canary, past: list[Rollout]) -> tuple[float, str]:
    """Return how many labelled rows a paired comparison needs, and on what that rests."""
    sd, words = _PAIR_SD, f"losses are assumed to differ by {_PAIR_SD:g} a row (standard deviation)"
    for each in past:
        if each.canary.metric == "brier" and each.judging is not None:
            difference = Judging.from_json(each.judging).difference
            if difference.n >= _LEAST:
                sd, words = difference.sd, f"losses differed by {difference.sd:.3f} a row in {each.id}"
                break
    steps = canary.min_rows_per_step * len(canary.steps)
    needed = max(rows_needed(canary.margin, sd, canary.alpha / 2.0), steps)
    # Without a shadow, only the rows that the challenger answers are scored by both.
    return (needed if canary.shadow else needed * 100.0 / canary.steps[0]), words


def _arms(canary: Canary, past: list[Rollout]) -> tuple[float, str]:
    """Return how many answers a comparison of arms needs over all its steps, and on what that rests.

    A row of an arm with the share s tells s·(1 − s) as much as a pair would, which is kept over the steps.
    """
    measure = FEEDBACK if canary.metric == "feedback" else CHECKS
    rate, words = _RATE, f"one of {1 / _RATE:.0f} answers is assumed to be bad"
    for each in past:
        found = _bad_rate(each, measure)
        if found is not None:
            rate, words = found, f"{found:.1%} of the champion's answers were bad in {each.id}"
            break
    spread = math.sqrt(max(rate * (1.0 - rate), 1e-4))
    told = requests = 0.0
    shares = [each / 100.0 for each in canary.steps]
    for number, share in enumerate(shares):
        goal = canary.margin or canary.worth
        limit = min(goal / (shares[number + 1] if number + 1 < len(shares) else 1.0), 1.0)
        wanted = rows_needed(limit, 2.0 * spread, canary.alpha / 2.0) / 4.0
        weight = share * (1.0 - share)
        now = max((wanted - told) / weight, canary.min_rows_per_step / share)
        told, requests = told + now * weight, requests + now
    return math.ceil(requests), words


def _bad_rate(rollout: Rollout, measure: str) -> float | None:
    if rollout.canary.metric == "brier" or rollout.judging is None:
        return None
    judging: Any = ArmsJudging.from_json(rollout.judging)
    mine = judging.sequences.get("champion", {}).get(measure)
    return mine.mean if mine is not None and mine.n >= _LEAST else None
