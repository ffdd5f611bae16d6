"""What a guardrail is, what it found, and what follows from that."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from holdtrue.core import codec
from holdtrue.core.errors import ConfigurationError, InvalidInput

Kind = Literal["secrets", "personal_data", "injection", "schema", "grounding"]
On = Literal["input", "output", "both", "context"]
Action = Literal["block", "mask", "log"]
OnFailure = Literal["open", "closed"]
Decision = Literal["pass", "log", "mask", "block"]
Split = Literal["tune", "held_out"]

RANK: Final[Mapping[Decision, int]] = {"pass": 0, "log": 1, "mask": 2, "block": 3}
"""How grave a decision is."""
KINDS: tuple[Kind, ...] = ("secrets", "personal_data", "injection", "schema", "grounding")


class BadGuardrail(ConfigurationError):
    """A guardrail as declared cannot work."""

    code = "bad_guardrail"


class CannotStream(InvalidInput):
    """A guard needs the whole answer, and the answer is to be streamed."""

    code = "cannot_stream"

    @classmethod
    def of(cls, guards: Sequence[str]) -> "CannotStream":
        """Name the guards that would have to see the end before the beginning may leave."""
        return cls(
            f"The answer cannot be streamed through {', '.join(guards)}.",
            why="Such a guard judges the whole text: what was sent already cannot be taken back.",
            mend="Answer without streaming, or declare these guards with the action “mask” or “log”.",
            facts={"guards": list(guards)},
        )


@dataclass(frozen=True, slots=True)
class Guard:
    """Declare one check: what it looks for, where, what follows from a finding, and from a failure.

    `both` is input and output; `context` is each retrieved passage. A guard that raises, or takes longer than its
    time, has failed: open lets the text through and says so in the verdict, closed blocks it.
    """

    kind: Kind
    on: On = "both"
    action: Action = "block"
    on_failure: OnFailure = "closed"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GuardrailSpec:
    """Hold the guards of one guardrail: the content of a catalog version of kind guardrail."""

    name: str
    guards: tuple[Guard, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the content that a catalog version holds."""
        return codec.dump(self)

    def names(self) -> tuple[str, ...]:
        """Return what each guard is called: its kind, and a number where it is not the first of its kind."""
        seen: dict[str, int] = {}
        found: list[str] = []
        for guard in self.guards:
            seen[guard.kind] = seen.get(guard.kind, 0) + 1
            found.append(guard.kind if seen[guard.kind] == 1 else f"{guard.kind}#{seen[guard.kind]}")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Finding:
    """Say what a guard found and where: characters `start` to `end` of the text that was checked, never their text."""

    guard: str
    kind: Kind
    start: int
    end: int
    score: float
    label: str
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, which a span or a record may hold."""
        return codec.dump(self)


@dataclass(frozen=True, slots=True)
class Failure:
    """Say that a guard gave no full answer, why, and what its declaration makes of that."""

    guard: str
    kind: Kind
    why: str
    on_failure: OnFailure

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, which a span or a record may hold."""
        return codec.dump(self)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Hold what follows for one text.

    `text` is what may go on: the very object that came in, unless something was masked. After a block it is the text
    with every secret and all personal data that was found masked: to be recorded, not to be sent. `seconds` and
    `scores` are by guard; a score is the one its findings are decided on (for grounding, the supported share).
    """

    action: Decision
    text: str
    findings: tuple[Finding, ...] = ()
    failed: tuple[Failure, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def blocked(self) -> bool:
        """Tell whether the text must not go on."""
        return self.action == "block"

    def to_json(self) -> dict[str, Any]:
        """Return everything but the text, as a span or a record may hold it."""
        return {
            "action": self.action,
            "findings": [finding.to_json() for finding in self.findings],
            "failed": [failure.to_json() for failure in self.failed],
            "seconds": dict(self.seconds),
            "scores": dict(self.scores),
        }


@dataclass(frozen=True, slots=True)
class Hit:
    """Hold what a detector saw in a text."""

    start: int
    end: int
    score: float
    label: str
    reason: str = ""


def _unbounded() -> None:
    """Let a detector run for as long as it takes."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Hold what a detector looks at: a text, and for an answer the passages and the schema it must follow.

    A detector whose single step may be long calls `tick` in it, which raises when the time is over.
    """

    text: str
    context: tuple[str, ...] = ()
    passage_ids: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    tick: Callable[[], None] = _unbounded


# A detector gives what each of its steps saw, so that whoever runs it can stop between two; and in the end its score.
Steps: TypeAlias = Generator[Sequence[Hit], None, float]


@dataclass(frozen=True, slots=True)
class Expected:
    """Hold one thing that a guard should find in a case: its place and its label."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class GuardCase:
    """Hold one case of a test set.

    `expected` is, for secrets and personal data, every span that should be found; for the other kinds it tells
    whether the guard should fire. `split` says whether the detectors were tuned on it.
    """

    id: str
    kind: Kind
    text: str
    expected: tuple[Expected, ...] | bool
    context: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    split: Split = "held_out"
    technique: str = ""
    language: str = ""
