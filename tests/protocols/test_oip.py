import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.core.errors import HoldtrueError, TooLarge
from holdtrue.protocols.columns import MAX_ROWS, BadRequest
from holdtrue.protocols.oip import error_body, parse_infer
from holdtrue.serving import Bundle, Input, ModelFile

BUNDLE = Bundle(
    release="rel_a",
    project="flights",
    service="delay",
    inputs=(Input("origin", "BYTES"), Input("seats", "INT16"), Input("load", "FP32"), Input("night", "BOOL")),
    contract=None,
    features={},
    model=ModelFile("onnx", "0" * 64),
    output="late",
)
VALUES: dict[str, list[Any]] = {"origin": ["EWR"], "seats": [120], "load": [0.5], "night": [True]}


def body(rows: int = 1) -> dict[str, Any]:
    return {
        "id": "r1",
        "inputs": [
            {"name": each.name, "shape": [rows], "datatype": each.datatype, "data": VALUES[each.name] * rows}
            for each in BUNDLE.inputs
        ],
    }


def parse(value: Any) -> Any:
    return parse_infer(json.dumps(value).encode(), BUNDLE)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_a_true_request_is_read(rows: int) -> None:
    found = parse(body(rows))
    assert (found.id, found.rows) == ("r1", rows)
    assert found.columns == {name: values * rows for name, values in VALUES.items()}
    assert list(found.columns) == [each.name for each in BUNDLE.inputs]


def changed(place: int, **fields: Any) -> Callable[[dict[str, Any]], Any]:
    def change(request: dict[str, Any]) -> Any:
        request["inputs"][place].update(fields)
        return request

    return change


def without(place: int, field: str) -> Callable[[dict[str, Any]], Any]:
    def change(request: dict[str, Any]) -> Any:
        del request["inputs"][place][field]
        return request

    return change


