"""OTLP over HTTP: spans in protobuf or JSON, gzip or not, from any OpenTelemetry exporter.

Spans that are malformed are counted in the answer with the reason, and the good ones stored; a body that is no export
request is refused as a whole. 200 means that every span that was not rejected is on the disk.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import orjson

from holdtrue.core.access import Permission
from holdtrue.core.errors import HoldtrueError, StorageFull, Unavailable
from holdtrue.protocols import bodies
from holdtrue.protocols.bodies import UnsupportedMedia
from holdtrue.protocols.otlpbodies import BadExport, Batch, read_json, read_protobuf
from holdtrue.serving import Endpoint, Reply, Request
from holdtrue.traces import SpanSink

PATH: Final = "/v1/traces"
WIRE_LIMIT: Final = 4 << 20
INFLATED_LIMIT: Final = 32 << 20
SECONDS: Final = 20.0
JSON: Final = b"application/json"
PROTOBUF: Final = b"application/x-protobuf"
_CODES: Final = {400: 3, 401: 16, 403: 7, 404: 5, 408: 4, 413: 8, 415: 3, 429: 8, 501: 12, 503: 14}


def endpoints(sink: SpanSink) -> Sequence[Endpoint]:
    """Return the endpoint that takes spans."""

    async def export(request: Request) -> Reply:
        media = request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        try:
            async with asyncio.timeout(SECONDS):
                return await _export(sink, request, media)
        except StorageFull as error:  # exporters try 503 again, and drop their spans at 507
            return _refusal(Unavailable(error.what, why=error.why, mend=error.mend), media)
        except TimeoutError:
            return _refusal(Unavailable("The disk is too slow.", mend="Send the spans again."), media)
        except HoldtrueError as error:
            return _refusal(error, media)

    return (Endpoint("POST", PATH, Permission.TRACES_WRITE, export, body_limit=WIRE_LIMIT),)


def error_body(error: HoldtrueError) -> bytes:
    """Return an error in the JSON form of a google.rpc.Status."""
    return orjson.dumps({"code": _CODES.get(error.status, 13), "message": _sentence(error)})


async def _export(sink: SpanSink, request: Request, media: bytes) -> Reply:
    if media not in (JSON, PROTOBUF):
        raise UnsupportedMedia(
            "The body has a type that is not taken.",
            mend="Send Content-Type: application/x-protobuf or application/json.",
        )
    sink.check_room()
    body = inflate(request.body, request.headers.get(b"content-encoding", b"identity").strip().lower())
    batch = Batch()
    # Read as they are stored, some at a time: a large body must not hold up what else this process answers.
    await sink.write(request.project, read_json(body, batch) if media == JSON else read_protobuf(body, batch))
    return Reply(200, accepted(batch, media), media=media)


def accepted(batch: Batch, media: bytes) -> bytes:
    """Return the body that says which spans of an export were stored, in the form the request had."""
    return _accepted_json(batch) if media == JSON else _accepted_protobuf(batch)


def inflate(body: bytes, encoding: bytes) -> bytes:
    """Return a body as it was before its encoding; nothing is inflated beyond the limit."""
    return bodies.inflate(body, encoding, INFLATED_LIMIT, BadExport)


def _sentence(error: HoldtrueError) -> str:
    return " ".join(part for part in (error.what, error.why, error.mend) if part)


def _refusal(error: HoldtrueError, media: bytes) -> Reply:
    # Exporters hold their spans back for as long as they are told.
    later = ((b"retry-after", b"1"),) if error.status in (429, 503) else ()
    if media != PROTOBUF:
        return Reply(error.status, error_body(error), later)
    code, text = _CODES.get(error.status, 13), _sentence(error).encode()
    return Reply(error.status, b"\x08" + _varint(code) + b"\x12" + _varint(len(text)) + text, later, PROTOBUF)


def _accepted_json(batch: Batch) -> bytes:
    if not batch.rejected:
        return b"{}"
    partial = {"rejectedSpans": str(batch.rejected), "errorMessage": batch.message}
    return orjson.dumps({"partialSuccess": partial})


def _accepted_protobuf(batch: Batch) -> bytes:
    """Return an ExportTraceServiceResponse: empty, or with field 1, partial_success {1: rejected, 2: message}."""
    if not batch.rejected:
        return b""
    text = batch.message.encode()
    inner = b"\x08" + _varint(batch.rejected) + b"\x12" + _varint(len(text)) + text
    return b"\x0a" + _varint(len(inner)) + inner


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
