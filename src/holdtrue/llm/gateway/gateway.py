"""The gateway of one worker: from a request and its route to an answer, billed, cached and told of."""

import asyncio
import itertools
import logging
import random
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from holdtrue.core.clock import Clock, Stopwatch, SystemClock
from holdtrue.core.errors import HoldtrueError, InvalidInput
from holdtrue.llm.gateway.accounting import Accounts, measured, usage_body
from holdtrue.llm.gateway.adapters import Adapter, Failed, Flow
from holdtrue.llm.gateway.asking import Ask, Asker, Backoff, stopped
from holdtrue.llm.gateway.cache import ExactCache, Kept
from holdtrue.llm.gateway.call import Call
from holdtrue.llm.gateway.collecting import Collector, as_chunks
from holdtrue.llm.gateway.dialects.base import Answer, Sent
from holdtrue.llm.gateway.model import (
    Body,
    Caller,
    CallFacts,
    Chunk,
    ChunkStream,
    Completion,
    Operation,
    Outcome,
    Provider,
    ProviderStopped,
    Route,
)
from holdtrue.llm.gateway.rules import check_request, deterministic, wants_usage
from holdtrue.llm.gateway.streaming import Replayed, Streamed
from holdtrue.llm.gateway.table import Builder, Entry, Table
from holdtrue.llm.gateway.upstream import Upstream

Observe = Callable[[CallFacts], Awaitable[None] | None]
Opened = tuple[Flow, list[Chunk], AsyncGenerator[list[Chunk]]]


