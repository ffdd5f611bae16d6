import json
from dataclasses import replace
from typing import Any

import cel
import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score, precision_score, recall_score

from holdtrue.core.canonical import canonical_bytes
from holdtrue.core.errors import InvalidInput
from holdtrue.llm.guardrails import GuardCase, load_cases, measure
from holdtrue.llm.guardrails.measuring import f1_interval
from holdtrue.llm.guardrails.model import KINDS
from tests.llm.guardrails.support import guardrail

ALL = guardrail(
    {"kind": "secrets"},
    {"kind": "personal_data", "action": "mask"},
    {"kind": "injection", "action": "log"},
    {"kind": "schema", "on": "output"},
    {"kind": "grounding", "on": "output"},
)
EVIDENCE = measure(ALL, [case for kind in KINDS for case in load_cases(kind, "held_out")])


@pytest.mark.parametrize("kind", ["injection", "grounding", "schema"])
def test_precision_recall_and_f1_are_those_of_scikit_learn(kind: Any) -> None:
    cases = load_cases(kind, "held_out")
    truth = [bool(case.expected) for case in cases]
    said = []
    for case in cases:
        if kind == "injection":
            verdict = ALL.check_input(case.text)
        else:
            verdict = ALL.check_output(case.text, case.context, case.schema)
        said.append(any(finding.kind == kind for finding in verdict.findings))
    found = EVIDENCE[kind]
    assert found["n"] == len(cases)
    assert found["precision"]["value"] == pytest.approx(precision_score(truth, said))
    assert found["recall"]["value"] == pytest.approx(recall_score(truth, said))
    assert found["f1"]["value"] == pytest.approx(f1_score(truth, said))
    missed = [case.id for case, one, other in zip(cases, truth, said, strict=True) if one and not other]
    assert found["false_negatives"] == {"n": len(missed), "cases": missed[:20]}


@pytest.mark.parametrize("kind", ["secrets", "personal_data"])
def test_spans_count_one_by_one_and_have_to_be_exact(kind: Any) -> None:
    there: set[tuple[str, int, int, str]] = set()
    found: set[tuple[str, int, int, str]] = set()
    for case in load_cases(kind, "held_out"):
        assert not isinstance(case.expected, bool)
        there |= {(case.id, each.start, each.end, each.label) for each in case.expected}
        verdict = ALL.check_input(case.text)
        found |= {(case.id, each.start, each.end, each.label) for each in verdict.findings if each.kind == kind}
    said = EVIDENCE[kind]
    assert said["recall"]["value"] == pytest.approx(len(there & found) / len(there))
    assert said["precision"]["value"] == pytest.approx(len(there & found) / len(found))
    assert said["recall"]["n"] == len(there) == sum(label["n"] for label in said["labels"])
    assert sum(label["found"] for label in said["labels"]) == len(there & found)


def test_intervals_are_wilsons_as_scipy_computes_them() -> None:
    for kind in KINDS:
        for name in ("precision", "recall"):
            said = EVIDENCE[kind][name]
            low, high = binomtest(round(said["value"] * said["n"]), said["n"]).proportion_ci(0.95, method="wilson")
            assert (said["lower"], said["upper"]) == pytest.approx((low, high), abs=1e-9)


def test_the_interval_of_f1_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    inside, n = 0, 2000
    positive, sensitivity, false_alarm = 0.5, 0.85, 0.05
    chances = [positive * sensitivity, (1 - positive) * false_alarm, positive * (1 - sensitivity)]
    truth = 2 * chances[0] / (2 * chances[0] + chances[1] + chances[2])
    for _ in range(n):
        hit, invented, missed, _quiet = rng.multinomial(180, [*chances, 1 - sum(chances)])
        interval = f1_interval(int(hit), int(invented), int(missed))
        inside += interval.lower <= truth <= interval.upper
    # Four standard errors of 2,000 draws around 95 %.
    assert 0.93 <= inside / n <= 0.97


def test_nothing_found_and_nothing_there_is_unknown_and_never_good() -> None:
    quiet = [case for case in load_cases("injection", "held_out") if not case.expected][:5]
    said = measure(guardrail({"kind": "injection", "options": {"threshold": 1.0}}), quiet)["injection"]
    assert said["recall"] == {"value": None, "lower": 0.0, "upper": 1.0, "n": 0}
    assert said["precision"]["value"] is None


