"""Mask or block an answer while it is streamed: hold back its end until what it belongs to is known."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from holdtrue.core.errors import InvalidInput
from holdtrue.llm.guardrails.model import Action, CannotStream, Failure, Finding, Subject, Verdict
from holdtrue.llm.guardrails.rules import MASKABLE, Cover, covers, decide, masked
from holdtrue.llm.guardrails.service import Armed, Guardrails

LEAST_HELD: Final = 256  # the first line of a private key, its headers, and enough of it to be one
_TAIL: Final = 256  # signs before a place that a detector may look at


class OutputWindow:
    """Run the guards of the output over a stream, so that a value split over two chunks is still found.

    `feed` returns what may be sent on, `close` the rest; then `verdict` is final. Guards that look for values (secrets,
    personal data) mask them, or block: then nothing of the value leaves, nor anything after it. Guards that judge the
    whole answer (injection, schema, grounding) raise CannotStream if they block, and run at the end if they log.
    `holdback` is how many signs at least are kept back; a word or a finding that is not over is kept back too, up to
    `most_held` signs, past which the guards that mask have failed. One window is for one stream, and for one thread.
    """

    def __init__(
        self,
        guardrails: Guardrails,
        *,
        context: Sequence[str] = (),
        schema: Mapping[str, Any] | None = None,
        passage_ids: Sequence[str] | None = None,
        holdback: int = LEAST_HELD,
        step: int = 64,
        most_held: int = 32_768,
    ) -> None:
        if guardrails.needs_whole_answer:
            raise CannotStream.of(guardrails.needs_whole_answer)
        if not (LEAST_HELD <= holdback <= most_held and step >= 1):
            raise InvalidInput(
                f"A window cannot hold back {holdback} to {most_held} signs in steps of {step}.",
                why=f"At least {LEAST_HELD} signs are held back: so many may pass before a key shows that it is one.",
                mend=f"Use the defaults, or holdback >= {LEAST_HELD}, most_held >= holdback and step >= 1.",
            )
        self._guardrails = guardrails
        self._masking = [each for each in guardrails.at("output") if each.guard.kind in MASKABLE]
        self._blocking = {each.name for each in self._masking if each.guard.action == "block"}
        self._stopped = False
        self._judging = [each for each in guardrails.at("output") if each.guard.kind not in MASKABLE]
        ids = [str(number) for number in range(1, len(context) + 1)] if passage_ids is None else passage_ids
        self._subject = Subject("", tuple(context), tuple(ids), schema)
        self._holdback, self._step, self._most = holdback, step, most_held
        self._tail = self._held = ""
        self._sent = 0  # signs of the original that are out
        self._whole: list[str] = []
        self._out: list[str] = []
        self._findings: dict[tuple[str, int], Finding] = {}
        self._failed: dict[str, Failure] = {}
        self._seconds = {each.name: 0.0 for each in guardrails.at("output")}
        self._scores: dict[str, float] = {}
        self._closed = False

    @property
    def blocked(self) -> bool:
        """Tell whether something is to be blocked, or a closed guard has failed: then nothing more comes out."""
        return self._stopped or any(failure.on_failure == "closed" for failure in self._failed.values())

    def feed(self, chunk: str) -> str:
        """Take the next piece of the answer; return what may be sent on now, which may be nothing."""
        if self._closed:
            raise InvalidInput("The window is closed.", mend="Use a new window for each stream.")
        if self._judging:
            self._whole.append(chunk)
        self._held += chunk
        if self.blocked:
            self._held = ""
        return self._flush(final=False) if len(self._held) >= self._holdback + self._step else ""

    def close(self) -> str:
        """Return the rest of the answer, and let the guards that judge it as a whole do so."""
        if self._closed:
            return ""
        rest = self._flush(final=True) if self._held else ""
        self._closed = True
        text = "".join(self._whole)
        for armed in self._judging:
            subject = Subject(text, self._subject.context, self._subject.passage_ids, self._subject.schema)
            outcome = self._guardrails.run(armed, subject)
            self._seconds[armed.name] += outcome.seconds
            self._scores[armed.name] = outcome.score
            self._note(outcome.findings(), 0)
            if outcome.failure is not None:
                self._failed[armed.name] = outcome.failure
        return rest

    def verdict(self) -> Verdict:
        """Return what was found so far; its text is what was sent on."""
        actions: dict[str, Action] = {each.name: each.guard.action for each in self._guardrails.at("output")}
        findings = sorted(self._findings.values(), key=lambda each: (each.start, each.end))
        failed = tuple(self._failed.values())
        return Verdict(
            action=decide([actions[finding.guard] for finding in findings], failed),
            text="".join(self._out),
            findings=tuple(findings),
            failed=failed,
            seconds=dict(self._seconds),
            scores=dict(self._scores),
        )

    def _flush(self, final: bool) -> str:
        text, start = self._tail + self._held, len(self._tail)
        found, covered = self._found(text)
        if self.blocked:
            self._held = ""
            return ""
        stops = covers([each for each in found if each.guard in self._blocking and each.end > start])
        cut = len(text) if final else self._cut(text, start, (*covered, *stops))
        if any(each.start < cut for each in stops):
            self._note([each for each in found if each.start < cut and each.end > start], self._sent - start)
            self._stopped, self._held = True, ""
            return ""
        # What a finding reaches back into is out already; the rest of it is masked all the same.
        here = [Cover(max(each.start, start), each.end, each.mask, each.score) for each in covered if each.end > start]
        shown = [Cover(c.start - start, c.end - start, c.mask, c.score) for c in here if c.start < cut]
        piece = masked(text[start:cut], shown)
        # What is held back still may turn out to be something else; what goes out now is final.
        self._note([each for each in found if each.start < cut and each.end > start], self._sent - start)
        self._sent += cut - start
        self._tail, self._held = text[max(0, cut - _TAIL) : cut], text[cut:]
        self._out.append(piece)
        return piece

    def _found(self, text: str) -> tuple[list[Finding], tuple[Cover, ...]]:
        """Return what is found in the end of the answer that is at hand, and what of it must be masked."""
        found: list[Finding] = []
        for armed in self._masking:
            outcome = self._guardrails.run(armed, Subject(text))
            self._seconds[armed.name] += outcome.seconds
            self._fail(outcome.failure)
            found += outcome.findings()
        maskers = [each for each in self._masking if each.guard.action == "mask"]
        hidden = [finding for finding in found if finding.guard in {each.name for each in maskers}]
        covered: tuple[Cover, ...] = ()
        if hidden:
            covered, more, late = self._guardrails.settle(text, maskers, hidden, self._seconds)
            found += more
            for failure in late:
                self._fail(failure)
        return found, covered

    def _cut(self, text: str, start: int, covered: Sequence[Cover]) -> int:
        """Return up to where the text may go out: no word and no finding is cut."""
        limit = cut = len(text) - self._holdback
        moved = True
        while moved and cut > start:
            moved = False
            for cover in covered:
                if cover.start < cut < cover.end:
                    cut, moved = cover.start, True
            while start < cut < len(text) and not text[cut - 1].isspace() and not text[cut].isspace():
                cut, moved = cut - 1, True
        if cut > start or len(text) - start <= self._most:
            return max(cut, start)
        self._too_long(self._masking)
        return limit

    def _too_long(self, armed: Sequence[Armed]) -> None:
        for each in armed:
            why = f"A word or a finding is longer than the {self._most} characters that are held back."
            self._fail(Failure(each.name, each.guard.kind, why, each.guard.on_failure))

    def _fail(self, failure: Failure | None) -> None:
        if failure is not None:
            self._failed.setdefault(failure.guard, failure)

    def _note(self, findings: Sequence[Finding], offset: int) -> None:
        """Keep findings by their place in the whole answer."""
        for each in findings:
            start, end = each.start + offset, each.end + offset
            self._findings[(each.guard, start)] = replace(each, start=start, end=end)
