"""The difference of two arms' means when each row is answered by one arm only and the base rate moves.

Two running means must not be compared when the share of an arm grows while the base rate moves with the hour: the arm
that got its rows later then looks different for no fault of its own. So rows are put into blocks of neighbours in time,
each with rows of both arms, and each block gives one difference of means: what all rows of a block have in common falls
out (blocking, Fisher 1935, “The Design of Experiments”, chapter 4). Block differences lie in [-1, 1] and feed a
confidence sequence; how large the next block is depends only on rows before it, so the bets stay fair.
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from holdtrue.stats import sequences
from holdtrue.stats.arrays import Bools, Floats
from holdtrue.stats.errors import BadNumbers
from holdtrue.stats.sequences import MeanSequence

# Small blocks at first, so that a disaster is seen after a few rows. Larger ones waste fewer rows (at equal shares,
# blocks of one keep 79 % of the rows' information, of eight 95 %), but only for rows that vary: a bet is at most
# everything, so blocks of rare events, whose differences hardly vary, would gain no more than single rows do.
_LARGEST = 8
_PER_SIZE = 8
_ROW_VARIANCE = 0.02
# Differences of blocks always vary (of eight rows each, by 0.2 where one in five errs): the fastest bet on 0.02 is 0.5
# then, but a smaller one varies less and misses less before a horizon. Of 1,000 tests of 50,000 requests at equal
# shares in which one release is 0.02 worse than a base of 0.2, these weights miss 8 where (0.22, 0.30, 0.22, …) missed
# 12, and of 600 equal releases whose rate moves with the hour they roll back 1.0 % instead of 1.3 %; half of the harms
# are found after 42 hours instead of 41. Rare events need the largest bet, which keeps a share for them.
_WEIGHTS = (0.13, 0.18, 0.44, 0.12, 0.06, 0.04, 0.03)


@dataclass(frozen=True, slots=True)
class Arm:
    """Hold number, sum and sum of squares of an arm's rows."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0


@dataclass(frozen=True, slots=True)
class MatchedDifference:
    """Hold what is known of mean(challenger) − mean(champion) for values in [0, 1]; grow it with `update`.

    `blocks` is the sequence of finished blocks, `done` their rows; `open` are champion's and challenger's rows in the
    block that is not finished.
    """

    blocks: MeanSequence
    done: Arm = Arm()
    open: tuple[Arm, Arm] = (Arm(), Arm())

    def to_json(self) -> dict[str, Any]:
        """Return a JSON form from which `from_json` builds an equal one."""
        arms = [[each.n, each.total, each.squares] for each in (self.done, *self.open)]
        return {"blocks": self.blocks.to_json(), "arms": arms}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Build what `to_json` described; another layout raises BadNumbers."""
        done, champion, challenger = (Arm(*each) for each in data["arms"])
        return cls(MeanSequence.from_json(data["blocks"]), done, (champion, challenger))


def start() -> MatchedDifference:
    """Return what is known before the first row."""
    return MatchedDifference(sequences.start(-1.0, 1.0))


def update(known: MatchedDifference, challenger: npt.ArrayLike, values: npt.ArrayLike) -> MatchedDifference:
    """Return `known` with rows added in the order in which they came.

    `challenger` bool[n] says which arm a row is of, `values` float[n] in [0, 1]; other values raise BadNumbers.
    """
    arms, rows = np.asarray(challenger, dtype=np.bool_).ravel(), np.asarray(values, dtype=np.float64).ravel()
    _check(arms.size, rows)
    champion, other = _Stream(~arms, rows), _Stream(arms, rows)
    done, (mine, theirs) = known.done, known.open
    differences: list[float] = []
    while True:
        size = _size(known.blocks.n + len(differences), done)
        ends = (champion.end(size - mine.n), other.end(size - theirs.n))
        if ends[0] < 0 or ends[1] < 0:
            break
        end = max(ends)
        mine, theirs = champion.take(mine, end), other.take(theirs, end)
        differences.append(theirs.total / theirs.n - mine.total / mine.n)
        done = Arm(
            done.n + mine.n + theirs.n,
            done.total + mine.total + theirs.total,
            done.squares + mine.squares + theirs.squares,
        )
        mine = theirs = Arm()
    rest = (champion.take(mine, rows.size), other.take(theirs, rows.size))
    return MatchedDifference(sequences.update(known.blocks, np.clip(differences, -1.0, 1.0)), done, rest)


class _Stream:
    """Give out the rows of one arm in their order; plain lists, since blocks are small and many."""

    __slots__ = ("places", "squares", "totals", "used")

    def __init__(self, mine: Bools, rows: Floats) -> None:
        places = np.flatnonzero(mine)
        values = rows[places]
        self.places: list[int] = places.tolist()
        self.totals: list[float] = [0.0, *np.cumsum(values).tolist()]
        self.squares: list[float] = [0.0, *np.cumsum(np.square(values)).tolist()]
        self.used = 0

    def end(self, wanted: int) -> int:
        """Return the place after the row with which `wanted` more are there; −1 if there are not so many."""
        if wanted <= 0:
            return 0
        last = self.used + wanted - 1
        return self.places[last] + 1 if last < len(self.places) else -1

    def take(self, arm: Arm, end: int) -> Arm:
        """Return `arm` with the rows added that lie before the place `end` and were not taken yet."""
        used, upto = self.used, bisect_left(self.places, end, self.used)
        self.used = upto
        return Arm(
            arm.n + upto - used,
            arm.total + self.totals[upto] - self.totals[used],
            arm.squares + self.squares[upto] - self.squares[used],
        )


def _size(blocks: int, done: Arm) -> int:
    """Return how many rows of each arm the block after `blocks` finished ones, with the rows `done`, needs."""
    if not done.n:
        return 1
    variance = done.squares / done.n - (done.total / done.n) ** 2
    return max(min(1 + blocks // _PER_SIZE, int(variance / _ROW_VARIANCE), _LARGEST), 1)


def _check(arms: int, rows: Floats) -> None:
    if arms != rows.size:
        raise BadNumbers(f"{rows.size} values came with {arms} arms.", mend="Give the arm of each value.")
    if not ((rows >= 0.0) & (rows <= 1.0)).all():
        raise BadNumbers(
            "A value of an arm is not in [0, 1].",
            why="The guarantee holds only for bounded rows.",
            mend="Leave out rows without a value, and divide amounts by their limit.",
        )


def lower_bound(known: MatchedDifference, alpha: float = 0.05) -> float:
    """Return a lower limit of the mean difference of the blocks that is ever wrong with probability at most alpha."""
    return sequences.lower_bound(known.blocks, alpha, _WEIGHTS)


def upper_bound(known: MatchedDifference, alpha: float = 0.05) -> float:
    """Return an upper limit of the mean difference of the blocks that is ever wrong with probability at most alpha."""
    return sequences.upper_bound(known.blocks, alpha, _WEIGHTS)
