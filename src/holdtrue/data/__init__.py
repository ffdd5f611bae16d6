"""Data people can rely on: contracts, checked deliveries, dataset versions, quarantine."""

from typing import TYPE_CHECKING

from holdtrue.core.lazy import attach

if TYPE_CHECKING:
    from holdtrue.data.checking import as_arrow, check_table
    from holdtrue.data.contract import Column, Contract, Finding, Report, column
    from holdtrue.data.model import DatasetSpec, Ingest, Quarantine, QuarantineState
    from holdtrue.data.service import (
        accept,
        dataset,
        datasets,
        declare,
        fragments,
        ingest,
        latest,
        quarantines,
        read,
        request_contract,
    )

__all__ = [
    "Column",
    "Contract",
    "DatasetSpec",
    "Finding",
    "Ingest",
    "Quarantine",
    "QuarantineState",
    "Report",
    "accept",
    "as_arrow",
    "check_table",
    "column",
    "dataset",
    "datasets",
    "declare",
    "fragments",
    "ingest",
    "latest",
    "quarantines",
    "read",
    "request_contract",
]

# The data plane uses the contract's request check and must not load DuckDB or SQLAlchemy for it.
__getattr__ = attach(
    __name__,
    dict.fromkeys(("Column", "Contract", "Finding", "Report", "column"), "contract")
    | dict.fromkeys(("as_arrow", "check_table"), "checking")
    | dict.fromkeys(("DatasetSpec", "Ingest", "Quarantine", "QuarantineState"), "model")
    | dict.fromkeys(("accept", "dataset", "datasets", "declare", "fragments", "ingest", "latest", "quarantines", "read", "request_contract"), "service"),
)
