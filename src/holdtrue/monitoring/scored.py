"""Scores and labels of one release in one day, as compact arrays; labels are joined by hashes of keys."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from holdtrue.core.errors import Corrupt

Hashes = npt.NDArray[np.uint64]
Floats32 = npt.NDArray[np.float32]
Micros = npt.NDArray[np.int64]

_MAGIC = 0x31445448  # "HTD1"
_WITH_CHANCES = 0x32445448  # "HTD2": one more number in the head, how many chances follow for each row
_ROW_BYTES = 8 + 8 + 4 + 4 + 8


def hashes(values: Iterable[Any]) -> Hashes:
    """Return 64-bit BLAKE2b hashes of the values' text, uint64[n]; null gives 0, which stands for “none”."""
    made = b"".join(
        bytes(8) if value is None else blake2b(str(value).encode(), digest_size=8).digest() for value in values
    )
    return np.frombuffer(made, dtype="<u8").astype(np.uint64)


@dataclass(frozen=True, slots=True)
class DayScores:
    """Hold n predictions of one release in one day.

    `ids` and `keys` uint64[n] are hashes of prediction id and key (0: none); `scores` float32[n], NaN where
    the fallback answered; `labels` float32[n], NaN where none is in; `known_at` int64[n] in microseconds (0:
    never). `corrected` counts labels that were replaced by another value. `chances` float32[n, k] are the
    probabilities of k classes, NaN where none were given; None where nobody gave any.
    """

    ids: Hashes
    keys: Hashes
    scores: Floats32
    labels: Floats32
    known_at: Micros
    corrected: int = 0
    chances: Floats32 | None = None

    @property
    def n(self) -> int:
        """Return the number of predictions."""
        return int(self.ids.size)

    def pack(self) -> bytes:
        """Return the bytes that `unpack` reads: three or four int64 and then the columns, little-endian."""
        wide = [] if self.chances is None else [self.chances.shape[1]]
        head = np.array([_WITH_CHANCES if wide else _MAGIC, self.n, self.corrected, *wide], dtype="<i8")
        columns = (
            self.ids.astype("<u8"),
            self.keys.astype("<u8"),
            self.known_at.astype("<i8"),
            self.scores.astype("<f4"),
            self.labels.astype("<f4"),
            *(() if self.chances is None else (self.chances.astype("<f4"),)),
        )
        return head.tobytes() + b"".join(column.tobytes() for column in columns)


def empty_day() -> DayScores:
    """Return a day without predictions."""
    nothing = np.zeros(0, np.uint64)
    none = np.zeros(0, np.float32)
    return DayScores(nothing, nothing, none, none, np.zeros(0, np.int64))


