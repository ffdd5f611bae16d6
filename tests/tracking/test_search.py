"""Searches against a twin that filters and sorts lists in memory: same runs, same order, on pages of any size."""

import functools
import math
import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdtrue import tracking
from holdtrue.core.errors import InvalidInput
from holdtrue.storage.ledger import Ledger, Transaction
from holdtrue.tracking import Batch, Metric, NewRun, Pair, rules, search
from holdtrue.tracking.search import RUNS, FilterError, Search, parse_filter, parse_order
from tests.tracking.conftest import CONTEXT

KEYS = ("m", "val/loss", "odd key")
WORDS = ("a", "A", "b", "a_b", "a%", "*", "[x]", "")


@dataclass
class Twin:
    """A run, as the test remembers it."""

    id: str
    start: int
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    params: dict[str, str] = field(default_factory=dict[str, str])


@pytest.fixture(scope="module")
def world(ledger: Ledger) -> tuple[list[int], list[Twin]]:
    """Write runs into two experiments: many ties, missing values, NaN."""
    twins: list[Twin] = []

    def work(tx: Transaction) -> list[int]:
        ids = [tracking.create_experiment(tx, name).id for name in ("one", "two")]
        for number in range(60):
            run = tracking.create_run(tx, NewRun(ids[number % 2], start_ms=1000 + number // 7)).info
            twin = Twin(run.id, run.start_ms)
            for place, key in enumerate(KEYS):
                if (number + place) % 4:
                    twin.metrics[key] = math.nan if number % 11 == 5 else float((number * (place + 3)) % 5)
            twin.params["word"] = WORDS[number % len(WORDS)]
            points = tuple(rules.metric(key, value, 1, 0) for key, value in twin.metrics.items())
            tracking.log(tx, Batch(run.id, points, tuple(Pair(*each) for each in twin.params.items())))
            twins.append(twin)
        return ids

    return ledger.write(CONTEXT, work), twins


comparisons = st.tuples(st.sampled_from(KEYS), st.sampled_from(["=", "!=", ">", ">=", "<", "<="]), st.integers(-1, 5))
likes = st.tuples(
    st.just("word"), st.sampled_from(["LIKE", "ILIKE", "=", "!=", "IN", "NOT IN"]), st.sampled_from(WORDS)
)
orders = st.lists(
    st.tuples(st.sampled_from([*KEYS, "word", "start_time", "run_id"]), st.booleans()),
    max_size=2,
    unique_by=lambda e: e[0],
)


def holds(twin: Twin, condition: tuple[str, str, Any]) -> bool:
    """Apply a condition in memory."""
    key, operator, value = condition
    if key == "word":
        own = twin.params["word"]
        if operator in ("LIKE", "ILIKE"):
            signs = {"%": ".*", "_": "."}
            pattern = "".join(signs[sign] if sign in signs else re.escape(sign) for sign in str(value))
            flags = re.DOTALL | (re.IGNORECASE if operator == "ILIKE" else 0)
            return re.fullmatch(pattern, own, flags) is not None
        return (own == value) == (operator in ("=", "IN"))
    own = twin.metrics.get(key)
    if own is None or math.isnan(own):
        return False
    return {"=": own == value, "!=": own != value, ">": own > value, ">=": own >= value, "<": own < value,
            "<=": own <= value}[operator]  # fmt: skip


def text_of(condition: tuple[str, str, Any]) -> str:
    """Write a condition as a client does."""
    key, operator, value = condition
    if key == "word":
        quoted = "'" + value.replace("'", "''") + "'"
        return f"params.word {operator} {f'({quoted})' if 'IN' in operator else quoted}"
    return f"metrics.`{key}` {operator} {value}"


def sorted_twins(twins: list[Twin], order: list[tuple[str, bool]]) -> list[Twin]:
    """Sort in memory: missing last, NaN before it, ties by start (newest first) and id."""

    def rank(twin: Twin, key: str) -> tuple[int, Any]:
        if key == "start_time":
            return 0, twin.start
        if key == "run_id":
            return 0, twin.id
        if key == "word":
            return 0, twin.params["word"]
        own = twin.metrics.get(key)
        return (2, 0) if own is None else (1, 0) if math.isnan(own) else (0, own)

    def compare(a: Twin, b: Twin) -> int:
        for key, ascending in order:
            left, right = rank(a, key), rank(b, key)
            if left[0] != right[0]:
                return -1 if left[0] < right[0] else 1
            if left[1] != right[1]:
                return (-1 if left[1] < right[1] else 1) * (1 if ascending else -1)
        if a.start != b.start:
            return -1 if a.start > b.start else 1
        return -1 if a.id < b.id else 1

    return sorted(twins, key=functools.cmp_to_key(compare))


# Of 60 runs, pages of three are many, and a page of one more than all is one; pages of one only take longer.
SIZES = st.sampled_from([3, 7, 25, 59, 60, 61])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(comparisons, likes), max_size=3), orders, SIZES)
def test_searches_agree_with_a_twin_in_memory(
    ledger: Ledger,
    world: tuple[list[int], list[Twin]],
    conditions: list[tuple[str, str, Any]],
    order: list[tuple[str, bool]],
    size: int,
) -> None:
    ids, twins = world
    expected = sorted_twins([twin for twin in twins if all(holds(twin, each) for each in conditions)], order)
    names = {**{key: f"metrics.`{key}`" for key in KEYS}, "word": "params.word"}
    terms = [f"{names.get(key, key)} {'ASC' if up else 'DESC'}" for key, up in order]
    text = " AND ".join(text_of(each) for each in conditions)
    found: list[str] = []
    page: str | None = None
    for _ in range(100):
        wish = Search(ids, text, limit=size, order=terms, page=page)
        runs, page = ledger.read(lambda c, wish=wish: search.search_runs(c, "flights", wish))
        found += [run.info.id for run in runs]
        if page is None:
            break
    assert found == [twin.id for twin in expected]


