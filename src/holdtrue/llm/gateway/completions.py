"""Plain text completions from providers that only know chats."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from holdtrue.llm.gateway.adapters import Adapter, Failed, Flow
from holdtrue.llm.gateway.dialects.base import Answer, Sent
from holdtrue.llm.gateway.dialects.openai import as_completion
from holdtrue.llm.gateway.model import Body, Chunk, Operation
from holdtrue.llm.gateway.rules import wrong


@dataclass(frozen=True, slots=True)
class ChatOnly:
    """Ask an adapter that only knows chats for completions: the prompt becomes the user's message."""

    inner: Adapter

    async def answer(self, sent: Sent) -> Answer:
        """Return a whole answer; raise Failed."""
        if sent.operation is not Operation.COMPLETION:
            return await self.inner.answer(sent)
        answer = await self.inner.answer(_as_chat(sent))
        return Answer(as_completion(answer.body), answer.usage)

    async def open(self, sent: Sent, until: float) -> Flow:
        """Begin a streamed answer; raise Failed."""
        if sent.operation is not Operation.COMPLETION:
            return await self.inner.open(sent, until)
        return _TextFlow(await self.inner.open(_as_chat(sent), until))


@dataclass(frozen=True, slots=True)
class _TextFlow:
    inner: Flow

    @property
    def usage(self) -> Any:
        return self.inner.usage

    async def chunks(self) -> AsyncGenerator[list[Chunk]]:
        async for chunks in self.inner.chunks():
            yield [Chunk(_as_text(chunk.body)) for chunk in chunks]

    def drop(self) -> None:
        self.inner.drop()


def _as_chat(sent: Sent) -> Sent:
    prompt = sent.body.get("prompt")
    if type(prompt) is not str:
        raise Failed(wrong("prompt", "must be one text with this provider"), elsewhere=False, ill=False)
    body = {name: value for name, value in sent.body.items() if name not in ("prompt", "echo", "suffix", "best_of")}
    message = {"role": "user", "content": prompt}
    return sent._replace(operation=Operation.CHAT, body={**body, "messages": [message]})


def _as_text(body: Body) -> Body:
    choices = [
        {
            "index": choice["index"],
            "text": choice["delta"].get("content") or "",
            "logprobs": None,
            "finish_reason": choice["finish_reason"],
        }
        for choice in body.get("choices", ())
    ]
    return {**body, "object": "text_completion", "choices": choices}