def unpack(data: bytes) -> DayScores:
    """Return the day that `pack` wrote; anything else raises Corrupt."""
    head = np.frombuffer(data[: min(len(data), 32) // 8 * 8], dtype="<i8").tolist()
    wide = head[3] if len(head) == 4 and head[0] == _WITH_CHANCES else None
    start, row = (24, _ROW_BYTES) if wide is None else (32, _ROW_BYTES + 4 * wide)
    if len(head) < 3 or (head[0] != _MAGIC and wide is None) or len(data) != start + head[1] * row:
        raise Corrupt(
            "Stored scores of a day are damaged.",
            why=f"{len(data)} bytes do not have the expected form.",
            mend="Restore the ledger from a backup; the predictions themselves stand in the journal.",
        )
    n, at = head[1], start

    def take(kind: str, count: int = n) -> npt.NDArray[Any]:
        nonlocal at
        column = np.frombuffer(data, dtype=kind, count=count, offset=at)
        at += column.nbytes
        return column

    ids, keys, known_at, scores, labels = take("<u8"), take("<u8"), take("<i8"), take("<f4"), take("<f4")
    chances = None if wide is None else take("<f4", n * wide).reshape(n, wide)
    return DayScores(ids, keys, scores, labels, known_at, head[2], chances)


def joined_days(days: Sequence[DayScores]) -> DayScores:
    """Return several days, or several releases of a day, as one."""
    if len(days) == 1:
        return days[0]
    if not days:
        return empty_day()
    return DayScores(
        np.concatenate([day.ids for day in days]),
        np.concatenate([day.keys for day in days]),
        np.concatenate([day.scores for day in days]),
        np.concatenate([day.labels for day in days]),
        np.concatenate([day.known_at for day in days]),
        sum(day.corrected for day in days),
        _stacked([(day.n, day.chances) for day in days]),
    )


def _stacked(parts: Sequence[tuple[int, Floats32 | None]]) -> Floats32 | None:
    """Return the probabilities of parts of n rows beneath each other; NaN where one has none, or fewer classes."""
    widths = [chances.shape[1] for _, chances in parts if chances is not None]
    if not widths:
        return None
    made = np.full((sum(n for n, _ in parts), max(widths)), np.nan, np.float32)
    at = 0
    for n, chances in parts:
        if chances is not None:
            made[at : at + n, : chances.shape[1]] = chances
        at += n
    return made


def add(day: DayScores, ids: Hashes, keys: Hashes, scores: Floats32, chances: Floats32 | None = None) -> DayScores:
    """Return the day with new predictions added; ids it already has are left out."""
    _, first = np.unique(ids, return_index=True)
    fresh = np.zeros(ids.size, np.bool_)
    fresh[first] = True
    fresh &= ~np.isin(ids, day.ids)
    new = int(fresh.sum())
    return DayScores(
        np.concatenate([day.ids, ids[fresh]]),
        np.concatenate([day.keys, keys[fresh]]),
        np.concatenate([day.scores, scores[fresh].astype(np.float32)]),
        np.concatenate([day.labels, np.full(new, np.nan, np.float32)]),
        np.concatenate([day.known_at, np.zeros(new, np.int64)]),
        day.corrected,
        _stacked([(day.n, day.chances), (new, None if chances is None else chances[fresh])]),
    )


def with_chances(day: DayScores, ids: Hashes, chances: Floats32) -> DayScores:
    """Return a day that has no probabilities with those of predictions by their ids, NaN where there are none."""
    made = np.full((day.n, chances.shape[1]), np.nan, np.float32)
    order = np.argsort(ids, kind="stable")
    at = np.minimum(np.searchsorted(ids, day.ids, sorter=order), max(ids.size - 1, 0))
    rows = order[at] if ids.size else np.zeros(0, np.int64)
    same = ids[rows] == day.ids
    made[same] = chances[rows[same]]
    return replace(day, chances=made)


@dataclass(frozen=True, slots=True)
class Labels:
    """Hold labels in the order in which they became known; each has a key, a prediction id, or both.

    `keys` and `ids` uint64[n] (0: none), `values` float32[n], `known_at` int64[n] microseconds.
    """

    keys: Hashes
    ids: Hashes
    values: Floats32
    known_at: Micros

    @property
    def n(self) -> int:
        """Return the number of labels."""
        return int(self.keys.size)

    def take(self, rows: npt.NDArray[Any]) -> "Labels":
        """Return the labels at `rows` (indices or a mask)."""
        return Labels(self.keys[rows], self.ids[rows], self.values[rows], self.known_at[rows])

    def pack(self) -> bytes:
        """Return the bytes that `unpack_labels` reads."""
        parts = (self.keys.astype("<u8"), self.ids.astype("<u8"), self.known_at.astype("<i8"))
        return b"".join(part.tobytes() for part in parts) + self.values.astype("<f4").tobytes()


def unpack_labels(data: bytes) -> Labels:
    """Return the labels that `Labels.pack` wrote."""
    n = len(data) // 28
    return Labels(
        np.frombuffer(data, "<u8", n, 0),
        np.frombuffer(data, "<u8", n, 8 * n),
        np.frombuffer(data, "<f4", n, 24 * n),
        np.frombuffer(data, "<i8", n, 16 * n),
    )


def in_order(labels: Sequence[Labels]) -> Labels:
    """Return labels of several batches as one, ordered by when they became known."""
    whole = Labels(
        np.concatenate([part.keys for part in labels]),
        np.concatenate([part.ids for part in labels]),
        np.concatenate([part.values for part in labels]),
        np.concatenate([part.known_at for part in labels]),
    )
    return whole.take(np.argsort(whole.known_at, kind="stable"))


def apply(day: DayScores, labels: Labels) -> tuple[DayScores, npt.NDArray[np.bool_]]:
    """Return the day with `labels` joined to it, and which labels found a prediction, bool[labels].

    The label known last wins, also when it comes in first; an equal value is no correction.
    """
    found = np.zeros(labels.n, np.bool_)
    values, known_at, corrected = day.labels.copy(), day.known_at.copy(), day.corrected
    for theirs, ours in ((labels.keys, day.keys), (labels.ids, day.ids)):
        for chosen in _rounds(theirs):
            rows, picked = _match(ours, theirs, chosen)
            found[picked] = True
            later = labels.known_at[picked] >= known_at[rows]
            rows, picked = rows[later], picked[later]
            had = ~np.isnan(values[rows])
            corrected += int(np.count_nonzero(had & (values[rows] != labels.values[picked])))
            values[rows] = labels.values[picked]
            known_at[rows] = labels.known_at[picked]
    if not found.any():
        return day, found
    return replace(day, labels=values, known_at=known_at, corrected=corrected), found


def _rounds(theirs: Hashes) -> Iterable[npt.NDArray[np.int64]]:
    """Yield label rows so that no hash comes twice in a round: corrections follow what they correct."""
    rest = np.flatnonzero(theirs)
    while rest.size:
        _, first = np.unique(theirs[rest], return_index=True)
        yield rest[first]
        rest = np.delete(rest, first)


def _match(
    ours: Hashes, theirs: Hashes, chosen: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return prediction rows and, for each, the label row with its hash; `chosen` is sorted by hash."""
    wanted = theirs[chosen]
    at = np.searchsorted(wanted, ours)
    inside = at < wanted.size
    hit = np.zeros(ours.size, np.bool_)
    hit[inside] = (wanted[at[inside]] == ours[inside]) & (ours[inside] != 0)
    rows = np.flatnonzero(hit)
    return rows, chosen[at[rows]]
