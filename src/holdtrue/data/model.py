"""Datasets, deliveries of one window, and quarantines, as frozen values."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from holdtrue.core.errors import StateError
from holdtrue.data.contract import Contract, Finding


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """Describe a dataset: the column that names a row, the one that dates it, its contract, its windows."""

    name: str
    key: str
    time: str
    contract: Contract
    window: str = "month"


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
