"""The evidence of graded answers: its numbers, the names that rules read, and its size."""

import json
import random
from typing import Any

import numpy as np
import pytest

from holdtrue.core.canonical import canonical_bytes
from holdtrue.evaluation import (
    AnswerView,
    Case,
    Check,
    Expected,
    Graded,
    Helpers,
    TestSet,
    calibrate,
    run_answers,
    summarise,
)
from holdtrue.evaluation.summary import MOST_BYTES, MOST_FAILURES
from holdtrue.governance import Finding, Policy, Rule
from holdtrue.governance.rules import build_context, evaluate
from holdtrue.stats import wilson
from tests.evaluation.answerers import CHECKS, Answerer, questions


def graded(answerer: Any, repeats: int = 1, cases: TestSet | None = None, **more: Any) -> Graded:
    given: dict[str, Any] = {"checks": CHECKS, **more}
    return run_answers(cases or questions(), answerer, given.pop("checks"), application="a" * 64,
                       repeats=repeats, release="rel_1", **given)  # fmt: skip


def judge(rule: str, content: Any) -> Finding:
    context = build_context([("answers", content)], {"first": True})
    return evaluate(Policy("production", (Rule("r", rule),)), context, "release rel_1")[0]


def test_rates_are_those_of_the_answers() -> None:
    found = summarise(graded(Answerer(always_wrong=("up", "init", "gpu"))))
    exact = wilson(17, 20)
    assert found["pass_rate"] == {
        "mean": pytest.approx(17 / 20),
        "lower": pytest.approx(exact.lower),
        "upper": pytest.approx(exact.upper),
        "n": 20,
    }
    assert (found["n"], found["answers"], found["repeats"], found["errors"]) == (20, 20, 1, 0)
    assert (found["test_set"], found["release"]) == (questions().id, "rel_1")
    assert found["checks"]["citation"]["mean"] == pytest.approx(14 / 16)
    assert found["checks"]["citation"]["failed"] == 2
    assert found["checks"]["length"]["mean"] == 1.0
    assert set(found["checks"]) == {"contains", "regex", "citation", "abstention", "length"}


def test_repeats_count_answers_but_not_questions() -> None:
    run = graded(Answerer(right=0.6, seed=5), repeats=5)
    found = summarise(run)
    assert found["pass_rate"]["mean"] == pytest.approx(np.mean([row.passed for row in run.rows]))
    assert (found["pass_rate"]["n"], found["answers"]) == (20, 100)


def test_weights_of_questions_count() -> None:
    cases = [Case("a", "A?", expected=Expected(answers=("yes",)), weight=3.0)]
    cases += [Case(f"b{at}", "B?", expected=Expected(answers=("no",))) for at in range(3)]
    found = summarise(graded(lambda *_: AnswerView("yes"), cases=TestSet("w", tuple(cases)), checks=[Check("exact")]))
    assert found["pass_rate"]["mean"] == pytest.approx(0.5)


def test_abstention_has_precision_and_recall() -> None:
    # Of 4 unanswerable questions 3 are declined; of 16 answerable ones 2 are.
    def answer(case: Case, repeat: int) -> AnswerView:
        if case.id in ("up", "init"):
            return AnswerView("I don't know.", abstained=True)
        return Answerer(always_wrong=("gpu",))(case, repeat)

    found = summarise(graded(answer))
    assert found["unanswerable"]["declined"]["mean"] == pytest.approx(3 / 4)
    assert found["answerable"]["answered"]["mean"] == pytest.approx(14 / 16)
    assert found["abstention"]["recall"]["mean"] == pytest.approx(3 / 4)
    assert found["abstention"]["precision"]["mean"] == pytest.approx(3 / 5)
    assert found["unanswerable"]["failed"] == 1
    (listed,) = found["unanswerable"]["failures"]
    assert listed["what"].startswith("gpu: How many GPUs")
    assert listed["why"] == "it answered: “About 40, as far as the README tells.”"


