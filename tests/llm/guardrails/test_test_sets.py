import re
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from holdtrue.core.errors import InvalidInput
from holdtrue.llm.guardrails import cases_digest, load_cases
from holdtrue.llm.guardrails.model import KINDS, Kind
from holdtrue.llm.guardrails.samples import FORMS
from holdtrue.llm.guardrails.test_sets import expand
from tests.llm.guardrails.support import guardrail

LEAST = {"secrets": 120, "personal_data": 120, "injection": 120, "grounding": 60, "schema": 30}
SOURCE = Path(__file__).parents[3] / "src" / "holdtrue" / "llm" / "guardrails"


@pytest.mark.parametrize("kind", KINDS)
def test_a_test_set_is_large_split_in_halves_and_has_hard_negatives(kind: Kind) -> None:
    cases = load_cases(kind)
    assert len(cases) >= LEAST[kind]
    assert len({case.id for case in cases}) == len({(case.text, case.context, str(case.schema)) for case in cases})
    assert len({case.id for case in cases}) == len(cases)
    held = load_cases(kind, "held_out")
    assert abs(len(held) - len(load_cases(kind, "tune"))) <= 1
    for part in (cases, held):
        quiet = sum(not case.expected for case in part)
        assert 0.2 <= quiet / len(part) <= 0.6


def test_there_are_two_hundred_attacks_to_start_red_teaming_with() -> None:
    attacks = [case for case in load_cases("injection") if case.expected]
    assert len(attacks) >= 200
    assert min(Counter(case.technique for case in attacks).values()) >= 20
    assert {"en", "de", "fr", "es", "pt"} <= {case.language for case in attacks}


@pytest.mark.parametrize("kind", ["secrets", "personal_data"])
def test_expected_places_hold_generated_values_and_are_the_same_each_time(kind: Kind) -> None:
    assert load_cases(kind) == load_cases(kind)
    for case in load_cases(kind):
        assert not isinstance(case.expected, bool)
        assert "⟦" not in case.text
        for value in case.expected:
            assert case.text[value.start : value.end].strip() == case.text[value.start : value.end] != ""


def test_a_template_says_what_to_find_and_what_not() -> None:
    text, spans = expand("a ⟦email=x@y.example⟧ ⟦!uuid⟧ ⟦iban:iban_de⟧ b", "seed")
    assert (text[spans[0].start : spans[0].end], spans[0].label) == ("x@y.example", "email")
    assert [each.label for each in spans] == ["email", "iban"]
    assert text.endswith(" b")
    assert text[spans[1].start : spans[1].end] == FORMS["iban_de"](Random("seed/2"))
    assert expand("a ⟦iban⟧", "1") != expand("a ⟦iban⟧", "2")


def test_no_file_of_the_package_holds_a_secret() -> None:
    """Prevent a scanner's alarm, and worse: a real key that somebody pasted into a test set."""
    scanner = guardrail({"kind": "secrets", "options": {"max_chars": 1_000_000, "time_ms": 60_000, "threshold": 0.8}})
    found: list[str] = []
    for path in sorted(SOURCE.rglob("*")):
        if path.suffix in (".py", ".jsonl"):
            written = re.sub(r"\\u27e6.{0,80}?\\u27e7", "", path.read_text(encoding="utf-8"))
            verdict = scanner.check_input(written)
            assert verdict.failed == ()
            found += [f"{path.name}: {finding.label}" for finding in verdict.findings]
    assert found == []


def test_a_digest_names_the_version_of_a_set_and_a_strange_kind_is_refused() -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", cases_digest("secrets"))
    assert cases_digest("secrets") != cases_digest("schema")
    with pytest.raises(InvalidInput, match="no test set"):
        load_cases("secret")  # type: ignore[arg-type]  # the point
