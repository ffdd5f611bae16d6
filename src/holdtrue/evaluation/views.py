"""What a grader sees of an answer, and what it says about it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from holdtrue.core.errors import InvalidInput
from holdtrue.evaluation.testsets import ToolCall

MAX_ANSWER: Final = 200_000


@dataclass(frozen=True, slots=True)
class Passage:
    """Hold a piece of a document that an application retrieved; `id` is what an answer cites it by."""

    id: str
    document: str
    text: str


@dataclass(frozen=True, slots=True)
class AnswerView:
    """Hold what one application answered to one case, and what it took.

    `citations` are ids of passages; `abstained` tells that the application declined; `usage` counts tokens;
    `cost_micros` is in millionths of the gateway's currency. None of cost or seconds means that it was not measured.
    `error` is why there is no answer.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    citations: tuple[str, ...] = ()
    passages: tuple[Passage, ...] = ()
    abstained: bool = False
    usage: Mapping[str, int] = field(default_factory=dict[str, int])
    cost_micros: int | None = None
    seconds: float | None = None
    error: str = ""
    release: str = ""

    def __post_init__(self) -> None:
        """Refuse what nobody can have measured."""
        for name, value in (("cost_micros", self.cost_micros), ("seconds", self.seconds)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InvalidInput(
                    f"An answer has {name} {value}.", why="It is a finite number, not below 0.", mend="Leave it out."
                )


@dataclass(frozen=True, slots=True)
class Grade:
    """Hold what one check found in one answer: a score in [0, 1], whether that is enough, and why.

    A judge that gave no usable verdict has `abstained`: that is never a pass, and is counted apart.
    """

    check: str
    score: float
    passed: bool
    why: str
    abstained: bool = False


def short(text: str, most: int = 160) -> str:
    """Return `text` on one line, without signs that are not seen, cut to at most `most` characters."""
    # Only the beginning is looked at, so that a huge answer costs nothing here.
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text[: 4 * most]).split())
    return line if len(line) <= most and len(text) <= 4 * most else line[: most - 1].rstrip() + "…"
