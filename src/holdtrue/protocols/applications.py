"""Applications behind the wire protocols: `app:NAME` is answered by the release that the user's arm has."""

import difflib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.llm.gateway import (
    Body,
    Caller,
    Chunk,
    ChunkStream,
    Completion,
    Front,
    Gateway,
    ModelNotFound,
    Operation,
    Route,
    Usage,
)
from holdtrue.llm.model import Ask, Begin, Complete, Reply, Replying
from holdtrue.llm.names import APPLICATION, PROMPT
from holdtrue.serving import Answered, Applications, Question, RecordedStream
from holdtrue.traces import Capture

if TYPE_CHECKING:
    from holdtrue.llm.application import Application


def provider_of(gateway: Gateway) -> Complete:
    """Return how an application asks a provider: through the gateway, in the name of whoever asked."""

    async def complete(ask: Ask, route: Route, body: Mapping[str, Any], traceparent: str) -> Completion:
        return await gateway.complete(
            _caller(ask, traceparent), _chosen(gateway, ask, route), dict(body), Operation.CHAT
        )

    return complete


def streaming_provider_of(gateway: Gateway) -> Begin:
    """Return how an application asks a provider for an answer in pieces."""

    async def begin(ask: Ask, route: Route, body: Mapping[str, Any], traceparent: str) -> ChunkStream:
        asked = {**body, "stream": True}
        return await gateway.stream(_caller(ask, traceparent), _chosen(gateway, ask, route), asked, Operation.CHAT)

    return begin


def _caller(ask: Ask, traceparent: str) -> Caller:
    return Caller(ask.project, ask.key, ask.user, ask.request_id, traceparent)


def _chosen(gateway: Gateway, ask: Ask, route: Route) -> Route:
    """Return the route with what its calls are told by, and are kept apart by in the cache."""
    known = {"service": ask.service, "release": ask.release, "arm": ask.arm, "prediction": ask.prediction}
    labels = {**route.labels, **{name: value for name, value in known.items() if value}}
    capture = route.capture
    if capture is not None:
        # An application may have less kept than its project does, and never more.
        capture = Capture(capture).within(Capture(gateway.table.of(ask.project).capture)).value
    return replace(route, labels=labels, policy=ask.release, capture=capture)


class ApplicationAnswering:
    """Let a loaded application answer the data plane's questions."""

    def __init__(self, application: "Application") -> None:
        self._application = application

    async def answer(self, question: Question) -> Answered:
        """Return the answer with its checks, the documents it rests on, and facts for the record."""
        return _answered(await self._application.answer(_ask(question)))

    async def stream(self, question: Question) -> "ApplicationStream":
        """Begin to answer in pieces."""
        return ApplicationStream(await self._application.stream(_ask(question)))

    def say(self, question: Question, words: str) -> "ApplicationStream":
        """Return an answer of just these words."""
        return ApplicationStream(self._application.say(_ask(question), words))


class ApplicationStream:
    """Let an answer that an application gives in pieces be taken, and recorded at its end."""

    def __init__(self, replying: Replying) -> None:
        self._replying = replying

    @property
    def facts(self) -> Mapping[str, Any]:
        """Return the facts for the record, as far as they are known."""
        return self._replying.facts

    @property
    def answered(self) -> Answered:
        """Return what was answered, as far as it has come."""
        return _answered(self._replying.reply)

    def deltas(self) -> AsyncGenerator[dict[str, Any]]:
        """Return the pieces, once."""
        return self._replying.deltas()

    async def aclose(self) -> None:
        """End the provider's work if it has not ended."""
        await self._replying.aclose()


