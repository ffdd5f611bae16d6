"""Metrics of traces, asked by the real client, against what its traces say themselves."""

# The client loads its parts lazily and hides them from type checkers; its results are optional throughout.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# pyright: reportPrivateUsage=false, reportArgumentType=false, reportUnknownMemberType=false

from collections.abc import Iterator
from typing import Any

import httpx
import mlflow
import numpy as np
import pytest
from mlflow.entities import SpanType
from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType
from mlflow.tracking._tracking_service.utils import _get_store

from tests.protocols.mlflow.conftest import Server

URL = "/api/3.0/mlflow/traces/metrics"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the client send each trace before it goes on, and leave nothing of it in the next test's."""
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")
    mlflow.tracing.reset()
    yield
    mlflow.tracing.reset()


def ask(question: str, tokens: int, session: str = "s-1") -> str:
    """Answer a question in a trace with a span of a model, and return the trace's id."""
    with mlflow.start_span(name=question) as root:
        with mlflow.start_span(name="model", span_type=SpanType.LLM) as span:
            usage = {"input_tokens": tokens, "output_tokens": 1, "total_tokens": tokens + 1}
            span.set_attribute("mlflow.chat.tokenUsage", usage)
            span.set_attribute("mlflow.llm.model", f"m{tokens % 2}")
            costs = {"input_cost": tokens / 8, "output_cost": 0.5, "total_cost": tokens / 8 + 0.5}
            span.set_attribute("mlflow.llm.cost", costs)
        mlflow.update_current_trace(tags={"team": session}, metadata={"mlflow.trace.session": session})
        return root.trace_id


def measured(view: MetricViewType, metric: str, *aggregates: MetricAggregation, **more: Any) -> list[tuple[Any, Any]]:
    """Return dimensions and values of the points that the client gets."""
    found = _get_store().query_trace_metrics(["0"], view, metric, list(aggregates), **more)
    assert all(each.metric_name == metric for each in found)
    return [(each.dimensions, each.values) for each in found]


def by(kind: str, percentile: float | None = None) -> MetricAggregation:
    """Return an aggregate as the client names it."""
    return MetricAggregation(AggregationType(kind), percentile)


@pytest.mark.usefixtures("mlflow_of")
def test_traces_spans_and_assessments_are_aggregated_as_they_are() -> None:
    traces, spans, judged = MetricViewType.TRACES, MetricViewType.SPANS, MetricViewType.ASSESSMENTS
    ids = [ask("how", 3), ask("why", 4), ask("how", 8, "s-2")]
    for place, each in enumerate(ids):
        mlflow.log_feedback(trace_id=each, name="good", value=place > 0)
    mlflow.log_expectation(trace_id=ids[0], name="answer", value="so")

    assert measured(traces, "trace_count", by("COUNT")) == [({}, {"COUNT": 3.0})]
    assert measured(traces, "trace_count", by("COUNT"), dimensions=["trace_name"]) == [
        ({"trace_name": "how"}, {"COUNT": 2.0}),
        ({"trace_name": "why"}, {"COUNT": 1.0}),
    ]
    assert measured(traces, "session_count", by("COUNT")) == [({}, {"COUNT": 2.0})]
    wanted = [by("SUM"), by("AVG"), by("MAX"), by("PERCENTILE", 90)]
    (point,) = measured(traces, "input_tokens", *wanted)
    assert point[1] == {"SUM": 15.0, "AVG": 5.0, "MAX": 8.0, "P90.0": pytest.approx(np.percentile([3, 4, 8], 90))}
    latencies = [mlflow.get_trace(each).info.execution_duration for each in ids]
    assert measured(traces, "latency", by("MIN"), by("MAX")) == [
        ({}, {"MIN": float(min(latencies)), "MAX": float(max(latencies))})
    ]
    assert measured(spans, "span_count", by("COUNT"), dimensions=["span_type"]) == [
        ({"span_type": "LLM"}, {"COUNT": 3.0}),
        ({"span_type": "UNKNOWN"}, {"COUNT": 3.0}),
    ]
    assert measured(spans, "total_cost", by("SUM"), dimensions=["span_model_name"]) == [
        ({"span_model_name": "m0"}, {"SUM": 2.5}),
        ({"span_model_name": "m1"}, {"SUM": 0.875}),
    ]
    assert measured(judged, "assessment_count", by("COUNT"), dimensions=["assessment_name", "assessment_value"]) == [
        ({"assessment_name": "answer", "assessment_value": '"so"'}, {"COUNT": 1.0}),
        ({"assessment_name": "good", "assessment_value": "false"}, {"COUNT": 1.0}),
        ({"assessment_name": "good", "assessment_value": "true"}, {"COUNT": 2.0}),
    ]
    (point,) = measured(judged, "assessment_value", by("AVG"), filters=["assessment.type = 'feedback'"])
    assert point[1] == {"AVG": pytest.approx(2 / 3)}