def test_cost_and_latency_stand_beside_quality() -> None:
    run = graded(Answerer(right=0.7, seed=2), repeats=2)
    found = summarise(run)
    costs = [row.answer.cost_micros for row in run.rows]
    seconds = [row.answer.seconds for row in run.rows]
    assert found["cost"]["total"] == sum(costs)  # type: ignore[arg-type]  # all are measured
    assert found["cost"]["mean"] == pytest.approx(np.mean(costs))  # type: ignore[arg-type]  # all are measured
    assert found["cost"]["lower"] < found["cost"]["mean"] < found["cost"]["upper"]
    assert found["cost"]["per_correct"] == pytest.approx(found["cost"]["total"] / sum(row.passed for row in run.rows))
    assert found["latency"]["p50"] == pytest.approx(np.quantile(seconds, 0.5))  # type: ignore[arg-type]  # as above
    assert found["latency"]["p95"] == pytest.approx(np.quantile(seconds, 0.95))  # type: ignore[arg-type]  # as above
    dearest = [each["why"] for each in found["cost"]["failures"]]
    assert dearest == sorted(dearest, reverse=True)
    assert len(dearest) == 5


def test_what_was_not_measured_is_counted_and_has_no_number() -> None:
    found = summarise(graded(lambda case, repeat: AnswerView("I don't know.")))
    assert found["cost"] == {"n": 0, "unmeasured": 20}
    assert found["latency"] == {"n": 0, "unmeasured": 20}
    assert not judge("answers.cost.mean <= 1000000.0", found).passed
    nothing_right = summarise(graded(Answerer(right=0.0)))
    assert nothing_right["cost"]["per_correct"] is None


def test_slices_have_a_minimum_size_and_the_worst_comes_first() -> None:
    found = summarise(graded(Answerer(always_wrong=("up", "init", "token", "labels"))), ["topic"])
    assert [(each["value"], each["n"]) for each in found["slices"]] == [("using", 7), ("trying", 9)]
    assert found["slices"][0]["mean"] == pytest.approx(3 / 7)
    assert found["skipped_slices"] == 1
    assert summarise(graded(Answerer()), ["topic"], min_slice=4)["skipped_slices"] == 0
    assert summarise(graded(Answerer()), [])["slices"] == []


def sliced(rng: random.Random, bad: float) -> Graded:
    """Return answers to 10 topics of 12 questions, of which the first is right with chance `bad`."""
    cases = [
        Case(f"q{at}", "Q?", expected=Expected(answers=("yes",)), tags={"topic": f"t{at // 12}"}) for at in range(120)
    ]

    def answer(case: Case, _: int) -> AnswerView:
        chance = bad if case.tags["topic"] == "t0" else 0.85
        return AnswerView("yes" if rng.random() < chance else "no")

    return graded(answer, cases=TestSet("s", tuple(cases)), checks=[Check("exact")], concurrency=1)


def test_a_worse_slice_is_marked_and_even_ones_hardly_ever() -> None:
    rng = random.Random(1)
    runs = 12
    even = [any(each["worse"] for each in summarise(sliced(rng, 0.85))["slices"]) for _ in range(runs)]
    assert sum(even) <= 3
    bad = [[each["value"] for each in summarise(sliced(rng, 0.2))["slices"] if each["worse"]] for _ in range(runs)]
    assert sum("t0" in each for each in bad) >= 0.8 * runs


def test_failures_come_worst_first_with_every_reason() -> None:
    found = summarise(graded(Answerer(right=0.7, seed=3, always_wrong=("up",)), repeats=3))
    shares = [int(each["why"].split()[1]) for each in found["failures"]]
    assert shares == sorted(shares, reverse=True)
    assert found["failed"] == len(found["failures"])
    assert found["failures_title"] == f"{found['failed']} of 20 questions failed"
    worst = next(each for each in found["failures"] if each["what"].startswith("up:"))
    assert worst["what"] == "up: What does holdtrue up start?"
    assert worst["why"].startswith("failed 3 of 3 times: contains: “control plane” is not in it")
    assert "citation: it cites Holdtrue, not the source Use it" in worst["why"]


