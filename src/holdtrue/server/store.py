"""All SQL of this room: principals, tokens, sessions, and which projects exist."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from holdtrue.core.access import Role
from holdtrue.server.model import Principal, Session, Token
from holdtrue.storage.ledger import Timestamp, Transaction, metadata, project_table

principals = project_table(
    "principals",
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Index(None, "kind", "name", unique=True),
)

# A token of every project, and each principal and session, has the empty project: the whole house.
tokens = project_table(
    "tokens",
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("principal", sa.Text, nullable=False),
    sa.Column("roles", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("expires_at", Timestamp, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("parent", sa.Text, nullable=False),
    sa.Column("revoked_at", Timestamp, nullable=True),
    sa.Column("environment", sa.Text, nullable=True),
    sa.Column("rate", sa.Float, nullable=True),
    sa.Index(None, "id", unique=True),
    sa.Index(None, "parent"),
)

sessions = project_table(
    "sessions",
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("token", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("expires_at", Timestamp, nullable=False),
    sa.Column("ended_at", Timestamp, nullable=True),
)


def insert_principal(tx: Transaction, principal: Principal) -> None:
    """Add a principal."""
    tx.execute(
        principals.insert().values(
            project="",
            id=principal.id,
            kind=principal.kind,
            name=principal.name,
            created_by=principal.created_by,
            created_at=principal.created_at,
        )
    )


def principal_named(connection: sa.Connection, kind: str, name: str) -> Principal | None:
    """Return the principal of that kind and name."""
    row = connection.execute(
        sa.select(principals).where(principals.c.kind == kind, principals.c.name == name)
    ).one_or_none()
    return None if row is None else _principal(row)


def insert_token(tx: Transaction, token: Token) -> None:
    """Add a token."""
    tx.execute(
        tokens.insert().values(
            project=token.project or "",
            id=token.id,
            principal=token.principal.id,
            roles=",".join(role.value for role in token.roles),
            digest=token.digest,
            created_at=token.created_at,
            expires_at=token.expires_at,
            created_by=token.created_by,
            parent=token.parent,
            revoked_at=None,
            environment=token.environment,
            rate=token.rate,
        )
    )


def token_by_id(connection: sa.Connection, token_id: str) -> Token | None:
    """Return a token, revoked and expired ones too."""
    row = connection.execute(_TOKENS.where(tokens.c.id == token_id)).one_or_none()
    return None if row is None else _token(row)


def list_tokens(connection: sa.Connection, project: str | None) -> list[Token]:
    """Return the tokens of one project, or (None) all of them, oldest first."""
    query = _TOKENS.order_by(tokens.c.created_at, tokens.c.id)
    if project is not None:
        query = query.where(tokens.c.project == project)
    return [_token(row) for row in connection.execute(query)]


def live_tokens(connection: sa.Connection, now: datetime) -> list[Token]:
    """Return every token that is neither revoked nor expired."""
    query = _TOKENS.where(tokens.c.revoked_at.is_(None), tokens.c.expires_at > now).order_by(tokens.c.id)
    return [_token(row) for row in connection.execute(query)]


def revoke_tokens(tx: Transaction, token_ids: list[str], now: datetime) -> None:
    """Mark tokens as revoked."""
    tx.execute(tokens.update().where(tokens.c.id.in_(token_ids)).values(revoked_at=now))


def extend_token(tx: Transaction, token_id: str, expires_at: datetime) -> None:
    """Move the end of a token's life."""
    tx.execute(tokens.update().where(tokens.c.id == token_id).values(expires_at=expires_at))


def live_children(connection: sa.Connection, token_id: str) -> list[str]:
    """Return the ids of unrevoked tokens made with a token, with those made with them, and so on."""
    found: list[str] = []
    parents = [token_id]
    while parents:
        rows = connection.execute(
            sa.select(tokens.c.id).where(tokens.c.parent.in_(parents), tokens.c.revoked_at.is_(None))
        )
        parents = [row.id for row in rows if row.id not in found]
        found += parents
    return found


def projects(connection: sa.Connection) -> list[str]:
    """Return the name of every project in which something ever happened, in order."""
    found: list[str] = []
    # One step along the index for each project, however many events it has.
    while (name := _next_project(connection, found[-1] if found else "")) is not None:
        found.append(name)
    return found


def _next_project(connection: sa.Connection, after: str) -> str | None:
    project = metadata.tables["events"].c.project
    return connection.execute(sa.select(sa.func.min(project)).where(project > after)).scalar_one()


def insert_session(tx: Transaction, session: Session) -> None:
    """Add a session."""
    tx.execute(
        sessions.insert().values(
            project="",
            id=session.id,
            token=session.token,
            digest=session.digest,
            created_at=session.created_at,
            expires_at=session.expires_at,
            ended_at=None,
        )
    )


def session_by_id(connection: sa.Connection, session_id: str) -> Session | None:
    """Return a session, ended and expired ones too."""
    row = connection.execute(sa.select(sessions).where(sessions.c.id == session_id)).one_or_none()
    if row is None:
        return None
    return Session(row.id, row.token, row.digest, row.created_at, row.expires_at, row.ended_at)


def end_sessions(tx: Transaction, token_ids: list[str], now: datetime) -> int:
    """End every open session made from these tokens; return how many there were."""
    result = tx.execute(
        sessions.update().where(sessions.c.token.in_(token_ids), sessions.c.ended_at.is_(None)).values(ended_at=now)
    )
    return int(result.rowcount)


_TOKENS = sa.select(
    tokens,
    principals.c.id.label("p_id"),
    principals.c.kind.label("p_kind"),
    principals.c.name.label("p_name"),
    principals.c.created_by.label("p_created_by"),
    principals.c.created_at.label("p_created_at"),
).join(principals, principals.c.id == tokens.c.principal)


def _principal(row: sa.Row[Any]) -> Principal:
    return Principal(row.id, row.kind, row.name, row.created_by, row.created_at)


def _token(row: sa.Row[Any]) -> Token:
    return Token(
        id=row.id,
        principal=Principal(row.p_id, row.p_kind, row.p_name, row.p_created_by, row.p_created_at),
        project=row.project or None,
        roles=tuple(Role(name) for name in row.roles.split(",")),
        digest=row.digest,
        created_at=row.created_at,
        expires_at=row.expires_at,
        created_by=row.created_by,
        parent=row.parent,
        revoked_at=row.revoked_at,
        environment=row.environment,
        rate=row.rate,
    )
