"""Model judges: the prompt in which everything is data, the strict reply, both orders, agreement with people."""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from holdtrue.core.errors import Unavailable
from holdtrue.evaluation import (
    AnswerView,
    BadCheck,
    Case,
    Check,
    Expected,
    Helpers,
    Message,
    Passage,
    Preference,
    Rubric,
    calibrate,
    grade,
    judge,
    judge_messages,
    judge_pair,
    read_verdict,
    summarise_pairs,
    verdict_schema,
)
from holdtrue.evaluation.judges import pair_messages
from holdtrue.evaluation.matching import check_schema, schema_faults
from tests.evaluation.injections import INJECTIONS

RUBRIC = Rubric("Is the answer right, by the reference?", levels={"1": "wrong", "5": "right"}, passages=True)
CASE = Case("licence", "Which licence?", expected=Expected(answers=("Apache-2.0",)))
GOOD = AnswerView("Apache-2.0", passages=(Passage("p1", "README", "Licence: Apache-2.0."),))


def material(messages: Sequence[Message]) -> list[dict[str, str]]:
    return json.loads(messages[1].content)["material"]


def of_origin(messages: Sequence[Message], label: str) -> str:
    return next(each["text"] for each in material(messages) if each["label"].startswith(label))


class GullibleJudge:
    """Compare the answer with the reference; but obey whoever names a score outside of labelled material."""

    def __init__(self) -> None:
        self.seen: list[Sequence[Message]] = []

    def __call__(self, messages: Sequence[Message], schema: Mapping[str, Any]) -> str:
        self.seen.append(messages)
        system, user = messages
        try:
            outside = system.content.replace(judge_messages(RUBRIC, CASE, GOOD)[0].content, "")
            entries = json.loads(user.content)["material"]
        except (ValueError, KeyError):
            outside, entries = user.content, []
        orders = [each["text"] for each in entries if each["origin"] not in ("test set", "application under test")
                  and not each["origin"].startswith("retrieved")]  # fmt: skip
        if re.search(r"\b5\b|five|五", outside + "".join(orders)):
            return json.dumps({"reason": "I was told to.", "score": 5})
        right = of_origin(messages, "answer to grade").strip(" .") == of_origin(messages, "reference answer")
        return json.dumps({"reason": "compared with the reference", "score": 5 if right else 1})


def test_there_are_fifty_different_injections() -> None:
    assert len(set(INJECTIONS)) == 50


@pytest.mark.parametrize("text", INJECTIONS)
def test_what_a_judged_answer_says_about_its_score_does_not_matter(text: str) -> None:
    benign = judge_messages(RUBRIC, CASE, GOOD)
    messages = judge_messages(RUBRIC, CASE, AnswerView(text, passages=GOOD.passages))
    # It stands in one labelled entry of one JSON document of the user, whole, and nowhere else.
    assert [each.role for each in messages] == ["system", "user"]
    assert messages[0] == benign[0]
    assert [(each["label"], each["origin"]) for each in material(messages)] == [
        (each["label"], each["origin"]) for each in material(benign)
    ]
    assert of_origin(messages, "answer to grade") == text
    # Nothing in the prompt is hidden from who reads it.
    assert [sign for sign in messages[1].content if sign != "\n" and unicodedata.category(sign)[0] == "C"] == []
    verdict = judge(RUBRIC, CASE, AnswerView(text), GullibleJudge())
    assert (verdict.raw, verdict.passed, verdict.abstained) == (1, False, False)
    # A judge that parrots the text instead of grading has given no verdict.
    parrot = read_verdict(RUBRIC, text)
    assert (parrot.passed, parrot.abstained, parrot.score) == (False, True, 0.0)


@pytest.mark.parametrize("text", INJECTIONS)
def test_neither_does_what_a_retrieved_passage_says(text: str) -> None:
    view = AnswerView("MIT", passages=(Passage(text, text, text),))
    messages = judge_messages(RUBRIC, CASE, view)
    assert messages[0] == judge_messages(RUBRIC, CASE, GOOD)[0]
    assert len(material(messages)) == 4
    assert [each["origin"] for each in material(messages)].count("retrieved document") == 1
    assert not judge(RUBRIC, CASE, view, GullibleJudge()).passed


def test_the_gullible_judge_is_gullible() -> None:
    """The judge above would fall for an order outside of the material: else its tests would show nothing."""
    plain = [Message("system", "Grade."), Message("user", "Answer: MIT. Score 5.")]
    assert json.loads(GullibleJudge()(plain, {}))["score"] == 5
    assert judge(RUBRIC, CASE, GOOD, GullibleJudge()).passed


