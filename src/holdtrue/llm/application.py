"""An application: one release's prompt, index, guardrails and route, answering together.

Question → guardrails on what comes in → retrieval → prompt → provider → guardrails on what goes out → answer, with
what was checked of it, the documents it rests on, and the spans that tell how it came about.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from holdtrue.core.clock import Clock
from holdtrue.core.codec import load
from holdtrue.core.errors import ConfigurationError, InvalidInput
from holdtrue.llm.gateway import Completion, Route
from holdtrue.llm.guardrails import Guardrails, Verdict
from holdtrue.llm.model import Ask, Complete, Reply, Settings
from holdtrue.llm.prompts import Prompt, compose, conversation
from holdtrue.llm.retrieval import Hit, Index, render_passages
from holdtrue.llm.tracing import Keep, Trace

_TOLD: Final = 10
# That nothing was found must be seen: without a passage the instructions around it would be all the context there is.
_NOTHING: Final = '<passage id="none" title="nothing was found"></passage>'
_CITED: Final = re.compile(r"\[([^\[\]\s]{1,200})\]")


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


class Application:
    """Answer questions with one release's parts."""

    def __init__(self, parts: Parts, complete: Complete, keep: Keep, clock: Clock) -> None:
        self.parts = parts
        self._complete = complete
        self._keep = keep
        self._clock = clock

    async def answer(self, ask: Ask) -> Reply:
        """Return the answer; raise InvalidInput for a request that is wrong, and the gateway's errors."""
        trace = Trace.begin(ask, self.parts.versions.get("prompt", ""), self._clock.now())
        try:
            reply = await self._answer(ask, trace)
        except BaseException as error:
            self._keep(ask.project, trace.fail(error))
            raise
        told: dict[str, Any] = {f"holdtrue.check.{name}": value for name, value in reply.checks.items()}
        if reply.blocked:
            told["holdtrue.blocked"] = reply.blocked
        self._keep(ask.project, trace.end(answer=reply.text, attributes=told))
        return replace(reply, facts={**reply.facts, "trace_id": trace.trace_id})

    async def _answer(self, ask: Ask, trace: Trace) -> Reply:
        parts = self.parts
        _, question = conversation(ask.body.get("messages"))
        if question is None or not question.strip():
            raise InvalidInput(
                "The request has no question.",
                why="The last message of an application's request is the user's.",
                mend='End messages with {"role": "user", "content": …}.',
            )
        asked = question
        checked = await self._guard(trace, "input", lambda rails: rails.check_input(asked))
        # What is recorded is the text as it may be seen: masked, also where it is blocked.
        trace.question = asked if checked is None else checked.text
        if checked is not None and checked.blocked:
            return self._refusal(ask, "input")
        question = asked if checked is None else checked.text
        hits = await self._retrieve(trace, question)
        given = {} if parts.prompt.passages is None else {parts.prompt.passages: render_passages(hits) or _NOTHING}
        body = compose(parts.prompt, _with_question(ask.body, question), given)
        completion = await self._complete(ask, parts.route, body, trace.traceparent)
        return await self._finish(ask, trace, completion, hits)

    async def _finish(self, ask: Ask, trace: Trace, completion: Completion, hits: Sequence[Hit]) -> Reply:
        parts = self.parts
        text = answer_text(completion.body)
        context = [hit.text for hit in hits]
        schema = parts.prompt.output
        facts = {
            "provider": completion.provider,
            "model": completion.model,
            "input_tokens": completion.usage.input,
            "output_tokens": completion.usage.output,
            "cost_micros": completion.cost_micros,
            "cached": completion.cached,
        }
        verdict = await self._guard(
            trace,
            "output",
            lambda rails: rails.check_output(
                text, context=context, passage_ids=[hit.id for hit in hits], schema=schema
            ),
        )
        if verdict is not None and verdict.blocked:
            refused = self._refusal(ask, "output")
            return replace(refused, checks={"unblocked": 0.0}, passages=tuple(hits), facts={**facts, **refused.facts})
        said = text if verdict is None else verdict.text
        cited = citations(said, hits)
        abstained = any(each in said for each in parts.settings.abstentions)
        return Reply(
            body=_replaced(completion.body, ask, said, text),
            text=said,
            checks=self._checks(completion.body, verdict, hits, cited, abstained=abstained),
            passages=tuple(hits),
            cited=cited,
            abstained=abstained,
            blocked="",
            facts=facts,
        )

    def _checks(
        self,
        body: Mapping[str, Any],
        verdict: Verdict | None,
        hits: Sequence[Hit],
        cited: Sequence[str],
        *,
        abstained: bool,
    ) -> dict[str, float]:
        """Return what can be said of an answer at once, without knowing the truth."""
        checks = {"answered": 0.0 if abstained else 1.0}
        if hits and not abstained and not tool_calls(body):
            checks["cited"] = 1.0 if cited else 0.0
        if verdict is not None:
            checks["unblocked"] = 1.0
            noted = {finding.guard for finding in verdict.findings}
            checks.update((guard, 0.0 if guard in noted else 1.0) for guard in self.parts.watched)
        return checks

    def _refusal(self, ask: Ask, where: str) -> Reply:
        words = self.parts.settings.refusal
        body = {
            "id": ask.prediction,
            "object": "chat.completion",
            "created": int(self._clock.now().timestamp()),
            "model": f"app:{ask.service}",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": words, "refusal": None},
                    "finish_reason": "content_filter",
                    "logprobs": None,
                }
            ],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        }
        return Reply(body, words, {}, (), (), False, where, {"blocked": where})

    async def _guard(self, trace: Trace, where: str, check: Callable[[Guardrails], Verdict]) -> Verdict | None:
        rails = self.parts.guardrails
        if rails is None:
            return None
        started = trace.watch.now()
        verdict = await asyncio.get_running_loop().run_in_executor(None, check, rails)
        found = [f"{each.guard}:{each.label}" for each in verdict.findings]
        attributes = {"holdtrue.guardrails.on": where, "holdtrue.guardrails.action": verdict.action}
        if found:
            attributes["holdtrue.guardrails.found"] = ", ".join(found[:_TOLD])
        if verdict.failed:
            attributes["holdtrue.guardrails.failed"] = ", ".join(each.guard for each in verdict.failed)
        trace.child("guardrails", started, attributes=attributes)
        return verdict

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


