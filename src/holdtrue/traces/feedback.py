"""Read what people said about traces, spans and predictions."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from holdtrue.storage import Journal
from holdtrue.traces.columns import among, chosen, equal
from holdtrue.traces.model import FEEDBACK, Feedback, FeedbackFilter, StoredSpan

MOST_RATED: Final = 10_000
_ABOUT: Final = ("trace_id", "span_id", "prediction_id")


def of_traces(
    journal: Journal, project: str, traces: Mapping[str, Sequence[StoredSpan]]
) -> dict[str, tuple[Feedback, ...]]:
    """Return what was said about traces of which all spans are known: about them, a span, or its prediction."""
    owners: dict[str, dict[str, str]] = {name: {} for name in _ABOUT}
    for trace, spans in traces.items():
        owners["trace_id"][trace] = trace
        for span in spans:
            owners["span_id"][span.span_id] = trace
            if span.prediction_id:
                owners["prediction_id"][span.prediction_id] = trace
    table = journal.table(FEEDBACK, project)
    if table.num_rows:
        masks = [among(table, name, list(owners[name])) for name in _ABOUT]
        table = chosen(table, np.logical_or.reduce(masks))
    found: dict[str, list[Feedback]] = {trace: [] for trace in traces}
    for row in table.to_pylist():
        each = _feedback(row)
        # Who names a trace means that one, whatever else is named.
        trace = each.trace_id or owners["span_id"].get(each.span_id or "")
        trace = trace or owners["prediction_id"].get(each.prediction_id or "")
        if trace in found:
            found[trace].append(each)
    return {trace: tuple(about) for trace, about in found.items()}


def matching(journal: Journal, project: str, wanted: FeedbackFilter) -> list[Feedback]:
    """Return the feedback that is asked for, the newest ten thousand."""
    table = journal.table(FEEDBACK, project)
    if not table.num_rows:
        return []
    values = table["value"].to_numpy()
    mask = equal(table, "name", wanted.name)
    if wanted.least is not None:
        mask &= values >= wanted.least
    if wanted.most is not None:
        mask &= values <= wanted.most
    found = [_feedback(row) for row in chosen(table, mask).to_pylist()]
    return sorted(found, key=lambda each: each.time)[-MOST_RATED:]


def _feedback(row: Mapping[str, Any]) -> Feedback:
    get = row.get
    return Feedback(
        id=row["id"],
        time=row["time"],
        name=row["name"],
        value=row["value"],
        kind=get("kind") or "number",
        low=row["low"],
        high=row["high"],
        trace_id=get("trace_id"),
        span_id=get("span_id"),
        prediction_id=get("prediction_id"),
        comment=get("comment"),
        user=get("user"),
    )