def test_a_page_token_of_another_question_is_refused(ledger: Ledger, world: tuple[list[int], list[Twin]]) -> None:
    ids, _ = world
    _, page = ledger.read(lambda c: search.search_runs(c, "flights", Search(ids, limit=5)))
    for wish in (Search(ids, "metrics.m > 0", limit=5, page=page), Search(ids, limit=5, order=["run_id"], page=page)):
        with pytest.raises(InvalidInput, match="Invalid page token"):
            ledger.read(lambda c, wish=wish: search.search_runs(c, "flights", wish))


keys = st.text(st.characters(blacklist_characters="`", blacklist_categories=("Cs", "Cc")), min_size=1, max_size=20)


@given(keys, st.text(st.characters(blacklist_categories=("Cs",)), max_size=30).filter(lambda text: "\\" not in text))
def test_any_key_and_text_is_read_back(key: str, value: str) -> None:
    (condition,) = parse_filter(f"params.`{key}` = '{value.replace(chr(39), chr(39) * 2)}'", RUNS)
    assert (condition.subject.key, condition.value) == (key, value)


@given(st.text(max_size=80))
def test_no_text_does_anything_but_parse_or_point_at_its_mistake(text: str) -> None:
    for read in (lambda: parse_filter(text, RUNS), lambda: parse_order([text], RUNS)):
        try:
            read()
        except FilterError as error:
            place = error.facts["place"]
            assert 1 <= place <= len(text) + 1


@given(
    st.lists(
        st.sampled_from(
            ["metrics", ".", "a", "AND", "=", "'x'", "1", "(", ")", ",", "IN", "NOT", "IS", "NULL", "`", '"']
        ),
        max_size=12,
    )
)
def test_no_heap_of_words_is_more_than_a_mistake(words: list[str]) -> None:
    text = " ".join(words)
    try:
        parse_filter(text, RUNS)
    except FilterError as error:
        place = error.facts["place"]
        assert 1 <= place <= len(text) + 1


points = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 3), st.integers(0, 3), st.sampled_from([0.0, 1.0, math.nan])),
    max_size=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(points, max_size=4))
def test_the_summary_is_the_newest_point_and_the_history_all_of_them(ledger: Ledger, batches: list[Any]) -> None:
    def work(tx: Transaction) -> str:
        run = tracking.create_run(tx, NewRun(0)).info.id
        for batch in batches:
            tracking.log(tx, Batch(run, tuple(rules.metric(key, value, ms, step) for key, step, ms, value in batch)))
        return run

    run = ledger.write(CONTEXT, work)
    every = [rules.metric(key, value, ms, step) for batch in batches for key, step, ms, value in batch]
    newest: dict[str, Metric] = {}
    for each in every:
        if each.key not in newest or (each.step, each.timestamp) >= (newest[each.key].step, newest[each.key].timestamp):
            newest[each.key] = each
    found = ledger.read(lambda c: tracking.find_run(c, "flights", run))
    assert {each.key: each for each in found.metrics} == newest
    for key in ("a", "b"):
        page = ledger.read(lambda c, key=key: tracking.history(c, "flights", run, key))
        expected = sorted({each[1:] for each in every if each.key == key})
        assert [tuple(point) for point in page.points] == expected
