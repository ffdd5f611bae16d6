"""Match answers with patterns, schemas and calls of tools, in time that grows with the answer's length only."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from holdtrue.core.canonical import canonical_bytes
from holdtrue.core.errors import ConfigurationError, InvalidInput, MissingExtra
from holdtrue.evaluation.testsets import ToolCall
from holdtrue.evaluation.views import short

MAX_PATTERN: Final = 1000
MAX_JSON: Final = 100_000
_SHOWN: Final = 3
_DEEPEST: Final = 20


class BadCheck(ConfigurationError):
    """A check cannot be used: its kind or an option of it is unknown or wrong."""

    code = "bad_check"


def check_pattern(pattern: str) -> str:
    """Return `pattern` if RE2 takes it, else raise BadCheck.

    RE2 answers in time linear in the text, whatever the pattern; Python's own engine can be kept busy for years by
    one answer. It has no look-around and no back-references.
    """
    if not pattern or len(pattern) > MAX_PATTERN:
        raise BadCheck(
            f"A pattern of {len(pattern)} characters cannot be used.",
            why=f"It has between 1 and {MAX_PATTERN}.",
            mend="Use several checks.",
        )
    try:
        found_at(pattern, "")
    except pa.ArrowInvalid as error:
        raise BadCheck(
            f"The pattern “{short(pattern, 80)}” cannot be used.",
            why=f"{error}.",
            mend="Use the syntax of RE2: it has no look-around (?=…) and no back-references \\1.",
            facts={"pattern": pattern},
        ) from None
    return pattern


def found_at(pattern: str, text: str) -> int:
    """Return where (in bytes) `pattern` is first found in `text`, or −1."""
    whole = text.encode("utf-8", "replace").decode()
    found = pc.call_function("find_substring_regex", [pa.array([whole])], pc.MatchSubstringOptions(pattern))
    return int(found[0].as_py())


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raise BadCheck unless `schema` is a JSON schema that needs nothing from elsewhere.

    Raises MissingExtra where jsonschema is not installed.
    """
    kind = _validator(schema)
    for key, value in _keywords(schema):
        if key in ("$ref", "$dynamicRef") and not value.startswith("#"):
            raise _bad_schema(f"It refers to “{short(value, 80)}”.", "Put what it refers to under “$defs”.")
        if key == "pattern":
            check_pattern(value)
    from jsonschema.exceptions import SchemaError

    try:
        kind.check_schema(dict(schema))
    except SchemaError as error:
        raise _bad_schema(f"{_place(error.absolute_path)}: {short(error.message)}.", "Correct it.") from None


