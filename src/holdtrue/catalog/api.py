"""HTTP routes of the catalog."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from holdtrue.catalog import service
from holdtrue.catalog.model import Manifest
from holdtrue.catalog.rules import check_free_alias
from holdtrue.core.access import Permission
from holdtrue.core.codec import dump
from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.door import Call, Routes

routes = Routes("catalog")

_MOST = 1000


@dataclass(frozen=True, slots=True)
class NewVersion:
    """State the content of a version to register."""

    kind: str
    name: str
    content: Any
    blobs: tuple[str, ...] = ()
    derived_from: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AliasTarget:
    """State where an alias shall point."""

    version: str


@dataclass(frozen=True, slots=True)
class NewRelease:
    """State what a release pins. Its author is whoever calls, or made the caller's token."""

    service: str
    commit: str = ""
    environment_lock: str = ""
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    run: str | None = None


@routes.get("/api/projects/{project}/versions", Permission.VERSIONS_READ, summary="List versions")
def list_versions(call: Call) -> Any:
    """Return a page of versions; query: kind, name, limit, after."""
    limit = _limit(call)
    found = call.read(
        lambda connection: service.versions(
            connection,
            call.project,
            call.query.get("kind"),
            call.query.get("name"),
            limit=limit,
            after=call.query.get("after"),
        )
    )
    return {
        "items": [dump(version) for version in found],
        "next": service.cursor(found[-1]) if len(found) == limit else None,
    }


@routes.post("/api/projects/{project}/versions", Permission.VERSIONS_WRITE, summary="Register a version")
def register_version(call: Call, body: NewVersion) -> Any:
    """Register a version whose blobs are already stored."""
    for digest in body.blobs:
        if not call.stores.blobs.has(digest):
            raise NotFound.of("blob", digest[:64])
    return call.write(
        lambda tx: dump(
            service.register(tx, body.kind, body.name, body.content, blobs=body.blobs, derived_from=body.derived_from)
        )
    )


@routes.get("/api/projects/{project}/versions/{id}", Permission.VERSIONS_READ, summary="Show a version")
def show_version(call: Call) -> Any:
    """Return one version with its content."""
    return dump(call.read(lambda connection: service.get(connection, call.project, call.path["id"])))


@routes.get("/api/projects/{project}/lineage/{id}", Permission.VERSIONS_READ, summary="Show what comes from what")
def show_lineage(call: Call) -> Any:
    """Return the lineage of an id; query: direction (upstream, downstream, both)."""
    direction = call.query.get("direction", "both")
    if direction not in ("upstream", "downstream", "both"):
        raise InvalidInput(f"{direction[:80]!r} is not a direction.", mend="Use upstream, downstream or both.")
    return dump(
        call.read(lambda connection: service.lineage(connection, call.project, call.path["id"], direction=direction))
    )


@routes.get(
    "/api/projects/{project}/aliases/{kind}/{name}",
    Permission.VERSIONS_READ,
    summary="List a name's aliases",
)
def list_aliases(call: Call) -> Any:
    """Return the aliases of one name."""
    kind, name = call.path["kind"], call.path["name"]
    found = call.read(lambda connection: service.aliases(connection, call.project, kind, name))
    return {"items": [dump(alias) for alias in found], "next": None}


@routes.put(
    "/api/projects/{project}/aliases/{kind}/{name}/{alias}",
    Permission.VERSIONS_WRITE,
    summary="Point an alias to a version",
)
def put_alias(call: Call, body: AliasTarget) -> Any:
    """Move an alias; those named like an environment follow what is deployed there, and nothing else."""
    path = call.path
    check_free_alias(path["alias"])
    return call.write(lambda tx: dump(service.set_alias(tx, path["kind"], path["name"], path["alias"], body.version)))


@routes.get("/api/projects/{project}/releases", Permission.RELEASES_READ, summary="List releases")
def list_releases(call: Call) -> Any:
    """Return a page of releases, the newest first; query: service, limit, after."""
    limit = _limit(call)
    found = call.read(
        lambda connection: service.releases(
            connection, call.project, call.query.get("service"), limit=limit, after=call.query.get("after")
        )
    )
    return {
        "items": [dump(release) for release in found],
        "next": found[-1].id if len(found) == limit else None,
    }


@routes.post("/api/projects/{project}/releases", Permission.RELEASES_WRITE, summary="Make a release")
def create_release(call: Call, body: NewRelease) -> Any:
    """Make a release in the caller's name."""
    manifest = Manifest(body.service, body.commit, body.environment_lock, body.versions, body.config)
    return call.write(lambda tx: dump(service.create_release(tx, manifest, author=call.actor.owner, run=body.run)))


@routes.get("/api/projects/{project}/releases/{id}", Permission.RELEASES_READ, summary="Show a release")
def show_release(call: Call) -> Any:
    """Return one release with its manifest."""
    return dump(call.read(lambda connection: service.release(connection, call.project, call.path["id"])))


@routes.get(
    "/api/projects/{project}/releases/{id}/diff/{other}",
    Permission.RELEASES_READ,
    summary="Compare two releases",
)
def diff_releases(call: Call) -> Any:
    """Tell how release `other` differs from release `id`: which asset changed, and how."""
    path = call.path
    found = call.read(lambda connection: service.diff(connection, call.project, path["id"], path["other"]))
    return {"items": [dump(change) for change in found], "next": None}


def _limit(call: Call) -> int:
    text = call.query.get("limit", "100")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _MOST:
        raise InvalidInput(f"{text[:80]!r} is not a page size.", mend=f"Use a whole number from 1 to {_MOST}.")
    return int(text)
