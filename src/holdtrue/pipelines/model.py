"""Jobs: work that a worker leases, does and reports."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from holdtrue.core.errors import Conflict, StateError


class JobState(StrEnum):
    """Name where a job stands."""

    QUEUED = "queued"
    LEASED = "leased"
    DONE = "done"
    DEAD = "dead"


JOB_MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.LEASED, JobState.DEAD}),
    # A lease that ran out, or an attempt that failed, puts a job back.
    JobState.LEASED: frozenset({JobState.QUEUED, JobState.DONE, JobState.DEAD}),
    JobState.DONE: frozenset(),
    JobState.DEAD: frozenset({JobState.QUEUED}),
}
MAX_ATTEMPTS = 3
LEASE_SECONDS = 300.0


class LostLease(Conflict):
    """A worker reports on a job that was given to another one meanwhile."""

    code = "lost_lease"


@dataclass(frozen=True, slots=True)
class Job:
    """Hold one job; `fence` grows with each lease, so that a late report of an old one is refused.

    `number` counts the project's jobs in the order in which they were asked for.
    """

    id: str
    project: str
    number: int
    kind: str
    payload: Any
    state: JobState
    unique_key: str
    attempts: int
    fence: int
    worker: str | None
    lease_until: datetime | None
    result: Any
    reason: str
    requested_by: str
    created_at: datetime
    updated_at: datetime

    def check_move(self, wanted: JobState) -> None:
        """Raise StateError unless the table of moves has this one."""
        if wanted not in JOB_MOVES[self.state]:
            raise StateError.of("job", self.state.value, wanted.value)


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Say which jobs are wanted: of a state, of a kind, and before a number; newest first."""

    state: JobState | None = None
    kind: str | None = None
    before: int | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class NewJob:
    """Ask for a job; a second one with the same unique key, while the first is open, is the first."""

    kind: str
    payload: dict[str, Any]
    unique_key: str = ""


@dataclass(frozen=True, slots=True)
class Lease:
    """Ask for the next job of certain kinds (none: of any)."""

    worker: str
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobReport:
    """Report on a leased job: its fence, and its result or the reason of its failure."""

    fence: int
    result: Any = None
    reason: str = ""
    final: bool = False
