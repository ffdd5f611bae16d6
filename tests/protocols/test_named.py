"""The forms of a request with names, and the document that describes them, without a server."""

import json
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from holdtrue.core.errors import InvalidInput, TooLarge
from holdtrue.protocols.bodies import UnsupportedMedia
from holdtrue.protocols.columns import MAX_ROWS, BadRequest, check_columns, check_values, from_csv, from_records
from holdtrue.protocols.invocations import error_body, parse_invocation
from holdtrue.protocols.signature import document, row_schema
from holdtrue.serving import Arm, Bundle, Input, ModelFile, Plan, Route
from holdtrue.serving.assembly import compile_check
from holdtrue.serving.engine import check_contract
from holdtrue.serving.times import read_times

BUNDLE = Bundle(
    release="rel_a",
    project="flights",
    service="delay",
    inputs=(
        Input("origin", "BYTES"),
        Input("seats", "INT16"),
        Input("load", "FP32"),
        Input("night", "BOOL"),
        Input("at", "BYTES"),
    ),
    contract={
        "columns": [
            {"name": "origin", "dtype": "string", "isin": ["EWR", "JFK"], "nullable": True},
            {"name": "seats", "dtype": "int64", "ge": 1},
            {"name": "load", "dtype": "float64", "le": 1.5, "severity": "warn"},
            {"name": "at", "dtype": "timestamp"},
        ]
    },
    features={},
    model=ModelFile("onnx", "0" * 64),
    output="late",
    prediction_time="at",
)
CHECK, MOMENTS = compile_check(BUNDLE)
ROUTE = Route("flights", "delay", "origin", None, (Arm("champion", "rel_a", 100.0),))
PLAN = Plan(ROUTE, BUNDLE, {}, CHECK, MOMENTS, None)
ROW = {"origin": "EWR", "seats": 120, "load": 0.5, "night": True, "at": "2013-03-01T12:00:00Z"}
COLUMNS = {name: [value, value] for name, value in ROW.items()}


def invoked(value: Any, media: bytes = b"application/json") -> Any:
    body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
    return check_columns(parse_invocation(body, media, BUNDLE), BUNDLE)


