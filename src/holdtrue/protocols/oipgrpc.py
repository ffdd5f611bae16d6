"""The Open Inference Protocol, version 2, over gRPC: the same engine, door, checks and records as over HTTP.

The token comes as the metadata `authorization`, as does what else HTTP has in headers. A request is turned into the
form that JSON has and goes through the same parser, so that one form is never held to less than the other.
"""

import asyncio
import importlib.util
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Any, Final

import orjson

from holdtrue.core.access import Permission
from holdtrue.core.errors import HoldtrueError, InvalidInput, MissingExtra, NotFound, Unavailable
from holdtrue.protocols.columns import BadRequest, first
from holdtrue.protocols.named import wants_sets
from holdtrue.protocols.oip import Routes, outputs_of, read_request, told_of
from holdtrue.protocols.oipmessages import SERVICE, messages
from holdtrue.protocols.tensors import encode
from holdtrue.serving import BODY_LIMIT, Engine, Plane, Request

_CODES: Final[Mapping[int, str]] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    507: "UNAVAILABLE",
}
_CONTENTS: Final[Mapping[str, str]] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_DRAIN_SECONDS: Final = 10.0
_HEADER_LIMIT: Final = 16 << 10
# Beyond what the door lets in at a time, so that it is the door that says when to come back.
_MOST_CALLS: Final = 4096

