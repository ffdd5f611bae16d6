"""All SQL of the catalog."""

import json
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from holdtrue.catalog.model import Alias, Edge, Manifest, Node, Release, Version, VersionFilter
from holdtrue.core.codec import load
from holdtrue.storage.ledger import Timestamp, project_table, scoped

# The same content may carry several names, each with its own count, hence the name in the key.
versions = project_table(
    "versions",
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("blobs", sa.JSON, nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.UniqueConstraint("project", "kind", "name", "number"),
)

aliases = project_table(
    "aliases",
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("updated_at", Timestamp, nullable=False),
    sa.Column("updated_by", sa.Text, nullable=False),
)

edges = project_table(
    "edges",
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("relation", sa.Text, primary_key=True),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Index(None, "project", "target"),
)

releases = project_table(
    "releases",
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("service", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("manifest", sa.Text, nullable=False),
    sa.Column("created_at", Timestamp, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("run", sa.Text),
    sa.UniqueConstraint("project", "number"),
    sa.Index(None, "project", "service", "number"),
)


def insert_version(connection: sa.Connection, version: Version, digest: str, text: str) -> None:
    """Insert a version with the digest and the canonical text of its content."""
    connection.execute(
        sa.insert(versions).values(
            project=version.project,
            id=version.id,
            name=version.name,
            kind=version.kind,
            number=version.number,
            digest=digest,
            content=text,
            blobs=list(version.blobs),
            created_at=version.created_at,
            created_by=version.created_by,
        )
    )


def digest_of(connection: sa.Connection, project: str, id: str) -> str | None:
    """Return the full content digest behind a version id, if it is taken."""
    query = sa.select(versions.c.digest).where(versions.c.project == project, versions.c.id == id)
    return connection.execute(query.limit(1)).scalar()


def version_by_id(connection: sa.Connection, project: str, id: str, name: str | None = None) -> Version | None:
    """Return a version by id, under its first name unless another `name` is asked for."""
    query = scoped(versions, project).where(versions.c.id == id)
    if name is not None:
        query = query.where(versions.c.name == name)
    row = connection.execute(query.order_by(versions.c.created_at, versions.c.name).limit(1)).first()
    return None if row is None else _version(row)


def version_by_number(
    connection: sa.Connection, project: str, kind: str, name: str, number: int | None
) -> Version | None:
    """Return the version with this number, or the newest one for None."""
    query = scoped(versions, project).where(versions.c.kind == kind, versions.c.name == name)
    if number is not None:
        query = query.where(versions.c.number == number)
    row = connection.execute(query.order_by(versions.c.number.desc()).limit(1)).first()
    return None if row is None else _version(row)


def next_number(connection: sa.Connection, project: str, kind: str, name: str) -> int:
    """Return the number that the next version of this kind and name gets."""
    query = sa.select(sa.func.max(versions.c.number)).where(
        versions.c.project == project, versions.c.kind == kind, versions.c.name == name
    )
    return (connection.execute(query).scalar() or 0) + 1


def select_aliased(connection: sa.Connection, kind: str) -> list[tuple[str, str, Version]]:
    """Return (project, alias, version) of every alias of a kind, in all projects."""
    joined = sa.and_(
        aliases.c.project == versions.c.project,
        aliases.c.version == versions.c.id,
        aliases.c.name == versions.c.name,
    )
    query = (
        sa.select(versions, aliases.c.alias)
        .join(aliases, joined)
        .where(aliases.c.kind == kind)
        .order_by(versions.c.project, versions.c.name, aliases.c.alias)
    )
    return [(row.project, row.alias, _version(row)) for row in connection.execute(query)]


def select_versions(connection: sa.Connection, project: str, chosen: VersionFilter) -> list[Version]:
    """Return versions by kind and name, the newest of each name first."""
    query = scoped(versions, project)
    if chosen.kind is not None:
        query = query.where(versions.c.kind == chosen.kind)
    if chosen.name is not None:
        query = query.where(versions.c.name == chosen.name)
    if chosen.after is not None:
        kind, name, number = chosen.after.split("/")
        query = query.where(
            sa.tuple_(versions.c.kind, versions.c.name, -versions.c.number)
            > sa.tuple_(sa.literal(kind), sa.literal(name), sa.literal(-int(number)))
        )
    query = query.order_by(versions.c.kind, versions.c.name, versions.c.number.desc()).limit(chosen.limit)
    return [_version(row) for row in connection.execute(query)]


def names(connection: sa.Connection, project: str, kind: str) -> list[str]:
    """Return the names that versions of one kind have, in order."""
    query = scoped(versions, project).where(versions.c.kind == kind).with_only_columns(versions.c.name)
    return [row.name for row in connection.execute(query.distinct().order_by(versions.c.name))]


def projects(connection: sa.Connection, kind: str) -> list[str]:
    """Return the projects that have versions of one kind, in order."""
    query = sa.select(versions.c.project).where(versions.c.kind == kind).distinct().order_by(versions.c.project)
    return [row.project for row in connection.execute(query)]


def put_alias(connection: sa.Connection, project: str, alias: Alias) -> None:
    """Point an alias to a version, wherever it pointed before."""
    mine = _alias_key(project, alias.kind, alias.name, alias.alias)
    connection.execute(sa.delete(aliases).where(mine))
    connection.execute(
        sa.insert(aliases).values(
            project=project,
            kind=alias.kind,
            name=alias.name,
            alias=alias.alias,
            version=alias.version,
            updated_at=alias.updated_at,
            updated_by=alias.updated_by,
        )
    )


def alias_target(connection: sa.Connection, project: str, kind: str, name: str, alias: str) -> str | None:
    """Return the id of the version an alias points to."""
    query = sa.select(aliases.c.version).where(_alias_key(project, kind, name, alias))
    return connection.execute(query).scalar()


def select_aliases(connection: sa.Connection, project: str, kind: str, name: str) -> list[Alias]:
    """Return all aliases of one name."""
    query = scoped(aliases, project).where(aliases.c.kind == kind, aliases.c.name == name)
    return [
        Alias(row.kind, row.name, row.alias, row.version, row.updated_at, row.updated_by)
        for row in connection.execute(query.order_by(aliases.c.alias))
    ]


def insert_edge(connection: sa.Connection, project: str, edge: Edge, now: Any) -> bool:
    """Insert an edge; tell whether it is new."""
    same = (
        (edges.c.project == project)
        & (edges.c.source == edge.source)
        & (edges.c.target == edge.target)
        & (edges.c.relation == edge.relation)
    )
    if connection.execute(sa.select(edges.c.source).where(same)).first() is not None:
        return False
    connection.execute(
        sa.insert(edges).values(
            project=project, source=edge.source, target=edge.target, relation=edge.relation, created_at=now
        )
    )
    return True


def edges_at(
    connection: sa.Connection, project: str, ids: Collection[str], *, upstream: bool, limit: int
) -> list[Edge]:
    """Return the edges that end (`upstream`) or begin at any of `ids`."""
    end = edges.c.target if upstream else edges.c.source
    query = (
        scoped(edges, project)
        .where(end.in_(sorted(ids)))
        .order_by(edges.c.source, edges.c.target, edges.c.relation)
        .limit(limit)
    )
    return [Edge(row.source, row.target, row.relation) for row in connection.execute(query)]


def known_nodes(connection: sa.Connection, project: str, ids: Collection[str]) -> dict[str, Node]:
    """Return those of `ids` that are versions or releases, described."""
    found: dict[str, Node] = {}
    columns = (versions.c.id, versions.c.kind, versions.c.name, versions.c.number)
    query = sa.select(*columns).where(versions.c.project == project, versions.c.id.in_(sorted(ids)))
    for row in connection.execute(query.order_by(versions.c.created_at.desc(), versions.c.name.desc())):
        found[row.id] = Node(row.id, row.kind, row.name, row.number)
    pinned = sa.select(releases.c.id, releases.c.service, releases.c.number)
    for row in connection.execute(pinned.where(releases.c.project == project, releases.c.id.in_(sorted(ids)))):
        found[row.id] = Node(row.id, "release", row.service, row.number)
    return found


def insert_release(connection: sa.Connection, release: Release, number: int, digest: str, text: str) -> None:
    """Insert a release with the digest and the canonical text of its manifest."""
    connection.execute(
        sa.insert(releases).values(
            project=release.project,
            id=release.id,
            number=number,
            service=release.service,
            digest=digest,
            manifest=text,
            created_at=release.created_at,
            created_by=release.created_by,
            run=release.run,
        )
    )


def next_release_number(connection: sa.Connection, project: str) -> int:
    """Return the number of the project's next release."""
    query = sa.select(sa.func.max(releases.c.number)).where(releases.c.project == project)
    return (connection.execute(query).scalar() or 0) + 1


def release_digest(connection: sa.Connection, project: str, id: str) -> str | None:
    """Return the full digest of the manifest behind a release id, if it is taken."""
    query = sa.select(releases.c.digest).where(releases.c.project == project, releases.c.id == id)
    return connection.execute(query).scalar()


def release_by_id(connection: sa.Connection, project: str, id: str) -> Release | None:
    """Return a release by id."""
    row = connection.execute(scoped(releases, project).where(releases.c.id == id)).first()
    return None if row is None else _release(row)


def select_releases(
    connection: sa.Connection, project: str, service: str | None, limit: int, after: str | None
) -> list[Release]:
    """Return releases, the newest first, beginning after the release `after`."""
    query = scoped(releases, project)
    if service is not None:
        query = query.where(releases.c.service == service)
    if after is not None:
        last = sa.select(releases.c.number).where(releases.c.project == project, releases.c.id == after)
        query = query.where(releases.c.number < last.scalar_subquery())
    return [_release(row) for row in connection.execute(query.order_by(releases.c.number.desc()).limit(limit))]


def _alias_key(project: str, kind: str, name: str, alias: str) -> sa.ColumnElement[bool]:
    return sa.and_(
        aliases.c.project == project,
        aliases.c.kind == kind,
        aliases.c.name == name,
        aliases.c.alias == alias,
    )


def _version(row: sa.Row[Any]) -> Version:
    blobs: Sequence[str] = row.blobs
    return Version(
        id=row.id,
        project=row.project,
        kind=row.kind,
        name=row.name,
        number=row.number,
        content=json.loads(row.content),
        blobs=tuple(blobs),
        created_at=row.created_at,
        created_by=row.created_by,
    )


def _release(row: sa.Row[Any]) -> Release:
    return Release(
        id=row.id,
        project=row.project,
        service=row.service,
        manifest=load(Manifest, json.loads(row.manifest), "Manifest"),
        created_at=row.created_at,
        created_by=row.created_by,
        run=row.run,
    )
