"""Pure translations of an exchange: spans between MLflow's forms and OTLP's, places of artifacts, moments."""

import base64
import binascii
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson

from holdtrue.tracking.model import LARGEST, Metric

_STATUSES = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
# A logged model, by its id or by the place of its files.
_LOGGED = re.compile(r"(?:models:/|.*/models/)(?P<id>m-[0-9A-Za-z_-]+)(?:/artifacts)?/?")
_MODEL_STATUSES = {1: "LOGGED_MODEL_PENDING", 2: "LOGGED_MODEL_READY", 3: "LOGGED_MODEL_UPLOAD_FAILED"}


def point(key: str, value: float, timestamp: int, step: int, nan: bool = False) -> Metric:
    """Return a point as this server keeps it: NaN is marked, an infinity is the greatest double."""
    if nan or math.isnan(value):
        return Metric(key, step, timestamp, 0.0, 1)
    return Metric(key, step, timestamp, max(-LARGEST, min(LARGEST, float(value))), 0)


def whole_ms(text: str) -> int:
    """Return a moment of a folder's file, which old clients wrote with a fraction."""
    return int(text) if text.isdigit() else int(float(text))


def case_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record of an evaluation dataset, as the protocol writes it, in the form in which an import takes it."""
    return {
        "id": row["dataset_record_id"],
        "inputs": row.get("inputs") or {},
        "outputs": row.get("outputs"),
        "expectations": row.get("expectations"),
        "tags": row.get("tags"),
        "source": row.get("source"),
        "created_ms": int(row.get("created_time") or 0),
        "updated_ms": int(row.get("last_update_time") or 0),
        "created_by": row.get("created_by") or "",
        "updated_by": row.get("last_updated_by") or "",
    }


def cases_of(row: Mapping[str, Any], tags: Mapping[str, str]) -> dict[str, Any]:
    """Return an evaluation dataset in the form in which an import takes it."""
    return {
        "id": row["dataset_id"],
        "name": row["name"],
        "digest": row.get("digest") or "",
        "created_ms": int(row.get("created_time") or 0),
        "updated_ms": int(row.get("last_update_time") or 0),
        "created_by": row.get("created_by") or "",
        "updated_by": row.get("last_updated_by") or "",
        "tags": dict(tags),
    }


def version_place(source: str, location: str = "", model: str = "") -> dict[str, str]:
    """Return where a version's files came from, and the logged model that they are, if any.

    A copy of another version names that one as its source; where the files stand is its `location`.
    """
    place = location if location and is_copy(source) else source
    found = _LOGGED.fullmatch(place)
    return {"source": place, "model": model or (found["id"] if found else "")}


def is_copy(source: str) -> bool:
    """Tell whether a version's source is another version."""
    return source.startswith("models:/") and _LOGGED.fullmatch(source) is None


def run_status(value: Any) -> str:
    """Return the status of a run, which old folders write as a number."""
    return _STATUSES.get(value, "FINISHED") if isinstance(value, int) else str(value)


def model_status(value: Any) -> str:
    """Return the status of a logged model."""
    found = _MODEL_STATUSES.get(value, "") if isinstance(value, int) else str(value or "")
    return found if found in _MODEL_STATUSES.values() else "LOGGED_MODEL_READY"


def moment(milliseconds: int) -> str:
    """Return a moment as the protocol's JSON writes it."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"


def duration(milliseconds: int) -> str:
    """Return a duration as the protocol's JSON writes it."""
    return f"{milliseconds // 1000}.{milliseconds % 1000:03d}s"


def local_folder(uri: str, base: Path, served: Path | None) -> Path | None:
    """Return the folder that an address of artifacts names on this machine, or None.

    Relative ones begin at `base`; those of an artifact server stand in `served`.
    """
    parts = urlsplit(uri)
    if parts.scheme == "mlflow-artifacts":
        if served is None:
            return None
        inside = (served / unquote(parts.path).strip("/")).resolve()
        return inside if inside.is_relative_to(served.resolve()) else None
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if parts.scheme == "" and uri:
        return base / uri
    return None


