from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from holdtrue.stats import BadNumbers, OneClassOnly, auc_difference, auc_interval, pair_counts, roc_auc
from holdtrue.stats.auc import hanley_mcneil, placements


def slow_auc(y: np.ndarray, score: np.ndarray) -> float:
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in score[y] for b in score[~y]]
    return float(np.mean(wins))


def slow_delong(y: np.ndarray, score: np.ndarray) -> float:
    kernel = np.where(score[y][:, None] > score[~y], 1.0, np.where(score[y][:, None] == score[~y], 0.5, 0.0))
    return kernel.mean(axis=1).var(ddof=1) / y.sum() + kernel.mean(axis=0).var(ddof=1) / (~y).sum()


def rows(rng: np.random.Generator, n: int, signal: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    y = rng.random(n) < 0.3
    y[:2] = True, False
    return y, rng.normal(size=n) + signal * y


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40))
def test_area_equals_the_count_of_pairs_ties_included(pairs: list[tuple[bool, int]]) -> None:
    y = np.array([label for label, _ in pairs])
    score = np.array([value for _, value in pairs], np.float64)
    if y.all() or not y.any():
        with pytest.raises(OneClassOnly):
            roc_auc(y, score)
        return
    assert roc_auc(y, score) == pytest.approx(slow_auc(y, score), abs=1e-12)
    assert roc_auc(y, score) == pytest.approx(roc_auc_score(y, score), abs=1e-12)
    assert roc_auc(~y, -score) == pytest.approx(roc_auc(y, score), abs=1e-12)


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_delong_variance_equals_its_definition(seed: int) -> None:
    y, score = rows(np.random.default_rng(seed), 40)
    y[2:4] = True, False
    score = np.round(score, 1)
    interval = auc_interval(y, score, alpha=0.05)
    if not 0.0 < interval.value < 1.0:
        return
    # The interval is symmetric on the logit scale, where its half width is z·error / (a·(1 − a)).
    half = (np.log(interval.upper / (1 - interval.upper)) - np.log(interval.lower / (1 - interval.lower))) / 2
    error = half / 1.959964 * interval.value * (1 - interval.value)
    assert error**2 == pytest.approx(slow_delong(y, score), rel=1e-4)


def test_delong_agrees_with_the_bootstrap_of_rows() -> None:
    rng = np.random.default_rng(1)
    y, score = rows(rng, 1500)
    interval = auc_interval(y, score)
    draws = []
    for _ in range(600):
        take = rng.integers(0, y.size, y.size)
        draws.append(roc_auc(y[take], score[take]))
    low, high = np.quantile(draws, [0.025, 0.975])
    assert interval.upper - interval.lower == pytest.approx(high - low, rel=0.12)
    assert interval.lower == pytest.approx(low, abs=0.01)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    truth = 0.7602499389065233  # Φ(1/√2) for two normals one standard deviation apart
    runs = 800
    covered = 0
    for _ in range(runs):
        interval = auc_interval(*rows(rng, 200))
        covered += interval.lower <= truth <= interval.upper
    # 0.95 ± 4 binomial standard errors.
    assert abs(covered / runs - 0.95) < 4 * np.sqrt(0.95 * 0.05 / runs)


def days_that_differ(rng: np.random.Generator, k: int = 25, size: int = 60):
    day = np.repeat(np.arange(k), size)
    shift = rng.normal(size=k)[day]
    y = rng.random(day.size) < 1 / (1 + np.exp(-(shift - 1)))
    return y, rng.normal(size=day.size) + 0.8 * y - 0.8 * shift, day


def test_clustered_interval_covers_where_days_differ_and_the_plain_one_does_not() -> None:
    rng = np.random.default_rng(3)
    big = [days_that_differ(rng, k=400) for _ in range(12)]
    truth = float(np.mean([roc_auc(y, score) for y, score, _ in big]))
    runs, plain, clustered = 300, 0, 0
    for _ in range(runs):
        y, score, day = days_that_differ(rng)
        a, b = auc_interval(y, score), auc_interval(y, score, blocks=day)
        plain += a.lower <= truth <= a.upper
        clustered += b.lower <= truth <= b.upper
    # Measured over 600 runs: 0.91 for 25 days that differ this much, where the jackknife has 0.92.
    assert clustered / runs > 0.88
    assert plain / runs < 0.75


def test_paired_difference_agrees_with_the_bootstrap_and_is_tighter_than_unpaired() -> None:
    rng = np.random.default_rng(4)
    y = rng.random(1200) < 0.3
    common = rng.normal(size=y.size) + y
    first, second = common + 0.5 * rng.normal(size=y.size), common + 0.3 * rng.normal(size=y.size)
    found = auc_difference(y, first, second)
    draws = []
    for _ in range(500):
        take = rng.integers(0, y.size, y.size)
        draws.append(roc_auc(y[take], second[take]) - roc_auc(y[take], first[take]))
    assert found.difference == pytest.approx(roc_auc(y, second) - roc_auc(y, first), abs=1e-12)
    assert found.error == pytest.approx(np.std(draws), rel=0.12)
    assert found.p_better == pytest.approx(np.mean(np.array(draws) > 0), abs=0.03)
    alone = auc_interval(y, first)
    assert found.upper - found.lower < alone.upper - alone.lower


