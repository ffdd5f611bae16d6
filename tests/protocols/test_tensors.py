"""Binary tensors: read as the same values in JSON are, and refused where a length, a type or a header lies."""

import json
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.core.errors import InvalidInput, TooLarge
from holdtrue.protocols.bodies import UnsupportedMedia, inflate
from holdtrue.protocols.columns import MAX_ROWS, BadRequest
from holdtrue.protocols.oip import parse_infer
from holdtrue.serving import DATATYPES, Bundle, Input, ModelFile

NUMPY = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "FP32": np.float32,
    "FP64": np.float64,
}
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
ORIGIN = struct.pack("<I", 3) + b"EWR"
PARTS = {"origin": ORIGIN, "seats": b"\x78\x00", "load": b"\x00\x00\x00\x3f", "night": b"\x01"}


def single(datatype: str) -> Bundle:
    return replace(BUNDLE, inputs=(Input("x", datatype),))


def request(*tensors: dict[str, Any], **top: Any) -> bytes:
    return json.dumps({"inputs": list(tensors), **top}).encode()


def binary(name: str, datatype: str, shape: list[Any], size: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def asked(head: bytes, tail: bytes, bundle: Bundle = BUNDLE) -> Any:
    return parse_infer(head + tail, bundle, str(len(head)).encode())


def whole(**parts: bytes) -> tuple[bytes, bytes]:
    """Return the JSON and the tail of a request with one binary row, some of its parts replaced."""
    found = {**PARTS, **parts}
    tensors = [binary(each.name, each.datatype, [1], len(found[each.name])) for each in BUNDLE.inputs]
    return request(*tensors), b"".join(found.values())


def values_of(datatype: str) -> st.SearchStrategy[list[Any]]:
    limits = DATATYPES[datatype]
    if datatype == "BYTES":
        each: st.SearchStrategy[Any] = st.text(max_size=5)
    elif datatype == "BOOL":
        each = st.booleans()
    elif limits is None:
        each = st.floats(width=32 if datatype == "FP32" else 64, allow_nan=False, allow_infinity=False)
    else:
        each = st.integers(*limits)
    return st.lists(each, min_size=1, max_size=5)


def raw(datatype: str, values: list[Any]) -> bytes:
    """Write values in binary form one by one, as the extension's text says."""
    if datatype == "BYTES":
        texts = [value.encode() for value in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return np.array(values, np.dtype(NUMPY[datatype]).newbyteorder("<")).tobytes()


@given(
    st.sampled_from(sorted(DATATYPES)).flatmap(lambda name: st.tuples(st.just(name), values_of(name))), st.booleans()
)
def test_binary_data_is_read_as_the_same_values_in_json_are(given_: tuple[str, list[Any]], nested: bool) -> None:
    datatype, values = given_
    bundle = single(datatype)
    shape = [len(values), 1] if nested else [len(values)]
    plain = {"name": "x", "datatype": datatype, "shape": shape, "data": values}
    tail = raw(datatype, values)
    found = asked(request(binary("x", datatype, shape, len(tail))), tail, bundle)
    expected = parse_infer(request(plain), bundle)
    assert (found.columns, found.rows) == (expected.columns, expected.rows)
    assert [type(value) for value in found.columns["x"]] == [type(value) for value in values]


def test_a_row_in_both_forms_at_once_is_read() -> None:
    found = asked(*whole())
    assert found.columns == {"origin": ["EWR"], "seats": [120], "load": [0.5], "night": [True]}
    plain = {"name": "seats", "datatype": "INT16", "shape": [1], "data": [120]}
    tensors = [
        binary("load", "FP32", [1], 4),
        plain,
        binary("origin", "BYTES", [1], 7),
        {"name": "night", "datatype": "BOOL", "shape": [1], "data": [True]},
    ]
    assert asked(request(*tensors), PARTS["load"] + ORIGIN).columns == found.columns


def test_nan_is_a_missing_value_and_infinity_is_refused() -> None:
    for datatype, kind in (("FP32", np.float32), ("FP64", np.float64)):
        tail = np.array([1.0, np.nan], kind).tobytes()
        found = asked(request(binary("x", datatype, [2], len(tail))), tail, single(datatype))
        assert found.columns == {"x": [1.0, None]}
        for infinite in (np.inf, -np.inf):
            tail = np.array([infinite], kind).tobytes()
            with pytest.raises(BadRequest, match="infinite"):
                asked(request(binary("x", datatype, [1], len(tail))), tail, single(datatype))


@pytest.mark.parametrize(
    "parts",
    [
        {"seats": b"\x78"},
        {"seats": b"\x78\x00\x00"},
        {"seats": b""},
        {"night": b"\x02"},
        {"night": b"\xff"},
        {"load": b"\x00\x00\x00\x00\x00\x00\xe0\x3f"},
        {"origin": b""},
        {"origin": b"EWR"},
        {"origin": struct.pack("<I", 4) + b"EWR"},
        {"origin": struct.pack("<I", 2**32 - 1) + b"EWR"},
        {"origin": struct.pack("<I", 2) + b"EWR"},
        {"origin": ORIGIN * 2},
        {"origin": ORIGIN + b"\x00\x00"},
        {"origin": struct.pack("<I", 2) + b"\xff\xfe"},
    ],
)
def test_bytes_that_are_not_what_the_tensor_says_are_refused(parts: dict[str, bytes]) -> None:
    with pytest.raises(BadRequest):
        asked(*whole(**parts))


@pytest.mark.parametrize("header", [b"", b"-1", b"+5", b"0x10", b"1.0", b" 12", b"1" * 13, b"99999", b"12", b"0"])
def test_a_header_that_is_not_the_length_of_the_json_is_refused(header: bytes) -> None:
    head, tail = whole()
    with pytest.raises(BadRequest):
        parse_infer(head + tail, BUNDLE, header)


@pytest.mark.parametrize("size", [-1, 3, 5, 2**62, 4.0, True, "4", None])
def test_a_size_that_lies_is_refused(size: Any) -> None:
    with pytest.raises(BadRequest):
        asked(request(binary("x", "FP32", [1], size)), b"\x00" * 4, single("FP32"))


def test_binary_data_without_the_header_or_without_a_tensor_is_refused() -> None:
    head, tail = whole()
    with pytest.raises(BadRequest, match="no header"):
        parse_infer(head, BUNDLE)
    with pytest.raises(BadRequest, match="not JSON"):
        parse_infer(head + tail, BUNDLE)
    with pytest.raises(BadRequest, match="no input declares"):
        asked(head, tail + b"\x00")
    plain = {"name": "x", "datatype": "FP32", "shape": [1], "data": [0.5]}
    assert asked(request(plain), b"", single("FP32")).columns == {"x": [0.5]}
    with pytest.raises(BadRequest, match="no input declares"):
        asked(request(plain), b"\x00", single("FP32"))
    both = {**plain, "parameters": {"binary_data_size": 4}}
    with pytest.raises(BadRequest, match="in JSON and in binary"):
        asked(request(both), b"\x00" * 4, single("FP32"))


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_is_refused(datatype: str) -> None:
    with pytest.raises(BadRequest, match="datatype"):
        asked(request(binary("x", datatype, [1], 2)), b"\x00\x3c", single("FP32"))


def test_shapes_beyond_all_memory_cost_nothing() -> None:
    for datatype in ("BYTES", "FP64"):
        with pytest.raises(BadRequest):
            asked(request(binary("x", datatype, [2**40], 8)), b"\x00" * 8, single(datatype))
    rows = MAX_ROWS + 1
    with pytest.raises(TooLarge):
        asked(request(binary("x", "UINT8", [rows], rows)), b"\x00" * rows, single("UINT8"))
    with pytest.raises(BadRequest, match="as its shape says"):
        asked(request(binary("x", "BYTES", [1], 4 * rows)), b"\x00" * 4 * rows, single("BYTES"))


@pytest.mark.parametrize(
    ("top", "output", "expected"),
    [
        ({}, None, False),
        ({"binary_data_output": True}, None, True),
        ({"binary_data_output": True}, {}, True),
        ({"binary_data_output": True}, {"binary_data": False}, False),
        ({}, {"binary_data": True}, True),
        ({"binary_data_output": False}, {"binary_data": True}, True),
    ],
)
def test_the_answer_is_binary_where_it_is_asked_for(top: Any, output: Any, expected: bool) -> None:
    head, tail = whole()
    data = {**json.loads(head), "parameters": top}
    if output is not None:
        data["outputs"] = [{"name": "late", "parameters": output}]
    assert asked(json.dumps(data).encode(), tail).binary is expected


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": {"binary_data_output": 1}},
        {"parameters": {"shared_memory_region": "r"}},
        {"outputs": [{"name": "late", "parameters": {"binary_data": "true"}}]},
        {"outputs": [{"name": "late", "parameters": {"classification": 2}}]},
        {"outputs": [{"name": "late", "parameters": []}]},
    ],
)
def test_parameters_that_cannot_be_kept_are_refused(change: Any) -> None:
    head, tail = whole()
    with pytest.raises(BadRequest):
        asked(json.dumps({**json.loads(head), **change}).encode(), tail)


