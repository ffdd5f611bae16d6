"""Labels and source events: what reality says afterwards, on the disk before it is acknowledged."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from holdtrue.core.access import Permission
from holdtrue.core.canonical import bytes_hash
from holdtrue.core.errors import InvalidInput, NotFound, TooLarge
from holdtrue.core.ids import check_name, is_prediction_id
from holdtrue.serving.endpoints import Endpoint, Reply, Request
from holdtrue.serving.engine import Engine
from holdtrue.serving.known import Events
from holdtrue.serving.naming import in_environment
from holdtrue.serving.times import read_times
from holdtrue.storage import Writer

MAX_ROWS: Final = 100_000
_LABEL_FIELDS: Final = frozenset({"id", "key", "prediction_id", "value", "time"})
_HAPPENED: Final = (0, 1)
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})


class BadRecords(InvalidInput):
    """Labels or events do not have the form that is asked for."""

    code = "bad_records"


def intake_endpoints(engine: Engine, records: Writer, features: Events) -> tuple[Endpoint, ...]:
    """Return the endpoints that take labels and events.

    `records` is a strict writer: what is acknowledged is on the disk. `features` are brought up to date by events.
    """

    async def labels(request: Request) -> Reply:
        body = _object(request.body, {"service", "labels", "columns"})
        service = body.get("service")
        if type(service) is not str:
            raise _bad("The field service is missing.")
        check_name(service, "service name")
        service = engine.table.name(request.project, in_environment(request, service))
        if (request.project, service) not in engine.table.services:
            raise NotFound.of("service", service)
        classes, event = engine.classes(request.project, service), engine.predicts_event(request.project, service)
        columns, rows = label_columns(body, service, engine.now_us(), classes, event=event)
        await records.append_async("label", request.project, service, columns, rows)
        return Reply(200, orjson.dumps({"accepted": rows}))

    async def events(request: Request) -> Reply:
        source = check_name(request.path[0], "source name")
        found = _columns(_object(request.body, {"columns"}).get("columns"))
        await keep(request.project, {source: found})
        return Reply(200, orjson.dumps({"accepted": found[1]}))

    async def events_of_sources(request: Request) -> Reply:
        sources = _sources(_object(request.body, {"sources"}).get("sources"))
        await keep(request.project, sources)
        return Reply(200, orjson.dumps({"accepted": {source: rows for source, (_, rows) in sources.items()}}))

    async def keep(project: str, sources: Mapping[str, tuple[dict[str, list[Any]], int]]) -> None:
        views, now_us = engine.table.views.get(project, ()), engine.now_us()
        kept: dict[str, tuple[dict[str, Any], int]] = {}
        for source, (columns, rows) in sources.items():
            times = {view.time for view in views if view.source == source}
            created = {view.created for view in views if view.source == source and view.created is not None}
            kept[source] = event_columns(columns, rows, source, times, now_us, created - times), rows
        # What the feature store cannot use is refused before anything is kept. Then both wait for the disk at the
        # same time; should one fail, the client sends the events again, and rows known by their ids count once.
        prepared = await features.prepare(project, kept)
        waiting = [features.take(project, prepared)]
        try:
            for source, (record, rows) in kept.items():
                waiting.append(records.appending("event", project, source, record, rows))
        finally:
            ended = await asyncio.gather(*waiting, return_exceptions=True)
        for failure in ended:
            if failure is not None:
                raise failure

    return (
        Endpoint("POST", "/labels", Permission.LABELS_WRITE, labels),
        Endpoint("POST", "/events", Permission.EVENTS_WRITE, events_of_sources),
        Endpoint("POST", "/events/{source}", Permission.EVENTS_WRITE, events),
    )


def label_columns(
    body: Mapping[str, Any], service: str, now_us: int, classes: Sequence[str] = (), *, event: bool = False
) -> tuple[dict[str, Any], int]:
    """Return the journal columns of a body of labels, given as a list of objects or as columns.

    A label without an id gets one from its content, so that the same label sent twice counts once
    while a corrected value is a new record. Of a service that tells `classes` apart, a value is the name or the number
    of one; of one that predicts an `event`, whether it came.
    """
    if ("labels" in body) == ("columns" in body):
        raise _bad("Exactly one of the fields labels and columns is needed.")
    if "labels" in body:
        given, rows = _from_objects(body["labels"])
    else:
        given, rows = _columns(body["columns"])
        if not given.keys() <= _LABEL_FIELDS:
            raise _bad(f"Unknown column {min(given.keys() - _LABEL_FIELDS)[:60]!r}.")
    nothing = [None] * rows
    keys, predictions = given.get("key", nothing), given.get("prediction_id", nothing)
    _check_about(keys, predictions)
    values = given.get("value")
    if classes and values is not None:
        values = [_class(value, classes) for value in values]
    if values is None or not all(type(value) in (int, float, bool) for value in values):
        raise _bad("A label's value is not a number or a boolean.")
    odd = next((value for value in values if value not in _HAPPENED), None) if event else None
    if odd is not None:
        raise BadRecords(
            f"A label's value is {odd:g}, neither 0 nor 1.",
            why=f"The service {service} answers with the probability of an event.",
            mend="Send 1 or true where the event came, else 0 or false; see docs/guide/serving.md.",
        )
    times = read_times("time", given["time"]) if "time" in given else [now_us] * rows
    said = zip(keys, predictions, values, times, strict=True)
    ids = given.get("id") or [f"lbl_{bytes_hash(orjson.dumps([service, *label]))[:26]}" for label in said]
    return {
        "id": _texts("id", ids),
        "time": times,
        "key": keys,
        "prediction_id": predictions,
        "value": values,
        "known_at": now_us,
    }, rows


def _check_about(keys: Sequence[Any], predictions: Sequence[Any]) -> None:
    """Raise BadRecords for a label that names no prediction; its place, which begins at 1, is told."""
    for place, (key, prediction) in enumerate(zip(keys, predictions, strict=True), 1):
        if prediction is None:
            if key is None:
                raise BadRecords(
                    f"Label {place} has neither key nor prediction_id.",
                    mend="The form of labels and events stands in docs/guide/serving.md.",
                    facts={"position": place},
                )
        elif type(prediction) is not str or not is_prediction_id(prediction):
            raise BadRecords(
                f"The prediction_id of label {place} is none.",
                why=f"{str(prediction)[:60]!r} is not “prd_” and 31 hexadecimal digits, as answers come with.",
                mend="Send the id as it stands in the answer: prediction_id, or one of parameters.prediction_ids.",
                facts={"position": place},
            )


def _class(value: Any, classes: Sequence[str]) -> int:
    """Return the number of the class that a label names."""
    if type(value) is str and value in classes:
        return classes.index(value)
    if type(value) in (int, float) and value in range(len(classes)):
        return int(value)
    raise _bad(f"A label's value is none of the classes {', '.join(classes)[:300]}, nor the number of one.")


def event_columns(
    columns: dict[str, list[Any]],
    rows: int,
    source: str,
    time_columns: set[str],
    now_us: int,
    created_columns: set[str] | frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Return the journal columns of source events: those given, moments in microseconds, with id and time.

    `time_columns` are the columns that feature views read as the moment of a row, `created_columns` those that they
    read as the moment from which it counts.
    """
    record: dict[str, Any] = dict(columns)
    for name in sorted(time_columns | created_columns | {"time"}):
        if name in record:
            record[name] = read_times(name, record[name])
        elif name in time_columns | created_columns:
            raise _bad(f"The events of {source} have no column {name[:60]!r}.")
    if "time" not in record:
        first = min(time_columns, default=None)
        record["time"] = record[first] if first is not None else [now_us] * rows
    if "id" in record:
        record["id"] = _texts("id", record["id"])
    else:
        record["id"] = _event_ids(columns, source)
    # So that a replay can tell what had come when an answer was given.
    record.setdefault("known_at", now_us)
    return record


