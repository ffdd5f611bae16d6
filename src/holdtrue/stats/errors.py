"""What the statistics refuse. They know no room above them, so theirs is an error of plain Python."""

from collections.abc import Mapping
from typing import Any


class BadNumbers(ValueError):
    """Say that a statistic does not exist for these arrays: what is wrong, why, and how to mend it.

    Rooms that take arrays from users turn it into an error of the house with the same words.
    """

    def __init__(self, what: str, *, why: str = "", mend: str = "", facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(" ".join(part for part in (what, why, mend) if part))
        self.what = what
        self.why = why
        self.mend = mend
        self.facts: dict[str, Any] = dict(facts or {})


class OneClassOnly(BadNumbers):
    """Say that a ranking statistic was asked of rows that all have the same label."""
