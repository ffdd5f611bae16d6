"""Prediction records: what requests leave behind, as columns for the journal."""

import itertools
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from holdtrue.core.canonical import bytes_hash
from holdtrue.serving.assembly import Columns, Matrix
from holdtrue.serving.plan import ANSWER, Scored
from holdtrue.serving.snapshot import Route

_FEW = 4


class PredictionIds:
    """Make ids of predictions: milliseconds of time, the process's random mark, a counter."""

    def __init__(self) -> None:
        self._mark = secrets.token_hex(6)
        self._count = itertools.count()

    def take(self, rows: int, now_us: int) -> list[str]:
        """Return `rows` new ids; they sort by time, and no two processes make the same one."""
        start = f"prd_{now_us // 1000:011x}{self._mark}"
        return [f"{start}{number:08x}" for number in itertools.islice(self._count, rows)]


def repeated_ids(service: str, key: bytes, columns: Columns, rows: int) -> list[str]:
    """Return ids for the rows of a request that may come again: the same key with the same rows gives the same.

    What the rows hold goes in, so that a key that is used for something else overwrites nothing.
    """
    said = orjson.dumps([service, key.hex(), dict(columns)], option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY)
    start = f"prd_{bytes_hash(said)[:23]}"
    return [f"{start}{row:08x}" for row in range(rows)]


def record_columns(
    route: Route,
    columns: Columns,
    results: Sequence[Scored],
    *,
    ids: list[str],
    times: list[int],
    now_us: int,
    request_ids: list[str],
    latencies: list[int],
) -> tuple[dict[str, Any], int]:
    """Return the journal columns of some predictions, and how many rows they have.

    An answer keeps the prediction's id as its record id; the score of a shadow is recorded as
    `{prediction}~{release}`. Columns are lists of that many values, or one value that holds for all.
    """
    if len(results) == 1 and results[0].rows is None:
        return _plain(route, columns, results[0], ids, times, now_us, request_ids, latencies), len(ids)
    picks = [range(len(ids)) if each.rows is None else each.rows for each in results]
    flat = [row for pick in picks for row in pick]

    def taken(values: Sequence[Any]) -> list[Any]:
        return [values[row] for row in flat]

    def spread(values: Sequence[str]) -> list[str]:
        return [value for value, pick in zip(values, picks, strict=True) for _ in pick]

    record: dict[str, Any] = {
        "id": [
            ids[row] if each.role == ANSWER else f"{ids[row]}~{each.release}"
            for each, pick in zip(results, picks, strict=True)
            for row in pick
        ],
        "prediction_id": taken(ids),
        "time": taken(times),
        "recorded_at": now_us,
        "request_id": taken(request_ids),
        "key": taken(columns[route.key]) if route.key is not None else None,
        "entity": taken(columns[route.entity]) if route.entity is not None else None,
        "arm": spread([each.arm for each in results]),
        "role": spread([each.role for each in results]),
        "release": spread([each.release for each in results]),
        "rollout": _rollout_of(route),
        "score": [score for each in results for score in each.scores],
        "latency_us": taken(latencies),
        "model_us": [each.took_us for each in results for _ in each.scores],
        "fallback": _fallbacks(results),
    }
    _add_outcome(record, route, results)
    _add_chances(record, results)
    for name, values in columns.items():
        record["x_" + name] = taken(values)
    _add_features(record, results)
    return record, len(flat)


def _plain(
    route: Route,
    columns: Columns,
    answer: Scored,
    ids: list[str],
    times: list[int],
    now_us: int,
    request_ids: list[str],
    latencies: list[int],
) -> dict[str, Any]:
    """Return the columns of rows that one arm answered, without shadows."""
    record: dict[str, Any] = {
        "id": ids,
        "prediction_id": ids,
        "time": times,
        "recorded_at": now_us,
        "request_id": request_ids,
        "key": columns[route.key] if route.key is not None else None,
        "entity": columns[route.entity] if route.entity is not None else None,
        "arm": answer.arm,
        "role": answer.role,
        "release": answer.release,
        "rollout": _rollout_of(route),
        "score": answer.scores,
        "latency_us": latencies,
        "model_us": answer.took_us,
        "fallback": answer.failed if answer.failed is not None else False,
    }
    if answer.failed is not None or route.abstain is not None:
        _add_outcome(record, route, [answer])
    if answer.chances is not None:
        _add_chances(record, [answer])
    for name, values in columns.items():
        record["x_" + name] = values
    if answer.matrix is not None:
        for name, values in zip(answer.names, _by_column(answer.matrix), strict=True):
            record["f_" + name] = values
    return record


def _rollout_of(route: Route) -> str | None:
    """Return the rollout that records count for: what is said while a service is switched off tells of no arm."""
    return route.rollout if route.stopped is None else None


def _by_column(matrix: Matrix) -> Iterator[Any]:
    """Return the columns of a matrix as the journal takes them: arrays, or lists where they are short."""
    if len(matrix) <= _FEW:
        return iter(matrix.T.tolist())
    return iter(np.ascontiguousarray(matrix.T))


def _fallbacks(results: Sequence[Scored]) -> list[bool] | bool:
    if all(each.failed is None for each in results):
        return False
    return [
        failed
        for each in results
        for failed in (each.failed if each.failed is not None else [False] * len(each.scores))
    ]


def _add_outcome(record: dict[str, Any], route: Route, results: Sequence[Scored]) -> None:
    """Add which release answered where another failed ("": the constant), and where the service abstained."""
    if any(each.rescuers is not None for each in results):
        none: list[str | None] = [None]
        record["fallback_release"] = [
            name if failed else None
            for each in results
            for name, failed in zip(
                each.rescuers or none * len(each.scores), each.failed or [False] * len(each.scores), strict=True
            )
        ]
    if route.abstain is not None:
        record["abstained"] = [abstained for each in results for abstained in abstentions(route, each)]


def _add_chances(record: dict[str, Any], results: Sequence[Scored]) -> None:
    """Add one column for each class of a model that has several: its probability, null where no model answered."""
    rows = [row for each in results for row in each.chances or [None] * len(each.scores)]
    width = max((len(row) for row in rows if row is not None), default=0)
    for place in range(width):
        record[f"p_{place}"] = [None if row is None else row[place] for row in rows]


def abstentions(route: Route, scored: Scored) -> list[bool]:
    """Tell of each score, or chance of the class that is said, whether it is where the service does not decide."""
    assert route.abstain is not None
    low, high = route.abstain
    failed = scored.failed or [False] * len(scored.scores)
    # Of several classes, how sure a model is of the one that it says.
    sure = scored.scores if scored.chances is None else [0.0 if row is None else max(row) for row in scored.chances]
    return [low <= score <= high and not bad for score, bad in zip(sure, failed, strict=True)]


def _add_features(record: dict[str, Any], results: Sequence[Scored]) -> None:
    """Add one column per feature of any release; rows of a release without that feature hold NaN."""
    if len({each.names for each in results}) == 1 and results[0].matrix is not None:
        matrix = np.concatenate([each.matrix for each in results if each.matrix is not None])
        for name, values in zip(results[0].names, _by_column(matrix), strict=True):
            record["f_" + name] = values
        return
    names = dict.fromkeys(name for each in results for name in each.names)
    places: list[Mapping[str, int]] = [{name: place for place, name in enumerate(each.names)} for each in results]
    for name in names:
        parts = [
            each.matrix[:, place[name]]
            if each.matrix is not None and name in place
            else np.full(len(each.scores), np.nan, np.float32)
            for each, place in zip(results, places, strict=True)
        ]
        record["f_" + name] = np.concatenate(parts)
