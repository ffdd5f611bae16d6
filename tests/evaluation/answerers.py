"""A scripted application that answers questions about a README: how often it is right is known."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from holdtrue.evaluation import AnswerView, Case, Check, Passage, TestSet, load_test_set

FOLDER = Path(__file__).parent / "readme"

CHECKS = (
    Check("contains"),
    Check("regex"),
    Check("citation"),
    Check("abstention"),
    Check("length", {"max_words": 60}),
)

# Good answers, in words of the README, each with the beginning of the passage that holds it.
ANSWERS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "licence": ("Its licence is Apache-2.0.", "Licence:"),
        "needs": ("A machine with Linux, Python 3.11 and make is enough.", "A machine"),
        "demo-command": ("`make demo` replays a year of a real model in production.", "```sh"),
        "test-command": ("`make test` runs everything that is checked before a change lands.", "```sh"),
        "predictions": ("It sends 285,000 predictions over real HTTP, each recorded.", "`make demo` trains"),
        "training-months": ("It trains a model on January and February 2013.", "`make demo` trains"),
        "demo-length": ("The year is replayed in about three minutes.", "```sh"),
        "report": ("The HTML report is `.demo/report.html`.", "`make demo` trains"),
        "release-decision": ("Every change to production is a decision made on evidence.", "DevOps ships"),
        "init": ("`holdtrue init` writes a small one to start from.", "A project is"),
        "up": ("It starts the control plane, the data plane and a worker.", "| command"),
        "approve-own": ("No: nobody approves what they made.", "| command"),
        "token": ("Run `holdtrue token create --role reviewer --project P`.", "| command"),
        "protocol": ("Predictions are asked for in the Open Inference Protocol.", "Predictions are"),
        "labels": ("Labels go to `POST /labels`.", "Labels go"),
        "pickle": ("No: no pickle is loaded in a server.", "- **Nothing"),
    }
)


def passages() -> tuple[Passage, ...]:
    """Return the paragraphs of the README as passages, each under the heading of its section."""
    section = "Holdtrue"
    found: list[Passage] = []
    for block in (FOLDER / "snapshot.md").read_text().split("\n\n"):
        if block.startswith("#"):
            section = block.lstrip("# ").splitlines()[0]
            continue
        found.append(Passage(f"p{len(found) + 1}", section, block))
    return tuple(found)


def questions() -> TestSet:
    """Return the test set: 16 questions that the README answers, and 4 that it does not."""
    return load_test_set(FOLDER / "questions.jsonl", "readme")


@dataclass
class Answerer:
    """Answer as well as it is told to: `right` is the chance of a good answer, drawn anew for each repeat.

    `always_wrong` are cases that it never gets right. It is the same every time for the same seed.
    """

    right: float = 1.0
    seed: int = 0
    always_wrong: Sequence[str] = ()
    cost: int = 300
    seconds: float = 0.8
    asked: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])

    def __call__(self, case: Case, repeat: int) -> AnswerView:
        self.asked.append((case.id, repeat))
        chance = random.Random(f"{self.seed}/{case.id}/{repeat}")
        good = case.id not in self.always_wrong and chance.random() < self.right
        seconds = self.seconds * (0.5 + chance.random())
        cost = round(self.cost * (0.8 + 0.4 * chance.random()))
        known = passages()
        usage = {"input_tokens": cost, "output_tokens": cost // 10}
        if not case.expected.answerable:
            text = "I don't know: the README does not say." if good else "About 40, as far as the README tells."
            return AnswerView(text, passages=known[:3], usage=usage, cost_micros=cost, seconds=seconds)
        if not good:
            wrong = AnswerView("It needs a cluster of 12 machines.", (), ("p1",), known, False, usage, cost, seconds)
            return wrong
        text, beginning = ANSWERS[case.id]
        cited = next(each for each in known if each.text.startswith(beginning))
        return AnswerView(text, (), (cited.id,), known, False, usage, cost, seconds)
