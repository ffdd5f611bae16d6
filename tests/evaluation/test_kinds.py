"""Models of several classes and of a number are judged by losses whose values can be computed by hand."""

import numpy as np
import pytest

from holdtrue.core.errors import InvalidInput
from holdtrue.evaluation.kinds import (
    CLASS_LOSSES,
    NUMBER_LOSSES,
    compare_losses,
    evaluate_classes,
    evaluate_numbers,
)

DAY = 86_400_000_000


def test_losses_of_classes_are_those_of_the_definition() -> None:
    y = np.array([0, 2])
    chances = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]])
    assert CLASS_LOSSES["error"](y, chances).tolist() == [0.0, 1.0]
    assert CLASS_LOSSES["brier"](y, chances) == pytest.approx([0.07, 0.49])
    assert CLASS_LOSSES["log_loss"](y, chances) == pytest.approx([-np.log(0.7), -np.log(0.2)])
    # Of two classes it is the squared error of the probability.
    assert CLASS_LOSSES["brier"](np.array([1]), np.array([[0.3, 0.7]])) == pytest.approx([0.09])


def test_classes_are_judged_with_intervals_slices_and_each_class() -> None:
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 3000)
    said = np.where(random.random(3000) < 0.8, y, (y + 1) % 3)
    chances = np.full((3000, 3), 0.1) + 0.7 * np.eye(3)[said]
    slices = {"where": np.where(np.arange(3000) % 2 == 0, "a", "b"), "few": np.arange(3000).astype(str)}
    times = np.arange(3000) * DAY // 100
    found = evaluate_classes(y, chances, ("x", "y", "z"), baseline=[1 / 3, 1 / 3, 1 / 3], slices=slices, times=times)
    assert found["metric"]["error"]["value"] == pytest.approx(float((said != y).mean()))
    assert found["metric"]["accuracy"]["lower"] < 0.8 < found["metric"]["accuracy"]["upper"]
    assert found["baseline"]["brier"]["value"] == pytest.approx(1 / 3)
    assert [each["value"] for each in found["slices"]] == ["a", "b"]
    assert found["skipped_slices"] == 3000
    first = found["classes"][0]
    assert (first["class"], first["n"]) == ("x", int((y == 0).sum()))
    assert first["recall"] == pytest.approx(float((said[y == 0] == 0).mean()))
    with pytest.raises(InvalidInput, match="Probabilities of the shape"):
        evaluate_classes(y, chances[:, :2], ("x", "y", "z"), baseline=[0.3, 0.3, 0.4])


def test_numbers_are_judged_by_how_far_they_are_off() -> None:
    y = np.array([1.0, 2.0, 3.0, 4.0])
    found = evaluate_numbers(y, y + np.array([0.5, -0.5, 0.5, -1.5]), baseline=2.5)
    assert found["metric"]["mae"]["value"] == pytest.approx(0.75)
    assert found["metric"]["mse"]["value"] == pytest.approx(0.75)
    assert found["metric"]["explained"] == pytest.approx(0.4)
    assert NUMBER_LOSSES["mse"](y, y + 2.0).tolist() == [4.0] * 4
    with pytest.raises(InvalidInput):
        evaluate_numbers(y, [1.0, np.nan, 1.0, 1.0], baseline=2.5)


def test_a_comparison_of_losses_says_who_is_better_and_how_surely() -> None:
    random = np.random.default_rng(1)
    worse, times = random.random(700), np.arange(700) * DAY // 50
    found = compare_losses("mae", worse, worse - 0.1, times)
    assert found.difference == pytest.approx(-0.1)
    assert found.p_better > 0.999
    assert found.blocks == 14
    other = compare_losses("mae", worse, random.random(700), times)
    assert other.lower < 0.0 < other.upper
    plain = compare_losses("mae", worse, random.random(700))
    assert plain.method == "paired mean"
    assert plain.difference == pytest.approx(other.difference, abs=0.05)
    assert compare_losses("mae", worse, worse).p_better == 0.5
