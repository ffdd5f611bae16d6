"""Prediction sets that hold the truth as often as they say: split conformal prediction, for each outcome by itself.

Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World (2005); per outcome (Mondrian), so that rare outcomes
are covered as often as common ones.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from holdtrue.stats.errors import BadNumbers
from holdtrue.stats.proportions import clopper_pearson

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sets:
    """Say which outcomes a score leaves possible: 0 up to `zero_up_to`, 1 from `one_from` on.

    Of rows that are exchangeable with those they were made of, each outcome is among them with probability
    `confidence` or more.
    """

    confidence: float
    zero_up_to: float
    one_from: float

    def of(self, score: float) -> list[int]:
        """Return the outcomes that are possible at a score: one, both or none of 0 and 1."""
        possible = [0] if score <= self.zero_up_to else []
        return [*possible, 1] if score >= self.one_from else possible


def calibrate(scores: npt.ArrayLike, outcomes: npt.ArrayLike, confidence: float) -> Sets | None:
    """Return the sets that scores, float [n] in [0, 1], and outcomes, 0 or 1, of held-out rows give.

    None where an outcome has too few rows to say anything: fewer than confidence / (1 - confidence).
    """
    if not 0.5 <= confidence < 1.0:
        raise BadNumbers(f"A confidence of {confidence:g} is not used.", mend="Give one from 0.5 to below 1.")
    score, outcome = np.asarray(scores, np.float64), np.asarray(outcomes)
    zero, one = _limit(score[outcome == 0], confidence), _limit(1.0 - score[outcome == 1], confidence)
    return None if zero is None or one is None else Sets(confidence, zero, 1.0 - one)


def _limit(strangeness: Floats, confidence: float) -> float | None:
    """Return the ⌈(n + 1) · confidence⌉-th smallest strangeness, None if there is none such."""
    rank = math.ceil((strangeness.size + 1) * confidence)
    return None if rank > strangeness.size else float(np.partition(strangeness, rank - 1)[rank - 1])


def covered(sets: Sets, scores: npt.ArrayLike, outcomes: npt.ArrayLike) -> dict[str, Any]:
    """Return how often sets held the truth of rows they were not made of (exact 95 % intervals), and their sizes."""
    score, outcome = np.asarray(scores, np.float64), np.asarray(outcomes)
    zero, one = score <= sets.zero_up_to, score >= sets.one_from
    held = np.where(outcome == 1, one, zero)
    sizes = zero.astype(int) + one.astype(int)
    n = int(score.size)

    def share(rows: npt.NDArray[np.bool_]) -> dict[str, Any]:
        found = clopper_pearson(int(held[rows].sum()), int(rows.sum()))
        return found.to_json()

    return {
        "confidence": sets.confidence,
        **share(np.ones(n, np.bool_)),
        "zero": share(outcome == 0),
        "one": share(outcome == 1),
        "size": float(sizes.mean()) if n else None,
        "single": float((sizes == 1).mean()) if n else None,
        "both": float((sizes == 2).mean()) if n else None,
        "none": float((sizes == 0).mean()) if n else None,
    }
