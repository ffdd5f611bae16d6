"""How old the newest row of each view is, held against the view's objective."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from holdtrue.features.model import View, microseconds_of

State = Literal["fresh", "missed", "empty", "open"]


@dataclass(frozen=True, slots=True)
class Standing:
    """Tell how a view stands: its newest row's moment and age (µs), and the age that is allowed.

    `state` is “fresh” or “missed” with an objective, “open” without one, and “empty” where no row ever came.
    """

    view: str
    newest: int | None
    age: int | None
    allowed: int | None
    state: State

    @property
    def misses(self) -> bool:
        """Tell whether there is an objective that is not kept."""
        return self.allowed is not None and self.state != "fresh"

    @property
    def sentence(self) -> str:
        """Return what is to be said of a view that misses its objective."""
        allowed = _hours(self.allowed or 0)
        if self.age is None:
            return f"{self.view} has no rows; its newest may be {allowed} old."
        return f"The newest row of {self.view} is {_hours(self.age)} old; it may be {allowed} old."


def standing(views: Sequence[View], newest: Sequence[int | None], now: int) -> list[Standing]:
    """Return how views stand at the moment `now` (µs), from the moments of their newest rows."""
    found: list[Standing] = []
    for view, moment in zip(views, newest, strict=True):
        allowed = None if view.freshness is None else microseconds_of(view.freshness)
        age = None if moment is None else max(0, now - moment)
        state: State = "open"
        if age is None:
            state = "empty"
        elif allowed is not None:
            state = "fresh" if age <= allowed else "missed"
        found.append(Standing(view.name, moment, age, allowed, state))
    return found


def _hours(span: int) -> str:
    minutes = span // 60_000_000
    if minutes < 120:
        return f"{minutes} minutes"
    return f"{minutes // 60} hours" if minutes < 72 * 60 else f"{minutes // (24 * 60)} days"
