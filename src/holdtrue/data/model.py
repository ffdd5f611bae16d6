"""Datasets, deliveries of one window, and quarantines, as frozen values."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from holdtrue.core.errors import ConfigurationError, InvalidInput, StateError
from holdtrue.data.columns import Column, Finding
from holdtrue.data.contract import Contract
from holdtrue.data.tags import NO_TAGS, Tags

By = Literal["random", "time", "group"]
_MONTH = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])")


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """Describe a dataset: the column that names a row, the one that dates it, its contract, its windows.

    `tags` hold for every column that says nothing else.
    """

    name: str
    key: str
    time: str
    contract: Contract
    window: str = "month"
    tags: Tags = NO_TAGS

    def tagged(self) -> Contract:
        """Return the contract with the tags that hold for each column."""
        columns = tuple(
            replace(each, tags=None if (found := _tags_of(each, self.tags)) == NO_TAGS else found)
            for each in self.contract.columns
        )
        return replace(self.contract, columns=columns)

    def tags_json(self) -> dict[str, dict[str, Any]]:
        """Return the tags of each column that has any, as a version keeps them."""
        found = {each.name: _tags_of(each, self.tags).to_json() for each in self.contract.columns}
        return {name: said for name, said in sorted(found.items()) if said}


def _tags_of(column: Column, general: Tags) -> Tags:
    return (column.tags or NO_TAGS).over(general)


def check_windows(dataset: str, window: str) -> None:
    """Raise ConfigurationError unless a dataset is delivered by the month."""
    if window != "month":
        raise ConfigurationError(
            f"The dataset “{dataset}” cannot be delivered by the {window}.",
            why="A row's features are looked up in its month and the one before, and retraining counts months.",
            mend='Deliver whole months: window="month", which is the default.',
        )


def check_window(dataset: str, window: str) -> None:
    """Raise InvalidInput unless `window` is the name of a month."""
    if _MONTH.fullmatch(window) is None:
        raise InvalidInput(
            f"“{window}” is not a window of “{dataset}”.",
            why="Windows are months, written YYYY-MM.",
            mend="Write it like 2013-04.",
        )


@dataclass(frozen=True, slots=True)
class Ingest:
    """Hold what the check of one delivered window found, and where its bytes are.

    `digest` is the accepted rows' Parquet blob (None if blocked), `quarantine` that of rows kept out;
    `contract` is the hash of the contract that was checked.
    """

    dataset: str
    window: str
    contract: str
    rows: int
    findings: tuple[Finding, ...]
    digest: str | None
    bytes: int
    accepted: int
    quarantine: str | None
    quarantined: int


class QuarantineState(StrEnum):
    """Name where a quarantined delivery stands."""

    OPEN = "open"
    MENDED = "mended"
    DISCARDED = "discarded"


QUARANTINE_MOVES: dict[QuarantineState, frozenset[QuarantineState]] = {
    QuarantineState.OPEN: frozenset({QuarantineState.MENDED, QuarantineState.DISCARDED}),
    QuarantineState.MENDED: frozenset(),
    QuarantineState.DISCARDED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Part:
    """Say where the rows of one window are: a Parquet blob, its rows and bytes."""

    digest: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class NewDatasetVersion:
    """State the content of a version that was made from files: fragments by name, or a tree."""

    fragments: Mapping[str, Part] | None = None
    key: str | None = None
    tree: str | None = None
    files: int = 0
    bytes: int = 0

    def __post_init__(self) -> None:
        if (self.fragments is None) == (self.tree is None) or self.fragments == {}:
            raise InvalidInput(
                "A version of a dataset has fragments or a tree of files.",
                why="It is either a table or files as they are.",
                mend="Send one of the two.",
            )

    def content(self) -> dict[str, Any]:
        """Return the content that names the version."""
        if self.fragments is None:
            return {"tree": self.tree, "files": self.files, "bytes": self.bytes}
        parts = {
            name: {"digest": part.digest, "rows": part.rows, "bytes": part.bytes}
            for name, part in sorted(self.fragments.items())
        }
        return {"fragments": parts} if self.key is None else {"fragments": parts, "key": self.key}

    def blobs(self) -> tuple[str, ...]:
        """Return the digests that the content names."""
        if self.fragments is None:
            return () if self.tree is None else (self.tree,)
        return tuple(part.digest for _, part in sorted(self.fragments.items()))


@dataclass(frozen=True, slots=True)
class Discard:
    """Say why a quarantined delivery will not be mended."""

    reason: str


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Hold one delivery (or some of its rows) that a contract kept out, and what became of it."""

    id: str
    project: str
    dataset: str
    window: str
    state: QuarantineState
    blocked: bool
    rows: int
    blob: str | None
    findings: tuple[Any, ...]
    opened_at: datetime
    closed_at: datetime | None = None
    mended_by: str | None = None

    def check_move(self, wanted: QuarantineState) -> None:
        """Raise StateError unless the table of moves has this one."""
        if wanted not in QUARANTINE_MOVES[self.state]:
            raise StateError.of("quarantine", self.state.value, wanted.value)


@dataclass(frozen=True, slots=True)
class NewSplit:
    """Ask for a split called `name`: the shares of its `parts`, in order, and by what rows go to them.

    “random” takes the hash of a row's key, “group” that of a `column`, whose equal values stay together, both with
    `seed`; “time” takes the moment in `column`, and parts begin at `cuts`, or where shares of the rows say. Values of
    the columns in `apart` may be in one part only, else the split is refused.
    """

    name: str
    by: By
    parts: Mapping[str, float]
    column: str | None = None
    seed: int = 0
    cuts: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
