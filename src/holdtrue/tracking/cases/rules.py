"""Pure rules of evaluation datasets: what a record may be, what joins two of the same inputs, what fields there are."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from holdtrue.core.errors import InvalidInput
from holdtrue.tracking.cases.model import RECORD_LENGTH, RECORDS_PER_REQUEST, USER, Record

SOURCES: Final = frozenset({"UNSPECIFIED", "TRACE", "HUMAN", "DOCUMENT", "CODE"})
_PARTS: Final = ("inputs", "outputs", "expectations")


def read_records(text: str) -> list[dict[str, Any]]:
    """Return the records that a client sent as JSON, checked; raise InvalidInput naming the first that cannot be."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(
            "Invalid value for parameter 'records' supplied.",
            why=f"It is not JSON: {error.msg} at sign {error.pos}. NaN and infinities are none.",
        ) from None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise InvalidInput("Invalid value for parameter 'records' supplied.", why="It must be a list of objects.")
    if len(found) > RECORDS_PER_REQUEST:
        raise InvalidInput(f"A request can hold at most {RECORDS_PER_REQUEST} records. Got {len(found)}.")
    for place, each in enumerate(found):
        _check(each, f"records[{place}]")
    return found


def _check(record: dict[str, Any], what: str) -> None:
    for name in ("inputs", "expectations", "tags", "source"):
        value = record.get(name)
        if (value is None and name == "inputs") or not isinstance(value, dict | None):
            raise InvalidInput(f"Invalid value for parameter '{what}.{name}' supplied.", why="It must be an object.")
    source = record.get("source")
    if source is not None:
        kind = source.get("source_type")
        if not isinstance(kind, str) or kind.upper() not in SOURCES:
            raise InvalidInput(
                f"Invalid dataset record source type: {str(kind)[:80]}.",
                why=f"It is one of {', '.join(sorted(SOURCES))}.",
            )
        if not isinstance(source.get("source_data"), dict | None):
            raise InvalidInput(f"Invalid value for parameter '{what}.source.source_data' supplied.")
    try:
        size = len(orjson.dumps(record))
    except orjson.JSONEncodeError:
        raise InvalidInput(f"'{what}' nests too deep.") from None
    if size > RECORD_LENGTH:
        raise InvalidInput(f"'{what}' exceeds the maximum length of {RECORD_LENGTH} bytes.")


def inputs_hash(inputs: Mapping[str, Any]) -> str:
    """Return what two records of the same inputs have in common, whatever the order of their fields."""
    return hashlib.sha256(orjson.dumps(inputs, option=orjson.OPT_SORT_KEYS)).hexdigest()


def record_hash(inputs: Any, outputs: Any, expectations: Any, tags: Any, source: Any) -> str:
    """Return the hash of what a record says; no tags, expectations or source are the same as empty ones."""
    said = [inputs, outputs, expectations or {}, tags or {}, source or {}]
    return hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()


def names(record: Record, column: str, value: str, traces: Collection[str]) -> bool:
    """Tell whether a record has this value in a field of this name, at any depth, or came from one of these traces.

    Values are compared as they are written, so that 17 and "17" are the same.
    """
    if record.source is not None:
        data = record.source.get("source_data") or {}
        if record.source.get("source_type") == "TRACE" and data.get("trace_id") in traces:
            return True
    said = (record.inputs, record.outputs, record.expectations, record.tags)
    return any_named(said, lambda name, text: name == column and text == value)


def any_named(said: Iterable[Any], meant: Callable[[str, str], bool]) -> bool:
    """Tell whether a field at any depth is meant, by its name and its value as it is written; a list has many."""
    return any(_has(part, meant) for part in said)


def _has(part: Any, meant: Callable[[str, str], bool]) -> bool:
    if isinstance(part, Mapping):
        held: Mapping[Any, Any] = part
        return any(_means(key, each, meant) or _has(each, meant) for key, each in held.items())
    if isinstance(part, list | tuple):
        items: Sequence[Any] = part
        return any(_has(each, meant) for each in items)
    return False


def _means(name: str, found: Any, meant: Callable[[str, str], bool]) -> bool:
    if isinstance(found, list | tuple):
        items: Sequence[Any] = found
        return any(_means(name, each, meant) for each in items)
    return not isinstance(found, Mapping | bool) and found is not None and meant(name, str(found))


def made(sent: Mapping[str, Any], id: str, number: int, now: int) -> Record:
    """Return the record that a client sent first."""
    tags: dict[str, Any] = sent.get("tags") or {}
    source: dict[str, Any] | None = sent.get("source")
    if source is not None:
        source = {"source_type": source["source_type"].upper(), "source_data": source.get("source_data") or {}}
    by = str(tags.get(USER, ""))
    return Record(
        id, number, inputs_hash(sent["inputs"]), sent["inputs"], sent.get("outputs", {}), sent.get("expectations"),
        now, now, by, by, tags, source,
    )  # fmt: skip


def merged(known: Record, sent: Mapping[str, Any], now: int) -> Record:
    """Return a record after the same inputs came again: outputs are replaced, expectations and tags added."""
    tags: dict[str, Any] = sent.get("tags") or {}
    expectations: dict[str, Any] = sent.get("expectations") or {}
    return replace(
        known,
        outputs=sent.get("outputs", known.outputs),
        expectations={**(known.expectations or {}), **expectations} if expectations else known.expectations,
        tags={**known.tags, **tags},
        updated_ms=now,
        updated_by=str(tags.get(USER, known.updated_by)),
    )


def schema(known: Mapping[str, Any] | None, records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return which fields records have, and of which type each was when it first came."""
    found: dict[str, Any] = {part: (known or {}).get(part, {}) for part in _PARTS}
    for record in records:
        for part in _PARTS:
            value = record.get(part)
            if isinstance(value, dict) and isinstance(found[part], dict):
                found[part] = {**{name: _type(each) for name, each in value.items()}, **found[part]}
            elif value is not None and not found[part]:
                found[part] = _type(value)
    return {**found, "version": "1.0"}


def _type(value: Any) -> str:
    names = ((bool, "boolean"), (int, "integer"), (float, "float"), (str, "string"), (list, "array"), (dict, "object"))
    return next((name for kind, name in names if isinstance(value, kind)), "null")


def digest(before: str, parts: Sequence[str]) -> str:
    """Return the digest of a dataset after a change: another for each."""
    return hashlib.sha256(orjson.dumps([before, *parts])).hexdigest()[:8]
