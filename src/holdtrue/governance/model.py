"""Nouns of governance: evidence, policies, findings, approvals, decisions."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from holdtrue.core.errors import ConfigurationError, Conflict, Forbidden, InvalidInput

APPROVAL_LIFE: Final = timedelta(days=7)
EVIDENCE_BYTES: Final = 262_144

EVIDENCE_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "evaluation": ("metric", "baseline", "slices"),
        "metric": ("metric",),
        "baseline": ("baseline",),
        "slices": ("slices",),
        "comparison": ("comparison",),
        "parity": ("parity",),
        "performance": ("performance",),
        "coverage": ("coverage",),
        "contract": ("contract",),
        "data": ("data",),
        "replay": ("replay",),
        "usefulness": ("usefulness",),
        "answers": ("answers",),
        "retrieval": ("retrieval",),
        "guardrails": ("guardrails",),
        "cost": ("cost",),
        "scan": ("scan",),
        "privacy": ("privacy",),
    }
)
"""The kinds of evidence, and the names by which a policy's rules know their content.

An evaluation is metric, baseline and slices in one; where both are there, the single one counts.
"""

COMPUTED: Final = frozenset({"privacy"})
"""The kinds that are computed from lineage when a release comes in, and that nobody may state."""

FACTS = "release"
"""The name by which rules know facts about the release itself: `release.first`, `release.champion`."""


class Outcome(StrEnum):
    """Say what a gate decided."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    WAITING = "waiting_approval"


@dataclass(frozen=True, slots=True)
class Rule:
    """Name a condition in CEL over evidence."""

    name: str
    expression: str


@dataclass(frozen=True, slots=True)
class Freeze:
    """Close an environment to changes from `begin` until before `end`, for a reason."""

    begin: datetime
    end: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class ChangeWindow:
    """Open an environment to changes on `days` (“mon” to “sun”) from `begin` until before `end` o'clock of a zone."""

    days: tuple[str, ...]
    begin: float
    end: float
    zone: str = "UTC"


@dataclass(frozen=True, slots=True)
class Policy:
    """State what a release must show, who must approve it, and when, before it enters an environment.

    With `windows`, changes are made in them only; `freezes` close it whatever the windows say.
    """

    environment: str
    rules: tuple[Rule, ...] = ()
    approvals: int = 1
    freezes: tuple[Freeze, ...] = ()
    windows: tuple[ChangeWindow, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """Tell how one rule came out: the values it saw, why, and what would mend a failure."""

    rule: str
    expression: str
    passed: bool
    why: str
    values: Any
    mend: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """Hold one measurement about a release or a version."""

    id: str
    kind: str
    subject: str
    content: Any
    run: str | None
    created_at: datetime
    created_by: str


@dataclass(frozen=True, slots=True)
class Approval:
    """Tell who approved which release, by its digest, for which environment, and until when."""

    id: str
    release: str
    digest: str
    environment: str
    person: str
    name: str
    reason: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Decision:
    """Hold what a gate decided of a release, and everything the decision rests on.

    `policy` is the policy's version id; `evidence` and `approvals` are ids; `release_digest` is the hash
    of the whole manifest and `digest` the hash of all that was decided on.
    """

    id: str
    number: int
    release: str
    release_digest: str
    service: str
    environment: str
    outcome: Outcome
    findings: tuple[Finding, ...]
    policy: str
    evidence: tuple[str, ...]
    approvals: tuple[str, ...]
    approvals_needed: int
    digest: str
    created_at: datetime
    created_by: str


class BadRule(ConfigurationError):
    """A rule of a policy cannot be used."""

    code = "bad_rule"


class BadEvidence(InvalidInput):
    """Evidence is of an unknown kind or too large."""

    code = "bad_evidence"


class NoPolicy(Conflict):
    """No policy says what a release must show in an environment."""

    code = "no_policy"

    @classmethod
    def of(cls, environment: str) -> "NoPolicy":
        """Name the environment without a policy."""
        return cls(
            f"No policy is declared for the environment “{environment}”.",
            why="Without rules nothing can be allowed.",
            mend=f'Declare project.gate("{environment}", …) in the project file, then run `holdtrue apply`.',
            facts={"environment": environment},
        )


class ChangeFrozen(Conflict):
    """An environment is closed to changes now."""

    code = "change_frozen"

    @classmethod
    def of(cls, environment: str, why: str, until: datetime | None) -> "ChangeFrozen":
        """Name the environment, why it is closed, and until when."""
        opens = "" if until is None else f" It opens at {until.isoformat(timespec='minutes')}."
        return cls(
            f"Nothing may be changed in {environment} now.",
            why=f"{why}.{opens}",
            mend="Wait until then, or change the calendar in the project file and apply it, which is recorded. "
            "Going back is always possible: holdtrue rollback",
            facts={"environment": environment, "until": None if until is None else until.isoformat()},
        )


class NotSeparate(Forbidden):
    """Somebody tried to approve their own work."""

    code = "separation_of_duties"


class NotApprovable(Conflict):
    """An approval would change nothing, or would stand in for missing evidence."""

    code = "not_approvable"


class NotAllowed(Conflict):
    """The gate does not let a release through."""

    code = "gate_refused"

    @classmethod
    def of(cls, decision: Decision) -> "NotAllowed":
        """Name what the gate found, or who is still missing."""
        failed = [finding for finding in decision.findings if not finding.passed]
        if failed:
            why = " ".join(f"{finding.rule}: {finding.why}" for finding in failed)
            mend = failed[0].mend
        else:
            have, need = len(decision.approvals), decision.approvals_needed
            why = f"It has {have} of the {need} approvals that the policy asks for."
            mend = (
                f"Somebody who did not make it runs "
                f"`holdtrue approve {decision.release} --environment {decision.environment}`."
            )
        return cls(
            f"The release {decision.release} may not enter {decision.environment}.",
            why=why,
            mend=mend,
            facts={
                "decision": decision.id,
                "outcome": decision.outcome.value,
                "failed": [finding.rule for finding in failed],
            },
        )
