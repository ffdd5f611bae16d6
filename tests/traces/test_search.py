"""A search finds what looking at every span finds: live, sealed, indexed, doubled, over pages."""

import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdtrue.core.clock import microseconds
from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.traces import FeedbackFilter, Origin, Span, TraceFilter, indexing
from holdtrue.traces import service as traces
from holdtrue.traces import words as vocabulary
from holdtrue.traces.indexing import index_path, open_index
from holdtrue.traces.reading import Spans
from tests.sampling import examples
from tests.traces.spans import NOW, PROJECT, House, brute_force, open_house, said, span, trace_id

BASE = microseconds(NOW) - 86_400_000_000
SPANS = st.builds(
    lambda trace, number, place, name, status, service, more: span(
        trace,
        number,
        name=name,
        status=status,
        start=BASE + place * 1000 + trace * 7 + number,
        end=BASE + place * 1000 + trace * 7 + number + place * 10,
        attributes=more,
        origin=Origin(service, {"service.name": service, "region": "eu"}),
    ),
    st.integers(0, 6),
    st.integers(0, 3),
    st.integers(0, 90_000_000),
    st.sampled_from(["chat", "tool"]),
    st.sampled_from(["ok", "error", "unset"]),
    st.sampled_from(["one", "two"]),
    st.fixed_dictionaries(
        {},
        optional={
            "input.value": st.sampled_from(["Where is my order?", "order a refund", "返品 now", "Ünder", ""]),
            "holdtrue.release": st.sampled_from(["rel_a", "rel_b"]),
            "gen_ai.request.model": st.sampled_from(["small", "large"]),
            "user.id": st.sampled_from(["u1", "u2"]),
            "tags": st.lists(st.sampled_from(["x", "y"]), max_size=2),
            "a.b[0]": st.sampled_from([1, 1.5, True, "1", "x" * 300]),
            "__proto__": st.just("polluted"),
        },
    ),
)
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "since": st.integers(BASE, BASE + 90_000_000_000),
        "until": st.integers(BASE, BASE + 90_000_000_000),
        "service": st.sampled_from(["one", "two", "three"]),
        "release": st.sampled_from(["rel_a", "rel_c"]),
        "name": st.sampled_from(["chat", "other"]),
        "status": st.sampled_from(["ok", "error"]),
        "model": st.sampled_from(["small", "large"]),
        "user": st.just("u1"),
        "min_duration": st.integers(0, 900_000_000),
        "text": st.sampled_from(["order", "ORDER where", "refund order", "品", "ünder", "or", "nowhere", "!"]),
        "attributes": st.sampled_from(
            [
                {"a.b[0]": "1"},
                {"a.b[0]": "true"},
                {"a.b[0]": "x" * 300},
                {"a.b[0]": "x" * 299},
                {"__proto__": "polluted"},
                {"tags": "x", "region": "eu"},
                {"constructor": "1"},
            ]
        ),
    },
)


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(
        st.tuples(st.lists(SPANS, min_size=1, max_size=8), st.sampled_from(["", "seal", "index"])), max_size=5
    ),
    filters=st.lists(FILTERS, min_size=1, max_size=6),
    limit=st.integers(1, 4),
)
def test_a_search_finds_what_looking_at_every_span_finds(
    steps: list[tuple[list[Span], str]], filters: list[dict[str, Any]], limit: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        house = open_house(Path(folder) / "home")
        stored: list[Span] = []
        for batch, then in steps:
            # One service has one frame; what comes first of a repeated id is what its stream has first.
            batch = list({each.id: each for each in batch if each.id not in {old.id for old in stored}}.values())
            house.put(*batch)
            stored += batch
            if then:
                house.seal(index=then == "index")
        for wanted in filters:
            asked = TraceFilter(PROJECT, limit=limit, **wanted)
            expected = brute_force(stored, asked)
            assert sorted(pages(house, asked)) == sorted(expected)
            assert pages(house, asked) == expected or tied(stored)
        house.stores.journal.close()


EACH_KIND: list[dict[str, Any]] = [
    {},
    {"since": BASE + 20_000_000_000, "until": BASE + 40_000_000_000},
    {"service": "one"},
    {"service": "three"},
    {"release": "rel_a"},
    {"release": "rel_c"},
    {"name": "chat", "status": "error"},
    {"model": "small", "user": "u1"},
    {"min_duration": 500_000_000},
    {"text": "order"},
    {"text": "REFUND order"},
    {"text": "品"},
    {"text": "ünder"},
    {"text": "or"},
    {"text": "nowhere order"},
    {"attributes": {"a.b[0]": "1"}},
    {"attributes": {"a.b[0]": "x" * 300}},
    {"attributes": {"a.b[0]": "x" * 299}},
    {"attributes": {"__proto__": "polluted", "tags": "y"}},
    {"attributes": {"region": "eu"}, "text": "order", "service": "two"},
    {"attributes": {"region": "us"}},
]


def many(seed: int, count: int) -> list[Span]:
    """Return spans of a hundred traces, some of whose attributes are missing."""
    rng = random.Random(seed)
    choices: dict[str, list[Any]] = {
        "input.value": ["Where is my order?", "order a refund", "返品 now", "Ünder", "", "A long story. " * 400],
        "holdtrue.release": ["rel_a", "rel_b"],
        "gen_ai.request.model": ["small", "large"],
        "user.id": ["u1", "u2"],
        "tags": [["x"], ["x", "y"], []],
        "a.b[0]": [1, 1.5, True, "1", "x" * 300],
        "__proto__": ["polluted"],
    }
    moments = rng.sample(range(90_000_000), count)
    made: list[Span] = []
    for number, place in enumerate(moments):
        service = rng.choice(["one", "two"])
        made.append(
            span(
                rng.randrange(100),
                number,
                name=rng.choice(["chat", "tool"]),
                status=rng.choice(["ok", "error", "unset"]),
                start=BASE + place * 1000,
                end=BASE + place * 1000 + rng.randrange(900_000_000),
                attributes={key: rng.choice(some) for key, some in choices.items() if rng.random() < 0.5},
                origin=Origin(service, {"service.name": service, "region": "eu"}),
            )
        )
    return made


@pytest.mark.parametrize("state", ["live", "sealed", "indexed", "all three"])
def test_each_kind_of_condition_over_many_spans(house: House, state: str) -> None:
    stored = many(3, 360)
    for start in range(0, 360, 40):
        house.put(*stored[start : start + 40])
        if state == "all three" and start in (120, 240):
            house.seal(index=start == 120)
    if state in ("sealed", "indexed"):
        house.seal(index=state == "indexed")
    for wanted in EACH_KIND:
        for limit in (7, 500):
            asked = TraceFilter(PROJECT, limit=limit, **wanted)
            assert pages(house, asked) == brute_force(stored, asked), wanted


def test_terms_that_share_a_short_number_cost_a_look_and_no_answer(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers that keep 3 of their first 40 bits: nearly every short number stands for several terms."""
    kept = (0b111 << 61) | ((1 << 24) - 1)
    one, all_of_them = vocabulary.number_of, vocabulary._mixed  # pyright: ignore[reportPrivateUsage]  # made to collide

    def of_one(salt: int, data: bytes) -> int:
        return one(salt, data) if salt == indexing.FIELDS["trace_id"] else one(salt, data) & kept

    def of_all(salt: int, totals: Any, lengths: Any) -> Any:
        found = all_of_them(salt, totals, lengths)
        return found if salt == indexing.FIELDS["trace_id"] else found & np.uint64(kept)

    monkeypatch.setattr(vocabulary, "number_of", of_one)
    monkeypatch.setattr(vocabulary, "_mixed", of_all)
    monkeypatch.setattr(indexing, "number_of", of_one)
    stored = many(5, 200)
    house.put(*stored)
    house.seal(index=True)
    for wanted in EACH_KIND:
        asked = TraceFilter(PROJECT, limit=20, **wanted)
        assert pages(house, asked) == brute_force(stored, asked), wanted


@pytest.mark.parametrize("state", ["sealed", "indexed"])
def test_names_and_values_with_a_nul_between_are_not_each_other(house: House, state: str) -> None:
    house.put(span(0, 0, attributes={"a\0b": "c"}), span(1, 0, attributes={"a": "b\0c"}))
    house.seal(index=state == "indexed")
    assert house.found(attributes={"a\0b": "c"}) == [trace_id(0)]
    assert house.found(attributes={"a": "b\0c"}) == [trace_id(1)]


def test_what_the_index_is_sure_of_is_shown_without_reading_long_texts(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.put(*(span(number, 0, attributes={**said(f"word{number} common"), "k": "v"}) for number in range(9)))
    house.seal(index=True)
    read: list[str] = []
    table = Spans.table

    def reading(self: Spans, part: Any, columns: Any, places: Any = None) -> Any:
        read.extend(columns)
        return table(self, part, columns, places)

    monkeypatch.setattr(Spans, "table", reading)
    assert len(house.found(text="common", attributes={"k": "v"})) == 9
    assert house.found(text="word3") == [trace_id(3)]
    assert read
    assert not {"text", "attributes", "resource"} & set(read)
    assert house.found(attributes={"k": "v" * 300}) == []


def tied(stored: list[Span]) -> bool:
    """Tell whether two spans have one moment, so that the order between their traces is free."""
    moments = [each.start for each in stored]
    return len(set(moments)) < len(moments)


def pages(house: House, wanted: TraceFilter) -> list[str]:
    """Return the ids of all pages of a search; each trace comes once."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = traces.search(house.stores, replace(wanted, cursor=cursor))
        assert len(page.items) <= wanted.limit
        found += [each.trace_id for each in page.items]
        cursor = page.next
        if cursor is None:
            assert len(set(found)) == len(found)
            return found
        assert page.items


def test_the_first_of_a_doubled_span_counts_wherever_the_second_is(house: House) -> None:
    house.put(span(0, 0, attributes=said("the first order")))
    house.put(span(0, 0, attributes=said("the second refund")))
    for then in (lambda: None, lambda: house.seal(index=False), house.index):
        then()
        assert house.found(text="first") == [trace_id(0)]
        assert house.found(text="second") == []
        found = traces.find_trace(house.stores, PROJECT, trace_id(0))
        assert len(found.spans) == found.summary.spans == 1
    house.put(span(0, 0, attributes=said("the third")))
    assert house.found(text="third") == []
    assert len(traces.find_trace(house.stores, PROJECT, trace_id(0)).spans) == 1


def test_a_damaged_index_is_no_index_and_is_made_again(house: House) -> None:
    house.put(*(span(number, 0, attributes=said(f"word{number}")) for number in range(20)))
    house.seal()
    (part,) = house.stores.journal.sealed("span")
    path = index_path(traces.index_folder(house.stores.home), part.file.digest)
    whole = path.read_bytes()
    for broken in (b"", whole[:100], b"x" * len(whole), whole[:9] + b"\xff" * 7 + whole[16:]):
        path.unlink()
        path.write_bytes(broken)
        open_index.cache_clear()
        assert house.found(text="word7") == [trace_id(7)]
    assert house.index() == 1
    assert path.read_bytes() == whole
    assert house.found(text="word7") == [trace_id(7)]


def test_indexes_of_files_that_are_no_more_are_removed(house: House) -> None:
    house.put(span())
    house.seal()
    folder = traces.index_folder(house.stores.home)
    (folder / f"{'0' * 64}.idx").write_bytes(b"")
    assert house.index() == 1
    assert len(list(folder.iterdir())) == 1


def test_feedback_is_joined_to_its_trace_by_trace_span_or_prediction(house: House) -> None:
    more = {"holdtrue.prediction_id": "prd_7"}
    house.put(span(0, 0), span(1, 1), span(2, 2, attributes=more), span(3, 3))
    about = {
        "id": ["f1", "f2", "f3", "f4"],
        "time": [microseconds(NOW)] * 4,
        "trace_id": [trace_id(0), None, None, trace_id(3)],
        "span_id": [None, span(1, 1).span_id, None, None],
        "prediction_id": [None, None, "prd_7", None],
        "name": ["helpful", "helpful", "helpful", "other"],
        "value": [1.0, 0.0, 0.5, 1.0],
        "kind": "number",
        "low": 0.0,
        "high": 1.0,
        "comment": None,
        "user": None,
    }
    house.writer.append("feedback", PROJECT, "default", about, 4)
    for then in (lambda: None, house.seal):
        then()
        assert sorted(house.found(feedback=FeedbackFilter("helpful"))) == [trace_id(0), trace_id(1), trace_id(2)]
        assert house.found(feedback=FeedbackFilter("helpful", most=0.2)) == [trace_id(1)]
        assert house.found(feedback=FeedbackFilter("helpful", least=0.4, most=0.6)) == [trace_id(2)]
        assert house.found(feedback=FeedbackFilter("unknown")) == []
        page = traces.search(house.stores, TraceFilter(PROJECT))
        assert {each.trace_id: [one.value for one in each.feedback] for each in page.items} == {
            trace_id(0): [1.0],
            trace_id(1): [0.0],
            trace_id(2): [0.5],
            trace_id(3): [1.0],
        }
        assert traces.find_trace(house.stores, PROJECT, trace_id(2)).feedback[0].prediction_id == "prd_7"


def test_a_trace_of_another_project_is_not_there(house: House) -> None:
    house.put(span(0, 0))
    house.put(span(0, 0, name="theirs"), span(1, 0), project="other")
    errors: list[str] = []
    for name in (trace_id(1), trace_id(9), "x", "../x"):
        with pytest.raises(NotFound) as error:
            traces.find_trace(house.stores, PROJECT, name)
        errors.append(str(error.value.to_json()))
    assert len(set(errors)) == 1
    # One id in two projects is two traces.
    assert traces.find_trace(house.stores, PROJECT, trace_id(0)).summary.name == "chat small"
    assert traces.find_trace(house.stores, "other", trace_id(0)).summary.name == "theirs"
    assert house.found() == [trace_id(0)]


@pytest.mark.parametrize("cursor", ["x", "1-2", "-1-0123456789", "1-0123456789\n", "9" * 30 + "-0123456789"])
def test_an_invented_cursor_is_refused(house: House, cursor: str) -> None:
    with pytest.raises(InvalidInput):
        traces.search(house.stores, TraceFilter(PROJECT, cursor=cursor))


@pytest.mark.parametrize("limit", [0, -1, 501])
def test_a_limit_out_of_bounds_is_refused(house: House, limit: int) -> None:
    with pytest.raises(InvalidInput):
        traces.search(house.stores, TraceFilter(PROJECT, limit=limit))
