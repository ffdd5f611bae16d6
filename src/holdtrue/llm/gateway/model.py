"""What the gateway knows: providers, routes, budgets, who calls, what an answer was, and how it can fail.

Inside, every request and answer has the form of OpenAI's chat completions; other dialects are translated.
Money is counted in micro-units (one millionth of the unit in which prices are written, one dollar say).
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NamedTuple, Protocol

from holdtrue.core.errors import HoldtrueError, InvalidInput, NotFound, Unavailable

Kind = Literal["openai", "anthropic", "extractive"]
Capture = Literal["off", "masked", "full"]
LimitField = Literal["max_tokens", "max_completion_tokens"]
Body = dict[str, Any]

HOUSE = ""
"""The project name under which the configuration stands that holds for every project."""


class Operation(StrEnum):
    """Name what is asked of a model, as the GenAI conventions of OpenTelemetry name it."""

    CHAT = "chat"
    COMPLETION = "text_completion"
    EMBEDDING = "embeddings"


class Period(StrEnum):
    """Name the time after which a budget begins anew; days and months are those of UTC."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


class Outcome(StrEnum):
    """Name how a call ended.

    `refused`: by the gateway, before any provider was called. `failed`: no provider gave an answer.
    `broken`: an answer began and did not end. `left`: the client went away, or the call was ended for it.
    """

    OK = "ok"
    REFUSED = "refused"
    FAILED = "failed"
    BROKEN = "broken"
    LEFT = "left"


class ModelNotFound(NotFound):
    """The project has no model of that name."""

    code = "model_not_found"


class QuotaExhausted(HoldtrueError):
    """A budget of the key or project leaves no room for this call."""

    code = "insufficient_quota"
    status = 429


class RateLimited(HoldtrueError):
    """The key or project sends more per minute than it may."""

    code = "rate_limit_exceeded"
    status = 429


class UnpricedModel(InvalidInput):
    """A budget in money holds, and the model has no price to count it by."""

    code = "unpriced_model"


class ProviderStopped(Unavailable):
    """Somebody has stopped the provider, or the whole gateway."""

    code = "provider_stopped"


class ProviderRefused(InvalidInput):
    """The provider finds fault with the request itself."""

    code = "provider_refused"


class ProviderBusy(HoldtrueError):
    """The provider takes no more requests for now."""

    code = "provider_busy"
    status = 429


class ProviderFailed(HoldtrueError):
    """The provider could not be reached, or gave no usable answer."""

    code = "provider_failed"
    status = 502


class ProviderTimeout(HoldtrueError):
    """The provider did not answer in time."""

    code = "provider_timeout"
    status = 504


class BadGatewayConfig(InvalidInput):
    """The gateway's configuration contradicts itself and is not taken over."""

    code = "bad_gateway_config"


@dataclass(frozen=True, slots=True)
class Price:
    """Hold the price of a model in micro-units of money per million tokens.

    `cached_input` is that of input tokens which the provider found in its own cache (None: as `input`).
    """

    input: int
    output: int = 0
    cached_input: int | None = None


@dataclass(frozen=True, slots=True)
class Provider:
    """Describe who answers: a server that speaks a dialect, or the gateway's own extractive answerer.

    `key` says where the secret is found (`env:VARIABLE` or `file:PATH`), never what it is. `private` allows
    a host name that leads to private addresses. `timeout` is in seconds, until a whole answer or the first
    byte of a stream; `idle` is the longest silence within a stream. `output_limit` is the number of output
    tokens a call may use that names no limit itself while a budget holds. `stopped` says why nobody may use
    it at present, if so.
    """

    name: str
    kind: Kind
    base_url: str = ""
    key: str = ""
    models: tuple[str, ...] = ()
    prices: dict[str, Price] = field(default_factory=dict[str, Price])
    private: bool = False
    timeout: float = 30.0
    idle: float = 60.0
    retries: int = 2
    output_limit: int = 4096
    limit_field: LimitField = "max_tokens"
    stream_usage: bool = True
    cache_seconds: float = 0.0
    fallbacks: tuple[str, ...] = ()
    stopped: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Name one model of one provider."""

    provider: str
    model: str

    @property
    def label(self) -> str:
        """Return the name by which clients ask for it."""
        return f"{self.provider}/{self.model}"


@dataclass(frozen=True, slots=True)
class Route:
    """Say who answers a call: the first target, and if it cannot, those after it in turn.

    `timeout` bounds the whole call in seconds, `stream_timeout` one that is streamed. `cache_seconds` above 0
    lets equal requests share an answer; only deterministic ones (temperature 0, or a seed), unless
    `cache_forced`. `policy` is the version of what guards the answers; `labels` (release, arm, service,
    prompt, …) go into the facts of the call. `capture` replaces the project's setting.
    """

    targets: tuple[Target, ...]
    timeout: float = 30.0
    stream_timeout: float = 600.0
    retries: int = 2
    cache_seconds: float = 0.0
    cache_forced: bool = False
    policy: str = ""
    labels: dict[str, str] = field(default_factory=dict[str, str])
    capture: Capture | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """Limit what a key (the id of a token; "": the whole project) may use; None limits nothing.

    `money` is in micro-units. `concurrent` counts calls under way.
    """

    key: str = ""
    period: Period = Period.MONTH
    money: int | None = None
    tokens: int | None = None
    requests: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None


@dataclass(frozen=True, slots=True)
class ProjectConfig:
    """Hold the providers and budgets of one project; `stopped` says why all its calls are refused, if so."""

    providers: tuple[Provider, ...] = ()
    budgets: tuple[Budget, ...] = ()
    stopped: str = ""
    capture: Capture = "full"


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Hold what all projects have declared; what stands under `HOUSE` holds for every project."""

    projects: dict[str, ProjectConfig] = field(default_factory=dict[str, ProjectConfig])