Handle = Callable[[Request, Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Listen:
    """Say where to listen, and with which certificate and key (None: without TLS)."""

    address: str
    port: int
    certificate: Path | None = None
    key: Path | None = None


def check_installed() -> None:
    """Raise MissingExtra if what gRPC needs is not installed; nothing is imported for that."""
    for name, package in (("grpc", "grpcio"), ("google.protobuf", "protobuf")):
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise MissingExtra.of("grpc", package)


def listener(listen: Listen) -> Callable[[Plane, Engine], AbstractAsyncContextManager[None]]:
    """Return what answers gRPC beside a worker's HTTP, from its start to its end."""

    @asynccontextmanager
    async def running(plane: Plane, engine: Engine) -> AsyncGenerator[None]:
        import grpc

        server = grpc.aio.server(
            maximum_concurrent_rpcs=_MOST_CALLS,
            options=[
                ("grpc.max_receive_message_length", BODY_LIMIT),
                ("grpc.max_send_message_length", BODY_LIMIT),
                ("grpc.max_metadata_size", _HEADER_LIMIT),
            ],
        )
        server.add_generic_rpc_handlers([_handlers(plane, engine)])
        host = f"[{listen.address}]" if ":" in listen.address else listen.address
        if listen.certificate is not None and listen.key is not None:
            pair = (listen.key.read_bytes(), listen.certificate.read_bytes())
            server.add_secure_port(f"{host}:{listen.port}", grpc.ssl_server_credentials([pair]))
        else:
            server.add_insecure_port(f"{host}:{listen.port}")
        await server.start()
        try:
            yield
        finally:
            await server.stop(_DRAIN_SECONDS)

    return running


def _handlers(plane: Plane, engine: Engine) -> Any:
    """Return the service's methods; each is held to the same door."""
    import grpc

    calls, kinds = _Calls(engine), messages()
    table: Mapping[str, Handle] = {
        "ServerLive": calls.live,
        "ServerReady": calls.ready,
        "ServerMetadata": calls.server,
        "ModelReady": calls.model_ready,
        "ModelMetadata": calls.model,
        "ModelInfer": calls.infer,
        "RepositoryIndex": calls.index,
    }
    made = {
        name: grpc.unary_unary_rpc_method_handler(
            # Read once the door has let it in: whoever has no token costs no parsing.
            _guarded(plane, engine, handle, getattr(kinds, f"{name}Request").FromString),
            request_deserializer=None,
            response_serializer=getattr(kinds, f"{name}Response").SerializeToString,
        )
        for name, handle in table.items()
    }
    return grpc.method_handlers_generic_handler(SERVICE, made)


def _guarded(
    plane: Plane, engine: Engine, handle: Handle, read: Callable[[bytes], Any]
) -> Callable[[Any, Any], Awaitable[Any]]:
    async def call(data: bytes, context: Any) -> Any:
        started = engine.stopwatch()
        try:
            with plane.admitted(_headers(context), Permission.PREDICT, started) as request:
                context.set_trailing_metadata((("x-request-id", request.id),))
                return await handle(request, _read(read, data))
        except HoldtrueError as error:
            failure = error
        except asyncio.CancelledError:
            raise
        except Exception as error:  # the last resort, as at the door of HTTP
            logging.getLogger("holdtrue.dataplane").error("A call failed.", exc_info=error)
            failure = HoldtrueError("The request failed.")
        await _abort(context, failure)

    return call


def _read(read: Callable[[bytes], Any], data: bytes) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return read(data)
    except DecodeError:
        raise BadRequest("The message is not one of the protocol.") from None


async def _abort(context: Any, error: HoldtrueError) -> None:
    """End the call with an error: the status that HTTP's stands for, and when to come back."""
    import grpc

    code = getattr(grpc.StatusCode, _CODES.get(error.status, "INVALID_ARGUMENT" if error.status < 500 else "INTERNAL"))
    if error.status in (429, 503):
        context.set_trailing_metadata((("retry-after", str(error.facts.get("retry_after", 1))),))
    await context.abort(code, error.line)


_METADATA: Final = frozenset(
    {
        b"authorization",
        b"idempotency-key",
        b"x-api-key",
        b"x-holdtrue-contributions",
        b"x-holdtrue-environment",
        b"x-holdtrue-project",
        b"x-holdtrue-sets",
        b"x-request-id",
        b"x-request-timeout-ms",
    }
)


def _headers(context: Any) -> dict[bytes, bytes]:
    """Return the metadata of a call as headers; one that counts given twice is an error."""
    found: dict[bytes, bytes] = {}
    for key, value in context.invocation_metadata() or ():
        name = key.encode() if isinstance(key, str) else key
        if name in _METADATA:
            if name in found:
                raise InvalidInput(f"The metadata {name.decode()} is given twice.")
            found[name] = value if isinstance(value, bytes) else value.encode("latin-1", "replace")
    return found


class _Calls:
    """Answer the protocol's calls over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._routes = Routes(engine)
        self._kinds = messages()

    async def live(self, request: Request, _message: Any) -> Any:
        return self._kinds.ServerLiveResponse(live=True)

    async def ready(self, request: Request, _message: Any) -> Any:
        return self._kinds.ServerReadyResponse(ready=self._engine.ready)

    async def server(self, request: Request, _message: Any) -> Any:
        return self._kinds.ServerMetadataResponse(**self._routes.about())

    async def model_ready(self, request: Request, message: Any) -> Any:
        try:
            await self._routes.plan(request, message.name, message.version or None)
        except (NotFound, Unavailable):
            return self._kinds.ModelReadyResponse(ready=False)
        return self._kinds.ModelReadyResponse(ready=True)

    async def model(self, request: Request, message: Any) -> Any:
        found = await self._routes.described(request, message.name, message.version or None)
        return self._kinds.ModelMetadataResponse(**found)

    async def index(self, request: Request, message: Any) -> Any:
        found = [
            each for each in self._engine.listing(request.project) if each["state"] == "READY" or not message.ready
        ]
        return self._kinds.RepositoryIndexResponse(models=found)

    async def infer(self, request: Request, message: Any) -> Any:
        plan = await self._routes.plan(request, message.model_name, message.model_version or None)
        raw = bool(message.raw_input_contents)
        asked = read_request(
            _as_json(message), memoryview(b"".join(message.raw_input_contents)) if raw else None, plan.bundle
        )
        sets = wants_sets(request, plan, asked=asked.sets)
        answer = await self._routes.asking(request, plan, asked)
        told = told_of(plan, answer, sets=sets)
        tensors = outputs_of(plan.bundle, answer, asked, missing=nan)
        outputs: list[dict[str, Any]] = []
        for each in tensors:
            output: dict[str, Any] = {"name": each.name, "datatype": each.datatype, "shape": each.shape}
            if not raw:
                texts = each.datatype == "BYTES"
                values = [text.encode() for text in each.values] if texts else each.values
                output["contents"] = {_CONTENTS[each.datatype]: values}
            outputs.append(output)
        return self._kinds.ModelInferResponse(
            model_name=message.model_name,
            model_version=message.model_version,
            id=message.id,
            # A parameter of this protocol is one value; lists travel as JSON.
            parameters={name: {"string_param": orjson.dumps(value).decode()} for name, value in told.items()},
            outputs=outputs,
            raw_output_contents=[encode(each.values, each.datatype) for each in tensors] if raw else [],
        )


def _as_json(message: Any) -> dict[str, Any]:
    """Return a request in the form that JSON has; raw contents become binary data behind it."""
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise BadRequest(f"The request has {len(message.inputs)} inputs and {len(raw)} raw contents.")
    inputs = [_tensor(each, raw[place] if raw else None) for place, each in enumerate(message.inputs)]
    found: dict[str, Any] = {"inputs": inputs, "parameters": _parameters(message.parameters)}
    if message.id:
        found["id"] = message.id
    if message.outputs:
        found["outputs"] = [{"name": each.name, "parameters": _parameters(each.parameters)} for each in message.outputs]
    return found


def _tensor(tensor: Any, raw: bytes | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": [*tensor.shape],
        "parameters": _parameters(tensor.parameters),
    }
    if "binary_data_size" in found["parameters"]:
        raise BadRequest(f"The input {first([tensor.name])} has a size of binary data, which only HTTP knows.")
    given = [(field.name, values) for field, values in tensor.contents.ListFields()]
    if raw is not None:
        if given:
            raise BadRequest(f"The input {first([tensor.name])} has its data twice: raw and as contents.")
        found["parameters"]["binary_data_size"] = len(raw)
        return found
    wanted = _CONTENTS.get(tensor.datatype)
    if [name for name, _ in given] not in ([], [wanted]):
        raise BadRequest(f"The input {first([tensor.name])} has contents of another kind than {tensor.datatype[:20]}.")
    found["data"] = _values(tensor, given[0][1]) if given else []
    return found


def _values(tensor: Any, values: Any) -> list[Any]:
    """Return contents as JSON would hold them: NaN is a missing value, texts are UTF-8."""
    if tensor.datatype == "BYTES":
        try:
            return [each.decode() for each in values]
        except UnicodeDecodeError:
            raise BadRequest(f"A text of the input {first([tensor.name])} is not UTF-8.") from None
    if tensor.datatype[:2] != "FP":
        return [*values]
    if all(map(isfinite, values)):
        return [*values]
    found = [None if value != value else value for value in values]
    if not all(value is None or isfinite(value) for value in found):
        raise BadRequest(f"The input {first([tensor.name])} holds an infinite number.")
    return found


def _parameters(given: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in given.items():
        chosen = value.WhichOneof("parameter_choice")
        found[name] = None if chosen is None else getattr(value, chosen)
    return found
