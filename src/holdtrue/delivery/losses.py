"""By what the answers of two releases are compared: the loss of one answer, in [0, 1], 0 best."""

import numpy as np
import numpy.typing as npt

from holdtrue.delivery.model import Canary
from holdtrue.stats.arrays import Floats


def losses(canary: Canary, labels: npt.ArrayLike, scores: npt.ArrayLike) -> Floats:
    """Return the loss of each answer, float64[n]: by what a model answers with, see `Canary.loss`."""
    truth, given = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    if canary.loss == "wrong":
        return (given != truth).astype(np.float64)
    if canary.loss == "distance":
        return np.minimum(np.abs(given - truth) / canary.scale, 1.0)
    return np.square(given - truth)


def loss_differences(
    canary: Canary, labels: npt.ArrayLike, champion: npt.ArrayLike, challenger: npt.ArrayLike
) -> Floats:
    """Return the challenger's losses minus the champion's, float64[n] in [-1, 1]; below 0 is better."""
    return losses(canary, labels, challenger) - losses(canary, labels, champion)