class Gateway:
    """Answer calls with the providers of the configuration in force.

    `name` is the worker's, which no other process has at the same time; `observe` is told the facts of every
    call, and an answer is not finished before what it returns is done.
    """

    def __init__(
        self,
        home: Path,
        name: str,
        clock: Clock,
        *,
        extractive: Callable[[Provider], Adapter],
        observe: Observe | None = None,
        backoff: Backoff | None = None,
        generator: random.Random | None = None,
    ) -> None:
        self._clock = clock
        self._observe = observe
        self._upstream = Upstream()
        self._monotonic = SystemClock().monotonic
        self._builder = Builder(home, self._upstream, extractive, clock.now, self._monotonic)
        self._table = self._builder.build({})
        self._asker = Asker(backoff or Backoff(), generator or random.Random())
        self._cache = ExactCache()
        self._accounts = Accounts(home / "gateway" / "budgets", name, clock)
        self._active: set[Call] = set()
        self._mark = secrets.token_hex(6)
        self._numbers = itertools.count()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._log = logging.getLogger("holdtrue.gateway")

    @property
    def table(self) -> Table:
        """Return the configuration in force."""
        return self._table

    def configure(self, data: Mapping[str, Any]) -> None:
        """Take over a configuration (its JSON) as a whole, from any thread.

        Raises BadGatewayConfig and keeps what was in force. Calls under way whose provider or project has been
        stopped are ended.
        """
        self._table = self._builder.build(data)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._enforce)

    async def start(self) -> None:
        """Begin to keep the counters of budgets."""
        self._loop = asyncio.get_running_loop()
        self._accounts.start()

    async def close(self) -> None:
        """Close the counters and all connections."""
        await self._accounts.close()
        await self._upstream.close()

    async def complete(
        self,
        caller: Caller,
        route: Route,
        body: Body,
        operation: Operation = Operation.CHAT,
        *,
        asked: str = "",
        native: Body | None = None,
    ) -> Completion:
        """Answer a request whole; raise HoldtrueError."""
        call = self._begin(caller, route, body, operation, asked, native)
        try:
            completion = await self._complete(call)
        except BaseException as error:  # noqa: BLE001  # whatever it was, it is billed, told of, and goes on
            raise await self._failed(call, error) from None
        await self._tell(call)
        return completion

    async def stream(
        self,
        caller: Caller,
        route: Route,
        body: Body,
        operation: Operation = Operation.CHAT,
        *,
        asked: str = "",
        native: Body | None = None,
    ) -> ChunkStream:
        """Begin to answer a request in pieces, and return once the first has come; raise HoldtrueError.

        Whoever takes the stream must close it.
        """
        call = self._begin(caller, route, body, operation, asked, native, stream=True)
        try:
            if operation is Operation.EMBEDDING:
                raise InvalidInput("Embeddings are not streamed.", facts={"param": "stream"})
            kept = self._admit(call)
            if kept is None:
                flow, first, rest = await self._reach(call, _opening(call))
                call.first_us = call.watch.now()
                return Streamed(self, call, flow, first, rest)
            completion = self._replay(call, kept)
        except BaseException as error:  # noqa: BLE001  # as above
            raise await self._failed(call, error) from None
        await self._tell(call)
        return Replayed(call, as_chunks(operation, completion.body, wants_usage=wants_usage(body)))

    async def embed(self, caller: Caller, route: Route, body: Body, *, asked: str = "") -> Completion:
        """Return the embeddings of texts."""
        return await self.complete(caller, route, body, Operation.EMBEDDING, asked=asked)

    def usage(self, call: Call, flow: Flow, collector: Collector) -> Body:
        """Return what a stream has used so far, in OpenAI's form."""
        return usage_body(call.operation, measured(call, flow.usage, collector.texts(), whole=True))

    async def stream_ended(self, call: Call, flow: Flow, collector: Collector) -> None:
        """Bill a stream whose call says how it ended, and tell of it; a second time does nothing."""
        if call.over:
            return
        whole = call.outcome is Outcome.OK
        call.response_id, call.answered_model = collector.id, collector.model
        call.reasons = tuple(collector.reasons.values())
        call.charge(measured(call, flow.usage, collector.texts(), whole=whole))
        self._accounts.settle(call)
        if call.capture != "off" or call.cache_key is not None:
            call.answer = collector.body(usage_body(call.operation, call.usage))
        if whole and call.answer is not None:
            self._remember(call, call.answer)
        await self._tell(call)

    def _begin(
        self,
        caller: Caller,
        route: Route,
        body: Body,
        operation: Operation,
        asked: str,
        native: Body | None,
        *,
        stream: bool = False,
    ) -> Call:
        watch = Stopwatch(self._clock.now())
        loop = self._loop or asyncio.get_running_loop()
        call = Call(
            id=f"call_{watch.start // 1000:011x}{self._mark}{next(self._numbers):06x}",
            caller=caller,
            operation=operation,
            route=route,
            body=body,
            stream=stream,
            asked=asked or route.targets[0].label,
            native=native,
            table=self._table.of(caller.project),
            watch=watch,
            loop=loop,
            until=loop.time() + (route.stream_timeout if stream else route.timeout),
            task=asyncio.current_task(loop),
        )
        self._active.add(call)
        return call

    def _admit(self, call: Call) -> Kept | None:
        """Return the answer that is known already, or reserve what a new one may cost; raise HoldtrueError."""
        if call.table.stopped:
            raise ProviderStopped(
                "The gateway is stopped.", why=call.table.stopped, mend="holdtrue provider start --all"
            )
        check_request(call.operation, call.body)
        route = call.route
        if route.cache_seconds > 0 and (
            route.cache_forced or call.operation is Operation.EMBEDDING or deterministic(call.body)
        ):
            prints = [entry.fingerprint for entry in call.entries()]
            call.cache_key = self._cache.key(call, prints)
            kept = self._cache.find(call.cache_key, self._monotonic())
            if kept is not None:
                return kept
        self._accounts.reserve(call, self._table)
        return None

    async def _reach(self, call: Call, ask: Ask[Any]) -> Any:
        return await self._asker.reach(call, ask, lambda: self._accounts.again(call, self._table))

    async def _complete(self, call: Call) -> Completion:
        kept = self._admit(call)
        if kept is not None:
            return self._replay(call, kept)
        answer: Answer = await self._reach(call, _whole)
        body = answer.body
        call.first_us = call.watch.now()
        call.response_id, call.answered_model = str(body.get("id") or ""), str(body.get("model") or "")
        usage = measured(call, answer.usage, _texts(body), whole=True)
        if usage.counted:
            body["usage"] = usage_body(call.operation, usage)
        call.charge(usage)
        self._accounts.settle(call)
        call.reasons = tuple(str(each.get("finish_reason")) for each in body.get("choices", ()))
        if call.operation is not Operation.EMBEDDING:
            call.answer = body
        self._remember(call, body)
        return self._completion(call, body, answer.native)

    def _completion(self, call: Call, body: Body, native: Body | None = None) -> Completion:
        return Completion(
            id=call.id,
            body=body,
            usage=call.usage,
            cost_micros=call.cost_micros,
            provider=call.provider,
            model=call.model,
            cached=call.cached,
            attempts=tuple(call.attempts),
            native=native,
        )

    def _remember(self, call: Call, body: Body) -> None:
        if call.cache_key is None:
            return
        until = self._monotonic() + call.route.cache_seconds
        kept = Kept(orjson.dumps(body), call.provider, call.kind, call.model, call.usage, until)
        self._cache.keep(call.cache_key, kept)

    def _replay(self, call: Call, kept: Kept) -> Completion:
        body: Body = orjson.loads(kept.data)
        call.cached = True
        call.provider, call.kind, call.model = kept.provider, kept.kind, kept.model
        call.response_id, call.answered_model = str(body.get("id") or ""), str(body.get("model") or "")
        call.reasons = tuple(str(each.get("finish_reason")) for each in body.get("choices", ()))
        call.answer = body if call.operation is not Operation.EMBEDDING else None
        return self._completion(call, body)

    async def _failed(self, call: Call, error: BaseException) -> BaseException:
        """Bill and tell of a call that gave no answer; return what its caller is to be told."""
        task = asyncio.current_task()
        call.outcome = Outcome.FAILED if call.attempts else Outcome.REFUSED
        if isinstance(error, Failed):
            error = error.error
        elif isinstance(error, asyncio.CancelledError):
            if call.ended is None:
                call.outcome = Outcome.LEFT
            elif task is not None:
                task.uncancel()
                error = call.ended
        if isinstance(error, HoldtrueError):
            call.error = error
        elif call.outcome is not Outcome.LEFT:
            call.error = HoldtrueError("The call failed.")
        self._accounts.settle(call)
        try:
            await self._tell(call)
        except HoldtrueError as untold:
            self._log.error("A call that failed was not recorded: %s", untold.what)
        return error

    async def _tell(self, call: Call) -> None:
        call.over = True
        self._active.discard(call)
        if self._observe is not None:
            waiting = self._observe(call.facts())
            if waiting is not None:
                await waiting

    def _enforce(self) -> None:
        """End the calls whose provider or project has been stopped."""
        for call in list(self._active):
            table = self._table.of(call.caller.project)
            entry = table.entries.get(call.provider)
            if table.stopped:
                call.ended = ProviderStopped("The gateway is stopped.", why=table.stopped)
            elif entry is not None and entry.provider.stopped:
                call.ended = stopped(entry)
            else:
                continue
            if call.task is not None:
                call.task.cancel()


async def _whole(entry: Entry, sent: Sent) -> Answer:
    return await entry.adapter.answer(sent)


def _opening(call: Call) -> Ask[Opened]:
    async def opened(entry: Entry, sent: Sent) -> Opened:
        flow = await entry.adapter.open(sent, call.until)
        rest = flow.chunks()
        try:
            # Until the first piece nothing has been passed on, so another provider may still be asked.
            first = await anext(rest, [])
        except BaseException:
            flow.drop()
            raise
        return flow, first, rest

    return opened


def _texts(body: Body) -> Iterator[str]:
    """Yield every text of a whole answer: what was said, thought, and given to tools."""
    for choice in body.get("choices", ()):
        message = choice.get("message")
        if type(message) is not dict:
            yield str(choice.get("text") or "")
            continue
        for name, value in message.items():
            if type(value) is str and name != "role":
                yield value
        for tool in message.get("tool_calls") or ():
            function = tool.get("function") if type(tool) is dict else None
            if type(function) is dict:
                yield str(function.get("arguments") or "")
