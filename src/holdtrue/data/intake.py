"""Check the rows of a delivered window and store them, and read them again: what needs no database."""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa

from holdtrue.core.canonical import content_hash
from holdtrue.core.codec import dump
from holdtrue.core.errors import NotFound
from holdtrue.data.checking import as_arrow, check_table, conform
from holdtrue.data.contract import Contract, Report
from holdtrue.data.model import DatasetSpec, Ingest
from holdtrue.data.reading import put_rows, read_rows
from holdtrue.data.rules import RowCount, rule_broken
from holdtrue.data.whole import NOTHING, Around
from holdtrue.storage import BlobStore

_NO_ROWS = "The delivery has no rows. If that may be, the contract says so: RowCount(ge=0)."


def ingest(blobs: BlobStore, spec: DatasetSpec, window: str, table: Any, around: Around = NOTHING) -> Ingest:
    """Check one delivered window and put its bytes into `blobs`; nothing else changes.

    Accepted rows are stored sorted by key, in the contract's column order, as Parquet whose bytes depend
    on the rows alone. A blocked delivery is kept whole for its quarantine.
    """
    arrow = as_arrow(table)
    report = _not_empty(spec.contract, check_table(spec.contract, arrow, around))
    contract = content_hash(dump(spec.contract))
    if not report.passed:
        kept, _ = put_rows(blobs, arrow)
        return Ingest(spec.name, window, contract, report.rows, report.findings, None, 0, 0, kept, report.rows)
    mask = np.zeros(arrow.num_rows, bool)
    mask[list(report.quarantined)] = True
    accepted = _ordered(arrow.filter(pa.array(~mask)), spec)
    digest, size = put_rows(blobs, accepted)
    aside = put_rows(blobs, arrow.filter(pa.array(mask)))[0] if mask.any() else None
    return Ingest(
        spec.name,
        window,
        contract,
        report.rows,
        report.findings,
        digest,
        size,
        accepted.num_rows,
        aside,
        len(report.quarantined),
    )


def read(blobs: BlobStore, content: Any, windows: list[str] | None = None) -> pa.Table:
    """Return the rows of a dataset version's content, all windows or only some."""
    chosen: dict[str, Any] = content["fragments"]
    names = sorted(chosen) if windows is None else windows
    absent = [name for name in names if name not in chosen]
    if absent or not names:
        raise NotFound(
            f"The dataset version has no window {absent[0]}." if absent else "No window was asked for.",
            why=f"Its windows: {', '.join(sorted(chosen)) or 'none'}.",
            mend="Take the window in first, or ask for one that is there.",
        )
    tables = [read_rows(blobs, chosen[name]["digest"]) for name in names]
    # A column that was added to the contract later is missing, and null, in older windows.
    return pa.concat_tables(tables, promote_options="default")


def _ordered(table: pa.Table, spec: DatasetSpec) -> pa.Table:
    """Return the rows in the contract's columns and types, in an order that depends on the rows alone."""
    _, columns = conform(spec.contract, table)
    chosen = pa.table({column.name: columns[column.name] for column in spec.contract.columns})
    key = chosen[spec.key]
    others = [] if len(key.unique()) == len(key) else [name for name in chosen.column_names if name != spec.key]
    return chosen.sort_by([(name, "ascending") for name in (spec.key, *others)]).combine_chunks()


def _not_empty(contract: Contract, report: Report) -> Report:
    """Block a delivery without rows, unless the contract says how many there are to be."""
    if report.rows or any(isinstance(rule, RowCount) for rule in contract.rules):
        return report
    return dataclasses.replace(report, findings=(*report.findings, rule_broken(RowCount(ge=1), 0, said=_NO_ROWS)))
