"""Rollouts of models of classes and of a number: judged by wrong answers, and by the distance from the truth."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from holdtrue.core.clock import microseconds
from holdtrue.core.errors import ConfigurationError
from holdtrue.delivery import Canary, Rollout
from holdtrue.delivery.judging import Judging, absorb, facts_of
from holdtrue.delivery.losses import loss_differences, losses
from holdtrue.delivery.rules import Judgement, check_service, judge
from holdtrue.delivery.simulating import _rollout  # pyright: ignore[reportPrivateUsage]
from tests.delivery.worlds import SERVICE, START

NOW = microseconds(START)
WRONG = Canary(steps=(50.0,), margin=0.02, min_rows_per_step=50, loss="wrong")
DISTANCE = replace(WRONG, loss="distance", scale=10.0)


def judged(canary: Canary, champion: Any, challenger: Any, truth: Any, **more: Any) -> tuple[Judgement, Judging]:
    """Return what is decided on rows that both releases answered and whose labels came."""
    rollout: Rollout = replace(_rollout(canary), started_at=START)
    n = len(truth)
    ids = [f"prd_{row:06d}" for row in range(n)]
    predictions = pa.table(
        {
            "prediction_id": ids * 2,
            "id": [*ids, *(f"{each}~c" for each in ids)],
            "rollout": [rollout.id] * 2 * n,
            "release": [rollout.champion] * n + [rollout.challenger] * n,
            "role": ["answer"] * n + ["shadow"] * n,
            "score": [*map(float, champion), *map(float, challenger)],
            "fallback": [False] * 2 * n,
            "recorded_at": [NOW] * 2 * n,
            **{name: [*values] * 2 for name, values in more.items()},
        }
    )
    labels = pa.table(
        {"prediction_id": ids, "value": [*map(float, truth)], "known_at": [NOW + row for row in range(n)]}
    )
    judging = absorb(Judging("", ""), rollout, predictions, labels, START)
    return judge(canary, facts_of(judging, rollout, START)), judging


def answers(truth: Any, share: float, seed: int) -> Any:
    """Return answers of three classes of which a share is wrong."""
    random = np.random.default_rng(seed)
    return np.where(random.random(truth.size) < share, (truth + random.integers(1, 3, truth.size)) % 3, truth)


def test_losses_follow_from_what_a_model_answers_with() -> None:
    assert losses(Canary(), [0, 1], [0.2, 0.7]) == pytest.approx([0.04, 0.09])
    assert losses(WRONG, [0, 2, 1], [0, 1, 1]).tolist() == [0.0, 1.0, 0.0]
    assert losses(DISTANCE, [100.0, 100.0], [103.0, 500.0]).tolist() == [0.3, 1.0]
    assert loss_differences(WRONG, [2, 2], [2, 0], [0, 2]).tolist() == [1.0, -1.0]


def test_a_release_that_names_more_wrong_classes_is_rolled_back_and_an_equal_one_promoted() -> None:
    truth = np.random.default_rng(0).integers(0, 3, 3000)
    champion = answers(truth, 0.1, 1)
    worse, judging = judged(WRONG, champion, answers(truth, 0.2, 2), truth)
    assert worse.verdict == "roll_back"
    assert "the share of wrong answers differs by +0." in worse.why
    assert judging.difference.mean == pytest.approx(0.1, abs=0.02)
    assert judged(WRONG, champion, champion, truth)[0].verdict == "promote"


def test_wrong_classes_are_counted_by_group() -> None:
    truth = np.random.default_rng(0).integers(0, 3, 4000)
    places = np.where(np.arange(4000) % 2 == 0, "LGA", "JFK")
    challenger = np.where(places == "LGA", answers(truth, 0.3, 3), truth)
    champion = answers(truth, 0.15, 1)
    plan = replace(WRONG, groups=("origin",), group_margin=0.05)
    found, _ = judged(plan, champion, challenger, truth, x_origin=places)
    assert found.verdict == "roll_back"
    assert "LGA" in found.why


def test_a_release_that_is_further_off_is_rolled_back() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(1000.0, 100.0, 2000)
    noise = random.normal(size=2000)
    worse, judging = judged(DISTANCE, truth + noise, truth + 3.0 * noise, truth)
    assert worse.verdict == "roll_back"
    assert "as a share of the scale, differs by" in worse.why
    assert judging.difference.mean == pytest.approx(2.0 * np.abs(noise).mean() / 10.0, abs=0.01)
    assert judged(DISTANCE, truth + noise, truth - noise, truth)[0].verdict == "promote"


def test_a_scale_is_needed_for_distances() -> None:
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigurationError, match="scale"):
            check_service(replace(SERVICE, rollout=replace(DISTANCE, scale=scale)))
    check_service(replace(SERVICE, rollout=DISTANCE))
