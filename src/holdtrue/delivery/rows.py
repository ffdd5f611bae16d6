"""Rows of the journal's tables as plain objects."""

from typing import Any

import pyarrow as pa


def rows_of(table: pa.Table, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the rows as objects with exactly `names`; a column the table lacks is null."""
    columns = [
        table.column(name).to_pylist() if name in table.column_names else [None] * table.num_rows for name in names
    ]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
