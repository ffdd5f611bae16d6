"""Applications behind the wire protocols: `app:NAME` is answered by the release that the user's arm has."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from holdtrue.core.errors import InvalidInput
from holdtrue.llm.gateway import (
    Body,
    Caller,
    Chunk,
    ChunkStream,
    Completion,
    Front,
    Gateway,
    Operation,
    Route,
    Usage,
)
from holdtrue.llm.model import Ask, Complete, Reply
from holdtrue.llm.names import APPLICATION
from holdtrue.serving import Answered, Applications, Question

if TYPE_CHECKING:
    from holdtrue.llm.application import Application

_PIECE: Final = 24


def provider_of(gateway: Gateway) -> Complete:
    """Return how an application asks a provider: through the gateway, in the name of whoever asked."""

    async def complete(ask: Ask, route: Route, body: Mapping[str, Any], traceparent: str) -> Completion:
        caller = Caller(ask.project, ask.key, ask.user, ask.request_id, traceparent)
        known = {"service": ask.service, "release": ask.release, "arm": ask.arm, "prediction": ask.prediction}
        labels = {**route.labels, **{name: value for name, value in known.items() if value}}
        chosen = replace(route, labels=labels, policy=ask.release)
        return await gateway.complete(caller, chosen, dict(body), Operation.CHAT)

    return complete


class ApplicationAnswering:
    """Let a loaded application answer the data plane's questions."""

    def __init__(self, application: "Application") -> None:
        self._application = application

    async def answer(self, question: Question) -> Answered:
        """Return the answer with its checks, the documents it rests on, and facts for the record."""
        reply = await self._application.answer(
            Ask(
                body=question.body,
                project=question.project,
                service=question.service,
                user=question.user,
                key=question.key,
                request_id=question.request_id,
                traceparent=question.traceparent,
                prediction=question.prediction,
                release=question.release,
                arm=question.arm,
            )
        )
        return Answered(reply.body, reply.checks, _documents(reply), reply.facts)


def _documents(reply: Reply) -> list[dict[str, Any]]:
    cited = set(reply.cited)
    return [
        {
            "id": hit.id,
            "document": hit.document,
            "title": hit.title,
            "score": round(hit.score, 6),
            "cited": hit.id in cited,
        }
        for hit in reply.passages
    ]


class ApplicationFront:
    """Answer the names of applications; hand all others on to the gateway's own front."""

    def __init__(self, applications: Applications, inner: Front) -> None:
        self._applications = applications
        self._inner = inner

    async def complete(
        self, caller: Caller, operation: Operation, body: Body, native: Body | None = None
    ) -> Completion:
        """Answer a request whole."""
        name = _application(body)
        if name is None:
            return await self._inner.complete(caller, operation, body, native)
        return await self._answer(name, caller, operation, body)

    async def stream(self, caller: Caller, operation: Operation, body: Body, native: Body | None = None) -> ChunkStream:
        """Begin to answer in pieces; an application's answer is checked whole before its first piece leaves."""
        name = _application(body)
        if name is None:
            return await self._inner.stream(caller, operation, body, native)
        completion = await self._answer(name, caller, operation, body)
        options = body.get("stream_options")
        usage = isinstance(options, Mapping) and options.get("include_usage") is True
        return _Pieces(completion, usage=usage)

    def models(self, project: str) -> list[str]:
        """Return the names of what can be asked for in a project."""
        mine = [f"{APPLICATION}{name}" for name in self._applications.names(project)]
        return [*self._inner.models(project), *mine]

    async def _answer(self, name: str, caller: Caller, operation: Operation, body: Body) -> Completion:
        if operation is not Operation.CHAT:
            raise InvalidInput("An application answers chat completions only.", facts={"param": "model"})
        user = body.get("user")
        if user is not None and (not isinstance(user, str) or not 0 < len(user) <= 200):
            raise InvalidInput("The field user is a text of up to 200 characters.", facts={"param": "user"})
        question = Question(
            body=body,
            project=caller.project,
            service=name,
            user=user or caller.actor,
            key=caller.key,
            request_id=caller.request_id,
            traceparent=caller.traceparent,
        )
        answered, prediction = await self._applications.answer(question)
        return _completion(answered, prediction)


def _application(body: Body) -> str | None:
    """Return the name of the application that a request is for, or None."""
    name = body.get("model")
    return name.removeprefix(APPLICATION) if isinstance(name, str) and name.startswith(APPLICATION) else None


def _completion(answered: Answered, prediction: str) -> Completion:
    """Return an answer in the gateway's form; its id is that of the record, by which feedback and `why` know it."""
    facts = answered.facts
    told = {
        "prediction_id": prediction,
        "trace_id": facts.get("trace_id"),
        "citations": [each["document"] for each in answered.documents if each.get("cited")],
    }
    return Completion(
        id=prediction,
        body={**answered.body, "id": prediction, "holdtrue": told},
        usage=Usage(int(facts.get("input_tokens", 0)), int(facts.get("output_tokens", 0))),
        cost_micros=int(facts.get("cost_micros", 0)),
        provider=str(facts.get("provider", "")),
        model=str(facts.get("model", "")),
        cached=bool(facts.get("cached", False)),
        attempts=(),
        started_us=0,
        duration_us=0,
    )


class _Pieces:
    """Stream an answer that is there already."""

    def __init__(self, completion: Completion, *, usage: bool) -> None:
        self._completion = completion
        self._usage = usage

    @property
    def id(self) -> str:
        """Return the id of the answer."""
        return self._completion.id

    @property
    def provider(self) -> str:
        """Return the provider that answered."""
        return self._completion.provider

    @property
    def model(self) -> str:
        """Return the provider's model that answered."""
        return self._completion.model

    @property
    def cached(self) -> bool:
        """Tell whether the provider's answer came from the cache."""
        return self._completion.cached

    async def chunks(self) -> AsyncGenerator[Chunk]:
        """Yield the pieces."""
        body = self._completion.body
        shared = {name: body[name] for name in ("id", "created", "model", "holdtrue") if name in body}
        shared["object"] = "chat.completion.chunk"
        choice = body["choices"][0]
        message = choice["message"]

        def chunk(delta: Body, reason: str | None = None) -> Chunk:
            return Chunk({**shared, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

        yield chunk({"role": "assistant", "content": ""})
        text = message.get("content") or ""
        for start in range(0, len(text), _PIECE):
            yield chunk({"content": text[start : start + _PIECE]})
        for place, call in enumerate(message.get("tool_calls") or ()):
            yield chunk({"tool_calls": [{"index": place, **call}]})
        yield chunk({}, choice.get("finish_reason") or "stop")
        if self._usage:
            yield Chunk({**shared, "choices": [], "usage": body.get("usage")})

    async def aclose(self) -> None:
        """End; the answer was there before its first piece."""
