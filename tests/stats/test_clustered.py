import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom, permutation_test

from holdtrue.stats import BadNumbers, clustered_share, paired_difference, wilson
from holdtrue.stats.clustered import sign_flip


def slack(truth: float, runs: int) -> float:
    """Return four standard errors of a share of `runs`."""
    return 4.0 * math.sqrt(truth * (1.0 - truth) / runs)


def answers(rng: np.random.Generator, questions: int, repeats: int, rate: float, alike: float) -> Any:
    """Return passed answers bool[questions, repeats] whose chance differs from question to question."""
    a, b = rate * (1.0 - alike) / alike, (1.0 - rate) * (1.0 - alike) / alike
    return rng.random((questions, repeats)) < rng.beta(a, b, questions)[:, None]


@settings(deadline=None)
@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.05, 0.2]))
def test_one_answer_a_question_is_wilsons_interval(share: tuple[int, int], alpha: float) -> None:
    passed, n = share
    values = np.arange(n) < passed
    found, plain = clustered_share(values, np.arange(n), alpha=alpha), wilson(passed, n, alpha)
    assert (found.value, found.lower, found.upper) == pytest.approx((plain.value, plain.lower, plain.upper), abs=1e-9)
    assert found.n == n


@pytest.mark.parametrize("repeats", [1, 5])
@pytest.mark.parametrize(("rate", "alike"), [(0.7, 0.3), (0.9, 0.8)])
@pytest.mark.parametrize("questions", [20, 80])
def test_the_interval_covers_though_answers_to_one_question_are_alike(
    questions: int, repeats: int, rate: float, alike: float
) -> None:
    rng = np.random.default_rng(questions + repeats)
    runs = 400
    cluster = np.repeat(np.arange(questions), repeats)
    covered = naive = 0
    for _ in range(runs):
        passed = answers(rng, questions, repeats, rate, alike).ravel()
        found = clustered_share(passed, cluster)
        covered += found.lower <= rate <= found.upper
        plain = wilson(int(passed.sum()), passed.size)
        naive += plain.lower <= rate <= plain.upper
    assert covered / runs > 0.95 - slack(0.95, runs)
    if repeats == 5 and alike == 0.8:
        assert naive / runs < 0.8


def test_repeats_narrow_the_interval_only_as_far_as_answers_differ_in_them() -> None:
    question = np.repeat(np.arange(100), 5)
    same = np.repeat(np.arange(100) < 80, 5)
    independent = np.random.default_rng(0).random(500) < 0.8
    fixed, free = clustered_share(same, question), clustered_share(independent, question)
    assert (fixed.lower, fixed.upper) == pytest.approx((wilson(80, 100).lower, wilson(80, 100).upper), abs=1e-9)
    assert (free.upper - free.lower) < 0.65 * (fixed.upper - fixed.lower)
    assert fixed.n == free.n == 100