def _event_ids(columns: Mapping[str, list[Any]], source: str) -> list[str]:
    """Name events by their content: sent again they count once, while equal rows of one request are several."""
    names = sorted(columns)
    seen: Counter[bytes] = Counter()
    ids: list[str] = []
    for line in zip(*(columns[name] for name in names), strict=True):
        said = orjson.dumps([source, *line])
        ids.append(f"evn_{bytes_hash(b'%d %s' % (seen[said], said))[:26]}")
        seen[said] += 1
    return ids


def _from_objects(labels: Any) -> tuple[dict[str, list[Any]], int]:
    if type(labels) is not list or not labels:
        raise _bad("The field labels is not a list of at least one label.")
    _check_rows(len(labels))
    names: set[str] = set()
    for label in labels:
        if type(label) is not dict:
            raise _bad("A label is not a JSON object.")
        names |= label.keys()
    if not names <= _LABEL_FIELDS:
        raise _bad(f"Unknown field {min(names - _LABEL_FIELDS)[:60]!r} in a label.")
    if names & {"id", "time"} and not all((names & {"id", "time"}) <= label.keys() for label in labels):
        raise _bad("Either all labels have an id and a time, or none has.")
    return {name: [label.get(name) for label in labels] for name in names}, len(labels)


def _columns(columns: Any) -> tuple[dict[str, list[Any]], int]:
    if type(columns) is not dict or not columns:
        raise _bad("The field columns is not an object of lists.")
    rows = -1
    for name, values in columns.items():
        if type(values) is not list:
            raise _bad(f"The column {name[:60]!r} is not a list.")
        if rows not in (-1, len(values)):
            raise _bad(f"The column {name[:60]!r} has {len(values)} rows; others have {rows}.")
        rows = len(values)
        if not set(map(type, values)) <= _SCALARS:
            raise _bad(f"The column {name[:60]!r} holds lists or objects.")
    _check_rows(rows)
    return columns, rows


def _sources(sources: Any) -> dict[str, tuple[dict[str, list[Any]], int]]:
    if type(sources) is not dict or not sources:
        raise _bad("The field sources is not an object of columns by source.")
    found = {check_name(source, "source name"): _columns(columns) for source, columns in sources.items()}
    _check_rows(sum(rows for _, rows in found.values()))
    return found


def _check_rows(rows: int) -> None:
    if rows < 1:
        raise _bad("There are no rows.")
    if rows > MAX_ROWS:
        raise TooLarge(f"There are {rows} rows; {MAX_ROWS} are allowed in one request.")


def _texts(name: str, values: Sequence[Any]) -> list[str]:
    if not all(type(value) is str and 0 < len(value) <= 200 for value in values):
        raise _bad(f"The column {name} must hold strings of 1 to 200 characters.")
    return list(values)


def _object(body: bytes, known: set[str]) -> dict[str, Any]:
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _bad(f"The body is not JSON: {error}") from None
    if type(data) is not dict:
        raise _bad("The body is not a JSON object.")
    if not data.keys() <= known:
        raise _bad(f"Unknown field {min(data.keys() - known)[:60]!r}.")
    return data


def _bad(what: str) -> BadRecords:
    return BadRecords(what, mend="The form of labels and events stands in docs/guide/serving.md.")
