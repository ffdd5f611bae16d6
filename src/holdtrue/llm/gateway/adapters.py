"""Ask one provider once: over HTTP in its dialect, or the gateway's own answerer in this process.

Whatever goes wrong becomes a `Failed`, which says what the gateway may do next.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

import orjson

from holdtrue.core.errors import HoldtrueError, TooLarge
from holdtrue.llm.gateway.dialects.base import Answer, Dialect, Outgoing, Sent, Translator
from holdtrue.llm.gateway.keys import MissingKey
from holdtrue.llm.gateway.model import (
    Chunk,
    ModelNotFound,
    Provider,
    ProviderBusy,
    ProviderFailed,
    ProviderRefused,
    ProviderTimeout,
)
from holdtrue.llm.gateway.rules import RETRIED, redacted, retry_after
from holdtrue.llm.gateway.upstream import Place, Response, Unreachable, Upstream

T = TypeVar("T")


class Failed(Exception):
    """An attempt gave no answer.

    `again` allows to send the same request to the same provider once more, `elsewhere` to ask another.
    `worked` tells that the provider may have done the work and charge for it. `ill` counts against the
    provider's health.
    """

    def __init__(
        self,
        error: HoldtrueError,
        *,
        status: int = 0,
        again: bool = False,
        elsewhere: bool = True,
        worked: bool = False,
        ill: bool = True,
        wait: float | None = None,
    ) -> None:
        super().__init__(error.what)
        self.error = error
        self.status = status
        self.again = again
        self.elsewhere = elsewhere
        self.worked = worked
        self.ill = ill
        self.wait = wait


class Flow(Protocol):
    """A stream under way, as one adapter reads it; `usage` is what was reported so far, unchecked."""

    @property
    def usage(self) -> Any:
        """Return the usage that was reported so far."""
        ...

    def chunks(self) -> AsyncGenerator[list[Chunk]]:
        """Yield the pieces of each read; raise Failed if the answer breaks."""
        ...

    def drop(self) -> None:
        """Give the rest up."""
        ...


class Adapter(Protocol):
    """Ask one provider."""

    async def answer(self, sent: Sent) -> Answer:
        """Return a whole answer; raise Failed."""
        ...

    async def open(self, sent: Sent, until: float) -> Flow:
        """Begin a streamed answer, which must end before the loop's moment `until`; raise Failed."""
        ...


