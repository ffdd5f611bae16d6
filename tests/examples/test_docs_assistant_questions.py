"""Hold the test set of the documentation assistant to the documents: every answer stands where it is said to."""

from functools import cache
from pathlib import Path

import pytest

from holdtrue.evaluation import Case, load_test_set

ROOT = Path(__file__).parents[2]
QUESTIONS = ROOT / "examples" / "docs_assistant" / "questions.jsonl"
_PAGES = (
    "concepts",
    "getting-started",
    "project-file",
    "data-and-contracts",
    "features",
    "training-and-evaluation",
    "gates-and-approvals",
    "rollouts",
    "serving",
    "monitoring",
    "security",
    "operations",
    "why-and-audit",
)


@cache
def questions() -> tuple[Case, ...]:
    """Return the questions in their order."""
    return load_test_set(QUESTIONS).cases


@cache
def documents() -> dict[str, str]:
    """Return the documents that the assistant knows, by path; a line's end counts as a space."""
    paths = [ROOT / "docs" / "guide" / f"{name}.md" for name in _PAGES]
    paths += [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "docs" / "configuration.md"]
    paths += sorted((ROOT / "docs" / "decisions").glob("*.md"))
    return {path.relative_to(ROOT).as_posix(): _plain(path.read_text(encoding="utf-8")) for path in paths}


def _plain(text: str) -> str:
    return " ".join(text.split())


def test_the_set_is_large_enough_to_say_something() -> None:
    """Prevent a test set whose shares are mostly chance."""
    answerable = [each for each in questions() if each.expected.answerable]
    assert len(questions()) >= 90
    assert len(answerable) >= 66
    assert len(questions()) - len(answerable) >= 24


def test_ids_count_up_and_questions_differ() -> None:
    """Prevent two cases that an evaluation could not tell apart."""
    assert [each.id for each in questions()] == [f"q{number:03d}" for number in range(1, len(questions()) + 1)]
    assert len({each.question.casefold() for each in questions()}) == len(questions())


def test_every_third_question_is_held_out() -> None:
    """Prevent thresholds that were tuned on the questions by which they are judged."""
    held = [each.tags.get("split") == "held_out" for each in questions()]
    assert held == [number % 3 == 0 for number in range(1, len(held) + 1)]
    for split in (True, False):
        kinds = {each.expected.answerable for each, out in zip(questions(), held, strict=True) if out is split}
        assert kinds == {True, False}


@pytest.mark.parametrize("case", questions(), ids=lambda case: case.id)
def test_an_answer_stands_in_its_source(case: Case) -> None:
    """Prevent a right answer that no document gives, and a document that gives none."""
    assert case.question.strip() == case.question != ""
    assert case.tags.get("topic")
    expected = case.expected
    if not expected.answerable:
        assert not expected.sources
        assert not expected.contains
        assert case.tags["kind"] in {"near_miss", "missing", "off_topic"}
        return
    assert expected.sources
    assert expected.contains
    texts = {source: documents()[source] for source in expected.sources}
    answers = [_plain(answer) for answer in expected.contains]
    assert [each for each in answers if not any(each in text for text in texts.values())] == []
    assert [source for source, text in texts.items() if not any(each in text for each in answers)] == []
    assert not any(_plain(case.question) in text for text in texts.values())


def test_no_question_holds_its_answer() -> None:
    """Prevent a question that an answer need only repeat."""
    for case in questions():
        asked = set(case.question.casefold().replace("?", "").split())
        for answer in case.expected.contains:
            said = set(_plain(answer).casefold().split())
            assert said - asked, (case.id, answer)


def test_every_page_is_asked_about() -> None:
    """Prevent a page that could say anything without a question noticing."""
    asked = {source for case in questions() for source in case.expected.sources}
    # Decisions are added with each change; what people ask about is in the guide.
    assert sorted(each for each in set(documents()) - asked if "decisions" not in each) == []
