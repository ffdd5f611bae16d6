"""Take checked deliveries in: make a new version of their dataset, keep out what the contract keeps out."""

import dataclasses
from typing import Any

import sqlalchemy as sa

from holdtrue import catalog
from holdtrue.core.canonical import content_hash
from holdtrue.core.codec import dump, load
from holdtrue.core.errors import Conflict, InvalidInput, NotFound
from holdtrue.core.ids import new_id, version_id
from holdtrue.data import erasure, store
from holdtrue.data.contract import Contract
from holdtrue.data.model import (
    DatasetSpec,
    Ingest,
    NewDatasetVersion,
    Quarantine,
    QuarantineState,
    check_window,
    check_windows,
)
from holdtrue.storage.ledger import Transaction

_CURRENT = "current"


def declare(tx: Transaction, specs: tuple[DatasetSpec, ...]) -> None:
    """Set the declarations of datasets; each contract becomes a version."""
    for spec in specs:
        _check_spec(spec)
        before = store.dataset_spec(tx.connection, tx.project, spec.name)
        after = dump(spec)
        catalog.register(tx, "contract", spec.name, dump(spec.contract))
        if before != after:
            store.put_dataset(tx, spec.name, after)
            tx.emit("dataset.declared", f"dataset:{spec.name}", after)
        _retag(tx, spec)


def remove(tx: Transaction, name: str, reason: str) -> None:
    """Take a dataset's declaration back; its versions stay, and its open quarantines are closed."""
    for each in store.list_quarantines(tx.connection, tx.project, dataset=name, state=QuarantineState.OPEN):
        _close(tx, each, QuarantineState.DISCARDED, None, reason)
    if store.drop_dataset(tx, name):
        tx.emit("dataset.removed", f"dataset:{name}", {}, reason=reason)


def accept(tx: Transaction, result: Ingest, held: erasure.Held | None = None) -> catalog.Version | None:
    """Record what `ingest` found: a new dataset version, a quarantine, or both; return the version.

    A delivery that passes closes the open quarantines of its window as mended, except one of the very rows that it
    keeps out again. `held` tells how it was held against the list of the erased. Raises NotFound for an undeclared
    dataset, Conflict if another contract was checked, ErasureMoved if an entity was erased meanwhile.
    """
    _keep_out(tx, held or erasure.Held())
    spec = dataset(tx.connection, tx.project, result.dataset)
    if spec is None:
        raise NotFound.of("dataset", result.dataset)
    check_window(result.dataset, result.window)
    if result.contract != content_hash(dump(spec.contract)):
        raise Conflict(
            f"The delivery of “{result.dataset}” was checked against another contract than the declared one.",
            why="The project file of the worker differs from what was applied.",
            mend="Apply the project file with `holdtrue apply`, then take the window in again.",
            facts={"dataset": result.dataset, "window": result.window},
        )
    version = None
    if result.digest is not None:
        version = _new_version(tx, spec, result)
        for each in _open(tx, result):
            if each.blob != result.quarantine:
                _close(tx, each, QuarantineState.MENDED, version.id)
    if result.quarantine is not None:
        _quarantine(tx, result)
    return version


def add(tx: Transaction, name: str, wanted: NewDatasetVersion, held: erasure.Held | None = None) -> catalog.Version:
    """Make a version of a dataset from files that are stored already, and make it the present one.

    `held` tells how it was held against the list of the erased. Raises Conflict for a dataset that a project file
    declares (its rows come by deliveries, past its contract), ErasureMoved if an entity was erased meanwhile.
    """
    _keep_out(tx, held or erasure.Held())
    if dataset(tx.connection, tx.project, name) is not None:
        raise Conflict(
            f"“{name}” is declared in the project file, so its rows are taken in and not added.",
            why="What is added passes no contract.",
            mend=f"Take a window in (holdtrue run --ingest {name} --window YYYY-MM), or add under another name.",
        )
    before = latest(tx.connection, tx.project, name)
    content = _with_tags(wanted.content(), {} if before is None else before.content.get("tags", {}))
    if before is not None and before.content == content:
        return before
    return _register(tx, name, content, wanted.blobs(), before)


def _keep_out(tx: Transaction, held: erasure.Held) -> None:
    """Raise ErasureMoved if an entity was erased since; note the blobs that had rows of erased entities."""
    if len(erasure.erasures(tx.connection, tx.project)) != held.revision:
        raise erasure.ErasureMoved.now()
    erasure.add_blobs(tx, held.blobs)


def quarantine(connection: sa.Connection, project: str, id: str) -> Quarantine:
    """Return one quarantine; NotFound if the project has none of this id."""
    found = store.quarantine(connection, project, id)
    if found is None:
        raise NotFound.of("quarantine", id)
    return found


def discard(tx: Transaction, id: str, reason: str) -> Quarantine:
    """Close a quarantine whose rows will not come again; StateError if it is closed already."""
    found = quarantine(tx.connection, tx.project, id)
    if not reason.strip():
        raise InvalidInput(
            "A quarantine is discarded for a reason.",
            why="Whoever asks later why these rows are missing will read it.",
            mend="Say why the rows will not come again.",
        )
    return _close(tx, found, QuarantineState.DISCARDED, None, reason)


def dataset(connection: sa.Connection, project: str, name: str) -> DatasetSpec | None:
    """Return a declared dataset's specification."""
    spec = store.dataset_spec(connection, project, name)
    return None if spec is None else load(DatasetSpec, spec, f"The dataset {name}")


def datasets(connection: sa.Connection, project: str) -> list[str]:
    """Return the names of the declared datasets."""
    return store.dataset_names(connection, project)


