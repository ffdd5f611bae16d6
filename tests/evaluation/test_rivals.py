"""Two releases on the same questions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from holdtrue.core.canonical import canonical_bytes
from holdtrue.core.errors import InvalidInput
from holdtrue.evaluation import AnswerView, Case, Check, Expected, Graded, TestSet, compare_answers, run_answers
from holdtrue.governance import Policy, Rule
from holdtrue.governance.rules import build_context, evaluate
from tests.evaluation.answerers import CHECKS, Answerer, questions


def graded(answerer: Any, release: str = "rel_old", repeats: int = 1, **more: Any) -> Graded:
    given: dict[str, Any] = {"cases": questions(), "checks": CHECKS, **more}
    return run_answers(given["cases"], answerer, given["checks"], application=release, release=release, repeats=repeats)


def test_a_comparison_has_the_shape_that_rules_read() -> None:
    found = compare_answers(graded(Answerer(always_wrong=("up", "init"))), graded(Answerer(), "rel_new"))
    champion = found["champion"]
    assert champion["metric"] == "pass_rate"
    assert (champion["champion"], champion["challenger"]) == (pytest.approx(0.9), pytest.approx(1.0))
    assert champion["difference"] == pytest.approx(0.1)
    assert champion["lower"] < 0.1 < champion["upper"]
    assert (champion["n"], champion["won"], champion["lost"], champion["same"]) == (20, 2, 0, 18)
    assert champion["p_better"] == pytest.approx(0.875)  # mid-p of 2 wins of 2: 1 − 0.5 · 1/4
    assert found["against"] == "rel_old"
    assert set(champion) >= {"method", "blocks", "others", "p_better"}
    assert canonical_bytes(found)


@pytest.mark.parametrize(
    ("rule", "passed"),
    [
        ("comparison.champion.p_better >= 0.95", False),
        ("comparison.champion.p_better >= 0.4", True),
        ("comparison.champion.lower >= -0.05", False),
        ("comparison.champion.lower >= -0.2", True),
        ("comparison.champion.lost == 0", True),
        ("comparison.cost_ratio.upper <= 2.5", True),
        ("comparison.latency_ratio.value <= 2", True),
        ("release.first || comparison.champion.p_better >= 0.95", True),
    ],
)
def test_the_rules_of_any_comparison_work(rule: str, passed: bool) -> None:
    content = compare_answers(graded(Answerer()), graded(Answerer(cost=600), "rel_new"))
    context = build_context([("comparison", content)], {"first": rule.startswith("release.first")})
    assert evaluate(Policy("p", (Rule("r", rule),)), context)[0].passed == passed


def test_it_names_what_was_won_and_lost_and_why() -> None:
    found = compare_answers(
        graded(Answerer(always_wrong=("labels",))), graded(Answerer(always_wrong=("up", "gpu")), "rel_new")
    )
    assert [each["what"] for each in found["won"]] == ["labels: Where are labels sent?"]
    assert found["won"][0]["why"].startswith("the champion, contains: “/labels” is not in it; citation:")
    assert sorted(each["what"].split(":")[0] for each in found["failures"]) == ["gpu", "up"]
    assert found["failures_title"] == "2 of 20 questions were lost to the champion"
    assert (found["failed"], found["champion"]["lost"]) == (2, 2)
    assert found["champion"]["checks"]["citation"]["difference"] == pytest.approx(0.0)
    assert found["champion"]["checks"]["abstention"]["difference"] == pytest.approx(-1 / 20)


def test_repeats_say_how_often() -> None:
    found = compare_answers(
        graded(Answerer(right=0.9, seed=1), repeats=3), graded(Answerer(right=0.4, seed=2), "rel_new", repeats=5)
    )
    worst = found["failures"][0]["why"]
    assert worst.startswith("failed ")
    assert " of 5 times: " in worst
    assert worst.endswith(" of 3)")
    assert "3 and 5 repeats" in found["champion"]["method"]
    assert found["champion"]["p_better"] < 0.01


def test_a_wager_of_wins_and_losses_is_mcnemars() -> None:
    lost = ("up", "init", "token", "labels", "needs", "report", "licence")
    found = compare_answers(graded(Answerer()), graded(Answerer(always_wrong=lost), "rel_new"))
    above, below = (float(binomtest(0, 7, 0.5, alternative=side).pvalue) for side in ("greater", "less"))
    assert found["champion"]["p_better"] == pytest.approx((1.0 - above + below) / 2.0)


def test_cost_and_time_are_ratios_with_intervals() -> None:
    slow = compare_answers(graded(Answerer()), graded(Answerer(cost=600, seconds=1.6, seed=9), "rel_new"))
    for name in ("cost_ratio", "latency_ratio"):
        assert slow[name]["lower"] < 2.0 < slow[name]["upper"]
        assert slow[name]["lower"] > 1.2
        assert slow[name]["n"] == 20
    unknown = compare_answers(graded(Answerer()), graded(lambda *_: AnswerView("I don't know."), "rel_new"))
    assert unknown["cost_ratio"]["value"] is None
    assert unknown["latency_ratio"]["n"] == 0


def test_only_the_same_questions_are_paired() -> None:
    cases = list(questions().cases)
    cases[0] = replace(cases[0], question="What licence?")
    cases[1] = replace(cases[1], tags={"topic": "other"}, weight=2.0)
    new = TestSet("readme", (*cases[:19], Case("extra", "More?", expected=Expected(answerable=False))))
    found = compare_answers(graded(Answerer()), graded(Answerer(), "rel_new", cases=new))
    assert found["champion"]["n"] == 18
    # One was asked otherwise, one is gone, one is new.
    assert found["champion"]["left_out"] == 3


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    champion = graded(Answerer())
    with pytest.raises(InvalidInput, match="different checks"):
        compare_answers(champion, graded(Answerer(), checks=CHECKS[1:]))
    other = TestSet("other", (Case("x", "X?", expected=Expected(answerable=False)),))
    with pytest.raises(InvalidInput) as caught:
        compare_answers(champion, graded(Answerer(), cases=other))
    assert "no id is in both" in caught.value.why
    same_id = TestSet("other", (Case("up", "X?", expected=Expected(answerable=False)),))
    with pytest.raises(InvalidInput) as caught:
        compare_answers(champion, graded(Answerer(), cases=same_id))
    assert "of the same id differ" in caught.value.why


def many(n: int) -> TestSet:
    return TestSet("many", tuple(Case(f"q{at}", "Q?", expected=Expected(answers=("yes",))) for at in range(n)))


def answerer(rng: np.random.Generator, chances: Any) -> Any:
    said = {f"q{at}": bool(rng.random() < chance) for at, chance in enumerate(chances)}
    return lambda case, _: AnswerView("yes" if said[case.id] else "no")


def test_equal_releases_are_hardly_ever_called_better_and_a_better_one_is() -> None:
    rng = np.random.default_rng(3)
    cases, checks, runs = many(100), [Check("exact")], 40
    equal = better = noninferior = 0
    for _ in range(runs):
        chances = rng.beta(4.0, 1.0, 100)
        one, two = (graded(answerer(rng, chances), cases=cases, checks=checks) for _ in range(2))
        up = graded(answerer(rng, chances + 0.8 * (1.0 - chances)), cases=cases, checks=checks)
        equal += compare_answers(one, two)["champion"]["p_better"] >= 0.95
        found = compare_answers(one, up)["champion"]
        better += found["p_better"] >= 0.95
        noninferior += found["lower"] >= -0.05
    assert equal <= 0.05 * runs + 4 * np.sqrt(0.05 * 0.95 * runs)
    assert better >= 0.85 * runs
    assert noninferior >= 0.95 * runs


def test_evidence_stays_small_and_is_the_same_again() -> None:
    cases = TestSet("big", tuple(replace(case, question="語" * 4000) for case in many(400).cases))
    champion = graded(lambda *_: AnswerView("yes"), cases=cases, checks=[Check("exact")])
    challenger = graded(lambda *_: AnswerView("語" * 400), "rel_new", cases=cases, checks=[Check("exact")])
    found = compare_answers(champion, challenger)
    assert len(canonical_bytes(found)) < 200_000
    assert (found["failed"], len(found["failures"])) == (400, 40)
    assert compare_answers(champion, challenger) == found
