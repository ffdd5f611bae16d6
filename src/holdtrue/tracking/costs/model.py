"""Nouns of what a run cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Samples(NamedTuple):
    """Sum up the points of one metric: how many there are, their mean, and the greatest."""

    points: int
    mean: float
    most: float


@dataclass(frozen=True, slots=True)
class Figure:
    """Hold one figure; `measured` is false where something was assumed, and `how` says what."""

    name: str
    value: float
    unit: str
    measured: bool
    how: str


@dataclass(frozen=True, slots=True)
class Cost:
    """Hold what is known of the cost of a run, and for what is not known the reason."""

    figures: tuple[Figure, ...]
    unknown: Mapping[str, str]

    def figure(self, name: str) -> Figure | None:
        """Return one figure, or None."""
        return next((each for each in self.figures if each.name == name), None)
