"""Histories of metrics: whole, in pages, sampled."""

from typing import Any

from holdtrue import tracking
from holdtrue.core.access import Permission
from holdtrue.core.errors import InvalidInput
from holdtrue.door import Call, Routes
from holdtrue.protocols.mlflow.dialect import MLFLOW, Fields, run_id, several, text, whole
from holdtrue.tracking import rules, search

routes = Routes("protocols.mlflow", MLFLOW)

READ = Permission.RUNS_READ
BASE = "/api/2.0/mlflow/metrics"
_MOST_RUNS = 100
_MOST_SAMPLED = 2_500
_MOST_BULK = 25_000


def _points(key: str, points: list[Any]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": "NaN" if nan else value, "timestamp": timestamp, "step": step}
        for step, timestamp, value, nan in points
    ]


@routes.get(f"{BASE}/get-history", READ, summary="Show a metric's history")
def get_history(call: Call, body: Fields) -> Any:
    """Return every value of a metric, or a page of them if `max_results` is given."""
    own, key = run_id(body), text(body, "metric_key")
    limit = whole(body, "max_results", 0)
    question = ["history", own, key]
    place = search.place_of(question, text(body, "page_token", ""))
    after = None if place is None else _place(place)
    size = search.check_limit(limit, 1_000_000) if limit else 10_000_000
    page = call.read(lambda c: tracking.history(c, call.project, own, key, limit=size, after=after))
    answer: dict[str, Any] = {"metrics": _points(key, page.points)}
    if page.next is not None:
        answer["next_page_token"] = search.token_of(question, page.next)
    return answer


def _place(place: list[Any]) -> tuple[int, int, float, int]:
    if len(place) != 4:
        raise InvalidInput("Invalid page token.", mend="Start again without a page token.")
    step, timestamp, value, nan = place
    return step, timestamp, value, nan


@routes.get(f"{BASE}/get-history-bulk", READ, summary="Show a metric's history in several runs")
def get_history_bulk(call: Call, body: Fields) -> Any:
    """Return the histories of one metric, run by run, up to `max_results` values."""
    ids = [rules.check_run_id(each) for each in several(body, "run_id")]
    key = text(body, "metric_key")
    _check_runs(ids)
    left = search.check_limit(whole(body, "max_results", _MOST_BULK), _MOST_BULK)
    found: list[dict[str, Any]] = []
    for own in ids:
        if left <= 0:
            break
        most = left
        page = call.read(lambda c, own=own, most=most: tracking.history(c, call.project, own, key, limit=most))
        found += [{**each, "run_id": own} for each in _points(key, page.points)]
        left -= len(page.points)
    return {"metrics": found}


@routes.get(f"{BASE}/get-history-bulk-interval", READ, summary="Sample a metric's history in several runs")
def get_history_bulk_interval(call: Call, body: Fields) -> Any:
    """Return each run's values at the same evenly chosen steps, the first and last of each run included."""
    ids = [rules.check_run_id(each) for each in several(body, "run_ids")]
    key = text(body, "metric_key")
    _check_runs(ids)
    most = search.check_limit(whole(body, "max_results", 320), _MOST_SAMPLED)
    start, end = body.get("start_step"), body.get("end_step")
    if (start is None) != (end is None):
        raise InvalidInput("If either start step or end step are specified, both must be specified.")
    steps: tuple[int | None, int | None] = (None, None)
    if start is not None:
        first, last = rules.whole(start, "start_step"), rules.whole(end, "end_step")
        if first > last:
            raise InvalidInput(f"end_step must be greater than start_step. Found start_step={first}.")
        steps = (first, last)
    found = call.read(lambda c: tracking.sampled(c, call.project, ids, key, most, steps))
    return {"metrics": [{**each, "run_id": own} for own, points in found.items() for each in _points(key, points)]}


def _check_runs(ids: list[str]) -> None:
    if not ids:
        raise InvalidInput("Missing value for required parameter 'run_ids'.")
    if len(ids) > _MOST_RUNS:
        raise InvalidInput(f"Histories of at most {_MOST_RUNS} runs are given at once. Got {len(ids)}.")
