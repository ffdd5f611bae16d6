"""An erasure and what became of it, as frozen values; nothing in them holds the entity's value."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from holdtrue.core.errors import Conflict, HoldtrueError

QUARANTINE: Final = "(quarantine)"
"""What stands for the window of rows that are kept out."""


class State(StrEnum):
    """Name where an erasure stands."""

    OPEN = "open"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Erasure:
    """Hold one erasure: of which column's entity, known by `mark` alone, and what was done so far.

    `found` maps each part that is done to what it found.
    """

    id: str
    project: str
    column: str
    mark: str
    state: State
    found: Mapping[str, Any]
    requested_at: datetime
    requested_by: str
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ErasedBlob:
    """Say that a blob held rows of an erased entity, whose they were, and which blob has the others."""

    digest: str
    erasure: str
    dataset: str
    window: str
    replacement: str


@dataclass(frozen=True, slots=True)
class Held:
    """Tell against how many erasures something was held, and which of its blobs had rows of erased entities."""

    revision: int = 0
    blobs: tuple[ErasedBlob, ...] = ()


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Hold what is left of something delivered, and how many rows of erased entities were in it."""

    content: Any
    erased: int
    held: Held


class ErasureMoved(Conflict):
    """Another entity was erased while a delivery was held against the list."""

    code = "erasure_moved"

    @classmethod
    def now(cls) -> "ErasureMoved":
        """Say that the list is another one than was looked at."""
        return cls(
            "An entity was erased while this delivery was taken in.",
            why="The delivery was held against the list as it was before.",
            mend="Send it again.",
        )


class RowsErased(HoldtrueError):
    """The rows that are asked for held an erased entity, and were collected."""

    code = "rows_erased"
    status = 410

    @classmethod
    def of(cls, label: str, window: str, erasure: str, current: str) -> "RowsErased":
        """Name the version and window that is gone, the erasure, and the version that has the other rows."""
        return cls(
            f"The rows of {label}, window {window}, are no longer kept.",
            why=f"They held an entity that was erased ({erasure}).",
            mend=f"Use {current}, which has all other rows." if current else "Use a later version.",
            facts={"version": label, "window": window, "erasure": erasure},
        )
