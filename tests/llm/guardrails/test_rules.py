import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.core.canonical import canonical_bytes
from holdtrue.core.errors import ConfigurationError, InvalidInput
from holdtrue.core.ids import version_id
from holdtrue.llm.guardrails import BadGuardrail, Guard, GuardrailSpec, compile_guardrails, read_spec
from holdtrue.llm.guardrails.model import KINDS, Failure
from holdtrue.llm.guardrails.rules import OPTIONS, decide, options_of

WHOLE = GuardrailSpec(
    "support",
    (
        Guard("secrets", "both", "mask", "closed", {"kinds": ["jwt", "openai_key"], "allow": ["x"]}),
        Guard("personal_data", "input", "mask", "open", {"engine": "own", "threshold": 0.6}),
        Guard("injection", "context", "log", "open", {"threshold": 0.7, "decode": False}),
        Guard("injection", "input", "block", "closed"),
        Guard("schema", "output", "block", "closed", {"schema": {"type": "object"}, "most_errors": 3}),
        Guard("grounding", "output", "log", "open", {"threshold": 0.9, "citations": "require"}),
    ),
)


def test_a_spec_goes_to_json_and_back_and_has_one_name_for_one_content() -> None:
    content = WHOLE.to_json()
    assert read_spec(json.loads(json.dumps(content))) == read_spec(json.loads(canonical_bytes(content)))
    assert read_spec(content).to_json() == content
    assert version_id("guardrail", content).startswith("grd_")
    assert read_spec(WHOLE) is WHOLE


def test_guards_of_one_kind_have_names_of_their_own() -> None:
    assert WHOLE.names() == ("secrets", "personal_data", "injection", "injection#2", "schema", "grounding")


def test_what_is_left_out_has_its_safe_default() -> None:
    guard = read_spec({"name": "x", "guards": [{"kind": "secrets"}]}).guards[0]
    assert (guard.on, guard.action, guard.on_failure) == ("both", "block", "closed")


@pytest.mark.parametrize(
    ("guard", "said"),
    [
        ({"kind": "secret"}, "Did you mean “secrets”?"),
        ({"kind": "secrets", "action": "masc"}, "Did you mean “mask”?"),
        ({"kind": "secrets", "on": "inputs"}, "Did you mean “input”?"),
        ({"kind": "secrets", "on_failure": "close"}, "Did you mean “closed”?"),
        ({"kind": "secrets", "option": {}}, "Did you mean “options”?"),
        ({"kind": "secrets", "options": {"kind": ["jwt"]}}, "Did you mean “kinds”?"),
        ({"kind": "secrets", "options": {"kinds": ["github_tokens"]}}, "Did you mean “github_token”?"),
        ({"kind": "secrets", "options": {"kinds": []}}, "a list of any of"),
        ({"kind": "secrets", "options": {"allow": "x"}}, "at most 1000 texts"),
        ({"kind": "secrets", "options": {"threshold": 0}}, "above 0 and at most 1"),
        ({"kind": "secrets", "options": {"threshold": True}}, "above 0 and at most 1"),
        ({"kind": "secrets", "options": {"time_ms": 0}}, "milliseconds"),
        ({"kind": "secrets", "options": {"time_ms": 2.5}}, "milliseconds"),
        ({"kind": "secrets", "options": {"max_chars": 10}}, "from 100 to"),
        ({"kind": "personal_data", "options": {"engine": "spacy"}}, "“presidio”"),
        ({"kind": "personal_data", "options": {"engine": "presidio", "kinds": ["br_cpf"]}}, "engine “own”"),
        ({"kind": "injection", "action": "mask"}, "only secrets and personal data can be masked"),
        ({"kind": "schema", "on": "output", "action": "mask"}, "only secrets and personal data can be masked"),
        ({"kind": "grounding", "on": "input"}, "Put it on: output"),
        ({"kind": "schema"}, "Put it on: output"),
        ({"kind": "schema", "on": "output", "options": {"schema": "x"}}, "a JSON Schema"),
        ({"kind": "grounding", "on": "output", "options": {"citations": "yes"}}, "“require”"),
        ({"kind": "grounding", "on": "output", "options": {"similarity": "e6"}}, "“e5”"),
    ],
)
def test_a_guard_that_cannot_work_says_what_why_and_how_to_mend_it(guard: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        compile_guardrails({"name": "x", "guards": [guard]})
    assert caught.value.what
    assert caught.value.why
    assert caught.value.mend
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {"name": "x", "guards": []},
        {"name": "x", "guards": [{"kind": "secrets"}] * 2},
        {"name": "x", "guards": [{"kind": "injection", "options": {"threshold": n / 100}} for n in range(1, 22)]},
        {"name": "x"},
        {"name": "x", "guards": "secrets"},
        {"name": "x", "guards": ["secrets"]},
        {"guards": [{"kind": "secrets"}]},
        [],
        None,
        "x",
    ],
)
def test_a_guardrail_that_cannot_work_is_refused(content: Any) -> None:
    with pytest.raises(ConfigurationError):
        compile_guardrails(content)


def test_a_name_follows_the_rule_of_names() -> None:
    with pytest.raises(InvalidInput):
        compile_guardrails({"name": "a/b", "guards": [{"kind": "secrets"}]})


def test_slow_engines_have_defaults_of_their_own_unless_the_guard_says_otherwise() -> None:
    assert options_of(Guard("personal_data"))["time_ms"] == 100
    assert options_of(Guard("personal_data", options={"engine": "presidio"}))["time_ms"] == 2000
    assert options_of(Guard("personal_data", options={"engine": "presidio", "time_ms": 7}))["time_ms"] == 7
    assert options_of(Guard("personal_data", options={"engine": "presidio"}))["threshold"] == 0.4
    assert options_of(Guard("personal_data", options={"engine": "presidio", "threshold": 0.6}))["threshold"] == 0.6
    assert options_of(Guard("grounding", "output", options={"similarity": "e5"}))["time_ms"] == 2000


def test_each_default_is_a_value_that_its_option_takes() -> None:
    for kind in KINDS:
        for name, option in OPTIONS[kind].items():
            assert option.fits(option.default) or (name, option.default) in (("schema", None), ("allow", ())), name


@given(st.lists(st.sampled_from(["log", "mask", "block"])), st.lists(st.sampled_from(["open", "closed"])))
def test_the_gravest_action_wins_and_a_closed_failure_blocks(actions: list[Any], failures: list[Any]) -> None:
    failed = [Failure("x", "secrets", "why", policy) for policy in failures]
    decided = decide(actions, failed)
    if "closed" in failures or "block" in actions:
        assert decided == "block"
    else:
        assert decided == ("mask" if "mask" in actions else "log" if "log" in actions else "pass")


def test_an_error_of_a_guardrail_has_the_one_json_shape() -> None:
    with pytest.raises(BadGuardrail) as caught:
        compile_guardrails({"name": "x", "guards": [{"kind": "grounding", "on": "input"}]})
    assert caught.value.to_json()["error"]["code"] == "bad_guardrail"
    assert caught.value.status == 400
