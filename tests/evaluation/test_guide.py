"""The guide says what is true: its example runs, and every kind, option and field is in it."""

import os
import re
from dataclasses import fields
from pathlib import Path

import pytest

from holdtrue.evaluation import Case, Expected, load_test_set, run_answers
from holdtrue.evaluation.checks import KINDS
from holdtrue.governance import Policy, Rule
from holdtrue.governance.rules import build_context, check_policy, evaluate
from tests.evaluation.answerers import CHECKS, Answerer, questions

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "evaluation.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the guide's blocks of code in a language."""
    return [part.split("```")[0] for part in GUIDE.split(f"```{language}\n")[1:]]


def test_the_first_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("questions.jsonl").write_text(blocks("json")[0])
    names: dict[str, object] = {}
    exec(blocks("python")[0], names)  # noqa: S102  # it is the guide's own code
    evidence = names["evidence"]
    assert isinstance(evidence, dict)
    assert evidence["pass_rate"]["mean"] == 1.0
    assert os.listdir(tmp_path) == ["questions.jsonl"]


def test_both_forms_of_a_test_set_can_be_read(tmp_path: Path) -> None:
    for suffix, text in (("jsonl", blocks("json")[0]), ("toml", blocks("toml")[0])):
        path = tmp_path / f"set.{suffix}"
        path.write_text(text)
        assert load_test_set(path).cases[0].expected.answers == ("Apache-2.0",)


def test_the_rules_can_be_declared_and_read_evidence() -> None:
    rules = re.findall(r'^ +"(.+)",$', blocks("python")[1], re.MULTILINE)[1:]
    assert len(rules) == 8
    policy = Policy("production", tuple(Rule(f"r{at}", rule) for at, rule in enumerate(rules)))
    check_policy(policy)
    from holdtrue.evaluation import summarise

    found = summarise(run_answers(questions(), Answerer(), CHECKS, application="x"))
    findings = evaluate(policy, build_context([("answers", found)], {"first": True}))
    # Four unanswerable questions are too few for the third rule: that is the point of an interval.
    assert [each.passed for each in findings] == [True, True, False, True, True, True, True, True]


def test_every_kind_option_and_field_is_documented() -> None:
    missing = [name for name in KINDS if f"`{name}`" not in GUIDE]
    missing += [each.name for kind in KINDS.values() for each in fields(kind.options) if f"`{each.name}`" not in GUIDE]
    missing += [each.name for cls in (Case, Expected) for each in fields(cls) if f"`{each.name}`" not in GUIDE]
    assert missing == []
