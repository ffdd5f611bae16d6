"""Look up what a contract needs besides the rows: keys of other datasets, what was accepted before, the time."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from holdtrue.core.errors import InvalidInput
from holdtrue.data.model import DatasetSpec
from holdtrue.data.profiles import merge_profiles
from holdtrue.data.profiling import fragment_profile
from holdtrue.data.reading import read_rows
from holdtrue.data.rules import Distribution, KeyInto
from holdtrue.data.whole import Around
from holdtrue.storage import ActionCache, BlobStore

Fragments = Mapping[str, Mapping[str, Any]]


def look_around(
    spec: DatasetSpec,
    window: str,
    now: datetime,
    stores: tuple[BlobStore, ActionCache],
    fragments_of: Callable[[str], Fragments],
) -> Around:
    """Return what the contract of `spec` needs to check `window`; `fragments_of` gives a dataset's present windows.

    Raises InvalidInput for a key into a dataset without rows or without that column.
    """
    blobs, actions = stores
    rules = spec.contract.rules
    keys = {
        (rule.dataset, rule.of): _keys(rule, fragments_of(rule.dataset), blobs)
        for rule in rules
        if isinstance(rule, KeyInto)
    }
    before = None
    if any(isinstance(rule, Distribution) for rule in rules):
        parts = [part["digest"] for name, part in sorted(fragments_of(spec.name).items()) if name != window]
        profiles = [fragment_profile(blobs, actions, digest)[0] for digest in parts]
        before = merge_profiles(profiles) if profiles else None
    return Around(min(now, month_end(window)), keys, before)


def month_end(window: str) -> datetime:
    """Return the moment at which a month, such as “2013-04”, is over."""
    year, month = (int(part) for part in window.split("-"))
    return datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)


def _keys(rule: KeyInto, fragments: Fragments, blobs: BlobStore) -> pa.ChunkedArray:
    parts: list[pa.ChunkedArray] = []
    for _, part in sorted(fragments.items()):
        with blobs.open(part["digest"]) as file:
            if rule.of in pq.read_schema(file).names:
                parts.append(read_rows(blobs, part["digest"], [rule.of])[rule.of])
    if not parts:
        raise InvalidInput(
            f"“{rule.column}” cannot be checked: {rule.dataset} has no column “{rule.of}” yet."
            if fragments
            else f"“{rule.column}” cannot be checked: no window of {rule.dataset} was accepted yet.",
            why=f"Each value has to be in “{rule.of}” of {rule.dataset}.",
            mend=f"Take {rule.dataset} in first: holdtrue run --ingest {rule.dataset} --window YYYY-MM",
        )
    return pa.chunked_array([part.combine_chunks().unique().drop_null().cast(parts[0].type) for part in parts])
