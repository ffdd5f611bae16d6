"""Confidence sequences: intervals for a bounded mean that stay valid however often one looks.

A gambler who bets a fixed share against the claim “the mean is m” cannot get rich if the claim is true:
his capital, the product of 1 + λ·(x − m), is a nonnegative process that exceeds 1/α with probability at
most α (Ville's inequality). Every m against which he got rich is excluded (Waudby-Smith & Ramdas, “Estimating
means of bounded random variables by betting”, 2023). Here the capital is spread at the start over several
constant bets, one of which is close to the best in hindsight.

Constant bets are chosen over bets that follow the data for three reasons. The interval then covers the
*running mean of the conditional means*, so it is valid when the mean moves with the hour or the day: by the
inequality of arithmetic and geometric means the product of 1 + λ·(μ_i − m) is at most (1 + λ·(μ̄ − m))^t,
hence the capital stays below a martingale as long as μ̄ ≤ m. The capital does not depend on the order of the
rows. And each log-capital is concave in m, so that interpolation between grid points is conservative.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from holdtrue.stats.errors import BadNumbers
from holdtrue.stats.intervals import Interval

Floats = npt.NDArray[np.float64]

# The smallest bet decides how noisy the rows may be (best bet = effect / variance on [-1, 1]); rows of paired
# differences have a small variance, so the largest bets matter most and get most of the capital.
_BETS = (0.98, 0.55, 0.3, 0.15, 0.07, 0.03, 0.012)
_WEIGHTS = (0.40, 0.18, 0.13, 0.10, 0.08, 0.06, 0.05)
_CHUNK = 64
_HALF = 33
_CANDIDATES = 2 * _HALF - 1


def _make_grid() -> Floats:
    """Return candidate means on [-1, 1]: symmetric, 0.002 apart near 0 and coarser outwards.

    Interpolating a log-capital over a step h costs at most n·(λ·h)²/8: 0.005 after 10,000 rows near 0.
    """
    half = np.sinh(np.linspace(0.0, 5.0, _HALF)) / np.sinh(5.0)
    return np.concatenate([-half[:0:-1], half])


def _make_bets(grid: Floats) -> Floats:
    """Return the bets on “above the candidate”, float64[bets, candidates]; 0 if one could lose everything."""
    bets = np.asarray(_BETS)[:, None]
    return np.where(bets * (1.0 + grid) < 0.999, bets, 0.0)


_GRID = _make_grid()
_ADMITTED = _make_bets(_GRID)
for _constant in (_GRID, _ADMITTED):
    _constant.setflags(write=False)


@dataclass(frozen=True, slots=True)
class MeanSequence:
    """Hold what is known of a mean after `n` rows in [low, high]; grow it with `update`.

    `above` and `below` are log-capitals float64[bets, candidates] of the gamblers who bet that the mean
    lies above and below each candidate.
    """

    low: float
    high: float
    n: int
    total: float
    squares: float
    above: Floats
    below: Floats

    def to_json(self) -> dict[str, Any]:
        """Return a JSON form from which `from_json` builds an equal sequence."""
        return {
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "total": self.total,
            "squares": self.squares,
            "above": self.above.tolist(),
            "below": self.below.tolist(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Build the sequence that `to_json` described; another layout raises BadNumbers."""
        above = np.asarray(data["above"], dtype=np.float64)
        below = np.asarray(data["below"], dtype=np.float64)
        wanted = (len(_BETS), _CANDIDATES)
        if above.shape != wanted or below.shape != wanted:
            raise BadNumbers(
                "A stored confidence sequence has another layout than this version's.",
                why=f"Its capital has the shape {above.shape}, and {wanted} is needed.",
                mend="Start the sequence again from its rows.",
            )
        return cls(
            float(data["low"]),
            float(data["high"]),
            int(data["n"]),
            float(data["total"]),
            float(data["squares"]),
            above,
            below,
        )

    @property
    def mean(self) -> float:
        """Return the mean of the rows so far; NaN when there are none."""
        return self.total / self.n if self.n else math.nan

    @property
    def sd(self) -> float:
        """Return the standard deviation of the rows so far; NaN with fewer than two."""
        if self.n < 2:
            return math.nan
        return math.sqrt(max(self.squares - self.total**2 / self.n, 0.0) / (self.n - 1))


def start(low: float = -1.0, high: float = 1.0) -> MeanSequence:
    """Return the sequence before the first row, for rows in [low, high] (default: paired differences)."""
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise BadNumbers(
            f"A confidence sequence needs finite bounds, not [{low}, {high}].",
            mend="Give the smallest and largest value that a row can have, smallest first.",
        )
    empty = np.zeros((len(_BETS), _CANDIDATES))
    return MeanSequence(low, high, 0, 0.0, 0.0, empty, empty)


def update(sequence: MeanSequence, values: npt.ArrayLike) -> MeanSequence:
    """Return `sequence` with the rows `values` float[n] added; their order does not matter.

    NaN or a value outside the bounds raises BadNumbers.
    """
    rows = np.asarray(values, dtype=np.float64).ravel()
    if rows.size == 0:
        return sequence
    _check(sequence, rows)
    centre, scale = _affine(sequence)
    x = (rows - centre) / scale
    return MeanSequence(
        sequence.low,
        sequence.high,
        sequence.n + rows.size,
        sequence.total + float(rows.sum()),
        sequence.squares + float(np.square(rows).sum()),
        sequence.above + _log_growth(x),
        # Betting on “below m” for x is betting on “above −m” for −x, and the grid is symmetric.
        sequence.below + _log_growth(-x),
    )


