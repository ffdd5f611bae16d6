"""The spans of one answer: the application's own, its retrieval and its guardrails; the provider's call joins them."""

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

from holdtrue.core.clock import Stopwatch
from holdtrue.core.errors import HoldtrueError
from holdtrue.llm.guardrails.model import Verdict
from holdtrue.traces import Span
from holdtrue.traces.online import GenaiCall, genai_span

_TOLD: Final = 10
_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


class Asking(Protocol):
    """What a trace needs to know of the question it tells about."""

    @property
    def service(self) -> str:
        """Return the application."""
        ...

    @property
    def user(self) -> str:
        """Return who asks."""
        ...

    @property
    def traceparent(self) -> str:
        """Return the W3C header of the client's own trace, "" if there is none."""
        ...

    @property
    def prediction(self) -> str:
        """Return the id of the answer's record."""
        ...

    @property
    def release(self) -> str:
        """Return the release that answers."""
        ...

    @property
    def arm(self) -> str:
        """Return the arm of the rollout."""
        ...


@dataclass(slots=True)
class Trace:
    """Collect the spans of one answer; `make` gives them when it has ended."""

    ask: Asking
    trace_id: str
    span_id: str
    parent_id: str | None
    watch: Stopwatch
    prompt: str
    question: str = ""
    spans: list[Span] = field(default_factory=list[Span])

    @classmethod
    def begin(cls, ask: Asking, prompt: str, moment: datetime) -> "Trace":
        """Begin a trace, or go on with the client's own."""
        found = _TRACEPARENT.fullmatch(ask.traceparent)
        trace, parent = (found[1], found[2]) if found else (secrets.token_hex(16), None)
        return cls(ask, trace, secrets.token_hex(8), parent, Stopwatch(moment), prompt)

    @property
    def traceparent(self) -> str:
        """Return the W3C header for what happens below the application's span."""
        return f"00-{self.trace_id}-{self.span_id}-01"

    def child(
        self,
        operation: str,
        start: int,
        *,
        documents: Sequence[Mapping[str, Any]] = (),
        attributes: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        """Add a span below the application's, which ends now."""
        self.spans.append(
            self._span(
                secrets.token_hex(8),
                self.span_id,
                operation,
                start,
                documents=documents,
                attributes=attributes,
                error=error,
            )
        )

    def end(self, *, answer: str = "", attributes: Mapping[str, Any] | None = None) -> list[Span]:
        """Return all spans of an answer that was given."""
        said = [{"role": "assistant", "content": answer}] if answer else []
        root = self._span(
            self.span_id, self.parent_id, "invoke_agent", self.watch.start, attributes=attributes, output=said
        )
        return [root, *self.spans]

    def fail(self, failure: BaseException, *, answer: str = "") -> list[Span]:
        """Return all spans of a question that got no answer, or only the beginning of one."""
        error = failure.what if isinstance(failure, HoldtrueError) else "The request ended."
        kind = failure.code if isinstance(failure, HoldtrueError) else type(failure).__name__
        said = [{"role": "assistant", "content": answer}] if answer else []
        told = {"error.type": kind}
        root = self._span(
            self.span_id, self.parent_id, "invoke_agent", self.watch.start, error=error, attributes=told, output=said
        )
        return [root, *self.spans]

    def _span(
        self,
        span_id: str,
        parent_id: str | None,
        operation: str,
        start: int,
        *,
        documents: Sequence[Mapping[str, Any]] = (),
        attributes: Mapping[str, Any] | None = None,
        error: str | None = None,
        output: Sequence[Mapping[str, Any]] = (),
    ) -> Span:
        root = span_id == self.span_id
        return genai_span(
            GenaiCall(
                trace_id=self.trace_id,
                span_id=span_id,
                parent_id=parent_id,
                start=start,
                end=self.watch.now(),
                operation=operation,
                service=self.ask.service,
                name=f"{operation} {self.ask.service}" if root else operation,
                input_messages=[{"role": "user", "content": self.question}] if root and self.question else (),
                output_messages=output,
                release=self.ask.release,
                arm=self.ask.arm,
                prompt=self.prompt,
                prediction_id=self.ask.prediction,
                user=self.ask.user,
                documents=documents,
                error=error or "",
                attributes=attributes or {},
            )
        )


def told_of_guards(where: str, action: str, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return what a span tells of verdicts: what follows, and the guards and labels of what was found, no value."""
    told: dict[str, Any] = {"holdtrue.guardrails.on": where, "holdtrue.guardrails.action": action}
    found = dict.fromkeys(f"{each.guard}:{each.label}" for verdict in verdicts for each in verdict.findings)
    if found:
        told["holdtrue.guardrails.found"] = ", ".join([*found][:_TOLD])
    failed = dict.fromkeys(each.guard for verdict in verdicts for each in verdict.failed)
    if failed:
        told["holdtrue.guardrails.failed"] = ", ".join(failed)
    return told


Keep = Callable[[str, list[Span]], None]
"""Take the spans of a project in; what cannot be kept is counted, and never stops an answer."""
