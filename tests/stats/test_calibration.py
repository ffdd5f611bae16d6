import numpy as np
import pytest

from holdtrue.stats import BadNumbers
from holdtrue.stats.calibration import DAYS_PER_QUARTER, Limit, chance_per_judgement, limit_below
from holdtrue.stats.resampling import Statistic

WINDOW, EVERY, REFERENCE, QUARTER = 14, 7, 28, 91


def means(days: np.ndarray) -> Statistic:
    return lambda counts: (counts @ days) / counts.sum(axis=1)


def limit(days: np.ndarray, budget: float, least_drop: float = 0.0) -> Limit:
    return limit_below(
        means(days),
        days.size,
        window=WINDOW,
        alarms_per_quarter=budget,
        days_between=EVERY,
        draws=300,
        least_drop=least_drop,
    )


def alarms_in_a_quarter(rng: np.random.Generator, budget: float, drop: float, memory: float) -> tuple[int, bool]:
    """Return the alarms of a quarter after 28 days of reference, and whether the first three looks had one."""
    n = REFERENCE + WINDOW + QUARTER
    noise = rng.normal(0, 0.05, n + 1)
    days = 0.75 + (noise[1:] + memory * noise[:-1]) / np.sqrt(1 + memory**2)
    days[REFERENCE:] -= drop
    found = limit(days[:REFERENCE], budget)
    ends = range(REFERENCE + WINDOW, n + 1, EVERY)
    looks = [days[end - WINDOW : end].mean() < found.limit for end in ends]
    return sum(looks[:13]), any(looks[:3])


@pytest.mark.parametrize("budget", [0.5, 1.0, 2.0])
def test_a_stable_quarter_raises_as_many_alarms_as_the_budget_says(budget: float) -> None:
    rng = np.random.default_rng(0)
    counts = np.array([alarms_in_a_quarter(rng, budget, 0.0, 0.1)[0] for _ in range(300)])
    error = counts.std() / np.sqrt(counts.size)
    assert abs(counts.mean() - budget) < 4 * error + 0.15 * budget


def test_a_real_drop_is_found_in_a_few_weeks() -> None:
    rng = np.random.default_rng(1)
    found = [alarms_in_a_quarter(rng, 0.5, 0.054, 0.1)[1] for _ in range(200)]
    assert np.mean(found) > 0.9


def test_the_limit_states_what_it_promises() -> None:
    days = np.random.default_rng(2).normal(0.75, 0.05, REFERENCE)
    found = limit(days, 1.0)
    assert found.expected_per_quarter == pytest.approx(1.0, rel=1e-6)
    assert found.chance == pytest.approx(EVERY / DAYS_PER_QUARTER)
    assert found.reference == pytest.approx(days.mean())
    assert found.limit < found.reference
    assert found.detectable > found.reference - found.limit
    # The variances of 14 and of 28 days add up.
    assert found.spread == pytest.approx(0.05 * np.sqrt(1 / 14 + 1 / 28), rel=0.35)


def test_a_smaller_budget_gives_a_lower_limit_and_a_least_drop_lowers_it_further() -> None:
    days = np.random.default_rng(3).normal(0.75, 0.001, REFERENCE)
    strict, loose = limit(days, 0.1), limit(days, 4.0)
    assert strict.limit < loose.limit
    floor = limit(days, 1.0, least_drop=0.02)
    assert floor.reference - floor.limit == pytest.approx(0.02)
    assert floor.expected_per_quarter < 0.01


def test_equal_days_promise_no_false_alarm() -> None:
    found = limit(np.full(REFERENCE, 0.7), 1.0, least_drop=0.01)
    assert found.expected_per_quarter == 0.0
    assert found.limit == pytest.approx(0.69)


def test_too_few_days_and_empty_budgets_are_refused() -> None:
    with pytest.raises(BadNumbers, match="6 days of reference"):
        limit(np.ones(6), 1.0)
    for budget in (0.0, -1.0, float("nan")):
        with pytest.raises(BadNumbers, match="is no budget"):
            chance_per_judgement(budget, 7)
    with pytest.raises(BadNumbers, match="too thin"):
        limit(np.full(REFERENCE, np.nan), 1.0)
