"""What each feature of a service is worth, beside what it costs: time to look it up or compute it, and room online."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from holdtrue.core.clock import SystemClock

if TYPE_CHECKING:
    from holdtrue.features import FeatureSet, OnlineStore, View

_CALLS: Final = 200


def worth(content: Mapping[str, Any] | None, features: "FeatureSet", costs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per feature and view: value with its interval from evidence, and costs."""
    known = content or {"features": {}, "views": {}}
    rows: list[dict[str, Any]] = []
    for each in (*features.expressions, *features.functions):
        rows.append(_row(each.feature, "", known["features"].get(each.feature), costs.get(each.feature)))
    for view in features.views:
        rows.append(_row(view.name, "all", known["views"].get(view.name), costs.get(view.name)))
        rows += [_row(name, view.name, known["features"].get(name), None) for name in view.features]
    return rows


def costs_of(
    features: "FeatureSet", store: "OnlineStore | None", rows: Mapping[str, Sequence[Any]], times: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Measure the median microseconds of one row for each view and feature of the request, and bytes kept.

    `rows` are requests by column that were answered, `times` the moments (µs) for which features were looked up.
    """
    found: dict[str, dict[str, Any]] = {}
    for each, alone in _alone(features):
        if all(name in rows for name in alone.inputs) and times:
            single = [{name: [rows[name][place]] for name in alone.inputs} for place in range(len(times))]
            found[each] = {"microseconds": _median(_assembling(alone, single), len(times))}
    if store is None:
        return found
    for view, extent in zip(features.views, store.extents(features.views), strict=True):
        cost: dict[str, Any] = {"bytes": extent.bytes, "entities": extent.entities}
        if view.entity in rows and times:
            cost["microseconds"] = _median(_lookup(store, view, rows[view.entity], times), len(times))
        found[view.name] = cost
    return found


def _alone(features: "FeatureSet") -> "list[tuple[str, FeatureSet]]":
    """Return a set of one feature for each that is computed from the request."""
    from holdtrue.features import FeatureSet

    sets = [(each.feature, FeatureSet((), (each,), features.vocabularies)) for each in features.expressions]
    return sets + [(each.feature, FeatureSet((), (), {}, (each,))) for each in features.functions]


def _assembling(alone: "FeatureSet", rows: Sequence[Mapping[str, Sequence[Any]]]) -> Callable[[int], Any]:
    return lambda place: alone.assemble(rows[place], {})


def _lookup(store: "OnlineStore", view: "View", entities: Sequence[Any], times: Sequence[int]) -> Callable[[int], Any]:
    return lambda place: store.values((view,), {view.entity: entities[place]}, times[place])


def _median(work: Callable[[int], Any], rows: int) -> float:
    clock, seconds = SystemClock(), list[float]()
    for number in range(_CALLS):
        start = clock.monotonic()
        work(number % rows)
        seconds.append(clock.monotonic() - start)
    return round(median(seconds) * 1e6, 2)


def _row(feature: str, view: str, value: Mapping[str, float] | None, cost: Mapping[str, Any] | None) -> dict[str, Any]:
    cost = cost or {}
    return {
        "feature": feature,
        "view": view or None,
        "value": None if value is None else value["value"],
        "lower": None if value is None else value["lower"],
        "upper": None if value is None else value["upper"],
        "below_noise": None if value is None else not value["lower"] > 0.0,
        "microseconds": cost.get("microseconds"),
        "bytes": cost.get("bytes"),
        "entities": cost.get("entities"),
    }
