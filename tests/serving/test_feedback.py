"""Feedback over HTTP, as people's software sends it."""

from typing import Any

import orjson
import pytest

from holdtrue.core.errors import InvalidInput
from holdtrue.serving.feedback import feedback_columns
from tests.serving.plane_home import OTHER, Home

TRACE, SPAN = "a1" * 16, "b2" * 8
PREDICTION = f"prd_{1:031x}"


def columns(*given: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the columns of some pieces of feedback."""
    return feedback_columns(orjson.dumps({"feedback": list(given)}), 7)[0]


def test_feedback_is_stored_before_it_is_acknowledged_and_a_retry_counts_once(home: Home) -> None:
    home.grant({"ht_svc_test_0000000000000000000000000000000000000000000_000000": {}, OTHER: {"project": "other"}})
    plane = home.start()
    said = {"trace_id": TRACE.upper(), "name": "helpful", "value": True, "comment": "Right at once.", "user": "u1"}
    for _ in range(2):
        assert plane.client.post("/feedback", json=said).json() == {"accepted": 1}
    changed = {**said, "value": False}
    several = [changed, {"prediction_id": PREDICTION, "name": "stars", "value": 4, "range": [1, 5]}]
    assert plane.client.post("/feedback", json={"feedback": several}).json() == {"accepted": 2}
    plane.kill()

    rows = home.records("feedback", "default")
    assert [(row["name"], row["value"], row["kind"]) for row in rows] == [
        ("helpful", 1.0, "bool"),
        ("helpful", 0.0, "bool"),
        ("stars", 4.0, "number"),
    ]
    assert (rows[0]["trace_id"], rows[0]["comment"], rows[0]["user"]) == (TRACE, "Right at once.", "u1")
    assert (rows[2]["prediction_id"], rows[2]["low"], rows[2]["high"]) == (PREDICTION, 1.0, 5.0)
    assert {row["id"][:4] for row in rows} == {"fbk_"}


def test_who_may_not_label_may_not_give_feedback(home: Home) -> None:
    home.grant({"ht_svc_test_0000000000000000000000000000000000000000000_000000": {"permissions": ["predict"]}})
    plane = home.start()
    answer = plane.client.post("/feedback", json={"trace_id": TRACE, "name": "helpful", "value": 1})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


def test_a_piece_is_named_by_what_it_says_and_not_by_when() -> None:
    piece = {"span_id": SPAN, "name": "helpful", "value": 0.5}
    one, other = feedback_columns(orjson.dumps(piece), 1)[0], feedback_columns(orjson.dumps(piece), 2)[0]
    assert one["id"] == other["id"]
    assert one["time"] != other["time"]
    ids = columns(piece, {**piece, "value": 1}, {**piece, "value": True}, {**piece, "user": "u"}, {**piece, "id": "x"})
    assert len(set(ids["id"])) == 5
    assert ids["id"][4] == "x"


@pytest.mark.parametrize(
    "piece",
    [
        {"name": "helpful", "value": 1},
        {"trace_id": "x", "name": "helpful", "value": 1},
        {"trace_id": TRACE + "0", "name": "helpful", "value": 1},
        {"span_id": TRACE, "name": "helpful", "value": 1},
        {"prediction_id": "", "name": "helpful", "value": 1},
        {"prediction_id": "prd_1", "name": "helpful", "value": 1},
        {"prediction_id": PREDICTION[:-1], "name": "helpful", "value": 1},
        {"prediction_id": f"{PREDICTION}~rel_a", "name": "helpful", "value": 1},
        {"prediction_id": f" {PREDICTION}", "name": "helpful", "value": 1},
        {"prediction_id": PREDICTION.upper(), "name": "helpful", "value": 1},
        {"prediction_id": 7, "name": "helpful", "value": 1},
        {"prediction_id": [PREDICTION], "trace_id": TRACE, "name": "helpful", "value": 1},
        {"trace_id": TRACE, "value": 1},
        {"trace_id": TRACE, "name": "", "value": 1},
        {"trace_id": TRACE, "name": "<script>", "value": 1},
        {"trace_id": TRACE, "name": "helpful"},
        {"trace_id": TRACE, "name": "helpful", "value": "yes"},
        {"trace_id": TRACE, "name": "helpful", "value": None},
        {"trace_id": TRACE, "name": "helpful", "value": 1.1},
        {"trace_id": TRACE, "name": "helpful", "value": -0.1},
        {"trace_id": TRACE, "name": "helpful", "value": 1, "range": [2, 1]},
        {"trace_id": TRACE, "name": "helpful", "value": 1, "range": [0]},
        {"trace_id": TRACE, "name": "helpful", "value": 1, "range": [0, "5"]},
        {"trace_id": TRACE, "name": "helpful", "value": 9, "range": [1, 5]},
        {"trace_id": TRACE, "name": "helpful", "value": 1, "comment": "x" * 4001},
        {"trace_id": TRACE, "name": "helpful", "value": 1, "comment": 7},
        {"trace_id": TRACE, "name": "helpful", "value": 1, "user": "x" * 201},
        {"trace_id": TRACE, "name": "helpful", "value": 1, "id": ""},
        {"trace_id": TRACE, "name": "helpful", "value": 1, "project": "other"},
    ],
)
def test_feedback_of_another_form_is_refused_as_a_whole(piece: dict[str, Any]) -> None:
    good = {"trace_id": TRACE, "name": "helpful", "value": 1}
    with pytest.raises(InvalidInput, match="Piece 2 of the list") as refused:
        columns(good, piece)
    assert refused.value.facts == {"position": 2}
    assert refused.value.mend
    with pytest.raises(InvalidInput) as alone:
        feedback_columns(orjson.dumps(piece), 7)
    assert "list" not in alone.value.what


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"1", b"{", b'{"feedback": []}', b'{"feedback": {}}', b'{"feedback": [1]}']
)
def test_bodies_of_another_form_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        feedback_columns(body, 0)


def test_more_than_a_thousand_pieces_are_refused() -> None:
    with pytest.raises(InvalidInput):
        columns(*[{"trace_id": TRACE, "name": "helpful", "value": 1}] * 1001)
