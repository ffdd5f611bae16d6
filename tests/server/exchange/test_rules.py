"""Translations of an exchange: spans of each of MLflow's versions, places of artifacts."""

from pathlib import Path
from typing import Any

import pytest

from holdtrue.protocols.otlpbodies import parse_json
from holdtrue.server.exchange import rules

TRACE = "3b6bc69d772b4f14a1c9e346c84339f5"
VERSION_2 = {
    "name": "inner",
    "context": {"span_id": "0x2143dee1b9c0eb48", "trace_id": "0x360ec3a59054b66f07f54b5cc85cc482"},
    "parent_id": "0x68dd7e7ce8411fa5",
    "start_time": 1_795_696_348_171_602_911,
    "end_time": 1_795_696_348_171_760_175,
    "status_code": "ERROR",
    "status_message": "no",
    "attributes": {"mlflow.spanInputs": '{"x": 1}', "mlflow.spanType": '"LLM"', "odd": "not JSON"},
    "events": [{"name": "e", "timestamp": 1_795_696_348_171_700_000, "attributes": {"a": "b"}}],
}
VERSION_3 = {
    "name": "inner",
    "trace_id": "NgrDpZBUtm8H9UtcyFzEgg==",
    "span_id": "IUPe4bnA60g=",
    "parent_span_id": "aN1+fOhBH6U=",
    "start_time_unix_nano": 1_795_696_348_171_602_911,
    "end_time_unix_nano": 1_795_696_348_171_760_175,
    "status": {"code": "STATUS_CODE_ERROR", "message": "no"},
    "attributes": {"mlflow.spanInputs": '{"x": 1}', "mlflow.spanType": '"LLM"', "odd": "not JSON"},
    "events": [{"name": "e", "time_unix_nano": 1_795_696_348_171_700_000, "attributes": {"a": "b"}}],
}
ANSWERED = {
    **VERSION_3,
    "attributes": [
        {"key": "mlflow.spanInputs", "value": {"kvlist_value": {"values": [{"key": "x", "value": {"int_value": 1}}]}}},
        {"key": "mlflow.spanType", "value": {"string_value": "LLM"}},
        {"key": "odd", "value": {"string_value": "not JSON"}},
    ],
    "events": [
        {
            "name": "e",
            "time_unix_nano": 1_795_696_348_171_700_000,
            "attributes": [{"key": "a", "value": {"string_value": "b"}}],
        }
    ],
}


@pytest.mark.parametrize("span", [VERSION_2, VERSION_3, ANSWERED], ids=["version 2", "version 3", "of an answer"])
def test_spans_of_every_version_become_the_same(span: dict[str, Any]) -> None:
    batch = parse_json(rules_json(rules.otlp_of([span], f"tr-{TRACE}")))
    assert batch.rejected == 0
    (found,) = batch.spans
    assert (found.trace_id, found.span_id, found.parent_id) == (TRACE, "2143dee1b9c0eb48", "68dd7e7ce8411fa5")
    assert (found.start, found.end) == (1_795_696_348_171_602, 1_795_696_348_171_760)
    assert (found.status, found.message) == ("error", "no")
    assert found.attributes == {"mlflow.spanInputs": {"x": 1}, "mlflow.spanType": "LLM", "odd": "not JSON"}
    assert found.events == [{"name": "e", "time": 1_795_696_348_171_700, "attributes": {"a": "b"}}]


def rules_json(body: dict[str, Any]) -> bytes:
    """Return a body as it is sent."""
    import orjson

    return orjson.dumps(body)


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("file:///data/my%20runs/0", "/data/my runs/0"),
        ("/data/0", "/data/0"),
        ("mlruns/0", "/base/mlruns/0"),
        ("mlflow-artifacts:/0/run/artifacts", "/served/0/run/artifacts"),
        ("mlflow-artifacts:/../../etc", None),
        ("mlflow-artifacts:/%2e%2e/x", None),
        ("s3://bucket/0", None),
        ("", None),
    ],
)
def test_artifacts_are_read_where_this_machine_has_them(uri: str, place: str | None) -> None:
    found = rules.local_folder(uri, Path("/base"), Path("/served"))
    assert found == (None if place is None else Path(place))
    assert rules.local_folder("mlflow-artifacts:/0", Path("/base"), None) is None
