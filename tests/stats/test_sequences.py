import json
import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.stats import BadNumbers, MeanSequence, sequences
from tests.sampling import examples

BETS = np.array([0.98, 0.55, 0.3, 0.15, 0.07, 0.03, 0.012])
WEIGHTS = np.array([0.40, 0.18, 0.13, 0.10, 0.08, 0.06, 0.05])


def capital(x: np.ndarray, m: float) -> float:
    """Return the capital of those who bet that the mean is above `m`, written down as plainly as possible."""
    total = 0.0
    for bet, weight in zip(BETS, WEIGHTS, strict=True):
        if bet * (1 + m) < 0.999:
            total += weight * float(np.prod(1 + bet * (x - m)))
    return total


def slow_lower(x: np.ndarray, alpha: float) -> float:
    """Return the largest excluded mean by bisection over the plain capital."""
    low, high = -1.0, 1.0
    if capital(x, low) < 1 / alpha:
        return -1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if capital(x, middle) >= 1 / alpha else (low, middle)
    return low


@pytest.mark.parametrize(("mean", "sd", "n"), [(0.0, 0.05, 300), (0.02, 0.05, 500), (-0.1, 0.3, 200), (0.3, 0.2, 80)])
def test_bounds_are_those_of_the_plain_capital_and_never_tighter(mean: float, sd: float, n: int) -> None:
    x = np.clip(np.random.default_rng(0).normal(mean, sd, n), -1, 1)
    found = sequences.update(sequences.start(), x)
    lower, upper = slow_lower(x, 0.025), -slow_lower(-x, 0.025)
    width = upper - lower
    interval = sequences.bounds(found, 0.05)
    assert lower - 0.08 * width <= interval.lower <= lower + 1e-9
    assert upper - 1e-9 <= interval.upper <= upper + 0.08 * width
    assert interval.lower < x.mean() < interval.upper
    assert interval.n == n


@settings(max_examples=examples(40), deadline=None)
@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=60),
    st.integers(0, 60),
    st.randoms(use_true_random=False),
)
def test_neither_order_nor_batches_matter(values: list[float], cut: int, random: Random) -> None:
    at_once = sequences.bounds(sequences.update(sequences.start(), values))
    shuffled = list(values)
    random.shuffle(shuffled)
    stepwise = sequences.update(sequences.start(), shuffled[:cut])
    stepwise = MeanSequence.from_json(json.loads(json.dumps(stepwise.to_json())))
    stepwise = sequences.update(stepwise, shuffled[cut:])
    again = sequences.bounds(stepwise)
    assert (again.lower, again.upper) == pytest.approx((at_once.lower, at_once.upper), abs=1e-6)
    assert again.n == len(values)


def richest(x: np.ndarray, m: float) -> np.ndarray:
    """Return the largest log capital against `m` that each simulated sequence (row) ever reaches, both sides."""
    sides = []
    for sign in (1.0, -1.0):
        logs = [
            math.log(weight) + np.cumsum(np.log1p(bet * sign * (x - m)), axis=1)
            for bet, weight in zip(BETS, WEIGHTS, strict=True)
        ]
        top = np.maximum.reduce(logs)
        sides.append((top + np.log(sum(np.exp(log - top) for log in logs))).max(axis=1))
    return np.maximum(*sides)


def allowance(alpha: float, runs: int) -> float:
    return alpha + 4 * math.sqrt(alpha * (1 - alpha) / runs)


@pytest.mark.parametrize("shape", ["brier", "skewed", "coin"])
def test_looking_at_every_row_excludes_the_truth_no_more_often_than_promised(shape: str) -> None:
    rng = np.random.default_rng(1)
    runs, n = 800, 1500
    if shape == "brier":
        x = np.clip(rng.normal(0, 0.05, (runs, n)), -1, 1)
    elif shape == "skewed":
        x = rng.beta(0.05, 0.95, (runs, n)) - 0.05
    else:
        x = rng.choice([-1.0, 1.0], (runs, n))
    reached = richest(x, 0.0)
    for alpha in (0.02, 0.05, 0.2):
        assert (reached >= math.log(2 / alpha)).mean() <= allowance(alpha, runs)


def test_a_z_test_under_the_same_looks_is_wrong_many_times_more_often() -> None:
    """Show that the simulation can fail: the test everybody uses does."""
    x = np.clip(np.random.default_rng(2).normal(0, 0.05, (400, 2000)), -1, 1)
    n = np.arange(1, 2001)
    mean = np.cumsum(x, axis=1) / n
    z = np.abs(mean) / (0.05 / np.sqrt(n))
    assert (z[:, 50:] > 1.96).any(axis=1).mean() > 0.25
    assert (richest(x, 0.0) >= math.log(40)).mean() < 0.06


