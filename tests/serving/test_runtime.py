from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.errors import Corrupt
from holdtrue.serving import load_model
from holdtrue.serving.onnxfile import UnsafeModel
from holdtrue.serving.runtime import ModelRefused


def model(nodes: list[Any], inputs: list[Any], outputs: list[Any]) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return proto.SerializeToString()


def info(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


RELU = helper.make_node("Relu", ["x"], ["y"])
REDUCE = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)


def test_only_the_approved_bytes_are_loaded(models: Mapping[str, bytes]) -> None:
    data = models["champion"]
    digest = bytes_hash(data)
    assert load_model(data, digest).features == 6
    with pytest.raises(Corrupt):
        load_model(data[:-1] + b"\0", digest)
    with pytest.raises(Corrupt):
        load_model(data, bytes_hash(models["challenger"]))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (model([RELU], [info("x", [None, 3])], [info("y", [None, 3])]), "their sum 0"),
        (model([REDUCE], [info("x", [None, 3])], [info("y", [])]), "shape"),
        (model([RELU], [info("x", [None, "n"])], [info("y", [None, "n"])]), "how many features"),
        (model([RELU], [info("x", [None])], [info("y", [None])]), "float32 matrix"),
        (
            model([RELU], [info("x", [None, 2], TensorProto.DOUBLE)], [info("y", [None, 2], TensorProto.DOUBLE)]),
            "float32 matrix",
        ),
        (
            model([RELU], [info("x", [None, 2]), info("z", [None, 2])], [info("y", [None, 2])]),
            "float32 matrix",
        ),
        (b"", "runtime"),
    ],
)
def test_a_model_of_another_form_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ModelRefused) as refused:
        load_model(data, bytes_hash(data))
    assert said in refused.value.why


def test_rubbish_is_refused() -> None:
    for data in (b"\x80\x04\x95pickle", b"PK\x03\x04", np.arange(100).tobytes()):
        with pytest.raises((ModelRefused, UnsafeModel)):
            load_model(data, bytes_hash(data))
