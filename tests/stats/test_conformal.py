"""Prediction sets: they hold each outcome as often as they say, whatever the scores are worth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.stats.conformal import (
    ClassSets,
    Ranges,
    Sets,
    calibrate,
    calibrate_classes,
    calibrate_ranges,
    covered,
    covered_classes,
    covered_ranges,
)
from holdtrue.stats.errors import BadNumbers
from tests.sampling import examples


@pytest.mark.parametrize("worth", [0.0, 0.5, 3.0])
def test_each_outcome_is_covered_as_often_as_promised_however_good_the_scores_are(worth: float) -> None:
    random = np.random.default_rng(11)
    held: list[list[float]] = []
    for _ in range(400):
        outcome = (random.random(400) < 0.15).astype(int)
        score = 1 / (1 + np.exp(-(worth * outcome + random.normal(size=400))))
        sets = calibrate(score[:200], outcome[:200], 0.9)
        assert sets is not None
        found = covered(sets, score[200:], outcome[200:])
        held.append([found["zero"]["value"], found["one"]["value"]])
    zero, one = np.array(held).mean(axis=0)
    # The guarantee is of the mean over calibrations; its standard error here is below 0.005.
    assert 0.885 <= zero <= 0.925
    assert 0.885 <= one <= 0.955


def test_better_scores_give_smaller_sets() -> None:
    random = np.random.default_rng(2)
    outcome = (random.random(2000) < 0.4).astype(int)
    sizes = []
    for worth in (0.0, 1.0, 4.0):
        score = 1 / (1 + np.exp(-(worth * (2 * outcome - 1) + random.normal(size=2000))))
        sets = calibrate(score[:1000], outcome[:1000], 0.9)
        assert sets is not None
        sizes.append(covered(sets, score[1000:], outcome[1000:])["size"])
    assert sizes[0] > 1.7
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] < 1.0


def test_the_limits_are_those_of_the_definition() -> None:
    scores = np.arange(1, 20) / 20
    outcomes = np.array([0] * 10 + [1] * 9)
    sets = calibrate(scores, outcomes, 0.9)
    # Of 10 zeros the ⌈11 · 0.9⌉ = 10th smallest score, of 9 ones the ⌈10 · 0.9⌉ = 9th: the smallest of all.
    assert sets is not None
    assert (sets.zero_up_to, sets.one_from) == (0.5, pytest.approx(0.55))
    assert [sets.of(each) for each in (0.2, 0.5, 0.52, 0.56, 0.9)] == [[0], [0], [], [1], [1]]
    assert Sets(0.9, 0.6, 0.4).of(0.5) == [0, 1]


def test_too_few_rows_of_an_outcome_say_nothing() -> None:
    assert calibrate([0.1] * 100 + [0.9] * 8, [0] * 100 + [1] * 8, 0.9) is None
    assert calibrate([0.1] * 100 + [0.9] * 9, [0] * 100 + [1] * 9, 0.9) is not None
    assert calibrate([], [], 0.9) is None
    for wrong in (1.0, 0.0, 0.4, 1.5):
        with pytest.raises(BadNumbers):
            calibrate([0.5], [1], wrong)
    empty = covered(Sets(0.9, 0.5, 0.5), [], [])
    assert (empty["n"], empty["size"], empty["value"]) == (0, None, None)


@given(
    rows=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=20, max_size=200),
    confidence=st.sampled_from([0.5, 0.8, 0.9]),
)
@settings(max_examples=examples(60), deadline=None)
def test_of_the_rows_it_was_made_of_it_holds_at_least_its_share(
    rows: list[tuple[float, int]], confidence: float
) -> None:
    scores, outcomes = (np.array(each) for each in zip(*rows, strict=True))
    sets = calibrate(scores, outcomes, confidence)
    if sets is None:
        return
    for outcome in (0, 1):
        mine = scores[outcomes == outcome]
        # Counting each row by its own score, up to what rounding of 1 - (1 - score) moves.
        close = 1e-12
        inside = (mine <= sets.zero_up_to) if outcome == 0 else (mine >= sets.one_from - close)
        assert inside.mean() >= confidence


def test_each_class_is_covered_as_often_as_promised() -> None:
    random = np.random.default_rng(5)
    found: list[list[float]] = []
    for _ in range(200):
        true = random.choice(3, 600, p=[0.6, 0.3, 0.1])
        raw = random.normal(size=(600, 3)) + 1.5 * np.eye(3)[true]
        chances = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
        sets = calibrate_classes(chances[:300], true[:300], 0.9)
        assert sets is not None
        told = covered_classes(sets, chances[300:], true[300:])
        found.append([each["value"] for each in told["classes"]])
    # Of 30 rows the 28th smallest is taken, so the rare class is covered at 0.903; noise of the mean is below 0.01.
    assert np.array(found).mean(axis=0) == pytest.approx([0.905, 0.905, 0.915], abs=0.02)
    assert calibrate_classes(np.full((20, 3), 1 / 3), [0] * 15 + [1] * 5, 0.9) is None
    assert ClassSets(0.9, (0.5, 0.2, 0.9)).of([0.5, 0.3, 0.2]) == [0, 1]


@pytest.mark.parametrize("confidence", [0.8, 0.9])
def test_ranges_hold_the_truth_as_often_as_promised_also_where_the_noise_grows(confidence: float) -> None:
    random = np.random.default_rng(8)
    overall: list[float] = []
    parts: list[list[float]] = []
    for _ in range(200):
        score = random.uniform(0, 10, 1500)
        truth = score + random.standard_t(3, 1500) * (0.2 + score)
        ranges = calibrate_ranges(score[:750], truth[:750], confidence)
        assert ranges is not None
        assert len(ranges.halves) == 5
        assert ranges.halves[0] < ranges.halves[2] < ranges.halves[4]
        told = covered_ranges(ranges, score[750:], truth[750:])
        overall.append(told["value"])
        parts.append([each["value"] for each in told["parts"]])
    assert float(np.mean(overall)) == pytest.approx(confidence + 0.003, abs=0.006)
    assert np.array(parts).mean(axis=0) == pytest.approx(confidence + 0.003, abs=0.012)


def test_few_rows_give_one_width_and_fewer_none() -> None:
    score = np.arange(40.0)
    ranges = calibrate_ranges(score, score + np.tile([1.0, -2.0], 20), 0.9)
    assert ranges == Ranges(0.9, (), (2.0,))
    assert ranges is not None
    assert ranges.of(10.0) == [8.0, 12.0]
    assert calibrate_ranges(score[:8], score[:8], 0.9) is None
    # Where a model says one number for all, there are no parts.
    same = calibrate_ranges(np.ones(500), np.arange(500.0), 0.9)
    assert same is not None
    assert same.of(1.0)[1] == pytest.approx(450.0)
    both = Ranges(0.9, (5.0,), (1.0, 3.0))
    assert (both.of(4.9), both.of(5.0)) == ([3.9000000000000004, 5.9], [2.0, 8.0])