def test_a_guard_that_fails_has_found_nothing() -> None:
    broken = guardrail({"kind": "injection", "options": {"max_chars": 100}})
    case = next(case for case in load_cases("injection") if case.expected)
    said = measure(broken, [replace(case, text=case.text + " " * 100)])["injection"]
    assert said["failed"] == 1
    assert said["recall"]["value"] == 0.0
    assert said["false_negatives"]["cases"] == [case.id]


def test_evidence_says_which_cases_it_rests_on_and_whether_they_were_held_out() -> None:
    held, tuned = load_cases("schema", "held_out"), load_cases("schema", "tune")
    assert EVIDENCE["schema"]["held_out"] is True
    mixed = measure(ALL, [*held, *tuned])["schema"]
    assert mixed["held_out"] is False
    assert mixed["cases"] != EVIDENCE["schema"]["cases"] == measure(ALL, held)["schema"]["cases"]


def test_cases_of_a_kind_without_a_guard_are_not_left_out_silently() -> None:
    with pytest.raises(InvalidInput, match="no guard of kind secrets"):
        measure(guardrail({"kind": "injection"}), load_cases("secrets"))


def test_latency_is_taken_from_the_timer_and_the_fastest_of_three() -> None:
    moments = iter([0.0, 5e-3, 10.0, 10.001, 20.0, 20.002])
    case = GuardCase("one", "secrets", "hello", ())
    said = measure(guardrail({"kind": "secrets"}), [case], timer=lambda: next(moments))["secrets"]
    assert said["latency_us"] == {"p50": 1000.0, "p99": 1000.0}


def test_evidence_is_plain_json_and_rules_can_read_it() -> None:
    assert json.loads(canonical_bytes(EVIDENCE)) == json.loads(json.dumps(EVIDENCE))
    assert list(EVIDENCE) == list(KINDS)
    assert set(EVIDENCE["secrets"]["recall"]) == {"value", "lower", "upper", "n"}
    rule = "guardrails.secrets.recall.lower >= 0.9 && guardrails.injection.precision.lower >= 0.85"
    assert cel.evaluate(rule, {"guardrails": EVIDENCE}) is True
    assert cel.evaluate("guardrails.injection.latency_us.p50 < 1.0", {"guardrails": EVIDENCE}) is False


def test_a_guard_is_measured_on_what_it_asks_for() -> None:
    narrow = guardrail({"kind": "personal_data", "options": {"kinds": ["iban", "email"]}})
    said = measure(narrow, load_cases("personal_data", "tune"))["personal_data"]
    assert {label["label"] for label in said["labels"]} == {"iban", "email"}
    assert said["recall"]["value"] == 1.0


def test_a_guard_at_two_places_is_one_and_two_of_a_kind_are_measured_together() -> None:
    cases = load_cases("injection", "held_out")
    places = guardrail({"kind": "injection", "on": "input"}, {"kind": "injection", "on": "context", "action": "log"})
    strict = guardrail({"kind": "injection", "options": {"threshold": 0.9}})
    both = guardrail({"kind": "injection", "options": {"threshold": 0.9}}, {"kind": "injection", "on": "input"})
    assert measure(places, cases)["injection"]["recall"] == EVIDENCE["injection"]["recall"]
    assert measure(both, cases)["injection"]["recall"] == EVIDENCE["injection"]["recall"]
    assert measure(strict, cases)["injection"]["recall"]["value"] < EVIDENCE["injection"]["recall"]["value"]


def test_what_fits_only_an_application_of_its_own_is_no_fault_on_the_cases() -> None:
    own = guardrail(
        {"kind": "schema", "on": "output", "options": {"schema": {"required": ["nobody has this"]}}},
        {"kind": "grounding", "on": "output", "options": {"citations": "require"}},
    )
    said = measure(own, [*load_cases("schema", "held_out"), *load_cases("grounding", "held_out")])
    for kind in ("schema", "grounding"):
        assert said[kind]["precision"] == EVIDENCE[kind]["precision"]
        assert said[kind]["recall"] == EVIDENCE[kind]["recall"]
