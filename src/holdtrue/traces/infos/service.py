"""Use cases of traces as wholes: state, tags, assessments, search, deletion.

Deleting a trace and judging one are events of the log; traces being begun and ended are not: an application makes
thousands an hour, and they would bury the decisions.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

import orjson
import sqlalchemy as sa

from holdtrue.core.errors import InvalidInput
from holdtrue.core.filters import Condition, FilterError, Vocabulary, parse_filter, parse_order
from holdtrue.core.paging import place_of, token_of
from holdtrue.storage.ledger import Transaction
from holdtrue.traces.infos import store
from holdtrue.traces.infos.matching import Reader, check_pattern, meets, regular
from holdtrue.traces.infos.model import (
    ASSESSMENTS,
    KEY_LENGTH,
    METADATA_LENGTH,
    MOST_MEASURED,
    PAIRS,
    PREVIEW_LENGTH,
    PROMPTS,
    RUN,
    TAG_LENGTH,
    Assessment,
    NoAssessment,
    NoTrace,
    State,
    TraceInfo,
    TraceSearch,
)
from holdtrue.traces.infos.rules import opinion_of
from holdtrue.traces.model import Feedback, FeedbackFilter

MOST_PAGE: Final = 500
MOST_DELETED: Final = 10_000
_MOST_RATED: Final = 10_000
_MOST_READ: Final = 5_000
_SPAN_KEYS: Final = frozenset({"name", "type", "status", "content"})
_ATTRIBUTES: Final[Mapping[str, tuple[str, type]]] = MappingProxyType(
    {
        "request_id": ("id", str),
        "trace_id": ("id", str),
        "timestamp": ("requested_ms", int),
        "timestamp_ms": ("requested_ms", int),
        "request_time": ("requested_ms", int),
        "execution_time": ("duration_ms", int),
        "execution_time_ms": ("duration_ms", int),
        "end_time": ("ended_ms", int),
        "end_time_ms": ("ended_ms", int),
        "status": ("state", str),
        "state": ("state", str),
        "client_request_id": ("client_request", str),
        "name": ("name", str),
        "run_id": ("run", str),
        "prompt": ("prompt", str),
        "text": ("text", str),
        "experiment_id": ("experiment", int),
    }
)
TRACES: Final = Vocabulary(
    entities=MappingProxyType(
        {
            **dict.fromkeys(("tag", "tags"), "tag"),
            **dict.fromkeys(("metadata", "request_metadata"), "metadata"),
            **dict.fromkeys(("attribute", "attributes", "trace"), "attribute"),
            "span": "span",
            "feedback": "feedback",
            "expectation": "expectation",
        }
    ),
    attributes=_ATTRIBUTES,
    mixed=frozenset({"feedback", "expectation"}),
    regular=True,
)


def check(info: TraceInfo) -> TraceInfo:
    """Return a trace that may be stored; raise InvalidInput for one whose parts are too many or too long."""
    for pairs, longest, what in ((info.tags, TAG_LENGTH, "tag"), (info.metadata, METADATA_LENGTH, "metadata")):
        if len(pairs) > PAIRS:
            raise InvalidInput(f"A trace has at most {PAIRS} entries of {what}.")
        for key, value in pairs.items():
            _check_pair(key, value, longest, what)
    if len(info.client_request) > KEY_LENGTH:
        raise InvalidInput(f"client_request_id exceeds the maximum length of {KEY_LENGTH} characters.")
    return replace(info, request=info.request[:PREVIEW_LENGTH], response=info.response[:PREVIEW_LENGTH])


def _check_pair(key: Any, value: Any, longest: int, what: str) -> None:
    if not isinstance(key, str) or not key or len(key) > KEY_LENGTH:
        raise InvalidInput(f"The key of a {what} is text of 1 to {KEY_LENGTH} characters.")
    if not isinstance(value, str) or len(value) > longest:
        raise InvalidInput(f"The value of the {what} '{key[:80]}' is text of at most {longest} characters.")


def start(tx: Transaction, info: TraceInfo) -> TraceInfo:
    """Write down what a trace's sender says of the whole of it; what spans said before gives way."""
    store.put(tx, check(replace(info, finalized=True)))
    return store.several(tx.connection, tx.project, [info.id])[0]


