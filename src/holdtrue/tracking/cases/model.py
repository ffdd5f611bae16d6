"""Nouns of evaluation datasets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from holdtrue.core.errors import NotFound
from holdtrue.tracking.model import Pair

NAME_LENGTH: Final = 255
RECORDS_PER_REQUEST: Final = 10_000
RECORD_LENGTH: Final = 1_000_000
"""How many bytes of JSON one record may have."""

RECORDS_AT_ONCE: Final = 100
"""How many records are looked through at once; they may have a megabyte each."""

Place = tuple[str, int]
"""A place among all records of a project: a dataset's id, and the number of a record in it."""

START: Final[Place] = ("", 0)

USER: Final = "mlflow.user"
"""The tag that says who wrote a dataset or a record."""


@dataclass(frozen=True, slots=True)
class CaseSet:
    """Hold an evaluation dataset without its records; `schema` maps the fields seen to their types."""

    id: str
    name: str
    digest: str
    schema: Mapping[str, Any] | None
    count: int
    created_ms: int
    updated_ms: int
    created_by: str
    updated_by: str
    tags: tuple[Pair, ...] = ()
    experiments: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """Hold one case; of a dataset no two have the same inputs. `number` is its place in the order of coming."""

    id: str
    number: int
    inputs_hash: str
    inputs: Mapping[str, Any]
    outputs: Any
    expectations: Mapping[str, Any] | None
    created_ms: int
    updated_ms: int
    created_by: str
    updated_by: str
    tags: Mapping[str, Any] = field(default_factory=dict[str, Any])
    source: Mapping[str, Any] | None = None


class NoCaseSet(NotFound):
    """No evaluation dataset has this id."""

    code = "no_evaluation_dataset"

    @classmethod
    def of_id(cls, id: str) -> "NoCaseSet":
        """Name what is missing."""
        return cls(f"Evaluation dataset with id '{id[:200]}' not found.", mend="Search the evaluation datasets.")
