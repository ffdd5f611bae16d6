"""Rollouts of applications: each arm by its own answers, judged so that looking often is harmless."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from holdtrue.core.clock import microseconds
from holdtrue.delivery.arms import ArmsJudging, absorb_arms, differences, judge_arms
from holdtrue.delivery.model import Canary, Rollout, RolloutState
from holdtrue.delivery.strategies import strategy_of

START = datetime(2026, 3, 1, tzinfo=UTC)
CANARY = Canary(steps=(20.0, 50.0), margin=0.1, metric="answers", min_rows_per_step=50)
NO_LABELS = pa.table({"prediction_id": pa.array([], pa.string()), "value": pa.array([], pa.float64())})


def rollout(canary: Canary = CANARY, **changes: Any) -> Rollout:
    made = Rollout(
        id="rol_1",
        service="assistant",
        environment="production",
        champion="rel_a",
        challenger="rel_b",
        decision="dec_1",
        canary=canary,
        state=RolloutState.RUNNING,
        step=0,
        started_at=START,
        step_started_at=START,
        ended_at=None,
        cursor="c",
        judging=None,
        verdict=None,
        reason="",
    )
    return replace(made, **changes)


def answers(
    release: str,
    scores: Any,
    *,
    first: int = 0,
    failed: Any = None,
    cost: int | None = None,
    owner: str = "rol_1",
    seconds: Any = 0.1,
) -> pa.Table:
    n = len(scores)
    return pa.table(
        {
            "id": [f"{release}-{first + number}" for number in range(n)],
            "rollout": [owner] * n,
            "release": [release] * n,
            "score": pa.array([None if score is None else float(score) for score in scores], pa.float64()),
            "fallback": [bool(each) for each in (failed if failed is not None else [False] * n)],
            "cost_micros": pa.array([cost] * n, pa.int64()),
            "latency_us": pa.nulls(n, pa.int64())
            if seconds is None
            else pa.array(np.asarray(np.broadcast_to(seconds, n) * 1e6, np.int64)),
            "recorded_at": [microseconds(START)] * n,
            "time": [microseconds(START)] * n,
        }
    )


def fed(judging: ArmsJudging, canary: Canary = CANARY, *tables: pa.Table, labels: pa.Table = NO_LABELS) -> ArmsJudging:
    """Return what was counted once the answers of all tables came, evenly mixed in time."""
    table = pa.concat_tables(tables)
    places = np.concatenate([(np.arange(len(each)) + 0.5) / max(len(each), 1) for each in tables])
    mixed = table.take(pa.array(np.argsort(places, kind="stable")))
    return absorb_arms(judging, rollout(canary), mixed, labels, START)


def verdict(judging: ArmsJudging, canary: Canary = CANARY, **changes: Any) -> Any:
    return judge_arms(canary, judging, rollout(canary, **changes), START + timedelta(days=1))[0]


def test_a_release_whose_answers_are_worse_is_rolled_back_with_the_numbers() -> None:
    random = np.random.default_rng(1)
    good, bad = (random.random(120) < 0.95).astype(float), (random.random(80) < 0.4).astype(float)
    judging = fed(ArmsJudging("", ""), CANARY, answers("rel_a", good), answers("rel_b", bad))

    found = verdict(judging)

    assert found.verdict == "roll_back"
    assert "the share of answers that did not pass their checks is 0." in found.why
    assert "on 80 answers, the champion's" in found.why


def test_an_equal_release_advances_then_is_promoted_when_it_is_shown_to_be_within_the_margin() -> None:
    judging = fed(ArmsJudging("", ""), CANARY, answers("rel_a", [1.0] * 900), answers("rel_b", [1.0] * 900))

    assert verdict(judging).verdict == "advance"
    assert verdict(judging.next_step()).verdict == "wait"
    later = fed(judging.next_step(), CANARY, answers("rel_b", [1.0] * 60, first=900))
    assert verdict(later, step=1).verdict == "promote"


def test_failures_count_even_if_nothing_else_is_known_of_them() -> None:
    failed = [True] * 30
    judging = fed(
        ArmsJudging("", ""),
        CANARY,
        answers("rel_a", [1.0] * 200),
        answers("rel_b", [1.0] * 30, failed=failed),
    )
    found = verdict(judging)
    assert found.verdict == "roll_back"
    assert "answers that failed" in found.why


def test_the_first_feedback_on_an_answer_counts_once_and_only_for_this_rollout() -> None:
    judging = fed(ArmsJudging("", ""), CANARY, answers("rel_b", [1.0] * 3), answers("rel_a", [1.0], owner="rol_0"))
    ids = ["rel_b-0", "rel_b-0", "rel_b-2", "gone", "rel_a-0"]
    labels = pa.table({"prediction_id": ids, "value": [0.0, 1.0, 1.0, 0.0, 0.0]})

    grown = absorb_arms(judging, rollout(), answers("rel_b", []), labels, START)
    again = absorb_arms(grown, rollout(), answers("rel_b", []), labels, START)

    feedback = grown.sequences["challenger"]["feedback"]
    assert (feedback.n, feedback.mean) == (2, 0.5)
    assert again.sequences["challenger"]["feedback"].n == 2
    assert grown.answers("champion") == 0
    assert list(grown.waiting) == ["rel_b-1"]


def test_cost_is_judged_when_it_has_a_limit() -> None:
    canary = replace(CANARY, cost_limit_micros=1000)
    judging = fed(
        ArmsJudging("", ""),
        canary,
        answers("rel_a", [1.0] * 200, cost=100),
        answers("rel_b", [1.0] * 200, cost=900),
    )
    found = verdict(judging, canary)
    assert found.verdict == "roll_back"
    assert "the cost" in found.why
    assert verdict(fed(ArmsJudging("", ""), CANARY, answers("rel_b", [1.0] * 9, cost=9))).verdict == "wait"


SLOW = replace(CANARY, latency_limit_seconds=2.0, latency_margin=0.1)


def test_a_release_that_is_too_slow_is_rolled_back_with_the_numbers() -> None:
    random = np.random.default_rng(3)
    quick, slow = random.exponential(0.5, 400), random.exponential(3.0, 200)
    judging = fed(
        ArmsJudging("", ""),
        SLOW,
        answers("rel_a", [1.0] * 400, seconds=quick),
        answers("rel_b", [1.0] * 200, seconds=slow),
    )
    found, facts = judge_arms(SLOW, judging, rollout(SLOW), START + timedelta(days=1))

    assert found.verdict == "roll_back"
    assert "the share of answers that took longer than the limit is 0." in found.why
    told = {each["measure"]: each for each in facts["measures"]}["latency"]
    assert told["challenger"] == pytest.approx((slow > 2.0).mean())
    assert told["champion"] == pytest.approx((quick > 2.0).mean())
    # Without a limit nobody asks how long answers took.
    unlimited = fed(
        ArmsJudging("", ""), CANARY, answers("rel_a", [1.0] * 900), answers("rel_b", [1.0] * 900, seconds=60.0)
    )
    assert verdict(unlimited).verdict == "advance"


def test_a_release_as_quick_as_the_champion_is_promoted_and_latency_is_part_of_the_reason() -> None:
    judging = fed(ArmsJudging("", ""), SLOW, answers("rel_a", [1.0] * 900), answers("rel_b", [1.0] * 900))
    found = verdict(judging, SLOW)
    assert (found.verdict, "took longer than the limit" in found.why) == ("advance", True)


def test_promotion_waits_until_latency_is_known_of_both_arms() -> None:
    unknown = answers("rel_a", [1.0] * 900, seconds=None)
    judging = fed(ArmsJudging("", ""), SLOW, unknown, answers("rel_b", [1.0] * 900))
    found = verdict(judging, SLOW)
    assert found.verdict == "wait"
    assert "Nothing is known yet of the share of answers that took longer" in found.why


def test_an_answer_that_its_client_left_says_only_that_it_was_late() -> None:
    judging = fed(ArmsJudging("", ""), SLOW, answers("rel_b", [None, None, 1.0], seconds=[0.5, 9.0, 0.5]))
    mine = judging.sequences["challenger"]
    assert {name: (each.n, each.mean) for name, each in mine.items()} == {
        "failed": (1, 0.0),
        "checks": (1, 0.0),
        "latency": (2, 0.5),
    }


def test_equally_slow_releases_are_hardly_ever_rolled_back() -> None:
    """Half of all answers are late in both arms: looked at 12 times each, at most alpha of 80 rollouts end badly."""
    random = np.random.default_rng(11)
    ended = 0
    for _ in range(80):
        judging = ArmsJudging("", "")
        for _ in range(12):
            arms, values = random.random(80) < 0.2, (random.random(80) < 0.5).astype(float)
            judging = judging.counted({"latency": (arms, values)})
            if any(each.lower > 0.0 for each in differences(judging, SLOW)):
                ended += 1
                break
    assert ended <= 80 * SLOW.alpha


def test_needed_feedback_is_waited_for_and_patience_ends() -> None:
    canary = replace(CANARY, feedback_needed=True)
    judging = fed(ArmsJudging("", ""), canary, answers("rel_a", [1.0] * 900), answers("rel_b", [1.0] * 900))

    waiting = verdict(judging, canary)
    assert (waiting.verdict, "bad feedback" in waiting.why) == ("wait", True)
    stopped = judge_arms(canary, judging, rollout(canary), START + timedelta(days=30))[0]
    assert stopped.verdict == "stop"


def test_what_was_counted_survives_as_json() -> None:
    judging = fed(ArmsJudging("a", "b"), CANARY, answers("rel_a", [1.0, 0.5]), answers("rel_b", [0.0])).next_step()
    strategy = strategy_of(CANARY)

    back = strategy.load(judging.to_json())

    assert back.to_json() == judging.to_json()
    assert [each.measure for each in differences(back, CANARY)] == ["failed", "checks"]


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_equal_releases_are_hardly_ever_rolled_back_however_often_one_looks(rate: float) -> None:
    """Looked at 12 times each, at most alpha of 80 rollouts of equal releases end badly (here: none or few)."""
    random = np.random.default_rng(7)
    ended = 0
    for _ in range(80):
        judging = ArmsJudging("", "")
        for _ in range(12):
            arms, values = random.random(80) < 0.2, (random.random(80) < rate).astype(float)
            judging = judging.counted({"failed": (arms, values), "checks": (arms, values)})
            if any(each.lower > 0.0 for each in differences(judging, CANARY)):
                ended += 1
                break
    assert ended <= 80 * CANARY.alpha


def test_the_first_shares_which_harm_few_need_fewer_answers_than_the_last() -> None:
    canary = replace(CANARY, steps=(5.0, 25.0, 50.0), min_rows_per_step=20, fallback_margin=0.1)
    some = fed(ArmsJudging("", ""), canary, answers("rel_a", [1.0] * 100), answers("rel_b", [1.0] * 30))
    shown = max(each.upper for each in differences(some, canary))
    assert 0.1 < shown < 0.4
    assert verdict(some, canary).verdict == "advance"
    last = verdict(some, canary, step=2)
    assert (last.verdict, "within 0.1:" in last.why) == ("wait", True)


def test_counts_of_before_blocks_were_kept_are_still_read() -> None:
    judging = fed(ArmsJudging("a", "b"), CANARY, answers("rel_a", [1.0] * 20), answers("rel_b", [1.0] * 20))
    old = {name: value for name, value in judging.to_json().items() if name != "matched"}
    assert verdict(ArmsJudging.from_json(old)).verdict == "wait"
