"""Datasets, deliveries of one window, and quarantines, as frozen values."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from holdtrue.core.errors import ConfigurationError, InvalidInput, StateError
from holdtrue.data.contract import Contract, Finding

_MONTH = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])")


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """Describe a dataset: the column that names a row, the one that dates it, its contract, its windows."""

    name: str
    key: str
    time: str
    contract: Contract
    window: str = "month"


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