def _check(sequence: MeanSequence, rows: Floats) -> None:
    slack = 1e-9 * (sequence.high - sequence.low)
    bad = ~((rows >= sequence.low - slack) & (rows <= sequence.high + slack))
    if bad.any():
        raise BadNumbers(
            f"{int(bad.sum())} of {rows.size} rows are not in [{sequence.low}, {sequence.high}].",
            why=f"The first of them is {rows[bad][0]}; the guarantee holds only for bounded rows.",
            mend="Leave out rows without a value, and give the bounds of the loss that is used.",
        )


def _affine(sequence: MeanSequence) -> tuple[float, float]:
    return (sequence.low + sequence.high) / 2.0, (sequence.high - sequence.low) / 2.0


def _log_growth(x: Floats) -> Floats:
    """Return log of the product over `x` of 1 + bet·(x − candidate), float64[bets, candidates].

    The product of 64 factors between 0.001 and 3 neither overflows nor underflows, so that one logarithm is
    taken for all of them. Rows with few values, such as errors and their differences, are counted by value.
    """
    base = 1.0 - _ADMITTED * _GRID
    if x.size > _CHUNK:
        values, counts = np.unique(x, return_counts=True)
        if values.size <= _CHUNK:
            logs = np.log(np.multiply.outer(values, _ADMITTED) + base)
            return np.tensordot(counts.astype(np.float64), logs, axes=1)
    growth = np.zeros_like(base)
    for begin in range(0, x.size, _CHUNK):
        factors = np.multiply.outer(x[begin : begin + _CHUNK], _ADMITTED)
        factors += base
        growth += np.log(np.multiply.reduce(factors, axis=0))
    return growth


def bounds(sequence: MeanSequence, alpha: float = 0.05) -> Interval:
    """Return the interval that covers the running mean at all times at once, with probability ≥ 1 − alpha."""
    return Interval(sequence.mean, lower_bound(sequence, alpha / 2.0), upper_bound(sequence, alpha / 2.0), sequence.n)


def lower_bound(sequence: MeanSequence, alpha: float = 0.05, weights: Sequence[float] = _WEIGHTS) -> float:
    """Return a lower limit of the running mean that is ever wrong with probability at most alpha.

    `weights` are how the capital is spread over the seven bets, largest first; they must not depend on the rows.
    """
    centre, scale = _affine(sequence)
    return centre + scale * _largest_excluded(sequence.above, alpha, weights)


def upper_bound(sequence: MeanSequence, alpha: float = 0.05, weights: Sequence[float] = _WEIGHTS) -> float:
    """Return an upper limit of the running mean that is ever wrong with probability at most alpha."""
    centre, scale = _affine(sequence)
    return centre - scale * _largest_excluded(sequence.below, alpha, weights)


def _log_sum(capital: Floats) -> Floats:
    """Return the log of the sum of exponentials over the first axis."""
    top = capital.max(axis=0)
    return top + np.log(np.exp(capital - top).sum(axis=0))


def _largest_excluded(capital: Floats, alpha: float, weights: Sequence[float]) -> float:
    """Return the largest candidate against which the gambler is rich, −1 when there is none.

    The capital falls as the candidate grows. Between two grid points each bet is interpolated; a bet that is
    not admitted at the right one is not counted.
    """
    weighted = capital + np.log(weights)[:, None]
    threshold = math.log(1.0 / alpha)
    rich = _log_sum(np.where(_ADMITTED > 0.0, weighted, -1e9)) >= threshold
    if rich.all():
        return 1.0
    right = int(np.argmin(rich))
    if right == 0:
        return -1.0
    inner = _ADMITTED[:, right] > 0.0
    first, last = weighted[inner, right - 1], weighted[inner, right]
    slopes = last - first
    near = 0.0
    # The log of a sum of exponentials is convex in the place, so Newton's steps from the left never pass the root.
    for _ in range(12):
        parts = first + near * slopes
        top = float(parts.max())
        shares = np.exp(parts - top)
        whole = float(shares.sum())
        step = (top + math.log(whole) - threshold) / (float(shares @ slopes) / whole)
        near -= step
        if step > -1e-9:
            break
    near = min(max(near, 0.0), 1.0)
    return float(_GRID[right - 1] + near * (_GRID[right] - _GRID[right - 1]))


def rows_needed(effect: float, sd: float, alpha: float = 0.05, *, low: float = -1.0, high: float = 1.0) -> float:
    """Return about how many rows exclude a candidate that lies `effect` away from the true mean.

    `sd` is the standard deviation of a row, `alpha` the one-sided error (half of a two-sided one).
    Infinite when `effect` is 0. The best single bet of the mixture is taken, with its share of the capital.
    """
    scale = (high - low) / 2.0
    distance, spread = abs(effect) / scale, sd / scale
    if distance <= 0.0:
        return math.inf
    best = math.inf
    for bet, weight in zip(_BETS, _WEIGHTS, strict=True):
        growth = bet * distance - bet**2 * (spread**2 + distance**2) / 2.0
        if growth > 0.0:
            best = min(best, (math.log(1.0 / alpha) - math.log(weight)) / growth)
    return math.ceil(best) if math.isfinite(best) else math.inf
