"""What every form of a prediction request comes down to: one checked list of values per input of the service.

The forms differ in how they are written; what may be in them does not, so it is checked here, once.
"""

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import StringIO
from math import isfinite
from typing import Any, Final, TypeAlias

from holdtrue.core.errors import InvalidInput, TooLarge
from holdtrue.serving import DATATYPES, Bundle

Columns: TypeAlias = dict[str, list[Any]]
MAX_ROWS: Final = 10_000
_NONE: Final = type(None)
KINDS: Final[Mapping[str, frozenset[type]]] = {
    name: frozenset(
        {bool} if name == "BOOL" else {str} if name == "BYTES" else {int, float} if name[:2] == "FP" else {int}
    )
    for name in DATATYPES
}
# The greatest double that rounds to a finite float32.
FLOAT32_LIMIT: Final = 3.4028235677973362e38
LIMITS: Final[Mapping[str, tuple[float, float] | None]] = {
    **DATATYPES,
    "FP32": (-FLOAT32_LIMIT, FLOAT32_LIMIT),
}
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,20}")


class BadRequest(InvalidInput):
    """A prediction request is not what its protocol, or the service, asks for."""

    code = "bad_inference_request"


def check_columns(columns: Mapping[str, list[Any]], bundle: Bundle) -> tuple[Columns, int]:
    """Return the columns in the order of the service's inputs and how many rows they have.

    Raises BadRequest for inputs that are missing, unknown, of another type or length, and TooLarge.
    """
    ordered: Columns = {}
    rows = -1
    for declared in bundle.inputs:
        name = declared.name
        values = columns.get(name)
        if values is None:
            wanted = ", ".join(each.name for each in bundle.inputs)
            raise BadRequest(
                f"The input {name} is missing.", mend=f"Send all inputs, null for what is not known: {wanted}."
            )
        check_values(name, declared.datatype, values)
        if rows == -1:
            rows = len(values)
        elif len(values) != rows:
            raise BadRequest(f"The input {name} has {len(values)} rows; others have {rows}.")
        ordered[name] = values
    if len(columns) != len(ordered):
        wanted = ", ".join(each.name for each in bundle.inputs)
        unknown = first(columns.keys() - ordered.keys())
        raise BadRequest(f"The service has no input {unknown}.", mend=f"Send these and no others: {wanted}.")
    check_rows(rows)
    return ordered, rows


def check_rows(rows: int) -> None:
    """Raise BadRequest without rows, and TooLarge if there are more than one request may have."""
    if rows < 1:
        raise BadRequest("The request has no rows.")
    if rows > MAX_ROWS:
        raise TooLarge(f"The request has {rows} rows; {MAX_ROWS} are allowed in one.")


def check_values(name: str, datatype: str, values: list[Any]) -> None:
    """Raise BadRequest unless all values of an input are of its datatype, or null."""
    kinds = set(map(type, values))
    wrong = kinds - KINDS[datatype]
    if wrong:
        if wrong != {_NONE}:
            wrong.discard(_NONE)
            found = _json_name(next(iter(wrong)))
            raise BadRequest(f"The input {name} is {datatype}; its data holds {found}.", mend=_written(datatype))
        values = [value for value in values if value is not None]
    limits = LIMITS[datatype]
    if limits is not None and values and not (limits[0] <= min(values) and max(values) <= limits[1]):
        raise BadRequest(f"The input {name} holds a number beyond {datatype}.")


def _written(datatype: str) -> str:
    """Return how values of a type are written."""
    if datatype == "BYTES":
        return "Write texts, in quotes."
    if datatype == "BOOL":
        return "Write true or false."
    if datatype.startswith("FP"):
        return "Write numbers, without quotes."
    return "Write whole numbers, without quotes; a moment is in microseconds since 1970 (UTC)."


def from_records(records: Any, where: str) -> Columns:
    """Return the columns of a list of JSON objects with one set of names."""
    if type(records) is not list or not records:
        raise BadRequest(f"{where[:1].upper()}{where[1:]} must be a list of at least one object.")
    check_rows(len(records))
    head = records[0]
    if type(head) is not dict:
        raise BadRequest(f"{where} holds something that is not an object with names.")
    names = head.keys()
    for row, record in enumerate(records):
        if type(record) is not dict:
            raise BadRequest(f"Row {row} of {where} is not an object with names.")
        if record.keys() != names:
            raise BadRequest(f"Row {row} of {where} has other names than row 0: {first(record.keys() ^ names)}.")
    return {name: [record[name] for record in records] for name in head}


def from_rows(names: Sequence[str], rows: Any, where: str) -> Columns:
    """Return the columns of rows that hold their values in the order of `names`."""
    if type(rows) is not list or not rows:
        raise BadRequest(f"{where} must be a list of at least one row.")
    check_rows(len(rows))
    for number, row in enumerate(rows):
        if type(row) is not list or len(row) != len(names):
            raise BadRequest(f"Row {number} of {where} is not a list of {len(names)} values.")
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def from_csv(text: str, bundle: Bundle) -> Columns:
    """Return the columns of CSV text with a header; each field is read as the datatype of its input.

    An empty field is a missing value.
    """
    columns: dict[str, list[str]] = {}
    lines = csv.reader(StringIO(text, newline=""), strict=True)
    try:
        header = next(lines, [])
        if len(set(header)) != len(header):
            raise BadRequest("A column of the CSV text is there twice.")
        columns = {name: [] for name in header}
        for number, line in enumerate(lines):
            if not line:
                continue
            if len(line) != len(header):
                raise BadRequest(f"Row {number} of the CSV text has {len(line)} fields; the header has {len(header)}.")
            check_rows(number + 1)
            for values, field in zip(columns.values(), line, strict=True):
                values.append(field)
    except csv.Error as error:
        raise BadRequest(f"The body is not CSV: {error}.") from None
    datatypes = {each.name: each.datatype for each in bundle.inputs}
    return {name: _read(name, datatypes.get(name, "BYTES"), values) for name, values in columns.items()}


def _read(name: str, datatype: str, fields: Iterable[str]) -> list[Any]:
    read = _READERS.get(datatype, _float if datatype[:2] == "FP" else _integer)
    values: list[Any] = []
    for row, field in enumerate(fields):
        try:
            values.append(None if field == "" else read(field))
        except ValueError:
            raise BadRequest(
                f"The input {name} is {datatype}; row {row} of the CSV text has {field[:60]!r}.",
                mend=f"{_written(datatype)} An empty field is a missing value.",
            ) from None
    return values


def _integer(field: str) -> int:
    if _INTEGER.fullmatch(field) is None:
        raise ValueError(field)
    return int(field)


def _float(field: str) -> float:
    # Python reads "1_000" and " 1" as well, which no other reader of CSV does.
    value = float(field)
    if not isfinite(value) or "_" in field or field != field.strip():
        raise ValueError(field)
    return value


def _boolean(field: str) -> bool:
    # pandas writes booleans as Python does.
    if field not in ("true", "false", "True", "False"):
        raise ValueError(field)
    return field in ("true", "True")


_READERS: Final[Mapping[str, Callable[[str], Any]]] = {"BYTES": str, "BOOL": _boolean}


def first(names: Iterable[Any]) -> str:
    """Return the first of some names a client sent, short and quoted."""
    return repr(min(str(name) for name in names)[:60])


def _json_name(kind: type) -> str:
    return {
        bool: "a boolean",
        int: "an integer",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }.get(kind, "null")
