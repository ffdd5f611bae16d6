import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from holdtrue.stats import BadNumbers, agreement
from holdtrue.stats.agreement import Weighing


@pytest.mark.parametrize("weighing", ["none", "linear", "quadratic"])
@pytest.mark.parametrize("categories", [2, 5])
def test_kappa_is_that_of_scikit_learn(categories: int, weighing: Weighing) -> None:
    rng = np.random.default_rng(categories)
    one = rng.integers(0, categories, 150)
    two = np.where(rng.random(150) < 0.6, one, rng.integers(0, categories, 150))
    found = agreement(one.tolist(), two.tolist(), weighing=weighing)
    theirs = cohen_kappa_score(one, two, weights=None if weighing == "none" else weighing)
    assert found.kappa.value == pytest.approx(theirs, abs=1e-12)
    assert found.kappa.lower < theirs < found.kappa.upper
    assert found.agreement.value == pytest.approx(np.mean(one == two))
    assert sum(map(sum, found.table)) == found.kappa.n == 150


@pytest.mark.parametrize(("n", "truth"), [(40, 0.5), (40, 0.9), (150, 0.8)])
@pytest.mark.parametrize("weighing", ["none", "quadratic"])
def test_the_interval_covers_kappa(n: int, truth: float, weighing: Weighing) -> None:
    # Who copies the other rater with chance k, and else rates at random, has a kappa of k.
    rng = np.random.default_rng(n)
    runs, covered = 400, 0
    for _ in range(runs):
        one = rng.integers(0, 4, n)
        two = np.where(rng.random(n) < truth, one, rng.integers(0, 4, n))
        found = agreement(one.tolist(), two.tolist(), weighing=weighing).kappa
        covered += found.lower <= truth <= found.upper
    assert covered / runs > 0.93 - 4 * math.sqrt(0.93 * 0.07 / runs)


def test_agreement_without_exception_is_not_certainty() -> None:
    found = agreement([1, 0, 1] * 10, [1, 0, 1] * 10)
    assert found.kappa.value == found.kappa.upper == 1.0
    assert 0.6 < found.kappa.lower < 0.9
    assert found.table == ((10, 0), (0, 20))


def test_a_rater_who_knows_one_answer_tells_nothing() -> None:
    found = agreement([1, 1, 1, 0], [1, 1, 1, 1])
    assert found.agreement.value == 0.75
    assert found.kappa.value == pytest.approx(cohen_kappa_score([1, 1, 1, 0], [1, 1, 1, 1]))
    assert math.isnan(found.kappa.lower)
    assert math.isnan(agreement([1, 1], [1, 1]).kappa.value)
    assert math.isnan(agreement([], []).kappa.value)


def test_ratings_that_do_not_pair_are_refused() -> None:
    with pytest.raises(BadNumbers):
        agreement([1, 2], [1])
    with pytest.raises(BadNumbers):
        agreement([1, math.nan], [1, 2])
