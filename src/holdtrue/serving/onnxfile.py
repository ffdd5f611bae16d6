"""Look through the bytes of an ONNX file for what a server must not load.

ONNX Runtime opens files named inside a model (external data) and runs operators of domains that plugins
bring. Both are found here by walking the protocol buffer wire format along the messages of onnx.proto, so
that no server needs the onnx package. Every occurrence of a field counts, so a message split into parts
(which parsers merge) hides nothing.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from holdtrue.core.errors import InvalidInput

STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml"})

# message -> field number -> message of that field, after onnx.proto
_CHILDREN: Final = MappingProxyType(
    {
        "model": {7: "graph", 8: "opset"},
        "graph": {1: "node", 5: "tensor", 15: "sparse"},
        "node": {5: "attribute"},
        "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
        "sparse": {1: "tensor", 2: "tensor"},
        "tensor": {},
        "opset": {},
    }
)
_DOMAIN: Final = MappingProxyType({"node": 7, "opset": 1})
_TRAINING, _FUNCTIONS, _EXTERNAL_DATA, _DATA_LOCATION = 20, 25, 13, 14
# Attributes of tree ensembles hold each number as a field of its own: runs of floats (field 7) and
# integers (field 8) are skipped in one step.
_NUMBERS: Final = re.compile(rb"(?:\x3d[\x00-\xff]{4})+|(?:\x40[\x80-\xff]{0,9}[\x00-\x7f])+", re.DOTALL)
_MAX_DEPTH: Final = 32


class UnsafeModel(InvalidInput):
    """A model file asks for more than standard operators on data of its own."""

    code = "unsafe_model"


@dataclass(frozen=True, slots=True)
class _Field:
    number: int
    wire: int
    start: int
    end: int
    value: int


def check_onnx(data: bytes) -> None:
    """Raise UnsafeModel if the ONNX bytes name external data, a function, training or a foreign operator."""
    pending: list[tuple[str, int, int, int]] = [("model", 0, len(data), 0)]
    while pending:
        message, start, end, depth = pending.pop()
        if depth > _MAX_DEPTH:
            raise _unsafe(f"it nests more than {_MAX_DEPTH} graphs deep")
        for each in _fields(data, start, end):
            _check_field(data, message, each)
            child = _CHILDREN[message].get(each.number)
            if child is not None:
                if each.wire != 2:
                    raise _unsafe("a message in it has the wrong form")
                pending.append((child, each.start, each.end, depth + 1))


def _check_field(data: bytes, message: str, each: _Field) -> None:
    if message == "model" and each.number in (_TRAINING, _FUNCTIONS):
        raise _unsafe("it brings functions or training graphs")
    if message == "tensor" and each.number == _EXTERNAL_DATA:
        raise _unsafe("a tensor in it lies in another file")
    if message == "tensor" and each.number == _DATA_LOCATION and (each.wire != 0 or each.value != 0):
        raise _unsafe("a tensor in it lies in another file")
    if _DOMAIN.get(message) == each.number:
        domain = data[each.start : each.end].decode("utf-8", "replace")
        if each.wire != 2 or domain not in STANDARD_DOMAINS:
            raise _unsafe(f"it uses operators of the domain {domain[:60]!r}")


def _fields(data: bytes, position: int, end: int) -> Iterator[_Field]:
    while position < end:
        run = _NUMBERS.match(data, position, end)
        if run is not None:
            position = run.end()
            continue
        tag, position = _varint(data, position, end)
        number, wire = tag >> 3, tag & 7
        value, start = 0, position
        if wire == 0:
            value, position = _varint(data, position, end)
        elif wire == 1:
            position += 8
        elif wire == 5:
            position += 4
        elif wire == 2:
            length, start = _varint(data, position, end)
            position = start + length
        else:
            raise _unsafe("it is not a protocol buffer of the present form")
        if position > end or number == 0:
            raise _unsafe("it is cut off or damaged")
        yield _Field(number, wire, start, position, value)


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise _unsafe("it is cut off or damaged")


def _unsafe(why: str) -> UnsafeModel:
    return UnsafeModel(
        "This ONNX file is not served.",
        why=f"As far as its bytes tell, {why}.",
        mend="Export it as one file with operators of ai.onnx and ai.onnx.ml only.",
    )
