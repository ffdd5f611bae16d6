"""Compile a guardrail once, and check texts with it: what goes in, what comes out, what was retrieved."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from holdtrue.core.errors import HoldtrueError, InvalidInput
from holdtrue.llm.guardrails.detectors.grounding import grounding_detector
from holdtrue.llm.guardrails.detectors.injection import injection_detector
from holdtrue.llm.guardrails.detectors.matching import merged
from holdtrue.llm.guardrails.detectors.personal import personal_detector
from holdtrue.llm.guardrails.detectors.presidio import presidio_detector
from holdtrue.llm.guardrails.detectors.schema import schema_detector
from holdtrue.llm.guardrails.detectors.secret import secret_detector
from holdtrue.llm.guardrails.model import Action, Failure, Finding, Guard, GuardrailSpec, Hit, Steps, Subject, Verdict
from holdtrue.llm.guardrails.rules import (
    MASKABLE,
    MASKS,
    Cover,
    covers,
    decide,
    masked,
    options_of,
    original_span,
    read_spec,
)

Detector: TypeAlias = Callable[[Subject], Steps]
Timer: TypeAlias = Callable[[], float]
Place = Literal["input", "output", "context"]

_MASK_TOKEN: Final = re.compile(r"\[(?:secret:)?[a-z_0-9]{3,24}\]")
_MOST_ROUNDS: Final = 8
# They judge an answer by what it should rest on or look like, which a value for a tool need not.
_OF_ANSWERS: Final = frozenset({"schema", "grounding"})


class OutOfTime(HoldtrueError):
    """A guard did not finish within its time."""

    code = "guard_out_of_time"


@dataclass(frozen=True, slots=True)
class Armed:
    """Hold a guard that is ready: what it is called, what it looks with, and its options with their defaults."""

    name: str
    guard: Guard
    options: Mapping[str, Any]
    detect: Detector


@dataclass(frozen=True, slots=True)
class Outcome:
    """Hold what one guard made of one text."""

    armed: Armed
    hits: tuple[Hit, ...]
    score: float
    seconds: float
    failure: Failure | None = None

    def findings(self) -> tuple[Finding, ...]:
        """Return the hits under the guard's name."""
        name, kind = self.armed.name, self.armed.guard.kind
        return tuple(Finding(name, kind, hit.start, hit.end, hit.score, hit.label, hit.reason) for hit in self.hits)


def compile_guardrails(
    content: Any, *, timer: Timer = time.perf_counter, spent: Timer = time.thread_time
) -> "Guardrails":
    """Return the guardrail of a catalog version's content, ready to check texts.

    `timer` gives the seconds that verdicts tell; `spent` the processor time of the thread, which bounds a guard.
    Raises BadGuardrail for what cannot work, and MissingExtra with the install command where a package is missing.
    """
    spec = read_spec(content)
    armed: list[Armed] = []
    for name, guard in zip(spec.names(), spec.guards, strict=True):
        options = options_of(guard)
        armed.append(Armed(name, guard, options, detector(guard, options)))
    return Guardrails(spec, tuple(armed), timer, spent)


def detector(guard: Guard, options: Mapping[str, Any]) -> Detector:
    """Return what a guard looks with, for options that have their defaults."""
    if guard.kind == "secrets":
        return secret_detector(options["kinds"], options["allow"])
    if guard.kind == "personal_data" and options["engine"] == "presidio":
        return presidio_detector(options["kinds"], options["allow"], options["threshold"])
    if guard.kind == "personal_data":
        return personal_detector(options["kinds"], options["allow"])
    if guard.kind == "injection":
        return injection_detector(options["threshold"], options["decode"])
    return schema_detector(options) if guard.kind == "schema" else grounding_detector(options)


