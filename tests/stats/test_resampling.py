import numpy as np
import pytest

from holdtrue.stats import BadNumbers, mean_bootstrap, pair_counts, roc_auc
from holdtrue.stats.resampling import bootstrap, draw_counts


def test_each_draw_holds_as_many_blocks_as_there_are_and_runs_stay_together() -> None:
    counts = draw_counts(10, 500, seed=1)
    assert counts.shape == (500, 10)
    assert (counts.sum(axis=1) == 10).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(10), abs=0.2)
    runs = draw_counts(12, 200, seed=1, run=12)
    assert (runs == 1).all()  # one run of all blocks, wherever it starts
    assert (draw_counts(10, 50, seed=1, size=4).sum(axis=1) == 4).all()
    assert (draw_counts(10, 50, seed=1) == draw_counts(10, 50, seed=1)).all()
    assert (draw_counts(10, 50, seed=1) != draw_counts(10, 50, seed=2)).any()


def test_the_interval_of_a_mean_covers_where_rows_of_a_day_are_alike() -> None:
    rng = np.random.default_rng(0)
    runs, covered, plain = 300, 0, 0
    day = np.repeat(np.arange(30), 40)
    for _ in range(runs):
        values = rng.normal(size=30)[day] + rng.normal(size=day.size)
        interval = mean_bootstrap(values, day, draws=400).interval()
        covered += interval.lower <= 0.0 <= interval.upper
        error = values.std() / np.sqrt(values.size)
        plain += abs(values.mean()) <= 1.96 * error
    assert covered / runs > 0.95 - 4 * np.sqrt(0.95 * 0.05 / runs)
    assert plain / runs < 0.6


def test_runs_of_days_keep_what_one_day_has_in_common_with_the_next() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(size=400)
    walk = np.convolve(noise, np.ones(7), "valid")
    days = np.arange(walk.size)
    single = mean_bootstrap(walk, days).draws.std()
    runs = mean_bootstrap(walk, days, run=20).draws.std()
    assert runs > 1.8 * single  # the truth is √7 = 2.6 times


def test_drawing_days_of_an_area_equals_drawing_their_rows() -> None:
    rng = np.random.default_rng(2)
    day = np.repeat(np.arange(8), 25)
    y = rng.random(day.size) < 0.4
    score = np.round(rng.normal(size=day.size) + y, 1)
    counted = pair_counts(y, score, day)
    found = bootstrap(counted.areas, 8, day.size, draws=20, seed=3)
    assert found.value == pytest.approx(roc_auc(y, score))
    for counts, value in zip(draw_counts(8, 20, seed=3), found.draws, strict=True):
        take = np.concatenate([np.flatnonzero(day == block) for block in np.repeat(np.arange(8), counts.astype(int))])
        assert value == pytest.approx(roc_auc(y[take], score[take]))


def test_shares_stay_off_zero_and_one() -> None:
    found = mean_bootstrap(np.ones(50), np.arange(50) // 5, draws=99)
    assert found.share_above(0.0) == pytest.approx(0.995)
    assert found.share_above(1.0) == pytest.approx(0.5)
    assert found.share_above(2.0) == pytest.approx(0.005)


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(BadNumbers, match="at least one block"):
        draw_counts(0, 10, seed=0)