@pytest.mark.usefixtures("mlflow_of")
def test_points_are_filtered_and_cut_by_time() -> None:
    ids = [ask("how", 3), ask("why", 4), ask("how", 8, "s-2")]
    moments = sorted(mlflow.get_trace(each).info.request_time for each in ids)
    count, traces = by("COUNT"), MetricViewType.TRACES

    def counted(*filters: str, **more: Any) -> Any:
        found = measured(traces, "trace_count", count, filters=list(filters), **more)
        return found[0][1]["COUNT"] if found else 0

    assert counted("trace.status = 'OK'") == 3
    assert counted("trace.tag.team = 's-2'") == 1
    assert counted("trace.metadata.`mlflow.trace.session` = 's-1'", "trace.tag.team = 's-2'") == 0
    assert counted(start_time_ms=moments[0], end_time_ms=moments[2]) == 3
    assert counted(start_time_ms=moments[2] + 1) == 0
    (point,) = measured(traces, "trace_count", count, time_interval_seconds=366 * 86_400)
    assert point[0]["time_bucket"].endswith("T00:00:00+00:00")
    named = measured(MetricViewType.SPANS, "span_count", count, filters=["span.name = 'how'", "span.status = 'OK'"])
    assert named == [({}, {"COUNT": 2.0})]
    assert len(measured(traces, "trace_count", count, dimensions=["trace_name"], max_results=1)) == 1


GOOD: dict[str, Any] = {
    "experiment_ids": ["0"],
    "view_type": "TRACES",
    "metric_name": "latency",
    "aggregations": [{"aggregation_type": "AVG"}],
}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"view_type": "RUNS"}, "view_type must be one of"),
        ({"metric_name": "span_count"}, "metric_name must be one of"),
        ({"aggregations": []}, "aggregations"),
        ({"aggregations": [{"aggregation_type": "SUM"}]}, "Found invalid aggregation_type(s)"),
        ({"aggregations": [{"aggregation_type": "PERCENTILE"}]}, "percentile"),
        ({"aggregations": [{"aggregation_type": "PERCENTILE", "percentile_value": 101}]}, "between 0 and 100"),
        ({"aggregations": [{"aggregation_type": "PERCENTILE", "percentile_value": "NaN"}]}, "between 0 and 100"),
        ({"aggregations": "AVG"}, "list of objects"),
        ({"dimensions": ["trace_status"]}, "Found invalid dimension(s)"),
        ({"filters": ["trace.status != 'OK'"]}, "Invalid filter"),
        ({"filters": ["trace.status = 'OK' AND trace.tag.a = 'b'"]}, "Invalid filter"),
        ({"filters": ["trace.tag = 'b'"]}, "by a key"),
        ({"filters": ["trace.mood = 'b'"]}, "Invalid entity"),
        ({"filters": ["span.name = 'b'"]}, "not supported"),
        ({"time_interval_seconds": 0}, "time_interval_seconds"),
        ({"time_interval_seconds": 10**12}, "time_interval_seconds"),
        ({"max_results": 100_000}, "max_results"),
        ({"page_token": "x"}, "page token"),
        ({"experiment_ids": ["../0"]}, "experiment"),
        ({"start_time_ms": "yesterday"}, "start_time_ms"),
    ],
)
def test_what_cannot_be_answered_is_refused(rest: httpx.Client, wrong: dict[str, Any], why: str) -> None:
    answer = rest.post(URL, json=GOOD | wrong)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), answer.text
    assert why in answer.json()["message"]


@pytest.mark.usefixtures("mlflow_of")
def test_traces_of_another_project_and_deleted_ones_are_not_counted(server: Server, rest: httpx.Client) -> None:
    own = ask("how", 3)
    assert rest.post(URL, json=GOOD).json()["data_points"] != []
    with server.rest(server.token("elsewhere")) as other:
        assert other.post(URL, json=GOOD).json() == {"data_points": []}
    mlflow.MlflowClient().delete_traces("0", trace_ids=[own])
    assert rest.post(URL, json=GOOD).json() == {"data_points": []}
