"""An answer in pieces: each leaves when guards have seen enough of what follows it; checks come at its end."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from holdtrue.core.clock import Clock
from holdtrue.core.errors import HoldtrueError
from holdtrue.llm.calling import Calls, guard_calls
from holdtrue.llm.gateway import Chunk, ChunkStream, Operation
from holdtrue.llm.gateway.collecting import Collector
from holdtrue.llm.guardrails import Guardrails, OutputWindow, Verdict
from holdtrue.llm.model import Ask, Reply, Settings
from holdtrue.llm.replies import refusal, reply_to, tool_calls, with_calls
from holdtrue.llm.retrieval import Hit
from holdtrue.llm.tracing import Keep, Trace, told_of_guards

# A settled answer leaves in pieces of so many signs; guards look at a flowing one no more often than that.
_PIECE: Final = 24
_GATHERED: Final = 64
_EMPTY: Final[Mapping[str, Any]] = {"index": 0, "message": {"content": ""}, "finish_reason": "stop"}


class _Left(HoldtrueError):
    """The client went away before its answer was over."""

    code = "left"


class Settled:
    """Give an answer that is there already in pieces."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.facts: Mapping[str, Any] = reply.facts

    async def deltas(self) -> AsyncGenerator[dict[str, Any]]:
        """Yield the pieces."""
        text = self.reply.text
        for start in range(0, len(text), _PIECE):
            yield {"content": text[start : start + _PIECE]}
        calls = self.reply.body["choices"][0]["message"].get("tool_calls") or ()
        for place, call in enumerate(calls):
            yield {"tool_calls": [{"index": place, **call}]}

    async def aclose(self) -> None:
        """Do nothing: it has ended."""


@dataclass(slots=True)
class Flow:
    """Hold what a flowing answer belongs to, and what has come of it so far.

    `said` is what left, `calls` the pieces of tool calls that wait for the text before them.
    """

    ask: Ask
    settings: Settings
    watched: Sequence[str]
    schema: Mapping[str, Any] | None
    hits: Sequence[Hit]
    trace: Trace
    clock: Clock
    said: list[str] = field(default_factory=list[str])
    calls: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    @property
    def text(self) -> str:
        """Return what left."""
        return "".join(self.said)


