"""Which releases are put under load, and with which requests."""

from typing import Any

import orjson
import pyarrow as pa
import pytest

import holdtrue as ht
from holdtrue.core.errors import ConfigurationError, InvalidInput
from holdtrue.project.performance import bodies_of, load_test_of, pinned_of
from holdtrue.serving import Bundle, Input, ModelFile
from tests.project.conftest import month


def bundle(*inputs: Input) -> Bundle:
    return Bundle("rel_a", "toy", "happens", inputs, None, {}, ModelFile("onnx", "0" * 64), "happens")


def test_a_release_is_tested_where_it_is_declared_or_a_gate_asks_for_it_and_else_not(toy: ht.Project) -> None:
    assert load_test_of(toy, "happens") is None
    toy.gate("staging", require={"as fast": "performance.regressions == 0"})
    assert load_test_of(toy, "happens") == ht.LoadTest()
    plan = ht.LoadTest(seconds=2.0, margin=0.1)
    toy.evaluation(toy.models["happens"], load=plan)
    assert load_test_of(toy, "happens") == plan
    with pytest.raises(ConfigurationError, match="rounds"):
        toy.evaluation(toy.models["happens"], load=ht.LoadTest(rounds=0))


def test_requests_are_the_newest_rows_in_the_form_of_each_input() -> None:
    table = month("2024-01")
    inputs = (Input("id", "BYTES"), Input("asked_at", "BYTES"), Input("amount", "FP64"), Input("happened", "BOOL"))
    bodies = [orjson.loads(each) for each in bodies_of(bundle(*inputs), table, rows=3)]
    assert len(bodies) == 256
    last = {each["name"]: each for each in bodies[-1]["inputs"]}
    assert last["id"] == {
        "name": "id",
        "datatype": "BYTES",
        "shape": [3],
        "data": table["id"].to_pylist()[-3:],
    }
    assert last["asked_at"]["data"][-1] == table["asked_at"].to_pylist()[-1].isoformat()
    assert last["happened"]["data"] == table["happened"].to_pylist()[-3:]
    times = orjson.loads(bodies_of(bundle(Input("asked_at", "INT64")), table, rows=1)[-1])["inputs"][0]["data"]
    assert times == [int(table["asked_at"].to_pylist()[-1].timestamp()) * 1_000_000]


def test_missing_values_are_null_and_rows_that_lack_an_input_are_refused() -> None:
    table = pa.table({"amount": [1.0, float("nan"), None]})
    sent = orjson.loads(bodies_of(bundle(Input("amount", "FP64")), table, rows=3)[0])["inputs"][0]
    assert sent["data"] == [1.0, None, None]
    with pytest.raises(InvalidInput, match="cannot be put under load"):
        bodies_of(bundle(Input("other", "FP64")), table, rows=1)
    with pytest.raises(InvalidInput, match="cannot be put under load"):
        bodies_of(bundle(Input("amount", "FP64")), table.slice(0, 0), rows=1)


def test_what_a_submission_pins_is_what_is_tested() -> None:
    submission: dict[str, Any] = {
        "release": {"service": "happens", "config": {"output": "happens"}},
        "versions": [
            {"kind": "feature_view", "content": {"a": 1}},
            {"kind": "contract", "content": {"b": 2}},
            {"kind": "model", "content": {"c": 3}},
            {"kind": "policy", "content": {}},
        ],
    }
    found = pinned_of(submission)
    assert found.contents == {"features": {"a": 1}, "contract": {"b": 2}, "model": {"c": 3}}
    assert (found.service, found.config) == ("happens", {"output": "happens"})
