"""Use cases of credentials: issue, renew and revoke tokens; sign browsers in and out; recognise both."""

import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from holdtrue.core.access import Role
from holdtrue.core.actor import SYSTEM, Actor
from holdtrue.core.clock import Clock
from holdtrue.core.errors import Forbidden, InvalidInput, NotFound, Unauthenticated
from holdtrue.core.ids import check_name, new_id
from holdtrue.server import store
from holdtrue.server.model import (
    SERVICE_HOURS,
    SESSION_HOURS,
    SESSION_IDLE_HOURS,
    SIGN_IN_MINUTES,
    USER_HOURS,
    Identity,
    NewToken,
    Principal,
    Session,
    Token,
    TooMany,
)
from holdtrue.server.rules import make_token, parse_token, same_secret, secret_digest
from holdtrue.storage.ledger import Ledger, Transaction, WriteContext

_ID_SIGNS = "0123456789abcdefghijklmnopqrstuvwxyz"
_SESSION_PREFIX = "hs_"
_CACHED = 1024
_FAILED_SIGN_INS_A_MINUTE = 30
_LEAST_RATE = 0.01
_MOST_RATE = 100_000.0


@dataclass(frozen=True, slots=True)
class Secret:
    """Hold a fresh token text with the id and digest under which it is kept."""

    id: str
    text: str
    digest: str


def fresh_secret(kind: str) -> Secret:
    """Make a token of 256 random bits."""
    token_id = "".join(secrets.choice(_ID_SIGNS) for _ in range(12))
    text = make_token(kind, token_id, secrets.token_bytes(32))
    return Secret(token_id, text, secret_digest(text))


def token_kind(wish: NewToken) -> str:
    """Return the kind that a token's text names: `service` for a program's, `user` for a person's."""
    return "service" if Role.SERVICE in wish.roles else "user"


def issue(tx: Transaction, wish: NewToken, secret: Secret, *, now: datetime, creator: Actor, parent: str = "") -> Token:
    """Write a token that `creator` makes and emit `token.created`.

    Raises InvalidInput for a wish that no rule allows, Forbidden for a project beyond the creator's own.
    """
    _check_wish(wish, creator)
    service = Role.SERVICE in wish.roles
    principal = _principal(tx, wish, secret.id, now, creator)
    longest = SERVICE_HOURS if service else USER_HOURS
    token = Token(
        id=secret.id,
        principal=principal,
        project=wish.project,
        roles=tuple(sorted(set(wish.roles))),
        digest=secret.digest,
        created_at=now,
        expires_at=now + timedelta(hours=wish.hours or longest),
        created_by=creator.id,
        parent=parent,
        revoked_at=None,
        environment=wish.environment,
        rate=wish.rate,
    )
    store.insert_token(tx, token)
    tx.emit(
        "token.created",
        f"token:{token.id}",
        {
            "principal": principal.id,
            "name": principal.name,
            "roles": [role.value for role in token.roles],
            "project": token.project,
            "expires_at": token.expires_at.isoformat(),
            "environment": token.environment,
            "rate": token.rate,
        },
    )
    return token


def revoke(tx: Transaction, token_id: str, *, now: datetime, within: str | None) -> list[str]:
    """Revoke a token, those made with it, and their sessions; return the ids of the tokens.

    A token outside the project `within` (None: any) is NotFound, as a missing one is.
    """
    token = store.token_by_id(tx.connection, token_id)
    if token is None or (within is not None and token.project != within):
        raise NotFound.of("token", token_id)
    ended = [token_id, *store.live_children(tx.connection, token_id)]
    store.revoke_tokens(tx, ended, now)
    closed = store.end_sessions(tx, ended, now)
    tx.emit("token.revoked", f"token:{token_id}", {"tokens": list(ended), "sessions": closed})
    return ended


def renew(tx: Transaction, token_id: str, *, now: datetime) -> Token:
    """Let a program's token live for another day, counted from now."""
    token = store.token_by_id(tx.connection, token_id)
    if token is None or token.revoked_at is not None:
        raise NotFound.of("token", token_id)
    if Role.SERVICE not in token.roles:
        raise Forbidden(
            "Only a program's token is renewed.",
            why="A person's token ends when it says it does.",
            mend="Make a new one: holdtrue token create --role ROLE --project PROJECT",
        )
    renewed = replace(token, expires_at=now + timedelta(hours=SERVICE_HOURS))
    store.extend_token(tx, token_id, renewed.expires_at)
    tx.emit("token.renewed", f"token:{token_id}", {"expires_at": renewed.expires_at.isoformat()})
    return renewed


