"""What 1,000 rollouts come to: ours against the rules that people use, on the same requests of the same seeds.

Peers are written down here, since they are rules and not programs: both look every hour and give the challenger 5, 25
and 50 percent of 50,000 requests in turn, as a canary by the clock does. The hourly z-test compares both arms' error
rates so far and rolls back when the challenger's is higher at the 5 % level (one side); the ratio rule rolls back when
the challenger's rate of the last hour, with at least 30 requests, is more than 1.1 times the champion's. Rollouts
judged by each arm's own answers cost more to play, so a quarter of them is played. Where each request is answered by
one arm, 50,000 requests at 5 % cannot tell 0.22 from 0.20, whatever the rule (docs/decisions/0040): the goal is for
pairs, and for halves from the start.
"""

import math
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np

from bench.rows import own_row
from holdtrue.delivery import Canary, Scenario, Simulation, simulate
from holdtrue.delivery.simulating import Traffic, traffic

RUNS = 1000
_SHARES = (0.05, 0.25, 0.5)
_LEAST = 30
Rule = Callable[[np.ndarray, np.ndarray, np.ndarray], bool]


def z_test(hours: np.ndarray, arms: np.ndarray, errors: np.ndarray) -> bool:
    """Tell whether a z-test of the error rates so far, looked at every hour, ever rolls back."""
    for end in np.searchsorted(hours, np.arange(1, int(hours[-1]) + 2)):
        mine, theirs = errors[:end][arms[:end]], errors[:end][~arms[:end]]
        if mine.size < _LEAST or theirs.size < _LEAST:
            continue
        pooled = errors[:end].mean()
        error = math.sqrt(pooled * (1.0 - pooled) * (1.0 / mine.size + 1.0 / theirs.size))
        if error > 0.0 and (mine.mean() - theirs.mean()) / error > 1.645:
            return True
    return False


def ratio(hours: np.ndarray, arms: np.ndarray, errors: np.ndarray) -> bool:
    """Tell whether “more than 1.1 times the baseline in the last hour” ever rolls back."""
    begin = 0
    for end in np.searchsorted(hours, np.arange(1, int(hours[-1]) + 2)):
        mine, theirs = errors[begin:end][arms[begin:end]], errors[begin:end][~arms[begin:end]]
        begin = int(end)
        if mine.size >= _LEAST and theirs.size >= _LEAST and mine.mean() > 1.1 * theirs.mean():
            return True
    return False


_RULES: dict[str, Rule] = {"hourly z-test": z_test, "1.1 times the baseline": ratio}


def _rolled_back(rule: str, scenario: Scenario, first: int, last: int) -> int:
    return sum(_by_the_clock(rule, traffic(scenario, (0, number))) for number in range(first, last))


def _by_the_clock(rule: str, requests: Traffic) -> bool:
    """Return whether a rule rolls back a canary whose share grows by the clock."""
    third = np.minimum(np.arange(requests.day.size) * 3 // requests.day.size, 2)
    arms = requests.place < np.asarray(_SHARES)[third]
    errors = np.where(arms, requests.challenger, requests.champion)
    return _RULES[rule](requests.day * 24.0, arms, errors)


def _peer(rule: str, scenario: Scenario) -> float:
    cores = os.cpu_count() or 1
    limits = [RUNS * part // (4 * cores) for part in range(4 * cores + 1)]
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_rolled_back, rule, scenario, limits[at], limits[at + 1]) for at in range(4 * cores)]
        return sum(job.result() for job in jobs) / RUNS


def run() -> list[dict[str, Any]]:
    """Play equal and worse releases, with a steady base rate and one that moves with the hour."""
    rows: list[dict[str, Any]] = []
    for how, swing in (("steady", 0.0), ("moving by the hour", 0.1)):
        rows += _equal(how, Scenario(swing=swing))
        rows += _worse(how, swing, 0.02, 2.0)
        rows += _worse(how, swing, 0.05, 0.0)
    return rows


def _ours(words: str, scenario: Scenario) -> Simulation:
    runs = RUNS if words == _PAIRS else RUNS // 4
    return simulate(_PLANS[words], scenario, runs, workers=os.cpu_count() or 1)


def _equal(how: str, scenario: Scenario) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    found = {words: _percent(_ours(words, scenario), "rolled_back") for words in _PLANS}
    for rule in _RULES:
        theirs = 100.0 * _peer(rule, scenario)
        for words, ours in found.items():
            rows.append(
                own_row("rollouts", f"equal release rolled back, {how}, {words}", "%", ours)
                | {
                    "peer": rule,
                    "peer_version": "written here",
                    "theirs": theirs,
                    "ratio": theirs / ours if ours else None,
                    "goal": "≤ 2",
                    "met": ours <= 2.0,
                }
            )
    return rows


def _percent(found: Simulation, ending: str) -> float:
    return 100.0 * found.endings[ending] / found.runs


_PAIRS, _HALVES = "pairs", "each arm's own, half from the start"
_PLANS = {
    _PAIRS: Canary(),
    "each arm's own": Canary(metric="answers"),
    _HALVES: Canary(metric="answers", steps=(50.0,)),
}


def _worse(how: str, swing: float, effect: float, goal: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for words, plan in _PLANS.items():
        found = _ours(words, Scenario(swing=swing, effect=effect))
        missed, let_in = 100.0 - _percent(found, "rolled_back"), _percent(found, "promoted")
        what = f"{effect:g} worse, {how}, {words}"
        bound = {"goal": f"≤ {goal:g}", "met": missed <= goal} if words in (_PAIRS, _HALVES) else {}
        rows.append(own_row("rollouts", f"{what}: not found in 50,000 requests", "%", missed) | bound)
        rows.append(own_row("rollouts", f"{what}: promoted", "%", let_in) | {"goal": "≤ 2", "met": let_in <= 2.0})
        if found.early is not None and len(plan.steps) > 1:
            rows.append(
                own_row("rollouts", f"{what}: found before the last step", "%", 100.0 * found.early, 50.0, more=True)
            )
        if found.requests is not None:
            rows.append(own_row("rollouts", f"{what}: requests until it is decided", "n", found.requests.middle))
    return rows
