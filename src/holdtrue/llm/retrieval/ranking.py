"""Ranked lists: the best of many scores, and two lists made one."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ranked: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Rows, best first, and their scores."""

RANK_CONSTANT = 60.0


def best(scores: NDArray[np.float32], count: int, above: float = -np.inf) -> Ranked:
    """Return the `count` rows of the highest scores that are greater than `above`, best first; ties by row."""
    if count >= len(scores):
        rows = np.flatnonzero(scores > above)
    else:
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        rows = np.flatnonzero(scores >= least) if least > above else np.flatnonzero(scores > above)
    order = np.lexsort((rows, -scores[rows]))[:count]
    rows = rows[order]
    return rows, scores[rows]


def fuse(lists: Sequence[tuple[float, Sequence[int]]], count: int) -> list[tuple[int, float]]:
    """Return the rows of several weighted lists by reciprocal rank: the sum of weight / (60 + rank).

    Cormack, Clarke and Büttcher, “Reciprocal rank fusion outperforms Condorcet and individual rank learning
    methods”, SIGIR 2009, whose constant 60 is used. Ties go by row.
    """
    scores: dict[int, float] = {}
    for weight, rows in lists:
        for place, row in enumerate(rows, 1):
            scores[row] = scores.get(row, 0.0) + weight / (RANK_CONSTANT + place)
    order = sorted(scores.items(), key=lambda each: (-each[1], each[0]))
    return [each for each in order if each[1] > 0.0][:count]
