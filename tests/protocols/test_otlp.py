"""Spans over OTLP: from the real OpenTelemetry SDK into the real data plane, and whatever else a network brings."""

import base64
import gzip
import os
import random
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import InvalidInput, TooLarge, Unavailable
from holdtrue.protocols import otlp
from holdtrue.protocols.otlpbodies import ATTRIBUTES, BadExport, parse_json, parse_protobuf
from holdtrue.storage import BlobStore, FileClock, make_folder
from tests.serving.plane_home import OTHER, PROJECT, TOKEN, Home, Process

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}
READER = "ht_svc_reader_00000000000000000000000000000000000000000_000000"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Give a data folder of today that takes spans of two projects."""
    path = tmp_path / "home"
    for name in ("blobs", "journal", "online", "routing/acks", "routing/good"):
        make_folder(path / name)
    made = Home(path, {}, BlobStore(path / "blobs"), FileClock(path / "clock", SystemClock().now()))
    writes = ["traces.write", "labels.write"]
    made.grant(
        {
            TOKEN: {"permissions": writes},
            OTHER: {"permissions": writes, "project": "other"},
            READER: {"permissions": ["predict"]},
        }
    )
    yield made
    for process in made.processes:
        if process.popen.poll() is None:
            process.kill()
        process.client.close()
    made.clock.close()


@pytest.fixture
def plane(home: Home) -> Process:
    """Start the data plane."""
    return home.start()


def spans_of(home: Home, project: str = PROJECT) -> dict[str, dict[str, Any]]:
    """Return all stored spans of a project by id, each once."""
    from holdtrue.storage import Journal

    journal = Journal(home.path / "journal", SystemClock())
    try:
        rows = journal.table("span", project).to_pylist()
        assert len({row["id"] for row in rows}) == len(rows)
        return {row["id"]: row for row in rows}
    finally:
        journal.close()


def exporter(
    plane: Process, compression: Compression = Compression.NoCompression, token: str = TOKEN
) -> OTLPSpanExporter:
    """Return the SDK's exporter to a data plane."""
    return OTLPSpanExporter(
        f"http://127.0.0.1:{plane.port}/v1/traces",
        headers={"authorization": f"Bearer {token}"},
        compression=compression,
    )


def provider(plane: Process, **options: Any) -> TracerProvider:
    """Return a provider of tracers that sends to a data plane."""
    made = TracerProvider(resource=Resource.create({"service.name": "support agent", "service.version": "1.4.2"}))
    made.add_span_processor(BatchSpanProcessor(exporter(plane, **options), schedule_delay_millis=50))
    return made


def request(*spans: dict[str, Any], resource: dict[str, Any] | None = None) -> ExportTraceServiceRequest:
    """Return an export request; of each span only what is given."""
    made = ExportTraceServiceRequest()
    resource_spans = made.resource_spans.add()
    for key, value in (resource or {"service.name": "agent"}).items():
        resource_spans.resource.attributes.append(pair(key, value))
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = "scope"
    for number, span in enumerate(spans):
        now = time.time_ns()
        whole = {
            "trace_id": b"\x01" * 16,
            "span_id": (number + 1).to_bytes(8, "big"),
            "name": "chat",
            "start_time_unix_nano": now,
            "end_time_unix_nano": now + 5_000_000,
            **span,
        }
        attributes: dict[str, Any] = span.get("attributes", {})
        whole.pop("attributes", None)
        added = scope_spans.spans.add(**whole)
        added.attributes.extend(pair(key, value) for key, value in attributes.items())
    return made


def pair(key: str, value: Any) -> KeyValue:
    return KeyValue(key=key, value=any_value(value))


