"""Conditions on the columns of Arrow tables; of a column that is missing, or all null, nothing holds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def among(table: pa.Table, name: str, values: Sequence[str]) -> Mask:
    """Tell which rows have one of `values` in a column of texts."""
    return _holds(table, name, "is_in", pc.SetLookupOptions(pa.array(values, pa.string())))


def equal(table: pa.Table, name: str, value: str) -> Mask:
    """Tell which rows have `value` in a column of texts."""
    return among(table, name, [value])


def containing(table: pa.Table, name: str, text: str) -> Mask:
    """Tell which rows have a text somewhere in a column of texts."""
    return _holds(table, name, "match_substring", pc.MatchSubstringOptions(text))


def matching(table: pa.Table, name: str, pattern: str) -> Mask:
    """Tell which rows match a regular expression (RE2) somewhere in a column of texts."""
    return _holds(table, name, "match_substring_regex", pc.MatchSubstringOptions(pattern))


def chosen(table: pa.Table, mask: Mask) -> pa.Table:
    """Return the rows for which the mask is true."""
    return table.filter(pa.array(mask))


def _holds(table: pa.Table, name: str, function: str, options: Any) -> Mask:
    if name not in table.column_names or not pa.types.is_string(table[name].type):
        return np.zeros(table.num_rows, np.bool_)
    found = pc.call_function("coalesce", [pc.call_function(function, [table[name]], options), pa.scalar(False)])
    return np.array(found)
