"""What an application is asked, what it answers, and how it is set: plain values that cost nothing to import."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from holdtrue.llm.gateway.model import ChunkStream, Completion, Route

if TYPE_CHECKING:
    from holdtrue.llm.retrieval import Hit

Complete = Callable[["Ask", Route, Mapping[str, Any], str], Awaitable[Completion]]
"""Ask a provider: for whom, by which route, with which chat request, below which span (W3C traceparent)."""

Begin = Callable[["Ask", Route, Mapping[str, Any], str], Awaitable[ChunkStream]]
"""The same, for an answer in pieces: it returns once the first has come."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Hold what a release's configuration says about answering.

    `passages` is how many are retrieved; `abstentions` are the words by which an answer is known to decline;
    `refusal` is what is said where guardrails block.
    """

    passages: int = 6
    abstentions: tuple[str, ...] = ("I don't know", "I do not know")
    refusal: str = "I can't help with that."


@dataclass(frozen=True, slots=True)
class Ask:
    """Hold one question to an application."""

    body: Mapping[str, Any]
    project: str
    service: str
    user: str
    key: str
    request_id: str = ""
    traceparent: str = ""
    prediction: str = ""
    release: str = ""
    arm: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """Hold an answer in OpenAI's form, its checks in [0, 1] (1 good), the passages, and facts for the record."""

    body: dict[str, Any]
    text: str
    checks: dict[str, float]
    passages: "tuple[Hit, ...]"
    cited: tuple[str, ...]
    abstained: bool
    blocked: str
    facts: dict[str, Any] = field(default_factory=dict[str, Any])


class Replying(Protocol):
    """An answer under way: take its pieces, then the reply; close it whatever happens."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """Return what a record tells of the provider's part, as far as it is known."""
        ...

    @property
    def reply(self) -> Reply:
        """Return the reply; before the end that is what has left of it, without checks."""
        ...

    def deltas(self) -> AsyncGenerator[dict[str, Any]]:
        """Return the pieces, as the deltas of OpenAI's form, once."""
        ...

    async def aclose(self) -> None:
        """End the provider's work if it has not ended; a second time does nothing."""
        ...
