"""Use cases of the catalog: register, find, name, link, release, compare."""

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from holdtrue.catalog import store
from holdtrue.catalog.model import (
    Alias,
    Change,
    Direction,
    Edge,
    Graph,
    IdTaken,
    Manifest,
    Node,
    Relation,
    Release,
    Version,
    VersionFilter,
)
from holdtrue.catalog.rules import check_alias, check_blobs, check_kind, differences, plain
from holdtrue.core.canonical import canonical_bytes, content_hash
from holdtrue.core.codec import dump
from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.core.ids import PREFIXES, check_name, version_id
from holdtrue.storage.ledger import Transaction

MOST_NODES = 1000


def register(
    tx: Transaction,
    kind: str,
    name: str,
    content: Any,
    *,
    blobs: Sequence[str] = (),
    derived_from: Sequence[str] = (),
) -> Version:
    """Register a version of an asset; the same content under the same name is the same version.

    `derived_from` are ids of what it was made from; they become lineage. Raises InvalidInput for a
    kind, name or digest that cannot be, IdTaken if another content has the same id.
    """
    check_kind(kind)
    check_name(name)
    digests = check_blobs(blobs)
    stored = plain(content)
    text = canonical_bytes(stored).decode()
    stored = json.loads(text)
    digest = content_hash({"kind": kind, "content": stored})
    named = version_id(kind, stored)
    _refuse_taken(named, store.digest_of(tx.connection, tx.project, named), digest)
    version = store.version_by_id(tx.connection, tx.project, named, name)
    if version is None:
        version = Version(
            id=named,
            project=tx.project,
            kind=kind,
            name=name,
            number=store.next_number(tx.connection, tx.project, kind, name),
            content=stored,
            blobs=digests,
            created_at=tx.now,
            created_by=tx.context.actor.owner,
        )
        store.insert_version(tx.connection, version, digest, text)
        payload = {
            "kind": kind,
            "name": name,
            "number": version.number,
            "blobs": len(digests),
            "derived_from": list(derived_from),
        }
        tx.emit("version.registered", named, payload, after=digest)
        _connect(tx, derived_from, named, Relation.DERIVED)
    for source in derived_from:
        link(tx, source, named, Relation.DERIVED)
    return version


def get(connection: sa.Connection, project: str, id: str) -> Version:
    """Return the version with this id; NotFound if the project has none."""
    version = store.version_by_id(connection, project, id)
    if version is None:
        raise NotFound.of("version", id)
    return version


def find(
    connection: sa.Connection,
    project: str,
    kind: str,
    name: str,
    *,
    number: int | None = None,
    alias: str | None = None,
) -> Version:
    """Return a version by number, by alias, or else the newest of its name; NotFound if there is none."""
    if alias is not None:
        target = store.alias_target(connection, project, kind, name, alias)
        version = None if target is None else store.version_by_id(connection, project, target, name)
        label = f"{name}@{alias}"
    else:
        version = store.version_by_number(connection, project, kind, name, number)
        label = name if number is None else f"{name}@{number}"
    if version is None:
        raise NotFound.of(kind, label)
    return version


def versions(
    connection: sa.Connection,
    project: str,
    kind: str | None = None,
    name: str | None = None,
    *,
    limit: int = 100,
    after: str | None = None,
) -> list[Version]:
    """Return versions ordered by kind and name, the newest of each name first.

    `after` is the `cursor` of the last version of the page before.
    """
    if after is not None and (after.count("/") != 2 or not after.rpartition("/")[2].isdigit()):
        raise InvalidInput("This cursor is not one that a listing gave.", mend="Start again without a cursor.")
    return store.select_versions(connection, project, VersionFilter(kind, name, limit, after))


def names(connection: sa.Connection, project: str, kind: str) -> list[str]:
    """Return the names that versions of one kind have, in order."""
    return store.names(connection, project, check_kind(kind))


