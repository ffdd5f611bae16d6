"""An application: one release's prompt, index, guardrails and route, answering together.

Conversation → guardrails on what comes in → retrieval → prompt → provider → guardrails on what goes out → answer,
whole or in pieces, with what was checked of it, the documents it rests on, and the spans that tell how it came about.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from holdtrue.core.clock import Clock
from holdtrue.core.codec import load
from holdtrue.core.errors import ConfigurationError, InvalidInput
from holdtrue.llm.calling import Calls, guard_calls
from holdtrue.llm.flowing import Flow, Flowing, Settled
from holdtrue.llm.gateway import Completion, Route
from holdtrue.llm.guardrails import Guardrails, Verdict
from holdtrue.llm.guardrails.rules import MASKABLE
from holdtrue.llm.model import Ask, Begin, Complete, Reply, Replying, Settings
from holdtrue.llm.prompts import Prompt, compose, conversation
from holdtrue.llm.replies import answer_text, refusal, reply_to, stand_in, tool_calls, with_calls
from holdtrue.llm.retrieval import Hit, Index, render_passages
from holdtrue.llm.screening import screen
from holdtrue.llm.tracing import Keep, Trace, told_of_guards

__all__ = ["Application", "Parts", "answer_text", "read_settings", "tool_calls"]

# That nothing was found must be seen: without a passage the instructions around it would be all the context there is.
_NOTHING: Final = '<passage id="none" title="nothing was found"></passage>'


@dataclass(frozen=True, slots=True)
class Parts:
    """Hold the compiled parts of one release; `versions` are their ids, by role.

    `watched` names the guards that look at answers: each of them is a check.
    """

    prompt: Prompt
    route: Route
    settings: Settings
    versions: Mapping[str, str]
    index: Index | None = None
    guardrails: Guardrails | None = None
    watched: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Ready:
    """A question that may be put to the provider: the request, and the passages in it."""

    body: dict[str, Any]
    hits: list[Hit]


class Application:
    """Answer questions with one release's parts."""

    def __init__(
        self, parts: Parts, complete: Complete, keep: Keep, clock: Clock, *, begin: Begin | None = None
    ) -> None:
        """`complete` asks a provider for a whole answer, `begin` for one in pieces, if that can be done."""
        self.parts = parts
        self._route = _route(parts)
        self._complete = complete
        self._begin = begin
        self._keep = keep
        self._clock = clock

    async def answer(self, ask: Ask) -> Reply:
        """Return the answer; raise InvalidInput for a request that is wrong, and the gateway's errors."""
        trace = self._trace(ask)
        try:
            ready = await self._prepare(ask, trace)
            reply = ready if isinstance(ready, Reply) else await self._whole(ask, trace, ready)
        except BaseException as error:
            self._keep(ask.project, trace.fail(error))
            raise
        return self._ended(ask, trace, reply)

    async def stream(self, ask: Ask) -> Replying:
        """Begin to answer in pieces, and return once the first has come; raise as `answer` does.

        Where a guard judges the whole answer, that is when all of it is there.
        """
        trace = self._trace(ask)
        rails = self.parts.guardrails
        try:
            ready = await self._prepare(ask, trace)
            if isinstance(ready, Reply):
                return Settled(self._ended(ask, trace, ready))
            if self._begin is None or (rails is not None and rails.needs_whole_answer):
                return Settled(self._ended(ask, trace, await self._whole(ask, trace, ready)))
            stream = await self._begin(ask, self._route, ready.body, trace.traceparent)
        except BaseException as error:
            self._keep(ask.project, trace.fail(error))
            raise
        flow = Flow(
            ask, self.parts.settings, self.parts.watched, self.parts.prompt.output, ready.hits, trace, self._clock
        )
        return Flowing(flow, stream, rails, self._ended, self._keep)

    def say(self, ask: Ask, words: str) -> Replying:
        """Return an answer of just these words, whoever asks and whatever is asked."""
        return Settled(stand_in(ask, words, self._now()))

    def _trace(self, ask: Ask) -> Trace:
        return Trace.begin(ask, self.parts.versions.get("prompt", ""), self._clock.now())

    def _ended(self, ask: Ask, trace: Trace, reply: Reply) -> Reply:
        """Tell of an answer that was given, and return it with the id of its trace."""
        told: dict[str, Any] = {f"holdtrue.check.{name}": value for name, value in reply.checks.items()}
        if reply.blocked:
            told["holdtrue.blocked"] = reply.blocked
        self._keep(ask.project, trace.end(answer=reply.text, attributes=told))
        return replace(reply, facts={**reply.facts, "trace_id": trace.trace_id})

    async def _prepare(self, ask: Ask, trace: Trace) -> _Ready | Reply:
        """Return the request for the provider, or the refusal of one that guardrails block."""
        parts = self.parts
        body = ask.body
        _, question = conversation(body.get("messages"))
        if question is None or not question.strip():
            raise InvalidInput(
                "The request has no question.",
                why="The last message of an application's request is the user's.",
                mend='End messages with {"role": "user", "content": …}.',
            )
        rails = parts.guardrails
        if rails is not None and rails.at("input"):
            started = trace.watch.now()
            screened = await asyncio.get_running_loop().run_in_executor(None, screen, body, rails.check_input)
            told = told_of_guards("input", screened.action, screened.verdicts)
            if screened.messages:
                told["holdtrue.guardrails.messages"] = ", ".join(map(str, screened.messages[:20]))
            trace.child("guardrails", started, attributes=told)
            body = screened.body
            _, question = conversation(body["messages"])
            # What is recorded is the text as it may be seen: masked, also where it is blocked.
            trace.question = question or ""
            if screened.blocked:
                return refusal(ask, parts.settings, "input", self._now())
        trace.question = question = question or ""
        hits = await self._retrieve(trace, question)
        given = {} if parts.prompt.passages is None else {parts.prompt.passages: render_passages(hits) or _NOTHING}
        made = compose(parts.prompt, _with_question(body, question), given)
        # One answer is checked, so one is asked for.
        made.pop("n", None)
        return _Ready(made, hits)

    async def _whole(self, ask: Ask, trace: Trace, ready: _Ready) -> Reply:
        parts = self.parts
        completion = await self._complete(ask, self._route, ready.body, trace.traceparent)
        facts = facts_of(completion)
        body = completion.body
        verdict = await self._check_output(trace, answer_text(body), ready.hits)
        calls = await self._check_calls(trace, tool_calls(body))
        if (verdict is not None and verdict.blocked) or calls.action == "block":
            return refusal(ask, parts.settings, "output", self._now(), hits=ready.hits, facts=facts)
        body = with_calls(body, calls.calls) if calls.action == "mask" else body
        return reply_to(ask, parts.settings, parts.watched, body, verdict, ready.hits, facts, of_calls=calls.verdicts)

    async def _check_calls(self, trace: Trace, calls: Sequence[Any]) -> Calls:
        rails = self.parts.guardrails
        if rails is None or not calls or not rails.at("output"):
            return Calls(tuple(calls), ())
        started = trace.watch.now()
        found = await asyncio.get_running_loop().run_in_executor(None, guard_calls, calls, rails.check_value)
        trace.child("guardrails", started, attributes=told_of_guards("tool_calls", found.action, found.verdicts))
        return found

    async def _check_output(self, trace: Trace, text: str, hits: Sequence[Hit]) -> Verdict | None:
        rails = self.parts.guardrails
        if rails is None:
            return None
        started = trace.watch.now()
        context, ids, schema = [hit.text for hit in hits], [hit.id for hit in hits], self.parts.prompt.output
        verdict = await asyncio.get_running_loop().run_in_executor(
            None, lambda: rails.check_output(text, context=context, passage_ids=ids, schema=schema)
        )
        trace.child("guardrails", started, attributes=told_of_guards("output", verdict.action, [verdict]))
        return verdict

    def _now(self) -> int:
        return int(self._clock.now().timestamp())

    async def _retrieve(self, trace: Trace, question: str) -> list[Hit]:
        """Return passages for a question, without those that guardrails keep out."""
        index = self.parts.index
        if index is None:
            return []
        started = trace.watch.now()
        loop = asyncio.get_running_loop()
        hits = await loop.run_in_executor(None, lambda: index.search(question, k=self.parts.settings.passages))
        rails = self.parts.guardrails
        kept, out = hits, 0
        if rails is not None and hits:
            kept = await self._clean(rails, hits)
            out = len(hits) - len(kept)
        trace.child(
            "retrieval",
            started,
            documents=[{"id": hit.id, "document": hit.document, "score": hit.score} for hit in hits],
            attributes={"holdtrue.retrieval.kept_out": out} if out else None,
        )
        return kept

    async def _clean(self, rails: Guardrails, hits: Sequence[Hit]) -> list[Hit]:
        """Return passages as guardrails leave them, without those that they block."""
        loop = asyncio.get_running_loop()
        verdicts = await loop.run_in_executor(None, rails.check_context, [hit.text for hit in hits])
        return [
            replace(hit, text=verdict.text) for hit, verdict in zip(hits, verdicts, strict=True) if not verdict.blocked
        ]


