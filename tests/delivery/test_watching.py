"""What a rollout is judged on beside its losses: groups, refused requests, slow answers, estimated quality."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from holdtrue.core.clock import microseconds
from holdtrue.core.errors import ConfigurationError
from holdtrue.delivery import Canary, Rollout
from holdtrue.delivery.judging import Judging, absorb, absorb_refusals, facts_of
from holdtrue.delivery.plans import BlueGreen, Shadow
from holdtrue.delivery.rules import Judgement, check_service, judge
from holdtrue.delivery.simulating import _rollout  # pyright: ignore[reportPrivateUsage]
from holdtrue.delivery.strategies import strategy_of
from holdtrue.delivery.watching import OTHER, Watching, concerns
from tests.delivery.worlds import SERVICE, START, World, open_world

NOW = microseconds(START)


def running(**canary: Any) -> Rollout:
    plan = replace(Canary(steps=(5.0, 50.0), margin=0.05, min_rows_per_step=50), **canary)
    return replace(_rollout(plan), started_at=START)


def scored(rollout: Rollout, champion: Any, challenger: Any, **more: Any) -> pa.Table:
    """Return the records of rows that both releases scored, the champion answering."""
    n = len(champion)
    ids = [f"prd_{row:06d}" for row in range(n)]
    both: dict[str, list[Any]] = {"prediction_id": ids * 2, "id": [*ids, *(f"{each}~c" for each in ids)]}
    both |= {name: [*mine, *theirs] for name, (mine, theirs) in more.items()}
    return pa.table(
        {
            **both,
            "rollout": [rollout.id] * 2 * n,
            "release": [rollout.champion] * n + [rollout.challenger] * n,
            "role": ["answer"] * n + ["shadow"] * n,
            "score": [*map(float, champion), *map(float, challenger)],
            "fallback": [False] * 2 * n,
            "key": [f"K{row}" for row in range(n)] * 2,
            "recorded_at": [NOW] * 2 * n,
        }
    )


def labels(truth: Any) -> pa.Table:
    n = len(truth)
    return pa.table(
        {
            "prediction_id": pa.array([None] * n, pa.string()),
            "key": [f"K{row}" for row in range(n)],
            "value": [float(each) for each in truth],
            "known_at": [NOW + row for row in range(n)],
        }
    )


def nothing() -> pa.Table:
    return labels([])


def judged(rollout: Rollout, judging: Judging) -> Judgement:
    return judge(rollout.canary, facts_of(judging, rollout, START))


def groups(n: int, harm: float, seed: int = 1) -> tuple[Any, Any, Any, Any]:
    """Return origins, truth and two releases' scores: the challenger errs `harm` more at LGA, elsewhere less."""
    random = np.random.default_rng(seed)
    origin = np.array(["EWR", "JFK", "LGA"])[np.arange(n) % 3]
    truth = random.random(n) < 0.5
    first = np.where(random.random(n) < 0.2, ~truth, truth)
    more = np.where(origin == "LGA", 0.2 + harm, 0.2 - harm / 2.0)
    second = np.where(random.random(n) < more, ~truth, truth)
    return origin, truth, np.where(first, 0.9, 0.1), np.where(second, 0.9, 0.1)


def in_groups(rollout: Rollout, n: int, harm: float, seed: int = 1) -> Judging:
    origin, truth, first, second = groups(n, harm, seed)
    places = {f"x_{name}": (origin.tolist(), origin.tolist()) for name in rollout.canary.groups}
    counted = absorb(Judging("", ""), rollout, scored(rollout, first, second, **places), nothing(), START)
    return absorb(Judging.from_json(counted.to_json()), rollout, scored(rollout, [], []), labels(truth), START)


def test_a_release_that_errs_more_in_one_group_is_rolled_back_although_it_is_no_worse_on_the_whole() -> None:
    rollout = running(groups=("origin",), group_margin=0.05)
    found = judged(rollout, in_groups(rollout, 6000, harm=0.2))
    assert found.verdict == "roll_back"
    assert found.why.startswith("The share of errors where origin is “LGA”, against all other rows, differs")
    assert judged(running(), in_groups(running(), 6000, harm=0.2)).verdict == "advance"
    wide = running(groups=("origin",), group_margin=0.5)
    assert judged(wide, in_groups(wide, 6000, harm=0.2)).verdict == "advance"


def test_each_group_is_known_by_the_difference_of_differences_that_was_made() -> None:
    rollout = running(groups=("origin",))
    judging = in_groups(rollout, 6000, harm=0.1)
    origin, truth, first, second = groups(6000, 0.1)
    found = {each.name: each for each in facts_of(judging, rollout, START).concerns}
    moved = ((second > 0.5) != truth).astype(float) - ((first > 0.5) != truth)
    for value in ("EWR", "JFK", "LGA"):
        mine = origin == value
        made = moved[mine].mean() - moved[~mine].mean()
        each = found[f"origin = {value}"]
        assert each.value == pytest.approx(made, abs=0.01)
        assert each.lower < made < each.upper
        assert each.n == 2000
        group = judging.watching.groups["origin"][value]
        assert group.inside[1] == int(((first > 0.5) != truth)[mine].sum())
        assert group.outside[2] == int(((second > 0.5) != truth)[~mine].sum())


