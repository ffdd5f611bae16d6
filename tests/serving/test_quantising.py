"""Weights of eight bits: used only where the model still answers as the original does, and said either way."""

from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.neural_network import MLPClassifier

from holdtrue.core.canonical import bytes_hash
from holdtrue.serving import load_model, pack_model
from holdtrue.serving import packing as packing_module
from holdtrue.serving.packing import MOST_CHANGED, MOST_DIFFERENT

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def test_eight_bits_are_used_where_the_model_still_answers_alike() -> None:
    random = np.random.default_rng(4)
    matrix = random.normal(size=(500, 8)).astype(np.float32)
    label = (matrix[:, 0] + 0.2 * random.normal(size=500) > 0).astype(int)
    names = [str(place) for place in range(8)]
    small: Any = MLPClassifier((64, 64), max_iter=2, random_state=0).fit(matrix, label)
    plain = pack_model(small, names, matrix)
    assert "quantised" not in plain.parity
    found = pack_model(small, names, matrix, quantise=True)
    said = found.parity["quantised"]
    alike = said["max_difference"] <= MOST_DIFFERENT and said["changed_decisions"] <= MOST_CHANGED
    assert said["used"] == alike
    assert said["bytes"] < said["bytes_before"] / 2
    assert (found.data == plain.data) != alike
    served = load_model(found.data, bytes_hash(found.data))
    measured = np.abs(served.score(matrix) - small.predict_proba(matrix)[:, 1]).max()
    assert measured == pytest.approx(found.parity["max_difference"], abs=1e-6)


def test_what_eight_bits_would_change_is_served_as_it_was_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(4)
    matrix = random.normal(size=(300, 4)).astype(np.float32)
    label = (matrix[:, 0] > 0).astype(int)
    fitted = MLPClassifier((32,), max_iter=2, random_state=0).fit(matrix, label)
    plain = pack_model(fitted, list("abcd"), matrix)
    strict = max(plain.parity["max_difference"], 1e-6)
    monkeypatch.setattr(packing_module, "MOST_DIFFERENT", strict)
    found = pack_model(fitted, list("abcd"), matrix, quantise=True)
    assert found.data == plain.data
    assert found.parity["quantised"]["used"] is False
    assert "eight bits" in found.parity["quantised"]["why"]
    trees = HistGradientBoostingClassifier(max_iter=3).fit(matrix, label)
    said = pack_model(trees, list("abcd"), matrix, quantise=True).parity["quantised"]
    assert (said["used"], "matrix products" in said["why"]) == (False, True)
