"""Contributions: exact ones against the libraries, sampled ones against every order there is; and what adds up."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.errors import Corrupt
from holdtrue.serving import load_model
from holdtrue.serving.contributions import (
    DoesNotAddUp,
    NotExplained,
    background_of,
    explainer,
    read_background,
    sampled,
)
from holdtrue.serving.runtime import Model

RANDOM = np.random.default_rng(5)
NAMES = ("a", "b", "c", "d")
X = RANDOM.normal(size=(300, 4)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] * X[:, 2] + 0.3 * RANDOM.normal(size=300) > 0).astype(int)


def curved(matrix: Any) -> Any:
    """A model with interactions, of which every order of features tells something else."""
    return (1 / (1 + np.exp(-(matrix[:, 0] + matrix[:, 1] * matrix[:, 2] - 0.5 * matrix[:, 3] ** 2)))).astype(
        np.float32
    )


def by_all_orders(row: Any, background: Any) -> Any:
    """Return the Shapley values by their definition: the mean over every order and background row."""
    found = np.zeros(4)
    orders = list(permutations(range(4)))
    for other in background:
        for order in orders:
            now = other.copy()
            before = curved(now[None])[0]
            for place in order:
                now[place] = row[place]
                after = curved(now[None])[0]
                found[place] += after - before
                before = after
    return found / (len(orders) * len(background))


def test_sampled_values_are_those_of_all_orders_within_their_own_error() -> None:
    background, rows = X[:64], X[100:130]
    found = sampled(curved, rows, background, NAMES)
    exact = np.array([by_all_orders(row, background) for row in rows])
    assert found.error is not None
    away = np.abs(found.values - exact) / np.maximum(found.error, 1e-9)
    # Each is a mean of 64 draws of two: about 95 % lie within two standard errors.
    assert (away < 2.2).mean() > 0.9
    assert (away < 6).all()
    assert found.error.max() < 0.02
    assert found.gap < 1e-6
    np.testing.assert_allclose(found.values.sum(axis=1) + found.base, curved(rows), atol=1e-6)
    again = sampled(curved, rows, background, NAMES)
    assert np.array_equal(again.values, found.values)


def test_of_a_linear_model_they_are_exact_and_a_feature_that_does_nothing_gets_nothing() -> None:
    weights = np.array([1.0, -2.0, 0.5, 0.0], np.float32)
    found = sampled(lambda matrix: matrix @ weights, X[:5], X[50:114], NAMES)
    np.testing.assert_allclose(found.values, (X[:5] - X[50:114].mean(axis=0)) * weights, atol=1e-5)
    assert found.error is not None
    assert found.error.max() < 1e-6
    assert np.all(found.values[:, 3] == 0)


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_trees_are_explained_exactly_on_their_raw_score(library: str) -> None:
    if library == "lightgbm":
        import lightgbm

        fitted: Any = lightgbm.LGBMClassifier(n_estimators=20, verbosity=-1).fit(X, Y)
        data = fitted.booster_.model_to_string().encode()
    else:
        import xgboost

        fitted = xgboost.XGBClassifier(n_estimators=20).fit(X, Y)
        data = bytes(fitted.get_booster().save_raw("ubj"))
    model = load_model(data, bytes_hash(data), library)
    rows = X[:20].copy()
    rows[3, 1] = np.nan
    found = explainer(model, library, data, NAMES, None)(rows)
    assert (found.error, found.scale) == (None, "raw score")
    assert found.gap < 1e-4
    np.testing.assert_allclose(1 / (1 + np.exp(-found.total)), model.score(rows), atol=1e-5)
    told = found.of_row(0)
    assert list(told["values"].values()) == sorted(told["values"].values(), key=lambda each: -abs(each))
    assert sum(told["values"].values()) + told["base"] == pytest.approx(told["total"], abs=1e-4)
    assert "error" not in told


def test_without_a_background_an_onnx_model_is_not_explained() -> None:
    model = Model("0" * 64, 4, curved)
    with pytest.raises(NotExplained, match="not explained"):
        explainer(model, "onnx", b"", NAMES, None)
    found = explainer(model, "onnx", b"", NAMES, X[:10])(X[20:22])
    assert set(found.of_row(1)["error"]) == set(NAMES)


def test_what_does_not_add_up_is_not_given_out() -> None:
    calls = iter(range(10_000))

    def unsteady(matrix: Any) -> Any:
        return np.full(len(matrix), next(calls), np.float32) + np.where(np.arange(len(matrix)) % 5 == 4, np.nan, 0)

    with pytest.raises(DoesNotAddUp):
        explainer(Model("0" * 64, 4, unsteady), "onnx", b"", NAMES, X[:10])(X[20:22])


def test_a_background_is_kept_as_it_was_drawn_and_not_read_when_it_was_changed() -> None:
    data = background_of(X)
    kept = read_background(data, bytes_hash(data), 4)
    assert kept.shape == (64, 4)
    assert np.array_equal(kept[0], X[0])
    assert np.array_equal(kept[-1], X[-1])
    assert read_background(background_of(X[:3]), bytes_hash(background_of(X[:3])), 4).shape == (3, 4)
    with pytest.raises(Corrupt):
        read_background(data[:-4] + b"\0\0\0\0", bytes_hash(data), 4)
    with pytest.raises(Corrupt):
        read_background(data, bytes_hash(data), 7)