class Flowing:
    """Give an answer in pieces while the provider makes it."""

    def __init__(
        self,
        flow: Flow,
        stream: ChunkStream,
        rails: Guardrails | None,
        ended: Callable[[Ask, Trace, Reply], Reply],
        keep: Keep,
    ) -> None:
        """`ended` tells of an answer that was given, `keep` of one that was not."""
        self._flow = flow
        self._stream = stream
        self._rails = rails
        self._ended = ended
        self._keep = keep
        self._collector = Collector(Operation.CHAT)
        self._waiting = ""
        self._calls = Calls((), ())
        self._reply: Reply | None = None
        self._over = False
        context = [hit.text for hit in flow.hits], [hit.id for hit in flow.hits]
        watching = rails is not None and bool(rails.at("output"))
        self._window = (
            OutputWindow(rails, context=context[0], passage_ids=context[1], schema=flow.schema)
            if rails is not None and watching
            else None
        )

    @property
    def facts(self) -> dict[str, Any]:
        """Return what a record tells of the provider's part, as far as it is known."""
        stream, usage = self._stream, self._stream.usage
        return {
            "provider": stream.provider,
            "model": stream.model,
            "input_tokens": usage.input,
            "output_tokens": usage.output,
            "cost_micros": stream.cost_micros,
            "cached": stream.cached,
            "trace_id": self._flow.trace.trace_id,
        }

    @property
    def reply(self) -> Reply:
        """Return the reply; before the end that is what has left of it, without checks."""
        if self._reply is not None:
            return self._reply
        return Reply({}, self._flow.text, {}, tuple(self._flow.hits), (), False, "", self.facts)

    async def deltas(self) -> AsyncGenerator[dict[str, Any]]:
        """Yield the pieces; what breaks raises HoldtrueError, and then nothing more comes."""
        flow = self._flow
        try:
            async with aclosing(self._stream.chunks()) as chunks:
                async for chunk in chunks:
                    for delta in await self._take(chunk.body):
                        yield delta
                    if self._blocked:
                        break
            for delta in [] if self._blocked else await self._rest():
                yield delta
            if self._blocked:
                await self._stream.aclose()
                if not flow.said:
                    yield {"content": flow.settings.refusal}
        except (HoldtrueError, asyncio.CancelledError) as error:
            self._fail(error)
            raise
        self._reply = self._finish()
        self._over = True

    async def aclose(self) -> None:
        """End the provider's work if it has not ended; a second time does nothing."""
        await self._stream.aclose()
        self._fail(_Left("The client went away before its answer was over."))

    @property
    def _blocked(self) -> bool:
        return self._window is not None and (self._window.blocked or self._calls.action == "block")

    def _fail(self, error: BaseException) -> None:
        if not self._over:
            self._over = True
            self._keep(self._flow.ask.project, self._flow.trace.fail(error, answer=self._flow.text))

    async def _take(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return what may leave now that a piece has come; only the first choice is an answer."""
        found: list[dict[str, Any]] = []
        choices = [each for each in body.get("choices", ()) if each.get("index", 0) == 0]
        if choices:
            self._collector.add(Chunk({**body, "choices": choices}))
        for choice in choices:
            delta = choice.get("delta")
            if not isinstance(delta, Mapping):
                continue
            for name in ("content", "refusal"):
                if isinstance(delta.get(name), str) and delta[name]:
                    found += await self._words(delta[name])
            if isinstance(delta.get("tool_calls"), list):
                (found if self._window is None else self._flow.calls).append({"tool_calls": delta["tool_calls"]})
        return found

    async def _words(self, text: str) -> list[dict[str, Any]]:
        window = self._window
        if window is not None:
            self._waiting += text
            if len(self._waiting) < _GATHERED:
                return []
            given, self._waiting = self._waiting, ""
            text = await asyncio.get_running_loop().run_in_executor(None, window.feed, given)
        return self._leave(text)

    async def _rest(self) -> list[dict[str, Any]]:
        """Return what was held back until the end: the tail of the text, then the calls of tools."""
        window = self._window
        if window is None:
            return []
        waiting = self._waiting

        def end() -> str:
            return window.feed(waiting) + window.close()

        found = self._leave(await asyncio.get_running_loop().run_in_executor(None, end))
        return found if window.blocked else [*found, *await self._called()]

    async def _called(self) -> list[dict[str, Any]]:
        """Return the calls of tools as they came, or whole as guards leave them."""
        flow, rails = self._flow, self._rails
        if not flow.calls or rails is None:
            return flow.calls
        started = flow.trace.watch.now()
        calls = tool_calls(self._collector.body({}))
        found = await asyncio.get_running_loop().run_in_executor(None, guard_calls, calls, rails.check_value)
        told = told_of_guards("tool_calls", found.action, found.verdicts)
        flow.trace.child("guardrails", started, attributes=told)
        self._calls = found
        if found.action == "block":
            return []
        if found.action != "mask":
            return flow.calls
        return [{"tool_calls": [{"index": place, **call}]} for place, call in enumerate(found.calls)]

    def _leave(self, text: str) -> list[dict[str, Any]]:
        if not text:
            return []
        self._flow.said.append(text)
        return [{"content": text}]

    def _finish(self) -> Reply:
        """Return the reply that has been given, judged as a whole."""
        flow, facts = self._flow, self.facts
        verdict = None
        if self._window is not None:
            verdict = self._window.verdict()
            taken = round(sum(verdict.seconds.values()) * 1e6)
            told = told_of_guards("output", verdict.action, [verdict])
            now = flow.trace.watch.now()
            flow.trace.child("guardrails", now - taken, attributes={**told, "holdtrue.guardrails.streamed": True})
        elif self._rails is not None:
            verdict = Verdict("pass", flow.text)
        if self._blocked:
            moment = int(flow.clock.now().timestamp())
            said = flow.text or None
            reply = refusal(flow.ask, flow.settings, "output", moment, said=said, hits=flow.hits, facts=facts)
        else:
            given, made = facts["input_tokens"], facts["output_tokens"]
            usage = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
            body = self._collector.body(usage)
            if not body["choices"]:
                body["choices"] = [_EMPTY]
            if self._calls.action == "mask":
                body = with_calls(body, self._calls.calls)
            told = self._calls.verdicts
            reply = reply_to(flow.ask, flow.settings, flow.watched, body, verdict, flow.hits, facts, of_calls=told)
        return self._ended(flow.ask, flow.trace, reply)
