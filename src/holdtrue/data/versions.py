"""Find versions of datasets, and list them with what each brought; no row is read."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from holdtrue import catalog
from holdtrue.core.errors import NotFound
from holdtrue.data import erasure, service
from holdtrue.storage import BlobStore, Stores

_NUMBER = re.compile(r"[1-9][0-9]{0,9}")
_MOST = 1000


def resolve(connection: sa.Connection, project: str, name: str, wanted: str = "current") -> catalog.Version:
    """Return the version of a dataset that a number, an alias or an id means; NotFound if there is none."""
    try:
        if wanted.startswith("ds_"):
            found = catalog.get(connection, project, wanted)
            if (found.kind, found.name) == ("dataset", name):
                return found
        elif _NUMBER.fullmatch(wanted):
            return catalog.find(connection, project, "dataset", name, number=int(wanted))
        else:
            return catalog.find(connection, project, "dataset", name, alias=wanted)
    except NotFound:
        pass
    newest = catalog.versions(connection, project, "dataset", name, limit=1)
    if not newest and name not in names(connection, project):
        raise NotFound.of("dataset", name)
    raise NotFound(
        f"There is no version “{name}@{wanted[:64]}”.",
        why=f"The newest one is {newest[0].label}." if newest else f"No window of “{name}” has been accepted yet.",
        mend=f"Use one that `holdtrue data ls {name}` lists."
        if newest
        else f"Take one in: holdtrue run --ingest {name} --window YYYY-MM",
        facts={"dataset": name, "version": wanted[:64]},
    )


def names(connection: sa.Connection, project: str) -> list[str]:
    """Return the names of all datasets: declared ones, and those that only have versions."""
    return sorted({*service.datasets(connection, project), *catalog.names(connection, project, "dataset")})


def listed(connection: sa.Connection, project: str, name: str) -> list[dict[str, Any]]:
    """Return the versions of a dataset, the newest first, with what each brought."""
    found = catalog.versions(connection, project, "dataset", name, limit=_MOST)
    if not found and name not in names(connection, project):
        raise NotFound.of("dataset", name)
    current = service.latest(connection, project, name)
    items: list[dict[str, Any]] = []
    for place, version in enumerate(found):
        before = found[place + 1] if place + 1 < len(found) else None
        changes = fragment_changes({} if before is None else parts(before), parts(version))
        items.append(
            {
                **head(version),
                "current": current is not None and current.id == version.id,
                "windows": len(parts(version)),
                "rows": total(version, "rows"),
                "bytes": total(version, "bytes"),
                "new_bytes": sum(parts(version)[each]["bytes"] for each in (*changes["added"], *changes["changed"])),
                **{change: changes[change] for change in ("added", "changed", "removed")},
            }
        )
    return items


def files(blobs: BlobStore, version: catalog.Version) -> dict[str, Any]:
    """Return the files of a version that keeps them as they are, by name."""
    return {name: {"digest": digest} for name, digest in blobs.tree(version.content["tree"]).items()}


def window_of(blobs: BlobStore, version: catalog.Version, digest: str) -> str:
    """Return a plain name for the window or file of a version that has this digest; NotFound if none has."""
    held = files(blobs, version) if "tree" in version.content else parts(version)
    for name, part in held.items():
        if part["digest"] == digest:
            plain = re.sub(r"[^A-Za-z0-9._-]", "-", name)
            return plain if "tree" in version.content else f"{plain.removesuffix('.parquet')}.parquet"
    raise NotFound.of(f"fragment of {version.label}", digest[:64])


def key_of(version: catalog.Version, spec: Any) -> str | None:
    """Return the column that names a row: of the declared dataset, else as the version says."""
    return version.content.get("key") if spec is None else spec.key


def parts(version: catalog.Version) -> Mapping[str, Any]:
    """Return a version's fragments by window; a tree of files has none."""
    return version.content.get("fragments", {})


def check_kept(stores: Stores, project: str, version: catalog.Version, digests: Collection[str]) -> None:
    """Raise RowsErased if rows of these fragments were of an entity that was erased."""
    gone = stores.ledger.read(lambda connection: erasure.erased_blobs(connection, project))
    found = next((gone[digest] for digest in digests if digest in gone), None)
    if found is None:
        return
    current = stores.ledger.read(lambda connection: service.latest(connection, project, version.name))
    raise erasure.RowsErased.of(version.label, found.window, found.erasure, "" if current is None else current.label)


def head(version: catalog.Version) -> dict[str, Any]:
    """Return what a version is called, and who made it when."""
    return {
        "name": version.name,
        "version": version.id,
        "number": version.number,
        "label": version.label,
        "created_at": version.created_at.isoformat(),
        "created_by": version.created_by,
        "tree": version.content.get("tree"),
    }


def total(version: catalog.Version, what: str) -> int:
    """Return the rows or bytes of a whole version."""
    if "tree" in version.content:
        return version.content["bytes"] if what == "bytes" else 0
    return sum(part[what] for part in parts(version).values())


def fragment_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the windows that were added, removed and changed, and those that are the same."""
    return {
        "added": sorted(after.keys() - before.keys()),
        "removed": sorted(before.keys() - after.keys()),
        "changed": sorted(
            name for name in before.keys() & after.keys() if before[name]["digest"] != after[name]["digest"]
        ),
        "same": sorted(
            name for name in before.keys() & after.keys() if before[name]["digest"] == after[name]["digest"]
        ),
    }
