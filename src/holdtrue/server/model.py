"""Who is known here: principals, their tokens and sessions, and the identity a request has."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from holdtrue.core.access import Role
from holdtrue.core.actor import Actor
from holdtrue.core.errors import HoldtrueError

TokenKind = Literal["user", "service"]

USER_HOURS = 90 * 24
SERVICE_HOURS = 24
SESSION_HOURS = 8
SESSION_IDLE_HOURS = 1
SIGN_IN_MINUTES = 10

# Whoever may read the data folder of a laptop is its owner; approving stays somebody else's.
OWNER_ROLES = (Role.ADMIN, Role.DEVELOPER, Role.OPERATOR)


@dataclass(frozen=True, slots=True)
class Principal:
    """Name a person or a program; `created_by` is the person who answers for a program, else empty."""

    id: str
    kind: Literal["human", "service"]
    name: str
    created_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Token:
    """Hold what is kept of a token; its text is never stored. `project` None covers every project.

    On the data plane it asks only of its `environment`, and at most `rate` requests a second; None: any.
    """

    id: str
    principal: Principal
    project: str | None
    roles: tuple[Role, ...]
    digest: str
    created_at: datetime
    expires_at: datetime
    created_by: str
    parent: str
    revoked_at: datetime | None
    environment: str | None = None
    rate: float | None = None

    def actor(self) -> Actor:
        """Return the actor who presents this token."""
        return Actor(
            id=self.principal.id,
            kind=self.principal.kind,
            name=self.principal.name,
            roles=frozenset(self.roles),
            project=self.project,
            created_by=self.principal.created_by or None,
        )

    def to_json(self) -> dict[str, Any]:
        """Return what a listing may show."""
        return {
            "id": self.id,
            "principal": self.principal.id,
            "name": self.principal.name,
            "kind": self.principal.kind,
            "project": self.project,
            "roles": [role.value for role in self.roles],
            "created_at": self.created_at,
            "created_by": self.created_by,
            "expires_at": self.expires_at,
            "revoked_at": self.revoked_at,
            "environment": self.environment,
            "rate": self.rate,
        }


@dataclass(frozen=True, slots=True)
class Session:
    """Hold a browser's session, which lives no longer than the token it was made from."""

    id: str
    token: str
    digest: str
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Identity:
    """Say who sends a request, since when and until when that holds, and by which token and session."""

    actor: Actor
    token: str
    created_at: datetime
    expires_at: datetime
    session: str | None = None


@dataclass(frozen=True, slots=True)
class NewToken:
    """Ask for a token: one role or several, one project or (None) every one.

    `name` is the person or program that will hold it; the role service makes a program's token. On the data plane
    it asks only of `environment` (None: any), and sends at most `rate` requests a second (None: any number).
    """

    roles: tuple[Role, ...]
    project: str | None = None
    name: str = ""
    hours: int | None = None
    environment: str | None = None
    rate: float | None = None


class TooMany(HoldtrueError):
    """The caller sends more than the server takes from one caller."""

    code = "too_many_requests"
    status = 429


class Misdirected(HoldtrueError):
    """The request is addressed to a host this server does not answer for."""

    code = "misdirected"
    status = 421


class UnsupportedMedia(HoldtrueError):
    """The body is of a type or encoding this route does not take."""

    code = "unsupported_media_type"
    status = 415


class MethodNotAllowed(HoldtrueError):
    """The address exists and does not take this method."""

    code = "method_not_allowed"
    status = 405


class NotServed(HoldtrueError):
    """The protocol has this address, and this server does not serve it."""

    code = "not_served"
    status = 501

    @classmethod
    def of(cls, what: str) -> "NotServed":
        """Name what is not served."""
        return cls(
            f"This server does not serve {what}.",
            why="Of this protocol it serves what training and serving code calls.",
            mend="Leave the call out; docs/guide/tracking.md says what is served, and what takes its place here.",
        )


class HeadersTooLarge(HoldtrueError):
    """The request's headers are over their limit."""

    code = "headers_too_large"
    status = 431


class PortInUse(HoldtrueError):
    """Another program listens on a port this server needs."""

    code = "port_in_use"
    status = 503
    exit_code = 3


class ServerFailed(HoldtrueError):
    """A process of this server ended before it answered."""

    code = "server_failed"
    status = 503
