"""Join labels to predictions: by prediction id or by key, whichever the label has; the label known last wins."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from holdtrue.core.clock import microseconds
from holdtrue.stats.arrays import Floats
from holdtrue.storage import Stores

SCHEMA = pa.schema(
    [
        ("prediction_id", pa.string()),
        ("time", pa.int64()),
        ("key", pa.string()),
        ("entity", pa.string()),
        ("release", pa.string()),
        ("arm", pa.string()),
        ("role", pa.string()),
        ("rollout", pa.string()),
        ("fallback", pa.bool_()),
        ("score", pa.float64()),
        ("label", pa.float64()),
        ("known_at", pa.int64()),
    ]
)
_PREDICTION = [name for name in SCHEMA.names if name not in ("label", "known_at")]
# A label's own time is the moment of the event, which no sane source puts further before its prediction.
_SLACK = timedelta(days=7)


def column(table: pa.Table, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    """Return a column as `kind`, null where it is missing or cannot be read so."""
    if name not in table.column_names:
        return pa.chunked_array([pa.nulls(table.num_rows, kind)])
    values = table[name]
    if values.type == kind:
        return values
    if kind == pa.string() and pa.types.is_floating(values.type):
        # The journal widens whole numbers beside fractions; as names they are still whole numbers.
        return pa.chunked_array([pa.array([_name(value) for value in values.to_pylist()], kind)])
    try:
        return pc.cast(values, kind, safe=False)
    except pa.ArrowInvalid:
        return pa.chunked_array([pa.array([_as(value, kind) for value in values.to_pylist()], kind)])


def _name(value: float | None) -> str | None:
    if value is None:
        return None
    return str(int(value)) if value.is_integer() else str(value)


def _as(value: Any, kind: pa.DataType) -> Any:
    """Return one value as `kind`, or None; the journal makes text of a column that mixes types."""
    if not pa.types.is_floating(kind) or value is None:
        return None
    try:
        return {"true": 1.0, "false": 0.0}.get(value) if value in ("true", "false") else float(value)
    except ValueError:
        return None


def coalesce(first: pa.ChunkedArray, second: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return `first`, with `second` where it is null."""
    return pc.call_function("coalesce", [first, second])


def joined(
    stores: Stores,
    project: str,
    service: str,
    *,
    releases: Collection[str] | None = None,
    since: datetime | int | None = None,
    until: datetime | int | None = None,
) -> pa.Table:
    """Return predictions (answers and shadows) with their labels, in order of time; null where none is in.

    Columns as in SCHEMA: times in microseconds since 1970, `known_at` when the label became known.
    `since` ≤ prediction time < `until`.
    """
    predictions = stores.journal.table(
        "prediction", project, service=service, since=since, until=until, columns=["id", *_PREDICTION]
    )
    if releases is not None and "release" in predictions.column_names:
        predictions = predictions.filter(pc.field("release").isin(sorted(releases)))
    if predictions.num_rows == 0:
        return SCHEMA.empty_table()
    names = ["id", "time", "key", "prediction_id", "value", "known_at"]
    start = None if since is None else (since if isinstance(since, int) else microseconds(since))
    earliest = None if start is None else start - int(_SLACK.total_seconds()) * 1_000_000
    labels = stores.journal.table("label", project, service=service, since=earliest, columns=names)
    columns = {name: column(predictions, name, SCHEMA.field(name).type) for name in _PREDICTION}
    columns["label"], columns["known_at"] = _labels_for(columns["prediction_id"], columns["key"], labels)
    return pa.table(columns, schema=SCHEMA).sort_by([("time", "ascending"), ("prediction_id", "ascending")])


def _labels_for(
    ids: pa.ChunkedArray, keys: pa.ChunkedArray, labels: pa.Table
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Return value and moment of the label of each prediction, null where none is in."""
    known = coalesce(column(labels, "known_at", pa.int64()), column(labels, "time", pa.int64()))
    values = pc.fill_null(column(labels, "value", pa.float64()), math.nan).to_numpy()
    moments = pc.fill_null(known, 0).to_numpy()
    # Latest first and, among equals, last come first: a look-up finds the first of equal keys.
    order = np.lexsort((-np.arange(values.size), -moments))
    order = order[np.isfinite(values[order])]
    values, moments = values[order], moments[order]
    if order.size == 0:
        return _nulls(pa.float64(), len(ids)), _nulls(pa.int64(), len(ids))
    rows = pa.array(order)
    by_id = _find(ids, column(labels, "prediction_id", pa.string()).take(rows))
    by_key = _find(keys, column(labels, "key", pa.string()).take(rows))
    # Rows stand in order of precedence, so that the smaller of two finds is the later label.
    found = np.where(by_id < 0, by_key, np.where(by_key < 0, by_id, np.minimum(by_id, by_key)))
    taken = np.maximum(found, 0)
    missing = found < 0
    return (
        pa.chunked_array([pa.array(values[taken], mask=missing)]),
        pa.chunked_array([pa.array(moments[taken], mask=missing)]),
    )


def _nulls(kind: pa.DataType, n: int) -> pa.ChunkedArray:
    return pa.chunked_array([pa.nulls(n, kind)])


def _find(values: pa.ChunkedArray, among: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return the first row of `among` that equals each value, −1 where there is none or the value is null."""
    options = pc.SetLookupOptions(value_set=among.combine_chunks(), skip_nulls=True)
    found = pc.call_function("index_in", [values], options)
    return pc.fill_null(found, -1).to_numpy().astype(np.int64)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Hold rows that two releases both scored and whose label is in, in the order in which labels came.

    `labels`, `first`, `second` float64[n]; `times` and `known_at` int64[n] in microseconds;
    `prediction_ids` names the rows.
    """

    prediction_ids: tuple[str, ...]
    labels: Floats
    first: Floats
    second: Floats
    times: npt.NDArray[np.int64]
    known_at: npt.NDArray[np.int64]

    @property
    def n(self) -> int:
        """Return the number of rows."""
        return len(self.prediction_ids)


def paired(table: pa.Table, first: str, second: str) -> Pairs:
    """Return the rows of a `joined` table that releases `first` and `second` both scored, fallbacks left out."""
    scores = pc.fill_null(table["score"], math.nan).to_numpy()
    labels = pc.fill_null(table["label"], math.nan).to_numpy()
    fell = pc.fill_null(table["fallback"], False).to_numpy()
    rows = table.filter(pa.array(np.isfinite(scores) & np.isfinite(labels) & ~fell))
    one = rows.filter(pc.field("release") == first)
    two = rows.filter(pc.field("release") == second)
    at = _find(one["prediction_id"], two["prediction_id"])
    one = one.filter(pa.array(at >= 0))
    at = at[at >= 0]
    other = two["score"].to_numpy()[at] if at.size else np.zeros(0)
    known = one["known_at"].to_numpy()
    ids = one["prediction_id"].to_pylist()
    order = np.lexsort((np.array(ids, dtype=str), known))
    return Pairs(
        tuple(ids[row] for row in order),
        one["label"].to_numpy()[order],
        one["score"].to_numpy()[order],
        other[order],
        one["time"].to_numpy()[order],
        known[order],
    )
