"""What a trace comes to, and how its spans nest."""

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.traces.model import StoredSpan
from holdtrue.traces.reading import span_of
from holdtrue.traces.rules import nested, summary_of


def stored(number: int, parent: int | None = None, **changes: Any) -> StoredSpan:
    """Return a stored span."""
    record = {
        "trace_id": "t",
        "span_id": f"s{number}",
        "parent_id": None if parent is None else f"s{parent}",
        "time": number * 10,
        "end": number * 10 + 5,
        "name": f"span {number}",
    }
    return replace(span_of(record, "agent"), **changes)


def test_a_trace_is_told_in_the_words_of_its_root() -> None:
    spans = [
        stored(2, 1, model="small", input_tokens=3, output_tokens=4, cost=0.5, status="error", service="tool"),
        stored(1, name="answer", service="agent", user="u1", input="Where?"),
        stored(3, 1, model="large", input_tokens=10, release="rel_1"),
        stored(4, 3, model="small", end=90),
    ]
    found = summary_of(spans)
    assert (found.name, found.service, found.services) == ("answer", "agent", ("agent", "tool"))
    assert (found.start, found.duration, found.spans, found.errors) == (10, 80, 4, 1)
    assert (found.status, found.model, found.user, found.release) == ("error", "small", "u1", "rel_1")
    assert (found.input_tokens, found.output_tokens, found.cost) == (13, 4, 0.5)
    assert found.rooted


def test_tokens_that_an_outer_span_adds_up_count_once() -> None:
    spans = [
        stored(1, input_tokens=13, output_tokens=4),
        stored(2, 1),
        stored(3, 2, input_tokens=10, output_tokens=4),
        stored(4, 2, input_tokens=3),
    ]
    found = summary_of(spans)
    assert (found.input_tokens, found.output_tokens) == (13, 4)
    assert summary_of([spans[0]]).input_tokens == 13
    assert summary_of([stored(1)]).input_tokens is None


def test_without_a_root_the_earliest_span_stands_for_it() -> None:
    found = summary_of([stored(5, 1), stored(4, 9)])
    assert (found.name, found.rooted) == ("span 4", False)


def test_spans_nest_by_their_parents() -> None:
    spans = [stored(4, 2), stored(1), stored(2, 1), stored(3, 1), stored(6, 99)]
    assert [(span.span_id, depth) for span, depth in nested(spans)] == [
        ("s1", 0),
        ("s2", 1),
        ("s4", 2),
        ("s3", 1),
        ("s6", 0),
    ]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.one_of(st.none(), st.integers(0, 8))), unique_by=lambda pair: pair[0]))
def test_every_span_comes_once_whatever_the_parents_say(pairs: list[tuple[int, int | None]]) -> None:
    spans = [stored(number, parent, input_tokens=1) for number, parent in pairs]
    found = nested(spans)
    assert sorted(span.span_id for span, _ in found) == sorted(span.span_id for span in spans)
    depths = {span.span_id: depth for span, depth in found}
    assert all(depth == 0 or depths[str(span.parent_id)] < depth for span, depth in found)
    if spans:
        assert summary_of(spans).spans == len(spans)