@dataclass(frozen=True, slots=True)
class HttpAdapter:
    """Ask a provider over HTTP.

    The key is read when it is needed, and goes nowhere but to the place that belongs to it.
    """

    provider: Provider
    place: Place
    dialect: Dialect
    upstream: Upstream
    key: Callable[[str], str]
    now: Callable[[], datetime]

    async def answer(self, sent: Sent) -> Answer:
        """Return a whole answer; raise Failed."""
        response = await self._post(sent)
        try:
            return self.dialect.answer(sent, await response.json())
        except HoldtrueError as error:
            raise Failed(error, status=response.status, worked=True) from None
        finally:
            # Of a connection that has been read to its end nothing is left to drop.
            response.drop()

    async def open(self, sent: Sent, until: float) -> "HttpFlow":
        """Begin a streamed answer, which must end before the loop's moment `until`; raise Failed."""
        response = await self._post(sent)
        return HttpFlow(response, self.dialect.translator(sent), self.provider.idle, until)

    async def _post(self, sent: Sent) -> Response:
        try:
            key = self.key(self.provider.key)
        except MissingKey as error:
            raise Failed(error, ill=False) from None
        try:
            outgoing = self.dialect.outgoing(sent)
        except HoldtrueError as error:
            raise Failed(error, elsewhere=False, ill=False) from None
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream" if sent.stream else "application/json",
            **self.dialect.headers(key),
            **outgoing.headers,
        }
        try:
            path = self._path(outgoing)
            response = await self.upstream.post(self.place, path, headers, orjson.dumps(outgoing.body))
        except Unreachable as error:
            raise Failed(error, again=True) from None
        except HoldtrueError as error:
            raise Failed(error, worked=True) from None
        if response.status == 200:
            return response
        try:
            raise self._refusal(response, await response.error(), sent.model, key)
        finally:
            response.drop()

    def _path(self, outgoing: Outgoing) -> str:
        # People give Anthropic's address with and without the version.
        return outgoing.path.removeprefix("/v1") if self.place.url.endswith("/v1") else outgoing.path

    def _refusal(self, response: Response, data: Any, model: str, key: str) -> Failed:
        """Return what a status other than 200 means."""
        status = response.status
        name = self.provider.name
        said = redacted(self.dialect.complaint(data), (key,))
        wait = retry_after(response.headers.get("retry-after"), self.now())
        if status == 429:
            facts = {} if wait is None else {"retry_after": -(-int(wait * 1000) // 1000)}
            busy = ProviderBusy(f"The provider {name} takes no more requests for now.", why=said, facts=facts)
            return Failed(busy, status=status, again=True, ill=False, wait=wait)
        if status in (401, 403):
            # The client's own key is good; that of the gateway is not, and what is said of it stays here.
            refused = ProviderFailed(f"The provider {name} refuses the gateway's key.", mend="Correct its key.")
            return Failed(refused, status=status, ill=False)
        if status == 404:
            missing = ModelNotFound(f"The provider {name} has no model “{model}”.", why=said, facts={"param": "model"})
            return Failed(missing, status=status, ill=False)
        if status == 413:
            return Failed(TooLarge("The request is too large for the provider.", why=said), status=status, ill=False)
        if 400 <= status < 500:
            wrong = ProviderRefused(said or "The provider refuses the request.", facts={"status": status})
            return Failed(wrong, status=status, elsewhere=False, ill=False)
        failed = ProviderFailed(f"The provider {name} failed.", why=f"It answered with status {status}.")
        return Failed(failed, status=status, again=status in RETRIED, wait=wait)


@dataclass(slots=True)
class HttpFlow:
    """Read a streamed answer."""

    response: Response
    translator: Translator
    idle: float
    until: float

    @property
    def usage(self) -> Any:
        """Return the usage that was reported so far."""
        return self.translator.usage

    async def chunks(self) -> AsyncGenerator[list[Chunk]]:
        """Yield the pieces of each read; raise Failed if the answer breaks."""
        feed = self.translator.feed
        begun = False
        try:
            async for events in self.response.events(self.idle, self.until):
                found: list[Chunk] = []
                broken: HoldtrueError | None = None
                try:
                    for name, data in events:
                        found += feed(name, data)
                        if found and not begun:
                            # Whoever waits for the first piece does not wait for the others that came with it.
                            begun = True
                            yield found
                            found = []
                except HoldtrueError as error:
                    broken = error
                # What came before the break in the same read is part of the answer.
                if found:
                    yield found
                if broken is not None:
                    raise broken
                if self.translator.done:
                    await self.response.settle()
                    break
        except HoldtrueError as error:
            raise Failed(error, status=self.response.status, worked=True) from None
        if not self.translator.finished:
            raise Failed(ProviderFailed("The provider's answer ended before its end."), worked=True)

    def drop(self) -> None:
        """Give the rest up."""
        self.response.drop()


async def timely(loop: asyncio.AbstractEventLoop, seconds: float, work: Awaitable[T]) -> T:
    """Return what `work` returns within `seconds`, else raise Failed; the provider may have worked for nothing."""
    task = asyncio.current_task(loop)
    assert task is not None
    late = _Late(task, task.cancelling())
    timer = loop.call_later(seconds, late.end)
    try:
        return await work
    except asyncio.CancelledError:
        # As `asyncio.timeout` does, at a third of its cost: only a cancellation that is ours is taken back.
        if late.ended and task.uncancel() <= late.others:
            raise late.failed() from None
        raise
    except TimeoutError:
        raise late.failed() from None
    finally:
        timer.cancel()


@dataclass(slots=True)
class _Late:
    """End a task once, and know it."""

    task: asyncio.Task[Any]
    others: int
    ended: bool = False

    def end(self) -> None:
        self.ended = True
        self.task.cancel()

    def failed(self) -> Failed:
        late = ProviderTimeout("The provider did not answer in time.", mend="Try again, or ask for less.")
        return Failed(late, worked=True)
