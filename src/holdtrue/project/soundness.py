"""Evidence about the rows of a model before it is trained: leakage, overlap, empty columns, doubtful labels."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from holdtrue.features import FeatureSet
from holdtrue.project.definitions import Model
from holdtrue.project.rows import Rows
from holdtrue.stats import binned, own_label_rates, told_by_bins

SUSPECT = 0.98
"""The area under the ROC curve from which a feature alone is suspected to know the label."""
RARE = 1 / 5
"""A label is doubted that is this much rarer among rows like its own than among all."""
_EMPTY = 0.99
_NAMED = 10


def soundness(model: Model, features: FeatureSet, train: Rows, held: Rows) -> dict[str, Any]:
    """Return what is doubtful about training rows and those held out, as numbers that a policy can ask for.

    `leakage`: features that tell the label nearly alone, and what was dated after the prediction. `overlap`: held-out
    rows whose key, or whose features and label, are among the training rows. `empty` and `constant`: features
    without values or with one. `conflicts`: training rows with equal features and another label. `label_noise`:
    training rows whose label is rare among rows like them, and so may be wrong.
    """
    bins = [binned(train.X[:, place].astype(np.float64)) for place in range(len(features.names))]
    events = _events(model, train.y)
    alone = _alone(features.names, bins, events)
    strongest = max(alone, key=lambda name: alone[name], default=None)
    suspects = [name for name in alone if alone[name] >= SUSPECT]
    late = [*_late_inputs(model, train.table), *_own_outcome(model, train.table)]
    missing = {name: float(np.isnan(train.X[:, place]).mean()) for place, name in enumerate(features.names)}
    empty = [name for name, share in missing.items() if share >= _EMPTY]
    constant = [
        name for place, name in enumerate(features.names) if name not in empty and _is_constant(train.X[:, place])
    ]
    return {
        "rows": {"train": len(train.y), "held_out": len(held.y)},
        "leakage": {
            "suspects": len(suspects) + len(late),
            "features": suspects[:_NAMED],
            "late": late[:_NAMED],
            "strongest": strongest or "",
            "strongest_auc": alone[strongest] if strongest else 0.5,
        },
        "overlap": _overlap(model.dataset.spec.key, train, held),
        "empty": {"features": len(empty), "names": empty[:_NAMED]},
        "constant": {"features": len(constant), "names": constant[:_NAMED]},
        "conflicts": {"rows": 0, "share": 0.0} if model.number else _conflicts(train),
        "label_noise": _label_noise(model.dataset.spec.key, bins, train, [] if model.number else events),
    }


def _events(model: Model, y: np.ndarray) -> list[np.ndarray]:
    """Return what a feature could know of the outcome, bool [n] each: that it is true, a class, or above the middle."""
    if model.classes:
        return [y == place for place in range(len(model.classes))]
    return [y > np.median(y)] if model.number else [y.astype(bool)]


def _alone(names: Sequence[str], bins: Sequence[np.ndarray], events: Sequence[np.ndarray]) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for name, each in zip(names, bins, strict=True):
        areas = [area for event in events if (area := told_by_bins(each, event)) is not None]
        if areas:
            found[name] = round(max(areas), 6)
    return found


def _late_inputs(model: Model, table: pa.Table) -> list[str]:
    """Name the moments among the request's columns that are later than the prediction, and not always known.

    A moment that is planned, such as a scheduled departure, is in every row; one that is missing in some rows comes to
    be known, and a row that has it has it from afterwards.
    """
    described = {column.name: column for column in model.dataset.spec.contract.columns}
    found: list[str] = []
    for name in model.asked:
        column = described[name]
        if column.dtype == "timestamp" and column.nullable and (count := _later(table, name, model.time)):
            found.append(f"{name} is after {model.time} in {count} rows")
    return found


def _own_outcome(model: Model, table: pa.Table) -> list[str]:
    """Name the views of the same dataset by which a row would see its own row, and so its own outcome."""
    outcome = set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", model.outcome))
    found: list[str] = []
    for view in model.views:
        read = view.columns if view.view == "latest" else (view.column,)
        # Only where the view reads what the outcome is made of, and from these rows.
        if outcome.isdisjoint(read) or view.time not in table.column_names:
            continue
        if count := table.num_rows - table[view.time].null_count - _later(table, view.time, model.time):
            found.append(f"{view.name} knows the outcome of its own row in {count} rows")
    return found


def _later(table: pa.Table, name: str, moment: str) -> int:
    later = _moments(table, name) > _moments(table, moment)
    return int(np.count_nonzero(later & table[name].is_valid().to_numpy()))


def _moments(table: pa.Table, name: str) -> np.ndarray:
    column = table[name].cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    return column.fill_null(0).to_numpy()


def _is_constant(values: np.ndarray) -> bool:
    there = values[~np.isnan(values)]
    return bool(len(there)) and bool((there == there[0]).all()) and len(there) == len(values)


def _overlap(key: str, train: Rows, held: Rows) -> dict[str, Any]:
    keys = set(train.table[key].to_pylist()) & set(held.table[key].to_pylist())
    known = {row.tobytes() for row in _labelled(train)}
    rows = sum(row.tobytes() in known for row in _labelled(held))
    return {
        "keys": len(keys),
        "examples": sorted(map(str, keys))[:3],
        "rows": rows,
        "share": rows / len(held.y) if len(held.y) else 0.0,
    }


def _labelled(rows: Rows) -> np.ndarray:
    """Return features and label of each row as one row float32[n, k + 1]; 0 and −0 are one value."""
    return np.ascontiguousarray(np.column_stack([rows.X + 0.0, rows.y.astype(np.float32)]).astype(np.float32))


def _conflicts(rows: Rows) -> dict[str, Any]:
    """Count rows whose features another row has with another label: wrong labels, or features too coarse."""
    matrix = np.ascontiguousarray(rows.X + 0.0)
    _, groups = np.unique(
        matrix.view(np.dtype((np.void, matrix.dtype.itemsize * matrix.shape[1]))), return_inverse=True
    )
    groups = groups.ravel()
    n = np.bincount(groups)
    least, most = np.full(n.size, np.inf), np.full(n.size, -np.inf)
    np.minimum.at(least, groups, rows.y)
    np.maximum.at(most, groups, rows.y)
    mixed = least < most
    count = int(n[mixed].sum())
    return {"rows": count, "share": count / len(rows.y) if len(rows.y) else 0.0}


def _label_noise(key: str, bins: Sequence[np.ndarray], rows: Rows, events: Sequence[np.ndarray]) -> dict[str, Any]:
    """Count rows whose label is rare among rows like them, and name those in which it is the rarest."""
    rates, overall = np.ones(len(rows.y)), np.ones(len(rows.y))
    for event in events:
        found = own_label_rates(bins, event)
        if found is None:
            return {"suspects": 0, "share": 0.0, "examples": []}
        # Of classes, a row's own label is that it is of its class.
        mine = event if len(events) > 1 else np.ones(len(event), np.bool_)
        rates[mine] = found[mine]
        overall[mine] = np.where(event, event.mean(), 1 - event.mean())[mine]
    doubted = np.flatnonzero(rates <= overall * RARE)
    worst = doubted[np.argsort(rates[doubted] / overall[doubted], kind="stable")][:_NAMED]
    return {
        "suspects": len(doubted),
        "share": len(doubted) / len(rows.y),
        "examples": [
            {
                "key": str(rows.table[key][int(row)].as_py()),
                "label": int(rows.y[row]),
                "rate": round(float(rates[row]), 4),
            }
            for row in worst
        ],
    }