def test_paired_difference_is_wrong_about_equal_scores_as_rarely_as_it_says() -> None:
    rng = np.random.default_rng(5)
    runs, wrong = 600, 0
    for _ in range(runs):
        y = rng.random(250) < 0.4
        common = rng.normal(size=y.size) + y
        found = auc_difference(y, common + rng.normal(size=y.size), common + rng.normal(size=y.size))
        wrong += not found.lower <= 0.0 <= found.upper
    assert abs(wrong / runs - 0.05) < 4 * np.sqrt(0.05 * 0.95 / runs)


def test_equal_scores_have_no_difference_and_even_odds() -> None:
    y, score = rows(np.random.default_rng(6), 100)
    found = auc_difference(y, score, score)
    assert (found.difference, found.lower, found.upper, found.p_better) == (0.0, 0.0, 0.0, 0.5)


def test_the_method_says_how_many_blocks_were_used() -> None:
    y, score = rows(np.random.default_rng(7), 120)
    assert auc_difference(y, score, -score, blocks=np.arange(120) // 10).method == "DeLong over 12 blocks"
    assert auc_difference(y, score, -score, blocks=np.arange(120) // 30).method == "DeLong"


def test_perfect_separation_does_not_claim_certainty() -> None:
    y = np.arange(40) >= 20
    interval = auc_interval(y, np.arange(40.0))
    assert interval.value == interval.upper == 1.0
    assert 0.8 < interval.lower < 1.0


def test_a_constant_score_has_area_one_half() -> None:
    interval = auc_interval(np.arange(40) >= 20, np.zeros(40))
    assert (interval.value, interval.lower, interval.upper) == (0.5, 0.5, 0.5)


def test_one_row_of_a_class_gives_a_wide_interval() -> None:
    y = np.zeros(50, np.bool_)
    y[10] = True
    interval = auc_interval(y, np.arange(50.0))
    assert interval.upper - interval.lower > 0.3


def test_hanley_and_mcneil_is_near_delong_for_normal_scores() -> None:
    y, score = rows(np.random.default_rng(8), 4000)
    m = int(y.sum())
    assert hanley_mcneil(roc_auc(y, score), m, y.size - m) == pytest.approx(slow_delong(y, score), rel=0.25)


def test_placements_average_to_the_area_over_both_classes() -> None:
    y, score = rows(np.random.default_rng(9), 300)
    placed = placements(y, np.round(score, 1).astype(np.float64))
    assert placed.share[y].mean() == pytest.approx(placed.area)
    assert placed.share[~y].mean() == pytest.approx(placed.area)


def test_pair_counts_give_the_area_of_any_set_of_days() -> None:
    rng = np.random.default_rng(10)
    y, score, day = days_that_differ(rng, k=9, size=30)
    score = np.round(score, 1)
    counted = pair_counts(y, score, day)
    for picked in ([0, 1, 2], [3], [0, 0, 5, 8], list(range(9))):
        counts = np.bincount(picked, minlength=9).astype(float)[None, :]
        take = np.concatenate([np.flatnonzero(day == each) for each in picked])
        assert counted.areas(counts)[0] == pytest.approx(roc_auc(y[take], score[take]), abs=1e-12)


def test_pair_counts_have_no_area_without_both_classes() -> None:
    counted = pair_counts([1, 1, 0], [0.1, 0.2, 0.3], ["a", "a", "b"])
    assert np.isnan(counted.areas(np.array([[1.0, 0.0]]))[0])


@pytest.mark.parametrize(
    ("y", "score", "says"),
    [
        ([0, 1, 2], [0.1, 0.2, 0.3], "neither 0 nor 1"),
        ([0, 1, np.nan], [0.1, 0.2, 0.3], "neither 0 nor 1"),
        ([0, 1], [0.1, np.nan], "not finite"),
        ([0, 1], [0.1], "shape"),
        ([[0, 1]], [0.1, 0.2], "one column"),
        (["late", "on time"], [0.1, 0.2], "must be numbers"),
    ],
)
def test_bad_input_is_named(y: list[Any], score: list[float], says: str) -> None:
    with pytest.raises(BadNumbers, match=says):
        roc_auc(y, score)


def test_one_class_says_how_many_rows_there_are() -> None:
    with pytest.raises(OneClassOnly) as caught:
        roc_auc([1, 1, 1], [0.1, 0.2, 0.3])
    assert "3 rows, all of class 1" in caught.value.why
    with pytest.raises(OneClassOnly, match="not defined"):
        roc_auc([], [])
