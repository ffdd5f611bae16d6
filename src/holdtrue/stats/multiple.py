"""Many tests at once: control of the share of false discoveries."""

import numpy as np
import numpy.typing as npt

from holdtrue.stats.arrays import Bools, Floats
from holdtrue.stats.errors import BadNumbers


def adjusted(p_values: npt.ArrayLike) -> Floats:
    """Return Benjamini and Hochberg's (1995) adjusted p-values float64[n], in the given order."""
    values = np.asarray(p_values, dtype=np.float64).ravel()
    if not ((values >= 0.0) & (values <= 1.0)).all():
        raise BadNumbers("A p-value is a number from 0 to 1.", mend="Leave out tests that could not be made.")
    if values.size == 0:
        return values
    order = np.argsort(values, kind="stable")
    scaled = values[order] * values.size / np.arange(1, values.size + 1)
    monotone = np.minimum.accumulate(scaled[::-1])[::-1]
    result = np.empty_like(values)
    result[order] = np.minimum(monotone, 1.0)
    return result


def discoveries(p_values: npt.ArrayLike, rate: float = 0.05) -> Bools:
    """Tell which tests are discoveries, bool[n], when at most `rate` of them may be false on average."""
    return adjusted(p_values) <= rate