def read_settings(config: Mapping[str, Any]) -> Settings:
    """Return the settings in a release's configuration; raise ConfigurationError for what is unknown."""
    found = config.get("answering", {})
    if not isinstance(found, Mapping):
        raise ConfigurationError("The configuration “answering” of a release is not an object.")
    return load(Settings, dict(found), "The configuration “answering”")


def answer_text(body: Mapping[str, Any]) -> str:
    """Return the words of an answer in OpenAI's form, "" if it only calls tools."""
    message = body["choices"][0]["message"]
    return message.get("content") or ""


def tool_calls(body: Mapping[str, Any]) -> list[Any]:
    """Return the tool calls of an answer in OpenAI's form."""
    return body["choices"][0]["message"].get("tool_calls") or []


def citations(text: str, hits: Sequence[Hit]) -> tuple[str, ...]:
    """Return the ids of passages that a text cites, each once, in order."""
    known = {hit.id for hit in hits}
    return tuple(dict.fromkeys(name for name in _CITED.findall(text) if name in known))


def _with_question(body: Mapping[str, Any], question: str) -> dict[str, Any]:
    """Return the body with the (masked) question as its last message."""
    messages = [*body["messages"]]
    messages[-1] = {**messages[-1], "content": question}
    return {**body, "messages": messages}


def _replaced(body: Mapping[str, Any], ask: Ask, said: str, before: str) -> dict[str, Any]:
    """Return the answer under the application's name, with the words that guardrails left."""
    made: dict[str, Any] = {**body, "model": f"app:{ask.service}"}
    if said != before:
        choices: list[dict[str, Any]] = made["choices"]
        message = {**choices[0]["message"], "content": said}
        made["choices"] = [{**choices[0], "message": message}, *choices[1:]]
    return made