def projects(connection: sa.Connection, kind: str) -> list[str]:
    """Return the projects that have versions of one kind, in order."""
    return store.projects(connection, check_kind(kind))


def cursor(version: Version) -> str:
    """Return the cursor with which a listing of versions goes on after `version`."""
    return f"{version.kind}/{version.name}/{version.number}"


def set_alias(tx: Transaction, kind: str, name: str, alias: str, id: str) -> Alias:
    """Point `name@alias` to the version `id`, which must carry that kind and name."""
    check_alias(alias)
    version = store.version_by_id(tx.connection, tx.project, id, name)
    if version is None or version.kind != kind:
        raise NotFound.of(f"version of {kind} {name}", id)
    before = store.alias_target(tx.connection, tx.project, kind, name, alias)
    moved = Alias(kind, name, alias, id, tx.now, tx.context.actor.owner)
    if before != id:
        store.put_alias(tx.connection, tx.project, moved)
        tx.emit("alias.moved", f"{kind}/{name}@{alias}", {"version": id}, before=before, after=id)
    return moved


def aliases(connection: sa.Connection, project: str, kind: str, name: str) -> list[Alias]:
    """Return the aliases of one name."""
    return store.select_aliases(connection, project, kind, name)


def aliased(connection: sa.Connection, kind: str) -> list[tuple[str, str, Version]]:
    """Return (project, alias, version) of every alias of a kind, in all projects: what data planes are told."""
    return store.select_aliased(connection, kind)


def link(tx: Transaction, source: str, target: str, relation: str) -> Edge:
    """Record that `target` came from `source`; recording it again changes nothing."""
    if source == target:
        raise InvalidInput(f"“{source}” cannot come from itself.", mend="Name two different things.")
    edge = Edge(source, target, str(relation))
    if store.insert_edge(tx.connection, tx.project, edge, tx.now):
        tx.emit("lineage.linked", target, {"source": source, "relation": edge.relation})
    return edge


def _connect(tx: Transaction, sources: Sequence[str], target: str, relation: Relation) -> None:
    """Record edges that the event of the change itself already tells of."""
    for source in sources:
        store.insert_edge(tx.connection, tx.project, Edge(source, target, str(relation)), tx.now)


def lineage(connection: sa.Connection, project: str, id: str, *, direction: Direction = "both") -> Graph:
    """Return what `id` came from (upstream), what came from it (downstream), or both.

    At most 1,000 nodes are visited; the graph says so when there are more. An id nobody knows gives NotFound.
    """
    found: set[Edge] = set()
    truncated = False
    for upstream in (True, False):
        if direction == "both" or (direction == "upstream") == upstream:
            truncated = _visit(connection, project, id, found, upstream=upstream) or truncated
    ids = {id} | {edge.source for edge in found} | {edge.target for edge in found}
    known = store.known_nodes(connection, project, ids)
    if not found and id not in known:
        raise NotFound.of("version", id)
    nodes = tuple(known.get(one) or Node(one, _kind_of(one), one) for one in sorted(ids))
    edges = sorted(found, key=lambda edge: (edge.source, edge.target, edge.relation))
    return Graph(nodes, tuple(edges), truncated)


def origins(connection: sa.Connection, project: str, ids: Sequence[str]) -> list[Edge]:
    """Return the edges that lead to `ids`: what each came from, one step up."""
    return store.edges_at(connection, project, set(ids), upstream=True, limit=MOST_NODES) if ids else []


def _visit(connection: sa.Connection, project: str, id: str, found: set[Edge], *, upstream: bool) -> bool:
    """Add the edges reachable from `id` in one direction; tell whether some were left out."""
    seen = {id}
    front = {id}
    while front:
        room = MOST_NODES - len(found)
        step = store.edges_at(connection, project, front, upstream=upstream, limit=max(room, 0) + 1)
        if len(step) > room:
            found.update(step[:room])
            return True
        found.update(step)
        front = {edge.source if upstream else edge.target for edge in step} - seen
        seen |= front
    return False


