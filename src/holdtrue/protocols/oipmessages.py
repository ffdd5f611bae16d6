"""The messages of the Open Inference Protocol over gRPC, described in code: names and field numbers as published.

What is written on the wire follows from the numbers below; nothing is generated. The descriptors live in a pool of
their own, so that a program may load other software's copy of the same protocol beside them.
"""

from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Final

from holdtrue.core.errors import MissingExtra

PACKAGE: Final = "inference"
SERVICE: Final = f"{PACKAGE}.GRPCInferenceService"
_PARAMETERS: Final = "map InferParameter"
# Of each message its fields, in order: name, number, and type. "*" is a repeated field; another word is a message.
MESSAGES: Final[dict[str, tuple[tuple[str, int, str], ...]]] = {
    "InferParameter": (
        ("bool_param", 1, "bool"),
        ("int64_param", 2, "int64"),
        ("string_param", 3, "string"),
        ("double_param", 4, "double"),
        ("uint64_param", 5, "uint64"),
    ),
    "InferTensorContents": (
        ("bool_contents", 1, "bool*"),
        ("int_contents", 2, "int32*"),
        ("int64_contents", 3, "int64*"),
        ("uint_contents", 4, "uint32*"),
        ("uint64_contents", 5, "uint64*"),
        ("fp32_contents", 6, "float*"),
        ("fp64_contents", 7, "double*"),
        ("bytes_contents", 8, "bytes*"),
    ),
    "ServerLiveRequest": (),
    "ServerLiveResponse": (("live", 1, "bool"),),
    "ServerReadyRequest": (),
    "ServerReadyResponse": (("ready", 1, "bool"),),
    "ModelReadyRequest": (("name", 1, "string"), ("version", 2, "string")),
    "ModelReadyResponse": (("ready", 1, "bool"),),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": (("name", 1, "string"), ("version", 2, "string"), ("extensions", 3, "string*")),
    "ModelMetadataRequest": (("name", 1, "string"), ("version", 2, "string")),
    "TensorMetadata": (("name", 1, "string"), ("datatype", 2, "string"), ("shape", 3, "int64*")),
    "ModelMetadataResponse": (
        ("name", 1, "string"),
        ("versions", 2, "string*"),
        ("platform", 3, "string"),
        ("inputs", 4, "TensorMetadata*"),
        ("outputs", 5, "TensorMetadata*"),
    ),
    "InferInputTensor": (
        ("name", 1, "string"),
        ("datatype", 2, "string"),
        ("shape", 3, "int64*"),
        ("parameters", 4, _PARAMETERS),
        ("contents", 5, "InferTensorContents"),
    ),
    "InferRequestedOutputTensor": (("name", 1, "string"), ("parameters", 2, _PARAMETERS)),
    "ModelInferRequest": (
        ("model_name", 1, "string"),
        ("model_version", 2, "string"),
        ("id", 3, "string"),
        ("parameters", 4, _PARAMETERS),
        ("inputs", 5, "InferInputTensor*"),
        ("outputs", 6, "InferRequestedOutputTensor*"),
        ("raw_input_contents", 7, "bytes*"),
    ),
    "InferOutputTensor": (
        ("name", 1, "string"),
        ("datatype", 2, "string"),
        ("shape", 3, "int64*"),
        ("parameters", 4, _PARAMETERS),
        ("contents", 5, "InferTensorContents"),
    ),
    "ModelInferResponse": (
        ("model_name", 1, "string"),
        ("model_version", 2, "string"),
        ("id", 3, "string"),
        ("parameters", 4, _PARAMETERS),
        ("outputs", 5, "InferOutputTensor*"),
        ("raw_output_contents", 6, "bytes*"),
    ),
    "RepositoryIndexRequest": (("repository_name", 1, "string"), ("ready", 2, "bool")),
    "ModelIndex": (("name", 1, "string"), ("version", 2, "string"), ("state", 3, "string"), ("reason", 4, "string")),
    "RepositoryIndexResponse": (("models", 1, "ModelIndex*"),),
}
_ONE_OF: Final = {"InferParameter": "parameter_choice"}


@lru_cache(maxsize=1)
def messages() -> Any:
    """Return the classes of the messages by name; raise MissingExtra without protobuf."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError:
        raise MissingExtra.of("grpc", "protobuf") from None
    file = descriptor_pb2.FileDescriptorProto(name="holdtrue/oip.proto", package=PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        _describe(file.message_type.add(name=name), fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)  # pyright: ignore[reportAttributeAccessIssue]  # the stub knows the C implementation only
    found = {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in MESSAGES
    }
    return SimpleNamespace(**found)


def _describe(message: Any, fields: tuple[tuple[str, int, str], ...]) -> None:
    """Write the fields into a description of a message."""
    chosen = _ONE_OF.get(message.name)
    if chosen is not None:
        message.oneof_decl.add(name=chosen)
    for name, number, type_ in fields:
        field = message.field.add(name=name, number=number, label=1)
        if chosen is not None:
            field.oneof_index = 0
        if type_ == _PARAMETERS:
            entry = message.nested_type.add(name="ParametersEntry")
            entry.options.map_entry = True
            entry.field.add(name="key", number=1, label=1, type=9)
            entry.field.add(name="value", number=2, label=1, type=11, type_name=f".{PACKAGE}.InferParameter")
            field.label, field.type = 3, 11
            field.type_name = f".{PACKAGE}.{message.name}.ParametersEntry"
            continue
        plain = type_.removesuffix("*")
        if plain != type_:
            field.label = 3
        if plain in MESSAGES:
            field.type, field.type_name = 11, f".{PACKAGE}.{plain}"
        else:
            field.type = field.Type.Value(f"TYPE_{plain.upper()}")
