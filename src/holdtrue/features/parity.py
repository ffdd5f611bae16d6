"""Parity by replay: the features that answered are computed once more from history, and compared row by row.

What a mismatch most likely comes from is found by trying: the value at an earlier moment (stale), at a moment some
whole hours off (time zone), from all events that ever came (late), from the events alone (not sent), from rows whose
numbers lost their fractions (type).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from holdtrue.features.model import View
from holdtrue.features.offline import point_in_time
from holdtrue.features.vector import FeatureSet

Cause = Literal["late", "not sent", "type", "stale", "time zone", "request", "unknown"]
Floats: TypeAlias = NDArray[np.float64]
Sources: TypeAlias = Mapping[str, pa.Table]

TOLERANCE = 1e-5
"""The relative difference up to which two values are the same: sums in another order, rounded to float32."""
_HOUR = 3_600_000_000
_ZONES = tuple(hours for hours in range(-14, 15) if hours)
_EARLIER = (60, 300, 900, 3600, 3 * 3600, 6 * 3600, 24 * 3600)
_MOST = 400
_EXAMPLES = 3
_ONE_ZONE = 0.8
_CASTS = (np.trunc, np.rint, np.floor)


@dataclass(frozen=True, slots=True)
class Logged:
    """Hold what was recorded of answers: ids, the request's columns, features by name (float64 [n]), and moments (µs).

    `times` are those for which features were looked up, `recorded` those at which the answers were given.
    """

    ids: list[str]
    requests: pa.Table
    times: NDArray[np.int64]
    recorded: NDArray[np.int64]
    features: Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class History:
    """Hold the rows of each source twice: as accepted in deliveries, and as sent while answers were given.

    `known` are the moments (µs) at which the sent rows arrived, by source; empty where they were not kept.
    """

    accepted: Sources
    sent: Sources = field(default_factory=dict[str, pa.Table])
    known: Mapping[str, NDArray[np.int64]] = field(default_factory=dict[str, NDArray[np.int64]])


def replay(features: FeatureSet, logged: Logged, history: History) -> dict[str, Any]:
    """Return how the recorded features differ from those that history gives, as JSON.

    `rows`, `mismatched` and `rate` count answers; `features` has, for each that differs, how often, by how much, the
    likely causes and examples.
    """
    expected = _computed(features, logged, history.accepted, logged.times)
    wrong: dict[str, NDArray[np.bool_]] = {}
    for name in features.names:
        wrong[name] = ~same(logged.features[name], expected[name])
    rows = len(logged.ids)
    mismatched = np.logical_or.reduce(list(wrong.values())) if wrong and rows else np.zeros(rows, bool)
    report: dict[str, Any] = {
        "rows": rows,
        "mismatched": int(mismatched.sum()),
        "rate": float(mismatched.mean()) if rows else 0.0,
        "compared": len(features.names),
        "features": {},
    }
    views = {name: view for view in features.views for name in view.features}
    for name in features.names:
        places = np.flatnonzero(wrong[name])
        if len(places):
            # Causes are looked for in some, evenly spread: each has to be tried at many moments.
            some = places[np.unique(np.linspace(0, len(places) - 1, _MOST).astype(np.intp))]
            causes = _causes(views.get(name), name, some, logged, expected, history)
            caused = _caused(name, some, causes, logged, expected)
            report["features"][name] = {**_told(name, places, logged, expected), **caused}
    return report


def same(one: Floats, other: Floats) -> NDArray[np.bool_]:
    """Tell which values are the same: equal up to rounding, or missing on both sides."""
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.abs(one - other) <= TOLERANCE * np.maximum(1.0, np.maximum(np.abs(one), np.abs(other)))
    return near | (one == other) | (np.isnan(one) & np.isnan(other))


def _computed(features: FeatureSet, logged: Logged, sources: Sources, times: NDArray[np.int64]) -> Mapping[str, Floats]:
    """Return every feature float64 [n] as it would be at `times`."""
    moment = "prediction moment"
    queries = logged.requests.append_column(moment, pa.array(times))
    joined = point_in_time(queries, features.views, sources, time=moment) if features.views else queries
    matrix = features.assemble_table(joined).astype(np.float64)
    return {name: matrix[:, place] for place, name in enumerate(features.names)}


def _view_values(view: View, name: str, logged: Logged, sources: Sources, times: NDArray[np.int64]) -> Floats:
    """Return one feature of a view at `times`, rounded as a model sees it."""
    moment = "prediction moment"
    queries = logged.requests.select([view.entity]).append_column(moment, pa.array(times))
    found = point_in_time(queries, [view], sources, time=moment)[name].to_numpy()
    return found.astype(np.float32).astype(np.float64)


def _causes(
    view: View | None,
    name: str,
    places: NDArray[np.intp],
    logged: Logged,
    expected: Mapping[str, Floats],
    history: History,
) -> list[Cause]:
    """Return the likely cause of each of these mismatches of one feature."""
    if view is None:
        # Computed from the request alone: the request was read otherwise, or the definition is another.
        return ["request" for _ in places]
    part = _taken(logged, places)
    got, wanted = logged.features[name][places], expected[name][places]
    found: list[Cause] = ["unknown"] * len(places)

    def settle(values: Floats, cause: Cause, among: NDArray[np.bool_] | None = None) -> None:
        hit = same(got, values) if among is None else among
        for place in np.flatnonzero(hit):
            if found[place] == "unknown":
                found[place] = cause

    def at(times: NDArray[np.int64]) -> Floats:
        return _view_values(view, name, part, history.accepted, times)

    for cast in _CASTS:
        rounded = {view.source: _rounded(history.accepted[view.source], view, cast)}
        settle(_view_values(view, name, part, rounded, part.times), "type")
    sent = history.sent.get(view.source)
    if sent is not None and sent.num_rows and _is_text(sent, view.entity) != _is_text(part.requests, view.entity):
        # The text “1” and the number 1 are two entities: what was sent of one is never found for the other.
        settle(got, "type", np.isnan(got) | (got == 0.0))
        sent = None
    if sent is None or not sent.num_rows:
        settle(got, "not sent", np.isnan(got) | (got == 0.0))
        whole = None
    else:
        whole = _view_values(view, name, part, history.sent, part.times)
        # All that was sent gives what was answered: what is missing there was never sent.
        settle(got, "not sent", same(whole, got) & ~same(whole, wanted))
        if view.source in history.known:
            settle(wanted, "late", _late(view, name, part, history, got))
    _settle_zone(settle, at, part.times, got)
    for seconds in _EARLIER:
        settle(at(part.times - seconds * 1_000_000), "stale")
    if whole is not None and view.source not in history.known:
        # When rows came was not kept: they are all here now, and were not all used.
        settle(wanted, "late", same(whole, wanted))
    return found


def _is_text(table: pa.Table, name: str) -> bool:
    kind: Any = table[name].type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _rounded(source: pa.Table, view: View, cast: Callable[[Floats], Floats]) -> pa.Table:
    """Return the rows of a source as they would be if what a view reads were kept as whole numbers."""
    for name in view.reads:
        column = source[name]
        if pa.types.is_floating(column.type):
            values = cast(column.cast(pa.float64()).fill_null(np.nan).to_numpy())
            source = source.set_column(source.column_names.index(name), name, pa.array(values, from_pandas=True))
    return source


def _settle_zone(
    settle: Callable[..., None], at: Callable[[NDArray[np.int64]], Floats], times: NDArray[np.int64], got: Floats
) -> None:
    """Blame the zone only if one number of hours explains most mismatches: stale values have no shift in common."""
    best, hits = 0, 0
    for hours in _ZONES:
        count = int(same(at(times + hours * _HOUR), got).sum())
        if count > hits:
            best, hits = hours, count
    if len(got) >= _EXAMPLES and hits >= _ONE_ZONE * len(got):
        settle(at(times + best * _HOUR), "time zone")


def _late(view: View, name: str, part: Logged, history: History, got: Floats) -> NDArray[np.bool_]:
    """Tell which answers are explained by the rows that had arrived when they were given."""
    known = history.known[view.source]
    source = history.sent[view.source]
    hit = np.zeros(len(got), bool)
    # Answers of one moment saw the same rows and are joined together.
    for moment in np.unique(part.recorded):
        mine = part.recorded == moment
        rows = source.filter(pa.array(known <= moment))
        values = _view_values(view, name, part, {view.source: rows}, part.times)
        hit |= mine & same(values, got)
    return hit


def _taken(logged: Logged, places: NDArray[np.intp]) -> Logged:
    return Logged(
        [logged.ids[place] for place in places],
        logged.requests.take(pa.array(places)),
        logged.times[places],
        logged.recorded[places],
        {name: values[places] for name, values in logged.features.items()},
    )


def _told(name: str, places: NDArray[np.intp], logged: Logged, expected: Mapping[str, Floats]) -> dict[str, Any]:
    gaps = np.abs(logged.features[name][places] - expected[name][places])
    known = gaps[np.isfinite(gaps)]
    return {
        "mismatched": len(places),
        "rate": len(places) / len(logged.ids),
        "largest": float(known.max()) if len(known) else None,
    }


def _caused(
    name: str, places: NDArray[np.intp], causes: Sequence[Cause], logged: Logged, expected: Mapping[str, Floats]
) -> dict[str, Any]:
    return {
        "examined": len(places),
        "causes": dict(Counter(causes).most_common()),
        "examples": [
            {
                "prediction": logged.ids[place],
                "online": _json(float(logged.features[name][place])),
                "offline": _json(float(expected[name][place])),
                "cause": cause,
            }
            for place, cause in list(zip(places, causes, strict=True))[:_EXAMPLES]
        ],
    }


def _json(value: float) -> float | None:
    return value if np.isfinite(value) else None
