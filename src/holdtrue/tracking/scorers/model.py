"""Nouns of scorers."""

from dataclasses import dataclass
from typing import Final

from holdtrue.core.errors import NotFound

NAME_LENGTH: Final = 250
BODY_LENGTH: Final = 500_000


@dataclass(frozen=True, slots=True)
class Scorer:
    """Hold one version of a scorer as a client serialised it; `id` is that of all versions of its name."""

    id: str
    experiment: int
    name: str
    version: int
    body: str
    created_ms: int


class NoScorer(NotFound):
    """No scorer has this name or version in the experiment."""

    code = "no_scorer"

    @classmethod
    def named(cls, experiment: int, name: str, version: int | None = None) -> "NoScorer":
        """Name what is missing."""
        which = f"'{name[:200]}'" + (f" and version {version}" if version is not None else "")
        return cls(f"Scorer with name {which} not found for experiment {experiment}.", mend="List the scorers.")
