"""How an application's answers fared lately: passed their checks, liked, how long they took; from its records."""

from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from holdtrue.core.clock import from_microseconds
from holdtrue.stats.proportions import wilson
from holdtrue.storage import Journal
from holdtrue.web.charts import Chart, Point, Series, Tone
from holdtrue.web.model import AnswersView, CheckRow, Estimate, ReleaseAnswers

LATELY: Final = timedelta(days=7)
_CHECKED: Final = 20_000
_COLUMNS: Final = ("id", "time", "score", "fallback", "latency_us", "cost_micros", "release")
_TONES: Final[tuple[Tone, ...]] = ("one", "two", "three")
_HOUR_US: Final = 3_600_000_000

Floats = NDArray[np.float64]


def lately(journal: Journal, project: str, service: str, now: datetime, *, closely: bool = False) -> AnswersView:
    """Return what is known of a service's answers of the last seven days; `closely` adds each check's share."""
    since = now - LATELY
    columns = [*_COLUMNS, "checks"] if closely else [*_COLUMNS]
    table = journal.table("prediction", project, service=service, since=since, columns=columns)
    score = _floats(table, "score")
    # An answer that its client did not wait for has no score, and is none.
    table, score = table.filter(pa.array(~np.isnan(score))), score[~np.isnan(score)]
    times = table["time"].to_numpy().astype(np.int64) if table.num_rows else np.empty(0, np.int64)
    liking = _liking(journal, project, table, since)
    passed = score >= 1.0
    names = table["release"].to_pylist() if "release" in table.column_names else []
    releases = [name for name in dict.fromkeys(reversed(names)) if name]
    return AnswersView(
        answers=len(score),
        passed=_share(passed),
        liked=_share(liking[~np.isnan(liking)]),
        trend=_points(times, passed, 24),
        releases=tuple(
            _of_release(name, table, passed, liking, np.array([each == name for each in names])) for name in releases
        ),
        checks=_checks(table) if closely else (),
        chart=_chart(times, passed, names, releases),
    )


def _of_release(
    name: str, table: pa.Table, passed: NDArray[np.bool_], liking: Floats, mine: NDArray[np.bool_]
) -> ReleaseAnswers:
    latency, cost = _floats(table, "latency_us")[mine], _floats(table, "cost_micros")[mine]
    latency, cost = latency[~np.isnan(latency)], cost[~np.isnan(cost)]
    failed = np.array(table["fallback"].to_pylist(), np.bool_)[mine] if "fallback" in table.column_names else mine[:0]
    liked = liking[mine]
    return ReleaseAnswers(
        release=name,
        answers=int(mine.sum()),
        passed=_share(passed[mine]),
        failed=int(failed.sum()),
        liked=_share(liked[~np.isnan(liked)]),
        median_seconds=float(np.median(latency)) / 1e6 if len(latency) else None,
        slow_seconds=float(np.quantile(latency, 0.95)) / 1e6 if len(latency) else None,
        cost=float(cost.mean()) / 1e6 if len(cost) else None,
    )


def _floats(table: pa.Table, name: str) -> Floats:
    if name not in table.column_names or pa.types.is_null(table[name].type):
        return np.full(table.num_rows, np.nan)
    return pc.fill_null(table[name].cast(pa.float64()), float("nan")).to_numpy()


def _share(good: NDArray[Any]) -> Estimate | None:
    """Return the share of good ones (each between 0 and 1) with its 95 % interval (Wilson), None of nothing."""
    if not len(good):
        return None
    found = wilson(float(good.sum()), len(good))
    return Estimate(found.value, found.lower, found.upper)


def _liking(journal: Journal, project: str, table: pa.Table, since: datetime) -> Floats:
    """Return for each answer how its first feedback liked it, in [0, 1]; NaN where there is none."""
    feedback = journal.table("feedback", project, since=since, columns=["id", "prediction_id", "value", "low", "high"])
    first: dict[str, float] = {}
    for row in feedback.to_pylist():
        name, value = row.get("prediction_id"), row.get("value")
        if not name or value is None or name in first:
            continue
        low, high = row.get("low") or 0.0, 1.0 if row.get("high") is None else row["high"]
        first[name] = min(max((value - low) / (high - low) if high > low else value, 0.0), 1.0)
    if not first or not table.num_rows:
        return np.full(table.num_rows, np.nan)
    return np.array([first.get(name, np.nan) for name in table["id"].to_pylist()], np.float64)


def _checks(table: pa.Table) -> tuple[CheckRow, ...]:
    """Return the share of the newest answers that passed each check, the worst first."""
    values: dict[str, list[float]] = {}
    texts = table["checks"].to_pylist()[-_CHECKED:] if "checks" in table.column_names else []
    for text in texts:
        for name, value in orjson.loads(text or "{}").items():
            values.setdefault(name, []).append(float(value))
    rows = [CheckRow(name, len(mine), _share(np.array(mine))) for name, mine in values.items()]
    return tuple(sorted(rows, key=lambda row: (row.passed.value if row.passed else 0.0, row.name)))


def _points(times: NDArray[np.int64], passed: NDArray[np.bool_], hours: int) -> tuple[Point, ...]:
    """Return the share that passed by stretches of so many hours."""
    width = hours * _HOUR_US
    found: list[Point] = []
    for start in np.unique(times // width).tolist():
        share = _share(passed[times // width == start])
        middle = from_microseconds(start * width + width // 2)
        assert share is not None, "there is one answer at least"
        found.append(Point(middle, share.value, share.lower, share.upper))
    return tuple(found)


def _chart(times: NDArray[np.int64], passed: NDArray[np.bool_], names: list[Any], releases: list[str]) -> Chart:
    series = [
        Series(name, tone, _points(times[mine], passed[mine], 24))
        for name, tone in zip(releases, _TONES, strict=False)
        if (mine := np.array([each == name for each in names], np.bool_)).any()
    ]
    return Chart(
        title="Answers that passed their checks, by day",
        summary="Share of each release's answers that passed all checks, with 95 % intervals, in the last seven days.",
        series=tuple(series),
        unit="share",
        by="day",
    )
