"""The bodies of OTLP: spans out of protobuf and out of its JSON form, the same spans from either."""

import base64
import binascii
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from holdtrue.core.errors import InvalidInput, MissingExtra
from holdtrue.traces import Origin, Span
from holdtrue.traces.online import service_name

ATTRIBUTES: Final = 256
EVENTS: Final = 128
LINKS: Final = 128
KEY: Final = 512
DEPTH: Final = 16
_KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATES: Final = ("unset", "ok", "error")
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16
_REASONS: Final = 5


class BadExport(InvalidInput):
    """A body is not an export request of OTLP."""

    code = "bad_export_request"


@dataclass(slots=True)
class Batch:
    """Hold the good spans of a request, and how many were rejected for which reasons."""

    spans: list[Span] = field(default_factory=list[Span])
    rejected: int = 0
    reasons: list[str] = field(default_factory=list[str])

    def reject(self, why: str) -> None:
        """Count one malformed span."""
        self.rejected += 1
        if len(self.reasons) < _REASONS and why not in self.reasons:
            self.reasons.append(why)

    @property
    def message(self) -> str:
        """Return why spans were rejected, in one sentence."""
        return f"{self.rejected} spans are malformed: {'; '.join(self.reasons)}." if self.rejected else ""


class _Malformed(Exception):
    """A span breaks the data model."""


# Protobuf ---------------------------------------------------------------------------------------------------------


def parse_protobuf(body: bytes) -> Batch:
    """Read an ExportTraceServiceRequest whole; errors as `read_protobuf`."""
    batch = Batch()
    batch.spans.extend(read_protobuf(body, batch))
    return batch


def read_protobuf(body: bytes, batch: Batch) -> Iterator[Span]:
    """Yield the spans of an ExportTraceServiceRequest; malformed ones are counted in `batch`.

    Raises BadExport, and MissingExtra where protobuf is not installed, before the first span.
    """
    try:
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    except ImportError:
        raise MissingExtra.of("llm", "opentelemetry-proto") from None
    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError:
        yield from _salvaged(body, batch)
        return
    if body and not request.resource_spans:
        raise _not_spans()
    for resource_spans in request.resource_spans:
        attributes, _ = _attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            origin = _origin(attributes, scope_spans.scope.name)
            for span in scope_spans.spans:
                try:
                    yield _span(span, origin)
                except _Malformed as error:
                    batch.reject(str(error))


def _origin(attributes: dict[str, Any], scope: str) -> Origin:
    return Origin(service_name(attributes.get("service.name")), attributes, scope[:KEY])


def _salvaged(body: bytes, batch: Batch) -> list[Span]:
    """Read a body that protobuf refuses as a whole span by span: one bad text must not cost the others."""
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan

    spans: list[Span] = []
    try:
        for number, resource_spans in _fields(body):
            if number != 1:
                continue
            inner = list(_fields(resource_spans))
            resource = Resource.FromString(b"".join(part for field_, part in inner if field_ == 1))
            attributes, _ = _attributes(resource.attributes)
            for scope_spans in (part for field_, part in inner if field_ == 2):
                parts = list(_fields(scope_spans))
                scope = InstrumentationScope.FromString(b"".join(part for field_, part in parts if field_ == 1))
                origin = _origin(attributes, scope.name)
                for data in (part for field_, part in parts if field_ == 2):
                    try:
                        spans.append(_span(ProtoSpan.FromString(data), origin))
                    except (DecodeError, _Malformed) as error:
                        batch.reject(str(error) if isinstance(error, _Malformed) else "it cannot be parsed")
    except (DecodeError, ValueError, IndexError):
        raise _not_spans() from None
    return spans


