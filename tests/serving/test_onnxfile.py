from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from holdtrue.serving.onnxfile import UnsafeModel, check_onnx


def graph(nodes: list[Any], name: str = "g", initializers: list[Any] | None = None) -> Any:
    return helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])],
        initializers or [],
    )


def model(nodes: list[Any], **extra: Any) -> Any:
    return helper.make_model(graph(nodes, **extra), opset_imports=[helper.make_opsetid("", 17)])


def plain() -> Any:
    return model([helper.make_node("Relu", ["x"], ["y"])])


def outside(tensor: Any) -> Any:
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    return tensor


def constant() -> Any:
    return numpy_helper.from_array(np.ones(2, np.float32), "c")


def external_initializer() -> Any:
    return model([helper.make_node("Add", ["x", "c"], ["y"])], initializers=[outside(constant())])


def external_attribute() -> Any:
    return model([helper.make_node("Constant", [], ["y"], value=outside(constant()))])


def external_in_a_branch() -> Any:
    inner = graph([helper.make_node("Add", ["x", "c"], ["y"])], "inner", [outside(constant())])
    return model([helper.make_node("If", ["q"], ["y"], then_branch=inner, else_branch=graph([], "other"))])


def only_the_location_is_given() -> Any:
    tensor = constant()
    tensor.data_location = TensorProto.EXTERNAL
    return model([], initializers=[tensor])


def foreign_node() -> Any:
    return model([helper.make_node("Relu", ["x"], ["y"], domain="com.evil")])


def foreign_node_in_a_branch() -> Any:
    inner = graph([helper.make_node("Run", ["x"], ["y"], domain="com.evil")], "inner")
    return model([helper.make_node("If", ["q"], ["y"], then_branch=inner)])


def foreign_opset() -> Any:
    proto = plain()
    proto.opset_import.add().domain = "com.microsoft"
    return proto


def with_function() -> Any:
    proto = plain()
    proto.functions.add().name = "f"
    return proto


def with_training() -> Any:
    proto = plain()
    proto.training_info.add()
    return proto


def sparse_external() -> Any:
    proto = plain()
    outside(proto.graph.sparse_initializer.add().values)
    return proto


UNSAFE = (
    external_initializer,
    external_attribute,
    external_in_a_branch,
    only_the_location_is_given,
    foreign_node,
    foreign_node_in_a_branch,
    foreign_opset,
    with_function,
    with_training,
    sparse_external,
)


@pytest.mark.parametrize("make", UNSAFE)
def test_what_reaches_out_of_the_file_is_refused(make: Callable[[], Any]) -> None:
    check_onnx(plain().SerializeToString())
    with pytest.raises(UnsafeModel):
        check_onnx(make().SerializeToString())


@pytest.mark.parametrize("make", UNSAFE)
def test_splitting_a_message_hides_nothing(make: Callable[[], Any]) -> None:
    # Parsers merge what is repeated: the last part alone must not decide.
    for data in (
        make().SerializeToString() + plain().SerializeToString(),
        plain().SerializeToString() + make().SerializeToString(),
    ):
        with pytest.raises(UnsafeModel):
            check_onnx(data)


def test_standard_domains_and_compiled_models_pass(models: Mapping[str, bytes]) -> None:
    for data in models.values():
        check_onnx(data)
    check_onnx(model([helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml")]).SerializeToString())


@given(st.data())
def test_damaged_bytes_never_pass_as_less_than_the_parser_sees(models: Mapping[str, bytes], data: Any) -> None:
    whole = bytearray(models["narrow"])
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    try:
        check_onnx(bytes(whole))
    except UnsafeModel:
        return
    parsed = onnx.ModelProto()
    try:
        parsed.ParseFromString(bytes(whole))
    except Exception:  # noqa: BLE001  # the parser raises a class of its own; what it refuses is not loaded
        return
    assert {node.domain for node in parsed.graph.node} <= {"", "ai.onnx", "ai.onnx.ml"}
    assert all(each.data_location == TensorProto.DEFAULT for each in parsed.graph.initializer)
    assert not parsed.functions


@pytest.mark.parametrize("data", [b"\xff" * 20, b"\x0b\x01", b"\x3a\xff\xff\xff\xff\x0f", b"\x00\x00", b"\x0f"])
def test_what_is_no_protocol_buffer_is_refused(data: bytes) -> None:
    with pytest.raises(UnsafeModel):
        check_onnx(data)


def test_a_deep_nest_of_graphs_is_refused() -> None:
    inner = graph([helper.make_node("Relu", ["x"], ["y"])])
    for _ in range(20):
        inner = graph([helper.make_node("If", ["q"], ["y"], then_branch=inner)])
    with pytest.raises(UnsafeModel, match="deep"):
        check_onnx(helper.make_model(inner).SerializeToString())