def test_equal_releases_are_rarely_rolled_back_for_a_group() -> None:
    """Looked at after every 300 rows, with no margin to speak of: at most alpha, here none of 40."""
    rollout = running(groups=("origin",), group_margin=1e-9)
    ended = 0
    for seed in range(40):
        judging = Judging("", "")
        for part in range(6):
            origin, truth, first, second = groups(300, 0.0, seed=100 * seed + part)
            places = {"x_origin": (origin.tolist(), origin.tolist())}
            judging = absorb(judging, rollout, scored(rollout, first, second, **places), labels(truth), START)
            if any(each.breached for each in facts_of(judging, rollout, START).concerns):
                ended += 1
                break
    assert ended <= 2


def test_closing_a_gap_is_no_harm() -> None:
    """The champion errs less at LGA than elsewhere; a challenger that errs alike everywhere moved that group up."""
    random = np.random.default_rng(3)
    n = 6000
    origin = np.array(["EWR", "LGA"])[np.arange(n) % 2]
    truth = random.random(n) < 0.5
    first = np.where(random.random(n) < np.where(origin == "LGA", 0.02, 0.3), ~truth, truth)
    second = np.where(random.random(n) < np.where(origin == "LGA", 0.15, 0.17), ~truth, truth)
    rollout = running(groups=("origin",), group_margin=0.05)
    table = scored(rollout, np.where(first, 0.9, 0.1), np.where(second, 0.9, 0.1), x_origin=(origin, origin))
    judging = absorb(Judging("", ""), rollout, table, labels(truth), START)
    lga = next(each for each in facts_of(judging, rollout, START).concerns if each.group == "LGA")
    assert lga.lower > 0.05
    assert not lga.breached


def test_positive_decisions_are_compared_without_labels_and_either_way() -> None:
    rollout = running(groups=("kind",), group_measure="positive", group_margin=0.1)
    random = np.random.default_rng(4)
    n = 4000
    kind = np.where(np.arange(n) % 4 == 0, "a", "b")
    first = random.random(n)
    for moved in (-0.3, 0.3):
        second = np.clip(first + np.where(kind == "a", moved, 0.0), 0.0, 1.0)
        table = scored(rollout, first, second, x_kind=(kind, kind))
        judging = absorb(Judging("", ""), rollout, table, nothing(), START)
        found = judged(rollout, judging)
        assert found.verdict == "roll_back"
        assert "share of yes where kind is" in found.why


@pytest.mark.parametrize(("plan", "verdict"), [(Shadow, "stop"), (BlueGreen, "roll_back")])
def test_a_release_that_nobody_is_answered_by_is_judged_by_group_too(plan: Any, verdict: str) -> None:
    rollout = replace(_rollout(plan(groups=("origin",), margin=0.2)), started_at=START)
    found, _ = strategy_of(rollout.canary).judge(rollout.canary, in_groups(rollout, 6000, 0.3), rollout, START)
    assert found.verdict == verdict
    assert "LGA" in found.why
    fair, _ = strategy_of(rollout.canary).judge(rollout.canary, in_groups(rollout, 6000, 0.0), rollout, START)
    assert "LGA" not in fair.why


def test_where_groups_are_needed_a_release_waits_until_each_is_shown() -> None:
    rollout = running(groups=("origin",), group_margin=0.1, groups_needed=True, margin=0.2)
    last = replace(rollout, step=1)
    few = judged(last, in_groups(rollout, 900, harm=0.0))
    assert few.verdict == "wait"
    assert "not shown yet to be fair" in few.why
    assert judged(rollout, in_groups(rollout, 900, harm=0.0)).verdict == "advance"
    many = in_groups(rollout, 12_000, harm=0.0)
    assert judged(last, many).verdict == "promote"
    late = replace(facts_of(in_groups(rollout, 900, harm=0.0), last, START), days=99.0)
    assert judge(rollout.canary, late).verdict == "stop"
    nobody = replace(facts_of(in_groups(running(), 900, harm=0.0), last, START), concerns=())
    assert "no group of origin has enough" in judge(rollout.canary, nobody).why


def test_more_values_than_are_kept_apart_are_one_group() -> None:
    values = [f"v{row % 20:02d}" for row in range(2000)]
    found = Watching().grouped(("dest",), [((value,), False, False) for value in values])
    assert list(found.groups["dest"]) == [*(f"v{row:02d}" for row in range(12)), OTHER]
    assert found.groups["dest"][OTHER].inside[0] == 800
    assert Watching.from_json(found.to_json()).to_json() == found.to_json()
    assert len(concerns(found, Canary(groups=("dest",)), 0.05)) == 13


