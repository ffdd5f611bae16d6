"""Spans of requests from any framework: taken in, searched, shown as traces.

Names are imported on first use: the data plane takes spans in and must not load what reads them.
"""

from typing import TYPE_CHECKING

from holdtrue.core.lazy import attach

if TYPE_CHECKING:
    from holdtrue.traces.model import (
        Capture,
        Feedback,
        FeedbackFilter,
        Message,
        Origin,
        Page,
        Span,
        StoredSpan,
        Summary,
        Trace,
        TraceFilter,
        TraceSettings,
    )
    from holdtrue.traces.online import GenaiCall, SpanSink, genai_span
    from holdtrue.traces.service import find_trace

__all__ = [
    "Capture",
    "Feedback",
    "FeedbackFilter",
    "GenaiCall",
    "Message",
    "Origin",
    "Page",
    "Span",
    "SpanSink",
    "StoredSpan",
    "Summary",
    "Trace",
    "TraceFilter",
    "TraceSettings",
    "find_trace",
    "genai_span",
]

__getattr__ = attach(
    __name__,
    {
        "Capture": "model",
        "Feedback": "model",
        "FeedbackFilter": "model",
        "GenaiCall": "online",
        "Message": "model",
        "Origin": "model",
        "Page": "model",
        "Span": "model",
        "SpanSink": "online",
        "StoredSpan": "model",
        "Summary": "model",
        "Trace": "model",
        "TraceFilter": "model",
        "TraceSettings": "model",
        "find_trace": "service",
        "genai_span": "online",
    },
)
