"""Two arms compared in blocks of neighbours: against a plain computation, and under a base rate that moves."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.stats import BadNumbers, matched
from holdtrue.stats.matched import MatchedDifference
from tests.sampling import examples


def plain(arms: list[bool], values: list[float]) -> list[float]:
    """Return the blocks' differences, row by row and written down as plainly as possible."""
    found: list[float] = []
    done: list[float] = []
    block: tuple[list[float], list[float]] = ([], [])
    for arm, value in zip(arms, values, strict=True):
        variance = float(np.var(done)) if done else 0.0
        size = max(min(1 + len(found) // 8, int(variance / 0.02), 8), 1) if done else 1
        block[arm].append(value)
        if min(len(block[0]), len(block[1])) >= size:
            found.append(float(np.mean(block[1]) - np.mean(block[0])))
            done += [*block[0], *block[1]]
            block = ([], [])
    return found


@settings(max_examples=examples(40), deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 400), st.sampled_from([0.1, 0.5, 0.9]), st.booleans())
def test_blocks_are_those_of_the_plain_computation_whatever_the_batches(
    seed: int, n: int, share: float, rare: bool
) -> None:
    random = np.random.default_rng(seed)
    arms = random.random(n) < share
    values = (random.random(n) < (0.02 if rare else 0.4)).astype(float)
    wanted = plain(arms.tolist(), values.tolist())

    at_once = matched.update(matched.start(), arms, values)
    stepwise = matched.start()
    cuts = [0, *np.sort(random.integers(0, n + 1, 4)).tolist(), n]
    for first, last in pairwise(cuts):
        stepwise = matched.update(stepwise, arms[first:last], values[first:last])
        stepwise = MatchedDifference.from_json(json.loads(json.dumps(stepwise.to_json())))

    assert at_once.blocks.n == stepwise.blocks.n == len(wanted)
    assert at_once.blocks.total == pytest.approx(sum(wanted), abs=1e-9)
    assert stepwise.blocks.total == pytest.approx(sum(wanted), abs=1e-9)
    assert stepwise.open == at_once.open


def moving(random: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return arms and losses of equal releases: the challenger's share grows while the base rate does."""
    at = np.arange(n) / n
    arms = random.random(n) < np.where(at < 0.4, 0.05, np.where(at < 0.7, 0.25, 0.5))
    return arms, (random.random(n) < 0.1 + 0.2 * at).astype(float)


def test_equal_arms_are_not_told_apart_when_the_base_rate_moves_while_the_share_grows() -> None:
    runs, wrong, z_wrong = 100, 0, 0
    for seed in range(runs):
        arms, values = moving(np.random.default_rng(seed), 4000)
        known = matched.start()
        for first in range(0, 4000, 400):
            known = matched.update(known, arms[first : first + 400], values[first : first + 400])
            if matched.lower_bound(known, 0.05) > 0.0:
                wrong += 1
                break
        one, two = values[arms], values[~arms]
        pooled = values.mean()
        error = math.sqrt(pooled * (1 - pooled) * (1 / one.size + 1 / two.size))
        z_wrong += (one.mean() - two.mean()) / error > 1.645
    assert wrong <= 0.05 * runs
    # The difference of both arms' means, looked at once only, is wrong in most: the simulation can fail.
    assert z_wrong > 0.5 * runs


def test_a_difference_is_found_and_lies_between_its_limits() -> None:
    random = np.random.default_rng(5)
    arms = random.random(40_000) < 0.5
    values = (random.random(40_000) < np.where(arms, 0.25, 0.2)).astype(float)
    known = matched.update(matched.start(), arms, values)
    assert 0.0 < matched.lower_bound(known, 0.01) < 0.05 < matched.upper_bound(known, 0.01) < 0.1


def test_rows_without_an_arm_or_out_of_bounds_are_refused() -> None:
    with pytest.raises(BadNumbers, match="2 values came with 1 arms"):
        matched.update(matched.start(), [True], [0.0, 1.0])
    for bad in (1.5, -0.1, math.nan, math.inf):
        with pytest.raises(BadNumbers, match=r"not in \[0, 1\]"):
            matched.update(matched.start(), [True], [bad])
