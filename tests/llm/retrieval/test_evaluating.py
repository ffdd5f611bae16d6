"""Retrieval's metrics, against a slow version, scikit-learn, and intervals that must cover."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from holdtrue.llm.retrieval import Hit, RetrievalCase, evaluate_retrieval, read_cases
from holdtrue.llm.retrieval.evaluating import BadCases, judge


def hit(document: str, part: int = 0) -> Hit:
    return Hit(f"{document}#{part}", document, document, "text", 1.0, 0, 4)


_HITS = st.lists(
    st.builds(hit, st.sampled_from("abcdef"), st.integers(0, 2)), max_size=12, unique_by=lambda each: each.id
)
_RELEVANT = st.lists(st.sampled_from([*"abcdefg", "a#0", "b#1", "c#2"]), min_size=1, max_size=5)


def _slow(relevant: list[str], hits: Sequence[Hit], k: int) -> tuple[float, float, float]:
    """Return recall, reciprocal rank and nDCG by walking through the definitions."""
    wanted = set(relevant)
    top = list(hits)[:k]
    recall = sum(any(name in (each.id, each.document) for each in top) for name in wanted) / len(wanted)
    gains: list[int] = []
    for place, each in enumerate(top):
        matches = {name for name in wanted if name in (each.id, each.document)}
        before = {name for name in wanted for one in top[:place] if name in (one.id, one.document)}
        gains.append(1 if matches - before else 0)
    reciprocal = next((1.0 / (place + 1) for place, gain in enumerate(gains) if gain), 0.0)
    best = sum(1 / math.log(place + 2, 2) for place in range(min(k, len(wanted))))
    return recall, reciprocal, sum(gain / math.log(place + 2, 2) for place, gain in enumerate(gains)) / best


@given(_RELEVANT, _HITS, st.integers(1, 12))
def test_each_question_scores_as_defined(relevant: list[str], hits: list[Hit], k: int) -> None:
    found = judge(RetrievalCase("q", tuple(relevant)), hits, k)
    assert (found.recall, found.reciprocal, found.ndcg) == pytest.approx(_slow(relevant, hits, k))
    assert 0.0 <= found.ndcg <= 1.0 + 1e-12
    assert (found.first is None) == (found.recall == 0.0)
    assert len(found.missed) == round((1 - found.recall) * len(set(relevant)))


@given(st.permutations("abcdefgh"), st.sets(st.sampled_from("abcdefgh"), min_size=1), st.integers(1, 8))
def test_ndcg_is_that_of_scikit_learn(order: list[str], relevant: set[str], k: int) -> None:
    """Rank every document, so that scikit-learn's ideal, which knows only what was ranked, is the same."""
    found = judge(RetrievalCase("q", tuple(sorted(relevant))), [hit(name) for name in order], k)
    gains = [[1 if name in relevant else 0 for name in order]]
    assert found.ndcg == pytest.approx(ndcg_score(gains, [[-place for place in range(len(order))]], k=k))


def _search(answers: dict[str, list[Hit]]):  # the type is Search
    def search(query: str, *, k: int) -> Sequence[Hit]:
        return answers[query][:k]

    return search


def test_evidence_has_means_intervals_and_what_was_missed() -> None:
    cases = [RetrievalCase(f"q{number}", ("a",), f"c{number}") for number in range(20)]
    answers = {f"q{number}": [hit("b"), hit("a")] if number % 4 else [hit("b")] for number in range(20)}
    told: list[tuple[int, int]] = []
    content = evaluate_retrieval(_search(answers), cases, 5, on_case=lambda *done: told.append(done))
    assert content["recall"]["value"] == 0.75
    assert content["mrr"]["value"] == pytest.approx(0.375)
    assert content["ndcg"]["value"] == pytest.approx(0.75 / math.log2(3))
    for name in ("recall", "mrr", "ndcg"):
        assert content[name]["lower"] < content[name]["value"] < content[name]["upper"]
        assert content[name]["n"] == 20
    assert (content["n"], content["k"], content["found_nothing"]) == (20, 5, 5)
    first = content["questions"][0]
    assert (first["id"], first["recall"], first["first"], first["missed"]) == ("c0", 0.0, None, ["a"])
    assert content["questions"][-1]["first"] == 2
    assert told[-1] == (20, 20)
    assert orjson.loads(orjson.dumps(content)) == content


