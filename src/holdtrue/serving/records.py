"""Prediction records: what one request leaves behind, as columns for the journal."""

import itertools
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from holdtrue.serving.assembly import Columns
from holdtrue.serving.plan import ANSWER, Scored
from holdtrue.serving.snapshot import Route


class PredictionIds:
    """Make ids of predictions: milliseconds of time, the process's random mark, a counter."""

    def __init__(self) -> None:
        self._mark = secrets.token_hex(6)
        self._count = itertools.count()

    def take(self, rows: int, now_us: int) -> list[str]:
        """Return `rows` new ids; they sort by time, and no two processes make the same one."""
        start = f"prd_{now_us // 1000:011x}{self._mark}{next(self._count):08x}"
        if rows == 1:
            return [start]
        return [f"{start}.{row}" for row in range(rows)]


def record_columns(
    route: Route,
    columns: Columns,
    results: Sequence[Scored],
    *,
    ids: list[str],
    times: list[int],
    now_us: int,
    request_id: str,
    latency_us: int,
) -> tuple[dict[str, Any], int]:
    """Return the journal columns of one request's predictions, and how many rows they have.

    Answers keep the prediction's id as their record id; the score of a shadow is recorded as
    `{prediction}~{release}`. Columns are lists of that many values, or one value that holds for all.
    """
    if len(results) == 1 and results[0].rows is None:
        return _simple(route, columns, results[0], ids, times, now_us, request_id, latency_us), len(ids)
    picks = [range(len(ids)) if each.rows is None else each.rows for each in results]
    flat = [row for pick in picks for row in pick]
    record: dict[str, Any] = {
        "id": [
            ids[row] if each.role == ANSWER else f"{ids[row]}~{each.release}"
            for each, pick in zip(results, picks, strict=True)
            for row in pick
        ],
        "prediction_id": [ids[row] for row in flat],
        "time": [times[row] for row in flat],
        "recorded_at": now_us,
        "request_id": request_id,
        "key": _pick(columns, route.key, flat),
        "entity": _pick(columns, route.entity, flat),
        "arm": [each.arm for each, pick in zip(results, picks, strict=True) for _ in pick],
        "role": [each.role for each, pick in zip(results, picks, strict=True) for _ in pick],
        "release": [each.release for each, pick in zip(results, picks, strict=True) for _ in pick],
        "rollout": route.rollout,
        "score": [score for each in results for score in each.scores],
        "latency_us": latency_us,
        "fallback": _fallbacks(results),
    }
    for name, values in columns.items():
        record[f"x_{name}"] = [values[row] for row in flat]
    _add_features(record, results)
    return record, len(flat)


def _simple(
    route: Route,
    columns: Columns,
    answer: Scored,
    ids: list[str],
    times: list[int],
    now_us: int,
    request_id: str,
    latency_us: int,
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "id": ids,
        "prediction_id": ids,
        "time": times,
        "recorded_at": now_us,
        "request_id": request_id,
        "key": columns[route.key] if route.key is not None else None,
        "entity": columns[route.entity] if route.entity is not None else None,
        "arm": answer.arm,
        "role": answer.role,
        "release": answer.release,
        "rollout": route.rollout,
        "score": answer.scores,
        "latency_us": latency_us,
        "fallback": answer.failed if answer.failed is not None else False,
    }
    for name, values in columns.items():
        record["x_" + name] = values
    if answer.matrix is not None:
        for name, values in zip(answer.names, answer.matrix.T.tolist(), strict=True):
            record["f_" + name] = values
    return record


def _pick(columns: Mapping[str, list[Any]], name: str | None, rows: Sequence[int]) -> list[Any] | None:
    if name is None:
        return None
    values = columns[name]
    return [values[row] for row in rows]


def _fallbacks(results: Sequence[Scored]) -> list[bool] | bool:
    if all(each.failed is None for each in results):
        return False
    return [
        failed
        for each in results
        for failed in (each.failed if each.failed is not None else [False] * len(each.scores))
    ]


def _add_features(record: dict[str, Any], results: Sequence[Scored]) -> None:
    """Add one column per feature of any release; rows of a release without that feature hold null."""
    names = dict.fromkeys(name for each in results for name in each.names)
    made: dict[int, dict[str, list[Any]]] = {}
    for position, each in enumerate(results):
        lists = each.matrix.T.tolist() if each.matrix is not None else []
        made[position] = dict(zip(each.names, lists, strict=False))
    for name in names:
        record[f"f_{name}"] = [
            value
            for position, each in enumerate(results)
            for value in made[position].get(name) or [None] * len(each.scores)
        ]