def with_top(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda request: {**request, **fields}


LIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "not an object": lambda request: [request],
    "null": lambda request: None,
    "no inputs": lambda request: {"id": "r1"},
    "inputs is null": with_top(inputs=None),
    "inputs is empty": with_top(inputs=[]),
    "inputs is an object": lambda request: {"inputs": request["inputs"][0]},
    "an input is a string": with_top(inputs=["origin"]),
    "an input is missing": lambda request: {"inputs": request["inputs"][1:]},
    "an input is unknown": lambda request: {"inputs": [*request["inputs"], {**request["inputs"][0], "name": "tail"}]},
    "an input is given twice": lambda request: {"inputs": [*request["inputs"], request["inputs"][0]]},
    "an unknown field": with_top(input=[]),
    "an unknown field in a tensor": changed(0, dtype="BYTES"),
    "id is a number": with_top(id=7),
    "id is empty": with_top(id=""),
    "id is long": with_top(id="x" * 300),
    "parameters is a list": with_top(parameters=[]),
    "another output": with_top(outputs=[{"name": "score"}]),
    "an output without a name": with_top(outputs=[{}]),
    "outputs is an object": with_top(outputs={"name": "late"}),
    "binary data": changed(0, parameters={"binary_data_size": 4}),
    "no name": without(0, "name"),
    "no shape": without(0, "shape"),
    "no datatype": without(0, "datatype"),
    "no data": without(0, "data"),
    "name is a list": changed(0, name=["origin"]),
    "shape says more": changed(0, shape=[2]),
    "shape says less": changed(0, shape=[0]),
    "shape is negative": changed(0, shape=[-1]),
    "shape is true": changed(0, shape=[True]),
    "shape is a float": changed(0, shape=[1.0]),
    "shape is a string": changed(0, shape="1"),
    "shape is empty": changed(0, shape=[]),
    "shape is a matrix": changed(0, shape=[1, 2]),
    "shape has three sizes": changed(0, shape=[1, 1, 1]),
    "shape is huge": changed(0, shape=[2**62]),
    "shape is beyond all integers": changed(0, shape=[2**70]),
    "data is a string": changed(0, data="EWR"),
    "data is an object": changed(0, data={"0": "EWR"}),
    "data is nested": changed(0, data=[["EWR"]]),
    "data is nested in part": changed(0, shape=[2, 1], data=[["EWR"], "JFK"]),
    "data is nested too deep": changed(0, shape=[1, 1], data=[[["EWR"]]]),
    "data is longer": changed(0, data=["EWR", "JFK"]),
    "datatype is unknown": changed(1, datatype="INT7"),
    "datatype is another": changed(1, datatype="INT32"),
    "datatype is a number": changed(1, datatype=16),
    "datatype is of another case": changed(1, datatype="int16"),
    "a number for a text": changed(0, data=[7]),
    "a text for a number": changed(2, data=["0.5"]),
    "a float for an integer": changed(1, data=[120.0]),
    "a boolean for an integer": changed(1, data=[True]),
    "a boolean for a float": changed(2, data=[False]),
    "an integer for a boolean": changed(3, data=[1]),
    "an integer out of range": changed(1, data=[40_000]),
    "an integer far out of range": changed(1, data=[2**63]),
    "a float out of range": changed(2, data=[1e39]),
    "an object for a value": changed(2, data=[{}]),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
@pytest.mark.parametrize("rows", [1, 3])
def test_a_request_that_lies_is_refused(lie: Callable[[dict[str, Any]], Any], rows: int) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(lie(body(rows)))
    assert list(orjson.loads(error_body(refused.value))) == ["error"]


@pytest.mark.parametrize("text", [b"", b"{", b"nul", b'{"inputs": NaN}', b"\xff", b"[" * 2000, b'{"a": 1} x'])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(BadRequest, match="JSON"):
        parse_infer(text, BUNDLE)


def test_columns_of_different_lengths_are_refused() -> None:
    request = body(2)
    request["inputs"][2].update(shape=[3], data=[0.5] * 3)
    with pytest.raises(BadRequest, match="rows"):
        parse(request)


def test_what_the_protocol_allows_is_read() -> None:
    request = body(2)
    request["inputs"].reverse()
    request["inputs"][0].update(shape=[2, 1], data=[[True], [False]])
    request["inputs"][1].update(shape=[2, 1], parameters={"content_type": "np"})
    request["inputs"][2]["data"] = [None, 3]
    request["parameters"] = {"binary_data_output": True}
    request["outputs"] = [{"name": "late", "parameters": {"binary_data": False}}]
    del request["id"]
    found = parse(request)
    assert found.id is None
    assert found.columns == {
        "origin": ["EWR", "EWR"],
        "seats": [None, 3],
        "load": [0.5, 0.5],
        "night": [True, False],
    }


def test_too_many_rows_are_refused() -> None:
    with pytest.raises(TooLarge):
        parse(body(MAX_ROWS + 1))
    assert parse(body(MAX_ROWS)).rows == MAX_ROWS


def test_names_from_clients_are_cut_in_errors() -> None:
    request = body()
    request["inputs"][0]["name"] = "x" * 10_000
    with pytest.raises(BadRequest) as refused:
        parse(request)
    assert len(str(refused.value)) < 300


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=6,
)


@given(st.data())
def test_whatever_is_changed_the_answer_is_a_request_or_a_refusal(data: Any) -> None:
    request = body(data.draw(st.integers(1, 3)))
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.integers(0, 3))
        field = data.draw(st.sampled_from(["name", "shape", "datatype", "data", "parameters", "other"]))
        request["inputs"][place][field] = data.draw(JSON)
    try:
        found = parse(request)
    except HoldtrueError:
        return
    assert {len(values) for values in found.columns.values()} == {found.rows}


@given(
    st.fixed_dictionaries(
        {
            "origin": st.one_of(st.text(max_size=3), st.integers(), st.none()),
            "seats": st.one_of(
                st.integers(-40_000, 40_000), st.floats(allow_nan=False, allow_infinity=False), st.booleans()
            ),
            "load": st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-5, 5), st.text()),
            "night": st.one_of(st.booleans(), st.integers(0, 1), st.none()),
        }
    )
)
def test_one_row_is_judged_as_two_equal_rows_are(row: dict[str, Any]) -> None:
    def asked(rows: int) -> Any:
        request = body(rows)
        for tensor in request["inputs"]:
            tensor["data"] = [row[tensor["name"]]] * rows
        try:
            return {name: values[0] for name, values in parse(request).columns.items()}
        except BadRequest as refused:
            return refused.what

    assert asked(1) == asked(2)


def test_an_error_is_one_text() -> None:
    error = json.loads(error_body(BadRequest("What.", why="Why.", mend="Mend.")))
    assert error == {"error": "What. Why. Mend."}