def test_a_perfect_score_on_few_questions_is_not_certain() -> None:
    cases = [RetrievalCase(f"q{number}", ("a",)) for number in range(5)]
    content = evaluate_retrieval(_search({f"q{number}": [hit("a")] for number in range(5)}), cases)
    assert content["recall"]["value"] == 1.0
    assert 0.5 < content["recall"]["lower"] < 0.6
    # All the same and none of them 0 or 1: a bootstrap would be certain, and wrong.
    halves = evaluate_retrieval(
        _search({f"q{number}": [hit("a")] for number in range(5)}),
        [RetrievalCase(f"q{number}", ("a", "b")) for number in range(5)],
    )
    assert halves["recall"]["lower"] < 0.2 < 0.8 < halves["recall"]["upper"]


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Draw questions from a known world 300 times; the interval holds the true mean in about 95 of 100."""
    random = np.random.default_rng(5)
    places, chances = np.array([1, 2, 3, 0]), [0.5, 0.2, 0.1, 0.2]
    true = float(np.dot(chances, [1, 1 / 2, 1 / 3, 0]))
    covered = 0
    for _ in range(300):
        ranks = random.choice(places, 40, p=chances)
        answers = {
            f"q{n}": [hit("x", i) for i in range(rank - 1)] + [hit("a")] if rank else [] for n, rank in enumerate(ranks)
        }
        content = evaluate_retrieval(_search(answers), [RetrievalCase(f"q{n}", ("a",)) for n in range(40)])
        covered += content["mrr"]["lower"] <= true <= content["mrr"]["upper"]
    assert 0.91 <= covered / 300 <= 0.99


def test_evidence_stays_small() -> None:
    cases = [RetrievalCase("q" * 5000, tuple(f"{'m' * 500}{part}" for part in range(30)), str(n)) for n in range(500)]
    content = evaluate_retrieval(_search({"q" * 5000: []}), cases)
    assert len(orjson.dumps(content)) < 256 << 10
    assert content["questions_left_out"] + len(content["questions"]) == 500
    assert content["questions_left_out"] > 0


@pytest.mark.parametrize(("question", "relevant"), [("", ("a",)), ("  ", ("a",)), ("q", ()), ("q", ("",))])
def test_a_case_needs_a_question_and_an_answer(question: str, relevant: tuple[str, ...]) -> None:
    with pytest.raises(BadCases):
        RetrievalCase(question, relevant)


def test_no_cases_and_wrong_k() -> None:
    with pytest.raises(BadCases):
        evaluate_retrieval(_search({}), [])
    with pytest.raises(BadCases):
        evaluate_retrieval(_search({}), [RetrievalCase("q", ("a",))], 0)


def test_cases_are_read_from_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text('{"question": "q", "relevant": "a"}\n\n{"question": "r", "relevant": ["a", "b#1"], "id": "x"}\n')
    assert read_cases(path) == [RetrievalCase("q", ("a",), "1"), RetrievalCase("r", ("a", "b#1"), "x")]


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "5", '{"question": "q"}', '{"question": "q", "relevant": []}', '{"question": 5, "relevant": "a"}',
     '{"question": "q", "relevant": [5]}', '{"question": "q", "relevant": "a", "answer": "x"}'],
)  # fmt: skip
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(f'{{"question": "q", "relevant": "a"}}\n{line}\n')
    with pytest.raises(BadCases, match="Line 2"):
        read_cases(path)
