"""Aggregates over windows of sorted rows: each window added up on its own, whole tiles first.

Differences of running totals would be faster, and would let one huge value spoil the last digits of all later windows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from holdtrue.features.model import Aggregate

Floats: TypeAlias = NDArray[np.float64]
Longs: TypeAlias = NDArray[np.int64]
Places: TypeAlias = NDArray[np.intp]
Flags: TypeAlias = NDArray[np.bool_]

_AT_ONCE: Final = 4_000_000


@dataclass(frozen=True)
class Windows:
    """Hold the windows of queries over rows sorted by entity and moment.

    Whole tiles are [start, middle), single rows [middle, end); `tiles` are the places at which another tile begins,
    `entities` the entity of each row. `start` ascends.
    """

    values: Floats
    entities: Longs
    tiles: Places
    start: Places
    middle: Places
    end: Places

    def aggregate(self, name: Aggregate) -> Floats:
        """Return float64 [queries]; NaN for a window without rows, but a count of 0."""
        n = (self.end - self.start).astype(np.float64)
        if name == "count":
            return n
        if name == "distinct":
            return count_distinct(self._before, self.start, self.end)
        if name == "last":
            column = self.values[np.maximum(self.end - 1, 0)] if len(self.values) else n
        elif name in ("min", "max"):
            operation, empty = (np.minimum, np.inf) if name == "min" else (np.maximum, -np.inf)
            column = self._reduce(operation, empty)
        else:
            column = self._reduce(np.add, 0.0)
            if name == "mean":
                column /= np.maximum(n, 1)
        return np.where(n > 0, column, np.nan)

    @cached_property
    def _before(self) -> Places:
        """Return for each row the place after the row before it of its entity with its value, 0 for none."""
        _, codes = np.unique(self.values, return_inverse=True)
        order = np.lexsort((codes, self.entities))
        same = (codes[order][1:] == codes[order][:-1]) & (self.entities[order][1:] == self.entities[order][:-1])
        before = np.zeros(len(order), np.intp)
        before[order[1:][same]] = order[:-1][same] + 1
        return before

    def _reduce(self, operation: np.ufunc, empty: float) -> Floats:
        """Return `operation` over each window."""
        if len(self.values) == 0:
            return np.full(len(self.start), empty)
        totals = operation.reduceat(self.values, self.tiles)
        first, last = np.searchsorted(self.tiles, self.start), np.searchsorted(self.tiles, self.middle)
        whole = reduce_segments(operation, totals, first, last, empty)
        return operation(whole, reduce_segments(operation, self.values, self.middle, self.end, empty))


def reduce_segments(operation: np.ufunc, values: Any, low: Places, high: Places, empty: float) -> Any:
    """Return `operation` over values[low:high] for each pair, `empty` where low = high; `low` ascends."""
    # reduceat also reduces what lies between two windows: as `low` ascends, that is at most everything once.
    pairs = np.empty(2 * len(low), np.intp)
    pairs[0::2], pairs[1::2] = low, high
    out = operation.reduceat(np.append(values, empty), pairs)[0::2] if len(low) else np.empty(0)
    return np.where(low < high, out, empty)


def count_distinct(before: Places, start: Places, end: Places) -> Floats:
    """Return how many different values each window [start, end) has.

    A row counts if the row before it with its value, of which `before` has the place plus 1, lies before the window:
    that is the number of rows before `end` with `before` <= start, less the `start` rows before the window, which all
    are such. They are counted by a wavelet matrix (Claude and Navarro, “The wavelet matrix”, 2012) of all queries at
    once, so that a wide window costs what a narrow one does.
    """
    n = len(before)
    limit = start.astype(np.int64) + 1
    low, high = np.zeros(len(start), np.int64), end.astype(np.int64)
    found = np.zeros(len(start), np.int64)
    column = before.astype(np.int64)
    for bit in reversed(range((n + 1).bit_length())):
        ones = (column >> bit) & 1 > 0
        zeros = np.concatenate([[0], np.cumsum(~ones)])
        low_zeros, high_zeros = zeros[low], zeros[high]
        above = (limit >> bit) & 1 > 0
        found += np.where(above, high_zeros - low_zeros, 0)
        low = np.where(above, zeros[n] + low - low_zeros, low_zeros)
        high = np.where(above, zeros[n] + high - high_zeros, high_zeros)
        column = np.concatenate([column[~ones], column[ones]])
    return (found - start).astype(np.float64)


def known_windows(windows: Windows, created: Longs, asked: Longs) -> Iterator[tuple[Places, Windows]]:
    """Yield (queries, their windows) for those queries whose windows have rows `created` after they are `asked`.

    The windows that are given back have the rows only that were known then.
    """
    newest = np.iinfo(np.int64).min
    latest = reduce_segments(np.maximum, created, windows.start, windows.end, newest)
    late = np.flatnonzero(latest > asked)
    sizes = (windows.end - windows.start)[late]
    groups = np.cumsum(sizes) // _AT_ONCE
    for group in np.unique(groups):
        mine = late[groups == group]
        count = sizes[groups == group]
        owner = np.repeat(np.arange(len(mine)), count)
        rows = np.arange(int(count.sum())) + np.repeat(windows.start[mine] - (np.cumsum(count) - count), count)
        known = created[rows] <= asked[mine][owner]
        rows, owner = rows[known], owner[known]
        end = np.cumsum(np.bincount(owner, minlength=len(mine))).astype(np.intp)
        start = np.concatenate([[0], end[:-1]]).astype(np.intp)
        yield mine, Windows(windows.values[rows], owner, np.zeros(1, np.intp), start, start, end)


def last_known(created: Longs, found: Places, first: Places, asked: Longs) -> Places:
    """Return the last place in [first, found] whose `created` is not after `asked`, first − 1 for none.

    Rows that are not known yet are skipped by powers of two, of which the largest that are all unknown come first.
    """
    place = found.copy()
    open_ = np.flatnonzero((found >= first) & (created[np.maximum(found, 0)] > asked))
    if not len(open_):
        return place
    longest = int((found - first)[open_].max()) + 1
    least = [created]
    while 1 << len(least) <= longest:
        half = 1 << (len(least) - 1)
        wider = least[-1].copy()
        wider[half:] = np.minimum(least[-1][half:], least[-1][:-half])
        least.append(wider)
    for power in reversed(range(len(least))):
        mine = place[open_]
        skip = (mine - (1 << power) + 1 >= first[open_]) & (least[power][mine] > asked[open_])
        place[open_[skip]] -= 1 << power
    return place
