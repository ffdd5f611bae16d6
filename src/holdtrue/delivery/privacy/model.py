"""What is asked about sources, columns and entities, and what was found, as frozen values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdtrue.core.errors import HoldtrueError, InvalidInput, Locked, Unavailable


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
    """Tell how far an erasure is: what the parts that are done found, and which remain."""

    id: str
    column: str
    state: str
    requested_at: str
    requested_by: str
    finished_at: str | None
    found: Mapping[str, Any]
    remaining: tuple[str, ...] = ()


class ErasureWaits(Unavailable):
    """An erasure cannot go on, because something that holds the entity cannot be reached."""

    code = "erasure_waits"

    @classmethod
    def online(cls, id: str, error: HoldtrueError, done: Sequence[str], remaining: Sequence[str]) -> "ErasureWaits":
        """Say that the online store is away, and what is done and not done."""
        return cls(
            f"The erasure {id} is not done: the online store cannot be reached, and may hold the entity.",
            why=f"{error.what} {error.why} Done: {', '.join(done) or 'nothing'}. Not done: {', '.join(remaining)}.",
            mend="Start the server of the setting “online_store”, then give the same command again: it goes on there. "
            "`holdtrue data erasures` lists what is open.",
            facts={"erasure": id, "done": list(done), "remaining": list(remaining)},
        )


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
