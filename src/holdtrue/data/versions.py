"""Look at versions of datasets: list them, show one with its profile, compare two."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from holdtrue import catalog
from holdtrue.core.codec import dump
from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.data import erasure, service
from holdtrue.data.comparing import fragment_changes, row_changes, schema_changes
from holdtrue.data.model import QuarantineState
from holdtrue.data.profiles import Profile, merge_profiles, shift, told
from holdtrue.data.profiling import fragment_profile
from holdtrue.data.reading import read_rows
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
                **_head(version),
                "current": current is not None and current.id == version.id,
                "windows": len(parts(version)),
                "rows": _total(version, "rows"),
                "bytes": _total(version, "bytes"),
                "new_bytes": sum(parts(version)[each]["bytes"] for each in (*changes["added"], *changes["changed"])),
                **{change: changes[change] for change in ("added", "changed", "removed")},
            }
        )
    return items


def shown(stores: Stores, project: str, name: str, wanted: str) -> dict[str, Any]:
    """Return one version: schema, windows, profile, what its contract found, and what is kept out."""

    def work(connection: sa.Connection) -> tuple[catalog.Version, Any, list[Any]]:
        version = resolve(connection, project, name, wanted)
        held = service.quarantines(connection, project, state=QuarantineState.OPEN)
        return version, service.dataset(connection, project, name), [each for each in held if each.dataset == name]

    version, spec, held = stores.ledger.read(work)
    reading = _Reading(stores, project)
    whole = reading.profile(version)
    columns = {} if spec is None else {column.name: dump(column) for column in spec.contract.columns}
    tags: Mapping[str, Any] = version.content.get("tags", {})
    return {
        **_head(version),
        "declared": spec is not None,
        "key": key_of(version, spec),
        "time": None if spec is None else spec.time,
        "rows": _total(version, "rows"),
        "bytes": _total(version, "bytes"),
        "windows": [{"window": each, **part} for each, part in parts(version).items()],
        "files": None if "tree" not in version.content else _listed(stores.blobs, version),
        "schema": [
            {"column": each.name, "kind": each.kind, **columns.get(each.name, {}), "tags": tags.get(each.name)}
            for each in whole.columns
        ],
        "profile": [told(each) for each in whole.columns],
        "findings": _findings(stores, project, version),
        "quarantines": [dump(each) for each in held],
        "read": sorted(reading.read),
    }


def compare(stores: Stores, project: str, name: str, before: str, after: str) -> dict[str, Any]:
    """Return what differs between two versions: windows, schema, rows by key, and columns with effect sizes.

    Rows are read only of windows that differ. Columns are compared over the whole versions by their stored profiles;
    `read` names the windows that had none yet.
    """
    old, new, spec = stores.ledger.read(
        lambda connection: (
            resolve(connection, project, name, before),
            resolve(connection, project, name, after),
            service.dataset(connection, project, name),
        )
    )
    if "tree" in old.content or "tree" in new.content:
        return _compare_trees(stores, old, new)
    changes = fragment_changes(parts(old), parts(new))
    reading = _Reading(stores, project)
    first, second = reading.profile(old), reading.profile(new)
    rows = row_changes(
        reading.rows(old, [*changes["removed"], *changes["changed"]], first),
        reading.rows(new, [*changes["added"], *changes["changed"]], second),
        key_of(new, spec),
    )
    shifts = [shift(column, other) for column in first.columns if (other := second.column(column.name)) is not None]
    return {
        "before": _head(old),
        "after": _head(new),
        "windows": changes,
        "schema": schema_changes(first, second),
        "key": key_of(new, spec),
        "rows": {"before": first.rows, "after": second.rows, **rows},
        "columns": sorted(shifts, key=lambda each: -(each["distance"] or 0.0)),
        "read": sorted(reading.read),
    }


def _compare_trees(stores: Stores, old: catalog.Version, new: catalog.Version) -> dict[str, Any]:
    """Return which files differ; no file is read."""
    for version in (old, new):
        if "tree" not in version.content:
            raise InvalidInput(
                f"{old.label} and {new.label} cannot be compared.",
                why=f"{version.label} is a table, and the other one a tree of files.",
                mend="Compare two versions of the same form.",
            )
    return {
        "before": _head(old),
        "after": _head(new),
        "windows": fragment_changes(_files(stores.blobs, old), _files(stores.blobs, new)),
        "schema": [],
        "key": None,
        "rows": None,
        "columns": [],
        "read": [],
    }


def _listed(blobs: BlobStore, version: catalog.Version) -> list[dict[str, Any]]:
    found = _files(blobs, version)
    return [
        {"file": name, "digest": part["digest"], "bytes": blobs.size(part["digest"])} for name, part in found.items()
    ]


def _files(blobs: BlobStore, version: catalog.Version) -> dict[str, Any]:
    return {name: {"digest": digest} for name, digest in blobs.tree(version.content["tree"]).items()}


def window_of(blobs: BlobStore, version: catalog.Version, digest: str) -> str:
    """Return a plain name for the window or file of a version that has this digest; NotFound if none has."""
    held = _files(blobs, version) if "tree" in version.content else parts(version)
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


@dataclass(slots=True)
class _Reading:
    """Read fragments and their profiles, and remember which fragments had to be read."""

    stores: Stores
    project: str
    read: set[str] = field(default_factory=set[str])

    def profile(self, version: catalog.Version) -> Profile:
        """Return the profile of a whole version, merged from those of its fragments."""
        check_kept(self.stores, self.project, version, [part["digest"] for part in parts(version).values()])
        found: list[Profile] = []
        for window, part in parts(version).items():
            one, was_read = fragment_profile(self.stores.blobs, self.stores.actions, part["digest"])
            if was_read:
                self.read.add(window)
            found.append(one)
        return merge_profiles(found)

    def rows(self, version: catalog.Version, windows: Sequence[str], whole: Profile) -> pa.Table:
        """Return the rows of some windows; without any, no rows of the version's columns."""
        self.read.update(windows)
        tables = [read_rows(self.stores.blobs, parts(version)[each]["digest"]) for each in windows]
        if not tables:
            return pa.table({column.name: pa.nulls(0) for column in whole.columns})
        return pa.concat_tables(tables, promote_options="permissive")


def _head(version: catalog.Version) -> dict[str, Any]:
    return {
        "name": version.name,
        "version": version.id,
        "number": version.number,
        "label": version.label,
        "created_at": version.created_at.isoformat(),
        "created_by": version.created_by,
        "tree": version.content.get("tree"),
    }


def _total(version: catalog.Version, what: str) -> int:
    if "tree" in version.content:
        return version.content["bytes"] if what == "bytes" else 0
    return sum(part[what] for part in parts(version).values())


def _findings(stores: Stores, project: str, version: catalog.Version) -> list[dict[str, Any]]:
    """Return what the contract found in the windows of a version when they were accepted."""
    events = stores.ledger.events(
        project, object=f"dataset:{version.name}", action="fragment.accepted", limit=_MOST, newest_first=True
    )
    found: dict[str, list[Any]] = {}
    for event in events:
        payload = event.payload or {}
        if payload.get("window") in parts(version):
            found.setdefault(payload["window"], list(payload.get("findings", ())))
    return [{"window": window, **finding} for window, findings in sorted(found.items()) for finding in findings]
