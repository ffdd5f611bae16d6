"""What features are worth: the one that matters, the one that does not, and the two that stand in for each other."""

import numpy as np
import pyarrow as pa

from holdtrue.features import FeatureSet, Latest, numeric
from holdtrue.project.rows import Rows
from holdtrue.project.usefulness import MOST_ROWS, usefulness

DAY = 86_400_000_000
TWINS = Latest("twins", "rows", "place", "at", ("one", "other"), "1h")
FEATURES = FeatureSet((TWINS,), (numeric("strong"), numeric("useless")), {})


def _rows(n: int) -> Rows:
    numbers = np.random.default_rng(1)
    strong, useless, twin = (numbers.normal(size=n) for _ in range(3))
    y = (strong + 0.5 * twin + numbers.normal(size=n) * 0.7 > 0).astype(np.int64)
    matrix = np.column_stack([strong, useless, twin, twin + numbers.normal(size=n) * 0.01]).astype(np.float32)
    return Rows(matrix, y, np.arange(n, dtype=np.int64) * DAY // 50, pa.table({}))


def _score(matrix: np.ndarray) -> np.ndarray:
    """Trust the first twin, and the other one where the first is out of line."""
    twin = np.where(np.abs(matrix[:, 2] - matrix[:, 3]) < 0.1, matrix[:, 2], matrix[:, 3])
    return matrix[:, 0] + 0.5 * twin


def test_a_feature_that_matters_has_a_value_above_noise_and_one_that_does_not_is_named() -> None:
    found = usefulness(FEATURES, _rows(6000), _score)
    assert found["rows"] == MOST_ROWS
    strong, useless = found["features"]["strong"], found["features"]["useless"]
    assert 0.1 < strong["lower"] < strong["value"] < strong["upper"] < 0.5
    assert useless == {"value": 0.0, "lower": 0.0, "upper": 0.0}
    assert "useless" in found["noise"]["names"]
    assert found["noise"]["features"] == len(found["noise"]["names"])
    assert "strong" not in found["noise"]["names"]


def test_features_that_stand_in_for_each_other_have_the_value_of_their_view() -> None:
    found = usefulness(FEATURES, _rows(2000), _score)
    assert "twins_one" in found["noise"]["names"]  # the other one is used instead
    assert found["views"]["twins"]["lower"] > 0.01
    assert found["noise"]["views"] == []


def test_the_same_rows_give_the_same_values_and_few_rows_none_too_small() -> None:
    rows = _rows(300)
    assert usefulness(FEATURES, rows, _score) == usefulness(FEATURES, rows, _score)
    assert usefulness(FEATURES, rows, _score)["rows"] == 300


def test_one_class_alone_says_nothing() -> None:
    rows = _rows(50)
    one = Rows(rows.X, np.ones(50, np.int64), rows.times, rows.table)
    assert usefulness(FEATURES, one, _score)["features"] == {}
    none = Rows(rows.X[:0], rows.y[:0], rows.times[:0], rows.table)
    assert usefulness(FEATURES, none, _score)["rows"] == 0
