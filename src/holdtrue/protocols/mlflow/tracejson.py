"""Traces as the protocol's JSON writes them: infos, assessments, and spans in the form of OTLP."""

import base64
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from holdtrue.core.errors import InvalidInput
from holdtrue.protocols.mlflow.dialect import Fields, text
from holdtrue.traces import StoredSpan
from holdtrue.traces.infos import Assessment, State, TraceInfo, check_trace_id
from holdtrue.tracking import rules

SPANS_LOCATION: Final = "mlflow.trace.spansLocation"
ARTIFACTS: Final = "mlflow.artifactLocation"
REQUEST_ID: Final = "mlflow.traceRequestId"
_KINDS: Final = ("feedback", "expectation")
_STATES: Final = {"ok": "STATUS_CODE_OK", "error": "STATUS_CODE_ERROR", "unset": "STATUS_CODE_UNSET"}
_DURATION = re.compile(r"(\d{1,12})(?:\.(\d{1,9}))?s")


def info_json(info: TraceInfo) -> dict[str, Any]:
    """Return what is known of a trace as the protocol writes it."""
    written: dict[str, Any] = {
        "trace_id": f"tr-{info.id}",
        "trace_location": {
            "type": "MLFLOW_EXPERIMENT",
            "mlflow_experiment": {"experiment_id": str(info.experiment)},
        },
        "request_time": moment_json(info.requested_ms),
        "state": info.state.value,
        "trace_metadata": dict(info.metadata),
        # Says that spans are asked for here, not read from a file of artifacts.
        "tags": {**info.tags, SPANS_LOCATION: "TRACKING_STORE"},
    }
    if info.duration_ms is not None:
        written["execution_duration"] = f"{info.duration_ms // 1000}.{info.duration_ms % 1000:03d}s"
    for name, value in (
        ("client_request_id", info.client_request),
        ("request_preview", info.request),
        ("response_preview", info.response),
    ):
        if value:
            written[name] = value
    if info.assessments:
        written["assessments"] = [assessment_json(each) for each in info.assessments]
    return written


def info_of(body: Any) -> TraceInfo:
    """Return what a request says of a trace; raise InvalidInput."""
    if not isinstance(body, dict):
        raise InvalidInput("Missing value for required parameter 'trace.trace_info'.")
    location = body.get("trace_location")
    named = location.get("mlflow_experiment") if isinstance(location, dict) else None
    if not isinstance(named, dict):
        raise InvalidInput(
            "Invalid value for parameter 'trace_location' supplied.", why="It must name an MLflow experiment."
        )
    state = body.get("state", "STATE_UNSPECIFIED")
    if state not in set(State):
        raise InvalidInput(f"Invalid value {str(state)[:40]!r} for parameter 'state' supplied.")
    return TraceInfo(
        id=check_trace_id(body.get("trace_id")),
        experiment=rules.experiment_id(named.get("experiment_id")),
        requested_ms=moment_of(body.get("request_time"), "request_time"),
        duration_ms=_duration(body.get("execution_duration")),
        state=State(state),
        request=text(body, "request_preview", ""),
        response=text(body, "response_preview", ""),
        client_request=text(body, "client_request_id", ""),
        metadata=_pairs(body, "trace_metadata"),
        tags={key: value for key, value in _pairs(body, "tags").items() if key != SPANS_LOCATION},
    )


def _pairs(body: Fields, name: str) -> dict[str, str]:
    found = body.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise InvalidInput(f"Invalid value for parameter '{name}' supplied.", why="It must be an object of texts.")
    return found


def moment_json(milliseconds: int) -> str:
    """Return a moment as the JSON form of protobuf writes it."""
    seconds, rest = divmod(milliseconds, 1000)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"
    except (ValueError, OverflowError, OSError):
        return "1970-01-01T00:00:00.000Z"