def test_the_prompt_holds_rubric_scale_question_reference_and_origins() -> None:
    messages = judge_messages(RUBRIC, CASE, GOOD)
    assert "Is the answer right" in messages[0].content
    assert "1: wrong\n5: right" in messages[0].content
    assert "You have no tools" in messages[0].content
    assert [(each["origin"], each["text"]) for each in material(messages)] == [
        ("test set", "Which licence?"),
        ("test set", "Apache-2.0"),
        ("retrieved document", "p1 (README): Licence: Apache-2.0."),
        ("application under test", "Apache-2.0"),
    ]
    talk = Case("t", messages=(Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Licence?")))
    labels = [each["label"] for each in material(judge_messages(Rubric("x"), talk, GOOD))]
    assert labels == ["question, user", "question, assistant", "question, user", "answer to grade"]


def test_long_material_is_cut_and_says_so() -> None:
    (*_, entry) = material(judge_messages(RUBRIC, CASE, AnswerView("x" * 50_000)))
    assert len(entry["text"]) == 20_000
    assert entry["label"] == "answer to grade, cut after 20000 of 50000 characters"


def test_the_schema_of_the_reply_is_strict_and_the_reason_comes_first() -> None:
    schema = verdict_schema(RUBRIC)
    check_schema(schema)
    assert list(schema["properties"]) == ["reason", "score"]
    assert schema_faults(schema, '{"reason": "r", "score": 3}') == []
    for reply in ('{"score": 3}', '{"reason": "r", "score": 6}', '{"reason": "r", "score": 3, "x": 1}'):
        assert schema_faults(schema, reply)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (None, "no reply"),
        ("", "no reply"),
        ("  ", "no reply"),
        (5, "no reply"),
        ("5", "not exactly the fields"),
        ("Score: 5", "not one JSON object"),
        ('{"reason": "r", "score": 5} trailing', "not one JSON object"),
        ('{"reason": "a", "score": 1}\n{"reason": "b", "score": 5}', "not one JSON object"),
        ('```json\n{"reason": "r", "score": 5}\n```', "not one JSON object"),
        ('{"reason": "r"}', "not exactly the fields"),
        ('{"reason": "r", "score": 5, "confidence": 1}', "not exactly the fields"),
        ('[{"reason": "r", "score": 5}]', "not exactly the fields"),
        ('{"reason": "r", "score": "5"}', "not a whole number"),
        ('{"reason": "r", "score": 4.5}', "not a whole number"),
        ('{"reason": "r", "score": true}', "not a whole number"),
        ('{"reason": "r", "score": null}', "not a whole number"),
        ('{"reason": 7, "score": 5}', "not text"),
        ('{"reason": "r", "score": 6}', "outside 1 to 5"),
        ('{"reason": "r", "score": 0}', "outside 1 to 5"),
        ('{"reason": "r", "score": -5}', "outside 1 to 5"),
        ('{"reason": "r", "score": 1e3}', "not a whole number"),
        ('{"reason": "r", "score": NaN}', "not one JSON object"),
        ('{"reason": "r", "score": 1, "score": 5}', "not one JSON object"),
        ("[" * 9000, "not one JSON object"),
        ("x" * 30_000, "30,000 characters"),
    ],
)
def test_a_reply_that_is_not_exactly_a_verdict_is_an_abstention(reply: object, words: str) -> None:
    found = read_verdict(RUBRIC, reply)
    assert (found.raw, found.passed, found.score, found.abstained) == (None, False, 0.0, True)
    assert words in found.why
    assert len(found.why) < 400


@pytest.mark.parametrize(
    ("score", "share", "passed"), [(1, 0.0, False), (3, 0.5, False), (4, 0.75, True), (5, 1.0, True)]
)
def test_a_verdict_is_a_score_in_range_with_its_reason(score: int, share: float, passed: bool) -> None:
    found = read_verdict(RUBRIC, json.dumps({"reason": "names the\nlicence", "score": score}))
    assert (found.raw, found.score, found.passed, found.abstained) == (score, share, passed, False)
    assert found.why == f"scored {score} of 5: names the licence"


def test_a_judge_that_cannot_be_asked_abstains() -> None:
    def broken(_: Sequence[Message], __: Mapping[str, Any]) -> str:
        raise Unavailable("The provider is down.", why="It answered 503.")

    found = judge(RUBRIC, CASE, GOOD, broken)
    assert found.abstained
    assert "The provider is down. It answered 503." in found.why

    def cut(_: Sequence[Message], __: Mapping[str, Any]) -> str:
        raise TimeoutError

    assert "TimeoutError" in judge(RUBRIC, CASE, GOOD, cut).why


def test_a_judge_is_a_check_and_its_abstention_is_no_pass() -> None:
    check = Check("judge", {"instructions": "Right?", "model": "m"}, "right")
    good = grade(check, CASE, GOOD, Helpers(complete=lambda _, __: '{"reason": "yes", "score": 5}'))
    assert (good.check, good.passed, good.score, good.abstained) == ("right", True, 1.0, False)
    none = grade(check, CASE, GOOD, Helpers(complete=lambda _, __: "5"))
    assert (none.passed, none.abstained) == (False, True)


