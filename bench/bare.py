"""The floor to measure against: a raw ASGI handler on granian that runs a compiled model and nothing else.

It has no tokens, no checks and no records: parse with orjson, run the session, answer with orjson.
"""

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import orjson
from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops


def app(model: bytes) -> Callable[..., Awaitable[None]]:
    """Return an ASGI application that answers one inference request per call."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    async def handle(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        request = orjson.loads((await receive())["body"])
        matrix = np.array([tensor["data"] for tensor in request["inputs"]], np.float32).T
        scores: Any = session.run(None, {name: matrix})[0]
        body = orjson.dumps(
            {
                "model_name": "bare",
                "outputs": [{"name": "score", "datatype": "FP32", "shape": [len(scores)], "data": scores.tolist()}],
            }
        )
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return handle


def main() -> None:
    """Serve the model file named first on the port named second."""
    os.environ["OMP_NUM_THREADS"] = "1"
    model = Path(sys.argv[1]).read_bytes()
    server = Granian(
        "bare",
        port=int(sys.argv[2]),
        workers=1,
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        log_enabled=False,
    )
    server.serve(target_loader=lambda *_: app(model), wrap_loader=False)


if __name__ == "__main__":
    main()