def _ask(question: Question) -> Ask:
    return Ask(
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


def _answered(reply: Reply) -> Answered:
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

    def __init__(self, applications: Applications, inner: Front, now: Callable[[], int]) -> None:
        """`now` gives the seconds since the epoch."""
        self._applications = applications
        self._inner = inner
        self._now = now

    async def complete(
        self, caller: Caller, operation: Operation, body: Body, native: Body | None = None
    ) -> Completion:
        """Answer a request whole."""
        name = _application(body)
        try:
            if name is None:
                return await self._inner.complete(caller, operation, body, native)
            answered, prediction = await self._applications.answer(_question(name, caller, operation, body))
            return _completion(answered, prediction)
        except NotFound as error:
            raise self._hinting(error, caller.project, body) from None

    async def stream(self, caller: Caller, operation: Operation, body: Body, native: Body | None = None) -> ChunkStream:
        """Begin to answer in pieces; which leave when is the matter of the application's guards."""
        name = _application(body)
        try:
            if name is None:
                return await self._inner.stream(caller, operation, body, native)
            stream = await self._applications.stream(_question(name, caller, operation, body))
        except NotFound as error:
            raise self._hinting(error, caller.project, body) from None
        options = body.get("stream_options")
        usage = isinstance(options, Mapping) and options.get("include_usage") is True
        return _Pieces(name, stream, self._now, usage=usage)

    def models(self, project: str) -> list[str]:
        """Return the names of what can be asked for in a project."""
        mine = [f"{APPLICATION}{name}" for name in self._applications.names(project)]
        return [*self._inner.models(project), *mine]

    def _hinting(self, error: NotFound, project: str, body: Body) -> NotFound:
        """Say of a name that does not exist which one is close to it; applications need their prefix."""
        name = body.get("model")
        # What a provider says of a model of its own stays as it says it.
        if type(error) not in (NotFound, ModelNotFound) or not isinstance(name, str) or name in self.models(project):
            return error
        close = close_name(name, self.models(project))
        if close is None and type(error) is ModelNotFound:
            return error
        return ModelNotFound(
            f"The model “{name[:100]}” does not exist, or this project may not use it.",
            why=error.why,
            mend=f"Did you mean “{close}”?" if close else "List the models: GET /v1/models",
            facts={"param": "model"},
        )


def close_name(name: str, known: Sequence[str]) -> str | None:
    """Return the name that was probably meant: the same one with its prefix, or one spelt nearly so."""
    folded = {each.casefold(): each for each in known}
    asked = name.strip().casefold()
    for prefix in ("", APPLICATION, PROMPT):
        if prefix + asked in folded:
            return folded[prefix + asked]
    bare = asked.partition("@")[0]
    if bare in folded:
        return folded[bare]
    found = difflib.get_close_matches(asked[:100], folded, n=1, cutoff=0.75)
    return folded[found[0]] if found else None


def _question(name: str, caller: Caller, operation: Operation, body: Body) -> Question:
    if operation is not Operation.CHAT:
        raise InvalidInput("An application answers chat completions only.", facts={"param": "model"})
    if type(body.get("stream")) not in (bool, type(None)):
        raise InvalidInput("The field stream must be true or false.", facts={"param": "stream"})
    if body.get("n") not in (None, 1):
        raise InvalidInput("An application gives one answer.", mend="Leave n out.", facts={"param": "n"})
    user = body.get("user")
    if user is not None and (not isinstance(user, str) or not 0 < len(user) <= 200):
        raise InvalidInput("The field user is a text of up to 200 characters.", facts={"param": "user"})
    return Question(
        body=body,
        project=caller.project,
        service=_in_environment(name, caller),
        user=user or caller.actor,
        key=caller.key,
        request_id=caller.request_id,
        traceparent=caller.traceparent,
    )


def _in_environment(name: str, caller: Caller) -> str:
    """Return an application's name with its environment: that of its name, of the request's header, or of the token."""
    if not caller.environment:
        return name
    service, _, named = name.partition("@")
    if named not in ("", caller.environment):
        raise NotFound.of("application", name[:80])
    return f"{service}@{caller.environment}"


def _application(body: Body) -> str | None:
    """Return the name of the application that a request is for, or None."""
    name = body.get("model")
    return name.removeprefix(APPLICATION) if isinstance(name, str) and name.startswith(APPLICATION) else None


def _completion(answered: Answered, prediction: str) -> Completion:
    """Return an answer in the gateway's form; its id is that of the record, by which feedback and `why` know it."""
    facts = answered.facts
    told = _told(answered, prediction)
    return Completion(
        id=prediction,
        body={**answered.body, "id": prediction, "holdtrue": told},
        usage=Usage(int(facts.get("input_tokens", 0)), int(facts.get("output_tokens", 0))),
        cost_micros=int(facts.get("cost_micros", 0)),
        provider=str(facts.get("provider", "")),
        model=str(facts.get("model", "")),
        cached=bool(facts.get("cached", False)),
        attempts=(),
    )


def _told(answered: Answered, prediction: str) -> Body:
    """Return what an answer says of itself beside OpenAI's fields."""
    return {
        "prediction_id": prediction,
        "trace_id": answered.facts.get("trace_id"),
        "citations": [each["document"] for each in answered.documents if each.get("cited")],
    }


class _Pieces:
    """Stream an answer in OpenAI's form; what it cites, how it ended and what it used come in the last pieces."""

    def __init__(self, name: str, stream: RecordedStream, now: Callable[[], int], *, usage: bool) -> None:
        self._name = name
        self._stream = stream
        self._now = now
        self._wants_usage = usage

    @property
    def id(self) -> str:
        """Return the id of the answer."""
        return self._stream.prediction

    @property
    def provider(self) -> str:
        """Return the provider that answers."""
        return str(self._stream.facts.get("provider", ""))

    @property
    def model(self) -> str:
        """Return the provider's model that answers."""
        return str(self._stream.facts.get("model", ""))

    @property
    def cached(self) -> bool:
        """Tell whether the provider's answer comes from the cache."""
        return bool(self._stream.facts.get("cached", False))

    @property
    def usage(self) -> Usage:
        """Return the tokens that were used so far."""
        facts = self._stream.facts
        return Usage(int(facts.get("input_tokens", 0)), int(facts.get("output_tokens", 0)))

    @property
    def cost_micros(self) -> int:
        """Return what the answer costs, known at its end."""
        return int(self._stream.facts.get("cost_micros", 0))

    async def chunks(self) -> AsyncGenerator[Chunk]:
        """Yield the pieces."""
        stream = self._stream
        shared: Body = {
            "id": stream.prediction,
            "object": "chat.completion.chunk",
            "created": self._now(),
            "model": f"{APPLICATION}{self._name}",
        }

        def chunk(delta: Mapping[str, Any], reason: str | None = None, **more: Any) -> Chunk:
            return Chunk({**shared, **more, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

        yield chunk({"role": "assistant", "content": ""})
        async with aclosing(stream.deltas()) as deltas:
            async for delta in deltas:
                yield chunk(delta)
        answered = stream.answered
        reason = answered.body["choices"][0].get("finish_reason") or "stop"
        yield chunk({}, reason, holdtrue=_told(answered, stream.prediction))
        if self._wants_usage:
            yield Chunk({**shared, "choices": [], "usage": answered.body.get("usage")})

    async def aclose(self) -> None:
        """End the answer; its record is left whatever happened."""
        await self._stream.aclose()