def _route(parts: Parts) -> Route:
    """Return the route; where guards mask or block values in answers, what the provider said is kept masked, too."""
    rails = parts.guardrails
    hiding = () if rails is None else [each.guard for each in rails.at("output") if each.guard.action != "log"]
    return replace(parts.route, capture="masked") if any(each.kind in MASKABLE for each in hiding) else parts.route


def facts_of(completion: Completion) -> dict[str, Any]:
    """Return what a record tells of the provider's part in an answer."""
    return {
        "provider": completion.provider,
        "model": completion.model,
        "input_tokens": completion.usage.input,
        "output_tokens": completion.usage.output,
        "cost_micros": completion.cost_micros,
        "cached": completion.cached,
    }


def read_settings(config: Mapping[str, Any]) -> Settings:
    """Return the settings in a release's configuration; raise ConfigurationError for what is unknown."""
    found = config.get("answering", {})
    if not isinstance(found, Mapping):
        raise ConfigurationError("The configuration “answering” of a release is not an object.")
    return load(Settings, dict(found), "The configuration “answering”")


def _with_question(body: Mapping[str, Any], question: str) -> dict[str, Any]:
    """Return the body with the (masked) question as its last message."""
    messages = [*body["messages"]]
    messages[-1] = {**messages[-1], "content": question}
    return {**body, "messages": messages}
