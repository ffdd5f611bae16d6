import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from holdtrue.stats import BadNumbers, brier_differences, brier_losses, log_losses, reliability

RNG = np.random.default_rng(0)
Y = RNG.random(500) < 0.3
P = RNG.random(500)


def test_losses_are_those_of_scikit_learn() -> None:
    assert brier_losses(Y, P).mean() == pytest.approx(brier_score_loss(Y, P))
    assert log_losses(Y, P).mean() == pytest.approx(log_loss(Y, P))


def test_certainty_that_is_wrong_costs_much_but_not_everything() -> None:
    assert np.isfinite(log_losses([1, 0], [0.0, 1.0])).all()
    assert log_losses([1], [0.0])[0] > 13


def test_differences_are_bounded_and_below_zero_for_the_better() -> None:
    found = brier_differences([1, 0], [0.0, 0.5], [1.0, 0.5])
    assert found.tolist() == [-1.0, 0.0]


def test_calibrated_scores_come_true_group_by_group() -> None:
    rng = np.random.default_rng(1)
    p = rng.random(20_000)
    groups = reliability(rng.random(p.size) < p, p, 5)
    assert sum(group.n for group in groups) == p.size
    assert [group.observed for group in groups] == pytest.approx([group.predicted for group in groups], abs=0.03)


def test_scores_that_are_no_probabilities_are_refused() -> None:
    with pytest.raises(BadNumbers, match="not probabilities"):
        brier_losses([0, 1], [0.5, 1.5])