def any_value(value: Any) -> AnyValue:
    made = AnyValue()
    if isinstance(value, bool):
        made.bool_value = value
    elif isinstance(value, str):
        made.string_value = value
    elif isinstance(value, int):
        made.int_value = value
    elif isinstance(value, float):
        made.double_value = value
    elif isinstance(value, bytes):
        made.bytes_value = value
    elif isinstance(value, list):
        made.array_value.values.extend(any_value(each) for each in value)
        made.array_value.SetInParent()
    elif isinstance(value, dict):
        made.kvlist_value.values.extend(pair(key, each) for key, each in value.items())
        made.kvlist_value.SetInParent()
    return made


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_the_sdk_exports_and_every_span_is_stored_as_it_was(
    home: Home, plane: Process, compression: Compression
) -> None:
    with_spans = provider(plane, compression=compression)
    tracer = with_spans.get_tracer("app", "2.0")
    with tracer.start_as_current_span("answer", attributes={"session.id": "s1", "user.id": "u1"}) as root:
        with tracer.start_as_current_span("chat small", kind=SpanKind.CLIENT) as inner:
            inner.set_attributes(
                {
                    "gen_ai.operation.name": "chat",
                    "gen_ai.request.model": "small",
                    "gen_ai.usage.input_tokens": 12,
                    "gen_ai.request.temperature": 0.5,
                    "gen_ai.response.finish_reasons": ["stop"],
                    "a.b[0]": True,
                    "__proto__": "data",
                    "gen_ai.input.messages": '[{"role":"user","content":"Where is my order?"}]',
                }
            )
            inner.add_event("first token", {"after": 3})
        root.set_status(Status(StatusCode.ERROR, "too late"))
        link_trace = root.get_span_context()
    assert with_spans.force_flush()
    with_spans.shutdown()

    spans = {row["name"]: row for row in spans_of(home).values()}
    assert set(spans) == {"answer", "chat small"}
    answer, chat = spans["answer"], spans["chat small"]
    assert answer["service"] == chat["service"] == "support-agent"
    assert answer["trace_id"] == chat["trace_id"] == f"{link_trace.trace_id:032x}"
    assert (answer["parent_id"], chat["parent_id"]) == (None, answer["span_id"])
    assert (answer["status"], answer["message"], chat["kind"]) == ("error", "too late", "client")
    assert (chat["model"], chat["operation"], chat["input_tokens"]) == ("small", "chat", 12)
    assert (chat["input"], chat["text"]) == ("Where is my order?", "where is my order?")
    assert (answer["user"], answer["session"], answer["release"]) == ("u1", "s1", "1.4.2")
    attributes = orjson.loads(chat["attributes"])
    assert attributes["a.b[0]"] is True
    assert attributes["__proto__"] == "data"
    assert attributes["gen_ai.request.temperature"] == 0.5
    assert attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert orjson.loads(chat["events"])[0]["attributes"] == {"after": 3}
    assert 0 < chat["duration"] <= answer["duration"]
    assert not chat["clamped"]
    assert plane.stop() == 0


def test_json_is_answered_in_json_and_protobuf_in_protobuf(home: Home, plane: Process) -> None:
    body = request({}, {"trace_id": b""}, {"span_id": b"\0" * 8}, {"name": "fine"})
    answer = plane.client.post("/v1/traces", content=body.SerializeToString(), headers=PROTOBUF)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-protobuf")
    partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert partial.rejected_spans == 2
    assert "a trace id is not 16 bytes" in partial.error_message
    assert "a span id is not 8 bytes" in partial.error_message

    spans = [json_span(span_id="a" * 16), {"traceId": "zz"}, "no span", json_span(span_id="b" * 16)]
    answer = plane.client.post("/v1/traces", json=json_request(spans))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json()["partialSuccess"]["rejectedSpans"] == "2"
    assert plane.client.post("/v1/traces", json=json_request([json_span(span_id="c" * 16)])).json() == {}
    assert len(spans_of(home)) == 5
    assert plane.client.post("/v1/traces", json={}).status_code == 200


def json_span(**changes: Any) -> dict[str, Any]:
    now = time.time_ns()
    return {
        "traceId": "1" * 32,
        "spanId": changes.get("span_id", "2" * 16),
        "name": "chat",
        "startTimeUnixNano": str(now),
        "endTimeUnixNano": now + 1,
    }


def json_request(spans: list[Any]) -> dict[str, Any]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}


