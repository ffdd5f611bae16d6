"""A provider that costs next to nothing: always the same answer, as bytes (`python bench/upstream.py PORT`).

It shares the cores with what is measured, so it does no more than it must: the load sends one request after the other
over a connection, each with its length. A request that streams gets 23 events at once; with “slow” in its model's name,
one every half second.
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


_WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_ANSWER), _ANSWER)
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_PIECES = [b"%x\r\n%b\r\n" % (len(each) + 8, b"data: " + each + b"\n\n") for each in _EVENTS]
_END = b"0\r\n\r\n"


class _Provider(asyncio.Protocol):
    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer = self._buffer + data
        end = buffer.find(b"\r\n\r\n")
        if end < 0 or self._transport is None:
            return
        head = buffer[:end].lower()
        start = head.find(b"content-length:")
        stop = head.find(b"\r\n", start)
        length = 0 if start < 0 else int(head[start + 15 : stop if stop >= 0 else end])
        if len(buffer) < end + 4 + length:
            return
        self._buffer = b""
        if b'"stream":true' not in buffer and b'"stream": true' not in buffer:
            self._transport.write(_WHOLE)
        elif b"slow" not in buffer:
            self._transport.write(b"".join([_STREAM, *_PIECES, _END]))
        else:
            self._transport.write(_STREAM)
            self._piece(0)

    def _piece(self, place: int) -> None:
        if self._transport is None:
            return
        if place == len(_PIECES):
            self._transport.write(_END)
            return
        self._transport.write(_PIECES[place])
        asyncio.get_running_loop().call_later(0.5, self._piece, place + 1)


async def main(port: int) -> None:
    """Answer until the process is ended."""
    server = await asyncio.get_running_loop().create_server(_Provider, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
