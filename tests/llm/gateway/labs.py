"""A gateway in this process, over real providers: what it answers, and the facts it tells."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdtrue.core.clock import Clock, SystemClock
from holdtrue.core.codec import dump
from holdtrue.llm.gateway import (
    Body,
    Caller,
    CallFacts,
    Completion,
    Gateway,
    GatewayConfig,
    GatewayFront,
    Operation,
    ProjectConfig,
)
from holdtrue.llm.gateway.asking import Backoff
from holdtrue.llm.gateway.extractive import Extractive

CALLER = Caller("flights", "token-1", "svc_1", "req_1")


def chat(text: str = "good day", model: str = "small", **more: Any) -> Body:
    """Return a chat of one message."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


@dataclass
class Lab:
    """A gateway with the configuration of one project."""

    home: Path
    clock: Clock = field(default_factory=SystemClock)
    facts: list[CallFacts] = field(default_factory=list[CallFacts])
    observe: Callable[[CallFacts], Awaitable[None] | None] | None = None

    @asynccontextmanager
    async def open(
        self, own: ProjectConfig, others: dict[str, ProjectConfig] | None = None, name: str = "dataplane-0"
    ) -> AsyncGenerator["Open"]:
        """Run a gateway; it waits at most a hundredth of a second before it tries again."""
        extractive = Extractive()
        gateway = Gateway(
            self.home,
            name,
            self.clock,
            extractive=lambda _: extractive,
            observe=self._note,
            backoff=Backoff(0.01, 0.01),
            generator=random.Random(1),
        )
        opened = Open(gateway, GatewayFront(gateway))
        opened.configure(own, others)
        await gateway.start()
        try:
            yield opened
        finally:
            await gateway.close()

    def run(self, own: ProjectConfig, work: Callable[["Open"], Awaitable[Any]]) -> Any:
        """Run `work` with a gateway, from start to close."""

        async def whole() -> Any:
            async with self.open(own) as opened:
                return await work(opened)

        return asyncio.run(whole())

    def _note(self, facts: CallFacts) -> Awaitable[None] | None:
        self.facts.append(facts)
        return None if self.observe is None else self.observe(facts)


@dataclass
class Open:
    """A gateway that runs."""

    gateway: Gateway
    front: GatewayFront

    def configure(self, own: ProjectConfig, others: dict[str, ProjectConfig] | None = None) -> None:
        """Give it another configuration."""
        self.gateway.configure(dump(GatewayConfig({CALLER.project: own, **(others or {})})))

    async def ask(self, body: Body, caller: Caller = CALLER, operation: Operation = Operation.CHAT) -> Completion:
        """Return a whole answer."""
        return await self.front.complete(caller, operation, body)

    async def pieces(self, body: Body, caller: Caller = CALLER, operation: Operation = Operation.CHAT) -> list[Body]:
        """Return the pieces of a streamed answer."""
        stream = await self.front.stream(caller, operation, body)
        try:
            return [chunk.body async for chunk in stream.chunks()]
        finally:
            await stream.aclose()


def text_of(pieces: list[Body]) -> str:
    """Return the text of a streamed answer."""
    return "".join(choice["delta"].get("content") or "" for piece in pieces for choice in piece["choices"])
