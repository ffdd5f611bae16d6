"""A refusal names what failed: the questions, why, and how many more."""

from typing import Any

import pytest

from holdtrue import governance
from holdtrue.evaluation import compare_answers, run_answers, summarise
from holdtrue.governance import Finding, NotAllowed, NotApprovable, Policy, Rule
from holdtrue.governance.rules import build_context, evaluate
from tests.evaluation.answerers import CHECKS, Answerer, questions
from tests.governance.worlds import BEN, World

FAILURES = [{"what": f"q{at}: Why?", "why": f"reason {at}"} for at in range(12)]


def judge(rule: str, kind: str, content: Any) -> Finding:
    context = build_context([(kind, content)], {"first": True})
    return evaluate(Policy("production", (Rule("r", rule),)), context, "release rel_1")[0]


def answers(answerer: Answerer, repeats: int = 1) -> Any:
    graded = run_answers(questions(), answerer, CHECKS, application="a" * 64, repeats=repeats, release="rel_old")
    return graded, summarise(graded)


def test_the_first_five_are_named_and_how_many_more() -> None:
    content = {"rate": 0.4, "failures": FAILURES, "failed": 12, "failures_title": "12 of 80 questions failed"}
    found = judge("answers.rate >= 0.8", "answers", content)
    assert found.why == (
        "answers.rate is 0.4. The rule asks for: answers.rate >= 0.8. 12 of 80 questions failed, among them: "
        "q0: Why? (reason 0); q1: Why? (reason 1); q2: Why? (reason 2); q3: Why? (reason 3); q4: Why? (reason 4); "
        "and 7 more"
    )


def test_few_failures_are_all_named() -> None:
    found = judge("retrieval.recall >= 0.8", "retrieval", {"recall": 0.4, "failures": FAILURES[:2]})
    assert found.why.endswith(". 2 failed: q0: Why? (reason 0); q1: Why? (reason 1)")


@pytest.mark.parametrize("kind", ["answers", "retrieval", "guardrails", "cost"])
def test_each_new_kind_is_known_to_rules_and_its_absence_fails(kind: str) -> None:
    content = {"rate": 0.4, "failures": [{"what": "case 7", "why": "leaked"}]}
    assert judge(f"{kind}.rate >= 0.4", kind, content).passed
    assert "case 7 (leaked)" in judge(f"{kind}.rate >= 0.5", kind, content).why
    assert f"No {kind} evidence exists" in judge(f"{kind}.rate >= 0.4", "parity", content).why


def test_a_rule_that_holds_names_nothing() -> None:
    assert judge("answers.rate >= 0.1", "answers", {"rate": 0.4, "failures": FAILURES}).why == "answers.rate is 0.4."


def test_the_nearest_list_around_the_value_is_the_one_that_is_told() -> None:
    content = {
        "rate": 0.4,
        "failures": [{"what": "outer", "why": "x"}],
        "checks": {"citation": {"mean": 0.2, "failures": [{"what": "inner", "why": "y"}]}, "length": {"mean": 0.1}},
    }
    assert "inner (y)" in judge("answers.checks.citation.mean >= 0.5", "answers", content).why
    assert "outer" not in judge("answers.checks.citation.mean >= 0.5", "answers", content).why
    assert "outer (x)" in judge("answers.checks.length.mean >= 0.5", "answers", content).why
    both = judge("answers.rate >= 0.5 && answers.checks.citation.mean >= 0.5 && answers.rate < 1.0", "answers", content)
    assert both.why.count("outer (x)") == both.why.count("inner (y)") == 1


@pytest.mark.parametrize(
    "failures",
    [[], {}, "q1", [1, None], [["q1"]], [{"why": "x"}], [{"what": None}], [{"what": ["a"], "why": {"b": 1}}], [{}] * 9],
)
@pytest.mark.parametrize("failed", [None, True, -1, 3, "many", 2.5])
def test_odd_lists_do_no_harm(failures: Any, failed: Any) -> None:
    content = {"rate": 0.4, "failures": failures, "failed": failed, "failures_title": failed}
    found = judge("answers.rate >= 0.8", "answers", content)
    assert not found.passed
    assert found.why.startswith("answers.rate is 0.4.")


