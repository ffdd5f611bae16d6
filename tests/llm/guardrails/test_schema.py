from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from holdtrue.core.errors import HoldtrueError
from holdtrue.llm.guardrails import BadGuardrail, Verdict, load_cases
from holdtrue.llm.guardrails.detectors.schema import compile_schema
from tests.llm.guardrails.support import guardrail
from tests.sampling import examples

TICKET = {
    "type": "object",
    "required": ["category"],
    "additionalProperties": False,
    "properties": {
        "category": {"enum": ["billing", "other"]},
        "code": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{3}$"},
        "tags": {"type": "array", "uniqueItems": True},
        "size": {"type": "integer", "maximum": 5},
    },
}


def checked(text: str, schema: Any = None, declared: Any = None, **options: Any) -> Verdict:
    own = {} if declared is None else {"schema": declared}
    guard = {"kind": "schema", "on": "output", "options": {"time_ms": 60_000, **own, **options}}
    return guardrail(guard).check_output(text, schema=schema)


def test_a_broken_rule_is_told_by_path_and_never_by_value() -> None:
    verdict = checked('{"category": "geheim", "code": "geheim", "size": 77}', declared=TICKET)
    assert verdict.action == "block"
    assert sorted(finding.reason for finding in verdict.findings) == [
        "$.category: one of the declared values",
        "$.code: pattern ^[A-Z]{2}[0-9]{3}$",
        "$.size: maximum 5",
    ]
    assert "geheim" not in str(verdict.to_json())


def test_the_schema_may_come_with_the_call_and_both_must_hold() -> None:
    assert checked('{"category": "other"}', schema=TICKET).action == "pass"
    assert checked('{"category": "other"}', schema={"required": ["size"]}, declared=TICKET).blocked
    assert checked('{"category": "no"}', schema={"required": ["category"]}, declared=TICKET).blocked


def test_no_schema_at_all_is_a_failure_and_not_a_pass() -> None:
    verdict = checked("{}")
    assert verdict.blocked
    assert "There is no schema" in verdict.failed[0].why


def test_the_number_of_errors_told_is_bounded() -> None:
    text = "[" + ",".join(["1"] * 500) + "]"
    assert len(checked(text, declared={"items": {"type": "string"}}, most_errors=3).findings) == 3


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"$ref": "https://evil.example/schema.json"}, "nothing is fetched"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "nothing is fetched"),
        ({"$dynamicRef": "other.json#node"}, "nothing is fetched"),
        ({"$ref": "#/$defs/missing"}, "no such part"),
        ({"$defs": {"a": {"$id": "https://evil.example/"}}}, "inside"),
        ({"$schema": "http://json-schema.org/draft-03/schema#"}, "dialect"),
        ({"pattern": "(?=x)y"}, "linear time"),
        ({"pattern": r"(a)\1"}, "linear time"),
        ({"patternProperties": {"(?<!x)y": {}}}, "linear time"),
        ({"type": "objekt"}, "$.type"),
        ({"required": "a"}, "$.required"),
        ({"description": "x" * 70_000}, "bytes"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_when_compiling(schema: Any, said: str) -> None:
    with pytest.raises(BadGuardrail) as caught:
        guardrail({"kind": "schema", "on": "output", "options": {"schema": schema}})
    assert said in caught.value.why


def test_a_schema_nested_too_deep_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(100):
        schema = {"items": schema}
    with pytest.raises(HoldtrueError):
        compile_schema(schema)


def test_a_bad_schema_of_a_call_is_a_failure_of_the_guard() -> None:
    verdict = checked("{}", schema={"$ref": "https://evil.example/x"})
    assert verdict.blocked
    assert "nothing is fetched" in verdict.failed[0].why


def test_an_answer_nested_too_deep_is_a_finding() -> None:
    assert [each.label for each in checked("[" * 100 + "]" * 100, declared={}).findings] == ["too_deep"]
    assert [each.label for each in checked("[" * 5000 + "]" * 5000, declared={}).findings] == ["not_json"]


def test_alternatives_within_alternatives_end_as_a_failure() -> None:
    branch = {"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/a"}}
    bomb = {"$defs": {"a": {"anyOf": [branch, branch]}}, "$ref": "#/$defs/a"}
    guard = {"kind": "schema", "on": "output", "options": {"schema": bomb, "time_ms": 200}}
    verdict = guardrail(guard).check_output("[" * 50 + "]" * 50)
    assert verdict.blocked
    assert "more than 200 ms" in verdict.failed[0].why


@pytest.mark.timeout(60)
def test_hostile_patterns_and_lists_take_linear_time() -> None:
    assert checked('"' + "a" * 90_000 + '!"', declared={"pattern": "^(a+)+$"}).blocked
    assert checked("[" + ",".join(["{}"] * 30_000) + "]", declared={"uniqueItems": True}).blocked


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.sampled_from([0.5, 1.0]), st.text("abAB01", max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(["a", "b", "ab"]), inner, max_size=3)
    ),
    max_leaves=8,
)
RULES: list[Any] = [
    TICKET,
    {"uniqueItems": True, "items": {"uniqueItems": True}},
    {"patternProperties": {"^a": {"type": "integer"}}, "additionalProperties": {"type": "string"}},
    {"properties": {"a": {"minimum": 2}}, "additionalProperties": False, "minProperties": 1},
    {"anyOf": [{"type": "array", "minItems": 2}, {"const": 1}, {"type": "string", "pattern": "a[01]"}]},
    {"if": {"type": "object"}, "then": {"required": ["a"]}, "else": {"not": {"type": "null"}}},
    {"prefixItems": [{"type": "integer"}], "unevaluatedItems": False},
    {"properties": {"a": True}, "unevaluatedProperties": False},
    {"contains": {"type": "integer"}, "maxContains": 1},
    True,
    False,
]


@settings(deadline=None, max_examples=examples(300))
@given(st.sampled_from(RULES), JSON)
def test_the_bounded_validator_agrees_with_the_library(schema: Any, value: Any) -> None:
    ours = {tuple(error.absolute_path) for error in compile_schema(schema).errors(value, lambda: None)}
    theirs = {tuple(error.absolute_path) for error in Draft202012Validator(schema).iter_errors(value)}
    assert ours == theirs


def test_every_case_of_the_test_set_is_judged_right() -> None:
    for case in load_cases("schema"):
        assert checked(case.text, schema=case.schema).blocked is case.expected, case.id
