"""Take deliveries in: check them, keep them, and make a new version of their dataset."""

import io
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa

from holdtrue import catalog
from holdtrue.core.codec import dump, load
from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.core.ids import new_id
from holdtrue.data import store
from holdtrue.data.checking import as_arrow, check_table
from holdtrue.data.contract import Column, Contract
from holdtrue.data.model import DatasetSpec, Ingest, Quarantine, QuarantineState
from holdtrue.storage import BlobStore
from holdtrue.storage.ledger import Transaction

_ARROW = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string": pa.string(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", "UTC"),
}


def declare(tx: Transaction, specs: tuple[DatasetSpec, ...]) -> None:
    """Set the declarations of datasets; each contract becomes a version."""
    for spec in specs:
        _check_spec(spec)
        before = store.dataset_spec(tx.connection, tx.context.project, spec.name)
        after = dump(spec)
        catalog.register(tx, "contract", spec.name, dump(spec.contract))
        if before != after:
            store.put_dataset(tx, spec.name, after)
            tx.emit("dataset.declared", f"dataset:{spec.name}", after)


def ingest(blobs: BlobStore, spec: DatasetSpec, window: str, table: Any) -> Ingest:
    """Check one delivered window and put its bytes into `blobs`; nothing else changes.

    Accepted rows are stored sorted by key, in the contract's column order, as Parquet whose bytes depend
    on the rows alone. A blocked delivery is kept whole for its quarantine.
    """
    arrow = as_arrow(table)
    report = check_table(spec.contract, arrow)
    if not report.passed:
        kept = blobs.put(_parquet(arrow))
        return Ingest(spec.name, window, report.rows, report.findings, None, 0, 0, kept, report.rows)
    mask = pa.array([False] * arrow.num_rows)
    if report.quarantined:
        chosen = set(report.quarantined)
        mask = pa.array([row in chosen for row in range(arrow.num_rows)])
    accepted = _ordered(arrow.filter(pc.invert(mask)), spec)
    data = _parquet(accepted)
    aside = blobs.put(_parquet(arrow.filter(mask))) if report.quarantined else None
    return Ingest(
        spec.name,
        window,
        report.rows,
        report.findings,
        blobs.put(data),
        len(data),
        accepted.num_rows,
        aside,
        len(report.quarantined),
    )


def accept(tx: Transaction, result: Ingest) -> catalog.Version | None:
    """Record what `ingest` found: a new dataset version, a quarantine, or both; return the version.

    A later delivery of the same window that passes closes the window's open quarantines as mended.
    """
    if dataset(tx.connection, tx.context.project, result.dataset) is None:
        raise NotFound.of("dataset", result.dataset)
    version = None
    if result.digest is not None:
        version = _new_version(tx, result)
        for each in store.list_quarantines(
            tx.connection,
            tx.context.project,
            dataset=result.dataset,
            window=result.window,
            state=QuarantineState.OPEN,
        ):
            each.check_move(QuarantineState.MENDED)
            store.close_quarantine(tx, each.id, QuarantineState.MENDED, version.id)
            tx.emit("quarantine.mended", f"quarantine:{each.id}", {"dataset": version.id, "window": result.window})
    if result.quarantine is not None:
        _quarantine(tx, result)
    return version


def dataset(connection: sa.Connection, project: str, name: str) -> DatasetSpec | None:
    """Return a declared dataset's specification."""
    spec = store.dataset_spec(connection, project, name)
    return None if spec is None else load(DatasetSpec, spec, f"The dataset {name}")


def datasets(connection: sa.Connection, project: str) -> list[str]:
    """Return the names of the declared datasets."""
    return store.dataset_names(connection, project)


def latest(connection: sa.Connection, project: str, name: str) -> catalog.Version | None:
    """Return the newest version of a dataset."""
    found = catalog.versions(connection, project, kind="dataset", name=name, limit=1)
    return found[0] if found else None


def fragments(connection: sa.Connection, project: str, name: str) -> dict[str, dict[str, Any]]:
    """Return the newest version's fragments by window."""
    version = latest(connection, project, name)
    return {} if version is None else dict(version.content["fragments"])


def quarantines(connection: sa.Connection, project: str, *, state: QuarantineState | None = None) -> list[Quarantine]:
    """Return the project's quarantines, oldest first."""
    return store.list_quarantines(connection, project, state=state)


def read(blobs: BlobStore, content: Any, windows: list[str] | None = None) -> pa.Table:
    """Return the rows of a dataset version's content, all windows or only some."""
    chosen = content["fragments"]
    names = sorted(chosen) if windows is None else windows
    return pa.concat_tables([pq.read_table(blobs.path(chosen[name]["digest"])) for name in names])


def _new_version(tx: Transaction, result: Ingest) -> catalog.Version:
    project = tx.context.project
    before = latest(tx.connection, project, result.dataset)
    parts = {} if before is None else dict(before.content["fragments"])
    assert result.digest is not None
    parts[result.window] = {"digest": result.digest, "rows": result.accepted, "bytes": result.bytes}
    content = {"fragments": {name: parts[name] for name in sorted(parts)}}
    version = catalog.register(
        tx,
        "dataset",
        result.dataset,
        content,
        blobs=tuple(part["digest"] for part in content["fragments"].values()),
        derived_from=() if before is None else (before.id,),
    )
    if before is None or before.id != version.id:
        tx.emit(
            "fragment.accepted",
            f"dataset:{result.dataset}",
            {"window": result.window, "rows": result.accepted, "version": version.id},
        )
    return version


def _quarantine(tx: Transaction, result: Ingest) -> None:
    blocked = result.digest is None
    already = store.list_quarantines(
        tx.connection,
        tx.context.project,
        dataset=result.dataset,
        window=result.window,
        state=QuarantineState.OPEN,
    )
    if any(each.blob == result.quarantine for each in already):
        return
    quarantine = Quarantine(
        id=new_id("qua", tx.now),
        project=tx.context.project,
        dataset=result.dataset,
        window=result.window,
        state=QuarantineState.OPEN,
        blocked=blocked,
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
            "blocked": blocked,
            "rows": result.quarantined,
            "findings": list(quarantine.findings),
        },
    )


def _check_spec(spec: DatasetSpec) -> None:
    names = {column.name for column in spec.contract.columns}
    for role, name in (("key", spec.key), ("time", spec.time)):
        if name not in names:
            raise InvalidInput(
                f"The dataset “{spec.name}” has the {role} “{name}”, which its contract does not describe.",
                why=f"Described columns: {', '.join(sorted(names))}.",
                mend="Describe the column in the contract, or name another.",
            )


def _ordered(table: pa.Table, spec: DatasetSpec) -> pa.Table:
    cast = pa.schema([(column.name, _arrow(column)) for column in spec.contract.columns])
    chosen = table.select([column.name for column in spec.contract.columns]).cast(cast)
    return chosen.sort_by([(spec.key, "ascending")]).combine_chunks()


def _arrow(column: Column) -> pa.DataType:
    return _ARROW[column.dtype]


def _parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(None), out, compression="zstd", store_schema=False)
    return out.getvalue()


def request_contract(spec: DatasetSpec, names: tuple[str, ...]) -> Contract:
    """Return the part of a dataset's contract that a request made of `names` has to keep."""
    return spec.contract.only(names)