def test_long_texts_are_cut() -> None:
    found = judge(
        "answers.rate >= 0.8", "answers", {"rate": 0.4, "failures": [{"what": "x" * 9000, "why": "y" * 9000}] * 9}
    )
    assert len(found.why) < 5 * 450 + 200


def test_signs_that_steer_a_terminal_are_not_passed_on() -> None:
    content = {"rate": 0.4, "failures": [{"what": "q\x1b[2J", "why": "a\nb\u202ec"}]}
    assert judge("answers.rate >= 0.8", "answers", content).why.endswith(": q [2J (a b c)")


def test_a_user_reads_which_questions_failed_and_why(world: World) -> None:
    world.declare(Policy("production", (Rule("answers", "answers.pass_rate.lower >= 0.8"),), approvals=1))
    release = world.release()
    _, summary = answers(Answerer(always_wrong=("up", "init", "token", "labels", "needs", "gpu", "report")))
    world.evidence(release, kind="answers", content=summary)
    with pytest.raises(NotAllowed) as caught:
        world.write(lambda tx: governance.need_allowed(tx, release.id, "production"))
    said = str(caught.value)
    assert f"The release {release.id} may not enter production." in said
    assert "answers.pass_rate.lower is 0.4" in said
    assert "7 of 20 questions failed, among them: " in said
    assert said.count("(contains:") + said.count("(abstention:") == 5
    assert "gpu: How many GPUs does the demo use? (abstention: it answered what cannot be answered: “About 40" in said
    assert "and 2 more" in said
    assert caught.value.facts["failed"] == ["answers"]
    with pytest.raises(NotApprovable, match="the policy refuses it") as refused:
        world.approve(release, BEN)
    assert "7 of 20 questions failed" in refused.value.why


def test_a_release_that_answers_well_is_let_through(world: World) -> None:
    rules = (
        Rule("answers", "answers.pass_rate.lower >= 0.8"),
        Rule("citations", "answers.checks.citation.mean >= 0.95"),
        Rule("declines", "answers.unanswerable.declined.lower >= 0.5"),
        Rule("no worse", "release.first || comparison.champion.lower >= -0.13"),
    )
    world.declare(Policy("production", rules, approvals=0))
    release = world.release()
    graded, summary = answers(Answerer(), repeats=3)
    world.evidence(release, kind="answers", content=summary)
    world.evidence(release, kind="comparison", content=compare_answers(graded, graded))
    allowed = world.write(lambda tx: governance.need_allowed(tx, release.id, "production"))
    assert [finding.passed for finding in allowed.findings] == [True] * 4


def test_a_failed_check_names_its_own_questions_and_a_comparison_what_was_lost() -> None:
    champion, _ = answers(Answerer())
    challenger, summary = answers(Answerer(always_wrong=("up", "gpu")))
    cited = judge("answers.checks.citation.mean >= 0.99", "answers", summary)
    assert (
        "1 of 16 questions failed the check citation: up: What does holdtrue up start? (it cites Holdtrue" in cited.why
    )
    assert "gpu" not in cited.why
    declined = judge("answers.unanswerable.declined.mean >= 0.9", "answers", summary)
    assert "1 of 4 unanswerable questions were not declined: gpu:" in declined.why
    slow = judge("answers.latency.p95 <= 0.1", "answers", summary)
    assert "The slowest of 20 questions: " in slow.why
    dear = judge("answers.cost.mean <= 1.0", "answers", summary)
    assert "The dearest of 20 questions: " in dear.why
    lost = judge("comparison.champion.lower >= 0.0", "comparison", compare_answers(champion, challenger))
    assert "2 of 20 questions were lost to the champion: " in lost.why
    assert "up: What does holdtrue up start? (contains:" in lost.why