def schema_faults(schema: Mapping[str, Any], text: str, *, fenced: bool = False) -> list[str]:
    """Return what is wrong with `text` as JSON of `schema`, in words; nothing if it fits.

    With `fenced` a block of Markdown code around the JSON is taken off first.
    """
    kind = _validator(schema)
    if len(text) > MAX_JSON:
        return [f"It has {len(text):,} characters; at most {MAX_JSON:,} are read as JSON."]
    try:
        value = json.loads(_unfenced(text) if fenced else text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        return [f"It is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."]
    except (ValueError, RecursionError) as error:
        return [f"It is not JSON: {short(str(error))}."]
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    try:
        # An empty registry: nothing is fetched, whatever a schema refers to.
        errors = list(kind(dict(schema), registry=Registry()).iter_errors(value))
    except RecursionError:
        return ["It is nested too deep."]
    except Unresolvable as error:
        return [f"The schema refers to what it does not define: {short(str(error), 80)}."]
    found = sorted(f"{_place(each.absolute_path)}: {short(each.message)}." for each in errors)
    return found[:_SHOWN] + ([f"And {len(found) - _SHOWN} more."] if len(found) > _SHOWN else [])


def _validator(schema: Mapping[str, Any]) -> Any:
    """Return the class that validates by this schema's draft, without what a hostile answer could keep busy."""
    try:
        from jsonschema import Draft202012Validator, validators
    except ImportError:
        raise MissingExtra.of("llm", "jsonschema") from None
    draft: Any = validators.validator_for(dict(schema), default=Draft202012Validator)
    return validators.extend(draft, _QUICK)


def _pattern(_: Any, pattern: str, value: Any, __: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    if isinstance(value, str) and found_at(pattern, value) < 0:
        yield ValidationError(f"{value!r:.80} does not match {pattern!r:.80}")


def _pattern_properties(_: Any, __: Any, ___: Any, ____: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    yield ValidationError("the schema uses patternProperties, which is not supported")


def _unique_items(_: Any, wanted: Any, value: Any, __: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    if wanted and isinstance(value, list) and len({_form(each) for each in value}) < len(value):
        yield ValidationError("the list has an entry twice")


_QUICK: Final[dict[str, Any]] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "uniqueItems": _unique_items,
}


def _form(value: Any) -> bytes:
    """Return bytes that are equal for equal JSON values: 1 is 1.0, and not true."""
    try:
        return canonical_bytes(value)
    except InvalidInput:
        return repr(value).encode("utf-8", "replace")
    except RecursionError:
        return b"nested too deep"


def _keywords(value: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield each key of a schema that has text as its value, at any depth."""
    if depth > 100:
        raise _bad_schema("It is nested more than 100 deep.", "Use “$defs” and “$ref”.")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(inner, str):
                yield str(key), inner
            if key == "patternProperties":
                raise _bad_schema("It uses “patternProperties”, which is not supported.", "Name the properties.")
            yield from _keywords(inner, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _keywords(inner, depth + 1)


def _bad_schema(why: str, mend: str) -> BadCheck:
    return BadCheck("A JSON schema cannot be used.", why=why, mend=mend)


def _place(path: Any) -> str:
    parts = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return short(f"${parts}", 80)


def _unfenced(text: str) -> str:
    inner = text.strip()
    if inner.startswith("```") and inner.endswith("```") and "\n" in inner:
        return inner[inner.index("\n") : -3]
    return text


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def matched_calls(
    expected: Sequence[ToolCall],
    called: Sequence[ToolCall],
    *,
    exact: bool = False,
    ordered: bool = False,
    extra: bool = False,
) -> tuple[float, list[str]]:
    """Return how well calls of tools match the expected ones, in [0, 1], and what is missing or wrong, in words.

    An expected call is matched by at most one call: the pairing with the highest sum, or with `ordered` the one of
    equal places. Expected arguments must be among those given; with `exact` there must be no others. Calls beyond the
    expected ones are a fault unless `extra`.
    """
    if not expected:
        return (0.0, [f"It called {_names(called)}, though no tool was to be called."]) if called else (1.0, [])
    if not called:
        return 0.0, [f"It called no tool; {_names(expected)} was expected."]
    likeness = np.array([[_likeness(one, two, exact) for two in called] for one in expected])
    if ordered:
        pairs = [(at, at) for at in range(min(len(expected), len(called)))]
    else:
        from scipy.optimize import linear_sum_assignment

        rows, columns = linear_sum_assignment(likeness, maximize=True)
        pairs = list(zip(rows.tolist(), columns.tolist(), strict=True))
    got = {row: column for row, column in pairs if likeness[row, column] > 0.0}
    faults: list[str] = []
    for row, call in enumerate(expected):
        if row not in got:
            faults.append(f"{call.name} was not called{' in its place' if ordered else ''}.")
        elif likeness[row, got[row]] < 1.0:
            faults += [f"{call.name}: {fault}" for fault in _argument_faults(call, called[got[row]], exact)]
    more = [call for at, call in enumerate(called) if at not in got.values()]
    if more and not extra:
        faults.append(f"It also called {_names(more)}.")
    total = sum(likeness[row, column] for row, column in got.items())
    return float(total / (len(expected) if extra else max(len(expected), len(called)))), faults


def _likeness(expected: ToolCall, called: ToolCall, exact: bool) -> float:
    """Return 0 for another tool, else one half and more with each argument that fits, up to 1."""
    if expected.name != called.name:
        return 0.0
    wanted = list(_leaves(expected.arguments))
    right = sum(_has(called.arguments, path, value) for path, value in wanted)
    whole = len(wanted) + (len(_extra(expected.arguments, called.arguments)) if exact else 0)
    return 0.5 + 0.5 * (right / whole if whole else 1.0)


def _argument_faults(expected: ToolCall, called: ToolCall, exact: bool) -> list[str]:
    faults: list[str] = []
    for path, value in _leaves(expected.arguments):
        if _has(called.arguments, path, value):
            continue
        there, found = _reached(called.arguments, path)
        name, wanted = ".".join(path), short(_form(value).decode(), 60)
        given = f"{name} is {short(_form(found).decode(), 60)}" if there else f"the argument {name} is missing"
        faults.append(f"{given}; {wanted} was expected.")
    if exact:
        faults += [f"the argument {name} was not expected." for name in _extra(expected.arguments, called.arguments)]
    return faults


def _leaves(value: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path and value of each argument; an object's fields count one by one, lists as wholes."""
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner and len(path) < _DEEPEST:
            yield from _leaves(inner, (*path, str(key)))
        else:
            yield (*path, str(key)), inner


def _has(arguments: Mapping[str, Any], path: Sequence[str], wanted: Any) -> bool:
    there, found = _reached(arguments, path)
    return there and _form(found) == _form(wanted)


def _reached(value: Any, path: Sequence[str]) -> tuple[bool, Any]:
    for part in path:
        if not isinstance(value, Mapping) or part not in value:
            return False, None
        value = value[part]
    return True, value


def _extra(expected: Mapping[str, Any], called: Mapping[str, Any]) -> list[str]:
    wanted = {path for path, _ in _leaves(expected)}
    return [".".join(path) for path, _ in _leaves(called) if path not in wanted]


def _names(calls: Sequence[ToolCall]) -> str:
    shown = ", ".join(short(call.name, 40) for call in calls[:_SHOWN])
    return shown + (f" and {len(calls) - _SHOWN} more" if len(calls) > _SHOWN else "")
