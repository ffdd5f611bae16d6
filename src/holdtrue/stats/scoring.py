"""Losses of probabilities row by row, and the groups a calibration curve is drawn from."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdtrue.stats.arrays import Floats, binary_labels, scores
from holdtrue.stats.errors import BadNumbers

_CLIP = 1e-6


def brier_losses(y: npt.ArrayLike, score: npt.ArrayLike) -> Floats:
    """Return (score − y)² per row, float64[n] in [0, 1]; scores outside [0, 1] raise BadNumbers."""
    positive, values = _probabilities(y, score)
    return np.square(values - positive)


def log_losses(y: npt.ArrayLike, score: npt.ArrayLike) -> Floats:
    """Return −ln of the probability given to the truth, float64[n]; scores are kept 1e-6 off 0 and 1."""
    positive, values = _probabilities(y, score)
    inner = np.clip(values, _CLIP, 1.0 - _CLIP)
    return -np.where(positive > 0.5, np.log(inner), np.log1p(-inner))


def brier_differences(y: npt.ArrayLike, champion: npt.ArrayLike, challenger: npt.ArrayLike) -> Floats:
    """Return the challenger’s Brier loss minus the champion’s, float64[n] in [−1, 1]; below 0 is better."""
    return brier_losses(y, challenger) - brier_losses(y, champion)


@dataclass(frozen=True, slots=True)
class Reliability:
    """Compare what was said with what came, in one group of similar scores."""

    n: int
    predicted: float
    observed: float


def reliability(y: npt.ArrayLike, score: npt.ArrayLike, groups: int = 10) -> tuple[Reliability, ...]:
    """Return the calibration curve over about `groups` groups of equal size, from low scores to high."""
    positive, values = _probabilities(y, score)
    order = np.argsort(values, kind="stable")
    parts = [part for part in np.array_split(order, groups) if part.size]
    return tuple(
        Reliability(int(part.size), float(values[part].mean()), float(positive[part].mean())) for part in parts
    )


def _probabilities(y: npt.ArrayLike, score: npt.ArrayLike) -> tuple[Floats, Floats]:
    positive = binary_labels(y)
    values = scores(score, positive.size)
    bad = (values < 0.0) | (values > 1.0)
    if bad.any():
        raise BadNumbers(
            f"{int(bad.sum())} of {values.size} scores are not probabilities.",
            why=f"The first of them is {values[bad][0]}.",
            mend="Give the probability of the event, or judge by roc_auc, which needs only an order.",
        )
    return positive.astype(np.float64), values