def begin(tx: Transaction, infos: Sequence[TraceInfo]) -> None:
    """Write down what spans say of their traces, unless their sender said it already."""
    known = store.lines_of(tx.connection, tx.project, [info.id for info in infos])
    for info in infos:
        finalized, deleted = known.get(info.id, (False, False))
        # A child that comes after its root knows less than what is written already.
        if finalized or deleted or (info.id in known and info.state is State.IN_PROGRESS):
            continue
        store.put(tx, check(info))


def end(tx: Transaction, id: str, change: Mapping[str, Any], tags: Mapping[str, str], more: Mapping[str, str]) -> None:
    """Change what is known of a trace, as clients before version 3 end one; `more` is metadata."""
    known = find(tx.connection, tx.project, id)
    tags, metadata = {**known.tags, **tags}, {**known.metadata, **more}
    store.put(tx, check(replace(known, tags=tags, metadata=metadata, finalized=True, **change)))


def find(connection: sa.Connection, project: str, id: str) -> TraceInfo:
    """Return a trace; raise NoTrace."""
    found = store.several(connection, project, [id])
    if not found:
        raise NoTrace.named(f"tr-{id}")
    return found[0]


def several(connection: sa.Connection, project: str, ids: Sequence[str]) -> list[TraceInfo]:
    """Return traces in the order of their ids; those that are not there are left out."""
    return store.several(connection, project, ids)


def within(
    connection: sa.Connection, project: str, experiments: Sequence[int], first_ms: int, last_ms: int
) -> list[TraceInfo]:
    """Return the traces of experiments between two moments; InvalidInput if they are more than are read at once."""
    found = store.within(connection, project, experiments, first_ms, last_ms, MOST_MEASURED + 1)
    if len(found) > MOST_MEASURED:
        raise InvalidInput(
            f"More than {MOST_MEASURED} traces lie in this time.",
            mend="Ask for a shorter time with start_time_ms and end_time_ms, or for fewer experiments.",
        )
    return found


def hidden(connection: sa.Connection, project: str, ids: Sequence[str]) -> frozenset[str]:
    """Return which of these traces were deleted."""
    return frozenset(each for each, (_, deleted) in store.lines_of(connection, project, ids).items() if deleted)


def search(
    connection: sa.Connection, project: str, wish: TraceSearch, spans: Reader
) -> tuple[list[TraceInfo], str | None]:
    """Return a page of traces, and the token of the next; `spans` reads the spans of traces where a filter asks."""
    if not 1 <= wish.limit <= MOST_PAGE:
        raise InvalidInput(
            f"Invalid value {wish.limit} for parameter 'max_results' supplied.",
            why=f"It must be at least 1 and at most {MOST_PAGE}.",
        )
    conditions, orders = parse_filter(wish.filter, TRACES), parse_order(wish.order, TRACES)
    if any(order.subject.entity != "attribute" or order.subject.key in ("text", "prompt") for order in orders):
        raise InvalidInput("Traces are ordered by their attributes only.", mend="For example: timestamp_ms DESC")
    for each in conditions:
        _check_span_key(wish.filter, each)
        _check_prompt(wish.filter, each)
        if each.operator == "RLIKE":
            check_pattern(str(each.value))
    of_spans = [each for each in conditions if _about_spans(each)]
    expressions = [each for each in conditions if each.operator == "RLIKE" and each not in of_spans]
    rest = [_plain(each) for each in conditions if each not in of_spans and each not in expressions]
    later = bool(of_spans or expressions)
    question = ["traces", sorted(set(wish.experiments)), wish.filter, list(wish.order)]
    place = place_of(question, wish.page or None)
    found: list[tuple[TraceInfo, list[Any]]] = []
    read = 0
    while True:
        limit = MOST_PAGE if later else wish.limit + 1 - len(found)
        rows = store.search(connection, project, wish.experiments, rest, orders, limit, place)
        read += len(rows)
        found += [row for row in _found(rows, expressions) if not of_spans or meets(spans(row[0].id), of_spans)]
        if len(found) > wish.limit or len(rows) < limit:
            break
        place = rows[-1][1]
        if read >= _MOST_READ:
            # A page may be short of what was asked for; its token goes on where reading ended.
            return [info for info, _ in found], token_of(question, place)
    shown = found[: wish.limit]
    token = token_of(question, shown[-1][1]) if len(found) > wish.limit else None
    return [info for info, _ in shown], token