def latest(connection: sa.Connection, project: str, name: str) -> catalog.Version | None:
    """Return the present version of a dataset, or None if nothing has been accepted yet."""
    try:
        return catalog.find(connection, project, "dataset", name, alias=_CURRENT)
    except NotFound:
        return None


def fragments(connection: sa.Connection, project: str, name: str) -> dict[str, dict[str, Any]]:
    """Return the present version's fragments by window."""
    version = latest(connection, project, name)
    return {} if version is None else dict(version.content["fragments"])


def quarantines(connection: sa.Connection, project: str, *, state: QuarantineState | None = None) -> list[Quarantine]:
    """Return the project's quarantines, oldest first."""
    return store.list_quarantines(connection, project, state=state)


def _new_version(tx: Transaction, spec: DatasetSpec, result: Ingest) -> catalog.Version:
    """Put the delivered window into the dataset; return the present version if nothing changed."""
    before = latest(tx.connection, tx.project, result.dataset)
    parts: dict[str, Any] = {} if before is None else dict(before.content["fragments"])
    part = {"digest": result.digest, "rows": result.accepted, "bytes": result.bytes}
    if before is not None and parts.get(result.window) == part and before.content.get("tags", {}) == spec.tags_json():
        return before
    parts[result.window] = part
    content = _with_tags({"fragments": {name: parts[name] for name in sorted(parts)}}, spec.tags_json())
    blobs = tuple(each["digest"] for each in content["fragments"].values())
    version = _register(tx, result.dataset, content, blobs, before)
    tx.emit(
        "fragment.accepted",
        f"dataset:{result.dataset}",
        {
            "window": result.window,
            "rows": result.accepted,
            "version": version.id,
            "findings": [dump(each) for each in result.findings],
        },
    )
    return version


def _with_tags(content: dict[str, Any], tags: dict[str, Any]) -> dict[str, Any]:
    return {**content, "tags": tags} if tags else content


def _retag(tx: Transaction, spec: DatasetSpec) -> None:
    """Make a version with the declared tags of the rows that are there: what may no longer be used counts at once."""
    before = latest(tx.connection, tx.project, spec.name)
    tags = spec.tags_json()
    if before is None or before.content.get("tags", {}) == tags:
        return
    kept = {name: value for name, value in before.content.items() if name != "tags"}
    version = _register(tx, spec.name, _with_tags(kept, tags), before.blobs, before)
    tx.emit("dataset.tagged", f"dataset:{spec.name}", {"version": version.id, "tags": tags})


def _register(
    tx: Transaction, name: str, content: Any, blobs: tuple[str, ...], before: catalog.Version | None
) -> catalog.Version:
    """Register a version and make it the present one."""
    # A version that was there before has its lineage; going back to it must not make it its own descendant.
    origin = () if before is None or _registered(tx, content) else (before.id,)
    version = catalog.register(tx, "dataset", name, content, blobs=blobs, derived_from=origin)
    # So the newest number is not always the present version.
    catalog.set_alias(tx, "dataset", name, _CURRENT, version.id)
    return version


def _registered(tx: Transaction, content: Any) -> bool:
    try:
        catalog.get(tx.connection, tx.project, version_id("dataset", content))
    except NotFound:
        return False
    return True


def _open(tx: Transaction, result: Ingest) -> list[Quarantine]:
    return store.list_quarantines(
        tx.connection,
        tx.project,
        dataset=result.dataset,
        window=result.window,
        state=QuarantineState.OPEN,
    )


def _close(
    tx: Transaction, quarantine: Quarantine, state: QuarantineState, mended_by: str | None, reason: str = ""
) -> Quarantine:
    quarantine.check_move(state)
    store.close_quarantine(tx, quarantine.id, state, mended_by)
    told = {"dataset": quarantine.dataset, "window": quarantine.window, "version": mended_by}
    tx.emit(f"quarantine.{state.value}", f"quarantine:{quarantine.id}", told, reason=reason)
    return dataclasses.replace(quarantine, state=state, closed_at=tx.now, mended_by=mended_by)


def _quarantine(tx: Transaction, result: Ingest) -> None:
    if any(each.blob == result.quarantine for each in _open(tx, result)):
        return
    quarantine = Quarantine(
        id=new_id("qua", tx.now),
        project=tx.project,
        dataset=result.dataset,
        window=result.window,
        state=QuarantineState.OPEN,
        blocked=result.digest is None,
        rows=result.quarantined,
        blob=result.quarantine,
        findings=tuple(dump(finding) for finding in result.findings),
        opened_at=tx.now,
    )
    store.insert_quarantine(tx, quarantine)
    tx.emit(
        "quarantine.opened",
        f"quarantine:{quarantine.id}",
        {
            "dataset": result.dataset,
            "window": result.window,
            "blocked": quarantine.blocked,
            "rows": result.quarantined,
            "findings": list(quarantine.findings),
        },
    )


def _check_spec(spec: DatasetSpec) -> None:
    check_windows(spec.name, spec.window)
    names = {column.name for column in spec.contract.columns}
    for role, name in (("key", spec.key), ("time", spec.time)):
        if name not in names:
            raise InvalidInput(
                f"The dataset “{spec.name}” has the {role} “{name}”, which its contract does not describe.",
                why=f"Described columns: {', '.join(sorted(names))}.",
                mend="Describe the column in the contract, or name another.",
            )


def request_contract(spec: DatasetSpec, names: tuple[str, ...]) -> Contract:
    """Return the part of a dataset's contract that a request made of `names` has to keep."""
    return spec.contract.only(names)
