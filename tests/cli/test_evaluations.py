"""What a person reads of an evaluation, in a narrow and in a wide terminal."""

import io
from typing import Any

import pytest
from rich.console import Console

from holdtrue.cli.evaluations import render_eval
from holdtrue.evaluation import AnswerView, compare_answers, run_answers, summarise
from tests.evaluation.answerers import CHECKS, Answerer, questions


def graded(answerer: Any, release: str, repeats: int = 3) -> Any:
    return run_answers(questions(), answerer, CHECKS, application=release, release=release, repeats=repeats)


def printed(summary: Any, comparison: Any = None, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(render_eval(summary, comparison))
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_everything_fits_and_says_what_it_means(width: int) -> None:
    champion = graded(Answerer(right=0.9, seed=4), "rel_old")
    challenger = graded(Answerer(right=0.6, seed=3, always_wrong=("up",)), "rel_new")
    summary = summarise(challenger)
    text = printed(summary, compare_answers(champion, challenger), width)
    assert max(len(line) for line in text.splitlines()) <= width
    joined = " ".join(text.split())
    for words in (
        "readme (tst_",
        "20 questions, each asked 3 times, release rel_new",
        f"Passed {summary['pass_rate']['mean'] * 100:.0f} %",
        "in 95 of 100 evaluations",
        "citation",
        "topic: using",
        "declined what cannot",
        f"Failed: {summary['failed']} of 20 questions",
        f"and {summary['failed'] - 5} more",
        "✗ up: What does holdtrue up start?",
        "failed 3 of 3 times: contains: “control plane” is not in it",
        "Against rel_old",
        "points worse",
        "probability that it is better",
        "Lost: ",
    ):
        assert words in joined, words


def test_what_there_is_not_is_not_shown() -> None:
    summary = summarise(graded(Answerer(), "rel_new", repeats=1), [])
    text = printed(summary)
    for words in ("Failed", "By slice", "Against", "each asked", "calls failed", "Lost"):
        assert words not in text
    same = graded(Answerer(), "rel_new", repeats=1)
    assert "no difference (" in " ".join(printed(summary, compare_answers(same, same)).split())


def test_an_application_that_never_answers_is_shown_as_such() -> None:
    summary = summarise(graded(lambda *_: AnswerView(error="[bold]timed out[/bold]"), "rel_new", repeats=1))
    text = printed(summary)
    assert "Passed 0 %" in text
    assert "20 of 20 calls failed" in text
    assert "not measured" in text
    # What an answer says is text, not markup of the terminal.
    assert "no answer: [bold]timed out[/bold]" in text


def test_control_signs_of_an_answer_do_not_reach_the_terminal() -> None:
    evil = "\x1b[2J\x1b]0;owned\x07 gone"
    summary = summarise(graded(lambda *_: AnswerView(evil), "rel_new", repeats=1))
    assert "\x1b" not in str(summary)
    assert "\\x1b" not in str(summary)
    summary["failures"][0]["why"] = evil
    assert not set("\x1b\x07") & set(printed(summary))
