"""Ranked lists: the best of many scores, and two lists made one."""

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ranked: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Rows, best first, and their scores."""

RANK_CONSTANT = 60.0
_BLOCK = 64


def best(scores: NDArray[np.float32], count: int, above: float = -np.inf) -> Ranked:
    """Return the `count` rows of the highest scores that are greater than `above`, best first; ties by row."""
    rows = np.flatnonzero(scores > above) if (least := _floor(scores, count)) <= above else _from(scores, least)
    values = scores[rows]
    if count < len(rows):
        least = np.partition(values, len(rows) - count)[len(rows) - count]
        rows = rows[values >= least]
        values = scores[rows]
    order = np.lexsort((rows, -values))[:count]
    return rows[order], values[order]


def _floor(scores: NDArray[np.float32], count: int) -> float:
    """Return a number that at least `count` scores reach, and of many scores few more; −∞ of few scores.

    If the greatest score of each of `count` blocks reaches it, then `count` scores do. To find the blocks'
    greatest is several times faster than to part all scores.
    """
    blocks = len(scores) // _BLOCK
    if blocks < 2 * count:
        return -math.inf
    peaks = scores[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
    return float(np.partition(peaks, blocks - count)[blocks - count])


def _from(scores: NDArray[np.float32], least: float) -> NDArray[np.int64]:
    return np.flatnonzero(scores >= np.float32(least))


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