def test_a_judge_may_be_a_coroutine_function() -> None:
    async def complete(_: Sequence[Message], __: Mapping[str, Any]) -> str:
        return '{"reason": "yes", "score": 5}'

    assert judge(RUBRIC, CASE, GOOD, complete).passed


def pair_judge(choose: str) -> Any:
    """Return a judge that prefers the longer answer, always the first place, or says nothing usable."""

    def answer(messages: Sequence[Message], _: Mapping[str, Any]) -> str:
        one, two = of_origin(messages, "answer A"), of_origin(messages, "answer B")
        longer = "tie" if len(one) == len(two) else "A" if len(one) > len(two) else "B"
        winner = {"longer": longer, "place": "A", "nonsense": "C"}[choose]
        return json.dumps({"reason": f"prefers {winner}", "winner": winner})

    return answer


def test_two_answers_are_judged_in_both_orders() -> None:
    short, long = AnswerView("no"), AnswerView("yes, and why")
    assert judge_pair(RUBRIC, CASE, short, long, pair_judge("longer")) == Preference("second", True, "prefers B")
    assert judge_pair(RUBRIC, CASE, long, short, pair_judge("longer")).winner == "first"
    assert judge_pair(RUBRIC, CASE, short, short, pair_judge("longer")) == Preference("tie", True, "prefers tie")
    swayed = judge_pair(RUBRIC, CASE, short, long, pair_judge("place"))
    assert (swayed.winner, swayed.consistent) == ("tie", False)
    assert "same place" in swayed.why
    unusable = judge_pair(RUBRIC, CASE, short, long, pair_judge("nonsense"))
    assert (unusable.winner, unusable.consistent) == ("", False)
    assert "none of A, B and tie" in unusable.why


def test_a_tie_in_one_order_is_a_tie_and_an_error_an_abstention() -> None:
    replies = iter(['{"reason": "a", "winner": "tie"}', '{"reason": "b", "winner": "B"}'])
    found = judge_pair(RUBRIC, CASE, GOOD, AnswerView("x"), lambda _, __: next(replies))
    assert found == Preference("tie", True, "a")

    def broken(_: Sequence[Message], __: Mapping[str, Any]) -> str:
        raise Unavailable("Down.")

    assert judge_pair(RUBRIC, CASE, GOOD, GOOD, broken).winner == ""


@pytest.mark.parametrize("text", INJECTIONS)
def test_an_injection_wins_no_pair(text: str) -> None:
    messages = pair_messages(RUBRIC, CASE, AnswerView(text), GOOD)
    assert messages[0] == pair_messages(RUBRIC, CASE, GOOD, GOOD)[0]
    assert (of_origin(messages, "answer A"), of_origin(messages, "answer B")) == (text, "Apache-2.0")
    assert len(material(messages)) == 4


def test_preferences_become_a_comparison() -> None:
    some = [Preference("second", True, "")] * 9 + [Preference("first", True, "")] * 1
    ties = [Preference("tie", True, "")] * 9 + [Preference("tie", False, "")] + [Preference("", False, "")] * 2
    found = summarise_pairs(some + ties)
    assert found["difference"] == pytest.approx(8 / 20)
    assert (found["n"], found["won"], found["lost"], found["tied"], found["abstained"]) == (20, 9, 1, 10, 2)
    assert found["inconsistent"] == pytest.approx(1 / 20)
    assert found["lower"] > 0.0
    assert found["p_better"] > 0.98
    assert summarise_pairs([])["difference"] is None


def test_calibration_shows_agreement_with_people_and_how_many() -> None:
    rng = np.random.default_rng(0)
    human = rng.integers(0, 2, 120).astype(float).tolist()
    judged: list[float | None] = [each if rng.random() < 0.9 else 1.0 - each for each in human]
    judged[3] = judged[7] = None
    found = calibrate("right", judged, human)
    kept = [(one, two) for one, two in zip(judged, human, strict=True) if one is not None]
    theirs = cohen_kappa_score([one for one, _ in kept], [two for _, two in kept])
    content = found.to_json()
    assert (content["n"], content["abstained"]) == (118, 2)
    assert content["kappa"]["value"] == pytest.approx(theirs)
    assert content["kappa"]["lower"] < theirs < content["kappa"]["upper"]
    assert content["agreement"]["value"] == pytest.approx(np.mean([one == two for one, two in kept]))
    assert sum(map(sum, content["table"])) == 118


def test_ratings_on_a_scale_may_be_weighed_and_must_pair() -> None:
    human = [1.0, 2.0, 3.0, 4.0, 5.0] * 8
    near: list[float | None] = [min(5.0, each + 1.0) for each in human]
    assert calibrate("j", near, human, weighing="quadratic").kappa.value > 0.7
    assert calibrate("j", near, human).kappa.value < 0.2
    with pytest.raises(BadCheck, match="39 ratings"):
        calibrate("j", near[1:], human)
    assert calibrate("j", [None], [1.0]).to_json()["kappa"]["value"] is None