class Caller(NamedTuple):
    """Say who calls: the project, the id of the token, and the principal who holds it.

    `traceparent` is the W3C header with which the client's own trace goes on, "" if it sent none; `environment` the
    one of applications that is meant, "" where it is left open.
    """

    project: str
    key: str
    actor: str
    request_id: str = ""
    traceparent: str = ""
    environment: str = ""


class Usage(NamedTuple):
    """Count the tokens of a call; `counted` tells that the gateway counted, since the provider's numbers
    were missing or absurd.
    """

    input: int = 0
    output: int = 0
    cached_input: int = 0
    counted: bool = False


class Attempt(NamedTuple):
    """Hold what became of one request to one provider; `status` is 0 where there was no HTTP answer."""

    provider: str
    model: str
    status: int
    error: str
    started_us: int
    duration_us: int


@dataclass(slots=True)
class Completion:
    """Hold a whole answer, in OpenAI's form for the operation that was asked for.

    `native` is the answer as the provider gave it, where client and provider speak the same other dialect.
    """

    id: str
    body: Body
    usage: Usage
    cost_micros: int
    provider: str
    model: str
    cached: bool
    attempts: tuple[Attempt, ...]
    native: Body | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Hold one piece of a streamed answer: a `chat.completion.chunk` (or `text_completion`) of OpenAI.

    `native` is the provider's own event (its name and data) where the client speaks the same other dialect;
    the body is then empty where OpenAI's has no such piece.
    """

    body: Body
    native: tuple[str, Body] | None = None


class ChunkStream(Protocol):
    """A streamed answer under way: iterate over it, and close it whatever happens.

    Closing it before its end cancels the provider's work; what was streamed is billed. An answer that breaks
    raises HoldtrueError out of the iteration.
    """

    @property
    def id(self) -> str:
        """Return the id of the call."""
        ...

    @property
    def provider(self) -> str:
        """Return the provider that answers."""
        ...

    @property
    def model(self) -> str:
        """Return the provider's model that answers."""
        ...

    @property
    def cached(self) -> bool:
        """Tell whether the answer comes from the cache."""
        ...

    @property
    def usage(self) -> Usage:
        """Return the tokens that are charged, known once the call has ended."""
        ...

    @property
    def cost_micros(self) -> int:
        """Return what the call costs, known once it has ended."""
        ...

    def chunks(self) -> AsyncGenerator[Chunk]:
        """Return the pieces, once."""
        ...

    async def aclose(self) -> None:
        """End the call; a second time does nothing."""
        ...


class CallFacts(NamedTuple):
    """State everything that is known of one call once it has ended, however it ended.

    Moments are microseconds since the epoch; `first_us` is when the first piece of an answer came (None:
    none did). `request` and `answer` are None unless `capture` allows to keep them; `masked` means that they
    must be masked before they are stored. `labels` are the route's: release, arm, service, prompt.
    """

    id: str
    request_id: str
    traceparent: str
    project: str
    key: str
    actor: str
    operation: Operation
    stream: bool
    asked: str
    provider: str
    kind: str
    model: str
    answered_model: str
    response_id: str
    outcome: Outcome
    error: str
    status: int
    finish_reasons: tuple[str, ...]
    usage: Usage
    cost_micros: int
    cached: bool
    attempts: tuple[Attempt, ...]
    started_us: int
    first_us: int | None
    ended_us: int
    labels: Mapping[str, str]
    parameters: Mapping[str, Any]
    capture: Capture
    request: Body | None = None
    answer: Body | None = None


class Resolved(NamedTuple):
    """Say what a model name stands for: who answers, and the body that is sent (a prompt may have changed it)."""

    route: Route
    body: Body


class Resolver(Protocol):
    """Tell what a model name stands for: a plain model, or a prompt (`prompt:NAME@ALIAS`) of the project."""

    async def resolve(self, caller: Caller, name: str, body: Body) -> Resolved:
        """Return who answers, and with which body; raise ModelNotFound."""
        ...

    def models(self, project: str) -> list[str]:
        """Return the names that `resolve` knows in a project, in order."""
        ...


class Front(Protocol):
    """What the wire protocols talk to: it takes a request by the name of its model and answers it.

    The gateway's own front answers with plain models and prompts; one that runs whole applications answers
    their names and hands on all others.
    """

    async def complete(
        self, caller: Caller, operation: Operation, body: Body, native: Body | None = None
    ) -> Completion:
        """Answer a request whole; `native` is what the client sent, if it speaks Anthropic's dialect."""
        ...

    async def stream(self, caller: Caller, operation: Operation, body: Body, native: Body | None = None) -> ChunkStream:
        """Begin to answer a request in pieces."""
        ...

    def models(self, project: str) -> list[str]:
        """Return the names of what can be asked for in a project."""
        ...
