"""A provider that costs nothing: raw ASGI on Granian, always the same answer (`python bench/upstream.py PORT`).

A request that streams gets 22 events at once; with “slow” in its model's name, one every half second.
"""

import asyncio
import json
import sys
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops

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


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer anything."""
    if scope["type"] != "http":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if b'"stream":true' in body or b'"stream": true' in body:
        await _stream(send, slow=b"slow" in body)
        return
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_ANSWER))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _ANSWER})


async def _stream(send: Any, *, slow: bool) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for event in _EVENTS:
        await send({"type": "http.response.body", "body": b"data: " + event + b"\n\n", "more_body": True})
        if slow:
            await asyncio.sleep(0.5)
    await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    Granian(
        "upstream",
        address="127.0.0.1",
        port=int(sys.argv[1]),
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        backlog=2048,
        log_enabled=False,
    ).serve(target_loader=lambda *_: app, wrap_loader=False)