class Identities:
    """Recognise credentials. Answers are remembered until anything about tokens or sessions changes.

    The key is the SHA-256 of the whole credential; all changes pass through this process, which forgets
    at once, so a revoked token is refused by the next request.
    """

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._known: dict[str, Identity] = {}
        self._last_seen: dict[str, datetime] = {}
        self._since = clock.now()
        self._lock = threading.Lock()
        self._generation = 0

    def forget(self) -> None:
        """Drop every remembered answer: a token or session has changed."""
        with self._lock:
            self._generation += 1
            self._known.clear()

    def remembers(self, text: str) -> bool:
        """Tell whether a credential is answered without reading the ledger."""
        with self._lock:
            return secret_digest(text) in self._known

    def of_token(self, text: str) -> Identity:
        """Return who presents a bearer token, else raise Unauthenticated."""
        return self._recognise(text, self._look_up_token)

    def of_session(self, text: str) -> Identity:
        """Return who presents a session cookie, else raise Unauthenticated; an idle hour ends it."""
        identity = self._recognise(text, self._look_up_session)
        now = self._clock.now()
        session = identity.session or ""
        with self._lock:
            # What was seen before this process started is not known: it counts as seen then.
            seen = self._last_seen.get(session, max(self._since, identity.created_at))
            if now - seen > timedelta(hours=SESSION_IDLE_HOURS):
                raise _not_recognised()
            self._last_seen[session] = now
        return identity

    def _recognise(self, text: str, look_up: Any) -> Identity:
        key = secret_digest(text)
        with self._lock:
            identity = self._known.get(key)
            generation = self._generation
        if identity is None:
            identity = self._ledger.read(lambda connection: look_up(connection, text))
            with self._lock:
                if self._generation == generation:
                    if len(self._known) >= _CACHED:
                        self._known.clear()
                    self._known[key] = identity
        if identity.expires_at <= self._clock.now():
            raise _not_recognised()
        return identity

    def _look_up_token(self, connection: sa.Connection, text: str) -> Identity:
        parts = parse_token(text)
        token = None if parts is None else store.token_by_id(connection, parts.id)
        if token is None or token.revoked_at is not None or not same_secret(text, token.digest):
            raise _not_recognised()
        return Identity(token.actor(), token.id, token.created_at, token.expires_at)

    def _look_up_session(self, connection: sa.Connection, text: str) -> Identity:
        session = store.session_by_id(connection, _session_id(text))
        if session is None or session.ended_at is not None or not same_secret(text, session.digest):
            raise _not_recognised()
        token = store.token_by_id(connection, session.token)
        if token is None or token.revoked_at is not None:
            raise _not_recognised()
        ends = min(session.expires_at, token.expires_at)
        return Identity(token.actor(), token.id, session.created_at, ends, session.id)


@dataclass(frozen=True, slots=True)
class _Pending:
    cookie: str
    until: datetime


class SignIns:
    """Hand out codes that turn a token into a browser's session, each once.

    The session is written when the code is made; following the link changes nothing that is stored. Codes
    live in memory only, so a restart voids them.
    """

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._pending: dict[str, _Pending] = {}
        self._failures: list[datetime] = []
        self._lock = threading.Lock()

    def make_code(self, actor: Actor, token_id: str) -> str:
        """Return a new code for the holder of a token; it works once, within ten minutes."""
        now = self._clock.now()
        session_id = new_id("ses", now)
        cookie = f"{_SESSION_PREFIX}{session_id}.{secrets.token_urlsafe(32)}"
        session = Session(
            id=session_id,
            token=token_id,
            digest=secret_digest(cookie),
            created_at=now,
            expires_at=now + timedelta(hours=SESSION_HOURS),
            ended_at=None,
        )

        def work(tx: Transaction) -> None:
            store.insert_session(tx, session)
            tx.emit("session.created", f"session:{session_id}", {"token": token_id})

        self._ledger.write(WriteContext(actor=actor, project=actor.project or ""), work)
        code = secrets.token_urlsafe(32)
        with self._lock:
            self._drop_old(now)
            self._pending[secret_digest(code)] = _Pending(cookie, now + timedelta(minutes=SIGN_IN_MINUTES))
        return code

    def redeem(self, code: str) -> str:
        """Return the cookie value for a code, which is void from then on; else raise Unauthenticated or
        TooMany.
        """
        now = self._clock.now()
        with self._lock:
            self._drop_old(now)
            if len(self._failures) >= _FAILED_SIGN_INS_A_MINUTE:
                raise TooMany("Too many sign-ins have failed.", mend="Wait a minute, then use a new link.")
            pending = self._pending.pop(secret_digest(code), None)
            if pending is None:
                self._failures.append(now)
        if pending is None:
            raise Unauthenticated(
                "This sign-in link does not work any more.",
                why="A link works once, and for ten minutes.",
                mend="Ask for a new one with your token: POST /api/sign-in-codes; `holdtrue up` prints one, too.",
            )
        return pending.cookie

    def _drop_old(self, now: datetime) -> None:
        self._pending = {key: each for key, each in self._pending.items() if each.until > now}
        self._failures = [moment for moment in self._failures if now - moment < timedelta(minutes=1)]


