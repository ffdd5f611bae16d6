"""A provider that costs nearly nothing: it looks for the end of a request and writes the same answer each time.

`python bench/upstream.py PORT`. A request that streams gets 23 events at once; with “slow” in its model's name, one
every half second. It shares two cores with what is measured: a server in general takes 100 µs of them for an answer.
"""

import asyncio
import json
import sys
from typing import cast

import uvloop

_HEAD = {"id": "chatcmpl-bench", "created": 1_700_000_000, "model": "bench"}
_TEXT = " ".join(["word"] * 20)
_USAGE = {"prompt_tokens": 30, "completion_tokens": 20, "total_tokens": 50}
_ANSWER = json.dumps(
    {
        **_HEAD,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": _TEXT}, "finish_reason": "stop"}],
        "usage": _USAGE,
    }
).encode()
_EVENTS = [
    json.dumps(
        {
            **_HEAD,
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
        }
    ).encode()
    for delta, reason in (
        ({"role": "assistant", "content": ""}, None),
        *(({"content": " word"}, None) for _ in range(20)),
        ({}, "stop"),
    )
]
_EVENTS.append(json.dumps({**_HEAD, "object": "chat.completion.chunk", "choices": [], "usage": _USAGE}).encode())
_EVENTS.append(b"[DONE]")


_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_ANSWER) + _ANSWER
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_LAST = b"0\r\n\r\n"


class Answering(asyncio.Protocol):
    """Answer one connection's requests, one after the other."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._data = b""
        self._slow: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of it."""
        self._transport = None
        if self._slow is not None:
            self._slow.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer each request whose end is there."""
        self._data += data
        while (head := self._data.find(b"\r\n\r\n")) >= 0:
            lower = self._data[:head].lower()
            at = lower.find(b"content-length:")
            end = head + 4 + (int(lower[at + 15 :].partition(b"\r\n")[0]) if at >= 0 else 0)
            if len(self._data) < end:
                return
            body, self._data = self._data[head + 4 : end], self._data[end:]
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        assert self._transport is not None
        if b'"stream":true' not in body and b'"stream": true' not in body:
            self._transport.write(_JSON)
        elif b"slow" in body:
            self._slow = asyncio.get_running_loop().create_task(self._trickle(self._transport))
        else:
            self._transport.writelines([_STREAM, *map(_chunk, _EVENTS), _LAST])

    async def _trickle(self, transport: asyncio.WriteTransport) -> None:
        transport.write(_STREAM)
        for event in _EVENTS:
            transport.write(_chunk(event))
            await asyncio.sleep(0.5)
        transport.write(_LAST)


def _chunk(event: bytes) -> bytes:
    data = b"data: " + event + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
