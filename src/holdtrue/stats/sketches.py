"""Summaries of a column that can be merged: moments, quantiles, distinct and frequent values, each with its error.

What is merged from parts says the same of the whole as one pass over it: moments and distinct counts up to rounding,
quantiles and frequent values within the error that the summary carries.
"""

import base64
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from holdtrue.stats.arrays import Floats
from holdtrue.stats.errors import BadNumbers

POINTS = 256
"""How many points a summary of quantiles keeps: each compression adds 1 / (2 · points) to its error."""
MOST_POINTS = 4096
MOST_FREQUENT = 64
_PRECISION = 12
_BINS = 1 << 14
MOST_IN_BIN = 1 / 1024
# So many numbers at a time stay in the processor's cache, with what is computed of them.
_BLOCK = 1 << 15
_REGISTERS = 1 << _PRECISION
DISTINCT_ERROR = 1.04 / sqrt(_REGISTERS)
"""The relative standard error of a distinct count (Flajolet et al., HyperLogLog, 2007)."""

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Moments:
    """Hold the number of values, their mean, and the sum of squared distances from it."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: Floats) -> "Moments":
        """Return the moments of finite `values` float64[n]."""
        if not len(values):
            return cls()
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(values.mean())
            away = values - mean
            return cls(len(values), mean, float(away @ away))

    @classmethod
    def weighted(cls, values: Floats, weights: Floats) -> "Moments":
        """Return the moments of finite `values` float64[n], each of which occurs so many times."""
        n = int(weights.sum())
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(values @ weights) / n
            return cls(n, mean, float(((values - mean) ** 2) @ weights))

    def merged(self, other: "Moments") -> "Moments":
        """Return the moments of both together (Chan, Golub and LeVeque, 1979)."""
        n = self.n + other.n
        if not self.n or not other.n:
            return self if self.n else other
        step = other.mean - self.mean
        share = other.n / n
        return Moments(n, self.mean + step * share, self.squares + other.squares + step * step * self.n * share)

    @property
    def deviation(self) -> float | None:
        """Return the standard deviation, None for fewer than two values."""
        return sqrt(self.squares / (self.n - 1)) if self.n > 1 else None


@dataclass(frozen=True, slots=True)
class Center:
    """Hold the number of vectors, their mean float64[d], and the sum of squared distances from it."""

    n: int
    mean: Floats
    squares: float = 0.0

    @classmethod
    def of(cls, vectors: Floats) -> "Center":
        """Return the center of finite vectors float64[n, d]."""
        if not len(vectors):
            return cls(0, np.zeros(vectors.shape[1]))
        mean = vectors.mean(axis=0)
        away = (vectors - mean).ravel()
        return cls(len(vectors), mean, float(away @ away))

    def merged(self, other: "Center") -> "Center":
        """Return the center of both together, as of moments in each dimension."""
        if not self.n or not other.n:
            return self if self.n else other
        n = self.n + other.n
        step = other.mean - self.mean
        share = other.n / n
        squares = self.squares + other.squares + float(step @ step) * self.n * share
        return Center(n, self.mean + step * share, squares)

    @property
    def distance(self) -> float:
        """Return the root of the mean squared distance of the vectors from their mean, 0 for none."""
        return sqrt(self.squares / self.n) if self.n else 0.0


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Hold points of a distribution in rising order, each standing for `weights` values.

    The share of values up to x is known within `error`, whatever x is: k points at the middles of k equal parts
    are off by at most 1 / (2k), and parts that are merged keep their errors, weighted by their sizes.
    """

    points: Floats = field(default_factory=lambda: np.empty(0))
    weights: Floats = field(default_factory=lambda: np.empty(0))
    error: float = 0.0

    @classmethod
    def of(cls, ordered: Floats, points: int = POINTS) -> "Quantiles":
        """Return the summary of values that are finite and sorted, float64[n]."""
        n = len(ordered)
        if n <= points:
            return cls(ordered, np.ones(n))
        # The value at a share s is the one of rank ⌈s·n⌉.
        places = np.ceil((np.arange(points) + 0.5) * (n / points)).astype(np.intp) - 1
        return cls(ordered[places], np.full(points, n / points), 0.5 / points)

    @classmethod
    def binned(cls, values: Floats) -> "tuple[Quantiles, int] | None":
        """Return the summary of finite values float64[n] in any order, and how often one occurs at most.

        Values are counted in equal bins, which takes a fraction of the time of putting them in order. What is known of
        shares is off by a bin's count more; None if some bin holds too many for that, or they cannot be put into bins.
        """
        n = len(values)
        low, high = float(values.min()), float(values.max())
        with np.errstate(all="ignore"):
            scale = (_BINS - 1) / np.float64(high - low)
        if not np.isfinite(scale) or not scale > 0:
            return None
        counts = np.zeros(_BINS, np.int64)
        for start in range(0, n, _BLOCK):
            counts += np.bincount(((values[start : start + _BLOCK] - low) * scale).astype(np.intp), minlength=_BINS)
        most = int(counts.max())
        if most > n * MOST_IN_BIN:
            return None
        upto = np.cumsum(counts)
        bins = np.searchsorted(upto, np.ceil((np.arange(POINTS) + 0.5) * (n / POINTS)))
        # A bin's upper end has exactly the values up to that bin below it, but for those that rounding moved.
        points = np.minimum(low + (bins + 1) / scale, high)
        return cls(points, np.full(POINTS, n / POINTS), 0.5 / POINTS + 2 * most / n), most

    @classmethod
    def merged(cls, parts: "Iterable[Quantiles]") -> "Quantiles":
        """Return the summary of all parts together."""
        held = [part for part in parts if part.n]
        if not held:
            return cls()
        points = np.concatenate([part.points for part in held])
        order = np.argsort(points, kind="stable")
        weights = np.concatenate([part.weights for part in held])[order]
        error = sum(part.error * part.n for part in held) / float(weights.sum())
        return cls(points[order], weights, error).compressed(MOST_POINTS)

    @property
    def n(self) -> float:
        """Return how many values are summarised."""
        return float(self.weights.sum())

    def compressed(self, points: int) -> "Quantiles":
        """Return the same with at most `points` points."""
        if len(self.points) <= points:
            return self
        upto = np.cumsum(self.weights)
        total = float(upto[-1])
        wanted = (np.arange(points) + 0.5) * (total / points)
        chosen = self.points[np.minimum(np.searchsorted(upto, wanted), len(self.points) - 1)]
        return Quantiles(chosen, np.full(points, total / points), self.error + 0.5 / points)

    def at(self, shares: Sequence[float]) -> list[float | None]:
        """Return the values below which these shares of the values lie; None where there is none."""
        if not len(self.points):
            return [None for _ in shares]
        upto = np.cumsum(self.weights)
        places = np.searchsorted(upto, np.asarray(shares) * upto[-1] * (1 - 1e-12))
        return [float(value) for value in self.points[np.minimum(places, len(self.points) - 1)]]

    def below(self, edges: Floats) -> Floats:
        """Return the share of values up to each edge, float64[edges]."""
        if not len(self.points):
            raise BadNumbers("A summary of no values has no shares.", mend="Leave out empty columns.")
        upto = np.concatenate([[0.0], np.cumsum(self.weights)])
        return upto[np.searchsorted(self.points, edges, side="right")] / upto[-1]

    def histogram(self, edges: Floats) -> Floats:
        """Return how many values lie in each of len(edges) + 1 bins; a value on an edge goes left."""
        shares = np.concatenate([[0.0], self.below(edges), [1.0]])
        return np.diff(shares) * self.n