def test_errors_are_counted_and_are_the_reason() -> None:
    found = summarise(graded(lambda *_: AnswerView(error="timed out after 30 s")))
    assert found["errors"] == 20
    assert found["pass_rate"]["mean"] == 0.0
    assert found["failures"][0]["why"] == "no answer: timed out after 30 s"
    assert "answerable" not in found
    assert found["unanswerable"]["declined"]["mean"] == 0.0


def test_judges_show_their_abstentions_and_their_calibration() -> None:
    replies = iter(['{"reason": "ok", "score": 5}'] * 10 + ["nonsense"] * 6)
    checks = (Check("abstention"), Check("judge", {"instructions": "Right?"}, "right"))
    run = graded(Answerer(), checks=checks, helpers=Helpers(complete=lambda *_: next(replies)), concurrency=1)
    people = [1.0, 0.0] * 20
    found = summarise(run, calibrations=[calibrate("right", list(people), people)])
    assert found["checks"]["right"]["abstained"] == 6
    assert found["checks"]["right"]["mean"] == pytest.approx(10 / 16)
    assert judge("answers.checks.right.calibration.kappa.lower >= 0.5", found).passed
    assert not judge("answers.checks.right.calibration.kappa.lower >= 0.5", summarise(run)).passed


@pytest.mark.parametrize(
    ("rule", "passed"),
    [
        ("answers.pass_rate.lower >= 0.8", True),
        ("answers.pass_rate.lower >= 0.9", False),
        ("answers.pass_rate.n >= 20", True),
        ("answers.checks.citation.mean >= 0.95 && answers.checks.citation.score.lower > 0.5", True),
        ("answers.unanswerable.declined.lower >= 0.5", True),
        ("answers.slices.all(s, s.lower >= 0.5)", True),
        ("!answers.slices.exists(s, s.worse)", True),
        ("answers.cost.per_correct <= 400.0", True),
        ("answers.cost.mean <= 100", False),
        ("answers.latency.p95 <= 2.0", True),
        ("answers.latency.p95 <= 2", True),
        ("answers.errors == 0", True),
        ("answers.failed <= 3", True),
        ("answers.abstention.precision.lower >= 0.4", True),
        ("answers.checks.tool_call.mean >= 0.5", False),
    ],
)
def test_rules_read_the_evidence(rule: str, passed: bool) -> None:
    found = judge(rule, summarise(graded(Answerer())))
    assert found.passed == passed, found.why


def test_nothing_unanswerable_is_missing_evidence() -> None:
    some = TestSet("some", questions().cases[:10])
    found = judge("answers.unanswerable.declined.lower >= 0.0", summarise(graded(Answerer(), cases=some)))
    assert not found.passed
    assert "unanswerable" in found.why


@pytest.mark.parametrize("sign", ["x", "語", "😀"])
def test_evidence_stays_below_its_bound_however_much_fails(sign: str) -> None:
    cases = [
        Case(f"q{at}", sign * 5000, expected=Expected(contains=(sign * 300 + "1", sign * 300 + "2")),
             tags={f"{name}{sign * 90}": f"{at % 60}{sign * 90}" for name in "abc"})
        for at in range(600)
    ]  # fmt: skip
    checks = [Check("contains", {"must": [f"{at}{sign * 200}"]}, f"c{at}") for at in range(40)]
    found = summarise(graded(lambda *_: AnswerView(sign * 900), cases=TestSet("big", tuple(cases)), checks=checks))
    assert len(canonical_bytes(found)) <= MOST_BYTES
    assert found["failed"] == 600
    assert 5 <= len(found["failures"]) <= MOST_FAILURES
    assert found["skipped_slices"] + len(found["slices"]) == 180
    assert json.loads(canonical_bytes(found))["n"] == 600


def test_the_same_answers_give_the_same_evidence() -> None:
    one, two = (summarise(graded(Answerer(right=0.5), repeats=3)) for _ in range(2))
    assert one == two