def otlp_of(spans: Iterable[Mapping[str, Any]], trace: str) -> dict[str, Any]:
    """Return spans as MLflow writes them (to files, tables or answers) as an export request in OTLP's JSON.

    They get the id of their `trace`: before version 3 that was not the one its spans shared.
    """
    digits = _hex(trace)
    found = [_span(span, digits) for span in spans]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "mlflow"}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": found}]}]}


def _span(span: Mapping[str, Any], trace: str) -> dict[str, Any]:
    status = span.get("status")
    if not isinstance(status, Mapping):
        status = {"code": span.get("status_code"), "message": span.get("status_message")}
    code = status.get("code") or "UNSET"
    if not str(code).startswith("STATUS_CODE_"):
        code = f"STATUS_CODE_{code}"
    written: dict[str, Any] = {
        "traceId": trace,
        "spanId": _hex(span.get("span_id") or _context(span, "span_id")),
        "name": str(span.get("name", "")),
        "startTimeUnixNano": str(span.get("start_time_unix_nano") or span.get("start_time") or 0),
        "endTimeUnixNano": str(span.get("end_time_unix_nano") or span.get("end_time") or 0),
        "attributes": _attributes(span.get("attributes")),
        "status": {"code": code, "message": str(status.get("message") or "")},
        "events": [
            {
                "name": str(each.get("name", "")),
                "timeUnixNano": str(each.get("time_unix_nano") or each.get("timestamp") or 0),
                "attributes": _attributes(each.get("attributes"), plain=True),
            }
            for each in span.get("events") or ()
        ],
    }
    parent = span.get("parent_span_id") or span.get("parent_id")
    if parent:
        written["parentSpanId"] = _hex(parent)
    return written


def _context(span: Mapping[str, Any], name: str) -> Any:
    context = span.get("context")
    return context.get(name) if isinstance(context, Mapping) else None


def _hex(value: Any) -> str:
    """Return an id as hexadecimal digits, out of these (with 0x before them, too) or out of base64."""
    text = str(value or "").removeprefix("0x").removeprefix("tr-")
    try:
        if len(text) in (16, 32):
            return bytes.fromhex(text).hex()
    except ValueError:
        pass
    try:
        return base64.b64decode(text, validate=True).hex()
    except (binascii.Error, ValueError):
        return text


def _attributes(values: Any, *, plain: bool = False) -> list[dict[str, Any]]:
    """Return attributes in OTLP's JSON; those of spans are JSON each, where they are not OTLP's already."""
    if isinstance(values, list):
        return [{"key": each.get("key"), "value": _camel(each.get("value"))} for each in values]
    if not isinstance(values, Mapping):
        return []
    return [{"key": key, "value": any_value(value if plain else _decoded(value))} for key, value in values.items()]


def _decoded(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


def any_value(value: Any) -> dict[str, Any]:
    """Return a JSON value as an AnyValue of OTLP's JSON."""
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, Mapping):
        return {"kvlistValue": {"values": [{"key": str(key), "value": any_value(each)} for key, each in value.items()]}}
    return {"arrayValue": {"values": [any_value(each) for each in value]}}


def _camel(value: Any) -> dict[str, Any]:
    """Return an AnyValue whose fields are written with underscores as OTLP's JSON writes it."""
    if not isinstance(value, Mapping):
        return {}
    for name, camel in (
        ("string_value", "stringValue"),
        ("bool_value", "boolValue"),
        ("double_value", "doubleValue"),
        ("bytes_value", "bytesValue"),
    ):
        if name in value:
            return {camel: value[name]}
    if "int_value" in value:
        return {"intValue": str(value["int_value"])}
    if "array_value" in value:
        return {"arrayValue": {"values": [_camel(each) for each in (value["array_value"] or {}).get("values", [])]}}
    if "kvlist_value" in value:
        return {"kvlistValue": {"values": _attributes((value["kvlist_value"] or {}).get("values", []))}}
    return {}