@dataclass(frozen=True, slots=True)
class Distinct:
    """Count different values by HyperLogLog: the parts' largest registers are those of the whole."""

    registers: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(_REGISTERS, np.uint8))

    @classmethod
    def of(cls, hashes: Hashes) -> "Distinct":
        """Return the registers of values given as evenly spread hashes uint64[n]."""
        registers = np.zeros(_REGISTERS, np.uint8)
        for start in range(0, len(hashes), _BLOCK):
            _raise(registers, hashes[start : start + _BLOCK])
        return cls(registers)

    @classmethod
    def of_numbers(cls, values: npt.NDArray[Any]) -> "Distinct":
        """Return the registers of numbers [n], which are hashed by their bits."""
        registers = np.zeros(_REGISTERS, np.uint8)
        for start in range(0, len(values), _BLOCK):
            _raise(registers, mixed(values[start : start + _BLOCK]))
        return cls(registers)

    def merged(self, other: "Distinct") -> "Distinct":
        """Return the registers of both together."""
        return Distinct(np.maximum(self.registers, other.registers))

    @property
    def count(self) -> int:
        """Return the estimate of how many different values there are."""
        empty = int(np.count_nonzero(self.registers == 0))
        raw = (0.7213 / (1 + 1.079 / _REGISTERS)) * _REGISTERS**2 / float(np.exp2(-self.registers.astype(float)).sum())
        if empty and raw <= 2.5 * _REGISTERS:
            return round(_REGISTERS * log(_REGISTERS / empty))
        return round(raw)

    def packed(self) -> str:
        """Return the registers as text."""
        return base64.b85encode(zlib.compress(self.registers.tobytes(), 9)).decode()

    @classmethod
    def unpacked(cls, text: str) -> "Distinct":
        """Return the registers that `packed` wrote."""
        data = zlib.decompress(base64.b85decode(text))
        return cls(np.frombuffer(data, np.uint8))


