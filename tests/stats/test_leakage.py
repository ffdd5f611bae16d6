"""What one feature tells alone: nearly everything when it leaks, nothing when it is noise."""

import numpy as np
import pytest

from holdtrue.stats import told_alone

RNG = np.random.default_rng(3)
Y = RNG.random(8000) < 0.3


def test_a_feature_that_determines_the_label_is_found_whatever_its_form() -> None:
    monotone = Y + 0.1 * RNG.normal(size=len(Y))
    hat = np.where(Y, 5.0, RNG.choice([0.0, 10.0], len(Y)))
    absent = np.where(Y, np.nan, RNG.normal(size=len(Y)))
    for feature in (monotone, hat, absent):
        area = told_alone(feature, Y)
        assert area is not None
        assert area > 0.98


@pytest.mark.parametrize("feature", [RNG.normal(size=8000), RNG.permutation(8000).astype(float), np.zeros(8000)])
def test_noise_tells_nothing_though_each_value_is_another(feature: np.ndarray) -> None:
    area = told_alone(feature, Y)
    assert area is not None
    assert abs(area - 0.5) < 0.06


def test_one_class_tells_nothing() -> None:
    assert told_alone(np.arange(10.0), np.zeros(10, bool)) is None
    assert told_alone(np.full(10, np.nan), np.arange(10) % 4 < 2) is not None