@given(st.binary(max_size=40), st.binary(max_size=12), st.integers(0, 60))
def test_whatever_is_behind_the_json_the_answer_is_a_request_or_a_refusal(
    tail: bytes, header: bytes, size: int
) -> None:
    head = request(binary("x", "BYTES", [1], size))
    for length in (header, str(len(head)).encode()):
        try:
            found = parse_infer(head + tail, single("BYTES"), length)
        except InvalidInput:
            continue
        assert [len(values) for values in found.columns.values()] == [1]


MATRIX = replace(BUNDLE, inputs=tuple(Input(f"f{place}", "FP32") for place in range(3)), matrix="features")


def test_a_matrix_is_taken_apart_into_the_inputs() -> None:
    rows = np.array([[1, 2, 3], [4, 5, np.nan]], np.float32)
    expected = {"f0": [1.0, 4.0], "f1": [2.0, 5.0], "f2": [3.0, None]}
    head = {"name": "features", "datatype": "FP32", "shape": [2, 3]}
    tail = rows.tobytes()
    assert asked(request({**head, "parameters": {"binary_data_size": 24}}), tail, MATRIX).columns == expected
    flat = [1, 2, 3, 4, 5, None]
    assert parse_infer(request({**head, "data": flat}), MATRIX).columns == expected
    assert parse_infer(request({**head, "data": [flat[:3], flat[3:]]}), MATRIX).columns == expected
    by_name = [{"name": name, "datatype": "FP32", "shape": [2], "data": values} for name, values in expected.items()]
    assert parse_infer(request(*by_name), MATRIX).columns == expected
    for wrong in (
        {**head, "shape": [3, 2], "data": flat},
        {**head, "shape": [6], "data": flat},
        {**head, "data": flat[:5]},
        {**head, "data": [flat[:2], flat[2:]]},
        {**head, "datatype": "FP64", "data": flat},
        {**head, "name": "other", "data": flat},
    ):
        with pytest.raises(BadRequest):
            parse_infer(request(wrong), MATRIX)
    with pytest.raises(BadRequest):
        parse_infer(request({**head, "data": flat}, by_name[0]), MATRIX)
    with pytest.raises(BadRequest, match="no input declares"):
        asked(request({**head, "parameters": {"binary_data_size": 24}}), tail + b"\x00", MATRIX)


def test_bodies_are_inflated_within_a_bound() -> None:
    import gzip
    import zlib

    assert inflate(zlib.compress(b"text"), b"deflate", 10, BadRequest) == b"text"
    assert inflate(gzip.compress(b"text"), b" GZIP", 10, BadRequest) == b"text"
    with pytest.raises(TooLarge):
        inflate(gzip.compress(bytes(1 << 20)), b"gzip", 1000, BadRequest)
    for broken in (b"", b"text", gzip.compress(b"text")[:-3]):
        with pytest.raises(BadRequest):
            inflate(broken, b"gzip", 1000, BadRequest)
    with pytest.raises(UnsupportedMedia):
        inflate(b"text", b"br", 10, BadRequest)