@dataclass(frozen=True, slots=True)
class Frequent:
    """Hold the values seen most often with their counts, most frequent first.

    A value's true count is its `counts` entry or up to `error` more; one that is not here occurs at most `error` times.
    """

    counts: Mapping[Any, int] = field(default_factory=dict[Any, int])
    error: int = 0

    @classmethod
    def of(cls, counts: Mapping[Any, int], error: int = 0) -> "Frequent":
        """Return the summary of exact counts, of which only the largest are kept."""
        ordered = sorted(counts.items(), key=lambda each: (-each[1], str(each[0])))
        # What is dropped occurs as often as the largest of it, at most.
        dropped = ordered[MOST_FREQUENT][1] if len(ordered) > MOST_FREQUENT else 0
        # And what occurs no oftener says no more than that.
        kept = {value: count for value, count in ordered[:MOST_FREQUENT] if count > dropped}
        return cls(kept, error + dropped)

    @classmethod
    def merged(cls, parts: "Iterable[Frequent]") -> "Frequent":
        """Return the summary of all parts together (Misra-Gries summaries; Agarwal et al., 2013)."""
        total: dict[Any, int] = {}
        error = 0
        for part in parts:
            error += part.error
            for value, count in part.counts.items():
                total[value] = total.get(value, 0) + count
        return cls.of(total, error)


def _raise(registers: npt.NDArray[np.uint8], hashes: Hashes) -> None:
    """Raise each register to the largest rank of the hashes that belong to it."""
    rest = (hashes & np.uint64((1 << (64 - _PRECISION)) - 1)).astype(np.float64)
    # The place of the first one among the 52 bits that are left; 53 if there is none.
    # A double's exponent says it; that of 0 is 0, which stands for none.
    exponents = np.maximum((rest.view(np.uint64) >> np.uint64(52)).astype(np.int64) - 1022, 0)
    ranks = (64 - _PRECISION + 1 - exponents).astype(np.uint8)
    np.maximum.at(registers, (hashes >> np.uint64(64 - _PRECISION)).astype(np.intp), ranks)


def most_alike(hashes: Hashes) -> int:
    """Return a number of times that none of the values with these hashes uint64[n] occurs more often than."""
    counts = np.zeros(_BINS, np.int64)
    for start in range(0, len(hashes), _BLOCK):
        bins = (hashes[start : start + _BLOCK] >> np.uint64(64 - _BINS.bit_length() + 1)).astype(np.intp)
        counts += np.bincount(bins, minlength=_BINS)
    return int(counts.max(initial=0))


def all_differ(hashes: Hashes) -> bool:
    """Tell whether no two of evenly spread hashes uint64[n] are equal, in less time than it takes to put them in order.

    Each goes to the place that some of its bits say, and the last one stays there. One that was pushed out is equal to
    it or not; those that are not go on among themselves, by other bits. Equal ones always meet.
    """
    left, shift = hashes, 0
    while len(left):
        size = max(len(left) - 1, 1).bit_length() + 1
        if shift + size > 64:
            return bool((np.diff(np.sort(left)) != 0).all())
        places = ((left >> np.uint64(shift)) & np.uint64((1 << size) - 1)).astype(np.intp)
        last = np.zeros(1 << size, np.int32)
        last[places] = np.arange(len(left), dtype=np.int32)
        there = last[places]
        pushed = np.flatnonzero(there != np.arange(len(left), dtype=np.int32))
        if (left[there[pushed]] == left[pushed]).any():
            return False
        left, shift = left[pushed], shift + 7
    return True


def finished(bits: Hashes) -> Hashes:
    """Return uint64[n] with every bit of the input spread over the output (the finaliser of SplitMix64)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def mixed(values: npt.NDArray[Any]) -> Hashes:
    """Return evenly spread hashes uint64[n] of numbers by their bits."""
    # 0.0 and −0.0 are one value with two forms.
    plain = values + 0.0 if values.dtype.kind == "f" else values
    bits = plain.astype(np.float64 if values.dtype.kind == "f" else np.int64).view(np.uint64)
    return finished(bits + _STEP)


def text_hashes(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> Hashes:
    """Return hashes uint64[n] of n texts that lie one after another in `data`, from offsets[i] to offsets[i + 1].

    The same on every machine: eight bytes at a time, read as little-endian, each step finished as in SplitMix64.
    """
    starts, lengths = offsets[:-1], np.diff(offsets)
    n, longest = len(lengths), int(lengths.max(initial=0))
    padded = np.concatenate([data, np.zeros(8, np.uint8)])
    found = finished(lengths.astype(np.uint64) + _STEP)
    if n and int(lengths.min()) == longest:
        # Texts of one length lie at equal distances: their words need not be gathered one by one.
        for at in range(0, longest, 8):
            words = np.ndarray((n,), "<u8", padded, offset=at, strides=(longest,))
            mask = _MASKS[min(longest - at, 8)]
            for start in range(0, n, _BLOCK):
                part = found[start : start + _BLOCK]
                part[:] = finished((part ^ (words[start : start + _BLOCK] & mask)) + _STEP)
        return found
    words = np.ndarray((len(padded) - 7,), "<u8", padded, strides=(1,))
    active = np.flatnonzero(lengths > 0)
    for at in range(0, longest, 8):
        active = active[lengths[active] > at] if at else active
        word = words[starts[active] + at] & _MASKS[np.minimum(lengths[active] - at, 8)]
        found[active] = finished((found[active] ^ word) + _STEP)
    return found


_STEP = np.uint64(0x9E3779B97F4A7C15)
_MASKS = np.array([(1 << (8 * each)) - 1 for each in range(9)], np.uint64)
