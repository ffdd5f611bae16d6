"""What the crash test kills: a process that runs one evaluation after another, noting what it asks and keeps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdtrue.evaluation import AnswerCache, AnswerView, Case, Check, Graded, Helpers, Message, run_answers
from holdtrue.storage import ActionCache, BlobStore
from tests.crash.harness import Notes
from tests.evaluation.answerers import Answerer, questions

CHECKS = (Check("abstention"), Check("judge", {"instructions": "Is it right?"}))
REPEATS = 2


class NotingCache(AnswerCache):
    """Note each answer and verdict once it is kept."""

    def __init__(self, folder: Path, notes: Notes | None = None) -> None:
        super().__init__(ActionCache(folder / "actions"), BlobStore(folder / "blobs"))
        # The class is frozen; what it is told beyond its fields goes around that.
        object.__setattr__(self, "notes", notes)

    def put(self, key: str, value: Any) -> None:
        """Keep it, then say so."""
        super().put(key, value)
        notes: Notes | None = getattr(self, "notes", None)
        if notes is not None:
            notes.done(value.release if isinstance(value, AnswerView) else value.why.partition("verdict ")[2])


def evaluate(folder: Path, number: int, notes: Notes | None = None) -> Graded:
    """Run the evaluation of this number; each answer and verdict names itself."""
    answerer = Answerer(right=0.7, seed=number)

    def answer(case: Case, repeat: int) -> AnswerView:
        name = f"answer/{number}/{case.id}/{repeat}"
        if notes is not None:
            notes.intend(name)
        found = answerer(case, repeat)
        return AnswerView(f"{found.text} {name}", (), found.citations, found.passages, release=name)

    def complete(messages: Sequence[Message], _: Mapping[str, Any]) -> str:
        name = "judge/" + messages[1].content.rpartition("answer/")[2].partition('"')[0]
        if notes is not None:
            notes.intend(name)
        return f'{{"reason": "verdict {name}", "score": 4}}'

    return run_answers(
        questions(),
        answer,
        CHECKS,
        application=f"{number:064x}",
        repeats=REPEATS,
        cache=NotingCache(folder, notes),
        helpers=Helpers(complete=complete),
        concurrency=3,
    )


def keep_evaluating(folder: Path, notes: Notes, seed: int) -> None:
    """Run evaluations 0, 1, 2 … until killed; what was kept before is found in the cache."""
    number = 0
    while True:
        evaluate(folder, number, notes)
        number += 1
