"""Tell of what was answered: the gateway's calls as spans, kept behind the answer's back."""

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from holdtrue.core.errors import HoldtrueError
from holdtrue.core.randomness import RandomHex
from holdtrue.llm.gateway import CallFacts, Outcome
from holdtrue.traces import Capture, Origin, Span, SpanSink
from holdtrue.traces.online import GenaiCall, genai_span

_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_MOST_WAITING: Final = 2000
_DRAIN_SECONDS: Final = 5.0
# A write costs more than the spans in it: of calls that come one after the other, each would pay for one.
_GATHER_SECONDS: Final = 0.02


class Telling:
    """Store spans without letting an answer wait for them; `dropped` counts those that could not be kept."""

    def __init__(self, sink: SpanSink) -> None:
        self.dropped = 0
        self._sink = sink
        self._random = RandomHex()
        self._origins: dict[str, Origin] = {}
        self._calls: list[CallFacts] = []
        self._waiting: dict[tuple[str, Capture], list[Span]] = {}
        self._count = 0
        self._task: asyncio.Task[None] | None = None
        self._log = logging.getLogger("holdtrue.dataplane")

    def keep(self, project: str, spans: Sequence[Span], capture: Capture = Capture.FULL) -> None:
        """Take spans in, to be kept as far as `capture` allows; they are written with those of the same moment."""
        if self._count >= _MOST_WAITING:
            self.dropped += len(spans)
            return
        self._waiting.setdefault((project, capture), []).extend(spans)
        self._came(len(spans))

    def call(self, facts: CallFacts) -> None:
        """Take in one call of the gateway; its span is made once its answer has left."""
        if self._count >= _MOST_WAITING:
            self.dropped += 1
            return
        self._calls.append(facts)
        self._came(1)

    async def close(self) -> None:
        """Write what waits."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_DRAIN_SECONDS)

    def _came(self, count: int) -> None:
        self._count += count
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write())

    def _tell(self) -> None:
        """Make the spans of calls; what cannot be told of one takes nothing from the others."""
        calls, self._calls = self._calls, []
        for facts in calls:
            try:
                span = call_span(facts, self._random)
            except Exception:  # noqa: BLE001  # whatever a client or a provider sent: the answer is given, the log learns it
                self.dropped += 1
                self._log.exception("A call could not be told of.")
                continue
            # What is looked at once per origin is so looked at once for many calls.
            span.origin = self._origins.setdefault(span.origin.service, span.origin)
            self._waiting.setdefault((facts.project, Capture(facts.capture)), []).append(span)

    async def _write(self) -> None:
        while self._count:
            await asyncio.sleep(_GATHER_SECONDS)
            self._tell()
            waiting, self._waiting, self._count = self._waiting, {}, 0
            for (project, capture), spans in waiting.items():
                try:
                    await self._sink.write(project, spans, capture)
                except (HoldtrueError, OSError) as error:
                    self.dropped += len(spans)
                    self._log.warning("%d spans could not be kept: %s", len(spans), error)


def call_span(facts: CallFacts, random: RandomHex) -> Span:
    """Return the span of a call: a child of the caller's own span if it named one."""
    found = _TRACEPARENT.fullmatch(facts.traceparent) if facts.traceparent else None
    trace_id, parent_id = (found[1], found[2]) if found else (random.take(32), None)
    labels = facts.labels
    request: Mapping[str, Any] = facts.request or {}
    attributes: dict[str, Any] = {
        "holdtrue.call": facts.id,
        "holdtrue.request_id": facts.request_id,
        "holdtrue.key": facts.key,
        "holdtrue.asked": facts.asked,
        "holdtrue.outcome": facts.outcome.value,
        "holdtrue.stream": facts.stream,
    }
    if facts.first_us is not None:
        attributes["holdtrue.first_piece_us"] = facts.first_us - facts.started_us
    if facts.outcome is not Outcome.OK and facts.status:
        attributes["http.response.status_code"] = facts.status
    if len(facts.attempts) > 1:
        tried = [f"{each.provider}/{each.model}: {each.error or each.status}" for each in facts.attempts]
        attributes["holdtrue.tried"] = "; ".join(tried[:10])
    return genai_span(
        GenaiCall(
            trace_id=trace_id,
            span_id=random.take(16),
            parent_id=parent_id,
            start=facts.started_us,
            end=facts.ended_us,
            operation=facts.operation.value,
            provider=facts.provider,
            model=facts.model or facts.asked,
            service=labels.get("service", "gateway"),
            response_model=facts.answered_model or None,
            response_id=facts.response_id or None,
            finish_reasons=facts.finish_reasons,
            parameters=facts.parameters,
            input_messages=_messages(request),
            output_messages=_answers(facts.answer),
            tools=_list(request.get("tools")),
            input_tokens=facts.usage.input,
            output_tokens=facts.usage.output,
            cached_tokens=facts.usage.cached_input or None,
            cost=facts.cost_micros / 1_000_000,
            error="" if facts.outcome is Outcome.OK else f"The call ended as {facts.outcome.value}.",
            error_type=facts.error or None,
            release=labels.get("release"),
            arm=labels.get("arm"),
            prompt=labels.get("prompt"),
            prediction_id=labels.get("prediction"),
            user=request.get("user") if isinstance(request.get("user"), str) else None,
            cached=facts.cached,
            attempts=len(facts.attempts),
            attributes=attributes,
        )
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _messages(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what was said to the model; the texts of a completion or embedding are words of the user."""
    messages = request.get("messages")
    if isinstance(messages, list):
        return [each for each in messages if isinstance(each, Mapping)]
    said = request.get("prompt", request.get("input"))
    return [{"role": "user", "content": said}] if isinstance(said, str) else []


def _answers(answer: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for choice in (answer or {}).get("choices", ()):
        message = choice.get("message") or {"role": "assistant", "content": choice.get("text")}
        found.append({**message, "finish_reason": choice.get("finish_reason")})
    return found
