"""Block bootstrap over time: days are drawn, not rows, since rows of one day resemble each other."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdtrue.stats.arrays import Floats, Ints, block_codes
from holdtrue.stats.errors import BadNumbers
from holdtrue.stats.intervals import Interval

Statistic = Callable[[Floats], Floats]
"""From counts float64[draws, blocks] (how often each block was drawn) to values float64[draws]."""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Hold a statistic of all blocks and of random draws of them (NaN draws left out)."""

    value: float
    draws: Floats
    blocks: int
    n: int

    def interval(self, alpha: float = 0.05) -> Interval:
        """Return the percentile interval, widened by √(k / (k − 1)) around the value as k blocks need it."""
        if self.draws.size == 0:
            return Interval(self.value, math.nan, math.nan, self.n)
        widen = math.sqrt(self.blocks / (self.blocks - 1.0)) if self.blocks > 1 else 1.0
        low, high = np.quantile(self.draws, [alpha / 2.0, 1.0 - alpha / 2.0])
        return Interval(
            self.value,
            float(self.value + widen * (low - self.value)),
            float(self.value + widen * (high - self.value)),
            self.n,
        )

    def share_above(self, limit: float = 0.0) -> float:
        """Return the share of draws above `limit`, ties one half, kept off 0 and 1 by half a draw."""
        if self.draws.size == 0:
            return math.nan
        above = np.count_nonzero(self.draws > limit) + 0.5 * np.count_nonzero(self.draws == limit)
        return float((above + 0.5) / (self.draws.size + 1.0))


def draw_counts(blocks: int, draws: int, seed: int, *, run: int = 1, size: int | None = None) -> Floats:
    """Return how often each block occurs in each draw, float64[draws, blocks].

    Runs of `run` neighbouring blocks are drawn together (circular block bootstrap, Politis & Romano 1992), so
    that what one day has in common with the next stays in. A draw holds `size` blocks (default: all).
    """
    if blocks < 1 or draws < 1 or run < 1:
        raise BadNumbers(
            "A block bootstrap needs at least one block, one draw and runs of at least one block.",
            mend="Give more data, or another length of runs.",
        )
    wanted = size or blocks
    run = min(run, blocks, wanted)
    generator = np.random.Generator(np.random.PCG64(seed))
    starts = generator.integers(0, blocks, size=(draws, -(-wanted // run)))
    picked = ((starts[:, :, None] + np.arange(run)) % blocks).reshape(draws, -1)[:, :wanted]
    flat = picked + np.arange(draws)[:, None] * blocks
    return np.bincount(flat.ravel(), minlength=draws * blocks).reshape(draws, blocks).astype(np.float64)


def bootstrap(
    statistic: Statistic, blocks: int, n: int, *, draws: int = 2000, seed: int = 0, run: int = 1
) -> Bootstrap:
    """Draw blocks with replacement and return the statistic's values; the same seed gives the same draws."""
    value = float(statistic(np.ones((1, blocks)))[0])
    values = statistic(draw_counts(blocks, draws, seed, run=run))
    return Bootstrap(value, values[np.isfinite(values)], blocks, n)


def mean_statistic(values: npt.ArrayLike, codes: Ints, blocks: int) -> Statistic:
    """Return the statistic “mean of `values` float[n]” over block codes int[n]; paired, if of differences."""
    rows = np.asarray(values, dtype=np.float64)
    sums = np.bincount(codes, weights=rows, minlength=blocks)
    sizes = np.bincount(codes, minlength=blocks).astype(np.float64)

    def statistic(counts: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return (counts @ sums) / (counts @ sizes)

    return statistic


def mean_bootstrap(
    values: npt.ArrayLike, blocks: npt.ArrayLike, *, draws: int = 2000, seed: int = 0, run: int = 1
) -> Bootstrap:
    """Return the block bootstrap of the mean of `values` float[n] over block labels [n]."""
    rows = np.asarray(values, dtype=np.float64)
    codes, k = block_codes(blocks, rows.size)
    return bootstrap(mean_statistic(rows, codes, k), k, rows.size, draws=draws, seed=seed, run=run)
