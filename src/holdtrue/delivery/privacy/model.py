"""What is asked about sources, columns and entities, and what was found, as frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from holdtrue.core.errors import InvalidInput, Locked


@dataclass(frozen=True, slots=True)
class Erase:
    """Ask for the erasure of an entity: the column that holds it, its value there as a text, and why.

    With `again` an erasure that is done is done once more, for what came in by a door that knows no list.
    """

    column: str
    value: str = field(repr=False)
    reason: str = ""
    again: bool = False


@dataclass(frozen=True, slots=True)
class Used:
    """Ask which models used something: data of a source, a column, a licence or kind, or an entity's rows.

    `entity` is a column and a value, as in tailnum=N14228; `column` is a dataset's, as in flights.tailnum.
    """

    source: str | None = None
    column: str | None = None
    licence: str | None = None
    personal: str | None = None
    entity: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        given = [each for each in (self.source, self.column, self.licence, self.personal, self.entity) if each]
        if len(given) != 1:
            raise InvalidInput(
                f"{len(given) or 'No'} things are asked for.",
                why="The question is about one: a source, column, licence, kind of personal data, or entity.",
                mend="Name one of them.",
            )


@dataclass(frozen=True, slots=True)
class Trained:
    """Tell that a model was trained on something: through which datasets, and where its releases answer."""

    model: str
    name: str
    label: str
    columns: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    windows: tuple[str, ...] = ()
    releases: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """Tell how far an erasure is: what the parts that are done found."""

    id: str
    column: str
    state: str
    requested_at: str
    requested_by: str
    finished_at: str | None
    found: Mapping[str, Any]


class ErasureRunning(Locked):
    """Another erasure runs in this data folder."""

    code = "erasure_running"

    @classmethod
    def now(cls) -> "ErasureRunning":
        """Say that one runs."""
        return cls(
            "An erasure runs in this data folder already.",
            why="One at a time takes rows out of the journal.",
            mend="Ask again when it is done: holdtrue data erasures",
        )
