"""Whether parts of a whole are worse than the whole, by drawing parts of the same size at random."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from holdtrue.stats.arrays import Bools, Floats
from holdtrue.stats.errors import BadNumbers

_CHUNK = 4_000_000


def lower_than_chance(values: npt.ArrayLike, subsets: Sequence[Bools], *, draws: int = 4000, seed: int = 0) -> Floats:
    """Return, for each of `subsets` bool[n], the p-value of its mean of `values` float[n] being as low by chance.

    Permutation test (Fisher 1935): any m values of a random order are a random part of size m, so one set of orders
    serves all subsets. p = (1 + draws as low) / (1 + draws); control for many subsets is `discoveries`' work.
    """
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 1 or not np.isfinite(rows).all():
        raise BadNumbers("A permutation test needs one column of finite values.", mend="Leave out what is unknown.")
    sizes = np.array([int(np.count_nonzero(subset)) for subset in subsets], dtype=np.int64)
    if any(subset.shape != rows.shape for subset in subsets) or (sizes == 0).any():
        raise BadNumbers("A subset marks at least one of all rows.", mend="Leave out empty subsets.")
    if not subsets:
        return np.zeros(0)
    sums = np.array([float(rows[subset].sum()) for subset in subsets])
    slack = 1e-9 * max(1.0, float(np.abs(rows).sum()))
    generator = np.random.Generator(np.random.PCG64(seed))
    low = np.zeros(len(subsets))
    step = max(1, _CHUNK // rows.size)
    for start in range(0, draws, step):
        count = min(step, draws - start)
        orders = generator.permuted(np.broadcast_to(rows, (count, rows.size)), axis=1)
        totals = np.cumsum(orders, axis=1)[:, sizes - 1]
        low += np.count_nonzero(totals <= sums + slack, axis=0)
    return (low + 1.0) / (draws + 1.0)