def moment_of(value: Any, name: str) -> int:
    """Return a moment in milliseconds out of the JSON form of protobuf."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None or not 1970 <= moment.year < 9000:
        raise InvalidInput(
            f"Invalid value {str(value)[:60]!r} for parameter '{name}' supplied.",
            why="It must be a moment such as 2026-03-01T12:00:00.250Z.",
        )
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)


def _duration(value: Any) -> int | None:
    if value is None:
        return None
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise InvalidInput(
            f"Invalid value {str(value)[:60]!r} for parameter 'execution_duration' supplied.",
            why="It must be seconds such as 1.250s.",
        )
    return int(match[1]) * 1000 + int((match[2] or "0").ljust(3, "0")[:3])


def assessment_json(row: Assessment) -> dict[str, Any]:
    """Return an assessment as the protocol writes it."""
    return {
        "assessment_id": row.id,
        "assessment_name": row.name,
        "trace_id": f"tr-{row.trace}",
        "create_time": moment_json(row.created_ms),
        "last_update_time": moment_json(row.updated_ms),
        "valid": row.valid,
        **row.body,
        row.kind: _judged(row),
    }


def _judged(row: Assessment) -> dict[str, Any]:
    rest = row.body.get(row.kind) or {}
    if row.kind == "expectation" and isinstance(row.value, dict | list):
        return {"serialized_value": {"serialization_format": "JSON_FORMAT", "value": orjson.dumps(row.value).decode()}}
    return {"value": row.value, **rest}


def assessment_of(trace: str, body: Any, now: int, before: Assessment | None = None) -> Assessment:
    """Return the assessment that a request states, on top of what it was `before`; raise InvalidInput."""
    if not isinstance(body, dict):
        raise InvalidInput("Missing value for required parameter 'assessment'.")
    if body.get("trace_id") not in (None, "", trace, f"tr-{trace}"):
        raise InvalidInput("The assessment names another trace than the address.")
    kinds = [kind for kind in _KINDS if isinstance(body.get(kind), dict)]
    if len(kinds) != 1 and (before is None or kinds):
        raise InvalidInput("Exactly one of 'feedback' and 'expectation' must be given.")
    kind = kinds[0] if kinds else before.kind if before else ""
    if before is not None and kind != before.kind:
        raise InvalidInput(f"A {before.kind} stays one.", mend="Delete the assessment, and log another.")
    value, said = (before.value, dict(before.body)) if before is not None else (None, {})
    if kinds:
        value, rest = _value(body[kind])
        said.pop(kind, None)
        said |= {kind: rest} if rest else {}
    said |= _said(body)
    name = rules.check_text(text(body, "assessment_name", before.name if before else None), "assessment name")
    created = before.created_ms if before else _moment_or(body.get("create_time"), "create_time", now)
    return Assessment(
        before.id if before else "", trace, kind, name, value, said, created, now if before else created,
        before.valid if before else True,
    )  # fmt: skip


def _moment_or(value: Any, name: str, default: int) -> int:
    return default if value is None else moment_of(value, name)


def _value(judged: Fields) -> tuple[Any, dict[str, Any]]:
    """Return the value of a feedback or expectation, and what else it says (an error)."""
    serialized = judged.get("serialized_value")
    if isinstance(serialized, dict):
        try:
            return orjson.loads(str(serialized.get("value", ""))), {}
        except orjson.JSONDecodeError:
            raise InvalidInput("Invalid value for parameter 'serialized_value' supplied.", why="No JSON.") from None
    error = judged.get("error")
    return judged.get("value"), {"error": error} if isinstance(error, dict) else {}


def _said(body: Fields) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for name in ("rationale", "span_id", "overrides"):
        if body.get(name):
            said[name] = text(body, name)
    source = body.get("source")
    if isinstance(source, dict):
        said["source"] = {name: text(source, name, "") for name in ("source_type", "source_id")}
    if body.get("metadata"):
        said["metadata"] = _pairs(body, "metadata")
    return said


def span_json(span: StoredSpan) -> dict[str, Any]:
    """Return a span in the form of OTLP, its ids as protobuf's JSON writes bytes."""
    attributes = {REQUEST_ID: f"tr-{span.trace_id}", "mlflow.spanType": span.operation or "UNKNOWN"}
    written: dict[str, Any] = {
        "trace_id": _bytes(span.trace_id),
        "span_id": _bytes(span.span_id),
        "name": span.name,
        "start_time_unix_nano": span.start * 1000,
        "end_time_unix_nano": span.end * 1000,
        "attributes": _attributes({**attributes, **span.attributes}),
        "status": {"code": _STATES.get(span.status, "STATUS_CODE_UNSET")},
    }
    if span.parent_id:
        written["parent_span_id"] = _bytes(span.parent_id)
    if span.kind != "unspecified":
        written["kind"] = f"SPAN_KIND_{span.kind.upper()}"
    if span.message:
        written["status"]["message"] = span.message
    if span.events:
        written["events"] = [
            {
                "time_unix_nano": int(each.get("time") or 0) * 1000,
                "name": str(each.get("name", "")),
                "attributes": _attributes(each.get("attributes") or {}),
            }
            for each in span.events
        ]
    links = [each for each in span.links if len(str(each.get("trace_id"))) == 32]
    if links:
        written["links"] = [
            {
                "trace_id": _bytes(each["trace_id"]),
                "span_id": _bytes(each["span_id"]),
                "attributes": _attributes(each.get("attributes") or {}),
            }
            for each in links
        ]
    return written


def _bytes(digits: str) -> str:
    return base64.b64encode(bytes.fromhex(digits)).decode()


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _any(value)} for key, value in values.items()]


def _any(value: Any) -> dict[str, Any]:
    """Return a JSON value as an AnyValue of OTLP."""
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"bool_value": value}
    if isinstance(value, int):
        return {"int_value": value}
    if isinstance(value, float):
        return {"double_value": value}
    if isinstance(value, str):
        return {"string_value": value}
    if isinstance(value, Mapping):
        pairs: Mapping[str, Any] = value
        return {"kvlist_value": {"values": _attributes(pairs)}}
    items: Sequence[Any] = value
    return {"array_value": {"values": [_any(each) for each in items]}}
