"""Lanes for models that take their time: one batch at a time, others gather meanwhile, and only as long as it helps.

A request that comes while its lane is idle is scored at once and alone. While the lane is busy, requests gather, and
are scored together in the next batch. What that brings is measured: the seconds a row costs alone and together. Where
together is no cheaper, requests are scored one by one again, since whoever is scored in a batch waits for all of it.
"""

from collections import deque
from typing import Final, Generic, TypeVar

MOST_ROWS: Final = 256
"""Rows scored in one go: enough to spread the fixed costs, few enough that nobody waits for others' rows."""
_MOST_SECONDS: Final = 0.1
_WEIGHT: Final = 0.2
_ENOUGH: Final = 8
_WORTH: Final = 0.97
_AGAIN: Final = 256

T = TypeVar("T")


class Pace:
    """Learn what rows cost alone and together; say how many requests and rows may share a batch."""

    __slots__ = ("_alone", "_alone_count", "_since", "_together", "_together_count", "joining")

    def __init__(self) -> None:
        self.joining = True
        self._alone = 0.0
        self._together = 0.0
        self._alone_count = 0
        self._together_count = 0
        self._since = 0

    @property
    def rows(self) -> int:
        """Return how many rows may be in a batch, so that it takes a tenth of a second at most, as measured."""
        cost = self._together if self._together_count else self._alone
        if cost <= 0.0:
            return MOST_ROWS
        return max(1, min(MOST_ROWS, int(_MOST_SECONDS / cost)))

    @property
    def requests(self) -> int:
        """Return how many requests may be in the next batch: 1 where joining does not help or is to be measured."""
        if not self.joining or (self._together_count >= _ENOUGH and self._alone_count < _ENOUGH):
            return 1
        return MOST_ROWS

    def note(self, requests: int, rows: int, seconds: float) -> None:
        """Take in what one batch cost."""
        cost = seconds / rows
        if requests == 1:
            self._alone = _blend(self._alone, cost, self._alone_count)
            self._alone_count += 1
        else:
            self._together = _blend(self._together, cost, self._together_count)
            self._together_count += 1
        self._since += 1
        if self._since >= _AGAIN:
            # What was learned may have passed: it is measured anew, joining first.
            self._since = self._alone_count = self._together_count = 0
            self.joining = True
        elif self._alone_count >= _ENOUGH and self._together_count >= _ENOUGH:
            self.joining = self._together < _WORTH * self._alone


def _blend(before: float, now: float, count: int) -> float:
    return now if not count else before + _WEIGHT * (now - before)


class Lane(Generic[T]):
    """Hold who waits for one service while those before them are scored."""

    __slots__ = ("busy", "pace", "waiting")

    def __init__(self) -> None:
        self.busy = False
        self.waiting: deque[T] = deque()
        self.pace = Pace()
