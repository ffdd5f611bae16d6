"""Thresholds that keep a promise: an alarm limit from reference blocks and a budget of false alarms.

Days differ from days, also when nothing is wrong. So a new window is not compared with what independent rows
would do, but with what windows drawn from the reference's own days do: the limit is the quantile of
(drawn window − drawn reference) that the budget allows. The second draw stands for how little the reference
itself is known. The quantile is Student's, with one degree of freedom less than there are reference days: a
spread known from 28 days is uncertain, and the empirical quantile of a small tail is worse.
"""

import math
from dataclasses import dataclass

import numpy as np

from holdtrue.stats.arrays import Floats
from holdtrue.stats.errors import BadNumbers
from holdtrue.stats.intervals import student_below, student_quantile
from holdtrue.stats.resampling import Statistic, draw_counts

DAYS_PER_QUARTER = 365.25 / 4.0


@dataclass(frozen=True, slots=True)
class Limit:
    """Hold an alarm limit and what it promises.

    `spread` is the standard deviation of (window − reference) when nothing is wrong, `expected_per_quarter`
    the number of false alarms, `detectable` the drop that one judgement finds with probability 0.8.
    """

    reference: float
    limit: float
    spread: float
    chance: float
    expected_per_quarter: float
    detectable: float
    blocks: int


def chance_per_judgement(alarms_per_quarter: float, days_between: float) -> float:
    """Return how likely one judgement may raise a false alarm, when one is made every `days_between` days."""
    if not alarms_per_quarter > 0.0 or not days_between > 0.0:
        raise BadNumbers(
            f"{alarms_per_quarter} alarms per quarter, judged every {days_between} days, is no budget.",
            why="A monitor that may never be wrong can never be right.",
            mend="Give a budget above 0, for example 1 alarm per quarter.",
        )
    return min(alarms_per_quarter * days_between / DAYS_PER_QUARTER, 0.5)


def limit_below(
    statistic: Statistic,
    blocks: int,
    *,
    window: int,
    alarms_per_quarter: float,
    days_between: float,
    least_drop: float = 0.0,
    draws: int = 1000,
    seed: int = 0,
    run: int = 2,
) -> Limit:
    """Return the limit below which a window of `window` blocks raises an alarm.

    `statistic` maps counts float64[draws, blocks] of the reference's blocks to values; `least_drop` is the
    smallest drop that is worth an alarm. Runs of `run` neighbouring days are drawn together. With fewer than
    7 blocks BadNumbers is raised: nothing is known then of how days differ.
    """
    if blocks < 7:
        raise BadNumbers(
            f"{blocks} days of reference cannot calibrate an alarm.",
            why="How much days differ is not known from fewer than 7 of them.",
            mend="Wait for more days with labels, or give a longer reference.",
            facts={"days": blocks},
        )
    reference = float(statistic(np.ones((1, blocks)))[0])
    spread = _spread(statistic, blocks, window, draws, seed, run)
    chance = chance_per_judgement(alarms_per_quarter, days_between)
    reach = max(-student_quantile(chance, blocks - 1) * spread, least_drop)
    expected = student_below(-reach / spread, blocks - 1) * DAYS_PER_QUARTER / days_between if spread > 0.0 else 0.0
    power = student_quantile(0.8, blocks - 1)
    return Limit(reference, reference - reach, spread, chance, expected, reach + power * spread, blocks)


def _spread(statistic: Statistic, blocks: int, window: int, draws: int, seed: int, run: int) -> float:
    windows = statistic(draw_counts(blocks, draws, seed, run=run, size=window))
    references = statistic(draw_counts(blocks, draws, seed + 1, run=run))
    differences: Floats = windows - references
    differences = differences[np.isfinite(differences)]
    if differences.size < draws // 2:
        raise BadNumbers(
            "The reference is too thin to calibrate an alarm.",
            why=f"In {draws - differences.size} of {draws} random windows the statistic is not defined.",
            mend="Take a longer reference, or a longer window.",
        )
    # k runs drawn from k runs vary less than the runs themselves do, by (k − 1)/k.
    runs = max(blocks / run, 2.0)
    return float(differences.std()) * math.sqrt(runs / (runs - 1.0))
