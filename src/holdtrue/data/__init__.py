"""Data people can rely on: contracts, checked deliveries, dataset versions, quarantine."""

from typing import TYPE_CHECKING

from holdtrue.core.lazy import attach

if TYPE_CHECKING:
    from holdtrue.data.checking import as_arrow, check_table
    from holdtrue.data.contract import Column, Contract, Finding, Report, column
    from holdtrue.data.model import DatasetSpec, Ingest, Quarantine, QuarantineState, check_window, check_windows
    from holdtrue.data.profiles import ColumnProfile, Profile, merge_profiles
    from holdtrue.data.profiling import fragment_profile, profile_table
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
        remove,
        request_contract,
    )

__all__ = [
    "Column",
    "ColumnProfile",
    "Contract",
    "DatasetSpec",
    "Finding",
    "Ingest",
    "Profile",
    "Quarantine",
    "QuarantineState",
    "Report",
    "accept",
    "as_arrow",
    "check_table",
    "check_window",
    "check_windows",
    "column",
    "dataset",
    "datasets",
    "declare",
    "fragment_profile",
    "fragments",
    "ingest",
    "latest",
    "merge_profiles",
    "profile_table",
    "quarantines",
    "read",
    "remove",
    "request_contract",
]

# The data plane uses the contract's request check and must not load DuckDB or SQLAlchemy for it.
_MODULES: dict[str, tuple[str, ...]] = {
    "checking": ("as_arrow", "check_table"),
    "contract": ("Column", "Contract", "Finding", "Report", "column"),
    "model": ("DatasetSpec", "Ingest", "Quarantine", "QuarantineState", "check_window", "check_windows"),
    "profiles": ("ColumnProfile", "Profile", "merge_profiles"),
    "profiling": ("fragment_profile", "profile_table"),
    "service": (
        "accept",
        "dataset",
        "datasets",
        "declare",
        "fragments",
        "ingest",
        "latest",
        "quarantines",
        "read",
        "remove",
        "request_contract",
    ),
}
__getattr__ = attach(__name__, {name: module for module, names in _MODULES.items() for name in names})