def test_what_cannot_be_taken_is_refused_in_the_protocols_own_form(home: Home, plane: Process) -> None:
    def post(content: bytes, **headers: str) -> httpx.Response:
        return plane.client.post("/v1/traces", content=content, headers=headers)

    good = request({}).SerializeToString()
    protobuf = "application/x-protobuf"
    garbage = post(b"\xff" * 50, **{"content-type": protobuf})
    assert garbage.status_code == 400
    assert garbage.headers["content-type"] == protobuf
    assert garbage.content[:2] == b"\x08\x03"
    assert b"not an export request" in garbage.content
    for status, answer in (
        (400, post(b"{", **JSON)),
        (400, post(b"[]", **JSON)),
        (400, post(b'{"resourceSpans": 1}', **JSON)),
        (400, post(b'{"resourceSpans": [1]}', **JSON)),
        (400, post(b"not spans at all", **PROTOBUF)),
        (400, post(b"no gzip", **PROTOBUF, **{"content-encoding": "gzip"})),
        (400, post(gzip.compress(good)[:-9], **PROTOBUF, **{"content-encoding": "gzip"})),
        (415, post(good, **{"content-type": "text/plain"})),
        (415, plane.client.post("/v1/traces", content=good)),
        (415, post(good, **PROTOBUF, **{"content-encoding": "br"})),
        (413, post(gzip.compress(b"\0" * (33 << 20)), **PROTOBUF, **{"content-encoding": "gzip"})),
        (413, post(b"\0" * ((4 << 20) + 1), **PROTOBUF)),
        (405, plane.client.get("/v1/traces")),
        (401, httpx.post(f"{plane.client.base_url}/v1/traces", content=good)),
        (403, httpx.post(f"{plane.client.base_url}/v1/traces", headers={"authorization": f"Bearer {READER}"})),
    ):
        assert answer.status_code == status
        if answer.headers["content-type"] == "application/json":
            assert set(answer.json()) == {"code", "message"}
    assert spans_of(home) == {}
    assert post(gzip.compress(good), **PROTOBUF, **{"content-encoding": "gzip"}).status_code == 200
    assert len(spans_of(home)) == 1


def test_a_text_that_is_no_utf8_costs_its_own_span_only(home: Home, plane: Process) -> None:
    body = request({"name": "first"}, {"name": "broken-name"}, {"name": "third"}).SerializeToString()
    body = body.replace(b"broken-name", b"broken\xff\xfename"[:11])
    answer = plane.client.post("/v1/traces", content=body, headers=PROTOBUF)
    assert answer.status_code == 200
    assert ExportTraceServiceResponse.FromString(answer.content).partial_success.rejected_spans == 1
    assert {row["name"] for row in spans_of(home).values()} == {"first", "third"}


def test_doubled_and_reordered_requests_are_stored_once(home: Home, plane: Process) -> None:
    bodies = [
        request(*({"span_id": (number * 10 + place + 1).to_bytes(8, "big")} for place in range(10))).SerializeToString()
        for number in range(12)
    ]
    sent = bodies * 3
    random.Random(7).shuffle(sent)
    with ThreadPoolExecutor(8) as senders:
        answers = senders.map(lambda body: plane.client.post("/v1/traces", content=body, headers=PROTOBUF), sent)
        assert [answer.status_code for answer in answers] == [200] * len(sent)
    assert len(spans_of(home)) == 120


def test_the_project_is_the_tokens_whatever_the_spans_say(home: Home, plane: Process) -> None:
    body = request({}, resource={"project": "other", "service.name": "agent", "x-holdtrue-project": "other"})
    assert plane.client.post("/v1/traces", content=body.SerializeToString(), headers=PROTOBUF).status_code == 200
    other = {**PROTOBUF, "x-holdtrue-project": "other"}
    assert plane.client.post("/v1/traces", content=body.SerializeToString(), headers=other).status_code == 404
    assert len(spans_of(home)) == 1
    assert spans_of(home, "other") == {}
    # The same ids in another project are other spans.
    theirs = {**PROTOBUF, "authorization": f"Bearer {OTHER}"}
    assert plane.client.post("/v1/traces", content=body.SerializeToString(), headers=theirs).status_code == 200
    assert len(spans_of(home, "other")) == 1


