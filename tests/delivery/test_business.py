"""A/B tests and bandits on a business metric, blue-green and shadow: declared, routed, judged and ended."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import holdtrue as ht
from holdtrue.core.clock import microseconds
from holdtrue.core.errors import ConfigurationError
from holdtrue.delivery import Canary, RolloutState
from holdtrue.delivery.arms import ArmsJudging
from holdtrue.delivery.business import absorb_business, judge_business, moved
from holdtrue.delivery.model import Rollout
from holdtrue.delivery.rules import check_service
from holdtrue.delivery.simulating import Scenario, simulate
from tests.delivery.test_arms import START, answers, rollout
from tests.delivery.worlds import SERVICE, World, open_world

TEST = ht.ABTest("bought", min_answers=50)
BANDIT = ht.Bandit("bought", min_answers=500, floor=20.0)


def said(ids: list[str], values: Any, name: str = "bought") -> pa.Table:
    return pa.table({"prediction_id": ids, "value": [float(each) for each in values], "name": [name] * len(ids)})


def judged(first: float, second: float, n: int, canary: Canary = TEST, *, seconds: float = 0.1, **changes: Any) -> Any:
    """Return the judgement once `n` answers of each arm were given (the challenger's in `seconds`) and bought."""
    random = np.random.default_rng(3)
    table = pa.concat_tables([answers("rel_a", [0.0] * n), answers("rel_b", [0.0] * n, seconds=seconds)])
    mixed = table.take(pa.array(random.permutation(2 * n)))
    ids = mixed.column("id").to_pylist()
    bought = [random.random() < (second if each.startswith("rel_b") else first) for each in ids]
    judging = absorb_business(ArmsJudging("", ""), rollout(canary), mixed, said(ids, bought), START)
    return judge_business(canary, judging, rollout(canary, **changes), START + timedelta(days=1))[0]


@pytest.mark.parametrize(
    ("first", "second", "n", "verdict", "words"),
    [
        (0.2, 0.5, 800, "promote", "It is better than the champion: the share of bad feedback is 0."),
        (0.5, 0.2, 400, "roll_back", "It is worse than the champion"),
        (0.4, 0.4, 60, "wait", "Neither is shown to be better yet"),
        (0.2, 0.5, 0, "wait", "No “bought” came for both arms yet."),
        (
            0.1,
            0.9,
            100,
            "wait",
            "That this too is less than 0.02 worse is not shown yet: the share of answers that failed",
        ),
    ],
)
def test_an_ab_test_ends_by_what_was_bought(first: float, second: float, n: int, verdict: str, words: str) -> None:
    found = judged(first, second, n)
    assert (found.verdict, words in found.why) == (verdict, True), found.why


def test_a_release_that_is_bought_more_and_takes_too_long_is_rolled_back_where_time_is_judged() -> None:
    assert judged(0.2, 0.5, 800, seconds=3.0).verdict == "promote"
    timed = ht.ABTest("bought", min_answers=50, latency_limit_seconds=1.0)
    slow = judged(0.2, 0.5, 400, timed, seconds=3.0)
    assert (slow.verdict, "took longer than the limit" in slow.why) == ("roll_back", True)
    assert judged(0.2, 0.5, 800, timed).verdict == "promote"


def by_group(harm: float, seed: int, n: int = 6000) -> tuple[Any, Any]:
    """Return what is decided where the challenger is bought `harm` less at LGA and as much more elsewhere."""
    random = np.random.default_rng(seed)
    test = ht.ABTest("bought", min_answers=50, groups=("origin",), worth=0.001)
    first, second = answers("rel_a", [0.0] * n), answers("rel_b", [0.0] * n)
    mixed = pa.concat_tables([first, second]).take(pa.array(random.permutation(2 * n)))
    places = np.where(random.random(2 * n) < 0.5, "LGA", "JFK")
    ids = mixed.column("id").to_pylist()
    moved_by = np.where(places == "LGA", -harm, harm) * np.array([each.startswith("rel_b") for each in ids])
    bought = random.random(2 * n) < 0.5 + moved_by
    table = mixed.append_column("x_origin", pa.array(places.tolist()))
    judging = absorb_business(ArmsJudging("", ""), rollout(test), table, said(ids, bought), START)
    # What was counted survives being stored.
    judging = ArmsJudging.from_json(judging.to_json())
    return judge_business(test, judging, rollout(test), START + timedelta(days=1))


def test_an_ab_test_is_rolled_back_where_one_group_is_worse_off_although_the_whole_is_not() -> None:
    found, facts = by_group(0.2, 1)
    assert found.verdict == "roll_back"
    assert "A group is worse off by more than 0.05" in found.why
    assert "where origin is “LGA”" in found.why
    measures = {each["measure"]: each for each in facts["measures"]}
    assert measures["feedback of group 0|LGA"]["lower"] > 0.05
    assert measures["feedback of group 0|JFK"]["upper"] < 0.0
    # An equal release is rolled back in at most one of forty; that two of six are would be a wonder.
    assert [by_group(0.0, seed, 1000)[0].verdict for seed in range(6)].count("roll_back") <= 1


def test_values_beyond_the_first_twelve_are_one_group() -> None:
    test = replace(TEST, groups=("origin",))
    n = 40
    table = answers("rel_b", [0.0] * n).append_column("x_origin", pa.array([f"A{row}" for row in range(n)]))
    labels = said(table.column("id").to_pylist(), [1] * n)
    judging = absorb_business(ArmsJudging("", ""), rollout(test), table, labels, START)
    names = [each for each in judging.sequences["challenger"] if each.startswith("feedback of")]
    assert len(names) == 13
    assert names[-1] == "feedback of group 0|(others)"
    assert judging.sequences["challenger"][names[-1]].n == n - 12


def test_groups_of_applications_are_refused() -> None:
    for plan in (ht.ABTest("liked", groups=("origin",)), Canary(metric="answers", groups=("origin",))):
        spec = replace(SERVICE, kind="application", entity=None, key=None, rollout=plan)
        with pytest.raises(ConfigurationError, match="it is an application"):
            check_service(spec)


def test_what_makes_no_difference_worth_having_is_stopped() -> None:
    found = judged(0.99, 0.99, 3000, replace(TEST, worth=0.05))
    assert (found.verdict, "No difference of 0.05 or more is left" in found.why) == ("stop", True)
    assert judge_business(TEST, ArmsJudging("", ""), rollout(TEST), START + timedelta(days=60))[0].verdict == "stop"


def test_only_the_named_feedback_on_answers_counts_and_a_models_scores_do_not() -> None:
    table = answers("rel_b", [0.9, 0.9, 0.9])
    table = table.append_column("role", pa.array(["answer", "shadow", "answer"]))
    ids = ["rel_b-0", "rel_b-1", "rel_b-0", "rel_b-2"]
    labels = pa.concat_tables([said(ids[:3], [1, 1, 0]), said(ids[3:], [0], name="liked")])
    judging = absorb_business(ArmsJudging("", ""), rollout(TEST), table, labels, START)
    mine = judging.sequences["challenger"]
    assert set(mine) == {"failed", "feedback"}
    assert (mine["failed"].n, mine["feedback"].n, mine["feedback"].mean) == (2, 1, 0.0)
    assert judging.rated("champion") == 0


def test_an_ab_test_of_equal_releases_is_hardly_ever_decided_wrongly() -> None:
    plan = ht.ABTest("bought", worth=0.001)
    found = simulate(plan, Scenario(swing=0.1, requests=10_000, per_day=10_000, look_hours=2.0), 40, 5)
    assert found.endings["rolled_back"] + found.endings["promoted"] <= 2
    better = simulate(plan, Scenario(effect=-0.1, requests=10_000, per_day=10_000, look_hours=2.0), 8, 5)
    assert better.endings["promoted"] == 8


def test_a_bandit_moves_to_the_better_release_and_keeps_the_floor() -> None:
    random = np.random.default_rng(1)
    now = START + timedelta(days=2)
    judging = ArmsJudging("", "")
    assert moved(BANDIT, judging, rollout(BANDIT), now).share == 50.0
    arms = random.random(600) < 0.5
    values = (random.random(600) < np.where(arms, 0.3, 0.8)).astype(float)
    judging = moved(BANDIT, judging.counted({"feedback": (arms, values)}), rollout(BANDIT), now)
    assert judging.share == 80.0
    soon = judging.counted({"feedback": (arms, 1.0 - values)}).counted({"feedback": (arms, 1.0 - values)})
    assert moved(BANDIT, soon, rollout(BANDIT), now + timedelta(hours=23)).share == 80.0
    assert moved(BANDIT, soon, rollout(BANDIT), now + timedelta(hours=24)).share == 20.0
    assert ArmsJudging.from_json(judging.to_json()).share == 80.0
    assert moved(TEST, judging.counted({}), rollout(TEST), now) is not None


def test_a_bandit_exposes_fewer_to_a_worse_release_than_an_even_split() -> None:
    scenario = Scenario(effect=0.04, requests=30_000, per_day=3000, look_hours=12.0)
    even = simulate(ht.ABTest("bought", worth=0.001), scenario, 8, 3)
    bandit = simulate(ht.Bandit("bought", worth=0.001), scenario, 8, 3)
    assert even.answered is not None
    assert bandit.answered is not None
    assert bandit.answered.middle < even.answered.middle
    assert bandit.endings["promoted"] == 0


class Shop:
    """Write answers and what was bought as a data plane does."""

    def __init__(self, world: World, running: Rollout) -> None:
        self.world, self.running, self.count = world, running, 0
        self.writer = world.stores.journal.writer("plane")

    def day(self, n: int, first: float, second: float) -> None:
        world, random = self.world, self.world.random
        share = world.rollout(self.running.id).percent
        arms = random.random(n) * 100 < share
        ids = [f"prd_{self.count + row:06d}" for row in range(n)]
        self.count += n
        now = microseconds(world.clock.now())
        record = {
            "id": ids,
            "prediction_id": ids,
            "time": [now + row for row in range(n)],
            "recorded_at": now,
            "role": "answer",
            "release": [self.running.challenger if arm else self.running.champion for arm in arms],
            "rollout": self.running.id,
            "score": 0.5,
            "fallback": False,
        }
        self.writer.append("prediction", world.project, "delay", record, n)
        bought = random.random(n) < np.where(arms, second, first)
        feedback = {
            "id": [f"fbk_{each}" for each in ids],
            "time": now,
            "prediction_id": ids,
            "name": "bought",
            "value": bought.astype(float).tolist(),
            "low": 0.0,
            "high": 1.0,
        }
        self.writer.append("feedback", world.project, "holdtrue", feedback, n)
        world.clock.advance(86_400)
        world.judge()
        world.reconcile()
        world.ack()


def open_shop(tmp_path: Path, plan: Canary) -> tuple[World, Rollout]:
    world = open_world(tmp_path)
    world.declare(service=replace(SERVICE, rollout=plan))
    return world, world.rolling()


def test_a_bandit_over_the_journal_is_routed_by_its_share_and_ends_promoted(tmp_path: Path) -> None:
    world, running = open_shop(tmp_path, replace(BANDIT, worth=0.001, min_rows_per_step=400))
    shop = Shop(world, running)
    assert [arm["percent"] for arm in route(world)["arms"]] == [50.0, 50.0]
    assert (route(world)["shadows"], route(world)["paired"]) == ([], False)
    shop.day(200, 0.2, 0.5)
    shop.day(200, 0.2, 0.5)
    arms = {arm["name"]: arm["percent"] for arm in route(world)["arms"]}
    assert arms == {"champion": 20.0, "challenger": 80.0}
    steps = world.read(lambda conn: ht_steps(conn, world, running))
    assert [(each.action, each.percent) for each in steps] == [("started", 50.0), ("advanced", 80.0)]
    for _ in range(9):
        if world.rollout(running.id).state is RolloutState.RUNNING:
            shop.day(400, 0.2, 0.5)
    ended = world.rollout(running.id)
    assert (ended.state, ended.percent) == (RolloutState.PROMOTED, 0.0)
    assert "It is better than the champion" in ended.reason


def ht_steps(connection: Any, world: World, running: Rollout) -> Any:
    from holdtrue import delivery

    return delivery.rollout_steps(connection, world.project, running.id)


def route(world: World) -> Any:
    return world.snapshot()["services"]["flights/delay"]


@pytest.mark.parametrize(("harm", "words"), [(0.0, "It is at most"), (0.3, "It is worse than the champion")])
def test_a_shadow_answers_nobody_and_ends_with_what_it_has_shown(tmp_path: Path, harm: float, words: str) -> None:
    world, running = open_shop(tmp_path, ht.Shadow(margin=0.02))
    assert [arm["release"] for arm in route(world)["arms"]] == [running.champion]
    assert route(world)["shadows"] == [running.challenger]
    for _ in range(8):
        world.day(world.rollout(running.id), 300, harm=harm)
        world.judge()
    ended = world.rollout(running.id)
    assert ended.state is RolloutState.STOPPED
    assert f"The shadow has shown enough. {words}" in ended.reason
    assert world.deployment().release == running.champion
    assert world.actions("incident.") == []


def test_blue_green_switches_everybody_at_once_after_the_proof(tmp_path: Path) -> None:
    world, running = open_shop(tmp_path, ht.BlueGreen(margin=0.02))
    for _ in range(8):
        assert [arm["release"] for arm in route(world)["arms"]] == [running.champion]
        world.day(world.rollout(running.id), 300)
        world.judge()
        if world.rollout(running.id).state is not RolloutState.RUNNING:
            break
    world.reconcile()
    assert world.rollout(running.id).state is RolloutState.PROMOTED
    assert [(arm["release"], arm["percent"]) for arm in route(world)["arms"]] == [(running.challenger, 100.0)]
    assert world.rollback().deployment.release == running.champion


@pytest.mark.parametrize("plan", [TEST, BANDIT, ht.Shadow(), ht.BlueGreen()])
def test_each_plan_can_be_declared_for_a_model(plan: Canary) -> None:
    check_service(replace(SERVICE, rollout=plan))


@pytest.mark.parametrize(
    ("plan", "kind", "said"),
    [
        (ht.ABTest(""), "model", "no name of it is given"),
        (ht.ABTest("bought", share=0.0), "model", "Give both arms a share"),
        (ht.ABTest("bought", worth=0.0), "model", "worth is 0"),
        (ht.Bandit("bought", floor=60.0), "model", "floor is 60"),
        (ht.Bandit("bought", move_hours=0.0), "model", "move_hours is 0"),
        (Canary(strategy="bandit"), "model", "without feedback"),
        (Canary(margin=0.0), "model", "margin is 0"),
        (ht.Shadow(), "application", "metric is “brier”"),
        (ht.BlueGreen(), "application", "metric is “brier”"),
    ],
)
def test_a_plan_that_cannot_work_is_refused(plan: Canary, kind: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        check_service(replace(SERVICE, rollout=plan, kind=kind))
