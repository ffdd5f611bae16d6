"""Policies in CEL: what is refused when declared, and what a finding says."""

import string
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.governance import BadRule, Finding, Outcome, Policy, Rule
from holdtrue.governance.rules import build_context, check_policy, check_rule, decide, evaluate
from tests.governance.worlds import EVALUATION, slices
from tests.sampling import examples

FACTS = {"id": "rel_1", "service": "delay", "first": True, "champion": "none"}


def judge(expression: str, *evidence: tuple[str, Any]) -> Finding:
    given_evidence = evidence or (("evaluation", EVALUATION),)
    context = build_context(given_evidence, FACTS)
    return evaluate(Policy("production", (Rule("r", expression),)), context, "release rel_1")[0]


def test_a_rule_that_holds_shows_the_values_it_saw() -> None:
    found = judge("metric.roc_auc.lower >= 0.65 && metric.roc_auc.n >= 1000")
    assert found.passed
    assert found.values == {"metric.roc_auc.lower": 0.741, "metric.roc_auc.n": 5000}
    assert found.why == "metric.roc_auc.lower is 0.741; metric.roc_auc.n is 5000."
    assert found.mend == ""


def test_a_rule_that_does_not_hold_says_what_it_asks_for() -> None:
    found = judge("metric.roc_auc.lower >= 0.8")
    assert not found.passed
    assert "metric.roc_auc.lower is 0.741" in found.why
    assert "metric.roc_auc.lower >= 0.8" in found.why
    assert "holdtrue apply" in found.mend


def test_a_failed_loop_names_the_entries_that_fail() -> None:
    found = judge("slices.all(s, s.roc_auc >= 0.6)")
    assert not found.passed
    assert found.values["slices"]["failing"] == 1
    assert found.values["slices"]["first"][0]["value"] == "LGA"
    assert "1 of 2 in slices fail" in found.why
    assert "LGA" in found.why
    assert judge("slices.all(s, s.roc_auc >= 0.6)", ("evaluation", slices(0.61))).passed


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("comparison.p_better >= 0.95", ["No comparison evidence exists for release rel_1"]),
        ("parity.changed_decisions == 0", ["No parity evidence exists"]),
        ("metric.roc_acu.lower >= 0.6", ["metric has no “roc_acu”", "Did you mean “roc_auc”"]),
        ("metric.roc_auc.lowest >= 0.6", ["metric.roc_auc has no “lowest”", "Did you mean “lower”"]),
        ("slices.all(s, s.roc >= 0.6)", ["has no “roc”"]),
        ("metric.roc_auc >= 0.6", ["different kinds"]),
        ("metric.roc_auc.lower", ["0.741, not true or false"]),
        ("metric.roc_auc.n / 0 > 1", ["cannot be computed"]),
        ("slices[7].roc_auc > 0.5", []),
    ],
)
def test_what_cannot_be_computed_fails_in_plain_words(expression: str, words: list[str]) -> None:
    found = judge(expression)
    assert not found.passed
    assert found.mend
    for word in words:
        assert word in found.why


@pytest.mark.parametrize("kind", ["comparison", "parity"])
def test_missing_evidence_never_passes(kind: str) -> None:
    for expression in (f"{kind}.x == 0", f"!({kind}.x > 0)", f"has({kind}.x)", f"!has({kind}.x)"):
        assert not judge(expression).passed, expression


def test_nothing_at_all_is_missing_and_not_all_of_it_good() -> None:
    empty = {**EVALUATION, "slices": []}
    found = judge("slices.all(s, s.roc_auc >= 0.6)", ("evaluation", empty))
    assert not found.passed
    assert "No slices evidence exists" in found.why
    nested = ("comparison", {"metric": "roc_auc", "days": [], "p_better": None})
    assert not judge("comparison.days.all(d, d > 0)", nested).passed
    assert "has no “p_better”" in judge("comparison.p_better >= 0.95", nested).why


def test_that_a_release_was_deployed_nowhere_is_a_fact_and_not_a_missing_one() -> None:
    def judged(rule: str, *places: str) -> Finding:
        context = build_context([("evaluation", EVALUATION)], {**FACTS, "deployed_in": list(places)})
        return evaluate(Policy("production", (Rule("r", rule),)), context)[0]

    found = judged('"staging" in release.deployed_in')
    assert not found.passed
    assert found.why.startswith("release.deployed_in is empty. The rule asks for")
    assert "holdtrue promote SERVICE RELEASE -e ENVIRONMENT" in found.mend
    assert judged('!("dev" in release.deployed_in)').passed
    assert judged('"staging" in release.deployed_in', "dev", "staging").passed


def test_evidence_may_come_in_one_piece_or_in_three() -> None:
    rule = "metric.roc_auc.lower >= 0.65 && slices.all(s, s.roc_auc >= 0.5) && baseline.roc_auc.value == 0.5"
    parts = [(kind, EVALUATION[kind]) for kind in ("metric", "baseline", "slices")]
    assert judge(rule, *parts).passed
    assert judge(rule).passed
    newer = ("metric", {"roc_auc": {"lower": 0.4}})
    assert not judge(rule, ("evaluation", EVALUATION), newer).passed


