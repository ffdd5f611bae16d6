from typing import Any

import pytest

from holdtrue.llm.guardrails import Verdict
from holdtrue.llm.guardrails.detectors.sentences import number, sentences, stem
from tests.llm.guardrails.support import guardrail

PASSAGES = (
    "The X200 kettle holds 1.7 litres and boils in four minutes. It has a warranty of two years.",
    "To descale it, use 50 ml of vinegar. It must not be put into a dishwasher. Ms. Weber in Bonn answers questions.",
)


def checked(text: str, passages: tuple[str, ...] = PASSAGES, ids: Any = None, **options: Any) -> Verdict:
    guardrails = guardrail({"kind": "grounding", "on": "output", "options": {"time_ms": 60_000, **options}})
    return guardrails.check_output(text, passages, passage_ids=ids)


def labels(verdict: Verdict) -> list[str]:
    return [finding.label for finding in verdict.findings]


@pytest.mark.parametrize(
    "text",
    [
        "The X200 holds 1.7 litres.",
        "It boils in 4 minutes, and it has a warranty of two years.",
        "I don't know; the documents do not mention the colour.",
        "Is there anything else that you would like to know?",
        "You're welcome! Let me know if you need anything else.",
        "Ms. Weber in Bonn answers questions.",
        "It must not be put into a dishwasher [2].",
        "",
        "...",
    ],
)
def test_what_the_passages_say_passes(text: str) -> None:
    verdict = checked(text)
    assert (verdict.action, verdict.scores["grounding"]) == ("pass", 1.0)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The X200 holds 2.7 litres.", "unknown_number"),
        ("It boils in two minutes.", "unknown_number"),
        ("It may be put into a dishwasher.", "denial"),
        ("The X200 does not hold 1.7 litres.", "denial"),
        ("Ms. Weber in Berlin answers questions.", "unknown_name"),
        ("The handle is made of recycled bamboo.", "unsupported_sentence"),
        ("It holds 1.7 litres [7].", "unknown_citation"),
    ],
)
def test_what_they_do_not_say_is_found_with_the_reason(text: str, label: str) -> None:
    verdict = checked(text)
    assert verdict.action == "block"
    assert labels(verdict) == [label]
    assert text[verdict.findings[0].start : verdict.findings[0].end] == text


def test_each_sentence_is_judged_and_the_share_decides() -> None:
    text = "The X200 holds 1.7 litres. It boils in four minutes. It is made of glass. It has a warranty of two years."
    strict, mild = checked(text, threshold=0.8), checked(text, threshold=0.75)
    assert strict.scores["grounding"] == mild.scores["grounding"] == 0.75
    assert [text[each.start : each.end] for each in strict.findings] == ["It is made of glass."]
    assert mild.action == "pass"


def test_without_passages_nothing_but_an_abstention_is_grounded() -> None:
    assert labels(checked("The answer is blue.", ())) == ["unsupported_sentence"]
    assert checked("I have no information about that.", ()).action == "pass"


def test_an_abstention_does_not_carry_a_number_past_the_check() -> None:
    assert checked("I don't know exactly, but it holds 9 litres.").blocked


def test_citations_are_of_passages_that_are_there() -> None:
    text = "It holds 1.7 litres [kb-7]. It boils in four minutes [kb-9]."
    assert labels(checked(text, ids=["kb-7", "kb-8"])) == ["unknown_citation"]
    assert checked(text, ids=["kb-7", "kb-9"]).action == "pass"
    assert checked(text, citations="ignore").action == "pass"
    assert checked("It holds 1.7 litres [sic].").action == "pass"
    assert labels(checked("It holds 1.7 litres.", citations="require")) == ["missing_citation"]
    assert checked("It holds 1.7 litres [1].", citations="require").action == "pass"


def test_numbers_and_names_can_be_left_out_of_the_judgement() -> None:
    assert checked("The X200 holds 2.7 litres.", numbers=False).action == "pass"
    assert checked("Ms. Weber in Berlin answers questions.", names=False).action == "pass"


def test_similarity_accepts_other_words_but_no_other_facts() -> None:
    passages = ("Customers can return unused goods within 30 days.",)
    same = "Buyers may send back items that were not used within 30 days."
    assert checked(same, passages).blocked
    near = {"similarity": "e5", "similarity_threshold": 0.86, "names": False}
    assert checked("Clients may send back unused items within 30 days.", passages, **near).action == "pass"
    assert checked("Clients may send back unused items within 90 days.", passages, **near).blocked
    assert checked("Bananas are yellow.", passages, **near).blocked


def test_sentences_end_where_they_end() -> None:
    text = "Dr. No costs 3.5 euros, e.g. here. On 3. May it rained! Yes?\n- a list\n- of things [2]"
    assert [each.text.strip() for each in sentences(text)] == [
        "Dr. No costs 3.5 euros, e.g. here.",
        "On 3. May it rained!",
        "Yes?",
        "- a list",
        "- of things",
    ]
    assert all(text[each.start : each.end].strip() for each in sentences(text))
    assert [each.cited for each in sentences(text)][-1] == ("2",)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,000", "1000"),
        ("1.000.000", "1000000"),
        ("0,40", "0.4"),
        ("12.50", "12.5"),
        ("8:15", "8:15"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_a_number_has_one_form(one: str, other: str) -> None:
    assert number(one) == number(other)


def test_forms_of_a_word_have_one_stem_and_identifiers_their_own() -> None:
    assert stem("boils") == stem("boiled") == stem("boiling") == "boil"
    assert stem("x200s") == "x200s"
