"""The floor to measure against: a raw ASGI handler on our own server that runs a compiled model and nothing else.

It has no tokens, no checks and no records: parse with orjson, run the session, answer with orjson.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import orjson
import uvloop

from holdtrue.wire import answering, listening_socket


def app(model: bytes) -> Callable[..., Awaitable[None]]:
    """Return an ASGI application that answers one inference request per call."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    async def handle(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        if scope["method"] == "POST":
            request = orjson.loads((await receive())["body"])
            matrix = np.array([tensor["data"] for tensor in request["inputs"]], np.float32).T
            scores: Any = session.run(None, {name: matrix})[0]
            output = {"name": "score", "datatype": "FP32", "shape": [len(scores)], "data": scores.tolist()}
            body = orjson.dumps({"model_name": "bare", "outputs": [output]})
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return handle


async def serve(model: bytes, port: int) -> None:
    """Answer until the process ends."""
    async with answering(app(model), listening_socket("127.0.0.1", port), lambda: time.time_ns() // 1000):
        await asyncio.Event().wait()


def main() -> None:
    """Serve the model file named first on the port named second."""
    os.environ["OMP_NUM_THREADS"] = "1"
    uvloop.run(serve(Path(sys.argv[1]).read_bytes(), int(sys.argv[2])))


if __name__ == "__main__":
    main()
