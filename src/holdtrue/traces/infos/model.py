"""Nouns beside spans: what is known of a trace as a whole, and what was judged of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal

from holdtrue.core.errors import NotFound

NAME: Final = "mlflow.traceName"
RUN: Final = "mlflow.sourceRun"
USER: Final = "mlflow.trace.user"
SESSION: Final = "mlflow.trace.session"
PROMPTS: Final = "mlflow.linkedPrompts"

KEY_LENGTH: Final = 250
TAG_LENGTH: Final = 8000
METADATA_LENGTH: Final = 8000
PREVIEW_LENGTH: Final = 10_000
PAIRS: Final = 200
ASSESSMENTS: Final = 1000
"""How many assessments a trace may have."""

MOST_MEASURED: Final = 50_000
"""How many traces are aggregated at once."""

Kind = Literal["tag", "metadata"]


class State(StrEnum):
    """Say how a trace ended, if it did."""

    UNSPECIFIED = "STATE_UNSPECIFIED"
    OK = "OK"
    ERROR = "ERROR"
    IN_PROGRESS = "IN_PROGRESS"


@dataclass(frozen=True, slots=True)
class Assessment:
    """Hold what somebody or something judged of a trace: `value` is any JSON value.

    `body` is everything else that was said, as its protocol wrote it; `valid` is false once another overrides it.
    """

    id: str
    trace: str
    kind: str
    name: str
    value: Any
    body: Mapping[str, Any]
    created_ms: int
    updated_ms: int
    valid: bool = True


@dataclass(frozen=True, slots=True)
class TraceInfo:
    """Hold what is known of a trace as a whole; `id` are the 32 digits its spans share.

    `finalized` says that its sender stated it whole, so that spans that come later change nothing of it.
    """

    id: str
    experiment: int
    requested_ms: int
    duration_ms: int | None = None
    state: State = State.UNSPECIFIED
    request: str = ""
    response: str = ""
    client_request: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    assessments: tuple[Assessment, ...] = ()
    finalized: bool = False


@dataclass(frozen=True, slots=True)
class TraceSearch:
    """Ask for traces of experiments, as a client of the tracking protocol writes it."""

    experiments: Sequence[int] = ()
    filter: str = ""
    limit: int = 100
    order: Sequence[str] = ()
    page: str = ""


class NoTrace(NotFound):
    """No trace has this id."""

    code = "no_trace"

    @classmethod
    def named(cls, id: str) -> "NoTrace":
        """Name the id."""
        return cls(f"Trace with ID '{id[:100]}' not found.", mend="Search the traces of the experiment.")


class NoAssessment(NotFound):
    """No assessment of this trace has this id."""

    code = "no_assessment"

    @classmethod
    def named(cls, id: str) -> "NoAssessment":
        """Name the id."""
        return cls(f"Assessment with ID '{id[:100]}' not found.", mend="Look at the assessments of the trace.")