def _kind_of(id: str) -> str:
    prefix = id.partition("_")[0]
    return next((kind for kind, known in PREFIXES.items() if known == prefix), prefix)


def create_release(tx: Transaction, manifest: Manifest, *, author: str, run: str | None = None) -> Release:
    """Make a release of what `manifest` pins; the same manifest is the same release.

    `author` is the id of the person who answers for it. A pinned version that does not exist raises
    NotFound.
    """
    check_name(manifest.service, "service name")
    content = plain(manifest.to_json())
    text = canonical_bytes(content).decode()
    digest = content_hash({"kind": "release", "content": content})
    named = version_id("release", content)
    _refuse_taken(named, store.release_digest(tx.connection, tx.project, named), digest)
    known = store.release_by_id(tx.connection, tx.project, named)
    if known is not None:
        return known
    for role, version in manifest.versions.items():
        check_name(role, "role")
        get(tx.connection, tx.project, version)
    release = Release(named, tx.project, manifest.service, manifest, tx.now, author, run)
    number = store.next_release_number(tx.connection, tx.project)
    store.insert_release(tx.connection, release, number, digest, text)
    payload = {"service": manifest.service, "versions": dict(manifest.versions), "author": author, "run": run}
    tx.emit("release.created", named, payload, after=digest)
    _connect(tx, sorted(set(manifest.versions.values())), named, Relation.PINNED)
    if run is not None:
        _connect(tx, [run], named, Relation.PRODUCED)
    return release


def release(connection: sa.Connection, project: str, id: str) -> Release:
    """Return the release with this id; NotFound if the project has none."""
    found = store.release_by_id(connection, project, id)
    if found is None:
        raise NotFound.of("release", id)
    return found


def releases(
    connection: sa.Connection,
    project: str,
    service: str | None = None,
    *,
    limit: int = 100,
    after: str | None = None,
) -> list[Release]:
    """Return releases, the newest first; `after` is the id of the last one of the page before."""
    return store.select_releases(connection, project, service, limit, after)


def diff(connection: sa.Connection, project: str, a: str, b: str) -> tuple[Change, ...]:
    """Tell how release `b` differs from `a`: each role, the commit, the environment, the configuration."""
    before, after = release(connection, project, a).manifest, release(connection, project, b).manifest
    roles = sorted(before.versions.keys() | after.versions.keys())
    changes = [
        _change(connection, project, role, before.versions.get(role), after.versions.get(role)) for role in roles
    ]
    for role in ("commit", "environment_lock"):
        old, new = getattr(before, role), getattr(after, role)
        changes.append(Change(role, old, new, "same" if old == new else "changed", None))
    found, truncated = differences(before.config, after.config)
    detail = {"differences": [dump(one) for one in found], "truncated": truncated} if found else None
    changes.append(Change("config", None, None, "changed" if found else "same", detail))
    return tuple(changes)


def _change(connection: sa.Connection, project: str, role: str, before: str | None, after: str | None) -> Change:
    if before == after:
        return Change(role, before, after, "same", None)
    old = get(connection, project, before) if before else None
    new = get(connection, project, after) if after else None
    detail: dict[str, Any] = {"before": old and _summary(old), "after": new and _summary(new)}
    if old is None or new is None:
        return Change(role, before, after, "added" if old is None else "removed", detail)
    found, truncated = differences(old.content, new.content)
    detail["differences"] = [dump(one) for one in found]
    detail["truncated"] = truncated
    return Change(role, before, after, "changed", detail)


def _summary(version: Version) -> dict[str, Any]:
    return {"id": version.id, "kind": version.kind, "name": version.name, "number": version.number}


def _refuse_taken(id: str, taken: str | None, digest: str) -> None:
    if taken is not None and taken != digest:
        raise IdTaken(
            f"The id {id} already names another content.",
            why="Ids are the first 64 bits of a hash; somebody found two contents with the same ones.",
            mend="Change the content in any way, and find out who made the other one.",
        )