def test_a_challenger_whose_contract_refuses_more_is_rolled_back() -> None:
    rollout = running(contract_margin=0.02)
    table = scored(rollout, [0.5] * 1000, [0.5] * 1000)
    judging = absorb(Judging("", ""), rollout, table, nothing(), START)

    def refusals(n: int, *, champion: bool) -> pa.Table:
        return pa.table(
            {
                "rollout": [rollout.id] * n,
                "rows": [1] * n,
                "champion": [champion] * n,
                "challenger": [True] * n,
            }
        )

    assert judged(rollout, absorb_refusals(judging, rollout, refusals(80, champion=True))).verdict == "wait"
    found = judged(rollout, absorb_refusals(judging, rollout, refusals(80, champion=False)))
    assert found.verdict == "roll_back"
    assert "its contract refuses differs from the champion's by +0.0741" in found.why
    off = running(contract_margin=0.0)
    assert judged(off, absorb_refusals(judging, off, refusals(80, champion=False))).verdict == "wait"
    other = replace(rollout, id="rol_other")
    assert absorb_refusals(judging, other, refusals(80, champion=False)) == judging


def test_a_challenger_that_takes_too_long_is_rolled_back_by_its_own_time() -> None:
    rollout = running(latency_limit_seconds=0.01, latency_margin=0.1)
    random = np.random.default_rng(5)
    quick = random.integers(100, 9000, 600).tolist()
    slow = np.where(random.random(600) < 0.4, 20_000, 500).tolist()
    for mine, verdict in ((slow, "roll_back"), (quick, "wait")):
        table = scored(rollout, [0.5] * 600, [0.5] * 600, model_us=(quick, mine))
        found = judged(rollout, absorb(Judging("", ""), rollout, table, nothing(), START))
        assert found.verdict == verdict, found.why
    assert "takes too long for" in judged(
        rollout,
        absorb(Judging("", ""), rollout, scored(rollout, [0.5] * 600, [0.5] * 600, model_us=(quick, slow)), nothing(),
               START),
    ).why  # fmt: skip
    old = scored(rollout, [0.5] * 600, [0.5] * 600)
    assert judged(rollout, absorb(Judging("", ""), rollout, old, nothing(), START)).verdict == "wait"


def test_estimated_quality_is_judged_before_any_label_comes() -> None:
    """Scores near one half let expect a Brier score of a quarter, sure ones one near zero."""
    rollout = running(estimate_margin=0.05)
    random = np.random.default_rng(6)
    sure = np.where(random.random(500) < 0.5, 0.05, 0.95) + random.normal(0, 0.01, 500)
    unsure = random.uniform(0.3, 0.7, 500)
    table = scored(rollout, sure, unsure)
    found = judged(rollout, absorb(Judging("", ""), rollout, table, nothing(), START))
    assert found.verdict == "roll_back"
    made = (unsure * (1 - unsure) - sure * (1 - sure)).mean()
    assert f"its own probabilities let expect differs from the champion's by {made:+.4f}" in found.why
    assert judged(
        rollout, absorb(Judging("", ""), rollout, scored(rollout, unsure, sure), nothing(), START)
    ).verdict == ("wait")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"groups": ("origin", "origin")}, "groups are"),
        ({"groups_needed": True}, "none is named"),
        (
            {
                "groups": ("origin",),
                "metric": "feedback",
                "feedback_name": "bought",
                "steps": (50.0,),
                "groups_needed": True,
                "strategy": "ab",
            },
            "groups are needed",
        ),
        ({"group_margin": 0.0}, "group_margin"),
        ({"decision_at": 1.0}, "decision_at"),
        ({"contract_margin": -0.1}, "contract_margin"),
        ({"estimate_margin": 0.3}, "estimate_margin"),
    ],
)
def test_what_could_not_be_judged_is_refused_when_it_is_declared(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_service(replace(SERVICE, rollout=replace(SERVICE.rollout, **changes)))
    assert said in str(caught.value)


def test_a_running_rollout_reads_refusals_and_groups_from_the_journal(tmp_path: Path) -> None:
    world = open_world(tmp_path)
    world.declare(service=replace(SERVICE, rollout=replace(SERVICE.rollout, groups=("flight",))))
    rollout = world.rolling()
    world.day(rollout, 200)
    refuse(world, rollout, 1)
    (verdict,) = world.judge()
    assert verdict["verdict"] == "wait"
    refuse(world, rollout, 60)
    (verdict,) = world.judge()
    assert verdict["verdict"] == "roll_back"
    assert "its contract refuses" in verdict["why"]
    (concern,) = [each for each in verdict["facts"]["concerns"] if each["name"] == "refused"]
    assert concern["n"] == 261
    assert world.rollout(rollout.id).state.value == "rolled_back"


def refuse(world: World, rollout: Rollout, rows: int) -> None:
    """Write what a data plane writes of a request that only the challenger's contract refuses."""
    assert world.writer is not None
    world.count += 1
    record = {
        "id": [f"ref_{world.count}"],
        "time": microseconds(world.clock.now()),
        "rollout": rollout.id,
        "rows": rows,
        "champion": False,
        "challenger": True,
    }
    world.writer.append("refusal", world.project, "delay", record, 1)