def test_an_empty_measurement_in_a_slice_fails() -> None:
    one_class = {**EVALUATION, "slices": [{"slice": "origin", "value": "JFK", "roc_auc": None}]}
    assert not judge("slices.all(s, s.roc_auc >= 0.6)", ("evaluation", one_class)).passed


def test_the_first_release_may_be_excused_from_a_comparison() -> None:
    rule = "release.first || comparison.p_better >= 0.95"
    assert judge(rule).passed
    later = build_context([("evaluation", EVALUATION)], {**FACTS, "first": False})
    assert not evaluate(Policy("production", (Rule("r", rule),)), later)[0].passed
    compared = build_context([("comparison", {"p_better": 0.97})], {**FACTS, "first": False})
    assert evaluate(Policy("production", (Rule("r", rule),)), compared)[0].passed


@pytest.mark.parametrize(
    ("expression", "words", "place"),
    [
        ("metric.roc_auc.lower >= 0.65 &&", ["line 1, column 32", "^"], (1, 32)),
        ("metric.roc_auc.lower >=\n 0.65 )", ["line 2, column"], (2, None)),
        ("", ["line 1"], (1, None)),
        ("metrik.roc_auc.lower > 0.5", ["“metrik”"], None),
        ("open('/etc/passwd') == ''", ["“open”, which does not exist"], None),
        ("sice(slices) > 1", ["“sice”"], None),
        ("metric.a.all(x, slices.all(y, slices.all(z, z > y)))", ["nested more than 2"], None),
        ("true && " * 200 + "true", ["more than 1000"], None),
        ("comprehension(metric)", ["does not exist"], None),
    ],
)
def test_a_bad_rule_is_refused_when_declared(expression: str, words: list[str], place: Any) -> None:
    with pytest.raises(BadRule) as caught:
        check_rule(Rule("quality", expression))
    assert "“quality”" in caught.value.what
    for word in words:
        assert word in caught.value.why
    if place is not None:
        assert caught.value.facts["line"] == place[0]
        assert place[1] in (None, caught.value.facts["column"])


@pytest.mark.parametrize(
    ("name", "close"), [("metrics.x > 1", "metric"), ("siez(slices) > 1", "size"), ("slice.x > 1", "slices")]
)
def test_a_misspelt_name_gets_a_suggestion(name: str, close: str) -> None:
    with pytest.raises(BadRule) as caught:
        check_rule(Rule("r", name))
    assert caught.value.mend == f"Did you mean “{close}”?"


@pytest.mark.parametrize(
    "policy",
    [
        Policy("production", ()),
        Policy("production", (Rule("a", "true"), Rule("a", "true"))),
        Policy("production", (Rule("", "true"),)),
        Policy("production", (Rule("a", "true"),), approvals=-1),
        Policy("production", tuple(Rule(f"r{n}", "true") for n in range(51))),
    ],
)
def test_a_policy_without_shape_is_refused(policy: Policy) -> None:
    with pytest.raises(BadRule):
        check_policy(policy)


def test_loops_over_much_evidence_are_bounded() -> None:
    many = {**EVALUATION, "slices": [{"roc_auc": 0.7}] * 2000}
    started = time.monotonic()
    found = judge("slices.all(a, slices.all(b, a.roc_auc + b.roc_auc > 0.0))", ("evaluation", many))
    assert not found.passed
    assert "too many entries" in found.why
    assert time.monotonic() - started < 5
    assert judge("slices.all(a, a.roc_auc > 0.0)", ("evaluation", many)).passed


def test_the_outcome_needs_every_rule_and_every_approval() -> None:
    good, bad = judge("metric.roc_auc.n > 1"), judge("metric.roc_auc.n < 1")
    assert decide([good], 1, 1) is Outcome.ALLOWED
    assert decide([good], 0, 0) is Outcome.ALLOWED
    assert decide([good], 0, 1) is Outcome.WAITING
    assert decide([good], 1, 2) is Outcome.WAITING
    assert decide([good, bad], 5, 1) is Outcome.REFUSED


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-100, 100) | st.floats(-1, 1) | st.sampled_from(["a", ""]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["roc_auc", "lower", "n", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)
RULES = st.sampled_from(
    [
        "metric.roc_auc.lower >= 0.65",
        "slices.all(s, s.roc_auc >= 0.6)",
        "slices.exists(s, s.n > 2) || comparison.x > 1",
        "size(slices) > 1 && has(metric.x)",
        "metric.x.all(y, y.n == 1)",
        "slices[0].x == metric.n",
        "string(metric.n).contains('1')",
    ]
)


@settings(max_examples=examples(200), deadline=None)
@given(RULES, JSON, JSON, JSON)
def test_any_evidence_gives_a_finding_and_never_an_error(rule: str, metric: Any, entries: Any, comparison: Any) -> None:
    evidence = [("evaluation", {"metric": metric, "slices": entries}), ("comparison", comparison)]
    found = evaluate(Policy("p", (Rule("r", rule),)), build_context(evidence, FACTS))[0]
    assert found.why
    assert found.passed or found.mend


@settings(max_examples=examples(200), deadline=None)
@given(st.text(string.printable, max_size=80))
def test_any_text_is_a_rule_or_a_bad_rule(text: str) -> None:
    try:
        check_rule(Rule("r", text))
    except BadRule:
        accepted = False
    else:
        accepted = True
    found = judge(text)
    assert found.why
    assert accepted or not found.passed
