"""Pieces of a stream leave as they come; the first one does not wait for those that came with it."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import orjson

from holdtrue.llm.gateway.adapters import HttpFlow
from holdtrue.llm.gateway.dialects.openai import OpenAITranslator


def event(text: str, reason: str | None = None) -> tuple[str, bytes]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    return "", orjson.dumps({"id": "c", "choices": [choice]})


class Reads:
    """Stand for a response whose reads hold these events."""

    status = 200

    def __init__(self, *reads: list[tuple[str, bytes]]) -> None:
        self.reads = reads

    async def events(self, idle: float, until: float) -> AsyncGenerator[list[tuple[str, bytes]]]:
        for each in self.reads:
            yield each

    async def settle(self) -> None: ...


def test_the_first_piece_comes_alone_and_the_others_as_they_were_read() -> None:
    response: Any = Reads([event("a"), event("b"), event("c")], [event("d"), event("", "stop"), ("", b"[DONE]")])

    async def work() -> list[list[str]]:
        flow = HttpFlow(response, OpenAITranslator(wants_usage=False), 1.0, 1.0)
        return [[each.body["choices"][0]["delta"]["content"] for each in found] async for found in flow.chunks()]

    assert asyncio.run(work()) == [["a"], ["b", "c"], ["d", ""]]