def killed_rounds(home: Home, rounds: int) -> None:
    """Kill the data plane while four threads send; all that was acknowledged must be there, each once."""
    acknowledged: set[str] = set()
    sent = 0

    def send(plane: Process, number: int) -> set[str]:
        body = request(*({"span_id": (number * 100 + place + 1).to_bytes(8, "big")} for place in range(20)))
        ids = {f"{'01' * 16}{number * 100 + place + 1:016x}" for place in range(20)}
        try:
            answer = plane.client.post("/v1/traces", content=body.SerializeToString(), headers=PROTOBUF)
        except httpx.TransportError:
            return set()
        return ids if answer.status_code == 200 else set()

    for turn in range(rounds):
        plane = home.start()
        with ThreadPoolExecutor(4) as senders:
            jobs = [senders.submit(send, plane, sent + number) for number in range(40)]
            jobs[5 + turn % 20].result()
            os.killpg(plane.popen.pid, 9)
            for job in jobs:
                acknowledged |= job.result()
        plane.popen.wait(20)
        sent += 40
        stored = spans_of(home)
        assert acknowledged <= set(stored)
        assert len(stored) <= sent * 20
    assert len(acknowledged) >= rounds * 20


def test_what_was_acknowledged_survives_sigkill(home: Home) -> None:
    killed_rounds(home, 3)


@pytest.mark.long
def test_what_was_acknowledged_survives_many_sigkills(home: Home) -> None:
    killed_rounds(home, 40)


def test_secrets_reach_no_file(home: Home, plane: Process) -> None:
    canaries = {
        "gen_ai.request.api_key": "canary-api-key-1",
        "http.request.header.authorization": "Bearer canary-header-2",
        "http.request.header.cookie": "canary-cookie-3",
        "url.full": "https://me:canary-user-4@host.example/path?token=canary-query-5#x",
        "note": "use sk-canary6canary6canary6 and AKIACANARY7CANARY7XX please",
        "nested": {"password": "canary-nested-8", "kept": "kept-value"},
        "list": ["ghp_canary9canary9canary9canary9canary9"],
        "input.value": '{"headers": {"Authorization": "Basic canaryTENcanaryTENcanary"}}',
    }
    body = request({"attributes": canaries, "name": "asks with sk-canaryELEVENcanaryELEVEN"})
    assert plane.client.post("/v1/traces", content=body.SerializeToString(), headers=PROTOBUF).status_code == 200
    (stored,) = spans_of(home).values()
    assert "canary" not in str(stored).lower()
    kept = orjson.loads(stored["attributes"])
    assert kept["url.full"] == "https://host.example/path"
    assert kept["nested"] == {"kept": "kept-value"}
    assert kept["note"] == "use [redacted] and [redacted] please"
    assert stored["redacted"] >= 5
    for path in home.path.rglob("*"):
        if path.is_file():
            assert b"canary" not in path.read_bytes().lower(), path


# The same spans, whichever way they come --------------------------------------------------------------------------