def test_the_running_mean_is_covered_when_the_base_rate_moves_with_the_hour() -> None:
    rng = np.random.default_rng(3)
    runs, n = 300, 480
    hour = np.arange(n) % 48
    mean = 0.04 * np.sin(2 * np.pi * hour / 48) + 0.02 * np.sign(np.sin(np.arange(n) / 90))
    x = np.clip(rng.normal(mean, 0.05, (runs, n)), -1, 1)
    running = np.cumsum(mean) / np.arange(1, n + 1)
    missed = np.zeros(runs, np.bool_)
    for t in range(8, n, 8):
        for sign in (1.0, -1.0):
            logs = [
                math.log(weight) + np.log1p(bet * sign * (x[:, :t] - running[t - 1])).sum(axis=1)
                for bet, weight in zip(BETS, WEIGHTS, strict=True)
            ]
            missed |= np.logaddexp.reduce(logs, axis=0) >= math.log(40)
    assert missed.mean() <= allowance(0.05, runs)


def test_the_module_itself_keeps_its_promise_when_looked_at_every_ten_rows() -> None:
    rng = np.random.default_rng(4)
    runs, wrong = 60, 0
    for _ in range(runs):
        sequence = sequences.start()
        x = np.clip(rng.normal(0.01, 0.08, 400), -1, 1)
        seen = False
        for begin in range(0, 400, 10):
            sequence = sequences.update(sequence, x[begin : begin + 10])
            interval = sequences.bounds(sequence, 0.05)
            seen |= not interval.lower <= 0.01 <= interval.upper
        wrong += seen
    assert wrong / runs <= allowance(0.05, runs)


@pytest.mark.parametrize(("effect", "sd"), [(0.02, 0.05), (0.01, 0.05), (0.005, 0.05), (0.02, 0.1)])
def test_power_is_what_rows_needed_says(effect: float, sd: float) -> None:
    """Measured medians: 250 rows for 0.02, 550 for 0.01 (sd 0.05); a normal test of fixed size needs 50 and 200."""
    rng = np.random.default_rng(5)
    said = sequences.rows_needed(effect, sd, alpha=0.025)
    x = np.clip(rng.normal(effect, sd, (200, int(said * 3))), -1, 1)
    logs = [math.log(weight) + np.cumsum(np.log1p(bet * x), axis=1) for bet, weight in zip(BETS, WEIGHTS, strict=True)]
    rich = np.logaddexp.reduce(logs, axis=0) >= math.log(40)
    assert rich.any(axis=1).mean() > 0.95
    needed = np.where(rich.any(axis=1), rich.argmax(axis=1) + 1, x.shape[1])
    assert 0.6 * said < np.median(needed) < 1.3 * said


def test_a_margin_is_passed_by_an_equal_challenger() -> None:
    rng = np.random.default_rng(6)
    passed = 0
    for _ in range(40):
        sequence = sequences.update(sequences.start(), np.clip(rng.normal(0, 0.05, 900), -1, 1))
        passed += sequences.upper_bound(sequence, 0.025) < 0.01
    assert passed >= 36


def test_rows_needed_is_infinite_for_no_effect_and_falls_with_the_effect() -> None:
    assert sequences.rows_needed(0.0, 0.05) == math.inf
    needed = [sequences.rows_needed(effect, 0.05) for effect in (0.003, 0.01, 0.02, 0.1)]
    assert needed == sorted(needed, reverse=True)
    # On [0, 1] distances and spreads are half as large in units of the range as on [-1, 1].
    assert sequences.rows_needed(0.01, 0.05, low=0, high=1) == sequences.rows_needed(0.02, 0.1)


def test_rates_on_zero_to_one_are_covered() -> None:
    x = (np.random.default_rng(7).random(3000) < 0.02).astype(float)
    interval = sequences.bounds(sequences.update(sequences.start(0.0, 1.0), x))
    assert 0.0 <= interval.lower < 0.02 < interval.upper < 0.06
    assert interval.value == pytest.approx(x.mean())


def test_the_beginning_knows_nothing() -> None:
    empty = sequences.start()
    interval = sequences.bounds(empty)
    assert (interval.lower, interval.upper, interval.n) == (-1.0, 1.0, 0)
    assert math.isnan(interval.value)
    assert math.isnan(empty.sd)
    assert sequences.update(empty, []) == empty


def test_a_constant_sequence_of_extremes_closes_in() -> None:
    interval = sequences.bounds(sequences.update(sequences.start(), np.ones(2000)))
    assert 0.9 < interval.lower <= interval.upper == 1.0


def test_mean_and_sd_are_those_of_the_rows() -> None:
    x = np.random.default_rng(8).normal(0.1, 0.05, 500)
    sequence = sequences.update(sequences.update(sequences.start(), x[:123]), x[123:])
    assert sequence.mean == pytest.approx(x.mean())
    assert sequence.sd == pytest.approx(x.std(ddof=1))


@pytest.mark.parametrize("values", [[0.1, np.nan], [1.5], [-1.0001], [np.inf]])
def test_rows_outside_the_bounds_are_refused(values: list[float]) -> None:
    with pytest.raises(BadNumbers, match="not in"):
        sequences.update(sequences.start(), values)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (0.0, math.inf), (math.nan, 1.0)])
def test_bounds_that_are_none_are_refused(low: float, high: float) -> None:
    with pytest.raises(BadNumbers, match="finite bounds"):
        sequences.start(low, high)


def test_a_stored_sequence_of_another_layout_is_refused() -> None:
    data = sequences.start().to_json()
    data["above"] = [row[:-1] for row in data["above"]]
    with pytest.raises(BadNumbers, match="another layout"):
        MeanSequence.from_json(data)