SPLIT = {"columns": list(ROW), "data": [list(ROW.values())] * 2}
FORMS: dict[str, Any] = {
    "split": {"dataframe_split": SPLIT},
    "split with an index": {"dataframe_split": {**SPLIT, "index": ["a", "b"]}},
    "split in another order": {"dataframe_split": {"columns": list(ROW)[::-1], "data": [list(ROW.values())[::-1]] * 2}},
    "records": {"dataframe_records": [ROW, ROW], "params": None},
    "instances": {"instances": [ROW, ROW], "params": {}},
    "instances in order": {"instances": [list(ROW.values())] * 2},
    "inputs": {"inputs": COLUMNS},
    "inputs as columns of one": {"inputs": {name: [[value], [value]] for name, value in ROW.items()}},
    "inputs in order": {"inputs": [list(ROW.values())] * 2},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_every_form_of_an_invocation_gives_the_same_columns(form: Any) -> None:
    assert invoked(form) == (COLUMNS, 2)


def test_csv_is_read_by_the_datatypes_of_the_inputs() -> None:
    lines = [
        "night,at,origin,seats,load",
        "True,2013-03-01T12:00:00Z,EWR,120,0.5",
        'true,2013-03-01T12:00:00Z,"EWR",120,5e-1',
    ]
    for media in (b"text/csv", b'Text/CSV; charset="UTF-8"'):
        assert invoked("\r\n".join(lines), media) == (COLUMNS, 2)
    assert invoked("\n".join([*lines[:2], "", ""]), b"text/csv")[1] == 1
    assert invoked("origin,seats,load,night,at\n,,,,\n", b"text/csv")[0] == {name: [None] for name in ROW}
    quoted = invoked('origin,seats,load,night,at\n"a\u2028b\nc,""d",1,0.5,false,x\n', b"text/csv")[0]
    assert (quoted["origin"], quoted["night"]) == (['a\u2028b\nc,"d'], [False])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "origin,seats,load,night,at",
        "origin,seats,load,night,at\nEWR,120,0.5,True",
        "origin,seats,load,night,at,at\nEWR,120,0.5,True,x,x",
        "origin,seats,load,night\nEWR,120,0.5,True",
        "origin,seats,load,night,at,tail\nEWR,120,0.5,True,x,N1",
        "origin,seats,load,night,at\nEWR,120.0,0.5,True,x",
        "origin,seats,load,night,at\nEWR,1_0,0.5,True,x",
        "origin,seats,load,night,at\nEWR,99999,0.5,True,x",
        "origin,seats,load,night,at\nEWR,120,nan,True,x",
        "origin,seats,load,night,at\nEWR,120,1e999,True,x",
        "origin,seats,load,night,at\nEWR,120, 0.5,True,x",
        "origin,seats,load,night,at\nEWR,120,0.5,yes,x",
        'origin,seats,load,night,at\n"EWR,120,0.5,True,x',
    ],
)
def test_csv_that_is_wrong_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        invoked(text, b"text/csv")


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        [ROW],
        None,
        {},
        ROW,
        {"inputs": COLUMNS, "instances": [ROW]},
        {"inputs": COLUMNS, "signature_name": "x"},
        {"inputs": COLUMNS, "params": {"temperature": 1}},
        {"inputs": {}},
        {"inputs": {**COLUMNS, "seats": 120}},
        {"inputs": {**COLUMNS, "seats": [[120, 120]]}},
        {"inputs": {**COLUMNS, "seats": [120]}},
        {"inputs": {**COLUMNS, "tail": ["N1", "N1"]}},
        {"inputs": {"origin": ["EWR"]}},
        {"inputs": "EWR"},
        {"instances": []},
        {"instances": {"origin": "EWR"}},
        {"instances": [ROW, list(ROW.values())]},
        {"instances": [["EWR", 120]]},
        {"instances": [{**ROW, "seats": "120"}]},
        {"instances": [{**ROW, "seats": 120.0}]},
        {"dataframe_records": [ROW, {"origin": "EWR"}]},
        {"dataframe_records": [ROW, 7]},
        {"dataframe_records": COLUMNS},
        {"dataframe_records": [[1]]},
        {"dataframe_split": SPLIT["data"]},
        {"dataframe_split": {"columns": list(ROW)}},
        {"dataframe_split": {"data": SPLIT["data"]}},
        {"dataframe_split": {"columns": "origin", "data": SPLIT["data"]}},
        {"dataframe_split": {"columns": [*ROW, "at"], "data": SPLIT["data"]}},
        {"dataframe_split": {"columns": list(ROW), "data": [["EWR"]]}},
        {"dataframe_split": {"columns": list(ROW), "data": 7}},
        {"dataframe_split": {**SPLIT, "index": [0]}},
        {"dataframe_split": {**SPLIT, "dtypes": []}},
    ],
)  # fmt: skip
def test_an_invocation_that_is_wrong_is_refused_in_the_form_of_mlflow(body: Any) -> None:
    with pytest.raises(BadRequest) as refused:
        invoked(body)
    found = orjson.loads(error_body(refused.value))
    assert found["error_code"] == "BAD_REQUEST"
    assert found["message"]


@pytest.mark.parametrize(
    "media",
    [b"", b"text/plain", b"application/vnd.apache.parquet", b"text/csv; charset=latin-1", b"application/json; x=1"],
)
def test_other_content_types_are_refused(media: bytes) -> None:
    with pytest.raises(UnsupportedMedia) as refused:
        invoked({"inputs": COLUMNS}, media)
    assert refused.value.status == 415


def test_too_many_rows_are_refused() -> None:
    for body in ({"instances": [ROW] * (MAX_ROWS + 1)}, {"inputs": {name: [1] * (MAX_ROWS + 1) for name in ROW}}):
        with pytest.raises((TooLarge, BadRequest)):
            invoked(body)
    with pytest.raises(TooLarge):
        from_csv("origin\n" + "EWR\n" * (MAX_ROWS + 1), BUNDLE)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=6,
)


