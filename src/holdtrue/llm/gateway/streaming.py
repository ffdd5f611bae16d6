"""A streamed answer under way."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import Protocol

from holdtrue.core.errors import HoldtrueError
from holdtrue.llm.gateway.adapters import Failed, Flow
from holdtrue.llm.gateway.call import Call
from holdtrue.llm.gateway.collecting import Collector
from holdtrue.llm.gateway.model import Body, Chunk, Outcome, Usage
from holdtrue.llm.gateway.rules import wants_usage


class Endings(Protocol):
    """What is done when a stream ends, by the gateway that began it."""

    def usage(self, call: Call, flow: Flow, collector: Collector) -> Body:
        """Return what the stream has used so far, in OpenAI's form."""
        ...

    async def stream_ended(self, call: Call, flow: Flow, collector: Collector) -> None:
        """Bill a stream whose call says how it ended, and tell of it; a second time does nothing."""
        ...


class Streamed:
    """Hold a stream whose first pieces have come; see `ChunkStream`."""

    def __init__(self, endings: Endings, call: Call, flow: Flow, first: list[Chunk], rest: AsyncGenerator[list[Chunk]]):
        self._endings = endings
        self._call = call
        self._flow = flow
        self._first = first
        self._rest = rest
        self._collector = Collector(call.operation)

    @property
    def id(self) -> str:
        """Return the id of the call."""
        return self._call.id

    @property
    def provider(self) -> str:
        """Return the provider that answers."""
        return self._call.provider

    @property
    def model(self) -> str:
        """Return the provider's model that answers."""
        return self._call.model

    @property
    def cached(self) -> bool:
        """Tell whether the answer comes from the cache."""
        return False

    @property
    def usage(self) -> Usage:
        """Return the tokens that are charged, known once the call has ended."""
        return self._call.usage

    @property
    def cost_micros(self) -> int:
        """Return what the call costs, known once it has ended."""
        return self._call.cost_micros

    async def chunks(self) -> AsyncGenerator[Chunk]:
        """Yield the pieces; an answer that breaks raises HoldtrueError."""
        call = self._call
        call.task = asyncio.current_task()
        last: Body = {}
        told = False
        try:
            async for chunk in self._pieces():
                if "usage" in chunk.body and not chunk.body.get("choices"):
                    told = True
                    usage = self._endings.usage(call, self._flow, self._collector)
                    chunk = Chunk({**chunk.body, "usage": usage}, chunk.native)
                yield chunk
                last = chunk.body or last
            if wants_usage(call.body) and not told:
                usage = self._endings.usage(call, self._flow, self._collector)
                yield Chunk({**last, "choices": [], "usage": usage})
        except Failed as failed:
            await self._end(Outcome.BROKEN, failed.error)
            raise failed.error from None
        except asyncio.CancelledError:
            if call.ended is None:
                raise
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            await self._end(Outcome.BROKEN, call.ended)
            raise call.ended from None
        await self._end(Outcome.OK, None)

    async def _pieces(self) -> AsyncGenerator[Chunk]:
        add = self._collector.add
        for chunk in self._first:
            add(chunk)
            yield chunk
        async for chunks in self._rest:
            for chunk in chunks:
                add(chunk)
                yield chunk

    async def aclose(self) -> None:
        """End the call; a second time does nothing."""
        ended = self._call.ended
        await self._end(Outcome.LEFT if ended is None else Outcome.BROKEN, ended)

    async def _end(self, outcome: Outcome, error: HoldtrueError | None) -> None:
        call = self._call
        if call.over:
            return
        call.outcome, call.error = outcome, error
        try:
            await self._rest.aclose()
        finally:
            self._flow.drop()
            await self._endings.stream_ended(call, self._flow, self._collector)


class Replayed:
    """Hold a stream whose answer was known already."""

    cached = True

    def __init__(self, call: Call, chunks: Iterable[Chunk]) -> None:
        self.id = call.id
        self.provider = call.provider
        self.model = call.model
        self.usage = call.usage
        self.cost_micros = call.cost_micros
        self._chunks = chunks

    async def chunks(self) -> AsyncGenerator[Chunk]:
        """Yield the pieces."""
        for chunk in self._chunks:
            yield chunk

    async def aclose(self) -> None:
        """Do nothing: the call has ended."""
