"""Pure aggregates over traces, their spans and their assessments: facts in, points by time and dimensions out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import orjson

from holdtrue.core.errors import InvalidInput
from holdtrue.traces.infos import TraceInfo
from holdtrue.traces.infos.model import NAME, SESSION
from holdtrue.traces.infos.rules import number_of
from holdtrue.traces.model import StoredSpan
from holdtrue.traces.rules import summary_of

USAGE: Final = "mlflow.trace.tokenUsage"
TIME: Final = "time_bucket"
MOST_INTERVAL: Final = 10 * 366 * 86_400
_TYPE, _COST = "mlflow.spanType", "mlflow.llm.cost"
_MODEL, _PROVIDER = "mlflow.llm.model", "mlflow.llm.provider"

_NUMBERS = frozenset({"SUM", "AVG", "MIN", "MAX", "PERCENTILE"})
_MEANS = _NUMBERS - {"SUM"}
_TOKENS = (
    "input_tokens", "output_tokens", "total_tokens", "cache_read_input_tokens", "cache_creation_input_tokens",
)  # fmt: skip
_COSTS = ("input_cost", "output_cost", "total_cost")
_MODELS = frozenset({"span_model_name", "span_model_provider"})


@dataclass(frozen=True, slots=True)
class Offer:
    """Say which aggregates and dimensions a metric has."""

    aggregates: frozenset[str]
    dimensions: frozenset[str] = frozenset()


_COUNT = frozenset({"COUNT"})
OFFERS: Final[Mapping[str, Mapping[str, Offer]]] = MappingProxyType(
    {
        "TRACES": {
            "trace_count": Offer(_COUNT, frozenset({"trace_name", "trace_status"})),
            "session_count": Offer(_COUNT),
            "latency": Offer(_MEANS, frozenset({"trace_name"})),
            **dict.fromkeys(_TOKENS, Offer(_NUMBERS, frozenset({"trace_name"}))),
        },
        "SPANS": {
            "span_count": Offer(_COUNT, _MODELS | {"span_name", "span_type", "span_status"}),
            "latency": Offer(_MEANS, frozenset({"span_name", "span_status"})),
            **dict.fromkeys(_COSTS, Offer(_NUMBERS, _MODELS)),
        },
        "ASSESSMENTS": {
            "assessment_count": Offer(_COUNT, frozenset({"assessment_name", "assessment_value"})),
            "assessment_value": Offer(_MEANS, frozenset({"assessment_name"})),
        },
    }
)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Name an aggregate; `percentile` is from 0 to 100 where it is one."""

    kind: str
    percentile: float | None = None

    @property
    def label(self) -> str:
        """Return how its value is called."""
        return self.kind if self.percentile is None else f"P{self.percentile}"


@dataclass(frozen=True, slots=True)
class Condition:
    """Ask that a field of a trace, span or assessment is a text; tags and metadata have a key."""

    view: str
    entity: str
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Measure:
    """Ask for a metric of traces of experiments, by time (seconds) and dimensions."""

    view: str
    metric: str
    aggregates: Sequence[Aggregate]
    dimensions: Sequence[str] = ()
    conditions: Sequence[Condition] = ()
    seconds: int | None = None
    limit: int = 1000


@dataclass(frozen=True, slots=True)
class Fact:
    """Hold one value that counts: when, what, and what it is of (None: it has no such dimension)."""

    at_ms: int
    value: Any
    dimensions: Mapping[str, str | None] = field(default_factory=dict[str, "str | None"])


@dataclass(frozen=True, slots=True)
class Point:
    """Hold the aggregates of all facts of the same time and dimensions."""

    dimensions: Mapping[str, str]
    values: Mapping[str, float]


def check(wish: Measure) -> Measure:
    """Return a question that can be answered, else raise InvalidInput."""
    if wish.view not in OFFERS:
        raise InvalidInput(f"view_type must be one of {list(OFFERS)}, got '{wish.view[:80]}'.")
    offered = OFFERS[wish.view]
    if wish.metric not in offered:
        raise InvalidInput(f"metric_name must be one of {list(offered)}, got '{wish.metric[:80]}'.")
    offer = offered[wish.metric]
    if not wish.aggregates:
        raise InvalidInput("Missing value for required parameter 'aggregations'.")
    for what, given, possible in (
        ("aggregation_type(s)", {each.kind for each in wish.aggregates}, offer.aggregates),
        ("dimension(s)", set(wish.dimensions), offer.dimensions),
    ):
        if given - possible:
            raise InvalidInput(f"Found invalid {what}: {sorted(given - possible)}. Supported: {sorted(possible)}.")
    for each in wish.aggregates:
        if (each.kind == "PERCENTILE") != (each.percentile is not None):
            raise InvalidInput("A percentile value is given with PERCENTILE, and only with it.")
        if each.percentile is not None and not 0 <= each.percentile <= 100:
            raise InvalidInput(f"Percentile value must be between 0 and 100, got {each.percentile}.")
    if wish.seconds is not None and not 1 <= wish.seconds <= MOST_INTERVAL:
        raise InvalidInput("Invalid value for parameter 'time_interval_seconds' supplied.", why="It is 1 or more.")
    for each in wish.conditions:
        if each.view not in ("trace", wish.view.lower().removesuffix("s")):
            raise InvalidInput(f"Filtering by {each.view} is not supported for the {wish.view} view type.")
    return wish


