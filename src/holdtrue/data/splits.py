"""How rows of a version are divided into parts: by what is in a row alone, so that all get the same parts again."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from holdtrue.core.clock import from_microseconds
from holdtrue.core.errors import InvalidInput
from holdtrue.data.model import By, NewSplit
from holdtrue.data.profiling import hashes_of, plain_texts
from holdtrue.stats.sketches import Hashes, finished

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_LEAST_PARTS = 2


@dataclass(frozen=True, slots=True)
class Split:
    """Hold the rule of a split: which values of `column` go to which part."""

    by: By
    column: str
    parts: tuple[str, ...]
    shares: tuple[float, ...]
    seed: int = 0
    cuts: tuple[int, ...] = field(default=())
    """Microseconds at which parts after the first begin, of a split by time."""

    def places(self, column: pa.ChunkedArray) -> npt.NDArray[np.intp]:
        """Return for each row the number of its part, of the values of the split's column."""
        if self.by == "time":
            return np.searchsorted(np.array(self.cuts, np.int64), moments(self.column, column), side="right")
        # A hash is as good as a random number, and stays with its row whatever rows come or go.
        spread = seeded(text_hashes_of(column), self.seed).astype(np.float64) / 2.0**64
        ends = np.cumsum(self.shares)[:-1]
        return np.searchsorted(ends, spread, side="right")

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> "Split":
        """Return the rule that the content of a recorded split holds."""
        parts = content["parts"]
        cuts = tuple(_microseconds(cut) for cut in content["cuts"])
        names = tuple(each["part"] for each in parts)
        return cls(
            content["by"], content["column"], names, tuple(each["share"] for each in parts), content["seed"], cuts
        )


def part_of(table: pa.Table, content: Mapping[str, Any], part: str) -> pa.Table:
    """Return the rows of `table` that are in one part of a recorded split; InvalidInput if it has no such part."""
    split = Split.from_content(content)
    if part not in split.parts:
        raise InvalidInput(
            f"The split has no part “{part[:40]}”.",
            why=f"Its parts: {', '.join(split.parts)}.",
            mend="Name one of them.",
        )
    return table.filter(pa.array(split.places(table[split.column]) == split.parts.index(part)))


def check_split(wanted: NewSplit) -> None:
    """Raise InvalidInput for a split that cannot be meant."""
    shares = list(wanted.parts.values())
    wrong = None
    if len(shares) < _LEAST_PARTS or any(not _PART.fullmatch(part) for part in wanted.parts):
        wrong = "It needs two parts or more, named by letters, digits, dashes and underscores"
    elif any(not share > 0 for share in shares) or abs(sum(shares) - 1) > 1e-9:
        wrong = f"The shares of its parts are above 0 and together 1, and not {sum(shares):g}"
    elif wanted.by == "group" and wanted.column is None:
        wrong = "By group it needs the column whose equal values stay together"
    elif wanted.cuts and (wanted.by != "time" or len(wanted.cuts) != len(shares) - 1):
        wrong = "Cuts are of a split by time, one less than there are parts"
    elif list(wanted.cuts) != sorted(wanted.cuts, key=_microseconds):
        wrong = "Cuts are in the order of time"
    elif not 0 <= wanted.seed < 2**53:
        wrong = "A seed is a whole number from 0 on"
    if wrong:
        raise InvalidInput(f"The split “{wanted.name[:63]}” cannot be made.", why=f"{wrong}.", mend="Correct it.")


def cuts_of(shares: tuple[float, ...], times: npt.NDArray[np.int64]) -> tuple[int, ...]:
    """Return the moments at which parts after the first begin, so that each has about its share of the rows.

    Rows of one moment stay together.
    """
    ordered = np.sort(times)
    places = np.minimum(np.ceil(np.cumsum(shares)[:-1] * len(ordered) - 1e-9).astype(np.intp), len(ordered) - 1)
    return tuple(ordered[places].tolist())


def cut_moments(cuts: tuple[str, ...]) -> tuple[int, ...]:
    """Return moments that were given as texts, in microseconds."""
    return tuple(_microseconds(cut) for cut in cuts)


def moments(name: str, column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return a column of moments in microseconds; InvalidInput if it is none, or has gaps."""
    kind: Any = column.type
    if not pa.types.is_timestamp(kind) and not pa.types.is_date(kind):
        raise InvalidInput(
            f"“{name}” is {kind}, and rows are divided by time.", why="It has no moments.", mend="Name another column."
        )
    if column.null_count:
        raise InvalidInput(
            f"“{name}” is missing in {column.null_count:,} rows.",
            why="A row without a moment is in no part of a split by time.",
            mend="Divide by a column that every row has.",
        )
    return column.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False).cast(pa.int64()).to_numpy()


def text_hashes_of(column: pa.ChunkedArray) -> Hashes:
    """Return hashes uint64[n] of values by their texts; what is missing is one value of its own."""
    return hashes_of(plain_texts(column.cast(pa.string()).fill_null("\0")))


def seeded(hashes: Hashes, seed: int) -> Hashes:
    """Return other hashes of the same values for each seed."""
    return finished(hashes ^ finished(np.array([seed + 1], np.uint64)))


def said(cut: int) -> str:
    """Return a moment in microseconds as text."""
    return from_microseconds(cut).isoformat()


def _microseconds(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(
            f"{text[:40]!r} is no moment.", why=f"{error}.", mend="Write it like 2013-10-01T00:00:00+00:00."
        ) from error
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000)
