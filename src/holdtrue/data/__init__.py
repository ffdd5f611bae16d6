"""Data people can rely on: contracts, checked deliveries, dataset versions, quarantine."""

from typing import TYPE_CHECKING

from holdtrue.core.lazy import attach

if TYPE_CHECKING:
    from holdtrue.data.changes import ContractChange, contract_changes
    from holdtrue.data.checking import as_arrow, check_table
    from holdtrue.data.columns import Column, Finding, column
    from holdtrue.data.contract import Contract, Report
    from holdtrue.data.dependence import dependents
    from holdtrue.data.inferring import infer
    from holdtrue.data.intake import ingest, read
    from holdtrue.data.model import (
        DatasetSpec,
        Ingest,
        NewSplit,
        Quarantine,
        QuarantineState,
        check_window,
        check_windows,
    )
    from holdtrue.data.odcs import from_odcs, to_odcs
    from holdtrue.data.profiles import ColumnProfile, Profile, merge_profiles
    from holdtrue.data.profiling import fragment_profile, profile_table
    from holdtrue.data.rules import Distribution, Expect, Fresh, KeyInto, RowCount, TableRule, Unique
    from holdtrue.data.service import (
        accept,
        dataset,
        datasets,
        declare,
        fragments,
        latest,
        quarantines,
        remove,
        request_contract,
    )
    from holdtrue.data.sources.files import read_files
    from holdtrue.data.sources.queries import read_query
    from holdtrue.data.sources.store import read_sql
    from holdtrue.data.splits import Split, part_of
    from holdtrue.data.surroundings import look_around
    from holdtrue.data.tags import Tags
    from holdtrue.data.whole import Around

__all__ = [
    "Around",
    "Column",
    "ColumnProfile",
    "Contract",
    "ContractChange",
    "DatasetSpec",
    "Distribution",
    "Expect",
    "Finding",
    "Fresh",
    "Ingest",
    "KeyInto",
    "NewSplit",
    "Profile",
    "Quarantine",
    "QuarantineState",
    "Report",
    "RowCount",
    "Split",
    "TableRule",
    "Tags",
    "Unique",
    "accept",
    "as_arrow",
    "check_table",
    "check_window",
    "check_windows",
    "column",
    "contract_changes",
    "dataset",
    "datasets",
    "declare",
    "dependents",
    "fragment_profile",
    "fragments",
    "from_odcs",
    "infer",
    "ingest",
    "latest",
    "look_around",
    "merge_profiles",
    "part_of",
    "profile_table",
    "quarantines",
    "read",
    "read_files",
    "read_query",
    "read_sql",
    "remove",
    "request_contract",
    "to_odcs",
]

# The data plane uses the contract's request check and must not load DuckDB or SQLAlchemy for it.
_MODULES: dict[str, tuple[str, ...]] = {
    "changes": ("ContractChange", "contract_changes"),
    "checking": ("as_arrow", "check_table"),
    "columns": ("Column", "Finding", "column"),
    "contract": ("Contract", "Report"),
    "rules": ("Distribution", "Expect", "Fresh", "KeyInto", "RowCount", "TableRule", "Unique"),
    "surroundings": ("look_around",),
    "tags": ("Tags",),
    "splits": ("Split", "part_of"),
    "sources": ("read_files", "read_query", "read_sql"),
    "whole": ("Around",),
    "dependence": ("dependents",),
    "inferring": ("infer",),
    "intake": ("ingest", "read"),
    "odcs": ("from_odcs", "to_odcs"),
    "model": ("DatasetSpec", "Ingest", "NewSplit", "Quarantine", "QuarantineState", "check_window", "check_windows"),
    "profiles": ("ColumnProfile", "Profile", "merge_profiles"),
    "profiling": ("fragment_profile", "profile_table"),
    "service": (
        "accept",
        "dataset",
        "datasets",
        "declare",
        "fragments",
        "latest",
        "quarantines",
        "remove",
        "request_contract",
    ),
}
__getattr__ = attach(__name__, {name: module for module, names in _MODULES.items() for name in names})
