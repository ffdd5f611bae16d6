"""Metrics of traces: counts, latencies, tokens, costs and judgements, by time and dimensions."""

import re
from typing import Any, Final

from holdtrue.core.access import Permission
from holdtrue.core.errors import InvalidInput
from holdtrue.door import Call, Routes
from holdtrue.protocols.mlflow.dialect import MLFLOW, Fields, objects, several, text, texts, whole
from holdtrue.traces import service as traces
from holdtrue.traces.measures import Aggregate, Condition, Measure
from holdtrue.tracking import rules

routes = Routes("protocols.mlflow", MLFLOW)

MOST_POINTS: Final = 1000
_FAR: Final = (1 << 63) - 1
_FILTER = re.compile(
    r"""\s*(?P<view>trace|span|assessment)\.(?P<entity>[a-z]+)
        (?:\.(?:`(?P<back>[^`]+)`|"(?P<double>[^"]+)"|(?P<key>[\w./-]+)))?
        \s*=\s*(?:'(?P<value>[^']*)'|"(?P<quoted>[^"]*)")\s*""",
    re.VERBOSE,
)
# Which fields may be asked about, and whether they have a key.
_ENTITIES: Final = {
    ("trace", "status"): False,
    ("trace", "tag"): True,
    ("trace", "metadata"): True,
    ("span", "name"): False,
    ("span", "status"): False,
    ("span", "type"): False,
    ("assessment", "name"): False,
    ("assessment", "type"): False,
}


@routes.post("/api/3.0/mlflow/traces/metrics", Permission.TRACES_READ, summary="Aggregate traces, spans or assessments")
def query(call: Call, body: Fields) -> Any:
    """Return aggregates of a metric by time and dimensions."""
    if text(body, "page_token", ""):
        raise InvalidInput("Invalid page token.", why="All points are in the first answer.")
    limit = whole(body, "max_results", MOST_POINTS)
    if not 1 <= limit <= MOST_POINTS:
        raise InvalidInput(f"Invalid value {limit} for parameter 'max_results' supplied.", why="It is 1 to 1000.")
    metric = text(body, "metric_name")
    wish = Measure(
        text(body, "view_type"),
        metric,
        [_aggregate(each) for each in objects(body, "aggregations")],
        list(dict.fromkeys(texts(body, "dimensions"))),
        [_condition(each) for each in texts(body, "filters")],
        None if body.get("time_interval_seconds") is None else whole(body, "time_interval_seconds", 0),
        limit,
    )
    experiments = [rules.experiment_id(each) for each in several(body, "experiment_ids")]
    when = (whole(body, "start_time_ms", 0), whole(body, "end_time_ms", _FAR))
    return {
        "data_points": [
            {"metric_name": metric, "dimensions": each.dimensions, "values": each.values}
            for each in traces.measure(call.stores, call.project, experiments, when, wish)
        ]
    }


def _aggregate(each: Fields) -> Aggregate:
    percentile = each.get("percentile_value")
    found = None if percentile is None else rules.number(percentile, "percentile_value")
    return Aggregate(text(each, "aggregation_type"), found)


def _condition(said: str) -> Condition:
    """Return a filter as MLflow's clients write it, such as trace.tag.team = 'x'."""
    match = _FILTER.fullmatch(said)
    if match is None:
        raise InvalidInput(
            f"Invalid filter: {said[:200]!r}.", why="A filter is one comparison such as trace.status = 'OK'."
        )
    view, entity = match["view"], match["entity"]
    key = match["back"] or match["double"] or match["key"] or ""
    if (view, entity) not in _ENTITIES:
        named = [name for of, name in _ENTITIES if of == view]
        raise InvalidInput(f"Invalid entity '{entity}' specified for view type '{view}'. Valid entities are {named}.")
    if _ENTITIES[view, entity] != bool(key):
        raise InvalidInput(f"Invalid filter: {said[:200]!r}.", why="Tags and metadata are asked by a key, others not.")
    return Condition(view, entity, key, match["value"] if match["quoted"] is None else match["quoted"])
