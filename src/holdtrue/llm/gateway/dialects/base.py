"""What every dialect has: a way to ask, to read an answer, and to read a stream."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from holdtrue.llm.gateway.model import Body, Chunk, Operation, ProviderFailed


class Sent(NamedTuple):
    """Hold one request to one provider, in OpenAI's form; `native` is the client's own, in Anthropic's.

    `created` is the second at which it was made.
    """

    operation: Operation
    model: str
    body: Body
    stream: bool
    created: int
    native: Body | None = None


class Outgoing(NamedTuple):
    """Hold what is sent to a provider."""

    path: str
    headers: Mapping[str, str]
    body: Body


class Answer(NamedTuple):
    """Hold a whole answer in OpenAI's form, and the usage as it was reported, unchecked."""

    body: Body
    usage: Any
    native: Body | None = None


class Translator(Protocol):
    """Read one stream: events in, pieces of OpenAI's form out.

    `usage` is what was reported so far, unchecked; `finished` tells whether the answer came to its end, and
    `done` whether nothing comes after it.
    """

    usage: Any
    finished: bool
    done: bool

    def feed(self, name: str, data: bytes) -> list[Chunk]:
        """Return the pieces that an event holds; raise ProviderFailed for one that has another form."""
        ...


class Dialect(Protocol):
    """Speak with one kind of provider."""

    def headers(self, key: str) -> dict[str, str]:
        """Return the headers that identify the gateway by its key ("" if it has none)."""
        ...

    def outgoing(self, sent: Sent) -> Outgoing:
        """Return what to send; raise InvalidInput for what the provider has no words for."""
        ...

    def answer(self, sent: Sent, data: Any) -> Answer:
        """Read a whole answer; raise ProviderFailed for one that has another form."""
        ...

    def translator(self, sent: Sent) -> Translator:
        """Return what reads the stream that answers `sent`."""
        ...

    def complaint(self, data: Any) -> str:
        """Return the provider's own words about a request that it refused, "" if there are none."""
        ...


def other_form(why: str) -> ProviderFailed:
    """Say that an answer does not have the form that the dialect lays down."""
    return ProviderFailed("The provider's answer cannot be read.", why=why, mend="Try again, or look at the provider.")


def complaint_of(data: Any) -> str:
    """Return the message of an error body of the usual forms."""
    if not isinstance(data, Mapping):
        return ""
    error = data.get("error", data)
    for found in (error.get("message") if isinstance(error, Mapping) else error, data.get("detail")):
        if isinstance(found, str):
            return found[:1000]
    return ""