class Guardrails:
    """Check texts against a compiled guardrail; it holds no state, so that threads may share it.

    A guard's time is looked at between its steps, and each step is linear in the text: a guard that is over it has
    failed, but what it found until then still counts. It is the processor time of the thread, so that a busy machine
    makes no guard fail.
    """

    def __init__(self, spec: GuardrailSpec, armed: tuple[Armed, ...], timer: Timer, spent: Timer) -> None:
        self.spec = spec
        self._timer, self._spent = timer, spent
        self._at: dict[Place, tuple[Armed, ...]] = {
            "input": tuple(each for each in armed if each.guard.on in ("input", "both")),
            "output": tuple(each for each in armed if each.guard.on in ("output", "both")),
            "context": tuple(each for each in armed if each.guard.on == "context"),
        }

    @property
    def needs_whole_answer(self) -> tuple[str, ...]:
        """Return the guards on the output that judge and block the whole answer, so that it cannot be streamed."""
        return tuple(
            each.name for each in self._at["output"] if each.guard.action == "block" and each.guard.kind not in MASKABLE
        )

    def at(self, place: Place) -> tuple[Armed, ...]:
        """Return the guards on the input, the output, or the retrieved context."""
        return self._at[place]

    def check_input(self, text: str) -> Verdict:
        """Check what a user sends."""
        return self.check("input", Subject(text))

    def check_output(
        self,
        text: str,
        context: Sequence[str] = (),
        schema: Mapping[str, Any] | None = None,
        passage_ids: Sequence[str] | None = None,
    ) -> Verdict:
        """Check an answer: against the passages it should rest on, and the JSON Schema it should follow.

        `passage_ids` are what the answer may cite; without them the passages are called 1, 2, 3 and so on.
        """
        ids = [str(number) for number in range(1, len(context) + 1)] if passage_ids is None else passage_ids
        if len(ids) != len(context):
            raise InvalidInput(
                f"There are {len(context)} passages and {len(ids)} ids for them.",
                mend="Give one id for each passage, in the same order.",
            )
        return self.check("output", Subject(text, tuple(context), tuple(ids), schema))

    def check_context(self, passages: Sequence[str]) -> tuple[Verdict, ...]:
        """Check each retrieved passage on its own; the verdicts are in the order of the passages."""
        return tuple(self.check("context", Subject(passage)) for passage in passages)

    def check_value(self, text: str) -> Verdict:
        """Check what an answer gives to a tool: with the guards that need no passages and no form of an answer."""
        return self._check([each for each in self._at["output"] if each.guard.kind not in _OF_ANSWERS], Subject(text))

    def check(self, place: Place, subject: Subject) -> Verdict:
        """Check a text with the guards of one place."""
        return self._check(self._at[place], subject)

    def _check(self, guards: Sequence[Armed], subject: Subject) -> Verdict:
        outcomes = [self.run(armed, subject) for armed in guards]
        failed = [outcome.failure for outcome in outcomes if outcome.failure is not None]
        acting = [outcome for outcome in outcomes if outcome.hits]
        decision = decide([outcome.armed.guard.action for outcome in acting], failed)
        findings = [finding for outcome in acting for finding in outcome.findings()]
        seconds = {outcome.armed.name: outcome.seconds for outcome in outcomes}
        text = subject.text
        masks: tuple[Action, ...] = ("block", "mask", "log") if decision == "block" else ("mask",)
        maskers = [each for each in guards if each.guard.kind in MASKABLE and each.guard.action in masks]
        hidden = [finding for finding in findings if finding.guard in {each.name for each in maskers}]
        if hidden:
            covered, more, late = self.settle(text, maskers, hidden, seconds)
            text = masked(text, covered)
            findings += more
            failed += [failure for failure in late if failure.guard not in {each.guard for each in failed}]
            decision = decide([decision] if decision != "pass" else [], failed)
        return Verdict(
            action=decision,
            text=text,
            findings=tuple(sorted(findings, key=lambda each: (each.start, each.end))),
            failed=tuple(failed),
            seconds=seconds,
            scores={each.armed.name: each.score for each in outcomes if each.armed.guard.kind not in MASKABLE},
        )

    def settle(
        self, text: str, maskers: Sequence[Armed], findings: Sequence[Finding], seconds: dict[str, float]
    ) -> tuple[tuple[Cover, ...], list[Finding], list[Failure]]:
        """Return what must be covered until the masked text holds nothing more to find, and what came up on the way.

        A mask changes what stands beside it: a number that was part of a longer one may now stand alone.
        """
        more: list[Finding] = []
        for _ in range(_MOST_ROUNDS):
            covered = covers([*findings, *more])
            plain = masked(text, covered)
            outcomes = [self.run(armed, Subject(plain)) for armed in maskers]
            for outcome in outcomes:
                seconds[outcome.armed.name] += outcome.seconds
            late = [outcome.failure for outcome in outcomes if outcome.failure is not None]
            fresh = [finding for outcome in outcomes for finding in outcome.findings()]
            if late or not fresh:
                return covered, more, late
            more += [_moved(finding, covered) for finding in fresh]
        guard = maskers[0]
        why = f"Masking did not come to an end in {_MOST_ROUNDS} rounds."
        return covers([*findings, *more]), more, [Failure(guard.name, guard.guard.kind, why, guard.guard.on_failure)]

    def run(self, armed: Armed, subject: Subject) -> Outcome:
        """Run one guard on one text; whatever goes wrong in it becomes a failure."""
        start, spent = self._timer(), self._spent()
        most = armed.options["time_ms"] / 1000.0

        def tick() -> None:
            # Reading the processor time costs more than reading the clock, and it never runs faster.
            if self._timer() - start > most and self._spent() - spent > most:
                raise OutOfTime(f"It took more than {armed.options['time_ms']} ms.")

        hits: list[Hit] = []
        score, failure = 0.0, None
        try:
            _check_size(subject, armed.options["max_chars"])
            steps = armed.detect(Subject(subject.text, subject.context, subject.passage_ids, subject.schema, tick))
            try:
                while True:
                    hits += next(steps)
                    tick()
            except StopIteration as done:
                score = float(done.value)
        except Exception as error:  # noqa: BLE001  # whatever a guard raises must not decide by itself what goes on
            failure = Failure(armed.name, armed.guard.kind, _why(error), armed.guard.on_failure)
        found = _kept(hits, subject.text, armed) if hits else ()
        return Outcome(armed, found, score, self._timer() - start, failure)


def _check_size(subject: Subject, most: int) -> None:
    size = len(subject.text) + sum(map(len, subject.context))
    if size > most:
        raise InvalidInput(f"There are {size} characters to check, more than {most}.")


def _why(error: Exception) -> str:
    """Return what went wrong without the words of a foreign error, which may quote the text."""
    if isinstance(error, HoldtrueError):
        return f"{error.what} {error.why}".strip()
    return f"It raised {type(error).__name__}."


def _kept(hits: Sequence[Hit], text: str, armed: Armed) -> tuple[Hit, ...]:
    """Return the hits that count: sure enough, and not the inside of a mask that stands in the text already."""
    if armed.guard.kind not in MASKABLE:
        return tuple(hits)
    sure = merged([hit for hit in hits if hit.score >= armed.options["threshold"]])
    if not sure or "[" not in text:
        return sure
    tokens = [match.span() for match in _MASK_TOKEN.finditer(text) if match.group() in MASKS]
    return tuple(hit for hit in sure if not any(start <= hit.start and hit.end <= end for start, end in tokens))


def _moved(finding: Finding, covered: Sequence[Cover]) -> Finding:
    start, end = original_span(finding.start, finding.end, covered)
    return Finding(finding.guard, finding.kind, start, end, finding.score, finding.label, finding.reason)
