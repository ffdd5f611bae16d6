"""Show that a whole column keeps a rule, by its extremes and its different values, without looking at each row.

What cannot be shown is left to the scan, which alone says that a rule is broken and by which rows.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from holdtrue.data.columns import Column
from holdtrue.data.profiling import hashes_of, plain_texts
from holdtrue.stats import all_differ, mixed

_FEW = 1 << 16


def kept(column: Column, values: pa.ChunkedArray) -> frozenset[str]:
    """Return those rules of `column` that all `values` (of its own type) certainly keep."""
    found: set[str] = set()
    extremes = _extremes(column, values)
    if extremes is not None:
        low, high = extremes
        # Whole numbers are compared as such: Python's own comparison with a double is exact.
        if column.ge is not None and low >= column.ge:
            found.add("ge")
        if column.le is not None and high <= column.le:
            found.add("le")
    if not column.nullable and not values.null_count and (column.dtype != "float64" or extremes is not None):
        found.add("null")
    if column.isin is not None and _all_in(values, column.isin):
        found.add("isin")
    if column.unique and column.dtype in ("string", "int64", "timestamp") and _all_differ(column, values):
        found.add("unique")
    return frozenset(found)


def _extremes(column: Column, values: pa.ChunkedArray) -> tuple[float, float] | None:
    """Return the smallest and largest of numbers; None if there are none, or some is no number."""
    wanted = column.ge is not None or column.le is not None or (column.dtype == "float64" and not column.nullable)
    if column.dtype not in ("int64", "float64") or not wanted:
        return None
    there = values.drop_null() if values.null_count else values
    chunks = [np.asarray(chunk) for chunk in there.chunks if len(chunk)]
    if not chunks:
        return None
    low, high = min(chunk.min() for chunk in chunks), max(chunk.max() for chunk in chunks)
    # min and max of numpy give NaN if there is one; Python's may lose it between chunks.
    if column.dtype == "float64" and any(np.isnan(chunk.min()) for chunk in chunks):
        return None
    return low.item(), high.item()


def _all_in(values: pa.ChunkedArray, allowed: tuple[str, ...]) -> bool:
    if len(allowed) > _FEW:
        return False
    different: Any = values.unique().drop_null()
    return len(different) <= len(allowed) and set(different.to_pylist()) <= set(allowed)


def _all_differ(column: Column, values: pa.ChunkedArray) -> bool:
    """Tell whether no value occurs twice: of texts, no two have one hash, and then no two are equal."""
    if column.dtype == "string":
        return all_differ(hashes_of(plain_texts(values)))
    whole = np.asarray((values.drop_null() if values.null_count else values).cast(pa.int64()))
    return bool((whole[1:] > whole[:-1]).all()) or all_differ(mixed(whole))
