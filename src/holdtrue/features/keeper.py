"""What an online store needs of the place that keeps its rows: bytes under a prefix and a number, in order.

A prefix names what a view keeps (8 bytes, its tag) and an entity (16 bytes). The number is a moment or a tile.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

LEAD: Final = 4
"""Bytes before each value that belong to the keeper."""
TAG: Final = 8
"""Bytes of a view's tag at the beginning of a prefix."""
OFFSET: Final = 1 << 63


class Ask(NamedTuple):
    """Ask for what is kept under `prefix`: all numbers in [low, high], or with no `low` the last one up to `high`."""

    prefix: bytes
    low: int | None
    high: int


class Merged(NamedTuple):
    """Hold what is to be kept, by number, and which of the rows that came were new."""

    puts: Mapping[int, bytes]
    fresh: list[int]


@dataclass(frozen=True, slots=True)
class Change:
    """Describe a change of what is kept under one prefix: at most the `most` highest numbers stay.

    `merge` gets what is kept under `numbers` and returns what shall be; it may be called again, if somebody else
    changed that in between.
    """

    prefix: bytes
    numbers: tuple[int, ...]
    most: int
    merge: Callable[[Mapping[int, bytes]], Merged]


@dataclass(frozen=True, slots=True)
class Extent:
    """Hold how much is kept of a view: entities, records and bytes."""

    entities: int
    records: int
    bytes: int


class Keeper(Protocol):
    """Keep rows; everything a keeper raises of its own is Unavailable or StorageFull."""

    def fetch(self, asks: Sequence[Ask]) -> list[Any]:
        """Return for each question, at one moment, a list of values, or of the last one (number, value) or None.

        A value has LEAD bytes of the keeper's own before it.
        """
        ...

    def apply(
        self,
        changes: Sequence[Change],
        newest: Mapping[bytes, int] = MappingProxyType({}),
        notes: Mapping[str, bytes] = MappingProxyType({}),
    ) -> list[list[int]]:
        """Make all changes or none, and return the new rows of each.

        `newest` are the newest moments of rows by tag, of which the highest ever given is kept; `notes` are kept by
        name.
        """
        ...

    def newest(self, tags: Sequence[bytes]) -> list[int | None]:
        """Return the highest moment that was given for each tag."""
        ...

    def note(self, name: str) -> bytes | None:
        """Return a note, None if there is none."""
        ...

    def notes(self, start: str) -> dict[str, bytes]:
        """Return all notes whose names begin so."""
        ...

    def remove(self, entity: bytes, tags: Sequence[bytes] | None) -> int:
        """Remove all that is kept of an entity, under `tags` or all; return how many records that were."""
        ...

    def extents(self, tags: Sequence[bytes]) -> list[Extent]:
        """Return how much is kept under each tag; reads all of it."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...