def _found(
    rows: list[tuple[TraceInfo, list[Any]]], expressions: Sequence[Condition]
) -> list[tuple[TraceInfo, list[Any]]]:
    """Return the traces that hold every regular expression."""
    for each in expressions:
        held = regular([info for info, _ in rows], each)
        rows = [row for row, holds in zip(rows, held, strict=True) if holds]
    return rows


def _about_spans(condition: Condition) -> bool:
    subject = condition.subject
    return subject.entity == "span" or (subject.entity == "attribute" and subject.key == "text")


def _check_span_key(text: str, condition: Condition) -> None:
    """Refuse a condition on what no span has, and point at it."""
    key = condition.subject.key
    if condition.subject.entity == "span" and key not in _SPAN_KEYS and not key.startswith("attributes."):
        known = "name, type, status, content, attributes.NAME"
        raise FilterError.at(text, max(0, text.find(key)), f"There is no span “{key[:80]}”. Known are: {known}.")


def _check_prompt(text: str, condition: Condition) -> None:
    """Refuse a condition on prompts that is none on one version, and point at it."""
    subject = condition.subject
    if (subject.entity, subject.key) == ("attribute", "prompt") and (
        condition.operator != "=" or "/" not in str(condition.value)
    ):
        raise FilterError.at(
            text, max(0, text.find("prompt")), "Traces of a prompt are those of one version: prompt = 'name/version'."
        )


def _plain(condition: Condition) -> Condition:
    """Return a condition on ids as one on their digits: clients write “tr-” before them."""
    if condition.subject.entity != "attribute" or condition.subject.key != "id":
        return condition
    value = condition.value
    if isinstance(value, tuple):
        return replace(condition, value=tuple(str(each).removeprefix("tr-") for each in value))
    return replace(condition, value=str(value).removeprefix("tr-") if value is not None else None)


def set_tag(tx: Transaction, id: str, key: Any, value: Any) -> None:
    """Set a tag of a trace."""
    _check_pair(key, value, TAG_LENGTH, "tag")
    known = find(tx.connection, tx.project, id)
    if key not in known.tags and len(known.tags) >= PAIRS:
        raise InvalidInput(f"A trace has at most {PAIRS} tags.")
    store.put_pairs(tx, id, "tag", {key: value})


def delete_tag(tx: Transaction, id: str, key: str) -> None:
    """Remove a tag of a trace."""
    find(tx.connection, tx.project, id)
    if not store.delete_pair(tx, id, "tag", key):
        raise NoTrace(f"No tag with name: {key[:100]} in trace with ID tr-{id}.")


def link_run(tx: Transaction, ids: Sequence[str], run: str) -> None:
    """Note the run that traces belong to, for those that name none yet."""
    for info in store.several(tx.connection, tx.project, ids):
        if RUN not in info.metadata:
            store.put_pairs(tx, info.id, "metadata", {RUN: run})


def link_prompts(tx: Transaction, id: str, prompts: Sequence[tuple[str, str]]) -> None:
    """Note the prompt versions a trace used, each once."""
    known = find(tx.connection, tx.project, id)
    try:
        linked = orjson.loads(known.tags.get(PROMPTS, "[]"))
    except orjson.JSONDecodeError:
        linked = None
    if not isinstance(linked, list):
        raise InvalidInput(f"The tag '{PROMPTS}' is no list of prompts.", mend="Delete the tag, then link again.")
    for name, version in prompts:
        line = {"name": name, "version": version}
        if line not in linked:
            linked.append(line)
    set_tag(tx, id, PROMPTS, orjson.dumps(linked).decode())


