"""Hold an answer to a JSON Schema (2020-12), with a bound on the work; nothing is fetched, and no pattern backtracks.

Patterns run in RE2 (through Arrow), whose time is linear in the text: what a client sends as a schema may be hostile.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson

from holdtrue.core.canonical import canonical_bytes
from holdtrue.core.errors import HoldtrueError, InvalidInput, MissingExtra
from holdtrue.llm.guardrails.model import BadGuardrail, Hit, Steps, Subject

MOST_SCHEMA: Final = 65_536
MOST_DEPTH: Final = 64
MOST_WORK: Final = 200_000
_MOST_KEPT: Final = 64
_LOCAL: Final = re.compile(r"#(?:/.*)?|#[A-Za-z_][\w.-]*")
_DIALECTS: Final = frozenset(
    {"https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-07/schema#"}
)
_HINTS: Final = {
    "required": "required",
    "enum": "one of the declared values",
    "const": "the declared value",
    "additionalProperties": "no other properties",
    "oneOf": "exactly one alternative",
    "anyOf": "one alternative",
}


class TooMuchWork(HoldtrueError):
    """Checking a text against its schema takes more steps than it may."""

    code = "schema_too_much_work"


class NoSchema(HoldtrueError):
    """An answer should follow a schema, and there is none."""

    code = "no_schema"


@dataclass(slots=True)
class _Work:
    """Count the steps of one validation. It travels where jsonschema carries a format checker, to every part of it."""

    tick: Callable[[], None]
    left: int = MOST_WORK

    def step(self) -> None:
        """Count a step; now and then look whether the time is over."""
        self.left -= 1
        if self.left % 64 == 0:
            self.tick()
        if self.left < 0:
            raise TooMuchWork(
                f"Checking the answer took more than {MOST_WORK} steps.",
                why="The schema has alternatives within alternatives, or the answer is very large.",
                mend="Simplify the schema, or ask for shorter answers.",
            )


@dataclass(frozen=True, slots=True)
class Compiled:
    """Hold a schema that is ready to be applied."""

    validator: Any
    errors: Callable[[Any, Callable[[], None]], Iterator[Any]]


def schema_detector(options: Mapping[str, Any]) -> Callable[[Subject], Steps]:
    """Return a detector of what in an answer breaks its schema: the declared one, and the one of a call."""
    declared = compile_schema(options["schema"]) if options["schema"] is not None else None
    most = options["most_errors"]
    # Libraries are loaded now and not in the first call, whose time they would take.
    _library()
    _matches("", "")
    # Calls come again and again with the same schema; compiling it takes milliseconds.
    compiled = lru_cache(maxsize=_MOST_KEPT)(lambda content: compile_schema(orjson.loads(content)))

    def detect(subject: Subject) -> Steps:
        schemas = [] if declared is None else [declared]
        if subject.schema is not None:
            schemas.append(compiled(_content(subject.schema)))
        if not schemas:
            raise NoSchema(
                "There is no schema to check the answer against.",
                why="The guard declares none, and none came with the call.",
                mend="Give the guard the option “schema”, or pass one.",
            )
        yield []
        value, wrong = _parsed(subject.text)
        if not wrong:
            for schema in schemas:
                yield []
                wrong += list(_broken(schema, value, subject, most))
        yield wrong[:most]
        return float(not wrong)

    return detect


def _content(schema: Any) -> bytes:
    try:
        return orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise _bad(f"it is no JSON ({error})") from None


def _library() -> Any:
    try:
        import jsonschema
    except ImportError:
        raise MissingExtra.of("llm", "jsonschema") from None
    return jsonschema


def compile_schema(schema: Any) -> Compiled:
    """Return `schema` ready for use; one that is too large, refers elsewhere or is none raises BadGuardrail."""
    if not isinstance(schema, Mapping | bool):
        raise _bad("it is neither an object nor true or false")
    try:
        size = len(canonical_bytes(schema))
    except InvalidInput as error:
        raise _bad(error.why) from None
    except RecursionError:
        raise _bad(f"it is nested more than {MOST_DEPTH} deep") from None
    if size > MOST_SCHEMA:
        raise _bad(f"it has {size} bytes, more than {MOST_SCHEMA}")
    _check_parts(schema, 0)
    library = _library()
    try:
        library.Draft202012Validator.check_schema(schema)
    except library.SchemaError as error:
        raise _bad(f"at {_path(error.absolute_path)}, {error.message[:200]}") from None
    from referencing import Registry

    validator = _validator_class(library)(schema, registry=Registry())

    def errors(value: Any, tick: Callable[[], None]) -> Iterator[Any]:
        return validator.evolve(format_checker=_Work(tick)).iter_errors(value)

    # A reference to a part that is not there would show only when it is followed.
    _check_references(schema)
    return Compiled(validator, errors)


def _check_parts(part: Any, depth: int) -> None:
    """Refuse what reaches out of the schema, is too deep, or has a pattern that cannot run in linear time."""
    if depth > MOST_DEPTH:
        raise _bad(f"it is nested more than {MOST_DEPTH} deep")
    if isinstance(part, Mapping):
        for key, value in part.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str) and _LOCAL.fullmatch(value) is None:
                raise _bad(f"it refers to “{value[:100]}”, which is outside of it, and nothing is fetched")
            if key in ("$id", "$anchor", "$dynamicAnchor") and depth > 0 and isinstance(value, str):
                raise _bad(f"it uses “{key}” inside; refer to parts by their place, as in #/$defs/name")
            if key == "$schema" and isinstance(value, str) and value not in _DIALECTS:
                raise _bad(f"its dialect “{value[:100]}” is not known here")
            if key == "pattern" and isinstance(value, str):
                _matches(value, "")
            if key == "patternProperties" and isinstance(value, Mapping):
                for pattern in value:
                    _matches(str(pattern), "")
            _check_parts(value, depth + 1)
    elif isinstance(part, Sequence) and not isinstance(part, str | bytes):
        for value in part:
            _check_parts(value, depth + 1)


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        for key, value in part.items():
            if key == "$ref" and isinstance(value, str):
                yield value
            else:
                yield from _references(value)
    elif isinstance(part, list | tuple):
        for value in part:
            yield from _references(value)


def _check_references(schema: Any) -> None:
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    resolver = Registry().resolver_with_root(DRAFT202012.create_resource(schema))
    for target in _references(schema):
        try:
            resolver.lookup(target)
        except (Unresolvable, LookupError, TypeError, ValueError) as error:
            kind = type(error).__name__
            raise _bad(f"it refers to “{target[:100]}”, and there is no such part ({kind})") from None


def _matches(pattern: str, text: str) -> bool:
    """Tell whether an RE2 pattern is found in `text`; raises BadGuardrail for one that RE2 does not take."""
    import pyarrow as pa
    from pyarrow import compute

    try:
        found: Any = compute.call_function(
            "match_substring_regex", [pa.array([text])], compute.MatchSubstringOptions(pattern)
        )
        return bool(found[0].as_py())
    except pa.ArrowInvalid as error:
        raise _bad(f"the pattern “{pattern[:100]}” cannot run in linear time or is none ({str(error)[:100]})") from None


def _validator_class(library: Any) -> Any:
    """Return the 2020-12 validator with counted steps, linear patterns and linear uniqueness."""
    base = library.Draft202012Validator
    error = library.ValidationError

    def counted(check: Any) -> Any:
        def run(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
            if validator.format_checker is not None:
                validator.format_checker.step()
            return check(validator, value, instance, schema) or ()

        return run

    def pattern(validator: Any, value: str, instance: Any, schema: Any) -> Iterator[Any]:
        if isinstance(instance, str) and not _matches(value, instance):
            yield error("pattern")

    def pattern_properties(validator: Any, value: Mapping[str, Any], instance: Any, schema: Any) -> Iterator[Any]:
        if isinstance(instance, Mapping):
            for each, part in value.items():
                for key, item in instance.items():
                    if _matches(each, key):
                        yield from validator.descend(item, part, path=key, schema_path=each)

    def unique_items(validator: Any, value: bool, instance: Any, schema: Any) -> Iterator[Any]:
        if value and isinstance(instance, list) and len({_frozen(item) for item in instance}) < len(instance):
            yield error("uniqueItems")

    def additional(validator: Any, value: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
        if not isinstance(instance, Mapping):
            return
        known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        for key, item in instance.items():
            if key in known or any(_matches(each, key) for each in patterns):
                continue
            if value is False:
                yield error("additionalProperties")
                return
            yield from validator.descend(item, value, path=key)

    own = {
        "pattern": pattern,
        "patternProperties": pattern_properties,
        "uniqueItems": unique_items,
        "additionalProperties": additional,
        "format": lambda *_: (),
    }
    return library.validators.extend(
        base, {key: counted(own.get(key, check)) for key, check in base.VALIDATORS.items()}
    )


def _frozen(value: Any) -> Any:
    """Return a JSON value as one that can be in a set: 1 and 1.0 are equal, 1 and true are not."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, Mapping):
        return ("object", frozenset((key, _frozen(item)) for key, item in value.items()))
    if isinstance(value, list):
        return ("array", tuple(_frozen(item) for item in value))
    return value