@given(st.sampled_from(sorted({"dataframe_split", "dataframe_records", "instances", "inputs", "params"})), JSON)
def test_whatever_is_invoked_the_answer_is_columns_or_a_refusal(name: str, value: Any) -> None:
    body = json.dumps({name: value}).encode()
    try:
        columns, rows = check_columns(parse_invocation(body, b"application/json", BUNDLE), BUNDLE)
    except (BadRequest, TooLarge):
        return
    assert {len(values) for values in columns.values()} == {rows}


def takes(row: dict[str, Any]) -> bool:
    """Tell whether the service takes a row: the very checks that a request goes through."""
    try:
        columns, _ = check_columns(from_records([row], "the body"), BUNDLE)
        check_contract(PLAN, {**columns, **{name: read_times(name, columns[name]) for name in PLAN.moments}})
    except InvalidInput:
        return False
    return True


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "origin": st.sampled_from(["EWR", "JFK", "LGA", None, 7]),
            "seats": st.sampled_from([0, 1, 120, 2**15 - 1, 2**15, None, "1", True, 0.5]),
            "load": st.sampled_from([0.5, 2, -3.5e38, 1e39, None, "x", False]),
            "night": st.sampled_from([True, False, None, 0]),
            "at": st.sampled_from(["2013-03-01T12:00:00Z", None, 7]),
            "tail": st.just("N1"),
        },
    )
)
def test_the_document_accepts_the_rows_that_the_service_takes(row: dict[str, Any]) -> None:
    assert Draft202012Validator(row_schema(PLAN)).is_valid(row) == takes(row)
    changed = {**ROW, **row}
    assert Draft202012Validator(row_schema(PLAN)).is_valid(changed) == takes(changed)


def test_a_row_that_is_right_is_accepted() -> None:
    assert takes(ROW)
    assert Draft202012Validator(row_schema(PLAN)).is_valid(ROW)
    assert takes({**ROW, "load": 9.5}), "what only warns does not refuse"


def test_moments_in_numbers_are_described_in_microseconds() -> None:
    inputs = (*BUNDLE.inputs[:4], Input("at", "INT64"))
    plan = replace(PLAN, bundle=replace(BUNDLE, inputs=inputs), moments=frozenset())
    at = row_schema(plan)["properties"]["at"]
    assert (at["type"], at["minimum"]) == ("integer", 0)
    assert "icroseconds" in at["description"]


def test_the_document_names_the_address_and_has_no_dead_reference() -> None:
    found = document("delay", PLAN)
    assert list(found["paths"]) == ["/predict/delay"]
    references = {part.split('"')[0] for part in json.dumps(found).split('"$ref": "#/')[1:]}
    for reference in references:
        place: Any = found
        for part in reference.split("/"):
            place = place[part]
    for schema in found["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("datatype", "value", "said"),
    [("INT64", "x", "microseconds"), ("FP64", "x", "numbers"), ("BYTES", 1, "in quotes"), ("BOOL", 1, "true or false")],
)
def test_a_value_of_another_type_is_told_how_it_is_written(datatype: str, value: Any, said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check_values("x", datatype, [value])
    assert said in refused.value.mend


@pytest.mark.parametrize(("value", "said"), [({}, "an object"), (1, "an integer"), ([], "a list"), ("x", "a string")])
def test_what_a_value_is_instead_is_said_in_words(value: Any, said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check_values("x", "BOOL", [value])
    assert refused.value.what == f"The input x is BOOL; its data holds {said}."


@pytest.mark.parametrize("field", ["NaN", "inf", "1_000", "twelve"])
def test_a_field_of_csv_that_is_no_number_is_named_with_its_row(field: str) -> None:
    names = [each.name for each in BUNDLE.inputs]
    line = ["" for _ in names]
    line[names.index("load")] = field
    text = "\n".join([",".join(names), ",".join("" for _ in names), ",".join(line)])
    with pytest.raises(BadRequest) as refused:
        from_csv(text, BUNDLE)
    assert f"row 1 of the CSV text has {field!r}" in refused.value.what
    assert "An empty field is a missing value." in refused.value.mend