def _not_spans() -> BadExport:
    return BadExport(
        "The body is not an export request.",
        why="It is not protobuf of that message.",
        mend="Use an OTLP exporter.",
    )


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of the length-delimited fields of a message; raise ValueError or IndexError."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if kind == 2:
            size, at = _read_varint(data, at)
            if at + size > len(data):
                raise ValueError("a field ends beyond its message")
            yield tag >> 3, data[at : at + size]
            at += size
        elif kind == 0:
            _, at = _read_varint(data, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError("no such wire type")


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while shift < 64:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    raise ValueError("a number is too long")


def _span(span: Any, origin: Origin) -> Span:
    trace_id, span_id, parent_id = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
    _check_ids(trace_id, span_id, parent_id)
    attributes, dropped = _attributes(span.attributes)
    dropped += span.dropped_attributes_count + span.dropped_events_count + span.dropped_links_count
    events: list[dict[str, Any]] = []
    if span.events:
        dropped += max(0, len(span.events) - EVENTS)
        for event in span.events[:EVENTS]:
            inner, cut = _attributes(event.attributes)
            dropped += cut
            events.append(_event(event.name, event.time_unix_nano, inner))
    links: list[dict[str, Any]] = []
    if span.links:
        dropped += max(0, len(span.links) - LINKS)
        for link in span.links[:LINKS]:
            inner, cut = _attributes(link.attributes)
            dropped += cut
            links.append({"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex(), "attributes": inner})
    kind, status = span.kind, span.status
    return Span(
        trace_id,
        span_id,
        parent_id or None,
        span.name[:KEY],
        _KINDS[kind] if 0 <= kind < 6 else "unspecified",
        span.start_time_unix_nano // 1000,
        span.end_time_unix_nano // 1000,
        _STATES[status.code] if 0 <= status.code < 3 else "unset",
        status.message,
        attributes,
        events,
        links,
        origin,
        dropped,
    )


def _check_ids(trace_id: str, span_id: str, parent_id: str) -> None:
    if len(trace_id) != 32 or trace_id == _NO_TRACE:
        raise _Malformed("a trace id is not 16 bytes that are not all zero")
    if len(span_id) != 16 or span_id == _NO_SPAN:
        raise _Malformed("a span id is not 8 bytes that are not all zero")
    if parent_id and len(parent_id) != 16:
        raise _Malformed("a parent's id is not 8 bytes")


def _event(name: str, nanoseconds: int, attributes: dict[str, Any]) -> dict[str, Any]:
    return {"name": name[:KEY], "time": nanoseconds // 1000, "attributes": attributes}


def _attributes(pairs: Any) -> tuple[dict[str, Any], int]:
    """Return attributes within the limits, and how many were left out."""
    found: dict[str, Any] = {}
    dropped = 0
    for pair in pairs:
        value = pair.value
        # Nearly all values are texts or counts; asking for these first saves asking which kind a value is.
        found[pair.key] = value.string_value or value.int_value or _value(value, 0)
    if len(found) > ATTRIBUTES or "" in found or max(map(len, found), default=0) > KEY:
        kept = [(key, value) for key, value in found.items() if 0 < len(key) <= KEY][:ATTRIBUTES]
        dropped = len(found) - len(kept)
        found = dict(kept)
    return found, dropped


def _value(value: Any, depth: int) -> Any:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "int_value":
        return value.int_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "double_value":
        return _double(value.double_value)
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    if depth >= DEPTH:
        return None
    if kind == "array_value":
        return [_value(each, depth + 1) for each in value.array_value.values]
    if kind == "kvlist_value":
        return {each.key: _value(each.value, depth + 1) for each in value.kvlist_value.values}
    return None


def _double(number: float) -> float | str:
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


# JSON -------------------------------------------------------------------------------------------------------------


def parse_json(body: bytes) -> Batch:
    """Read the JSON form of an export request whole; raise BadExport."""
    batch = Batch()
    batch.spans.extend(read_json(body, batch))
    return batch


def read_json(body: bytes, batch: Batch) -> Iterator[Span]:
    """Yield the spans of the JSON form of an export request (hexadecimal ids, 64-bit integers as texts).

    Malformed ones are counted in `batch`; raises BadExport where the body has another form, be it at the end.
    """
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadExport("The body is not JSON.", why=str(error)) from None
    if not isinstance(data, dict):
        raise BadExport("The body is not an export request.", why="It is not a JSON object.")
    for resource_spans in _objects(data, "resourceSpans"):
        resource = resource_spans.get("resource")
        attributes, _ = _json_attributes(resource.get("attributes")) if isinstance(resource, dict) else ({}, 0)
        for scope_spans in _objects(resource_spans, "scopeSpans"):
            scope = scope_spans.get("scope")
            name = scope.get("name") if isinstance(scope, dict) else ""
            origin = _origin(attributes, name if isinstance(name, str) else "")
            for span in _list(scope_spans, "spans"):
                try:
                    yield _json_span(span, origin)
                except _Malformed as error:
                    batch.reject(str(error))


def _list(data: dict[str, Any], name: str) -> list[Any]:
    found = data.get(name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise BadExport("The body is not an export request.", why=f"The field {name} is not a list.")
    return found


def _objects(data: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = _list(data, name)
    if not all(isinstance(each, dict) for each in found):
        raise BadExport("The body is not an export request.", why=f"An entry of {name} is not an object.")
    return found


def _json_span(span: Any, origin: Origin) -> Span:
    if not isinstance(span, dict):
        raise _Malformed("a span is not an object")
    trace_id, span_id = _hex(span, "traceId"), _hex(span, "spanId")
    parent_id = _hex(span, "parentSpanId")
    _check_ids(trace_id, span_id, parent_id)
    attributes, dropped = _json_attributes(span.get("attributes"))
    for name in ("droppedAttributesCount", "droppedEventsCount", "droppedLinksCount"):
        dropped += _integer(span.get(name), 32)
    events: list[dict[str, Any]] = []
    for event in _inner(span, "events", EVENTS):
        inner, cut = _json_attributes(event.get("attributes"))
        events.append(_event(_text(event, "name"), _integer(event.get("timeUnixNano")), inner))
        dropped += cut
    links: list[dict[str, Any]] = []
    for link in _inner(span, "links", LINKS):
        inner, cut = _json_attributes(link.get("attributes"))
        links.append({"trace_id": _hex(link, "traceId"), "span_id": _hex(link, "spanId"), "attributes": inner})
        dropped += cut
    dropped += sum(
        max(0, len(span[name]) - most) for name, most in (("events", EVENTS), ("links", LINKS)) if span.get(name)
    )
    status = span.get("status")
    status = status if isinstance(status, dict) else {}
    return Span(
        trace_id,
        span_id,
        parent_id or None,
        _text(span, "name")[:KEY],
        _enumerated(span.get("kind"), _KINDS, "SPAN_KIND_"),
        _integer(span.get("startTimeUnixNano")) // 1000,
        _integer(span.get("endTimeUnixNano")) // 1000,
        _enumerated(status.get("code"), _STATES, "STATUS_CODE_"),
        _text(status, "message"),
        attributes,
        events,
        links,
        origin,
        dropped,
    )


def _hex(data: dict[str, Any], name: str) -> str:
    value = data.get(name)
    if value is None:
        return ""
    if isinstance(value, str):
        try:
            if len(value) <= 64:
                return bytes.fromhex(value).hex()
        except ValueError:
            pass
    raise _Malformed(f"{name} is not hexadecimal digits")


def _text(data: dict[str, Any], name: str) -> str:
    value = data.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _Malformed(f"{name} is not a text")
    return value


def _integer(value: Any, bits: int = 64) -> int:
    if value is None:
        return 0
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        value = int(value)
    if type(value) is not int or not 0 <= value < 1 << bits:
        raise _Malformed("a time or count is not a number")
    return value


def _enumerated(value: Any, names: tuple[str, ...], prefix: str) -> str:
    if value is None:
        return names[0]
    if isinstance(value, str) and value.startswith(prefix):
        name = value.removeprefix(prefix).lower()
        return name if name in names else names[0]
    if type(value) is int:
        return names[value] if 0 <= value < len(names) else names[0]
    raise _Malformed("a kind or status is not a number")


def _inner(span: dict[str, Any], name: str, most: int) -> list[dict[str, Any]]:
    found = span.get(name)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise _Malformed(f"{name} is not a list of objects")
    return found[:most]


def _json_attributes(pairs: Any) -> tuple[dict[str, Any], int]:
    if pairs is None:
        return {}, 0
    if not isinstance(pairs, list):
        raise _Malformed("attributes are not a list")
    found: dict[str, Any] = {}
    for pair in pairs:
        if not isinstance(pair, dict) or not isinstance(pair.get("key"), str):
            raise _Malformed("an attribute has no key")
        found[pair["key"]] = _json_value(pair.get("value"), 0)
    kept = [(key, value) for key, value in found.items() if 0 < len(key) <= KEY][:ATTRIBUTES]
    return dict(kept), len(found) - len(kept)


def _json_value(value: Any, depth: int) -> Any:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _Malformed("an attribute's value is not an object")
    for name, read in _READERS.items():
        if (given := value.get(name)) is not None:
            return read(given)
    if depth >= DEPTH:
        return None
    for name in ("arrayValue", "kvlistValue"):
        given = value.get(name)
        if given is None:
            continue
        values = given.get("values", []) if isinstance(given, dict) else None
        if not isinstance(values, list):
            raise _Malformed(f"{name} has no list of values")
        if name == "arrayValue":
            return [_json_value(each, depth + 1) for each in values]
        if not all(isinstance(each, dict) and isinstance(each.get("key"), str) for each in values):
            raise _Malformed("an entry of kvlistValue has no key")
        return {each["key"]: _json_value(each.get("value"), depth + 1) for each in values}
    return None


def _string_value(value: Any) -> str:
    if not isinstance(value, str):
        raise _Malformed("stringValue is not a text")
    return value


def _bool_value(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Malformed("boolValue is not true or false")
    return value


def _int_value(value: Any) -> int:
    if isinstance(value, str) and len(value) <= 20 and value.removeprefix("-").isdigit() and value.isascii():
        value = int(value)
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise _Malformed("intValue is not an integer of 64 bits")
    return value


def _double_value(value: Any) -> float | str:
    if isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity"):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Malformed("doubleValue is not a number")
    return _double(float(value))


def _bytes_value(value: Any) -> str:
    try:
        data = base64.b64decode(value, validate=True) if isinstance(value, str) else None
    except binascii.Error:
        data = None
    if data is None:
        raise _Malformed("bytesValue is not base64")
    return base64.b64encode(data).decode()


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "stringValue": _string_value,
    "intValue": _int_value,
    "boolValue": _bool_value,
    "doubleValue": _double_value,
    "bytesValue": _bytes_value,
}
