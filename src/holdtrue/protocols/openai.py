"""OpenAI's API over the gateway: chat completions, completions, embeddings, models."""

import base64
import struct
from collections.abc import AsyncGenerator
from typing import Any, Final
from urllib.parse import unquote

import orjson

from holdtrue.core.access import Permission
from holdtrue.core.errors import HoldtrueError, InvalidInput
from holdtrue.llm.gateway import Body, Caller, ChunkStream, Completion, Front, ModelNotFound, Operation
from holdtrue.serving import Endpoint, Reply, Request, Stream, environment_of

_DONE: Final = b"data: [DONE]\n\n"
_DEPTH: Final = 128
# What OpenAI's clients make of a status and code; the rest follows from the status.
_CODES: Final = {
    "unauthenticated": ("invalid_request_error", "invalid_api_key"),
    "forbidden": ("insufficient_permissions", "insufficient_permissions"),
    "insufficient_quota": ("insufficient_quota", "insufficient_quota"),
    "rate_limit_exceeded": ("rate_limit_error", "rate_limit_exceeded"),
    "provider_busy": ("rate_limit_error", "rate_limit_exceeded"),
    "model_not_found": ("invalid_request_error", "model_not_found"),
    "too_large": ("invalid_request_error", "context_length_exceeded"),
}


def endpoints(front: Front) -> tuple[Endpoint, ...]:
    """Return the protocol's endpoints; all of them need the permission to predict."""
    routes = _Routes(front)

    def asking(path: str, operation: Operation) -> Endpoint:
        async def handle(request: Request) -> Reply | Stream:
            return await routes.ask(request, operation)

        return Endpoint("POST", path, Permission.PREDICT, handle, patient=True, deferrable=True, once=True)

    return (
        asking("/v1/chat/completions", Operation.CHAT),
        asking("/v1/completions", Operation.COMPLETION),
        asking("/v1/embeddings", Operation.EMBEDDING),
        Endpoint("GET", "/v1/models", Permission.PREDICT, routes.models),
        Endpoint("GET", "/v1/models/{model...}", Permission.PREDICT, routes.model),
    )


def error_body(error: HoldtrueError) -> bytes:
    """Return the protocol's form of an error."""
    return orjson.dumps(error_json(error))


def error_json(error: HoldtrueError) -> Body:
    """Return the protocol's form of an error as JSON."""
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    kind, code = _CODES.get(error.code, (kind, error.code))
    message = " ".join(part for part in (error.what, error.why, error.mend) if part)
    return {"error": {"message": message, "type": kind, "param": error.facts.get("param"), "code": code}}


def read_body(data: bytes) -> Body:
    """Return a request's body; raise InvalidInput unless it is a JSON object."""
    try:
        body: Any = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidInput("The body is not JSON.", why=str(error)) from None
    if type(body) is not dict:
        raise InvalidInput("The body is not a JSON object.")
    return body


def caller_of(request: Request) -> Caller:
    """Return who sends a request, as the gateway knows it."""
    return Caller(
        project=request.project,
        key=request.grant.token,
        actor=request.grant.actor,
        request_id=request.id,
        traceparent=request.headers.get(b"traceparent", b"")[:128].decode("latin-1"),
        environment=environment_of(request) or "",
    )


def answer_headers(request: Request, answer: Completion | ChunkStream) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that tell how a request was answered."""
    headers = [
        (b"x-request-id", request.id.encode()),
        (b"x-holdtrue-call", answer.id.encode()),
        (b"x-holdtrue-provider", answer.provider.encode()),
        (b"x-holdtrue-cache", b"hit" if answer.cached else b"miss"),
    ]
    if isinstance(answer, Completion):
        headers.append((b"x-holdtrue-cost-micros", b"%d" % answer.cost_micros))
    return tuple(headers)


class _Routes:
    """Answer the protocol's requests."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def ask(self, request: Request, operation: Operation) -> Reply | Stream:
        body = read_body(request.body)
        caller = caller_of(request)
        if body.get("stream") is True:
            request.seconds = request.longest
            stream = await self._front.stream(caller, operation, body)
            return Stream(_events(stream), _broken, stream.aclose, answer_headers(request, stream))
        completion = await self._front.complete(caller, operation, body)
        answer = completion.body
        if operation is Operation.EMBEDDING:
            answer = as_asked(answer, body.get("encoding_format"))
        return Reply(200, orjson.dumps(answer), answer_headers(request, completion))

    async def models(self, request: Request) -> Reply:
        names = self._front.models(request.project)
        listing = {
            "object": "list",
            "data": [_model(name) for name in names],
            "has_more": False,
            "first_id": names[0] if names else None,
            "last_id": names[-1] if names else None,
        }
        return Reply(200, orjson.dumps(listing))

    async def model(self, request: Request) -> Reply:
        # The name is compared with those that are known, and used for nothing else.
        name = unquote(request.path[0])
        if name not in self._front.models(request.project):
            raise ModelNotFound(f"The model “{name[:100]}” does not exist.", facts={"param": "model"})
        return Reply(200, orjson.dumps(_model(name)))


async def _events(stream: ChunkStream) -> AsyncGenerator[bytes]:
    async for chunk in stream.chunks():
        if chunk.body:
            yield b"data: " + orjson.dumps(chunk.body) + b"\n\n"
    yield _DONE


def _broken(error: HoldtrueError) -> bytes:
    return b"data: " + error_body(error) + b"\n\n"


def _model(name: str) -> Body:
    """Return a model as OpenAI's clients know it, and Anthropic's, which ask at the same address."""
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": name.partition("/")[0],
        "type": "model",
        "display_name": name,
        "created_at": "1970-01-01T00:00:00Z",
    }


def as_asked(body: Body, encoding: Any) -> Body:
    """Return embeddings in the encoding that was asked for, whichever the provider gave.

    The official client asks for base64: little-endian float32.
    """
    wanted = "base64" if encoding == "base64" else "float"
    entries: list[Body] = []
    for entry in body["data"]:
        vector = entry["embedding"]
        try:
            if wanted == "base64" and type(vector) is list:
                vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
            elif wanted == "float" and type(vector) is str:
                raw = base64.b64decode(vector, validate=True)
                vector = list(struct.unpack(f"<{len(raw) // 4}f", raw))
        except (ValueError, struct.error, OverflowError):
            raise HoldtrueError("The provider's embeddings cannot be read.") from None
        entries.append({**entry, "embedding": vector})
    return {**body, "data": entries}