def delete_traces(
    tx: Transaction, experiment: int, *, ids: Sequence[str] | None, before_ms: int | None, most: int | None
) -> int:
    """Delete traces by their ids, or the oldest up to a moment; return how many went.

    They, their tags and assessments are gone at once, and no page or search shows their spans; the journal keeps the
    spans' own records, which an erasure of their user takes out.
    """
    if (ids is None) == (before_ms is None and most is None):
        raise InvalidInput(
            "Either request_ids, or max_timestamp_millis with an optional max_traces, must be given.",
            mend="Name the traces, or the moment up to which they go.",
        )
    if most is not None and most <= 0:
        raise InvalidInput("'max_traces' must be a positive integer.")
    now = int(tx.now.timestamp() * 1000)
    limit = min(most or MOST_DELETED, MOST_DELETED)
    gone = store.mark_deleted(tx, experiment, now, ids=ids, before_ms=before_ms, most=limit)
    if gone:
        tx.emit("trace.deleted", f"experiment:{experiment}", {"traces": len(gone), "first": gone[0]})
    return len(gone)


def erase(tx: Transaction, ids: Sequence[str]) -> None:
    """Empty traces, whatever experiment they are in, of all that was said in and about them."""
    store.clear(tx, list(ids), int(tx.now.timestamp() * 1000))


def add_assessment(tx: Transaction, row: Assessment) -> Assessment:
    """Judge a trace; one that overrides another makes that one count no more."""
    known = find(tx.connection, tx.project, row.trace)
    if len(known.assessments) >= ASSESSMENTS:
        raise InvalidInput(f"A trace has at most {ASSESSMENTS} assessments.")
    overridden = row.body.get("overrides")
    if overridden:
        find_assessment(tx.connection, tx.project, row.trace, overridden)
        store.set_valid(tx, overridden, valid=False)
    made = replace(row, id=row.id or f"a-{secrets.token_hex(16)}")
    store.put_assessment(tx, made)
    tx.emit("trace.assessed", f"trace:{row.trace}", {"assessment": made.id, "name": made.name})
    return made


def bring_assessments(tx: Transaction, rows: Sequence[Assessment]) -> None:
    """Write assessments of another system down under their own ids; again, it changes nothing."""
    for row in rows:
        store.put_assessment(tx, row)


def change_assessment(tx: Transaction, row: Assessment) -> Assessment:
    """Put an assessment in the place of what it was."""
    find_assessment(tx.connection, tx.project, row.trace, row.id)
    changed = replace(row, updated_ms=int(tx.now.timestamp() * 1000))
    store.put_assessment(tx, changed)
    tx.emit("trace.assessed", f"trace:{row.trace}", {"assessment": row.id, "name": row.name})
    return changed


def find_assessment(connection: sa.Connection, project: str, trace: str, id: str) -> Assessment:
    """Return an assessment of a trace; raise NoAssessment or NoTrace."""
    for each in find(connection, project, trace).assessments:
        if each.id == id:
            return each
    raise NoAssessment.named(id)


def delete_assessment(tx: Transaction, trace: str, id: str) -> None:
    """Remove an assessment; what it overrode counts again. One that is gone already stays gone."""
    known = next((each for each in find(tx.connection, tx.project, trace).assessments if each.id == id), None)
    if known is None:
        return
    store.delete_assessment(tx, trace, id)
    overridden = known.body.get("overrides")
    if isinstance(overridden, str):
        store.set_valid(tx, overridden, valid=True)
    tx.emit("trace.unassessed", f"trace:{trace}", {"assessment": id, "name": known.name})


def opinions(connection: sa.Connection, project: str, ids: Sequence[str]) -> dict[str, tuple[Feedback, ...]]:
    """Return the assessments of traces that are numbers, as feedback."""
    found = store.assessments_of(connection, project, ids)
    return {
        trace: tuple(opinion for each in rows if (opinion := opinion_of(each)) is not None)
        for trace, rows in found.items()
    }


def rated(connection: sa.Connection, project: str, wanted: FeedbackFilter) -> list[str]:
    """Return the traces whose assessments are what is asked for."""
    found = store.named_assessments(connection, project, wanted.name, wanted.least, wanted.most, _MOST_RATED)
    return [each.trace for each in found]