TEXT = st.text(max_size=12)
VALUES = st.recursive(
    st.one_of(TEXT, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=True), st.binary(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)
KEYS = st.one_of(TEXT, st.sampled_from(["__proto__", "constructor", "a.b[0]", "gen_ai.prompt", "service.name"]))
SPAN = st.fixed_dictionaries(
    {
        "trace_id": st.binary(min_size=16, max_size=16),
        "span_id": st.binary(min_size=8, max_size=8),
        "name": TEXT,
        "kind": st.integers(0, 5),
        "start_time_unix_nano": st.integers(0, 2**64 - 1),
        "end_time_unix_nano": st.integers(0, 2**64 - 1),
        "attributes": st.dictionaries(KEYS, VALUES, max_size=5),
    }
)


def as_json(value: Any) -> Any:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        if value != value:
            return {"doubleValue": "NaN"}
        return {"doubleValue": value if abs(value) != float("inf") else ("Infinity" if value > 0 else "-Infinity")}
    if isinstance(value, bytes):
        return {"bytesValue": base64.b64encode(value).decode()}
    if isinstance(value, list):
        return {"arrayValue": {"values": [as_json(each) for each in value]}}
    return {"kvlistValue": {"values": [{"key": key, "value": as_json(each)} for key, each in value.items()]}}


@settings(deadline=None)
@given(st.lists(SPAN, max_size=4), st.dictionaries(KEYS, VALUES, max_size=3))
def test_json_and_protobuf_give_the_same_spans(spans: list[dict[str, Any]], resource: dict[str, Any]) -> None:
    data = request(*spans, resource={"service.name": "agent", **resource}).SerializeToString()
    said = {
        "resourceSpans": [
            {
                "resource": {
                    "attributes": [
                        {"key": key, "value": as_json(value)}
                        for key, value in {"service.name": "agent", **resource}.items()
                    ]
                },
                "scopeSpans": [
                    {
                        "scope": {"name": "scope"},
                        "spans": [
                            {
                                "traceId": span["trace_id"].hex(),
                                "spanId": span["span_id"].hex().upper(),
                                "name": span["name"],
                                "kind": span["kind"],
                                "startTimeUnixNano": str(span["start_time_unix_nano"]),
                                "endTimeUnixNano": span["end_time_unix_nano"],
                                "attributes": [
                                    {"key": key, "value": as_json(value)} for key, value in span["attributes"].items()
                                ],
                            }
                            for span in spans
                        ],
                    }
                ],
            }
        ]
    }
    one, other = parse_protobuf(data), parse_json(orjson.dumps(said))
    assert one.spans == other.spans
    assert one.rejected == other.rejected


@settings(deadline=None)
@given(st.binary(max_size=200), st.data())
def test_bytes_that_are_nothing_never_break_the_reader(noise: bytes, data: st.DataObject) -> None:
    whole = request({"attributes": {"a": ["b", {"c": 1}]}}, {}).SerializeToString()
    at = data.draw(st.integers(0, len(whole)))
    for body in (noise, whole[:at] + noise + whole[at:], whole[:at] + noise, whole[at:]):
        for read in (parse_protobuf, parse_json):
            try:
                batch = read(body)
            except InvalidInput:
                continue
            assert all(len(span.trace_id) == 32 for span in batch.spans)


JSONS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=6)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                [
                    "resourceSpans",
                    "scopeSpans",
                    "spans",
                    "traceId",
                    "spanId",
                    "attributes",
                    "key",
                    "value",
                    "events",
                    "links",
                    "kind",
                    "status",
                    "code",
                    "stringValue",
                    "intValue",
                    "arrayValue",
                    "kvlistValue",
                    "values",
                ]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(JSONS, JSONS)
def test_json_of_any_shape_is_read_or_refused(body: Any, span: Any) -> None:
    for value in (body, json_request([span]), json_request([{**json_span(), "attributes": span, "status": body}])):
        try:
            text = orjson.dumps(value)
        except orjson.JSONEncodeError:
            return
        try:
            parse_json(text)
        except BadExport:
            continue


def test_gzip_of_several_members_is_read_and_never_beyond_the_limit() -> None:
    assert otlp.inflate(gzip.compress(b"one") + gzip.compress(b"two"), b"gzip") == b"onetwo"
    assert otlp.inflate(b"plain", b"identity") == b"plain"
    member = gzip.compress(b"\0" * (12 << 20))
    with pytest.raises(TooLarge):
        otlp.inflate(member * 3, b"gzip")
    with pytest.raises(BadExport):
        otlp.inflate(zlib.compress(b"not gzip"), b"gzip")


def test_limits_of_attributes_are_kept_and_counted() -> None:
    many = {f"key{number}": number for number in range(ATTRIBUTES + 10)}
    long = {"k" * 600: "gone", "v": "kept", "": "no name"}
    batch = parse_protobuf(request({"attributes": many}, {"attributes": long}).SerializeToString())
    assert (len(batch.spans[0].attributes), batch.spans[0].dropped) == (ATTRIBUTES, 10)
    assert (batch.spans[1].attributes, batch.spans[1].dropped) == ({"v": "kept"}, 2)


def test_a_busy_sink_says_so_before_anything_is_read(home: Home) -> None:
    error = Unavailable("Too many spans wait.")
    assert orjson.loads(otlp.error_body(error)) == {"code": 14, "message": "Too many spans wait."}