def test_one_more_failure_never_raises_the_lower_limit() -> None:
    passed = np.ones((20, 5))
    before = clustered_share(passed.ravel(), np.repeat(np.arange(20), 5)).lower
    for place in range(60):
        passed[place % 20, place // 20] = 0.0
        after = clustered_share(passed.ravel(), np.repeat(np.arange(20), 5)).lower
        assert after < before + 1e-9
        before = after


def test_a_heavy_question_counts_as_its_weight_and_costs_certainty() -> None:
    values, question = np.array([1.0, 0.0, 1.0, 1.0]), np.arange(4)
    even = clustered_share(values, question)
    heavy = clustered_share(values, question, np.array([1.0, 5.0, 1.0, 1.0]))
    assert even.value == 0.75
    assert heavy.value == pytest.approx(3 / 8)
    scaled = clustered_share(values, question, np.full(4, 7.0))
    assert (scaled.lower, scaled.upper) == pytest.approx((even.lower, even.upper))
    assert heavy.upper - heavy.lower > even.upper - even.lower


def test_weighted_questions_are_covered() -> None:
    rng = np.random.default_rng(3)
    runs, covered = 400, 0
    weight = rng.choice([1.0, 3.0], 60)
    for _ in range(runs):
        found = clustered_share(rng.random(60) < 0.8, np.arange(60), weight)
        covered += found.lower <= 0.8 <= found.upper
    assert covered / runs > 0.95 - slack(0.95, runs)


def test_a_mean_of_scores_is_covered_and_narrower_than_a_share() -> None:
    rng = np.random.default_rng(4)
    runs, covered = 400, 0
    for _ in range(runs):
        found = clustered_share(rng.beta(7, 3, 60), np.arange(60))
        covered += found.lower <= beta(7, 3).mean() <= found.upper
        assert found.upper - found.lower < wilson(42, 60).upper - wilson(42, 60).lower
    assert covered / runs > 0.95 - slack(0.95, runs)


def test_nothing_has_no_share_and_odd_numbers_are_refused() -> None:
    assert math.isnan(clustered_share([], []).value)
    with pytest.raises(BadNumbers, match="from 0 to 1"):
        clustered_share([1.2], [0])
    with pytest.raises(BadNumbers, match="positive"):
        clustered_share([1.0], [0], [0.0])
    with pytest.raises(BadNumbers, match="from −1 to 1"):
        paired_difference([2.0])
    assert math.isnan(paired_difference([]).difference)


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_without_repeats_the_confidence_is_mcnemars_mid_p(won: int, lost: int, same: int) -> None:
    if won + lost + same == 0:
        return
    found = paired_difference([1.0] * won + [-1.0] * lost + [0.0] * same)
    n = won + lost
    theirs = binom.cdf(won - 1, n, 0.5) + 0.5 * binom.pmf(won, n, 0.5) if n else 0.5
    assert found.p_better == pytest.approx(float(theirs), abs=1e-9)
    assert found.difference == pytest.approx((won - lost) / found.n)


def test_the_interval_is_bonett_and_prices() -> None:
    # Bonett & Price (2012): p12 and p21 with one added to each count and two to the total.
    won, lost, n = 9, 1, 50
    found = paired_difference([1.0] * won + [-1.0] * lost + [0.0] * (n - won - lost))
    p, q = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    reach = 1.959964 * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    assert (found.lower, found.upper) == pytest.approx((p - q - reach, p - q + reach), abs=1e-6)
    nothing = paired_difference([0.0] * 20)
    assert nothing.lower < -0.1
    assert nothing.upper > 0.1


def test_the_sign_flip_test_is_that_of_scipy() -> None:
    rng = np.random.default_rng(1)
    # Differences of thirds and fifths are on a grid; weighted ones are not.
    for values in (rng.integers(-3, 5, 12) / 15.0, rng.normal(0.3, 1.0, 12)):

        def total(sample: Any) -> float:
            return float(np.sum(sample))

        theirs = permutation_test(
            (values,), total, permutation_type="samples", alternative="greater", n_resamples=10_000
        )
        upper = theirs.pvalue
        below = permutation_test(
            (values,), total, permutation_type="samples", alternative="less", n_resamples=10_000
        ).pvalue
        middle = (1.0 - upper + below) / 2.0
        assert sign_flip(values) == pytest.approx(middle, abs=0.015)


def test_the_same_differences_give_the_same_confidence() -> None:
    values = np.random.default_rng(2).normal(size=50)
    assert sign_flip(values, 3) == sign_flip(values, 3)
    assert sign_flip(values, 3) == pytest.approx(sign_flip(values, 4), abs=0.02)


@pytest.mark.parametrize(("questions", "repeats"), [(20, 1), (80, 1), (40, 3)])
def test_equal_releases_are_called_better_at_most_one_time_in_twenty(questions: int, repeats: int) -> None:
    rng = np.random.default_rng(questions)
    runs, called, covered = 500, 0, 0
    for _ in range(runs):
        chance = rng.beta(2.8, 1.2, questions)[:, None]
        one, two = ((rng.random((questions, repeats)) < chance).mean(axis=1) for _ in range(2))
        found = paired_difference(two - one)
        called += found.p_better >= 0.95
        covered += found.lower <= 0.0 <= found.upper
    assert called / runs < 0.05 + slack(0.05, runs)
    assert covered / runs > 0.95 - slack(0.95, runs)


def test_a_real_difference_is_found() -> None:
    rng = np.random.default_rng(9)
    runs, called, covered = 200, 0, 0
    for _ in range(runs):
        chance = rng.beta(2.8, 1.2, 120)[:, None]
        one = (rng.random((120, 3)) < chance).mean(axis=1)
        two = (rng.random((120, 3)) < chance + 0.5 * (1.0 - chance)).mean(axis=1)
        found = paired_difference(two - one)
        called += found.p_better >= 0.95
        covered += found.lower <= 0.15 <= found.upper
    assert called / runs > 0.9
    assert covered / runs > 0.95 - slack(0.95, runs)
