"""Words of texts and the numbers they are found by: one definition for single texts, one for whole columns.

A word is a run of letters, digits and underscores in lower case; of scripts without spaces every sign is one. The
number of a word (or of a name and value) is the polynomial Σ (bᵢ + 1) · Pⁱ mod 2⁶⁴ over its UTF-8 bytes, salted by
field and mixed by the finalizer of SplitMix64 (Steele, Lea, Flood 2014). By its first 40 bits, its short form, it is
looked for; the others tell whether what was found is it. Two that share a short number cost a look, never an answer.
"""

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.uint64]
Places = NDArray[np.int64]

_IDEOGRAPHS: Final = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|(?:(?![{_IDEOGRAPHS}])\w)+")
_LETTERS: Final = "0-9a-z_"
_BEYOND: Final = r"\x{80}-\x{10FFFF}"
_PRIME: Final = 0x9E3779B97F4A7C15
_INVERSE: Final = pow(_PRIME, -1, 1 << 64)
_MASK: Final = (1 << 64) - 1
BITS: Final = 40
# Texts are numbered a stretch at a time, so that the powers of its places stay in the processor's cache.
_BLOCK: Final = 1 << 15


def words(text: str) -> list[str]:
    """Return the words of a text, in order."""
    return _WORD.findall(text.lower())


def number_of(salt: int, data: bytes) -> int:
    """Return the number (64 bits) of a word, or of any bytes, in the field that `salt` stands for."""
    total, power = 0, 1
    for byte in data:
        total = (total + (byte + 1) * power) & _MASK
        power = (power * _PRIME) & _MASK
    mixed = (total + salt * 0xBF58476D1CE4E5B9 + len(data) * 0x94D049BB133111EB) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixed ^ (mixed >> 31)


def short(number: int) -> int:
    """Return the short form of a number."""
    return number >> (64 - BITS)


def patterns_of(word: str) -> tuple[str, str]:
    """Return two regular expressions (RE2) for a word in a text in lower case.

    What the first matches has the word; what the second does not match has it not. Between the two stands only a
    text in which a sign beyond ASCII touches the word: whether that is a letter, `words` decides.
    """
    if re.fullmatch(f"[{_IDEOGRAPHS}]", word):
        return word, word
    sure, maybe = (f"(?:^|[^{inner}]){re.escape(word)}(?:[^{inner}]|$)" for inner in (_LETTERS + _BEYOND, _LETTERS))
    return sure, maybe


class Numbering:
    """Number many byte strings at once."""

    def __init__(self) -> None:
        size = _BLOCK + 1
        self._powers = _powers(_PRIME, size)
        self._inverses = _powers(_INVERSE, size)

    def pieces(self, salt: int, data: NDArray[np.uint8], starts: Places, ends: Places) -> Numbers:
        """Return the numbers of `data[start:end]` for each pair; starts ascend, pieces do not overlap."""
        found = np.empty(len(starts), np.uint64)
        done = 0
        while done < len(starts):
            base = int(starts[done])
            stop = int(np.searchsorted(ends, base + _BLOCK, side="right"))
            if stop <= done:  # one piece longer than a block
                found[done] = number_of(salt, data[base : int(ends[done])].tobytes())
                done += 1
                continue
            first, last = starts[done:stop] - base, ends[done:stop] - base
            size = int(last[-1])
            terms = (data[base : base + size].astype(np.uint64) + np.uint64(1)) * self._powers[:size]
            sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum(terms)))
            found[done:stop] = _mixed(salt, (sums[last] - sums[first]) * self._inverses[first], last - first)
            done = stop
        return found

    def texts(self, salt: int, values: Sequence[str]) -> Numbers:
        """Return the number of each of `values`."""
        joined = "".join(values)
        data = joined.encode()
        sizes = map(len, values) if len(data) == len(joined) else (len(value.encode()) for value in values)
        lengths = np.fromiter(sizes, np.int64, len(values))
        ends = np.cumsum(lengths)
        return self.pieces(salt, np.frombuffer(data, np.uint8), ends - lengths, ends)

    def words(self, salt: int, data: NDArray[np.uint8], offsets: Places) -> tuple[Numbers, Places]:
        """Return the numbers of all words of texts laid end to end, and the place of the text each is of.

        The texts are in lower case; those with other than ASCII signs have a space between their words.
        """
        inside = _SIGNS[data]
        begins = inside.copy()
        begins[1:] &= ~inside[:-1]
        heads = offsets[:-1][offsets[:-1] < len(data)]
        begins[heads] = inside[heads]
        starts = np.flatnonzero(begins)
        closes = np.zeros(len(data) + 1, np.bool_)
        closes[1:-1] = inside[:-1] & ~inside[1:]
        if len(data):
            closes[-1] = inside[-1]
            tails = offsets[1:][offsets[1:] > 0]
            closes[tails] |= inside[tails - 1]
        ends = np.flatnonzero(closes)
        return self.pieces(salt, data, starts, ends), np.searchsorted(offsets, starts, side="right") - 1


def _powers(base: int, count: int) -> Numbers:
    steps = np.full(count, base, np.uint64)
    steps[0] = 1
    return np.cumprod(steps)


def _mixed(salt: int, totals: Numbers, lengths: Places) -> Numbers:
    mixed = totals + np.uint64((salt * 0xBF58476D1CE4E5B9) & _MASK)
    mixed += lengths.astype(np.uint64) * np.uint64(0x94D049BB133111EB)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _word_signs() -> NDArray[np.bool_]:
    table = np.zeros(256, np.bool_)
    table[np.frombuffer(b"0123456789abcdefghijklmnopqrstuvwxyz_", np.uint8)] = True
    table[128:] = True
    return table


_SIGNS: Final = _word_signs()
