"""Search by words: BM25 over postings that can be merged.

Own postings, since the scores which bm25s computes ahead depend on all documents: one changed document changes
every one of them, so an index there is made anew each time. Here a posting is a count; scores are computed for the
terms of a query, when it comes.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from holdtrue.core.errors import TooLarge
from holdtrue.llm.retrieval.arrays import Array
from holdtrue.llm.retrieval.ranking import Ranked, best
from holdtrue.llm.retrieval.text import term_key, terms

# The constants that Robertson and Zaragoza (2009, section 3.5) name as good in many cases.
K1, B = 1.2, 0.75
_MOST_TERMS = 64
_MOST_COUNT = 255
_MOST_KNOWN = 1 << 20
# One number holds a posting: 24 bits of term, 32 of row, 8 of count; so postings are merged by sorting numbers.
_TERM_BITS, _ROW_BITS, _COUNT_BITS = 24, 32, 8


def counted(texts: Iterable[str], known: dict[str, int] | None = None) -> dict[str, Array]:
    """Return the terms of each text: `keys` uint64, `owners` int32 and `counts` uint8 [m], `lengths` int32 [n].

    `known` remembers the keys of terms from call to call.
    """
    memory = {} if known is None else known
    keys: list[int] = []
    counts: list[int] = []
    owners: list[int] = []
    lengths: list[int] = []
    for owner, text in enumerate(texts):
        found = Counter(terms(text))
        for term, count in found.items():
            key = memory.get(term)
            if key is None:
                key = term_key(term)
                if len(memory) < _MOST_KNOWN:
                    memory[term] = key
            keys.append(key)
            counts.append(min(count, _MOST_COUNT))
        owners += [owner] * len(found)
        lengths.append(found.total())
    return {
        "keys": np.array(keys, np.uint64),
        "owners": np.array(owners, np.int32),
        "counts": np.array(counts, np.uint8),
        "lengths": np.array(lengths, np.int32),
    }


def postings(keys: NDArray[np.uint64], rows: NDArray[np.int64], counts: Array) -> dict[str, Array]:
    """Return what an index keeps of postings, in any order: terms, where each one's rows start, rows, counts.

    Raises TooLarge beyond 16 million different terms.
    """
    found, ranks = np.unique(keys, return_inverse=True)
    return _kept(found, np.sort(_numbers(ranks, rows, counts)))


def merged(
    before: Mapping[str, Array], moved: NDArray[np.int64], keys: NDArray[np.uint64], rows: Array, counts: Array
) -> dict[str, Array]:
    """Return the postings of an index in which row i became `moved[i]` (−1: gone), with new postings added.

    The same as `postings` of all of them together. Rows that stay keep their order.
    """
    new_rows = moved[before["rows"]]
    stays = new_rows >= 0
    # How many postings of each term stay; none of them had none before.
    left = np.add.reduceat(stays, before["starts"][:-1], dtype=np.int64) if len(stays) else np.empty(0, np.int64)
    found = np.union1d(before["terms"][left > 0], np.unique(keys))
    renamed = np.repeat(np.searchsorted(found, before["terms"]), np.diff(before["starts"]))
    old = _numbers(renamed, new_rows, before["counts"])
    # Neither new names nor new places change the order of what was sorted, so the new is only put in between.
    old = old if stays.all() else old[stays]
    new = np.sort(_numbers(np.searchsorted(found, keys), rows, counts))
    return _kept(found, np.insert(old, np.searchsorted(old, new), new))


def _numbers(ranks: Array, rows: Array, counts: Array) -> NDArray[np.uint64]:
    """Return one number for each posting, which sorts by term, then by row."""
    numbers = ranks.astype(np.uint64)
    numbers <<= np.uint64(_ROW_BITS)
    numbers |= rows.view(np.uint64)
    numbers <<= np.uint64(_COUNT_BITS)
    numbers |= counts
    return numbers


def _kept(found: NDArray[np.uint64], numbers: NDArray[np.uint64]) -> dict[str, Array]:
    if len(found) >= 1 << _TERM_BITS:
        raise TooLarge(
            f"The documents have {len(found)} different words.",
            why=f"An index holds fewer than {1 << _TERM_BITS}.",
            mend="Split the documents into several indexes, or leave out those that are not prose.",
        )
    firsts = np.arange(len(found) + 1, dtype=np.uint64) << np.uint64(_ROW_BITS + _COUNT_BITS)
    counts = numbers.astype(np.uint8)
    starts = np.searchsorted(numbers, firsts).astype(np.int64)
    numbers >>= np.uint64(_COUNT_BITS)
    return {"terms": found, "starts": starts, "rows": numbers.astype(np.uint32).view(np.int32), "counts": counts}


class KeywordIndex:
    """Search chunks by the words of a query."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._terms, self._starts = arrays["terms"], arrays["starts"]
        self._rows, self._counts = arrays["rows"], arrays["counts"]
        lengths = arrays["lengths"]
        self._n = len(lengths)
        mean = float(lengths.mean()) if self._n else 1.0
        self._norms = (K1 * (1.0 - B + B * lengths / max(mean, 1.0))).astype(np.float32)

    def search(self, query: str, count: int) -> Ranked:
        """Return the rows with the best BM25 scores for the terms of `query`, best first; ties by row.

        The score of a term is ln(1 + (N − n + ½) / (n + ½)) · f (k₁ + 1) / (f + k₁ (1 − b + b · l / mean l)), as
        in Lucene, n of N chunks having it. A term of more than half of all chunks tells nothing apart and counts
        only if there is no other; of many terms the 64 rarest count.
        """
        scores = np.zeros(self._n, np.float32)
        for start, end, weight in self._chosen(query):
            rows = self._rows[start:end]
            counts = self._counts[start:end].astype(np.float32)
            gains = np.take(self._norms, rows)
            gains += counts
            np.divide(counts, gains, out=gains)
            gains *= weight
            # A row is once among those of a term, so what is added is not lost.
            scores[rows] += gains
        return best(scores, count, above=0.0)

    def _chosen(self, query: str) -> list[tuple[int, int, np.float32]]:
        """Return where the postings of each term that counts are, and its weight; the rarest first."""
        found: list[tuple[int, int, int, int]] = []
        for term, repeated in Counter(terms(query)).items():
            key = np.uint64(term_key(term))
            place = int(np.searchsorted(self._terms, key))
            if place < len(self._terms) and self._terms[place] == key:
                start, end = int(self._starts[place]), int(self._starts[place + 1])
                found.append((end - start, start, end, repeated))
        found.sort()
        rare = [each for each in found if each[0] * 2 <= self._n]
        return [
            (start, end, np.float32(repeated * (K1 + 1.0) * math.log1p((self._n - n + 0.5) / (n + 0.5))))
            for n, start, end, repeated in (rare or found)[:_MOST_TERMS]
        ]
