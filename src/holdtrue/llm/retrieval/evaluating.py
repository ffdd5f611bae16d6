"""How well an index finds what it should: recall@k, MRR and nDCG@k, each with its interval.

Retrieval is judged apart from answers: a question names the documents or passages that hold its answer.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson

from holdtrue.core.errors import InvalidInput
from holdtrue.llm.retrieval.model import MOST_HITS, Hit
from holdtrue.stats import Interval, mean_bootstrap, wilson

_MOST_BYTES = 240 << 10
_LONGEST_SHOWN = 300
_MOST_CASES = 100_000
_FEW = 10
_CASE_KEYS = frozenset({"question", "relevant", "id"})


class BadCases(InvalidInput):
    """Questions for judging retrieval cannot be used."""

    code = "bad_retrieval_cases"


@dataclass(frozen=True, slots=True)
class RetrievalCase:
    """Ask a question, and name the documents (by id) or passages (`document#n`) that should be found for it."""

    question: str
    relevant: tuple[str, ...]
    id: str = ""

    def __post_init__(self) -> None:
        if not self.question.strip() or not self.relevant or not all(self.relevant):
            raise BadCases(
                f"The question {self.question[:80]!r} cannot be used.",
                why="A case has a question, and at least one document or passage that should be found.",
                mend="Complete it, or take it out.",
            )


class Search(Protocol):
    """Find passages, best first, as `Index.search` does."""

    def __call__(self, query: str, *, k: int) -> Sequence[Hit]:
        """Return at most `k` hits."""
        ...


@dataclass(frozen=True, slots=True)
class Judged:
    """Hold what one list of hits is worth for one question."""

    recall: float
    reciprocal: float
    ndcg: float
    missed: tuple[str, ...]
    first: int | None
    """The rank of the first hit that is relevant, from 1."""


def judge(case: RetrievalCase, hits: Sequence[Hit], k: int) -> Judged:
    """Return what the first `k` hits are worth.

    Recall@k is the share of the relevant that are among them. A second passage of a document that was found already
    finds nothing new. nDCG@k has gain 1 for a hit that finds something new, discount log₂(rank + 1), and the ideal
    of as many gains as there are relevant (Järvelin and Kekäläinen, 2002).
    """
    wanted = list(dict.fromkeys(case.relevant))
    found: set[str] = set()
    first: int | None = None
    gained = 0.0
    for rank, hit in enumerate(hits[:k], 1):
        fresh = {hit.id, hit.document}.intersection(wanted) - found
        if fresh:
            found |= fresh
            gained += 1.0 / math.log2(rank + 1)
            first = first or rank
    ideal = sum(1.0 / math.log2(rank + 1) for rank in range(1, min(k, len(wanted)) + 1))
    missed = tuple(each for each in wanted if each not in found)
    return Judged(len(found) / len(wanted), 1.0 / first if first else 0.0, gained / ideal, missed, first)


def evaluate_retrieval(
    search: Search,
    cases: Sequence[RetrievalCase],
    k: int = 5,
    *,
    on_case: Callable[[int, int], None] = lambda _done, _of: None,
) -> dict[str, Any]:
    """Search for every case and return the content of a piece of evidence of kind retrieval.

    `recall`, `mrr` and `ndcg` have `value`, `lower`, `upper` (95 %) and `n`, so that a rule may say
    `retrieval.recall.lower >= 0.8`. Where every question scores 0 or 1 the interval is Wilson's, else that of a
    bootstrap over questions; with fewer than 10 questions, or where all score the same, it is Wilson's for the
    sum of scores, which is never too narrow: of all that lies from 0 to 1 with one mean, 0 and 1 vary most.
    """
    _check(cases, k)
    judged: list[Judged] = []
    seconds: list[float] = []
    for number, case in enumerate(cases, 1):
        start = time.perf_counter()
        hits = search(case.question, k=k)
        seconds.append(time.perf_counter() - start)
        judged.append(judge(case, hits, k))
        on_case(number, len(cases))
    content: dict[str, Any] = {
        "k": k,
        "n": len(cases),
        "recall": _interval([each.recall for each in judged]).to_json(),
        "mrr": _interval([each.reciprocal for each in judged]).to_json(),
        "ndcg": _interval([each.ndcg for each in judged]).to_json(),
        "found_nothing": sum(each.first is None for each in judged),
        "milliseconds": {
            "p50": round(float(np.quantile(seconds, 0.5)) * 1000.0, 3),
            "p95": round(float(np.quantile(seconds, 0.95)) * 1000.0, 3),
        },
    }
    return content | _rows(cases, judged, _MOST_BYTES - len(orjson.dumps(content)))


def read_cases(path: Path) -> list[RetrievalCase]:
    """Return the cases in a file of JSON lines, each with `question`, `relevant` (one id or several), and `id`.

    Raises BadCases naming the line.
    """
    cases: list[RetrievalCase] = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            each: Any = orjson.loads(line)
            relevant = each["relevant"]
            if unknown := sorted(each.keys() - _CASE_KEYS):
                raise ValueError(f"“{unknown[0][:60]}” is not known; known are question, relevant and id")
            names = (relevant,) if isinstance(relevant, str) else tuple(relevant)
            if not all(isinstance(name, str) for name in (each["question"], *names)):
                raise ValueError("a question and what is relevant are texts")
            cases.append(RetrievalCase(each["question"], names, str(each.get("id", number))))
        except (ValueError, KeyError, TypeError, AttributeError, BadCases) as error:
            raise BadCases(
                f"Line {number} of {path.name} is no case.",
                why=f"{error!s:.200}",
                mend='Write, for example, {"question": "How do I roll back?", "relevant": ["docs/rollback.md"]}.',
                facts={"line": number},
            ) from None
    return cases


def _check(cases: Sequence[RetrievalCase], k: int) -> None:
    if not cases or len(cases) > _MOST_CASES:
        raise BadCases(f"{len(cases)} questions cannot be judged.", mend=f"Give 1 to {_MOST_CASES}.")
    if not 1 <= k <= MOST_HITS:
        raise BadCases(f"Retrieval cannot be judged at k = {k}.", mend=f"Use a k from 1 to {MOST_HITS}.")


def _interval(values: list[float]) -> Interval:
    """Return the mean of values from 0 to 1 with its 95 % interval."""
    n = len(values)
    if set(values) <= {0.0, 1.0}:
        return wilson(round(sum(values)), n)
    if n < _FEW or len(set(values)) == 1:
        return wilson(math.fsum(values), n)
    found = mean_bootstrap(values, np.arange(n)).interval()
    return Interval(found.value, max(0.0, found.lower), min(1.0, found.upper), n)


def _rows(cases: Sequence[RetrievalCase], judged: Sequence[Judged], room: int) -> dict[str, Any]:
    """Return one row a question, the worst first, as many as there is room for (in bytes)."""
    order = sorted(range(len(cases)), key=lambda at: (judged[at].ndcg, judged[at].recall, at))
    rows: list[dict[str, Any]] = []
    for at in order:
        case, each = cases[at], judged[at]
        row = {
            "id": case.id[:_LONGEST_SHOWN] or str(at + 1),
            "question": case.question[:_LONGEST_SHOWN],
            "recall": round(each.recall, 6),
            "reciprocal_rank": round(each.reciprocal, 6),
            "ndcg": round(each.ndcg, 6),
            "first": each.first,
            "missed": [name[:_LONGEST_SHOWN] for name in each.missed[:20]],
        }
        room -= len(orjson.dumps(row)) + 1
        if room < 100:
            break
        rows.append(row)
    return {"questions": rows, "questions_left_out": len(cases) - len(rows)}
