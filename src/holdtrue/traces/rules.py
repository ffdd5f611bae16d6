"""Pure decisions about spans: what a trace comes to, how its spans nest."""

from collections.abc import Iterator, Sequence
from typing import Any

from holdtrue.traces.model import StoredSpan, Summary

EQUAL = ("name", "status", "release", "model", "user", "session")
"""The conditions that ask for an exact value, called as the column is."""


def summary_of(spans: Sequence[StoredSpan]) -> Summary:
    """Return what the spans of one trace (one at least) come to, in the words of its root."""
    ordered = sorted(spans, key=lambda span: (span.start, span.span_id))
    roots = [span for span in ordered if span.parent_id is None]
    root = roots[0] if roots else ordered[0]
    start, end = ordered[0].start, max(span.end for span in ordered)
    errors = sum(span.status == "error" for span in ordered)
    models = [span.model for span in ordered if span.model]
    return Summary(
        trace_id=root.trace_id,
        name=root.name,
        service=root.service,
        services=tuple(dict.fromkeys([root.service, *sorted({span.service for span in ordered})])),
        release=root.release or next((span.release for span in ordered if span.release), None),
        start=start,
        duration=end - start,
        spans=len(ordered),
        errors=errors,
        status=root.status if root.status == "error" else "error" if errors else root.status,
        model=max(models, key=models.count) if models else None,
        input_tokens=_total([span.input_tokens for span in _leaves(ordered)]),
        output_tokens=_total([span.output_tokens for span in _leaves(ordered)]),
        cost=_total([span.cost for span in _leaves(ordered)]),
        user=root.user or next((span.user for span in ordered if span.user), None),
        session=root.session or next((span.session for span in ordered if span.session), None),
        input=root.input or next((span.input for span in ordered if span.input), None),
        rooted=bool(roots),
    )


def _leaves(spans: Sequence[StoredSpan]) -> list[StoredSpan]:
    """Return the spans whose tokens count: what an outer span adds up of its inner ones must not count twice."""
    counting = {span.span_id: span for span in spans if span.input_tokens or span.output_tokens or span.cost}
    parents = {span.span_id: span.parent_id for span in spans}
    sums: set[str] = set()
    for span_id in counting:
        above, seen = parents.get(span_id), {span_id}
        while above is not None and above not in seen:
            sums.add(above)
            seen.add(above)
            above = parents.get(above)
    return [span for span_id, span in counting.items() if span_id not in sums]


def _total(values: Sequence[Any]) -> Any:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def nested(spans: Sequence[StoredSpan]) -> list[tuple[StoredSpan, int]]:
    """Return spans in the order of a tree with the depth of each; every span comes once, whatever parents say.

    A span whose parent is missing stands at the top, and so does one of a ring of parents.
    """
    ordered = sorted(spans, key=lambda span: (span.start, span.span_id))
    known = {span.span_id for span in ordered}
    below: dict[str | None, list[StoredSpan]] = {}
    for span in ordered:
        above = span.parent_id if span.parent_id in known and span.parent_id != span.span_id else None
        below.setdefault(above, []).append(span)
    found: list[tuple[StoredSpan, int]] = []
    seen: set[str] = set()

    def walk(top: StoredSpan) -> None:
        ahead = [(top, 0)]
        while ahead:
            span, depth = ahead.pop()
            if span.span_id in seen:
                continue
            seen.add(span.span_id)
            found.append((span, depth))
            ahead += [(each, depth + 1) for each in reversed(below.get(span.span_id, []))]

    for span in below.get(None, []):
        walk(span)
    for span in ordered:
        if span.span_id not in seen:
            walk(span)
    return found


def gather(spans: Sequence[StoredSpan]) -> Iterator[tuple[str, list[StoredSpan]]]:
    """Yield spans by trace."""
    found: dict[str, list[StoredSpan]] = {}
    for span in spans:
        found.setdefault(span.trace_id, []).append(span)
    yield from found.items()