def _parsed(text: str) -> tuple[Any, list[Hit]]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        place = min(getattr(error, "pos", 0), len(text))
        return None, [Hit(0, len(text), 1.0, "not_json", f"not JSON at character {place}")]
    if _depth(value) > MOST_DEPTH:
        return None, [Hit(0, len(text), 1.0, "too_deep", f"nested more than {MOST_DEPTH} deep")]
    return value, []


def _depth(value: Any) -> int:
    level, deepest = [value], 0
    while level and deepest <= MOST_DEPTH:
        deepest += 1
        level = [
            item
            for each in level
            if isinstance(each, dict | list)
            for item in (each.values() if isinstance(each, dict) else each)
        ]
    return deepest


def _broken(schema: Compiled, value: Any, subject: Subject, most: int) -> Iterator[Hit]:
    """Yield where a value breaks a schema and by which rule; never the value, which may be anybody's secret."""
    for count, error in enumerate(schema.errors(value, subject.tick)):
        if count >= most:
            return
        rule = str(error.validator)
        reason = f"{_path(error.absolute_path)}: {_HINTS.get(rule, _limit(rule, error.validator_value))}"
        yield Hit(0, len(subject.text), 1.0, rule, reason[:300])


def _limit(rule: str, value: Any) -> str:
    return f"{rule} {value}" if isinstance(value, str | int | float) and len(str(value)) <= 80 else rule


def _path(parts: Any) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{str(part)[:60]}" for part in parts)


def _bad(why: str) -> BadGuardrail:
    return BadGuardrail(
        "The schema cannot be used.",
        why=f"As it is, {why}.",
        mend="Correct the schema: JSON Schema 2020-12 in one piece, patterns without look-around or back-references.",
    )
