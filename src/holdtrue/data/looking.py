"""Look into versions of datasets: show one with its profile, compare two by their rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from holdtrue import catalog
from holdtrue.core.codec import dump
from holdtrue.core.errors import InvalidInput
from holdtrue.data import service
from holdtrue.data.comparing import row_changes, schema_changes
from holdtrue.data.model import QuarantineState
from holdtrue.data.profiles import Profile, merge_profiles, shift, told
from holdtrue.data.profiling import fragment_profile
from holdtrue.data.reading import read_rows
from holdtrue.data.versions import check_kept, files, fragment_changes, head, key_of, parts, resolve, total
from holdtrue.storage import BlobStore, Stores

_MOST = 1000


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
        **head(version),
        "declared": spec is not None,
        "key": key_of(version, spec),
        "time": None if spec is None else spec.time,
        "rows": total(version, "rows"),
        "bytes": total(version, "bytes"),
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
        "before": head(old),
        "after": head(new),
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
        "before": head(old),
        "after": head(new),
        "windows": fragment_changes(files(stores.blobs, old), files(stores.blobs, new)),
        "schema": [],
        "key": None,
        "rows": None,
        "columns": [],
        "read": [],
    }


def _listed(blobs: BlobStore, version: catalog.Version) -> list[dict[str, Any]]:
    found = files(blobs, version)
    return [
        {"file": name, "digest": part["digest"], "bytes": blobs.size(part["digest"])} for name, part in found.items()
    ]


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