def needs_spans(wish: Measure) -> bool:
    """Tell whether spans have to be read, for what is not known of traces as a whole."""
    return wish.view == "SPANS" or wish.metric in _TOKENS


def facts(wish: Measure, traces: Iterable[TraceInfo], spans: Mapping[str, Sequence[StoredSpan]]) -> Iterable[Fact]:
    """Yield the facts that a question is about."""
    of_trace = [each for each in wish.conditions if each.view == "trace"]
    rest = [each for each in wish.conditions if each.view != "trace"]
    for trace in traces:
        if not all(_of_trace(trace, each) == each.value for each in of_trace):
            continue
        if wish.view == "TRACES":
            yield _trace_fact(wish, trace, spans.get(trace.id, ()))
        elif wish.view == "SPANS":
            for span in spans.get(trace.id, ()):
                found = _span_fact(wish, span)
                if all(found.dimensions[f"span_{each.entity}"] == each.value for each in rest):
                    yield found
        else:
            for each in trace.assessments:
                said = {"name": each.name, "type": each.kind}
                if each.valid and all(said[condition.entity] == condition.value for condition in rest):
                    value = each.id if wish.metric == "assessment_count" else number_of(each.value)
                    named = {"assessment_name": each.name, "assessment_value": orjson.dumps(each.value).decode()}
                    yield Fact(trace.requested_ms, value, named)


def _of_trace(trace: TraceInfo, condition: Condition) -> str | None:
    if condition.entity == "status":
        return trace.state.value
    return (trace.tags if condition.entity == "tag" else trace.metadata).get(condition.key)


def _trace_fact(wish: Measure, trace: TraceInfo, spans: Sequence[StoredSpan]) -> Fact:
    value: Any
    if wish.metric == "trace_count":
        value = trace.id
    elif wish.metric == "session_count":
        value = trace.metadata.get(SESSION)
    elif wish.metric == "latency":
        value = trace.duration_ms
    else:
        value = _tokens(wish.metric, trace, spans)
    return Fact(trace.requested_ms, value, {"trace_name": trace.tags.get(NAME), "trace_status": trace.state.value})


def _tokens(metric: str, trace: TraceInfo, spans: Sequence[StoredSpan]) -> float | None:
    """Return what a sender stated of its trace as a whole, else what the spans add up to."""
    stated = _object(trace.metadata.get(USAGE))
    if stated:
        return _number(stated.get(metric))
    summary = summary_of(list(spans)) if spans else None
    if summary is None or metric.startswith("cache"):
        return None
    if metric != "total_tokens":
        return summary.input_tokens if metric == "input_tokens" else summary.output_tokens
    known = [each for each in (summary.input_tokens, summary.output_tokens) if each is not None]
    return sum(known) if known else None


def _span_fact(wish: Measure, span: StoredSpan) -> Fact:
    value: Any
    if wish.metric == "span_count":
        value = span.span_id
    elif wish.metric == "latency":
        value = span.duration // 1000
    else:
        value = _number(_object(span.attributes.get(_COST)).get(wish.metric))
        value = span.cost if value is None and wish.metric == "total_cost" else value
    own = span.attributes
    named = {
        "span_name": span.name,
        "span_type": _text(own.get(_TYPE)) or span.operation or "UNKNOWN",
        "span_status": span.status.upper(),
        "span_model_name": _text(own.get(_MODEL)) or span.model,
        "span_model_provider": _text(own.get(_PROVIDER)) or span.provider,
    }
    return Fact(span.start // 1000, value, named)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _object(value: Any) -> Mapping[str, Any]:
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return {}
    return value if isinstance(value, dict) else {}


def points(wish: Measure, found: Iterable[Fact]) -> list[Point]:
    """Return the aggregates by time and dimensions, in that order; facts without a value or a dimension count nowhere.

    Percentiles are interpolated linearly (method 7 of Hyndman and Fan, The American Statistician 50, 1996).
    """
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for fact in found:
        bucket = (fact.at_ms // (wish.seconds * 1000) * wish.seconds,) if wish.seconds else ()
        place = (*bucket, *(fact.dimensions[name] for name in wish.dimensions))
        if fact.value is not None and None not in place:
            groups.setdefault(place, []).append(fact.value)
    shown: list[Point] = []
    for key in sorted(groups)[: wish.limit]:
        names = ([TIME] if wish.seconds else []) + list(wish.dimensions)
        dimensions = dict(zip(names, key, strict=True))
        if wish.seconds:
            dimensions[TIME] = datetime.fromtimestamp(key[0], UTC).isoformat()
        values = {each.label: _aggregate(wish, each, groups[key]) for each in wish.aggregates}
        shown.append(Point(dimensions, values))
    return shown


def _aggregate(wish: Measure, aggregate: Aggregate, values: Sequence[Any]) -> float:
    if aggregate.kind == "COUNT":
        return float(len(set(values)) if wish.metric == "session_count" else len(values))
    if aggregate.percentile is not None:
        return float(np.percentile(np.array(values, np.float64), aggregate.percentile))
    by: Mapping[str, Callable[[Any], Any]] = {"SUM": np.sum, "AVG": np.mean, "MIN": np.min, "MAX": np.max}
    return float(by[aggregate.kind](np.array(values, np.float64)))
