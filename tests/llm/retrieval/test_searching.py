"""The two ways of searching, and ranked lists, against slow and plain versions of themselves."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.llm.retrieval.keywords import K1, B, KeywordIndex, counted, merged, postings
from holdtrue.llm.retrieval.ranking import best, fuse
from holdtrue.llm.retrieval.text import terms
from holdtrue.llm.retrieval.vectors import VectorIndex, quantised
from tests.sampling import examples

_WORDS = st.sampled_from(["roll", "back", "canary", "alarm", "the", "drift", "a", "label"])
_TEXTS = st.lists(st.lists(_WORDS, min_size=1, max_size=12).map(" ".join), min_size=1, max_size=12)


def _index(texts: list[str]) -> dict[str, Any]:
    made = counted(texts)
    return {"lengths": made["lengths"], **postings(made["keys"], made["owners"].astype(np.int64), made["counts"])}


def _bm25(texts: list[str], query: str) -> dict[int, float]:
    """Return BM25 of every text for a query, term by term and text by text."""
    bags = [Counter(terms(text)) for text in texts]
    mean = sum(bag.total() for bag in bags) / len(bags)
    asked = Counter(terms(query))
    having = {term: sum(term in bag for bag in bags) for term in asked}
    rare = {term for term, n in having.items() if 0 < n * 2 <= len(bags)}
    scores: dict[int, float] = {}
    for row, bag in enumerate(bags):
        for term in rare or asked:
            if count := bag[term]:
                n = having[term]
                idf = math.log(1 + (len(bags) - n + 0.5) / (n + 0.5))
                tf = count * (K1 + 1) / (count + K1 * (1 - B + B * bag.total() / mean))
                scores[row] = scores.get(row, 0.0) + asked[term] * idf * tf
    return scores


@settings(max_examples=examples(200))
@given(_TEXTS, st.lists(_WORDS, max_size=6).map(" ".join), st.integers(1, 12))
def test_keywords_score_as_the_formula_says(texts: list[str], query: str, count: int) -> None:
    rows, scores = KeywordIndex(_index(texts)).search(query, count)
    expected = _bm25(texts, query)
    assert len(rows) == min(count, len(expected))
    for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
        assert score == pytest.approx(expected[row], rel=1e-5)
    left = [score for row, score in expected.items() if row not in rows]
    assert not left or min(scores) >= max(left) - 1e-5
    assert list(zip(-scores, rows, strict=True)) == sorted(zip(-scores, rows, strict=True))


def test_a_word_of_most_texts_counts_only_if_there_is_no_other() -> None:
    texts = ["the alarm", "the canary", "the drift", "the label the"]
    index = KeywordIndex(_index(texts))
    assert index.search("the canary", 5)[0].tolist() == [1]
    assert index.search("the", 5)[0].tolist()[0] == 3
    assert index.search("nothing of it", 5)[0].tolist() == []
    assert index.search("", 5)[0].tolist() == []


def test_a_very_long_query_counts_its_rarest_terms() -> None:
    texts = [f"w{n} common{n % 5}" for n in range(300)]
    index = KeywordIndex(_index(texts))
    rows, _ = index.search(" ".join(f"w{n}" for n in range(200)) + " common1", 100)
    assert len(rows) == 64


@settings(max_examples=examples(200))
@given(_TEXTS, _TEXTS, st.data())
def test_merged_postings_are_those_of_a_new_index(old: list[str], new: list[str], data: st.DataObject) -> None:
    """Drop and add rows at random; the arrays must be the same as if all had been counted together."""
    kept = [row for row in range(len(old)) if data.draw(st.booleans())]
    total = len(kept) + len(new)
    mixed = data.draw(st.permutations(range(total)))
    places = [*sorted(mixed[: len(kept)]), *mixed[len(kept) :]]
    moved = np.full(len(old), -1, np.int64)
    moved[kept] = places[: len(kept)]
    made = counted(new)
    rows = np.array(places[len(kept) :], np.int64)[made["owners"]]
    found = merged(_index(old), moved, made["keys"], rows, made["counts"])  # type: ignore[arg-type]  # uint64
    texts = [""] * total
    for row, place in zip(kept, places, strict=False):
        texts[place] = old[row]
    for text, place in zip(new, places[len(kept) :], strict=True):
        texts[place] = text
    expected = _index(texts)
    for name in ("terms", "starts", "rows", "counts"):
        assert found[name].dtype == expected[name].dtype
        assert np.array_equal(found[name], expected[name]), name


def test_a_count_has_a_ceiling() -> None:
    assert counted(["a " * 1000])["counts"].tolist() == [255]
    assert counted(["a " * 1000])["lengths"].tolist() == [1000]


@given(
    st.lists(st.sampled_from([0.0, 0.5, 1.0, -1.0, 2.5]), max_size=40),
    st.integers(1, 45),
    st.sampled_from([-math.inf, 0.0, 0.5]),
)
def test_the_best_are_the_first_of_all_sorted(values: list[float], count: int, above: float) -> None:
    rows, scores = best(np.array(values, np.float32), count, above)
    expected = sorted((-value, row) for row, value in enumerate(values) if value > above)[:count]
    assert list(zip((-scores).tolist(), rows.tolist(), strict=True)) == expected


@pytest.mark.parametrize("n", [1280, 5000, 20_011])
def test_the_best_of_many_are_found_by_blocks(n: int) -> None:
    for seed, values in enumerate([np.arange(n), np.zeros(n), np.random.default_rng(3).integers(0, 50, n)]):
        for above in (-math.inf, 0.0, 49.0, 10.0**6):
            rows, _ = best(values.astype(np.float32), 10, above)
            expected = sorted((-value, row) for row, value in enumerate(values.tolist()) if value > above)[:10]
            assert rows.tolist() == [row for _, row in expected], (seed, above)


def test_reciprocal_rank_fusion() -> None:
    found = fuse([(1.0, [7, 3, 9]), (2.0, [3, 8])], 10)
    assert found == [(3, 1 / 62 + 2 / 61), (8, 2 / 62), (7, 1 / 61), (9, 1 / 63)]
    assert fuse([(1.0, [5, 2]), (1.0, [2, 5])], 1) == [(2, 1 / 61 + 1 / 62)]
    assert fuse([(0.0, [5]), (1.0, [2])], 5) == [(2, 1 / 61)]
    assert fuse([], 5) == []


def _unit(seed: int, rows: int, width: int) -> Any:
    values = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.mark.parametrize(("rows", "width"), [(1, 3), (50, 64), (3000, 384), (700, 1536)])
def test_vectors_are_found_as_by_comparing_all(rows: int, width: int) -> None:
    exact = _unit(1, rows, width).astype(np.float16)
    rough, scales = quantised(exact)
    index = VectorIndex({"vectors": exact, "rough": rough, "scales": scales})
    assert index.dimensions == width
    for query in _unit(2, 10, width):
        found, cosines = index.search(query, 10)
        every = exact.astype(np.float32) @ query
        expected = np.lexsort((np.arange(rows), -every))[:10]
        assert found.tolist() == expected.tolist()
        assert cosines == pytest.approx(every[expected], abs=1e-6)


def test_equal_vectors_go_by_row_and_zeros_do_no_harm() -> None:
    exact = np.concatenate([np.repeat(_unit(1, 1, 32), 400, axis=0), np.zeros((2, 32))]).astype(np.float16)
    rough, scales = quantised(exact)
    index = VectorIndex({"vectors": exact, "rough": rough, "scales": scales})
    assert index.search(_unit(1, 1, 32)[0], 5)[0].tolist() == [0, 1, 2, 3, 4]
    assert np.abs(rough[:400].astype(np.float32) * scales[:400, None] - exact[:400]).max() < 0.01


def test_no_vectors() -> None:
    empty = np.empty((0, 8), np.float16)
    rough, scales = quantised(empty)
    index = VectorIndex({"vectors": empty, "rough": rough, "scales": scales})
    assert index.search(_unit(1, 1, 8)[0], 5)[0].tolist() == []