def sign_out(tx: Transaction, identity: Identity, now: datetime) -> int:
    """End every session of the token behind `identity`; return how many there were."""
    ended = store.end_sessions(tx, [identity.token], now)
    tx.emit("session.ended", f"token:{identity.token}", {"sessions": ended})
    return ended


def access_table(tokens: list[Token], version: int, permissions: Mapping[Role, frozenset[str]]) -> dict[str, Any]:
    """Return what the data plane must know of live tokens: also of those that grant nothing there.

    Whoever has one of these is told which permission it lacks, and not that it is no token.
    """
    entries: dict[str, Any] = {}
    for token in tokens:
        granted = sorted(set().union(*(permissions[role] for role in token.roles)))
        entries[token.id] = {
            "sha256": token.digest,
            "actor": token.principal.id,
            "project": token.project,
            "permissions": granted,
            "expires_at": round(token.expires_at.timestamp() * 1_000_000),
            "environment": token.environment,
            "rate": token.rate,
        }
    return {"policy_version": version, "tokens": entries}


def local_creator() -> Actor:
    """Return the actor in whose name the server makes its own tokens."""
    return replace(SYSTEM, roles=frozenset({Role.ADMIN}))


def _check_wish(wish: NewToken, creator: Actor) -> None:
    if not wish.roles:
        raise InvalidInput("A token needs a role.", mend="Name one of: " + ", ".join(role.value for role in Role))
    if Role.SERVICE in wish.roles and len(set(wish.roles)) > 1:
        raise InvalidInput("A program's token has the role service alone.", mend="Make two tokens, one for each use.")
    if creator.project is not None and wish.project != creator.project:
        raise Forbidden(
            "You may make tokens for your own project only.",
            why=f"Your token is for the project “{creator.project}”.",
            mend=f"Ask for a token with --project {creator.project}.",
        )
    longest = SERVICE_HOURS if Role.SERVICE in wish.roles else USER_HOURS
    if wish.hours is not None and not 1 <= wish.hours <= longest:
        raise InvalidInput(
            f"A token cannot live for {wish.hours} hours.",
            why=f"A program's token lives at most {SERVICE_HOURS} hours, a person's {USER_HOURS}.",
            mend=f"Ask for 1 to {longest} hours; a program renews its token.",
        )
    if wish.project is not None:
        check_name(wish.project, "project name")
    if wish.name:
        check_name(wish.name, "name")
    if wish.environment is not None:
        check_name(wish.environment, "environment name")
    if wish.rate is not None and not _LEAST_RATE <= wish.rate <= _MOST_RATE:
        raise InvalidInput(
            f"A token cannot send {wish.rate:g} requests a second.",
            mend=f"Give a rate from {_LEAST_RATE:g} to {_MOST_RATE:g}, or none.",
        )


def _principal(tx: Transaction, wish: NewToken, token_id: str, now: datetime, creator: Actor) -> Principal:
    """Return the principal the token is for, made here if its name is new.

    A program answers to the person who first made it, so nobody else can make a token in its name.
    """
    kind = "service" if Role.SERVICE in wish.roles else "human"
    owner = creator.owner if kind == "service" else ""
    name = wish.name or f"{wish.roles[0].value}-{token_id[:6]}"
    known = store.principal_named(tx.connection, kind, name)
    if known is not None:
        if known.created_by != owner:
            raise Forbidden(
                f"The program “{name}” belongs to somebody else.",
                why="What it does is counted as done by the person who made it.",
                mend="Choose another name.",
            )
        return known
    principal = Principal(new_id("svc" if kind == "service" else "usr", now), kind, name, owner, now)
    store.insert_principal(tx, principal)
    return principal


def _session_id(cookie: str) -> str:
    return cookie.removeprefix(_SESSION_PREFIX).partition(".")[0]


def _not_recognised() -> Unauthenticated:
    return Unauthenticated(
        "Your token or session is not valid.",
        why="It is unknown, has expired or was revoked.",
        mend="Set HOLDTRUE_TOKEN to a valid token, or sign in again with a new link.",
    )
