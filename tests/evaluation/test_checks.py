"""Checks of one answer: what passes, what fails, and the words that say why."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.core.codec import dump
from holdtrue.core.errors import InvalidInput
from holdtrue.evaluation import (
    AnswerView,
    BadCheck,
    Case,
    Check,
    Expected,
    Grade,
    Helpers,
    Passage,
    ToolCall,
    checks_digest,
    checks_from_json,
    declined,
    grade,
)
from holdtrue.evaluation.checks import applies, check_checks
from tests.sampling import examples

README = Passage("p1", "README", "A machine with Linux, Python 3.11 and make is enough. It takes about three minutes.")
OTHER = Passage("p2", "GUIDE", "Labels go to POST /labels, rows of a source to POST /events.")


def graded(kind: str, answer: AnswerView | str, helpers: Helpers | None = None, **parts: Any) -> Grade:
    """Grade by a check of `kind`; parts that begin with “_” are options, the others what is expected."""
    options = {name[1:]: value for name, value in parts.items() if name.startswith("_")}
    expected = Expected(**{name: value for name, value in parts.items() if not name.startswith("_")})
    view = AnswerView(answer) if isinstance(answer, str) else answer
    check = Check(kind, options)
    case = Case("q", "What?", expected=expected)
    (known,) = check_checks([check])
    assert applies(known, case)
    return grade(known, case, view, helpers)


@pytest.mark.parametrize(
    ("answer", "options", "passed"),
    [
        ("Apache-2.0", {}, True),
        (" apache 2.0. ", {}, True),
        ("MIT", {}, False),
        ("It is Apache-2.0", {}, False),
        ("apache-2.0", {"_ignore_case": False}, False),
        ("Apache 2.0", {"_ignore_case": False}, True),
        ("Apache-2.0.", {"_ignore_punctuation": False}, False),
        ("APACHE-2.0", {"_ignore_punctuation": False}, True),
        ("", {}, False),
    ],
)
def test_exact(answer: str, options: dict[str, Any], passed: bool) -> None:
    found = graded("exact", answer, answers=("Apache-2.0", "ASL 2"), **options)
    assert (found.passed, found.score) == (passed, float(passed))
    assert passed or "“Apache-2.0”" in found.why


def test_exact_compares_signs_where_there_are_no_words() -> None:
    assert graded("exact", "+", answers=("+",)).passed
    assert not graded("exact", "-", answers=("+",)).passed
    assert graded("exact", "ﬁve", answers=("five",)).passed


def test_contains_wants_all_or_any_and_refuses_what_must_not_be_there() -> None:
    found = graded("contains", "The Control Plane and a worker.", contains=("control plane", "data plane"))
    assert (found.passed, found.score) == (False, 0.5)
    assert "“data plane” is not in it" in found.why
    assert graded("contains", "a worker", contains=("control plane", "worker"), _any=True).passed
    none = graded("contains", "nothing", contains=("control plane", "worker"), _any=True)
    assert "none of “control plane”, “worker”" in none.why
    assert not graded("contains", "As an AI, I say worker", contains=("worker",), _never=("as an ai",)).passed
    assert not graded("contains", "WORKER", contains=("worker",), _ignore_case=False).passed
    assert graded("contains", "Don’t", contains=("don't",)).passed


def test_a_pattern_is_found_or_must_not_be() -> None:
    assert graded("regex", "It sends 285,000.", pattern=r"285[,.]?000").passed
    assert "does not match" in graded("regex", "many", pattern=r"285[,.]?000").why
    assert graded("regex", "fine", _pattern=r"\b\d{16}\b", _absent=True).passed
    assert not graded("regex", "card 4111111111111111", _pattern=r"\b\d{16}\b", _absent=True).passed
    assert graded("regex", "a\ud800b", pattern="^a.b$").passed


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", "(", "a{2000}", "x" * 1001])
def test_a_pattern_that_could_run_for_ever_is_refused(pattern: str) -> None:
    with pytest.raises(BadCheck) as caught:
        check_checks([Check("regex", {"pattern": pattern})])
    assert "“regex”" in caught.value.what
    assert caught.value.mend


def test_a_hostile_answer_costs_no_time() -> None:
    # Python's own engine needs 2^n steps for these; RE2 is linear. The suite's timeout is the judge.
    evil = "a" * 150_000 + "!"
    assert not graded("regex", evil, pattern="^(a+)+$").passed
    schema = {"type": "object", "properties": {"x": {"pattern": "^(a|a)*$"}, "l": {"uniqueItems": True}}}
    assert not graded("json_schema", '{"x": "' + "a" * 90_000 + '!"}', json_schema=schema).passed
    many = '{"l": [' + ",".join(f'{{"k": {n}}}' for n in range(7000)) + "]}"
    assert graded("json_schema", many, json_schema=schema).passed
    assert not graded("citation", AnswerView("word. " * 30_000, citations=("p1",), passages=(README,))).passed
    too_long = graded("length", "x" * 200_001)
    assert not too_long.passed
    assert "at most 200,000" in too_long.why


SCHEMA = {
    "type": "object",
    "properties": {"late": {"type": "boolean"}, "minutes": {"type": "integer", "minimum": 0}},
    "required": ["late"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ('{"late": true, "minutes": 3}', ""),
        ('{"late": "yes"}', "$.late: 'yes' is not of type 'boolean'"),
        ('{"minutes": -1}', "'late' is a required property"),
        ('{"late": true, "more": 1}', "'more' was unexpected"),
        ("Late: yes", "not JSON"),
        ('{"late": true', "line 1, column"),
        ('{"late": NaN}', "no number of JSON"),
        ("[" * 50_000, "not JSON"),
        ('```json\n{"late": true}\n```', "not JSON"),
    ],
)
def test_json_schema(answer: str, words: str) -> None:
    found = graded("json_schema", answer, json_schema=SCHEMA)
    assert found.passed == (not words)
    assert words in found.why


def test_a_block_of_code_around_the_json_is_taken_off_on_demand() -> None:
    assert graded("json_schema", '```json\n{"late": true}\n```', _json_schema=SCHEMA, _fenced=True).passed


def test_a_recursive_schema_and_a_deep_answer_end_as_a_failure() -> None:
    nested = {"$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}, "$ref": "#/$defs/n"}
    assert graded("json_schema", "[[[]]]", json_schema=nested).passed
    assert "nested too deep" in graded("json_schema", "[" * 600 + "]" * 600, json_schema=nested).why
    lost = graded("json_schema", "1", json_schema={"$ref": "#/$defs/absent"})
    assert "does not define" in lost.why


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:9/schema"},
        {"properties": {"a": {"$ref": "file:///etc/passwd"}}},
        {"type": "strin"},
        {"patternProperties": {"^a": {}}},
        {"properties": {"a": {"pattern": "(?=a)"}}},
    ],
)
def test_a_schema_that_reaches_outside_or_is_none_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(BadCheck):
        check_checks([Check("json_schema", {"json_schema": schema})])


def test_without_jsonschema_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(Exception, match=r"holdtrue\[llm\]") as caught:
        check_checks([Check("json_schema", {"json_schema": SCHEMA})])
    assert getattr(caught.value, "code", "") == "missing_extra"


SEARCH = ToolCall("search", {"query": "delays", "filter": {"origin": "EWR", "top": 3}})
OPEN = ToolCall("open", {})


@pytest.mark.parametrize(
    ("called", "options", "score", "words"),
    [
        ([OPEN, SEARCH], {}, 1.0, ""),
        ([OPEN, SEARCH], {"_ordered": True}, 0.0, "not called in its place"),
        ([SEARCH, ToolCall("open", {"more": 1})], {}, 1.0, ""),
        ([SEARCH, ToolCall("open", {"more": 1})], {"_exact": True}, 0.75, "the argument more was not expected"),
        ([ToolCall("search", {"query": "delay", "filter": {"origin": "EWR", "top": 3.0}}), OPEN], {}, 11 / 12,
         'query is "delay"; "delays" was expected'),
        ([ToolCall("search", {"query": "delays", "filter": {"top": True}}), OPEN], {}, 10 / 12,
         "filter.origin is missing"),
        ([SEARCH], {}, 0.5, "open was not called"),
        ([], {}, 0.0, "called no tool"),
        ([SEARCH, OPEN, ToolCall("delete", {})], {}, 2 / 3, "also called delete"),
        ([SEARCH, OPEN, ToolCall("delete", {})], {"_extra": True}, 1.0, ""),
        ([ToolCall("search", {"query": {"query": {}}}), OPEN, OPEN], {}, 0.5, "also called open"),
    ],
)  # fmt: skip
def test_tool_calls(called: list[ToolCall], options: dict[str, Any], score: float, words: str) -> None:
    found = graded("tool_call", AnswerView(tool_calls=tuple(called)), tool_calls=(SEARCH, OPEN), **options)
    assert found.score == pytest.approx(score)
    assert found.passed == (not words)
    assert words in found.why


def test_no_tool_may_be_called_where_none_is_expected() -> None:
    assert graded("tool_call", AnswerView("Just words."), tool_calls=()).passed
    found = graded("tool_call", AnswerView(tool_calls=(SEARCH,)), tool_calls=())
    assert "though no tool was to be called" in found.why


def test_calls_are_paired_for_the_best_sum() -> None:
    one, two = ToolCall("get", {"id": 1, "x": 1}), ToolCall("get", {"id": 2, "x": 1})
    found = graded("tool_call", AnswerView(tool_calls=(two, one)), tool_calls=(one, two))
    assert found.passed


def test_likeness_by_words_is_the_f1_of_squad() -> None:
    # Precision 2 of 4, recall 2 of 2: F1 = 2/3.
    found = graded("similarity", "the cat sat down", answers=("nothing at all", "The cat."))
    assert found.score == pytest.approx(2 / 3)
    assert found.passed
    assert not graded("similarity", "a dog", answers=("The cat.",)).passed
    assert graded("similarity", "日本語", answers=("日本",)).score == pytest.approx(0.8)


def embed(texts: Sequence[str]) -> list[list[float]]:
    """Count a few letters: enough of an embedding to see how it is used."""
    return [[float(text.lower().count(letter)) for letter in "aeiou"] for text in texts]


def test_likeness_by_meaning_is_the_cosine() -> None:
    found = graded("similarity", "banana", Helpers(embed), answers=("xyz", "papaya!"), _by="embedding", _minimum=0.9)
    one, two = np.array(embed(["banana", "papaya!"]))
    assert found.score == pytest.approx(float(one @ two / np.linalg.norm(one) / np.linalg.norm(two)))
    assert graded("similarity", "xyz", Helpers(embed), answers=("papaya",), _by="embedding").score == 0.0
    with pytest.raises(BadCheck, match="needs an embedding"):
        check_checks([Check("similarity", {"by": "embedding"})], Helpers())


GROUNDED = AnswerView("Linux, Python 3.11 and make are enough [p1].", citations=("p1",), passages=(README, OTHER))


@pytest.mark.parametrize(
    ("answer", "options", "words"),
    [
        (GROUNDED, {}, ""),
        (AnswerView("Linux and make.", passages=(README,)), {}, "cites nothing"),
        (AnswerView("Linux and make.", citations=("p1", "p9"), passages=(README,)), {}, "“p9”, which was not"),
        (AnswerView("Labels go to POST.", citations=("p2",), passages=(README, OTHER)), {}, "it cites GUIDE, not"),
        (AnswerView("Labels go to POST.", citations=("p2",), passages=(README, OTHER)), {"_source": "retrieved"}, ""),
        (AnswerView("Labels go to POST.", citations=("p2",), passages=(OTHER,)), {"_source": "anywhere"}, ""),
        (AnswerView("It needs a cluster and a licence key.", citations=("p1",), passages=(README,)), {},
         "1 of 1 sentences are not in what it cites: “It needs a cluster"),
        (AnswerView("Linux is enough. It costs 40.", citations=("p1",), passages=(README,)), {}, "1 of 2 sentences"),
        (AnswerView("Linux is enough. It costs 40.", citations=("p1",), passages=(README,)), {"_sentences": 0.5}, ""),
        (AnswerView("Python 3.12 and Linux, make.", citations=("p1",), passages=(README,)), {}, "1 of 1"),
        (AnswerView("It takes 3 minutes.", citations=("p1",), passages=(README,)), {}, ""),
        (AnswerView("Anything at all.", citations=("p1",), passages=(README,)), {"_support": 0.0}, ""),
    ],
)  # fmt: skip
def test_citations(answer: AnswerView, options: dict[str, Any], words: str) -> None:
    found = graded("citation", answer, sources=("README",), **options)
    assert found.passed == (not words), found
    assert words in found.why
    assert (found.score == 1.0) or words or options


def test_a_source_may_be_named_by_its_passage_and_all_may_be_asked_for() -> None:
    assert graded("citation", GROUNDED, sources=("p1",)).passed
    assert graded("citation", GROUNDED, sources=("README", "GUIDE")).passed
    assert not graded("citation", GROUNDED, sources=("README", "GUIDE"), _all_sources=True).passed


@pytest.mark.parametrize(
    ("answer", "answerable", "passed"),
    [
        (AnswerView("I don’t know."), False, True),
        (AnswerView("", abstained=True), False, True),
        (AnswerView("Sorry, the documents do not say who founded it."), False, True),
        (AnswerView("It is 40."), False, False),
        (AnswerView(""), False, False),
        (AnswerView("It is 40."), True, True),
        (AnswerView("I do not know."), True, False),
        (AnswerView("Fine", abstained=True), True, False),
        (AnswerView("The licence is MIT. " + "Words and words. " * 30 + "I do not know more."), True, True),
    ],
)
def test_abstention(answer: AnswerView, answerable: bool, passed: bool) -> None:
    found = graded("abstention", answer, answerable=answerable)
    assert (found.passed, found.score) == (passed, float(passed))
    assert found.why


def test_the_phrases_that_decline_can_be_chosen() -> None:
    answer = AnswerView("Das weiß ich nicht.")
    assert not declined(answer)
    assert declined(answer, [Check("abstention", {"phrases": ["weiß ich nicht"]})])
    assert not declined(AnswerView("I don't know", error="timed out"))


def test_length_latency_and_cost_have_bounds() -> None:
    view = AnswerView("one two three", seconds=2.0, cost_micros=500)
    assert graded("length", view, _max_words=3).passed
    assert "fewer than 4" in graded("length", view, _min_words=4).why
    assert "more than 2" in graded("length", view, _max_words=2).why
    assert "13 characters, more than 5" in graded("length", view, _max_characters=5).why
    assert graded("latency", view, _max_seconds=2.0).passed
    assert "2.00 s of at most 1 s" in graded("latency", view, _max_seconds=1.0).why
    assert graded("cost", view, _max_micros=500).passed
    assert "500 micros of at most 499" in graded("cost", view, _max_micros=499).why
    unknown = AnswerView("one")
    assert "not measured" in graded("latency", unknown, _max_seconds=1.0).why
    assert not graded("cost", unknown, _max_micros=1).passed


KINDS: dict[str, tuple[dict[str, Any], Expected]] = {
    "exact": ({}, Expected(answers=("a",))),
    "contains": ({}, Expected(contains=("a",))),
    "regex": ({}, Expected(pattern="a")),
    "json_schema": ({}, Expected(json_schema={"type": "object"})),
    "tool_call": ({}, Expected(tool_calls=())),
    "similarity": ({}, Expected(answers=("a",))),
    "citation": ({}, Expected()),
    "abstention": ({}, Expected(answerable=False)),
    "length": ({}, Expected()),
    "latency": ({"max_seconds": 1}, Expected()),
    "cost": ({"max_micros": 1}, Expected()),
    "judge": ({"instructions": "Is it right?"}, Expected()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_failed_fails_every_check_with_its_error(kind: str) -> None:
    options, expected = KINDS[kind]
    failed = AnswerView("a", error="the provider did not answer within 30 s")
    found = grade(Check(kind, options), Case("q", "Q?", expected=expected), failed, Helpers())
    assert not found.passed
    assert found.score == 0.0
    assert "the provider did not answer within 30 s" in found.why


def test_checks_skip_cases_that_have_nothing_for_them() -> None:
    bare, unanswerable = Case("a", "Q?"), Case("b", "Q?", expected=Expected(answerable=False))
    skipped = {kind for kind, (options, _) in KINDS.items() if not applies(Check(kind, options), bare)}
    assert skipped == {"exact", "contains", "regex", "json_schema", "tool_call", "similarity"}
    looked = {kind for kind, (options, _) in KINDS.items() if applies(Check(kind, options), unanswerable)}
    assert looked == {"abstention", "length", "latency", "cost"}
    everywhere = [
        Check("regex", {"pattern": "a"}),
        Check("contains", {"never": ["a"]}),
        Check("json_schema", {"json_schema": {}}),
    ]
    assert all(applies(check, bare) and not applies(check, unanswerable) for check in everywhere)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "0 checks"),
        ("exact", "a list"),
        ([{"kind": "exat"}], "“exact”?"),
        ([{"knd": "exact"}], "Check 1 has no option “knd”"),
        ([{"kind": "length"}, {"kind": "exact", "options": {"ignore_cas": True}}], "“ignore_case”?"),
        ([{"kind": "latency"}], "“max_seconds”"),
        ([{"kind": "latency", "options": {"max_seconds": -1}}], "-1"),
        ([{"kind": "latency", "options": {"max_seconds": "nan"}}], "nan"),
        ([{"kind": "cost", "options": {"max_micros": -5}}], "-5"),
        ([{"kind": "similarity", "options": {"minimum": 2}}], "between 0 and 1"),
        ([{"kind": "citation", "options": {"source": "somewhere"}}], "“source”"),
        ([{"kind": "contains", "options": {"must": [""]}}], "empty"),
        ([{"kind": "length", "options": {"min_words": 5, "max_words": 4}}], "5 to 4 words"),
        ([{"kind": "exact"}, {"kind": "exact"}], "cannot name"),
        ([{"kind": "exact", "name": "my check"}], "my check"),
        ([{"kind": "judge", "options": {"instructions": " "}}], "no instructions"),
        ([{"kind": "judge", "options": {"instructions": "x", "pass_mark": 9}}], "pass mark"),
        ([{"kind": "judge", "options": {"instructions": "x", "levels": {"9": "y"}}}], "“9”"),
        ([{"kind": "length", "name": f"n{at}"} for at in range(41)], "41 checks"),
    ],
)
def test_a_check_that_cannot_be_used_is_named(data: Any, words: str) -> None:
    with pytest.raises(BadCheck) as caught:
        checks_from_json(data)
    assert words in str(caught.value)
    assert caught.value.mend


def test_checks_are_data_and_defaults_do_not_change_what_they_are() -> None:
    checks = checks_from_json([{"kind": "exact"}, {"kind": "similarity", "options": {"minimum": 0.6}, "name": "close"}])
    assert checks_from_json(dump(list(checks))) == checks
    spelt = checks_from_json(
        [
            {"kind": "exact", "options": {"ignore_case": True}},
            {"kind": "similarity", "name": "close", "options": {"by": "words"}},
        ]
    )
    assert checks_digest(checks) == checks_digest(spelt)
    assert checks_digest(checks) != checks_digest(checks[:1])


def test_an_answer_that_nobody_can_have_measured_is_refused() -> None:
    for cost, seconds in ((-1, None), (None, -0.1), (None, float("nan")), (None, float("inf"))):
        with pytest.raises(InvalidInput):
            AnswerView("x", cost_micros=cost, seconds=seconds)


TEXT = st.text(max_size=60) | st.sampled_from(["{}", "[1]", "I don't know", "p1", "\ud800", "۱۲", "𝟙𝟚"])


@settings(max_examples=examples(150), deadline=None)
@given(TEXT, TEXT, st.lists(st.sampled_from(["p1", "p9", ""]), max_size=3), TEXT)
def test_any_answer_gets_a_grade_between_nothing_and_one(
    text: str, reference: str, cited: list[str], passage: str
) -> None:
    view = AnswerView(text, (ToolCall(text, {text: [text]}),), tuple(cited), (Passage("p1", "d", passage),))
    for kind, (options, expected) in KINDS.items():
        if kind == "judge":
            continue
        case = Case("q", "Q?", expected=expected if not expected.answers else Expected(answers=(reference,)))
        found = grade(Check(kind, options), case, view)
        assert 0.0 <= found.score <= 1.0
        assert found.why
        assert found == grade(Check(kind, options), case, view)
