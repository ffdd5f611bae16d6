"""Errors that say what went wrong, why, and how to mend it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final, Self

_LOOK_UP: Final[Mapping[str, str]] = MappingProxyType(
    {
        **{
            kind: f"Use one that `holdtrue {kind}s` lists."
            for kind in ("dataset", "release", "decision", "rollout", "quarantine", "incident", "job")
        },
        "token": "Use one that `holdtrue token list` lists.",
        "service": "Use one that `holdtrue status` shows.",
        "deployment": "Use a service that `holdtrue status` shows, in an environment that it is in.",
        "model": "Use the name of a model that the project file declares.",
        "prediction": "Its id comes with each answer, under `parameters.prediction_ids`.",
        "retrain declaration": "Declare it in the project file: project.retrain(…), then `holdtrue apply`.",
    }
)


class HoldtrueError(Exception):
    """Carry a user-facing failure: what happened, why, and how to mend it.

    `code` is stable and documented; `status` is the HTTP status; `exit_code` is what a command ends with.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, why: str = "", mend: str = "", facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.mend = mend
        self.facts: dict[str, Any] = dict(facts or {})

    def __str__(self) -> str:
        parts = [self.what]
        if self.why:
            parts.append(f"Why: {self.why}")
        if self.mend:
            parts.append(f"To mend it: {self.mend}")
        return "\n".join(parts)

    @property
    def line(self) -> str:
        """Return what, why and mend as one line."""
        return " ".join(filter(None, (self.what, self.why, self.mend)))

    def to_json(self) -> dict[str, Any]:
        """Return the one JSON shape in which every door reports an error."""
        return {
            "error": {
                "code": self.code,
                "what": self.what,
                "why": self.why,
                "mend": self.mend,
                "facts": self.facts,
            }
        }


class InvalidInput(HoldtrueError):
    """A value that a caller sent cannot be accepted."""

    code = "invalid_input"
    status = 400


class ConfigurationError(HoldtrueError):
    """A setting or definition is unknown or has a value that cannot be used."""

    code = "configuration"
    status = 400
    exit_code = 2


class Unauthenticated(HoldtrueError):
    """No valid credential came with the request."""

    code = "unauthenticated"
    status = 401


class Forbidden(HoldtrueError):
    """The caller is known and may not do this."""

    code = "forbidden"
    status = 403


class NotFound(HoldtrueError):
    """Nothing of that name or id exists in this project."""

    code = "not_found"
    status = 404

    @classmethod
    def of(cls, kind: str, name: str) -> Self:
        """Say that there is no `kind` called `name`."""
        return cls(
            f"There is no {kind} “{name}” in this project.",
            mend=_LOOK_UP.get(kind, "Check how it is written: names and ids are compared letter by letter."),
            facts={"kind": kind, "name": name},
        )


class Conflict(HoldtrueError):
    """The request contradicts the present state."""

    code = "conflict"
    status = 409


class StateError(Conflict):
    """A state machine was asked for a move its table does not allow."""

    code = "state"

    @classmethod
    def of(cls, machine: str, current: str, wanted: str) -> Self:
        """Name the machine, the state it is in and the state that was asked for."""
        return cls(
            f"A {machine} that is {current} cannot become {wanted}.",
            why=f"The table of allowed moves of a {machine} has no such move.",
            mend="Look at its present state with `holdtrue status` and choose a move from there.",
            facts={"machine": machine, "current": current, "wanted": wanted},
        )


class TooLarge(HoldtrueError):
    """A body, tensor or batch is over its limit."""

    code = "too_large"
    status = 413


class IdempotencyMismatch(HoldtrueError):
    """An idempotency key came again with another request."""

    code = "idempotency_mismatch"
    status = 422


class Locked(HoldtrueError):
    """Another process holds the data folder."""

    code = "locked"
    status = 423


class Unavailable(HoldtrueError):
    """The service cannot take this work now; the same request may succeed later."""

    code = "unavailable"
    status = 503


class StorageFull(HoldtrueError):
    """The disk has no room; nothing that was acknowledged is lost."""

    code = "storage_full"
    status = 507


class Corrupt(HoldtrueError):
    """Stored bytes are not what was written."""

    code = "corrupt"
    status = 500


class NewerSchema(HoldtrueError):
    """The database was written by a newer version of Holdtrue."""

    code = "newer_schema"
    status = 500


class MissingExtra(HoldtrueError):
    """An optional dependency is not installed."""

    code = "missing_extra"
    status = 501

    @classmethod
    def of(cls, extra: str, package: str) -> Self:
        """Name the missing package and the exact install command."""
        return cls(
            f"This needs the package “{package}”, which is not installed.",
            why=f"It belongs to the optional extra “{extra}”.",
            mend=f"pip install 'holdtrue[{extra}]'",
            facts={"extra": extra, "package": package},
        )
