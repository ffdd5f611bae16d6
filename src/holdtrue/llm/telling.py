"""Tell of what was answered: the gateway's calls as spans, kept behind the answer's back."""

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from holdtrue.core.errors import HoldtrueError
from holdtrue.llm.beside import Beside
from holdtrue.llm.gateway import CallFacts, Outcome
from holdtrue.traces import Capture, Origin, Span, SpanSink
from holdtrue.traces.online import GenaiCall, genai_span

_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_MOST_WAITING: Final = 2000
_DRAIN_SECONDS: Final = 5.0
# A write costs more than the spans in it: of calls that come one after the other, each would pay for one.
_GATHER_SECONDS: Final = 0.02
# So many calls in one gathering, and telling of them takes more than a fiftieth of the thread that answers.
_MANY: Final = 10


class Telling:
    """Store spans without letting an answer wait for them; `dropped` counts those that could not be kept.

    Where calls come fast they are handed to a process `beside` this one, which makes their spans: to make one takes a
    quarter of the Python that a whole call takes. Until it is ready, and when it has fallen, they are told of here.
    """

    def __init__(self, sink: SpanSink, command: Sequence[str] = ()) -> None:
        """`command` are the interpreter's arguments that start a process beside this one; without, there is none."""
        self.dropped = 0
        self._teller = Teller(sink)
        self._beside = Beside(command, self._done, self._back) if command else None
        self._calls: list[CallFacts] = []
        self._waiting: dict[tuple[str, Capture], list[Span]] = {}
        self._count = 0
        self._task: asyncio.Task[None] | None = None

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
        await self._drain()
        if self._beside is not None:
            await self._beside.close(_DRAIN_SECONDS)
            # What came back from a process that fell at the very end.
            await self._drain()

    async def _drain(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_DRAIN_SECONDS)

    def _came(self, count: int) -> None:
        self._count += count
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        while self._calls or self._waiting:
            await asyncio.sleep(_GATHER_SECONDS)
            calls, self._calls = self._calls, []
            waiting, self._waiting = self._waiting, {}
            if self._handed(calls):
                calls = []
            count = len(calls) + sum(map(len, waiting.values()))
            self._done(count, await self._teller.tell(calls, waiting))

    def _handed(self, calls: list[CallFacts]) -> bool:
        beside = self._beside
        if beside is None or not calls:
            return False
        if len(calls) >= _MANY:
            beside.begin()
        return beside.hand(calls)

    def _done(self, count: int, dropped: int) -> None:
        """Note that `count` spans have been seen to, and that `dropped` of them could not be kept."""
        self._count -= count
        self.dropped += dropped

    def _back(self, calls: list[CallFacts]) -> None:
        """Take calls back, which the process beside has fallen with."""
        self._calls += calls
        self._came(0)


class Teller:
    """Make the spans of calls and store them."""

    def __init__(self, sink: SpanSink) -> None:
        self._sink = sink
        self._origins: dict[str, Origin] = {}
        self._log = logging.getLogger("holdtrue.dataplane")

    async def tell(self, calls: Sequence[CallFacts], waiting: dict[tuple[str, Capture], list[Span]]) -> int:
        """Store the spans of `calls`, with those that are made already; return how many could not be kept."""
        dropped = 0
        for facts in calls:
            try:
                span = call_span(facts)
            except Exception:  # noqa: BLE001  # whatever a client or a provider sent: the answer is given, the log learns it
                dropped += 1
                self._log.exception("A call could not be told of.")
                continue
            # What is looked at once per origin is so looked at once for many calls.
            span.origin = self._origins.setdefault(span.origin.service, span.origin)
            waiting.setdefault((facts.project, Capture(facts.capture)), []).append(span)
        for (project, capture), spans in waiting.items():
            try:
                await self._sink.write(project, spans, capture)
            except (HoldtrueError, OSError) as error:
                dropped += len(spans)
                self._log.warning("%d spans could not be kept: %s", len(spans), error)
        return dropped


def call_span(facts: CallFacts) -> Span:
    """Return the span of a call: a child of the caller's own span if it named one.

    Its ids follow from the call's, so that a call that is told of twice has one span.
    """
    digits = sha256(facts.id.encode()).hexdigest()
    found = _TRACEPARENT.fullmatch(facts.traceparent) if facts.traceparent else None
    trace_id, parent_id = (found[1], found[2]) if found else (digits[:32], None)
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
            span_id=digits[32:48],
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
